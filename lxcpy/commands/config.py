"""Print the system's LXC settings."""

from __future__ import annotations

from lxcpy.cli.options import PLAIN, Command, Option
from lxcpy.cli.options import Args as CommonArgs


class Args(CommonArgs):
    listed: bool


COMMAND = Command(
    "config",
    "Print the system's LXC settings.",
    "-l | KEY",
    (Option("l", "list", None, "The names of all settings, one a line.", key="listed"),),
    {0: "printed, even where the setting has no value", 1: "there is no such setting"},
    named=False,
    common=PLAIN,
    stdout_help=True,
    words="KEY may be abbreviated: the first setting that begins so is meant.",
    args=Args,
)
