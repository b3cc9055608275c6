"""The shape of the key table: one row says everything about one key."""

from __future__ import annotations

from typing import Any, NamedTuple

from lxcpy.config.text import OURS
from lxcpy.config.values import Codec

# Shapes: what a second line of the key does, and what an empty value does.
ONE = "one"  # the last line wins; empty: the default, or the row's `empty`
LIST = "list"  # lines add up; empty: none
WORDS = "words"  # as LIST, several items a line
FOLD = "fold"  # lines are merged by a rule of the key; empty: none
MAP = "map"  # one value a sub-key; empty: that one, or all without a sub-key
CGROUP = "cgroup"  # as MAP, yet lines of one sub-key add up and the order counts
GROUP = "group"  # stands for the keys below it; only empty, which clears them all
INCLUDE = "include"
REMOVED = "removed"  # LXC once had it; accepted and left out with a warning

SHAPES = (ONE, LIST, WORDS, FOLD, MAP, CGROUP, GROUP, INCLUDE, REMOVED)


DEFAULT = object()  # in the column `empty`: as in the model


class Row(NamedTuple):
    name: str  # lxc.tty.max; lxc.net.[i].link; lxc.prlimit.*
    into: str  # the field of the model: tty.max
    value: Codec
    shape: str
    since: str  # the first LXC with this name; "": none has it
    summary: str
    old: tuple[str, ...] = ()  # names that other eras used
    empty: Any = DEFAULT  # what an empty value sets where that is not the default
    unset: str = ""  # what LXC prints while the model says None
    joint: str = ""  # what stands between the printed items; nothing: each ends with a line feed
    needs: str = ""  # the lxc.net.[i].type that must be set before
    sub: Codec | None = None  # what a MAP's sub-key may be

    @property
    def ours(self) -> bool:
        """Whether LXC takes a line with the key for a comment."""
        return self.name.startswith(OURS)
