"""The keys of config/keys/hooks.py, by what they do: where and when each hook runs, and what it is told."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from lxcpy.errors import HookError

pytestmark = pytest.mark.requires("root", "busybox")
Run = Callable[..., "subprocess.CompletedProcess[str]"]
# its process's namespaces and what it is told, into the file that HOOK_LOG names
SCRIPT = """\
#!/bin/sh
echo "$*" > $HOOK_LOG.new
for name in mnt net; do readlink /proc/self/ns/$name; done >> $HOOK_LOG.new
env >> $HOOK_LOG.new
mv $HOOK_LOG.new $HOOK_LOG
"""

if TYPE_CHECKING:
    from conftest import Box, Define


class Seen(NamedTuple):
    """What a hook has seen."""

    arguments: str
    mnt: str
    net: str
    environment: dict[str, str]


def read(path: Path | str) -> Seen:
    arguments, mnt, net, *environment = Path(path).read_text().splitlines()
    return Seen(arguments, mnt, net, dict(line.split("=", 1) for line in environment if "=" in line))


def space(pid: int | str, name: str) -> str:
    return os.readlink(f"/proc/{pid}/ns/{name}")


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "hook"
    path.write_text(SCRIPT)
    path.chmod(0o755)
    return path


def hooked(box: Define, script: Path, key: str, extra: str = "") -> tuple[Box, Path]:
    """A container with this hook, and the file it will write."""
    seen = script.parent / "seen"
    return box(f"lxc.environment.hooks = HOOK_LOG={seen}\nlxc.hook.{key} = {script}\n{extra}"), seen


def test_hook(box: Define, tmp_path: Path) -> None:
    """Empty, it forgets all hooks."""
    one = box(f"lxc.hook.pre-start = touch {tmp_path}/ran; true\nlxc.hook.mount = false\nlxc.hook =\n")
    one.start()
    assert not (tmp_path / "ran").exists()


def test_hook_version(box: Define, script: Path) -> None:
    one, seen = hooked(box, script, "pre-start", "lxc.hook.version = 1\n")
    one.start()
    found = read(seen)
    assert found.arguments == ""
    assert found.environment["LXC_HOOK_TYPE"] == "pre-start"
    assert found.environment["LXC_HOOK_SECTION"] == "lxc"


def test_hook_pre_start(box: Define, script: Path) -> None:
    """On the host, before anything is made: it may make the rootfs."""
    one, seen = hooked(box, script, "pre-start", "lxc.hook.pre-start = mv {rootfs}.not-yet {rootfs}; true\n")
    os.rename(one.rootfs, f"{one.rootfs}.not-yet")
    one.start()
    found = read(seen)
    assert found.arguments == f"{one.name} lxc pre-start"
    assert (found.mnt, found.net) == (space("self", "mnt"), space("self", "net"))
    assert "LXC_PID" not in found.environment
    assert found.environment["LXC_ROOTFS_PATH"] == f"dir:{one.rootfs}"


def test_hook_pre_mount(box: Define, script: Path, tmp_path: Path) -> None:
    """In the container's namespaces, before its root filesystem is mounted."""
    look = f"grep {{name}}/rootfs /proc/self/mountinfo > {tmp_path}/mounted; true"
    more = f"lxc.hook.pre-mount = sh -c '{look}'\n"
    one, seen = hooked(box, script, "pre-mount", more)
    one.start()
    found = read(seen)
    assert found.arguments == f"{one.name} lxc pre-mount"
    assert (found.mnt, found.net) == (space(one.init_pid, "mnt"), space(one.init_pid, "net"))
    assert (tmp_path / "mounted").read_text() == ""


def test_hook_mount(box: Define, script: Path) -> None:
    """There too, when everything is mounted; what it mounts below LXC_ROOTFS_MOUNT is the container's."""
    one, seen = hooked(box, script, "mount", "lxc.hook.mount = mount -t ramfs ramfs $LXC_ROOTFS_MOUNT/tmp; true\n")
    one.start()
    found = read(seen)
    assert found.arguments == f"{one.name} lxc mount"
    assert (found.mnt, found.net) == (space(one.init_pid, "mnt"), space(one.init_pid, "net"))
    assert "ramfs /tmp ramfs" in one.sh("cat /proc/mounts")


def test_hook_autodev(box: Define, script: Path) -> None:
    """It adds a device to the container's /dev; without a /dev of its own it does not run."""
    make = "lxc.hook.autodev = mknod $LXC_ROOTFS_MOUNT/dev/mine c 1 3; true\n"
    one, seen = hooked(box, script, "autodev", make)
    one.start()
    found = read(seen)
    assert found.arguments == f"{one.name} lxc autodev"
    assert found.mnt == space(one.init_pid, "mnt")
    info = os.stat(f"/proc/{one.init_pid}/root/dev/mine")
    assert stat.S_ISCHR(info.st_mode) and info.st_rdev == os.makedev(1, 3)
    other = box(f"lxc.autodev = 0\n{make}")
    os.mkdir(f"{other.rootfs}/dev/pts")
    other.start()
    assert not os.path.exists(f"{other.rootfs}/dev/mine")


def test_hook_start_host(box: Define, script: Path, tmp_path: Path) -> None:
    """On the host, when only the exec of init is left."""
    more = f"lxc.hook.start-host = tr '\\0' ' ' < /proc/$LXC_PID/cmdline > {tmp_path}/before; true\n"
    one, seen = hooked(box, script, "start-host", more)
    one.start()
    found = read(seen)
    assert found.arguments == f"{one.name} lxc start-host"
    assert found.mnt == space("self", "mnt")
    assert found.environment["LXC_PID"] == str(one.init_pid)
    assert "/init" not in (tmp_path / "before").read_text()


def test_hook_start(box: Define) -> None:
    """Inside, just before init, with the container's rights."""
    one = box("lxc.cap.drop = sys_time\nlxc.hook.start = /hook\nlxc.environment.hooks = HOOK_LOG=/seen\n")
    Path(one.rootfs, "hook").write_text(SCRIPT.replace("env >>", "grep CapBnd /proc/self/status >>"))
    os.chmod(f"{one.rootfs}/hook", 0o755)
    os.symlink("busybox", f"{one.rootfs}/bin/mv")
    one.start()
    arguments, mnt, net, bounding = Path(one.rootfs, "seen").read_text().splitlines()
    assert arguments == f"{one.name} lxc start"
    assert (mnt, net) == (space(one.init_pid, "mnt"), space(one.init_pid, "net"))
    assert not int(bounding.split()[1], 16) >> 25 & 1


def test_hook_stop(box: Define, script: Path) -> None:
    """On the host, with the container's namespaces, whose init has ended."""
    look = "lxc.hook.stop = nsenter --net=$LXC_NET_NS readlink /proc/self/ns/net > $HOOK_LOG.net; true\n"
    one, seen = hooked(box, script, "stop", look)
    one.start()
    pid, net = one.init_pid, space(one.init_pid, "net")
    one.kill(10)
    found = read(seen)
    assert found.arguments.split()[:3] == [one.name, "lxc", "stop"]
    assert any(word.startswith("net:/proc/") for word in found.arguments.split())
    assert found.environment["LXC_TARGET"] == "stop"
    assert found.environment["LXC_PID"] == str(pid)
    assert Path(f"{seen}.net").read_text().strip() == net


def test_hook_post_stop(box: Define, script: Path) -> None:
    """On the host, when the container's groups are gone; told whether it is for a reboot."""
    look = "lxc.hook.post-stop = sh -c 'ls -d /sys/fs/cgroup/*/lxc.payload.{name} >> $HOOK_LOG.groups; true'\n"
    one, seen = hooked(box, script, "post-stop", look)
    one.start()
    assert one.await_traps().reboot(10)
    assert read(seen).environment["LXC_TARGET"] == "reboot"
    one.kill(10)
    found = read(seen)
    assert found.arguments == f"{one.name} lxc post-stop"
    assert found.environment["LXC_TARGET"] == "stop"
    assert Path(f"{seen}.groups").read_text() == ""


def test_hook_clone(box: Define, script: Path, run: Run, names: Callable[[], str]) -> None:
    """On the host, in a mount namespace of its own, when the copy is there: for the copy, told of the original."""
    look = "lxc.hook.clone = sh -c 'echo mine > $LXC_ROOTFS_MOUNT/etc/marker; true'\n"
    one, seen = hooked(box, script, "clone", look)
    name = names()
    done = run("copy", "-P", one.lxcpath, "-n", one.name, "-N", name, "--", "more")
    assert done.returncode == 0, done.stderr
    found = read(seen)
    assert found.arguments == f"{name} lxc clone more"
    assert found.mnt != space("self", "mnt") and found.net == space("self", "net")
    assert found.environment["LXC_SRC_NAME"] == one.name
    assert Path(one.lxcpath, name, "rootfs/etc/marker").read_text() == "mine\n"
    assert not os.path.exists(f"{one.rootfs}/etc/marker")


def test_hook_destroy(box: Define, script: Path) -> None:
    """On the host, while the container is still there; its failure saves the container."""
    one, seen = hooked(box, script, "destroy", f"lxc.hook.destroy = sh -c 'test ! -e {script.parent}/no'\n")
    Path(script.parent, "no").touch()
    with pytest.raises(HookError):
        one.destroy()
    assert os.path.exists(one.rootfs)
    Path(script.parent, "no").unlink()
    one.destroy()
    assert read(seen).arguments == f"{one.name} lxc destroy"
    assert not os.path.exists(one.directory)
