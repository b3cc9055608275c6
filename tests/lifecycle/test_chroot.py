"""A supervisor in a chroot: its containers are in their root filesystems all the same, for whoever joins them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from netns import sh

if TYPE_CHECKING:
    from conftest import Box, Define

pytestmark = pytest.mark.requires("root", "busybox")


Chrooted = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def chrooted(own_host: str, bin: str, tmp_path: Path) -> Chrooted:
    """`chrooted("start", one)`: a command in a chroot that shows the host's files."""
    place = tmp_path / "root"
    place.mkdir()
    sh(f"mount --rbind / {place}", f"mount --make-rprivate {place}")

    def run(command: str, box: Box, *words: str) -> subprocess.CompletedProcess[str]:
        argv = ["chroot", place, f"{bin}/lxcpy-{command}", "-P", box.lxcpath, box.name, *words]
        return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)

    return run


def test_attach_lands_in_the_container(chrooted: Chrooted, box: Define) -> None:
    one = box()
    assert chrooted("start", one).returncode == 0
    inside = chrooted("attach", one, "--", "/bin/sh", "-c", "echo /*").stdout.split()
    assert "/init" in inside
    assert not {"/home", "/usr"} & set(inside)
    # what the container's root sees after nsenter(1) into the mount namespace it is in
    joined = ["nsenter", f"--mount=/proc/{one.init_pid}/ns/mnt", "/bin/sh", "-c", "echo /*"]
    assert subprocess.run(joined, capture_output=True, text=True, check=True).stdout.split() == inside
    assert chrooted("stop", one, "-k").returncode == 0


def test_a_container_with_the_chroot_s_files(chrooted: Chrooted, box: Define, tmp_path: Path) -> None:
    """Without lxc.rootfs.path it has what the supervisor sees as /: attach lands there, and not outside."""
    one = box(base="lxc.uts.name = {name}\nlxc.net.0.type = empty\nlxc.init.cmd = /bin/sleep 600\n")
    sh(f"mount -t tmpfs none {tmp_path}/root/mnt", f"touch {tmp_path}/root/mnt/inside")
    done = chrooted("start", one)
    assert done.returncode == 0, done.stderr
    assert chrooted("attach", one, "--", "/bin/ls", "/mnt").stdout == "inside\n"
    assert chrooted("stop", one, "-k").returncode == 0


def test_no_id_map_in_a_chroot(chrooted: Chrooted, box: Define) -> None:
    """The kernel's rule: who is in a chroot cannot make a user namespace."""
    done = chrooted("start", box("lxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 100000 65536\n"))
    assert done.returncode == 1
    assert "hint: a process in a chroot may make no user namespace" in done.stderr


def test_a_chroot_that_is_no_mount_point(own_host: str, box: Define, bin: str, tmp_path: Path) -> None:
    one = box()
    place = tmp_path / "root"
    place.mkdir()
    sh(f"mount -t tmpfs none {place}", f"mkdir {place}/plain")
    for there in Path("/").iterdir():  # the checkout and the interpreter may lie in any of them
        if there.is_symlink():
            Path(f"{place}/plain/{there.name}").symlink_to(there.readlink())
        elif there.is_dir():
            sh(f"mkdir {place}/plain/{there.name}", f"mount --rbind {there} {place}/plain/{there.name}")
    argv = ["chroot", f"{place}/plain", f"{bin}/lxcpy-start", "-P", one.lxcpath, one.name]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "hint: the supervisor's root is a chroot and no mount point: mount --bind DIR DIR" in done.stderr
