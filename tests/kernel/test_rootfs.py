"""Whole rootfs plans, applied for real in a child's namespaces and read back from inside."""

from __future__ import annotations

from pathlib import Path

import pytest
from rootfs_child import make_rootfs, run

from lxcpy.config.model import Config, Mount, Pty, Tty
from lxcpy.kernel.proc import mountinfo
from lxcpy.rootfs.plan import Facts
from lxcpy.storage import backend

pytestmark = pytest.mark.requires("root", "busybox")


@pytest.fixture
def facts(tmp_path: Path) -> Facts:
    target = tmp_path / "mnt"
    target.mkdir()
    return Facts("c1", str(tmp_path), make_rootfs(tmp_path / "rootfs"), backend("dir"), str(target))


AUTO = Mount(auto=("proc:mixed", "sys:mixed"))
USUAL = Config(mount=AUTO, tty=Tty(max=4), pty=Pty(max=1024))


def test_the_usual_container(facts: Facts) -> None:
    mounts = {mount.target: mount for mount in mountinfo(run(USUAL, facts, "cat /proc/self/mountinfo"))}
    assert set(mounts) >= {
        "/", "/dev", "/proc", "/proc/sys", "/proc/sys/net", "/sys",
        "/sys/devices/virtual/net", "/dev/pts", "/dev/ptmx", "/dev/console", "/dev/tty1", "/dev/tty4",
        "/proc/sys/kernel/random/boot_id",
    }  # fmt: skip
