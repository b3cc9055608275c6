"""Debian version numbers: order and relations (deb-version(7))."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

_PARTS = re.compile(r"(\d+)")
_RELATIONS = {
    "<<": lambda order: order < 0,
    "<=": lambda order: order <= 0,
    "=": lambda order: order == 0,
    ">=": lambda order: order >= 0,
    ">>": lambda order: order > 0,
    # The old spellings, which dpkg still takes: they mean "or equal".
    "<": lambda order: order <= 0,
    ">": lambda order: order >= 0,
}


def _weights(text: str) -> tuple[int, ...]:
    """A run of non-digits as numbers that sort as dpkg sorts: ~ before the end, then letters, then the rest."""
    return tuple(-1 if char == "~" else ord(char) if char.isalpha() else ord(char) + 256 for char in text) + (0,)


def _part_key(text: str) -> tuple[Any, ...]:
    pieces = _PARTS.split(text)
    return tuple(int(piece) if index % 2 else _weights(piece) for index, piece in enumerate(pieces))


@lru_cache(maxsize=4096)
def key(version: str) -> tuple[Any, ...]:
    """A sort key: `key(a) < key(b)` exactly when dpkg says that `a` is earlier."""
    epoch, colon, rest = version.partition(":")
    if not colon:
        epoch, rest = "0", version
    upstream, _, revision = rest.rpartition("-") if "-" in rest else (rest, "", "")
    return int(epoch) if epoch.isdigit() else 0, _part_key(upstream), _part_key(revision)


def compare(left: str, right: str) -> int:
    """-1, 0 or 1 as `left` is earlier than, the same as or later than `right`."""
    a, b = key(left), key(right)
    return (a > b) - (a < b)


def satisfies(version: str, relation: str, wanted: str) -> bool:
    """Whether `version` stands in `relation` (<<, <=, =, >=, >>) to `wanted`."""
    return bool(_RELATIONS[relation](compare(version, wanted)))
