"""Storage types, layers of an overlay, id shifts: what needs no rights."""

from __future__ import annotations

from pathlib import Path

import pytest

from lxcpy import storage
from lxcpy.errors import StorageError
from lxcpy.kernel.idmap import IdRange
from lxcpy.storage import overlay
from lxcpy.storage.base import Shift


def test_types_are_read_from_the_path(tmp_path: Path) -> None:
    assert storage.parse("dir:/a:b/c") == ("dir", "/a:b/c")
    assert storage.parse("overlay:/lower:/upper") == ("overlay", "/lower:/upper")
    assert storage.parse("overlayfs:/lower:/upper") == ("overlayfs", "/lower:/upper")
    assert storage.parse("zfs:tank/c1") == ("zfs", "tank/c1")
    assert storage.parse("lvm:/dev/vg/c1") == ("lvm", "/dev/vg/c1")


def test_the_type_of_a_bare_path_is_what_is_there(tmp_path: Path) -> None:
    (tmp_path / "image").touch()
    assert storage.parse(str(tmp_path)) == ("dir", str(tmp_path))
    assert storage.parse(str(tmp_path / "image")) == ("loop", str(tmp_path / "image"))
    assert storage.parse("/no/such/place") == ("dir", "/no/such/place")
    assert storage.parse("/no/lower:/no/upper") == ("overlay", "/no/lower:/no/upper")
    assert storage.parse("/name:with/colon") == ("dir", "/name:with/colon")


def test_an_unknown_type_is_told() -> None:
    with pytest.raises(StorageError, match='unknown storage type "nfs"') as caught:
        storage.parse("nfs:server/export")
    assert caught.value.hint is not None and caught.value.hint.startswith("one of dir, zfs")


def test_a_known_type_without_a_backend_is_told() -> None:
    with pytest.raises(StorageError, match='type "rbd" is not supported'):
        storage.backend("rbd")


def test_overlayfs_is_overlay() -> None:
    assert storage.backend("overlayfs") is storage.backend("overlay")
    assert storage.backend("dir").type == "dir"


def test_layers() -> None:
    layers = overlay.parse("/l1:/l2:/c/overlay/delta")
    assert layers == (("/l1", "/l2"), "/c/overlay/delta")
    assert layers.work == "/c/overlay/work"
    assert layers.text == "overlay:/l1:/l2:/c/overlay/delta"
    assert overlay.parse("/a:b:/u").lowers == ("/a:b",)
    with pytest.raises(StorageError, match="no upper directory"):
        overlay.parse("/alone")


def test_overlay_options_are_escaped() -> None:
    assert overlay.escape("/a,b:c\\d") == "/a\\,b:c\\\\d"
    assert overlay.escape("/a,b:c", ":") == "/a\\,b\\:c"


ONE = (IdRange(0, 100_000, 1000), IdRange(1000, 1000, 1))
TWO = (IdRange(0, 300_000, 2000),)


def test_shift() -> None:
    there = Shift(after=(ONE, TWO))
    assert [there.uid(number) for number in (0, 999, 1000, 1001)] == [100_000, 100_999, 1000, 1001]
    assert there.gid(1999) == 301_999
    assert there.root == (100_000, 300_000)
    over = Shift(before=(ONE, ONE), after=(TWO, TWO))
    assert over.uid(100_005) == 300_005
    assert over.uid(1000) == 301_000
    assert over.uid(5) == 5, "an id that the source's map does not hold stays"
    assert over.changes and not Shift(before=(ONE, ONE), after=(ONE, ONE)).changes
    assert Shift().uid(42) == 42
