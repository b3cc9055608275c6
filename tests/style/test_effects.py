"""No key is parsed and ignored: each has a test that observes its effect, or a reason why that cannot be done here."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TypeGuard

import effects
import probes
import pytest
from effects import EFFECTS, Elsewhere

from lxcpy.config import schema
from lxcpy.config.keys.row import REMOVED

ROOT = Path(__file__).parent.parent.parent
SEEN = {key: row for key, row in EFFECTS.items() if isinstance(row, str)}
UNSEEN = {key: row for key, row in EFFECTS.items() if isinstance(row, Elsewhere)}
TESTS = {**SEEN, **{key: row.test for key, row in UNSEEN.items() if row.test}}
# What a machine must have for lifecycle tests at all; a test that needs more may be skipped.
USUAL = {"root", "busybox", "bridge", "veth", "macvlan", "libseccomp", "cgroup1"}


def test_every_key_has_a_row_and_every_row_a_key() -> None:
    rows = [row.name for row in schema.ROWS]
    assert list(EFFECTS) == rows, "the rows of tests/effects.py are those of the key table, in its order"


@pytest.mark.parametrize("key", TESTS)
def test_the_test_is_there_and_has_a_real_container(key: str) -> None:
    """That it sets the key, and sees what that does, is proved by tests/lifecycle/test_effects.py."""
    path, _, name = TESTS[key].partition("::")
    assert path.startswith("tests/lifecycle/")
    tree = ast.parse((ROOT / path).read_text())
    found = next((item for item in tree.body if isinstance(item, ast.FunctionDef) and item.name == name), None)
    assert found, f"{path} has no test {name}"
    assert {"box", "lan"} & {argument.arg for argument in found.args.args}, "it has no container"
    marks = [*found.decorator_list, *(item.value for item in tree.body if _is_mark(item))]
    needs = {word.value for mark in marks if ".requires(" in ast.unparse(mark) for word in ast.walk(mark)
             if isinstance(word, ast.Constant)}  # fmt: skip
    if key in SEEN:
        assert needs <= USUAL, f"it is skipped where {needs - USUAL} are missing: the row is Elsewhere"
    else:
        assert UNSEEN[key].needs in needs, f"it does not ask for {UNSEEN[key].needs}"


def _is_mark(item: ast.stmt) -> TypeGuard[ast.Assign]:
    return isinstance(item, ast.Assign) and ast.unparse(item.targets[0]) == "pytestmark"


def test_a_test_has_one_key() -> None:
    assert len(set(TESTS.values())) == len(TESTS)


@pytest.mark.parametrize("key", UNSEEN)
def test_what_is_not_seen_has_its_reason(key: str) -> None:
    row = UNSEEN[key]
    assert len(row.reason) > 20
    assert bool(row.test) == bool(row.needs)
    assert row.test or not row.guest
    removed = next(one for one in schema.ROWS if one.name == key).shape is REMOVED
    assert removed == (row.reason == effects.REMOVED)


@pytest.mark.parametrize("key", [key for key, row in UNSEEN.items() if row.needs])
def test_the_reason_holds_here(key: str) -> None:
    """Where it does not, the row's test is not skipped: it runs with the others."""
    if probes.missing(UNSEEN[key].needs) is None:
        pytest.skip(f"this machine has {UNSEEN[key].needs}: {UNSEEN[key].test} runs")


def test_a_config_less_a_key() -> None:
    text = "lxc.net.0.link = br0\n lxc.net.10.link=x\nlxc.net.0.type = veth\nlxc.prlimit.nofile = 1\n"
    assert effects.pattern("lxc.net.[i].link").fullmatch("lxc.net.10.link")
    assert not effects.pattern("lxc.net").fullmatch("lxc.net.0")
    for key, left in (("lxc.net.[i].link", 2), ("lxc.prlimit.*", 3), ("lxc.net", 4)):
        assert len(effects.without(text, key).splitlines()) == left
