"""The keys of config/keys/rootfs.py, by what they do."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import netns
import pytest

from lxcpy.kernel.proc import MountInfo, mountinfo

pytestmark = pytest.mark.requires("root", "busybox")
IDS = "lxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 100000 65536\n"

if TYPE_CHECKING:
    from conftest import Box, Define


def mounts(one: Box) -> dict[str, MountInfo]:
    """What is mounted in the container, the last on each place."""
    with open(f"/proc/{one.init_pid}/mountinfo") as file:
        return {info.target: info for info in mountinfo(file.read())}


def words(info: MountInfo) -> set[str]:
    return set(info.options.split(","))


def refused(one: Box, script: str) -> str:
    """What a script inside says that must fail."""
    return one.sh(f"! {{ {script}; }} 2>&1")


def test_rootfs_path(box: Define) -> None:
    other = box()
    Path(other.rootfs, "etc/marker").write_text("the other\n")
    one = box(f"lxc.rootfs.path = dir:{other.rootfs}\n")
    one.start()
    assert one.sh("cat /etc/marker") == "the other\n"
    with open(f"/proc/{one.init_pid}/mountinfo") as file:
        assert next(line.split()[3] for line in file if line.split()[4] == "/").endswith(other.rootfs)


def test_rootfs_mount(box: Define, tmp_path: Path) -> None:
    place, seen = tmp_path / "place", tmp_path / "seen"
    place.mkdir()
    one = box(f"lxc.rootfs.mount = {place}\nlxc.hook.mount = cat /proc/self/mountinfo > {seen}; true\n")
    one.start()
    roots = {info.target: info.root for info in mountinfo(seen.read_text())}
    assert roots[str(place)].endswith(one.rootfs)


def test_rootfs_options(box: Define) -> None:
    one = box("lxc.rootfs.options = ro,noatime\n")
    one.start()
    assert "Read-only file system" in refused(one, "echo x > /x")
    assert {"ro", "noatime"} <= words(mounts(one)["/"])


def test_rootfs_options_idmap(box: Define) -> None:
    """The files on disk belong to the host's root, and inside to the container's."""
    one = box(IDS + "lxc.rootfs.options = idmap=container\n")
    one.start()
    assert one.sh("id -u; busybox stat -c %u:%g /bin/busybox /etc; : > /made") == "0\n0:0\n0:0\n"
    info = os.stat(f"{one.rootfs}/made")
    assert (info.st_uid, info.st_gid) == (0, 0)
    assert one.status("Uid").split()[0] == "100000"


def test_rootfs_options_idmap_of_a_namespace(box: Define) -> None:
    with subprocess.Popen(["unshare", "--user", "sh", "-c", "echo; read x"], stdin=-1, stdout=-1) as other:
        assert other.stdin and other.stdout
        other.stdout.readline()
        for kind in ("uid", "gid"):
            Path(f"/proc/{other.pid}/{kind}_map").write_text("0 7000 100\n")
        one = box(f"lxc.rootfs.options = idmap=/proc/{other.pid}/ns/user\n")
        one.start()
        assert one.sh("busybox stat -c %u:%g /bin/busybox") == "7000:7000\n"
        other.stdin.write(b"\n")


OF_LXC_2 = """\
lxc.rootfs = {rootfs}:/tree
lxc.rootfs.backend = dir
lxc.init.cmd = /bin/sh /init
lxc.net.0.type = empty
"""


def test_rootfs_backend(box: Define) -> None:
    """The type of the path, which LXC 2.0 had apart from it; without it this one were an overlay's two."""
    one = box(base=OF_LXC_2)
    os.mkdir(f"{one.rootfs}:")
    os.rename(one.rootfs, f"{one.rootfs}:/tree")
    one.start()
    one.sh("echo x > /made")
    assert Path(f"{one.rootfs}:/tree/made").read_text() == "x\n"


def test_rootfs_managed(box: Define) -> None:
    one, other = box("lxc.rootfs.managed = 0\n"), box()
    for each in (one, other):
        each.start()
        each.destroy(force=True)
    assert os.path.exists(f"{one.rootfs}/bin/busybox")
    assert not os.path.exists(other.rootfs)


# -- mounts ----------------------------------------------------------------------------------------------------------


def test_mount_entry(box: Define, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("of the host\n")
    entries = (
        f"{tmp_path} srv/data none bind,ro,create=dir 0 0",
        f"{tmp_path}/file srv/file none bind,create=file 0 0",
        "tmpfs srv/tmp tmpfs size=64k,nosuid,create=dir 0 0",
        "/nowhere srv/none none bind,optional,create=dir 0 0",
        "etc srv/etc none bind,relative,create=dir 0 0",
    )
    one = box("".join(f"lxc.mount.entry = {entry}\n" for entry in entries))
    one.start()
    found = mounts(one)
    assert one.sh("cat /srv/data/file /srv/file; ls /srv/etc") == "of the host\n" * 2 + "passwd\n"
    assert "Read-only file system" in refused(one, "echo x > /srv/data/x")
    assert found["/srv/tmp"].fstype == "tmpfs" and "nosuid" in words(found["/srv/tmp"])
    assert "size=64k" in found["/srv/tmp"].super_options
    assert "/srv/none" not in found


def test_mount_entry_idmap(box: Define, lxcpath: str) -> None:
    """A directory of the host's root belongs to the container's root, and what that makes there to the host's."""
    os.mkdir(f"{lxcpath}/shared")
    one = box(IDS + f"lxc.mount.entry = {lxcpath}/shared srv none bind,create=dir,idmap=container 0 0\n")
    subprocess.run(["chown", "-hR", "100000:100000", one.rootfs], check=True)
    one.start()
    assert one.sh("busybox stat -c %u:%g /srv; : > /srv/made") == "0:0\n"
    info = os.stat(f"{lxcpath}/shared/made")
    assert (info.st_uid, info.st_gid) == (0, 0)


def test_mount_fstab(box: Define, tmp_path: Path) -> None:
    table = tmp_path / "fstab"
    table.write_text("# a comment\ntmpfs srv/one tmpfs create=dir 0 0\ntmpfs srv/two tmpfs create=dir,ro\n")
    one = box(f"lxc.mount.fstab = {table}\n")
    one.start()
    found = mounts(one)
    assert found["/srv/one"].fstype == found["/srv/two"].fstype == "tmpfs"
    assert "ro" in words(found["/srv/two"])


BARE = """\
lxc.rootfs.path = dir:{rootfs}
lxc.init.cmd = /bin/sh /init
lxc.net.0.type = empty
"""


def test_mount_auto(box: Define) -> None:
    mixed = box("lxc.mount.auto = proc:mixed\nlxc.mount.auto = sys:mixed cgroup:ro:force\n", base=BARE)
    free = box("lxc.mount.auto = proc:rw sys:rw\n", base=BARE)
    none = box(base=BARE)
    for one in (mixed, free, none):
        one.start()
    found = mounts(mixed)
    assert (found["/proc"].fstype, found["/sys"].fstype) == ("proc", "sysfs")
    assert "ro" in words(found["/proc/sys"]) and "rw" in words(found["/proc/sys/net"])
    assert "ro" in words(found["/sys"]) and "rw" in words(found["/sys/devices/virtual/net"])
    assert any(info.fstype in ("cgroup", "cgroup2") and "ro" in words(info) for info in found.values())
    assert "Read-only file system" in refused(mixed, "echo 1 > /proc/sys/kernel/shmmni")
    found = mounts(free)
    assert "rw" in words(found["/proc"]) and "rw" in words(found["/sys"]) and "/proc/sys" not in found
    assert {"/proc", "/sys", "/sys/fs/cgroup"}.isdisjoint(mounts(none))


def test_mount_auto_shmounts(own_host: str, box: Define, tmp_path: Path) -> None:
    """What the host mounts there appears in the running container."""
    netns.sh(f"mount -t tmpfs tmpfs {tmp_path}", f"mount --make-shared {tmp_path}", f"mkdir {tmp_path}/later")
    one = box(f"lxc.mount.auto = shmounts:{tmp_path}:/shared\n")
    os.mkdir(f"{one.rootfs}/shared")
    one.start()
    assert "/shared/later" not in mounts(one)
    netns.sh(f"mount -t ramfs ramfs {tmp_path}/later")
    assert mounts(one)["/shared/later"].fstype == "ramfs"


# -- /dev ------------------------------------------------------------------------------------------------------------


def test_autodev(box: Define) -> None:
    own, kept = box(), box("lxc.autodev = 0\n")
    Path(kept.rootfs, "dev/mine").write_text("kept\n")
    os.mkdir(f"{kept.rootfs}/dev/pts")
    for one in (own, kept):
        one.start()
    assert mounts(own)["/dev"].fstype == "tmpfs"
    assert "/dev" not in mounts(kept)
    assert kept.sh("cat /dev/mine") == "kept\n"


def test_autodev_tmpfs_size(box: Define) -> None:
    one = box("lxc.autodev.tmpfs.size = 1048576\n")
    one.start()
    info = os.statvfs(f"/proc/{one.init_pid}/root/dev")
    assert info.f_blocks * info.f_frsize == 1 << 20
