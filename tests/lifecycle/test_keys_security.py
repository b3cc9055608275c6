"""The keys of config/keys/security.py, by what they do."""

from __future__ import annotations

import array
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import netns
import pytest
from pythoninit import PYTHON, python, said

from lxcpy.errors import SecurityError
from lxcpy.kernel import seccomp as kernel

pytestmark = pytest.mark.requires("root", "busybox")
ROOT = Path(__file__).parent.parent.parent
IDS = "lxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 200000 65536\n"

if TYPE_CHECKING:
    from conftest import Box, Define


def bounding(one: Box) -> int:
    return int(one.status("CapBnd"), 16)


def refused(one: Box, script: str) -> str:
    """What a script inside says that must fail."""
    return one.sh(f"! {{ {script}; }} 2>&1")


def test_cap_drop(box: Define) -> None:
    one, all_of_them = box("lxc.cap.drop = sys_time mknod\nlxc.cap.drop = 16\n"), box()
    one.start()
    all_of_them.start()
    assert bounding(all_of_them) & ~bounding(one) == 1 << 25 | 1 << 27 | 1 << 16
    assert int(one.status("CapEff"), 16) == bounding(one)
    assert "Operation not permitted" in refused(one, "busybox mknod /tmp/x c 1 3")


def test_cap_keep(box: Define) -> None:
    one = box("lxc.cap.keep = kill net_bind_service\n")
    one.start()
    assert bounding(one) == int(one.status("CapEff"), 16) == 1 << 5 | 1 << 10


def test_idmap(box: Define) -> None:
    one = box(IDS)
    subprocess.run(["chown", "-hR", "100000:200000", one.rootfs], check=True)
    one.start()
    for kind, first in (("uid", "100000"), ("gid", "200000")):
        with open(f"/proc/{one.init_pid}/{kind}_map") as file:
            assert file.read().split() == ["0", first, "65536"]
    assert os.readlink(f"/proc/{one.init_pid}/ns/user") != os.readlink("/proc/self/ns/user")
    assert one.sh("id -u; id -g; : > /made") == "0\n0\n"
    info = os.stat(f"{one.rootfs}/made")
    assert (info.st_uid, info.st_gid) == (100000, 200000)


def test_no_new_privs(box: Define) -> None:
    one = box("lxc.no_new_privs = 1\n")
    one.start()
    assert one.status("NoNewPrivs") == "1"
    assert "NoNewPrivs:\t1" in one.sh("grep NoNewPrivs /proc/self/status")


# -- system calls ----------------------------------------------------------------------------------------------------


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    path = tmp_path / "policy"
    path.write_text("2\ndenylist\nmkdir errno 7\nmkdirat errno 7\n")
    return path


@pytest.mark.requires("libseccomp")
def test_seccomp_profile(box: Define, policy: Path) -> None:
    one = box(f"lxc.seccomp.profile = {policy}\n")
    one.start()
    assert one.status("Seccomp") == "2"
    assert "Argument list too long" in refused(one, "busybox mkdir /tmp/x")


UNDER_A_FILTER = """\
import sys
sys.path[:] = {path!r}
from lxcpy.runtime import client
from lxcpy.security import seccomp
seccomp.apply(seccomp.compile(seccomp.parse("2\\ndenylist\\nkexec_load errno 1\\n", "f")))
client.connect().close()
"""


@pytest.mark.requires("libseccomp")
def test_seccomp_allow_nesting(own_host: str, box: Define, policy: Path) -> None:
    """With a supervisor that is under a filter itself."""
    code = UNDER_A_FILTER.format(path=sys.path)
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
    profile = f"lxc.seccomp.profile = {policy}\n"
    nested, other = box(f"{profile}lxc.seccomp.allow_nesting = 1\n"), box(profile)
    nested.start()
    other.start()
    assert (nested.status("Seccomp_filters"), other.status("Seccomp_filters")) == ("2", "1")


HEADER = struct.Struct("=Qii3HxxQ")


def answer_one(server: socket.socket, value: int) -> tuple[int, str]:
    """As the proxy, answer one call with a value: init's pid and the cookie that came with it."""
    size = HEADER.size + kernel.NOTIFICATION.size + kernel.RESPONSE.size
    connection, _ = server.accept()
    with connection:
        connection.settimeout(10)
        message, rights, _, _ = connection.recvmsg(4096, 256)
        for fd in array.array("i", rights[0][2]):
            os.close(fd)
        number, *_ = kernel.NOTIFICATION.unpack_from(message, HEADER.size)
        answer = bytearray(message[:size])
        kernel.RESPONSE.pack_into(answer, size - kernel.RESPONSE.size, number, value, 0, 0)
        connection.send(answer)
    return HEADER.unpack_from(message)[2], message[size:].decode()


def notified(define: Callable[[str], Box], policy: Path, extra: str) -> tuple[Box, tuple[int, str], str]:
    """A container whose getpgid() is answered here: it, what the proxy was told, and what init got."""
    policy.write_text("2\ndenylist\ngetpgid notify\n")
    path = policy.parent / "proxy"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
        server.bind(str(path))
        server.listen()
        server.settimeout(10)
        config = f"lxc.seccomp.profile = {policy}\nlxc.seccomp.notify.proxy = unix:{path}\n{extra}{PYTHON}"
        one = python(define(config), "say(os.getpgid(0))")
        one.start()
        told = answer_one(server, 4242)
    return one, told, said(one)


@pytest.mark.requires("libseccomp")
def test_seccomp_notify_proxy(box: Define, policy: Path) -> None:
    one, (pid, _cookie), got = notified(box, policy, "")
    assert got == "4242"
    assert pid == one.init_pid


@pytest.mark.requires("libseccomp")
def test_seccomp_notify_cookie(box: Define, policy: Path) -> None:
    assert notified(box, policy, "lxc.seccomp.notify.cookie = a cookie\n")[1][1] == "a cookie"


# -- labels ----------------------------------------------------------------------------------------------------------


def label(one: Box) -> str:
    """Init's AppArmor profile."""
    return Path(f"/proc/{one.init_pid}/attr/apparmor/current").read_text().strip()


@pytest.mark.requires("apparmor")
def test_apparmor_profile(box: Define) -> None:
    one, free = box("lxc.apparmor.profile = generated\n"), box("lxc.apparmor.profile = unconfined\n")
    one.start()
    free.start()
    assert label(one) == f"lxc-{one.name}_<{one.lxcpath}> (enforce)"
    assert label(free) == "unconfined"


@pytest.mark.requires("apparmor")
def test_apparmor_raw(box: Define) -> None:
    one = box("lxc.apparmor.profile = generated\nlxc.apparmor.raw = deny /etc/secret r,\n")
    Path(one.rootfs, "etc/secret").touch()
    one.start()
    assert "Permission denied" in refused(one, "cat /etc/secret")
    assert one.sh("cat /etc/passwd")


@pytest.mark.requires("apparmor")
def test_apparmor_allow_incomplete(own_host: str, box: Define) -> None:
    """Where the kernel does not tell of mount rules, as those before 4.14 do not: nothing starts without the key."""
    netns.sh("mount -t tmpfs tmpfs /sys/kernel/security/apparmor/features/mount")
    one, other = box("lxc.apparmor.profile = generated\nlxc.apparmor.allow_incomplete = 1\n"), box()
    with pytest.raises(SecurityError, match="does not control mounts"):
        other.start()
    one.start()
    assert label(one) == f"lxc-{one.name}_<{one.lxcpath}> (enforce)"


def test_apparmor_allow_nesting(box: Define) -> None:
    """Beside its rules, for which the kernel must have AppArmor: a proc and a sys that nothing covers."""
    entry = "lxc.mount.entry = tmpfs srv tmpfs create=dir 0 0\n"
    one, other = box(f"lxc.apparmor.allow_nesting = 1\n{entry}"), box(entry)
    one.start()
    other.start()
    assert {"proc /dev/.lxc/proc proc", "sys /dev/.lxc/sys sysfs"} <= {
        " ".join(line.split()[:3]) for line in one.sh("cat /proc/mounts").splitlines()
    }
    assert "/dev/.lxc" not in other.sh("cat /proc/mounts")


CONTEXT = "system_u:system_r:container_t:s0"
GET_SECURITY = 17  # keyctl(2)


@pytest.mark.requires("selinux")
def test_selinux_context(box: Define) -> None:
    one, other = box(f"lxc.selinux.context = {CONTEXT}\n"), box()
    one.start()
    other.start()
    labels = [Path(f"/proc/{each.init_pid}/attr/current").read_text().rstrip("\0\n") for each in (one, other)]
    assert labels[0] == CONTEXT != labels[1]


@pytest.mark.requires("selinux")
def test_selinux_context_keyring(box: Define) -> None:
    """The label of init's session keyring, as the kernel tells its owner."""
    code = f"""
label = ctypes.create_string_buffer(200)
ctypes.CDLL(None).syscall(250, {GET_SECURITY}, -3, label, 200)
say(label.value.decode())
"""
    one = python(box(f"lxc.selinux.context.keyring = {CONTEXT}\n{PYTHON}"), code)
    one.start()
    assert said(one) == CONTEXT
