"""lxcpy-ls prints what lxc-ls prints, byte for byte."""

from __future__ import annotations

import pytest

from lxcpy.commands import ls
from lxcpy.commands.ls import Asked, Row


def test_the_table_of_the_reference() -> None:
    rows = [
        Row("b1", "RUNNING", 18804, ram=3019899, interfaces=("eth0", "lo")),
        Row("d1", "STOPPED"),
    ]
    assert ls.table(rows, ls.COLUMNS) == [
        "NAME STATE   PID   RAM    SWAP   AUTOSTART GROUPS INTERFACE IPV4 IPV6 UNPRIVILEGED ",
        "b1   RUNNING 18804 2.88MB 0.00MB 0         -      eth0, lo  -    -    false        ",
        "d1   STOPPED -     -      -      0         -      -         -    -    false        ",
    ]


def test_default_columns_and_lists() -> None:
    rows = [Row("a-long-name", "FROZEN", 7, autostart=True, groups=("web", "db"), ipv4=("10.0.3.5", "10.0.4.5"),
                ipv6=("fd00::1",), unprivileged=True)]  # fmt: skip
    assert ls.table(rows, ls.FANCY) == [
        "NAME        STATE  AUTOSTART GROUPS  IPV4               IPV6    UNPRIVILEGED ",
        "a-long-name FROZEN 1         web, db 10.0.3.5, 10.0.4.5 fd00::1 true         ",
    ]


def test_memory_is_right_aligned_and_swap_cut_to_whole_mib() -> None:
    rows = [Row("a", "RUNNING", 1, ram=123 << 20, swap=(5 << 20) + 900000), Row("b", "RUNNING", 22, ram=1 << 19)]
    assert ls.table(rows, ("NAME", "RAM", "SWAP")) == [
        "NAME RAM      SWAP   ",
        "a    123.00MB 5.00MB ",
        "b      0.50MB 0.00MB ",
    ]


def test_nested_rows_are_indented() -> None:
    rows = [Row("outer", "RUNNING"), Row("inner", "STOPPED", level=1), Row("core", "STOPPED", level=2)]
    assert ls.table(rows, ("NAME", "STATE")) == [
        "NAME   STATE   ",
        "outer  RUNNING ",
        "\\inner STOPPED ",
        " \\core STOPPED ",
    ]


def test_columns_in_the_order_asked() -> None:
    assert ls.table([Row("a", "STOPPED")], ("STATE", "NAME")) == ["STATE   NAME ", "STOPPED a    "]


@pytest.mark.parametrize(
    ("names", "columns", "text"),
    [
        (["a", "b"], 0, "a   \nb   \n"),
        (["a", "b"], 80, "a    b    \n"),
        (["longest", "b", "c"], 80, "longest b       c       \n"),
        (["aaaa", "bbbb", "cccc"], 13, "aaaa bbbb\ncccc \n"),
        (["aaaa", "bbbb", "cccc"], 14, "aaaa bbbb cccc\n"),
        ([], 80, ""),
    ],
)
def test_names_side_by_side(names: list[str], columns: int, text: str) -> None:
    assert ls.plain([Row(name) for name in names], columns) == text


STATES = ("STOPPED", "RUNNING", "FROZEN")


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        ({}, STATES),
        ({"active": True}, ("RUNNING", "FROZEN")),
        ({"running": True}, ("RUNNING", "FROZEN")),
        ({"frozen": True}, ("FROZEN",)),
        ({"stopped": True}, ("STOPPED",)),
        ({"running": True, "stopped": True}, ()),
        ({"running": True, "frozen": True}, ("FROZEN",)),
        ({"active": True, "frozen": True}, ("RUNNING", "FROZEN")),
    ],
)
def test_state_filters_must_all_hold(filters: dict[str, bool], kept: tuple[str, ...]) -> None:
    assert tuple(state for state in STATES if ls.keep(Asked(**filters), state)) == kept


def test_words_between_commas() -> None:
    assert ls.split(" a, b ,,c ") == ("a", "b", "c")
    assert ls.split(None) == ()
