"""Report the changes of state of containers as they happen."""

from __future__ import annotations

from lxcpy.cli.options import Args as CommonArgs
from lxcpy.cli.options import Command, Option


class Args(CommonArgs):
    quit: bool


COMMAND = Command(
    "monitor",
    "Report the changes of state of containers as they happen.",
    "[--name=REGEX]",
    (Option("Q", "quit", None, "End the process that passes LXC's reports on, and leave."),),
    {0: "-Q: done", 1: "there is nothing to listen to"},
    default_name=".*",
    many_paths=True,
    words="The name is a POSIX extended regular expression that must match the whole name. -P may be repeated.",
    args=Args,
)
