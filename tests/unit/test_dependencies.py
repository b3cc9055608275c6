"""lxcpy.start.requires and lxcpy.start.after: the order that they make, and what is wrong with them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxcpy.config.light import Peek
from lxcpy.errors import Origin
from lxcpy.runtime import dependencies


def peeks(**words: str) -> dict[str, Peek]:
    """`web="db cache / queue"`: web requires db and cache, and is after queue."""
    found = {}
    for name, text in words.items():
        requires, _, after = text.partition("/")
        found[name] = Peek(requires=tuple(requires.split()), after=tuple(after.split()))
    return found


def at(name: str, key: str, word: str) -> Origin:
    return Origin(f"{name}/config", 1)


def planned(wanted: str, known: Mapping[str, Peek], running: str = "") -> dependencies.Plan:
    return dependencies.plan(wanted.split(), known.get, running.split().__contains__, at=at, lxcpath="/nowhere")


def test_what_is_required_comes_first_and_along() -> None:
    known = peeks(web="db cache", db="disk", cache="", disk="", other="")
    plan = planned("other web", known)
    assert plan.names == ["other", "disk", "db", "cache", "web"]
    assert plan.pulled == {"disk": "web", "db": "web", "cache": "web"}
    assert not plan.broken and not plan.ignored


def test_what_runs_is_satisfied_with_all_that_it_requires() -> None:
    assert planned("web", peeks(web="db", db="disk", disk=""), running="db").names == ["web"]
    assert planned("web", peeks(web="gone"), running="gone").names == ["web"]  # its config is no more


def test_after_orders_and_pulls_nothing() -> None:
    known = peeks(a="/b", b="", c="b")
    assert planned("a", known).names == ["a"]
    assert planned("a b", known).names == ["b", "a"]
    assert planned("a c", known).names == ["b", "a", "c"]  # b is started for c: then a is after it as well


def test_after_what_is_not_there_is_worth_a_warning() -> None:
    plan = planned("a", peeks(a="/b"))
    ((name, error),) = plan.ignored
    assert (plan.names, name) == (["a"], "a")
    assert error.lines()[:2] == [
        'lxcpy.start.after: there is no container "b" in /nowhere', "  at a/config:1",
    ]  # fmt: skip


def test_what_is_missing_breaks_those_that_require_it() -> None:
    plan = planned("ok web top", peeks(ok="", web="db", top="web / db"))
    assert plan.names == ["ok"]
    assert {name: error.what for name, error in plan.broken.items()} == {
        "web": 'lxcpy.start.requires: there is no container "db" in /nowhere',
        "top": 'top requires web, which could not be started: lxcpy.start.requires: there is no container "db" in '
        "/nowhere",
    }
    assert str(plan.broken["web"].at) == "web/config:1"


def test_a_circle_breaks_all_in_it_and_what_leads_there() -> None:
    plan = planned("up a ok", peeks(up="a", a="b", b="/c", c="a", ok="/a"))
    # c is in nobody's way: b is only after it
    assert plan.names == ["b", "a", "up", "ok"]
    plan = planned("up a ok c", peeks(up="a", a="b", b="/c", c="a", ok="/a"))
    assert plan.names == ["ok"]
    text = "containers that wait for each other: a requires b, b is after c, c requires a"
    assert plan.broken["a"].what == f"lxcpy.start.requires: {text}"
    assert plan.broken["b"].what == f"lxcpy.start.after: {text}"
    assert str(plan.broken["c"].at) == "c/config:1"
    assert plan.broken["up"].what.startswith("up requires a, which could not be started: ")
    assert planned("a", peeks(a="a")).broken["a"].what.endswith("a requires a")


def test_long_chains() -> None:
    known = {f"c{n}": Peek(requires=(f"c{n + 1}",)) for n in range(3000)} | {"c3000": Peek()}
    assert planned("c0", known).names == [f"c{n}" for n in range(3000, -1, -1)]


@given(st.dictionaries(st.sampled_from("abcdefg"), st.tuples(*[st.sets(st.sampled_from("abcdefgh"))] * 2)))
def test_each_stands_behind_what_it_needs_or_is_broken(graph: dict[str, tuple[set[str], set[str]]]) -> None:
    known = {name: Peek(requires=tuple(sorted(r)), after=tuple(sorted(a))) for name, (r, a) in graph.items()}
    plan = planned(" ".join(sorted(known)), known)
    assert len(plan.names) == len(set(plan.names))
    assert {*plan.names, *plan.broken} == set(known) and not set(plan.names) & plan.broken.keys()
    place = {name: number for number, name in enumerate(plan.names)}
    for name in plan.names:
        assert all(place[other] < place[name] for other in known[name].requires)
        assert all(place[other] < place[name] for other in known[name].after if other in place)


def test_batches_are_of_one_place_and_end_at_a_delay() -> None:
    place = {"a": 1, "b": 1, "c": 1, "d": 2}.__getitem__
    assert dependencies.batches(["a", "b", "d"], place, lambda _name: False) == [["a", "b"], ["d"]]
    assert dependencies.batches(["c", "a", "b", "d"], place, "c".__eq__) == [["c"], ["a", "b"], ["d"]]
    assert dependencies.batches(["a", "d", "b"], place, lambda _name: False) == [["a"], ["d"], ["b"]]
    assert dependencies.batches([], place, lambda _name: False) == []


def test_stops_are_the_other_way_round() -> None:
    known = peeks(web="db", db="disk", disk="", lone="", late="/lone")
    assert dependencies.stop_batches([["db", "disk", "late", "lone", "web"]], known.get) == [
        ["late", "web"], ["db", "lone"], ["disk"],
    ]  # fmt: skip
    # of two stages: web goes down before db though its stage is the second
    assert dependencies.stop_batches([["db", "lone"], ["web", "disk"]], known.get) == [
        ["lone", "web"], ["db"], ["disk"],
    ]  # fmt: skip
    assert dependencies.stop_batches([["db"], ["lone"]], known.get) == [["db"], ["lone"]]


@pytest.mark.parametrize("names", list(itertools.permutations("abc")))
def test_a_circle_can_be_stopped(names: tuple[str, ...]) -> None:
    found = dependencies.stop_batches([list(names)], peeks(a="b", b="c", c="a").get)
    assert sorted(name for batch in found for name in batch) == ["a", "b", "c"]
