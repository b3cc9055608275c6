"""Containers of busybox-static: real ones, small enough to start in milliseconds."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from lxcpy.container import Container
from lxcpy.errors import LxcpyError

APPLETS = ("sh", "sleep", "true", "cat", "echo", "ls", "mount", "id", "kill", "reboot", "grep", "env", "readlink")
# TERM ends it, as PWR does; INT reboots, as LXC's default signals mean it
INIT = """\
trap 'exit 0' PWR TERM
trap '/bin/reboot -f' INT
while :; do sleep 1000 & wait $!; done
"""
BASE = """\
lxc.uts.name = {name}
lxc.rootfs.path = dir:{rootfs}
lxc.init.cmd = /bin/sh /init
lxc.mount.auto = proc:mixed sys:ro
lxc.pty.max = 16
lxc.net.0.type = empty
"""


def make_rootfs(rootfs: str) -> None:
    """A tree with busybox, its links, an init and a passwd."""
    for folder in ("bin", "sbin", "proc", "sys", "dev", "etc", "tmp", "root"):
        os.makedirs(os.path.join(rootfs, folder))
    busybox = shutil.which("busybox")
    assert busybox
    shutil.copy(busybox, os.path.join(rootfs, "bin/busybox"))
    for applet in APPLETS:
        os.symlink("busybox", os.path.join(rootfs, "bin", applet))
    with open(os.path.join(rootfs, "init"), "w") as init:
        init.write(INIT)
    with open(os.path.join(rootfs, "etc/passwd"), "w") as passwd:
        passwd.write("root:x:0:0:root:/root:/bin/sh\n")


class Box(Container):
    """A container on a busybox rootfs of its own."""

    @property
    def rootfs(self) -> str:
        return os.path.join(self.directory, "rootfs")

    def await_traps(self) -> Box:
        """Until the init script has set its traps: the kernel keeps a signal that has none from process 1."""
        deadline = time.monotonic() + 10
        while not int(self.status("SigCgt"), 16) >> (signal.SIGTERM - 1) & 1:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        return self

    def inside(self, path: str) -> str:
        """A file of the running container, read through its init's root."""
        with open(f"/proc/{self.init_pid}/root/{path}") as file:
            return file.read()

    def status(self, word: str) -> str:
        """A line of init's /proc/PID/status."""
        with open(f"/proc/{self.init_pid}/status") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith(word + ":"))


Define = Callable[..., Box]


@pytest.fixture
def box(lxcpath: str, names: Callable[[], str]) -> Iterator[Define]:
    """`box("lxc.tty.max = 2")`: define a container; killed after the test."""
    made: list[Box] = []

    def define(extra: str = "", *, base: str = BASE) -> Box:
        one = Box(names(), lxcpath)
        os.makedirs(one.directory)
        make_rootfs(one.rootfs)
        with open(one.config_file, "w") as config:
            config.write(base.format(name=one.name, rootfs=one.rootfs) + extra.format(rootfs=one.rootfs, name=one.name))
        made.append(one)
        return one

    yield define
    for one in made:
        try:
            if one.state != "STOPPED":
                one.kill(20)
        except LxcpyError:
            assert one.state == "STOPPED"
