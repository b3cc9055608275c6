"""Show the use of resources by running containers, again and again."""

from __future__ import annotations

from lxcpy.cli.options import Args as CommonArgs
from lxcpy.cli.options import Command, Option

SORTS = {
    "n": "name", "c": "processor", "b": "block I/O", "m": "memory", "s": "memory and swap", "k": "kernel memory",
}  # fmt: skip


class Args(CommonArgs):
    delay: float | None
    batch: bool
    sort: str
    reverse: bool


def delay(text: str) -> float:
    """Seconds. Raises ValueError."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value < 1e9:
        raise ValueError(f'"{text}" is not a time in seconds')
    return value


def sort(text: str) -> str:
    """A letter of SORTS. Raises ValueError."""
    if text not in SORTS:
        raise ValueError(f'"{text}" is not one of {" ".join(SORTS)}')
    return text


COMMAND = Command(
    "top",
    "Show the use of resources by running containers, again and again.",
    "[OPTION...]",
    (
        Option("d", "delay", "SECONDS", "Time between two displays (default 3; with -b 300).", convert=delay),
        Option("b", "batch", None, "Print comma-separated values for a file."),
        Option(
            "s", "sort", "LETTER", f"Sort by {', '.join(f'{key} ({what})' for key, what in SORTS.items())}.",
            convert=sort, default="n", choices=tuple(SORTS),
        ),
        Option("r", "reverse", None, "Sort in descending order."),
    ),
    {0: "left by q", 1: "standard input is not a terminal"},
    default_name="",
    many_paths=True,
    words="Keys: q leaves; n c b m s k sort, the same key again turns the order round; so does r.",
    args=Args,
)  # fmt: skip
