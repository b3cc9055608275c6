"""Wait until a container reaches a state."""

from __future__ import annotations

from lxcpy.cli.options import Args as CommonArgs
from lxcpy.cli.options import Command, Option, seconds

STATES = ("STOPPED", "STARTING", "RUNNING", "STOPPING", "ABORTING", "FREEZING", "FROZEN", "THAWED")


class Args(CommonArgs):
    state: tuple[str, ...] | None
    timeout: int


def states(text: str) -> tuple[str, ...]:
    """State names joined by `|`. Raises ValueError."""
    words = tuple(word.strip() for word in text.split("|"))
    for word in words:
        if word not in STATES:
            raise ValueError(f'"{word}" is not one of {" ".join(STATES)}')
    return words


COMMAND = Command(
    "wait",
    "Wait until a container reaches a state.",
    "--name=NAME --state=STATE",
    (
        Option(
            "s", "state", "STATE", f"One or more states joined by |: {', '.join(STATES)}.",
            convert=states, choices=STATES,
        ),
        Option("t", "timeout", "SECONDS", "Give up after that long (default -1: never).", convert=seconds, default=-1),
    ),
    {0: "the state is reached", 1: "the time is over, or there is no such state"},
    words="A container that does not exist counts as STOPPED.",
    args=Args,
)  # fmt: skip
