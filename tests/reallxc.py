"""A container that real LXC runs."""

from __future__ import annotations

import os
import shutil
import subprocess

from lxcpy.runtime.lxcclient import Command, command

CONFIG = """\
lxc.uts.name = {name}
lxc.rootfs.path = dir:{rootfs}
lxc.init.cmd = /bin/sh /init
lxc.net.0.type = empty
lxc.mount.auto = proc:mixed sys:ro
lxc.tty.max = 2
lxc.pty.max = 16
lxc.environment = FROM_CONFIG=yes
lxc.console.buffer.size = 4096
"""
# it says something on the console, ends on the halt signal, reboots on the other, and reaps
INIT = """\
#!/bin/sh
trap 'exit 0' PWR
trap 'exec /bin/sh /init' HUP
trap '/bin/reboot -f' INT
echo booted
while :; do sleep 1000 & wait $!; done
"""


def make_rootfs(rootfs: str) -> None:
    """A tree with busybox and all its names."""
    for folder in ("bin", "sbin", "dev", "proc", "sys", "etc", "tmp", "root", "run"):
        os.makedirs(f"{rootfs}/{folder}")
    busybox = shutil.which("busybox")
    assert busybox
    shutil.copy(busybox, f"{rootfs}/bin/busybox")
    subprocess.run(["chroot", rootfs, "/bin/busybox", "--install", "-s", "/bin"], check=True)
    with open(f"{rootfs}/init", "w") as file:
        file.write(INIT)
    with open(f"{rootfs}/etc/passwd", "w") as file:
        file.write("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/ash\n")


class Real:
    """A container under real LXC."""

    def __init__(self, lxcpath: str, name: str) -> None:
        self.lxcpath = lxcpath
        self.name = name
        self.rootfs = f"{lxcpath}/{name}/rootfs"
        self.client: Command = command(lxcpath, name)
        make_rootfs(self.rootfs)

    def start(self, config: str = "", **options: object) -> None:
        with open(f"{self.lxcpath}/{self.name}/config", "w") as file:
            file.write(CONFIG.format(name=self.name, rootfs=self.rootfs) + config)
        done = self.tool("start", "-d", **options)
        assert done.returncode == 0, done.stderr

    def tool(self, tool: str, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
        """Run lxc-TOOL on the container."""
        argv = [f"lxc-{tool}", "-P", self.lxcpath, "-n", self.name, *words]
        settings: dict[str, object] = {
            "stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": 30, **options,
        }  # fmt: skip
        return subprocess.run(argv, check=False, **settings)  # type: ignore[call-overload,no-any-return]

    def kill(self) -> None:
        self.tool("stop", "-k")
        self.tool("wait", "-s", "STOPPED", "-t", "10")
