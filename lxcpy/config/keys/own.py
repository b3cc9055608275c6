"""What LXC has not: dependencies between containers. LXC keeps these lines and ignores them."""

from __future__ import annotations

import os
import re

from lxcpy.config.keys.row import ONE, WORDS, Row
from lxcpy.config.values import UINT, Codec, choice, words


def _name(word: str) -> str:
    if "/" in word or word in (".", "..") or len(os.fsencode(word)) > 200:
        raise ValueError(f'"{word}" is not a container name')
    return word


def _pause(text: str) -> float:
    if not re.fullmatch(r"\d{1,6}(\.\d{1,3})?", text, re.ASCII) or float(text) < 0.1:
        raise ValueError(f'"{text}" is not a number of seconds from 0.1 to 999999.999')
    return float(text)


NAMES = Codec("names of containers, divided by blanks", words(_name))
PAUSE = Codec("seconds, at least 0.1, such as 0.5 or 10", _pause, lambda value: f"{value:.3f}".rstrip("0").rstrip("."))

ROWS = (
    Row("lxcpy.start.requires", "start.requires", NAMES, WORDS, "",
        "Containers that must run before this one starts, and are started for it."),
    Row("lxcpy.start.after", "start.after", NAMES, WORDS, "",
        "Containers that autostart starts before this one where it starts both."),
    Row("lxcpy.restart", "restart.policy", choice("no", "on-failure", "always"), ONE, "",
        "Whether the container is started again when it ends by itself."),
    Row("lxcpy.restart.delay", "restart.delay", PAUSE, ONE, "",
        "How long the first restart is waited with; each further wait is twice as long."),
    Row("lxcpy.restart.delay.max", "restart.delay_max", PAUSE, ONE, "",
        "The longest wait before a restart."),
    Row("lxcpy.restart.limit", "restart.limit", UINT, ONE, "",
        "How many restarts may follow each other before it is given up; 0: any number."),
    Row("lxcpy.restart.period", "restart.period", PAUSE, ONE, "",
        "After how long a run restarts and waits are counted from the beginning."),
)  # fmt: skip
