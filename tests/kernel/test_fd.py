"""Descriptors, and paths that must not lead out of their root."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from lxcpy.kernel import fd


@pytest.fixture
def root(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    tree = tmp_path / "root"
    tree.mkdir()
    (tmp_path / "secret").write_text("outside")
    with fd.Fd(os.open(tree, os.O_PATH | os.O_DIRECTORY)) as opened:
        yield opened.number, tree


def test_a_descriptor_is_closed_once() -> None:
    reader, writer = os.pipe()
    with fd.Fd(reader) as owned:
        assert owned.fileno() == reader
        assert os.readlink(owned.path).startswith("pipe:")
    assert owned.closed
    owned.close()
    with pytest.raises(OSError, match="closed") as error:
        _ = owned.number
    assert error.value.errno == errno.EBADF
    other = fd.Fd(writer)
    assert other.steal() == writer
    assert other.closed
    os.close(writer)


def test_a_forgotten_descriptor_is_closed() -> None:
    reader, writer = os.pipe()
    os.close(writer)
    owned = fd.Fd(reader)
    del owned
    with pytest.raises(OSError):
        os.fstat(reader)


def test_links_stay_inside(root: tuple[int, Path]) -> None:
    number, tree = root
    (tree / "etc").mkdir()
    (tree / "etc/passwd").write_text("inside")
    os.symlink("/etc/passwd", tree / "absolute")
    os.symlink("../../../../etc/passwd", tree / "up")
    os.symlink("../secret", tree / "sibling")
    assert fd.read_in_root(number, "absolute") == b"inside"
    assert fd.read_in_root(number, "/up") == b"inside"
    assert fd.read_in_root(number, "../../etc/passwd") == b"inside"
    with pytest.raises(FileNotFoundError):
        fd.read_in_root(number, "sibling")


def test_magic_links_are_refused(root: tuple[int, Path]) -> None:
    with fd.Fd(os.open("/", os.O_PATH)) as slash, pytest.raises(OSError) as error:
        fd.open_in_root(slash.number, f"proc/{os.getpid()}/root/etc", os.O_PATH)
    assert error.value.errno == errno.ELOOP
    assert "openat2(" in str(error.value) and "RESOLVE_IN_ROOT" in str(error.value)


def test_opened_descriptors_are_close_on_exec(root: tuple[int, Path]) -> None:
    with fd.open_in_root(root[0], "", os.O_PATH) as opened:
        assert not os.get_inheritable(opened.number)


def test_make_dirs(root: tuple[int, Path]) -> None:
    number, tree = root
    before = os.umask(0o077)
    try:
        made = fd.make_dirs_in_root(number, "/a/b//c/", 0o1777)
    finally:
        os.umask(before)
    assert os.path.samestat(os.fstat(made.number), os.stat(tree / "a/b/c"))
    assert stat.S_IMODE((tree / "a/b").stat().st_mode) == 0o1777
    fd.make_dirs_in_root(number, "a/b/c")  # again


def test_make_dirs_follows_links_inside_only(root: tuple[int, Path]) -> None:
    number, tree = root
    os.symlink("/run/shm", tree / "dangling")
    os.symlink("../../outside", tree / "up")
    fd.make_dirs_in_root(number, "dangling/x")
    assert (tree / "run/shm/x").is_dir()
    fd.make_dirs_in_root(number, "up/y")
    assert (tree / "outside/y").is_dir()
    assert not (tree.parent / "outside").exists()


def test_make_dirs_does_not_loop_for_ever(root: tuple[int, Path]) -> None:
    os.symlink("two", root[1] / "one")
    os.symlink("one", root[1] / "two")
    with pytest.raises(OSError) as error:
        fd.make_dirs_in_root(root[0], "one/x")
    assert error.value.errno == errno.ELOOP


def test_make_dirs_through_a_file(root: tuple[int, Path]) -> None:
    (root[1] / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        fd.make_dirs_in_root(root[0], "file/x")


def test_make_file(root: tuple[int, Path]) -> None:
    number, tree = root
    os.symlink("/var/lib/target", tree / "link")
    for path, place in (("dev/console", "dev/console"), ("link", "var/lib/target")):
        with fd.make_file_in_root(number, path) as made:
            assert os.path.samestat(os.fstat(made.number), os.stat(tree / place))
    os.mkfifo(tree / "fifo")
    fd.make_file_in_root(number, "fifo").close()  # left alone, and does not hang


def test_read_refuses_what_is_no_file_and_what_is_too_long(root: tuple[int, Path]) -> None:
    number, tree = root
    os.mkfifo(tree / "fifo")
    with pytest.raises(OSError, match="not a regular file"):
        fd.read_in_root(number, "fifo")
    (tree / "long").write_bytes(b"x" * 11)
    assert len(fd.read_in_root(number, "long", 11)) == 11
    with pytest.raises(OSError) as error:
        fd.read_in_root(number, "long", 10)
    assert error.value.errno == errno.EFBIG


def test_write_replaces_links(root: tuple[int, Path]) -> None:
    number, tree = root
    os.symlink("../secret", tree / "hostname")
    fd.write_in_root(number, "hostname", b"new", 0o640)
    assert not (tree / "hostname").is_symlink()
    assert (tree / "hostname").read_bytes() == b"new"
    assert stat.S_IMODE((tree / "hostname").stat().st_mode) == 0o640
    assert (tree.parent / "secret").read_text() == "outside"
    (tree / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        fd.write_in_root(number, "folder", b"")
    assert sorted(os.listdir(tree)) == ["folder", "hostname"]  # no temporary file left


def test_unlink_symlink_exists(root: tuple[int, Path]) -> None:
    number, tree = root
    fd.symlink_in_root(number, "link", "/nowhere")
    assert fd.exists_in_root(number, "link")
    assert not fd.exists_in_root(number, "link/below")
    with pytest.raises(FileExistsError):
        fd.symlink_in_root(number, "link", "/other")
    fd.unlink_in_root(number, "link")
    assert not fd.exists_in_root(number, "link")
    assert os.listdir(tree) == []
    for path in ("/", "..", "a/.."):
        with pytest.raises(OSError):
            fd.unlink_in_root(number, path)


def test_nul_is_refused(root: tuple[int, Path]) -> None:
    with pytest.raises(OSError) as error:
        fd.open_in_root(root[0], "etc\0x", os.O_PATH)
    assert error.value.errno == errno.EINVAL
