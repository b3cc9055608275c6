"""The key table has no holes and no overlaps, and fits the model."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest

from lxcpy.config import model, schema
from lxcpy.config.build import CLASSES
from lxcpy.config.keys.row import CGROUP, FOLD, GROUP, INCLUDE, LIST, MAP, ONE, REMOVED, SHAPES, WORDS, Row
from lxcpy.config.values import CAPABILITIES, NAMESPACES

KNOWN = [line for line in (Path(__file__).parent / "keys_of_lxc.txt").read_text().split("\n") if line[:1] == "l"]
SUB = {"lxc.prlimit.*": "nofile", "lxc.namespace.share.*": "net"}


def keys_of(row: Row) -> list[str]:
    """A key for each name of the row."""
    sub = SUB.get(row.name, "a.b")
    return [name.replace("[i]", "3").replace("*", sub) for name in (row.name, *row.old)]


@pytest.mark.parametrize("key", KNOWN)
def test_every_key_of_every_lxc_is_known(key: str) -> None:
    assert schema.lookup(key) is not None


def test_no_row_is_unknown_to_lxc() -> None:
    names = {re.sub(r"\.\d+", ".[i]", key) for key in KNOWN}
    for row in schema.ROWS:
        if row.ours:
            continue
        assert any(name == row.name or name.startswith(row.name.removesuffix("*")) for name in names), row.name


@pytest.mark.parametrize("row", schema.ROWS, ids=lambda row: row.name)
def test_each_name_finds_its_row_and_no_other(row: Row) -> None:
    for key in keys_of(row):
        found = schema.lookup(key)
        assert found is not None and found.row is row, key


@pytest.mark.parametrize("row", schema.ROWS, ids=lambda row: row.name)
def test_a_row_is_complete(row: Row) -> None:
    assert row.shape in SHAPES
    assert row.summary.endswith(".") and len(row.summary) < 100
    assert re.fullmatch(r"\d+(\.\d+)+", row.since) or (row.ours and not row.since)
    assert row.value.grammar
    assert not row.needs or row.name.startswith("lxc.net.[i].")
    assert bool(row.into) != (row.shape in (INCLUDE, REMOVED)) or row.name == "lxc.rootfs.backend"


def test_names_are_unique() -> None:
    names = [name for row in schema.ROWS for name in (row.name, *row.old)]
    assert len(names) == len(set(names))


def model_fields() -> dict[str, object]:
    """Every field of the model by its path, with its type."""
    found: dict[str, object] = {}

    def walk(cls: type, prefix: str) -> None:
        for field in dataclasses.fields(cls):
            path = f"{prefix}{field.name}"
            inner = CLASSES.get(path) or {"net.veth": model.Veth}.get(path)
            if inner:
                walk(inner, f"{path}.")
            elif path == "net":
                walk(model.Nic, "net.")
            else:
                found[path] = field.type

    walk(model.Config, "")
    for path in ("origins", "warnings", "net.index"):
        del found[path]
    return found


def test_each_field_of_the_model_is_reached_by_exactly_one_row() -> None:
    reached = [row.into for row in schema.ROWS if row.into and row.shape not in (GROUP, REMOVED)]
    reached.remove("cgroup.entries")  # two dialects, one list
    assert sorted(reached) == sorted(model_fields())


@pytest.mark.parametrize("row", [row for row in schema.ROWS if row.into and row.shape not in (GROUP, REMOVED)],
                         ids=lambda row: row.name)  # fmt: skip
def test_the_shape_fits_the_type(row: Row) -> None:
    kind = str(model_fields()[row.into])
    if row.shape in (LIST, WORDS, CGROUP) or row.into in ("mount.auto", "namespace.clone", "namespace.keep"):
        assert kind.startswith("tuple[")
    elif row.shape is MAP:
        assert kind.startswith(("tuple[", "Mapping["))
    elif row.shape is FOLD:
        assert kind.startswith("tuple[int, int]")
    else:
        assert row.shape is ONE and not kind.startswith("tuple[")


def test_tables_that_the_kernel_layer_has_too() -> None:
    capability = pytest.importorskip("lxcpy.kernel.capability")
    namespace = pytest.importorskip("lxcpy.kernel.namespace")
    assert tuple(capability.CAPABILITIES) == CAPABILITIES
    assert set(namespace.NAMESPACES) == set(NAMESPACES)


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("lxc.rootfs.pth", "lxc.rootfs.path"), ("lxc.net.7.lnk", "lxc.net.7.link"), ("lxc.utname", "lxc.utsname"),
        ("lxc.network.hwadr", "lxc.network.hwaddr"), ("lxc.hook.prestart", "lxc.hook.pre-start"),
        ("uts.name", "lxc.uts.name"), ("lxc.cgroup2", "lxc.cgroup2.*"), ("lxc.completely.else", None),
    ],
)  # fmt: skip
def test_the_nearest_key(wrong: str, near: str | None) -> None:
    assert schema.nearest(wrong) == near


@pytest.mark.parametrize(
    "key", ["", "lxc", "lxc.", "lxc.foo", "lxc.net.", "lxc.net.x", "lxc.net.-1.type", "lxc.net.99999999999.type",
            "lxc.net.\u0663.type", "lxc.net.0.ipv4", "lxc.network.0.ipv4.address",
            "lxc.network.l2proxy", "lxc.prlimits",
            "lxc.cgroup3.a", "LXC.arch", "lxc.arch.x"]
)  # fmt: skip
def test_what_is_no_key(key: str) -> None:
    assert schema.lookup(key) is None
