"""Mounts, read back from mountinfo."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from probes import requires

from lxcpy.kernel import fd, idmap, mount, proc

pytestmark = requires("root", "namespaces")
Isolated = Callable[..., Any]


def _mounted(target: object) -> list[proc.MountInfo]:
    with open("/proc/self/mountinfo") as file:
        return [entry for entry in proc.mountinfo(file.read()) if entry.target == str(target)]


def test_mount_and_umount(isolated: Isolated, tmp_path: Path) -> None:
    def inside() -> None:
        mount.mount("none", str(tmp_path), "tmpfs", mount.MS_NOSUID | mount.MS_NODEV, "size=64k,mode=700")
        (entry,) = _mounted(tmp_path)
        assert (entry.fstype, entry.source) == ("tmpfs", "none")
        assert {"nosuid", "nodev", "rw"} <= set(entry.options.split(","))
        assert "size=64k" in entry.super_options
        mount.umount(str(tmp_path))
        assert _mounted(tmp_path) == []

    isolated(inside, "mnt")


def test_errors_name_call_and_arguments(isolated: Isolated) -> None:
    def inside() -> None:
        mount.mount("tmpfs", "/no where", "tmpfs", mount.MS_NOSUID | mount.MS_RDONLY | 1 << 30)

    with pytest.raises(FileNotFoundError) as error:
        isolated(inside, "mnt")
    expected = 'mount("tmpfs", "/no where", "tmpfs", MS_RDONLY|MS_NOSUID|0x40000000, NULL): No such file or directory'
    assert error.value.strerror == expected
    with pytest.raises(OSError, match=r'umount2\("/nowhere", MNT_DETACH\|UMOUNT_NOFOLLOW\)'):
        mount.umount("/nowhere", mount.MNT_DETACH | mount.UMOUNT_NOFOLLOW)


def test_bind_remount_propagation(isolated: Isolated, tmp_path: Path) -> None:
    def inside() -> None:
        source, target = tmp_path / "a", tmp_path / "b"
        source.mkdir()
        target.mkdir()
        (source / "file").write_text("x")
        mount.mount(str(source), str(target), None, mount.MS_BIND)
        mount.mount(None, str(target), None, mount.MS_BIND | mount.MS_REMOUNT | mount.MS_RDONLY)
        mount.mount(None, str(target), None, mount.MS_SHARED)
        (entry,) = _mounted(target)
        assert entry.options.startswith("ro") and entry.optional[0].startswith("shared:")
        assert os.listdir(target) == ["file"]

    isolated(inside, "mnt")


def test_pivot_root(isolated: Isolated, tmp_path: Path) -> None:
    def inside() -> list[str]:
        mount.mount("none", str(tmp_path), "tmpfs")
        (tmp_path / "here").mkdir()
        os.chdir(tmp_path)
        mount.pivot_root(".", ".")
        mount.umount(".", mount.MNT_DETACH)
        os.chdir("/")
        return os.listdir("/")

    assert isolated(inside, "mnt") == ["here"]


def test_new_mount_calls(isolated: Isolated, tmp_path: Path) -> None:
    def inside() -> None:
        with mount.fsopen("tmpfs") as context:
            mount.fsconfig_string(context.number, "size", "128k")
            mount.fsconfig_string(context.number, "source", "name")
            mount.fsconfig_create(context.number)
            detached = mount.fsmount(context.number, mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NOEXEC)
        with detached, fd.Fd(os.open(tmp_path, os.O_PATH)) as place:
            mount.move_mount(detached.number, place.number)
        (entry,) = _mounted(tmp_path)
        assert entry.source == "name" and {"nosuid", "noexec"} <= set(entry.options.split(","))
        mount.mount_setattr(
            mount.AT_FDCWD, str(tmp_path), mount.AT_RECURSIVE,
            attr_set=mount.MOUNT_ATTR_RDONLY, attr_clear=mount.MOUNT_ATTR_NOEXEC, propagation=mount.MS_SHARED,
        )  # fmt: skip
        (entry,) = _mounted(tmp_path)
        assert "noexec" not in entry.options and entry.options.startswith("ro") and entry.optional

    isolated(inside, "mnt")


def test_open_tree_clones(isolated: Isolated, tmp_path: Path) -> None:
    def inside() -> None:
        (tmp_path / "a").mkdir()
        (tmp_path / "a/file").write_text("")
        (tmp_path / "b").mkdir()
        with (
            mount.open_tree(mount.AT_FDCWD, str(tmp_path / "a"), mount.OPEN_TREE_CLONE) as tree,
            fd.Fd(os.open(tmp_path, os.O_PATH)) as place,
        ):
            mount.move_mount(tree.number, place.number, "b")
        assert os.listdir(tmp_path / "b") == ["file"]

    isolated(inside, "mnt")


def test_the_driver_tells_what_is_wrong(isolated: Isolated) -> None:
    def inside() -> None:
        with mount.fsopen("tmpfs") as context:
            mount.fsconfig_string(context.number, "nonsense", "1")

    with pytest.raises(OSError, match="Unknown parameter 'nonsense'") as error:
        isolated(inside, "mnt")
    assert error.value.errno == errno.EINVAL
    with pytest.raises(OSError) as missing:
        mount.fsopen("nosuchfs")
    assert missing.value.errno == errno.ENODEV


def test_idmapped_mount(isolated: Isolated, tmp_path: Path) -> None:
    ranges = [idmap.IdRange(0, 100000, 65536)]

    def inside() -> tuple[int, int]:
        mount.mount("none", str(tmp_path), "tmpfs")
        (tmp_path / "a").mkdir()
        (tmp_path / "a/file").write_text("")
        (tmp_path / "b").mkdir()
        with (
            idmap.userns_fd(ranges, ranges) as users,
            mount.open_tree(mount.AT_FDCWD, str(tmp_path / "a"), mount.OPEN_TREE_CLONE) as tree,
            fd.Fd(os.open(tmp_path, os.O_PATH)) as place,
        ):
            mount.mount_setattr(tree.number, "", 0, userns_fd=users.number)
            mount.move_mount(tree.number, place.number, "b")
        owner = os.stat(tmp_path / "b/file")
        return owner.st_uid, owner.st_gid

    assert isolated(inside, "mnt") == (100000, 100000)
