"""Copies and packed trees against rsync's own comparison, with everything a tree can hold."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from trees import ACL, CAPABILITY, make_tree

from lxcpy.errors import StorageError
from lxcpy.kernel.idmap import IdRange
from lxcpy.storage import attributes, blob
from lxcpy.storage.base import Shift
from lxcpy.storage.copy import clone_cached, copy_tree

pytestmark = pytest.mark.requires("root", "rsync")

def differences(source: Path, target: Path) -> str:
    """What rsync would do to make the target like the source; nothing if they are alike."""
    argv = ["rsync", "-naHAXi", "--checksum", "--delete", f"{source}/", f"{target}/"]
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def by_copy(processes: int) -> Callable[[Path, Path], None]:
    return lambda source, target: copy_tree(str(source), str(target), processes=processes)


def by_blob(processes: int) -> Callable[[Path, Path], None]:
    def copy(source: Path, target: Path) -> None:
        packed = f"{target}.blob"
        blob.pack(str(source), packed, processes=processes)
        blob.unpack(packed, str(target), processes=processes)

    return copy


@pytest.fixture(params=[by_copy(1), by_copy(2), by_blob(1), by_blob(3)], ids=["copy", "copy-2", "blob", "blob-3"])
def copy(request: pytest.FixtureRequest) -> Callable[[Path, Path], None]:
    return request.param  # type: ignore[no-any-return]


def test_everything_arrives(tmp_path: Path, copy: Callable[[Path, Path], None]) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    make_tree(source)
    copy(source, target)
    assert differences(source, target) == ""
    for path in [source, *source.rglob("*")]:
        other = target / path.relative_to(source)
        before, after = path.lstat(), other.lstat()
        assert after.st_mtime_ns == before.st_mtime_ns, path
        assert after.st_nlink == before.st_nlink, path
    assert (target / "holes").stat().st_blocks * 512 <= 1 << 16
    assert (target / "all hole").stat().st_blocks == 0
    assert os.getxattr(target / "capable", attributes.CAPABILITY) == CAPABILITY


def test_the_target_may_exist_with_rules_of_its_own(tmp_path: Path, copy: Callable[[Path, Path], None]) -> None:
    """A set-group-id bit or a default access list of the target's is not the source's."""
    source, target = tmp_path / "source", tmp_path / "target"
    make_tree(source)
    target.mkdir()
    os.chown(target, 0, 50)
    os.chmod(target, 0o2775)
    os.setxattr(target, attributes.DEFAULT, ACL)
    copy(source, target)
    assert differences(source, target) == ""


def test_the_umask_does_not_matter(tmp_path: Path, copy: Callable[[Path, Path], None]) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    make_tree(source)
    before = os.umask(0o077)
    try:
        copy(source, target)
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
    assert differences(source, target) == ""


RANGES = (IdRange(0, 100_000, 65536),)


@pytest.mark.parametrize("packed", [False, True])
def test_owners_are_shifted_with_capabilities_and_access_lists(tmp_path: Path, packed: bool) -> None:
    source, shifted, back = tmp_path / "source", tmp_path / "shifted", tmp_path / "back"
    make_tree(source)
    there = Shift(after=(RANGES, RANGES))
    if packed:
        blob.pack(str(source), str(tmp_path / "blob"))
        clone_cached(str(tmp_path / "blob"), str(shifted), shift=there)
    else:
        clone_cached(str(source), str(shifted), shift=there)
    status = (shifted / "suid").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (101_000, 101_001, 0o6755)
    assert (shifted / "dangling").lstat().st_uid == 100_007
    value = os.getxattr(shifted / "capable", attributes.CAPABILITY)
    assert value == struct.pack("<I", 0x03000001) + CAPABILITY[4:] + struct.pack("<I", 100_000)
    acl = os.getxattr(shifted / "acl", attributes.ACCESS)
    assert struct.unpack_from("<HHI", acl, 12) == (2, 5, 101_000)
    assert struct.unpack_from("<HHI", acl, 28) == (8, 4, 101_001)
    copy_tree(str(shifted), str(back), shift=Shift(before=(RANGES, RANGES)))
    assert differences(source, back) == ""


def test_mount_points_are_left_out(tmp_path: Path, isolated: Callable[..., object]) -> None:
    source = tmp_path / "source"
    (source / "there").mkdir(parents=True)
    (source / "there/covered").touch()
    (source / "file").touch()

    def work() -> list[str]:
        from lxcpy.kernel import mount

        mount.mount("tmpfs", str(source / "there"), "tmpfs")
        (source / "there/other").touch()
        copy_tree(str(source), str(tmp_path / "target"))
        return sorted(str(path.relative_to(tmp_path / "target")) for path in (tmp_path / "target").rglob("*"))

    assert isolated(work, "mnt") == ["file", "there"]


@pytest.mark.parametrize("processes", [1, 2])
def test_a_failure_names_the_file(tmp_path: Path, isolated: Callable[..., object], processes: int) -> None:
    source = tmp_path / "source"
    (source / "a/b").mkdir(parents=True)
    (source / "a/b/big").write_bytes(bytes(2 << 20))
    (source / "a/small").write_bytes(b"x")

    def work() -> None:
        from lxcpy.kernel import mount

        target = tmp_path / "small"
        target.mkdir()
        mount.mount("tmpfs", str(target), "tmpfs", 0, "size=1m")
        copy_tree(str(source), str(target / "copy"), processes=processes)

    with pytest.raises(StorageError) as caught:
        isolated(work, "mnt")
    assert caught.value.what.endswith("a/b/big: No space left on device")
    assert caught.value.hint == "make room on the target's file system"


def test_a_running_source_leads_nowhere(tmp_path: Path) -> None:
    """A link that takes a directory's place is copied as a link at most; nothing outside is read."""
    from lxcpy.storage import copy as module

    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    (source / "sub/file").write_text("inside")
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").write_text("outside")
    tree = module.list_tree(str(source))
    (source / "sub/file").unlink()
    (source / "sub").rmdir()
    (source / "sub").symlink_to(secret)
    job = module._Copy(str(source), str(tmp_path / "target"), tree, None)
    with pytest.raises(OSError):
        job.run(1)
    assert not (tmp_path / "target/sub/file").exists()


def test_a_damaged_blob_is_refused(tmp_path: Path) -> None:
    source, packed = tmp_path / "source", tmp_path / "blob"
    make_tree(source)
    blob.pack(str(source), str(packed))
    assert blob.usable(str(packed))
    whole = packed.read_bytes()
    for damaged in (b"", b"something else", whole[:-1], whole[: len(whole) // 2], whole[:-200] + bytes(200)):
        packed.write_bytes(damaged)
        assert not blob.usable(str(packed))
        with pytest.raises(StorageError, match="cannot be used"):
            blob.unpack(str(packed), str(tmp_path / "target"))
    assert not (tmp_path / "target").exists()


def test_a_blob_of_a_crashed_boot_is_stale_unless_settled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, packed = tmp_path / "source", str(tmp_path / "blob")
    make_tree(source)
    blob.pack(str(source), packed)
    with monkeypatch.context() as later:
        later.setattr(blob, "_boot_id", lambda: bytes(range(16)))
        assert not blob.usable(packed)
        with pytest.raises(StorageError, match="went down"):
            blob.unpack(packed, str(tmp_path / "target"))
    blob.settle(packed)
    with monkeypatch.context() as later:
        later.setattr(blob, "_boot_id", lambda: bytes(range(16)))
        blob.unpack(packed, str(tmp_path / "target"))
    assert differences(source, tmp_path / "target") == ""


def test_a_failed_pack_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="No such file"):
        blob.pack(str(tmp_path / "missing"), str(tmp_path / "blob"))
    assert list(tmp_path.iterdir()) == []
