"""The keys of config/keys/init.py, by what they do."""

from __future__ import annotations

import ctypes
import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from pythoninit import PYTHON, python, said

from lxcpy.errors import ConfigError

pytestmark = pytest.mark.requires("root", "busybox")
Run = Callable[..., "subprocess.CompletedProcess[str]"]

if TYPE_CHECKING:
    from conftest import Box, Define


def test_init_cmd(box: Define) -> None:
    one = box("lxc.init.cmd = /bin/sh /init one 'two words'\n")
    one.start()
    assert one.inside("proc/1/cmdline") == "/bin/sh\0/init\0one\0two words\0"


def test_init_uid(box: Define) -> None:
    one = box("lxc.init.uid = 7\n")
    one.start()
    assert one.status("Uid").split() == ["7"] * 4
    assert one.status("Groups") == ""
    assert int(one.status("CapEff"), 16) == 0


def test_init_gid(box: Define) -> None:
    one = box("lxc.init.gid = 8\n")
    one.start()
    assert one.status("Gid").split() == ["8"] * 4
    assert one.status("Groups") == ""


def test_init_groups(box: Define) -> None:
    one = box("lxc.init.groups = 10,20\nlxc.init.groups = 30\n")
    one.start()
    assert one.status("Groups").split() == ["10", "20", "30"]


def test_init_cwd(box: Define) -> None:
    one = box("lxc.init.cwd = /srv/deep\n")
    one.start()
    assert os.readlink(f"/proc/{one.init_pid}/cwd").endswith("/srv/deep")
    assert os.path.isdir(f"{one.rootfs}/srv/deep")  # made, as LXC 7 does


def test_execute_cmd(box: Define) -> None:
    one = box("lxc.execute.cmd = /bin/sleep 1234\n")
    one.start(command=[])
    assert one.sh("cat /proc/2/cmdline").split("\0")[:2] == ["/bin/sleep", "1234"]


# -- environment -----------------------------------------------------------------------------------------------------


def test_environment(box: Define, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OF_THE_CALLER", "given")
    words = "lxc.environment = EVERYWHERE=a b\nlxc.environment = OF_THE_CALLER\n"
    one = box(f"{words}lxc.hook.pre-start = env > {tmp_path}/hook; true\n")
    one.start()
    for found in (one.environment(), (tmp_path / "hook").read_text().splitlines()):
        assert {"EVERYWHERE=a b", "OF_THE_CALLER=given"} <= set(found)


def test_environment_that_the_caller_lacks(box: Define) -> None:
    one = box("lxc.environment = NOBODY_HAS_THIS\n")
    with pytest.raises(ConfigError, match="NOBODY_HAS_THIS"):
        one.start()


def test_environment_runtime(box: Define, tmp_path: Path) -> None:
    one = box(f"lxc.environment.runtime = ONLY=init\nlxc.hook.pre-start = env > {tmp_path}/hook; true\n")
    one.start()
    assert "ONLY=init" in one.environment()
    assert "ONLY=init" not in (tmp_path / "hook").read_text().splitlines()


def test_environment_hooks(box: Define, tmp_path: Path) -> None:
    one = box(f"lxc.environment.hooks = ONLY=hooks\nlxc.hook.pre-start = env > {tmp_path}/hook; true\n")
    one.start()
    assert "ONLY=hooks" not in one.environment()
    assert "ONLY=hooks" in (tmp_path / "hook").read_text().splitlines()


# -- signals ---------------------------------------------------------------------------------------------------------


def listening(one: Box, name: str, does: str) -> Box:
    """Init does something for one signal and nothing for the others that it can ignore."""
    deaf = " ".join(word for word in ("PWR", "INT", "TERM", "USR1", "USR2", "RTMIN+3") if word != name)
    script = f"trap '' {deaf}\ntrap '{does}' {name}\n: > /ready\nwhile :; do sleep 1000 & wait $!; done\n"
    Path(one.rootfs, "init").write_text(script)
    return one


def await_ready(one: Box) -> None:
    deadline = time.monotonic() + 10
    while not os.path.exists(f"{one.rootfs}/ready"):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_signal_halt(box: Define) -> None:
    one = listening(box("lxc.signal.halt = SIGUSR1\n"), "USR1", "echo halted > /said; exit 0")
    one.start()
    await_ready(one)
    assert one.shutdown(3)
    assert Path(one.rootfs, "said").read_text() == "halted\n"


def test_signal_reboot(box: Define) -> None:
    one = listening(box("lxc.signal.reboot = SIGUSR2\n"), "USR2", "/bin/reboot -f")
    first = one.start().pid
    await_ready(one)
    assert one.reboot(3)
    assert one.init_pid not in (0, first)


def test_signal_stop(box: Define) -> None:
    one = listening(box("lxc.signal.stop = SIGTERM\n"), "TERM", "echo stopped > /said; exit 0")
    one.start()
    await_ready(one)
    assert one.kill(3)
    assert Path(one.rootfs, "said").read_text() == "stopped\n"


# -- namespaces and clocks -------------------------------------------------------------------------------------------

NAMES = ("mnt", "pid", "uts", "ipc", "net", "cgroup")


def spaces(pid: int | str) -> dict[str, str]:
    return {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in (*NAMES, "user", "time")}


def own(one: Box) -> set[str]:
    """The namespaces of a container that are not ours."""
    ours, theirs = spaces("self"), spaces(one.init_pid)
    return {name for name in ours if ours[name] != theirs[name]}


def test_namespace_clone(box: Define) -> None:
    one, all_of_them = box("lxc.namespace.clone = mnt pid net time\n"), box()
    one.start()
    all_of_them.start()
    assert own(one) == {"mnt", "pid", "net", "time"}
    assert own(all_of_them) == set(NAMES)


def test_namespace_keep(box: Define) -> None:
    one = box("lxc.namespace.keep = uts ipc\n")
    one.start()
    assert own(one) == set(NAMES) - {"uts", "ipc"}


def test_namespace_share(box: Define) -> None:
    first = box()
    first.start()
    by_path = f"lxc.namespace.share.ipc = {first.lxcpath}/{first.name}\n"
    by_pid = f"lxc.namespace.share.uts = {first.init_pid}\n"
    second = box(by_path + by_pid)
    second.start()
    theirs, found = spaces(first.init_pid), spaces(second.init_pid)
    assert {name for name in NAMES if theirs[name] == found[name]} == {"ipc", "uts"}


def clock(one: Box, path: str) -> float:
    return float(one.sh(f"cat {path}").split()[0])


def test_time_offset_boot(box: Define) -> None:
    one = box("lxc.time.offset.boot = 1000h\n")
    one.start()
    with open("/proc/uptime") as file:
        host = float(file.read().split()[0])
    assert 0 <= clock(one, "/proc/uptime") - host - 3_600_000 < 60
    with open(f"/proc/{one.init_pid}/timens_offsets") as file:
        assert file.read().split()[3:] == ["boottime", "3600000", "0"]


def test_time_offset_monotonic(box: Define) -> None:
    one = python(box("lxc.time.offset.monotonic = 90m\n" + PYTHON), "say(time.clock_gettime(time.CLOCK_MONOTONIC))")
    one.start()
    ahead = float(said(one)) - time.clock_gettime(time.CLOCK_MONOTONIC)
    assert 5400 - 60 < ahead <= 5400


# -- what only the process itself can tell ---------------------------------------------------------------------------

PR_SCHED_CORE, PR_SCHED_CORE_GET = 62, 0


@pytest.mark.requires("sched-core")
def test_sched_core(box: Define) -> None:
    """The kernel gives it a cookie of its own."""
    cookies = []
    for one in (box("lxc.sched.core = 1\n"), box("lxc.sched.core = 1\n"), box()):
        one.start()
        cookie = ctypes.c_ulong()
        assert ctypes.CDLL(None).prctl(PR_SCHED_CORE, PR_SCHED_CORE_GET, one.init_pid, 0, ctypes.byref(cookie)) == 0
        cookies.append(cookie.value)
    assert cookies[0] != cookies[1] and cookies[0] and cookies[1] and not cookies[2]


KEYCTL, GET_KEYRING_ID, SESSION = 250, 0, -3  # x86_64; keyctl(2)


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the number of keyctl(2) is x86_64's")
def test_keyring_session(own_host: str, box: Define) -> None:
    """With 1 it is that of who brought up the supervisor: this process."""
    libc = ctypes.CDLL(None)
    here = libc.syscall(KEYCTL, GET_KEYRING_ID, SESSION, 0)
    code = f"say(ctypes.CDLL(None).syscall({KEYCTL}, {GET_KEYRING_ID}, {SESSION}, 0))"
    found = {}
    for word in ("0", "1"):
        one = python(box(f"lxc.keyring.session = {word}\n{PYTHON}"), code)
        one.start()
        found[word] = int(said(one))
    assert found["1"] == here != found["0"]


# -- limits ----------------------------------------------------------------------------------------------------------


def limits(one: Box) -> dict[str, list[str]]:
    with open(f"/proc/{one.init_pid}/limits") as file:
        return {line[:26].strip(): line[26:].split()[:2] for line in file}


def test_prlimit(box: Define) -> None:
    one = box("lxc.prlimit.nofile = 123:456\nlxc.prlimit.core = 0:unlimited\nlxc.prlimit.sigpending = 77\n")
    one.start()
    found = limits(one)
    assert found["Max open files"] == ["123", "456"]
    assert found["Max core file size"] == ["0", "unlimited"]
    assert found["Max pending signals"] == ["77", "77"]
    assert one.sh("ulimit -n") == "123\n"


def test_sysctl(box: Define) -> None:
    one = box("lxc.sysctl.net.ipv4.ip_forward = 1\nlxc.sysctl.kernel.shmmni = 321\n")
    one.start()
    assert one.sh("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni") == "1\n321\n"


def test_proc(box: Define) -> None:
    one = box("lxc.proc.oom_score_adj = 77\nlxc.proc.coredump_filter = 0x1f\n")
    one.start()
    assert one.sh("cat /proc/1/oom_score_adj /proc/1/coredump_filter").split() == ["77", "0000001f"]
