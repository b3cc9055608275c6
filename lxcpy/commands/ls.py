"""List the containers."""

from __future__ import annotations

from lxcpy.cli.options import Args as CommonArgs
from lxcpy.cli.options import Command, Option

COLUMNS = (
    "NAME", "STATE", "PID", "RAM", "SWAP", "AUTOSTART", "GROUPS", "INTERFACE", "IPV4", "IPV6", "UNPRIVILEGED",
)  # fmt: skip
NESTING = 5  # levels, where --nesting has no number


class Args(CommonArgs):
    line: bool
    fancy: bool
    fancy_format: str | None
    active: bool
    running: bool
    frozen: bool
    stopped: bool
    defined: bool
    nesting: int
    groups: str | None
    filter: str | None
    json: bool


def nesting(text: str) -> int:
    """The levels of --nesting; what is no number means the default, as in LXC."""
    return int(text) if text.isdigit() else NESTING


COMMAND = Command(
    "ls",
    "List the containers.",
    "[REGEX]",
    (
        Option("1", "line", None, "One name a line."),
        Option("f", "fancy", None, "A table."),
        Option(
            "F", "fancy-format", "COLUMNS", f"With -f: the columns, separated by commas, out of {', '.join(COLUMNS)}.",
            choices=COLUMNS,
        ),
        Option("", "active", None, "Only containers that run or are frozen."),
        Option("", "running", None, "Only containers that run."),
        Option("", "frozen", None, "Only frozen containers."),
        Option("", "stopped", None, "Only stopped containers."),
        Option("", "defined", None, "Only containers that have a configuration."),
        Option(
            "", "nesting", "[NUM]", f"Containers inside containers too, down to NUM levels (default {NESTING}).",
            value=NESTING, default=0, convert=nesting,
        ),
        Option("g", "groups", "GROUPS", "Only containers that are in all of these groups, separated by commas."),
        Option("", "filter", "REGEX", "Only names that match this POSIX extended regular expression."),
        Option("", "json", None, "An array of objects, one a container.", ours=True),
    ),
    {0: "listed; an empty list counts", 1: "the command line is wrong"},
    default_name="",
    words="REGEX as the only argument means the same as --filter=REGEX.",
    args=Args,
)  # fmt: skip
