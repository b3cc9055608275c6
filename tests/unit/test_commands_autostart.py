"""Which containers lxcpy-autostart acts on, and in which order."""

from __future__ import annotations

from lxcpy.commands import autostart
from lxcpy.commands.autostart import Candidate
from lxcpy.config.light import Peek

WEB = Candidate("web", Peek(auto=True, order=10, groups=("onboot", "front")))
DB = Candidate("db", Peek(auto=True, order=5, delay=3, groups=("onboot",)))
LONE = Candidate("lone", Peek(auto=True, order=1))
IDLE = Candidate("idle", Peek())
OTHER = Candidate("another", Peek(auto=True, order=10, groups=("front",)))
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
