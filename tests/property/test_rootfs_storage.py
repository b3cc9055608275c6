"""Laws of fstab entries, id shifts and copies of arbitrary trees."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lxcpy.kernel.idmap import IdRange
from lxcpy.rootfs import fstab
from lxcpy.rootfs.dev import random_uuid
from lxcpy.rootfs.fstab import Place
from lxcpy.storage import attributes, blob, overlay
from lxcpy.storage.base import Shift
from lxcpy.storage.copy import copy_tree
from lxcpy.storage.tree import remove_tree

FIELD = st.text(st.characters(min_codepoint=1, max_codepoint=0x2FF, exclude_categories=("Cs",)), min_size=1).filter(
    lambda text: not set(text) & set("\x0b\x0c\x1c\x1d\x1e\x1f\x85\xa0\r")
)


def escaped(text: str) -> str:
    for character in "\\ \t\n#":
        text = text.replace(character, f"\\{ord(character):03o}")
    return text


@given(FIELD, FIELD, FIELD, FIELD)
def test_fields_survive_their_escapes(source: str, target: str, fstype: str, options: str) -> None:
    fields = (source, target, fstype, options)
    assert fstab.parse("  ".join(map(escaped, fields)) + " 0 0") == fields


@given(FIELD, st.none() | FIELD, FIELD)
def test_a_target_is_relative(target: str, rootfs: str | None, name: str) -> None:
    found = fstab.target_of(target, Place(rootfs, "/var/lib/lxc", name))
    assert found is None or not found.startswith("/")


@given(st.lists(FIELD.map(lambda text: "/" + text.replace("/", "")), min_size=2, max_size=4))
def test_layers_survive_their_text(paths: list[str]) -> None:
    layers = overlay.Layers(tuple(paths[:-1]), paths[-1])
    assert overlay.parse(layers.text.removeprefix("overlay:")) == layers


RANGES = st.builds(IdRange, st.just(0), st.integers(100_000, 10_000_000), st.integers(1, 65536))


@given(RANGES, st.integers(0, 65535))
def test_a_shift_can_be_taken_back(ids: IdRange, number: int) -> None:
    there = Shift(after=((ids,), (ids,)))
    back = Shift(before=((ids,), (ids,)))
    assert back.uid(there.uid(number)) == number
    assert (there.uid(number) != number) == (number < ids.count)


@given(st.sampled_from([attributes.CAPABILITY, attributes.ACCESS, "user.x"]), st.binary(max_size=64))
def test_attributes_of_any_shape_pass(name: str, value: bytes) -> None:
    shift = Shift(after=((IdRange(0, 100_000, 65536),), (IdRange(0, 100_000, 65536),)))
    assert isinstance(attributes.shifted(name, value, shift), bytes)
    if name != attributes.CAPABILITY:
        assert attributes.shifted(name, value, Shift()) == value


def test_a_uuid_has_its_version() -> None:
    for _ in range(100):
        text = random_uuid()
        assert len(text) == 36 and text[14] == "4" and text[19] in "89ab"


NAME = st.binary(min_size=1, max_size=20).filter(lambda name: name not in (b".", b"..") and not set(name) & {0, 47})
MODE = st.integers(0, 0o7777)
NODE = st.one_of(
    st.tuples(st.just("file"), MODE, st.binary(max_size=3000), st.integers(0, 200_000)),
    st.tuples(st.just("link"), st.binary(min_size=1, max_size=50).filter(lambda text: 0 not in text)),
    st.tuples(st.just("fifo"), MODE),
    st.tuples(st.just("again"), st.integers(0, 30)),
)
TREE = st.recursive(
    st.dictionaries(NAME, NODE, max_size=5),
    lambda below: st.dictionaries(NAME, NODE | st.tuples(st.just("folder"), MODE, below), max_size=4),
    max_leaves=15,
)


def plant(root: bytes, content: dict[bytes, tuple[object, ...]], made: list[bytes]) -> None:
    for name, node in content.items():
        path = os.path.join(root, name)
        match node:
            case ("file", int(mode), bytes(data), int(hole)):
                with open(path, "wb") as file:
                    file.seek(hole)
                    file.write(data)
                    file.truncate(hole + len(data) + hole)
                os.chmod(path, mode)
                made.append(path)
            case ("link", bytes(text)):
                os.symlink(text, path)
                made.append(path)
            case ("fifo", int(mode)):
                os.mkfifo(path)
                os.chmod(path, mode)
            case ("again", int(at)) if made:
                os.link(made[at % len(made)], path, follow_symlinks=False)
            case ("folder", int(mode), dict(below)):
                os.mkdir(path)
                plant(path, below, made)
                os.chmod(path, mode)


def picture(root: bytes) -> dict[bytes, tuple[object, ...]]:
    """Everything about a tree but the inodes' numbers; files with several names by the first of them."""
    found: dict[bytes, tuple[object, ...]] = {}
    first: dict[int, bytes] = {}
    for folder, folders, files in os.walk(root):
        folders.sort()
        for name in [b"", *folders, *sorted(files)]:
            path = os.path.join(folder, name) if name else folder
            status = os.lstat(path)
            key = os.path.relpath(path, root)
            content: bytes | None = None
            if stat.S_ISREG(status.st_mode):
                content = Path(os.fsdecode(path)).read_bytes()
            elif stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            same = None if stat.S_ISDIR(status.st_mode) else first.setdefault(status.st_ino, key)
            found[key] = (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, content, same)
    return found


@pytest.mark.requires("root")
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(TREE, st.integers(1, 3))
def test_any_tree_is_copied_and_removed(content: dict[bytes, tuple[object, ...]], processes: int) -> None:
    base = tempfile.mkdtemp(prefix="lxcpy-copy-")
    try:
        source = f"{base}/source"
        os.mkdir(source)
        plant(os.fsencode(source), content, [])
        before = picture(os.fsencode(source))
        copy_tree(source, f"{base}/copy", processes=processes)
        assert picture(os.fsencode(f"{base}/copy")) == before
        blob.pack(source, f"{base}/blob", processes=processes)
        blob.unpack(f"{base}/blob", f"{base}/unpacked", processes=processes)
        assert picture(os.fsencode(f"{base}/unpacked")) == before
        remove_tree(f"{base}/copy")
        assert not os.path.lexists(f"{base}/copy")
        assert picture(os.fsencode(source)) == before
    finally:
        shutil.rmtree(base)
