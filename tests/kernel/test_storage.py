"""Storage backends for real: mounts in a private namespace, clones, removal."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lxcpy import storage
from lxcpy.errors import StorageError
from lxcpy.kernel import mount, namespace
from lxcpy.kernel.idmap import IdRange, write_maps
from lxcpy.kernel.proc import mountinfo
from lxcpy.storage import tree
from lxcpy.storage.base import Shift

pytestmark = pytest.mark.requires("root")
Isolated = Callable[..., Any]


def options_at(target: Path) -> str:
    with open("/proc/self/mountinfo") as file:
        return next(entry.options for entry in mountinfo(file.read()) if entry.target == str(target))


@pytest.fixture
def rootfs(tmp_path: Path) -> Path:
    backend = storage.backend("dir")
    place = tmp_path / "c1/rootfs"
    assert backend.create(str(place), owner=(100_000, 100_001)) == f"dir:{place}"
    assert (place.stat().st_uid, place.stat().st_gid, place.stat().st_mode & 0o7777) == (100_000, 100_001, 0o755)
    (place / "file").write_text("lower")
    (tmp_path / "mnt").mkdir()
    return place


def test_dir_mounts_with_what_is_mounted_in_it(rootfs: Path, tmp_path: Path, isolated: Isolated) -> None:
    (rootfs / "data").mkdir()

    def work() -> tuple[str, str, bool]:
        mount.mount("tmpfs", str(rootfs / "data"), "tmpfs")
        (rootfs / "data/inside").touch()
        storage.backend("dir").mount(str(rootfs), str(tmp_path / "mnt"), "ro,nosuid,noatime")
        text = (tmp_path / "mnt/file").read_text()
        return text, options_at(tmp_path / "mnt"), (tmp_path / "mnt/data/inside").exists()

    text, options, seen = isolated(work, "mnt")
    assert text == "lower" and seen
    assert {"ro", "nosuid", "noatime"} <= set(options.split(","))


def test_dir_clone_is_a_copy_with_its_own_ids(rootfs: Path, tmp_path: Path) -> None:
    ranges = (IdRange(0, 100_000, 65536),)
    other = (IdRange(0, 500_000, 65536),)
    shift = Shift(before=(ranges, ranges), after=(other, other))
    clone = tmp_path / "c2/rootfs"
    assert storage.backend("dir").clone(str(rootfs), str(clone), shift=shift) == f"dir:{clone}"
    assert (clone.stat().st_uid, clone.stat().st_gid) == (500_000, 500_001)
    assert (clone / "file").read_text() == "lower"


@pytest.mark.requires("overlay")
def test_overlay_of_a_dir_of_an_overlay(rootfs: Path, tmp_path: Path, isolated: Isolated) -> None:
    first = storage.backend("dir").clone(str(rootfs), str(tmp_path / "c2/rootfs"), snapshot=True)
    assert first == f"overlay:{rootfs}:{tmp_path}/c2/overlay/delta"
    kind, source = storage.parse(first)
    overlay = storage.backend(kind)
    target = tmp_path / "mnt"

    def write() -> str:
        overlay.mount(source, str(target), "noatime")
        (target / "file").write_text("changed")
        (target / "new").write_text("new")
        return options_at(target)

    assert "noatime" in isolated(write, "mnt").split(",")
    assert (rootfs / "file").read_text() == "lower"
    assert (tmp_path / "c2/overlay/delta/file").read_text() == "changed"

    second = overlay.clone(source, str(tmp_path / "c3/rootfs"), snapshot=True)
    assert second == f"overlay:{rootfs}:{tmp_path}/c3/overlay/delta"

    def read() -> tuple[str, list[str]]:
        overlay.mount(storage.parse(second)[1], str(target))
        (target / "new").unlink()
        return (target / "file").read_text(), sorted(os.listdir(target))

    assert isolated(read, "mnt") == ("changed", ["file"])
    assert (tmp_path / "c2/overlay/delta/new").exists()
    assert overlay.clone(source, str(tmp_path / "c4/rootfs")) == f"dir:{tmp_path}/c4/rootfs"
    assert sorted(os.listdir(tmp_path / "c4/rootfs")) == ["file", "new"] and os.listdir(tmp_path / "c4") == ["rootfs"]
    assert (tmp_path / "c4/rootfs/file").read_text() == "changed"
    overlay.destroy(source)
    assert not list((tmp_path / "c2/overlay").iterdir()) and (rootfs / "file").exists()
    overlay.destroy(source)


@pytest.mark.requires("overlay")
def test_overlay_with_several_lowers_and_odd_names(tmp_path: Path, isolated: Isolated) -> None:
    for name in ("a,b", "c:d"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"from {name}").touch()
    (tmp_path / "mnt").mkdir()
    source = f"{tmp_path}/a,b:{tmp_path}/c:d:{tmp_path}/up,per/delta"

    def work() -> list[str]:
        storage.backend("overlay").mount(source, str(tmp_path / "mnt"))
        return sorted(os.listdir(tmp_path / "mnt"))

    assert isolated(work, "mnt") == ["from a,b", "from c:d"]


@pytest.mark.requires("overlay")
def test_overlay_in_a_user_namespace(tmp_path: Path) -> None:
    """Removing a lower directory and making it again needs an attribute that only userxattr lets us write."""
    os.chmod(tmp_path, 0o755)
    for parent in list(tmp_path.parents)[:-1]:
        if parent.stat().st_uid == os.geteuid() and parent != Path("/tmp"):
            os.chmod(parent, parent.stat().st_mode | 0o055)
    for name in ("lower/dir/old", "upper/delta", "upper/work", "mnt"):
        (tmp_path / name).mkdir(parents=True)
    for path in (tmp_path, *tmp_path.rglob("*")):
        os.chown(path, 100_000, 100_000)
    source = f"{tmp_path}/lower:{tmp_path}/upper/delta"
    ready, go = os.pipe()
    result, out = os.pipe()
    pid, pidfd = namespace.clone(namespace.CLONE_NEWUSER | namespace.CLONE_NEWNS)
    if pid == 0:
        try:
            os.read(ready, 1)
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
            storage.backend("overlay").mount(source, str(tmp_path / "mnt"))
            os.rmdir(tmp_path / "mnt/dir/old")
            os.rmdir(tmp_path / "mnt/dir")
            os.mkdir(tmp_path / "mnt/dir")
            os.write(out, repr(os.listdir(tmp_path / "mnt/dir")).encode())
        except BaseException as error:
            os.write(out, repr(error).encode())
        os._exit(0)
    ranges = [IdRange(0, 100_000, 65536)]
    write_maps(pid, ranges, ranges)
    os.write(go, b"x")
    os.waitpid(pid, 0)
    answer = os.read(result, 1000).decode()
    for fd in (ready, go, result, out, pidfd):
        os.close(fd)
    assert answer == "[]"


def test_removal_of_a_deep_and_stubborn_tree(tmp_path: Path) -> None:
    root = tmp_path / "gone"
    root.mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    (root / "link").symlink_to(outside)
    (root / "closed").mkdir(mode=0)
    (root / "stubborn").mkdir()
    (root / "stubborn/file").touch()
    subprocess.run(["chattr", "+i", root / "stubborn/file"], check=False)
    subprocess.run(["chattr", "+a", root / "stubborn"], check=False)
    here = os.open(root, os.O_RDONLY)
    for _ in range(1500):  # longer than PATH_MAX and deeper than the limit of descriptors
        os.mkdir("deep", dir_fd=here)
        below = os.open("deep", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    tree.remove_tree(str(root))
    assert not root.exists() and (outside / "file").exists()
    tree.remove_tree(str(root))


def test_a_mount_stops_removal_before_anything_is_gone(tmp_path: Path, isolated: Isolated) -> None:
    (tmp_path / "c1/rootfs/mnt").mkdir(parents=True)
    (tmp_path / "c1/rootfs/a").touch()

    def work() -> tuple[str, str | None]:
        # the same file system: its device number tells nothing
        mount.mount("/etc", str(tmp_path / "c1/rootfs/mnt"), None, mount.MS_BIND)
        try:
            storage.backend("dir").destroy(str(tmp_path / "c1/rootfs"))
        except StorageError as error:
            return error.what, error.hint
        raise AssertionError("removed")

    what, hint = isolated(work, "mnt")
    place = tmp_path / "c1/rootfs/mnt"
    assert what == f'cannot remove "{place}": Device or resource busy'
    assert hint == f"umount {place}"
    assert (tmp_path / "c1/rootfs/a").exists() and os.path.exists("/etc/passwd")


def test_spread_marks_the_directory_where_the_file_system_can(tmp_path: Path) -> None:
    tree.spread(str(tmp_path))
    tree.spread(str(tmp_path / "missing"))
    listed = subprocess.run(["lsattr", "-d", tmp_path], capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("no file attributes here")
    assert "T" in listed.stdout.split()[0]
