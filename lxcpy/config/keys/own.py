"""What LXC has not: dependencies between containers. LXC keeps these lines and ignores them."""

from __future__ import annotations

import os

from lxcpy.config.keys.row import WORDS, Row
from lxcpy.config.values import Codec, words


def _name(word: str) -> str:
    if "/" in word or word in (".", "..") or len(os.fsencode(word)) > 200:
        raise ValueError(f'"{word}" is not a container name')
    return word


NAMES = Codec("names of containers, divided by blanks", words(_name))

ROWS = (
    Row("lxcpy.start.requires", "start.requires", NAMES, WORDS, "",
        "Containers that must run before this one starts, and are started for it."),
    Row("lxcpy.start.after", "start.after", NAMES, WORDS, "",
        "Containers that autostart starts before this one where it starts both."),
)  # fmt: skip
