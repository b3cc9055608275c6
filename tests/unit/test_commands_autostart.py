"""Which containers lxcpy-autostart acts on, in which order, and what may be done at once."""

from __future__ import annotations

from lxcpy.commands import autostart
from lxcpy.commands.autostart import Candidate

WEB = Candidate("web", True, 10, groups=("onboot", "front"))
DB = Candidate("db", True, 5, 3, groups=("onboot",))
LONE = Candidate("lone", True, 1)
IDLE = Candidate("idle", False, 0)
OTHER = Candidate("another", True, 10, groups=("front",))
ALL = [WEB, DB, LONE, IDLE, OTHER]


def names(*texts: str, everything: bool = False, ignore_auto: bool = False, reverse: bool = False) -> list[list[str]]:
    groups = autostart.wanted_groups(list(texts))
    passes = autostart.chosen(ALL, groups, everything=everything, ignore_auto=ignore_auto, reverse=reverse)
    return [[one.name for one in one_pass] for one_pass in passes]


def test_without_groups_those_in_none() -> None:
    assert names() == [["lone"]]
    assert names(ignore_auto=True) == [["idle", "lone"]]


def test_all_looks_at_no_groups() -> None:
    assert names(everything=True) == [["lone", "db", "another", "web"]]
    assert names("front", everything=True, reverse=True) == [["web", "another", "db", "lone"]]


def test_groups_in_the_order_asked_and_each_container_once() -> None:
    assert names("onboot,front") == [["db", "web"], ["another"]]
    assert names("front", "onboot") == [["another", "web"], ["db"]]


def test_an_empty_group_stands_for_no_group() -> None:
    assert names("onboot,") == [["db", "web"], ["lone"]]
    assert names(",onboot") == [["lone"], ["db", "web"]]
    assert names("onboot,,front") == [["db", "web"], ["lone"], ["another"]]


def test_batches_are_of_one_order_and_end_at_a_delay() -> None:
    one, two = Candidate("a", order=1), Candidate("b", order=1)
    slow, late = Candidate("c", order=1, delay=2), Candidate("d", order=2)
    assert autostart.batches([[one, two], [late]], delays=True) == [[one, two], [late]]
    assert autostart.batches([[slow, one, two, late]], delays=True) == [[slow], [one, two], [late]]
    assert autostart.batches([[slow, one]], delays=False) == [[slow, one]]
    assert autostart.batches([[one], [two]], delays=True) == [[one], [two]]
    assert autostart.batches([[], []], delays=True) == []
