"""Print the system's LXC settings."""

from __future__ import annotations

import sys

from lxcpy.cli.options import PLAIN, Command, Option, help_text
from lxcpy.cli.options import Args as CommonArgs
from lxcpy.config.system import SYSTEM_KEYS, system_value


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


def run(args: Args) -> int:
    if args.listed:
        sys.stdout.write("".join(f"{key.name}\n" for key in SYSTEM_KEYS if key.listed))
        return 0
    if not args.rest:
        sys.stdout.write(help_text(COMMAND, args.prog))
        return 0
    wanted = args.rest[0]
    for key in SYSTEM_KEYS:
        # LXC compares as many characters as were typed
        if key.listed and key.name.startswith(wanted):
            value = system_value(key.name)
            sys.stdout.write(f"{value}\n" if value else f"{key.name} is not set.\n")
            return 0
    sys.stdout.write(f"Unknown configuration item: {wanted}\n")
    return 1
