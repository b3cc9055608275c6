"""Wait until a container reaches a state."""

from __future__ import annotations

from lxcpy.cli.options import Args as CommonArgs
from lxcpy.cli.options import Command, Option, seconds
from lxcpy.errors import UsageError

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


def run(args: Args) -> int:
    if args.state is None:
        raise UsageError("could not parse command line: Missing state option to wait for", hint="-s RUNNING, or others")
    from lxcpy.container import Container

    reached = Container(args.name, args.lxcpath).wait(args.state, None if args.timeout < 0 else float(args.timeout))
    return 1 if reached is None else 0
