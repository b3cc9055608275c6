"""Print the system's LXC settings, check a container's config, or explain it."""

from __future__ import annotations

import os
import sys

from lxcpy.cli.options import PLAIN, Command, Option, default_lxcpath, help_text
from lxcpy.cli.options import Args as CommonArgs
from lxcpy.config.system import SYSTEM_KEYS, system_value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from lxcpy.config.model import CgroupEntry

VERBS = ("check", "explain")


class Args(CommonArgs):
    listed: bool
    json: bool


COMMAND = Command(
    "config",
    "Print the system's LXC settings, check a container's config, or explain it.",
    "-l | KEY | check NAME | explain NAME",
    (
        Option("l", "list", None, "The names of all settings, one a line.", key="listed"),
        Option("", "json", None, "JSON.", ours=True),
        Option("P", "lxcpath", "PATH", "Directory that holds the containers.", key="lxcpaths", many=True, ours=True),
    ),
    {
        0: "printed, even where the setting has no value; check: nothing keeps the container from starting",
        1: "there is no such setting; check: there are errors; the config cannot be read",
    },
    named=False,
    common=PLAIN,
    stdout_help=True,
    words="KEY may be abbreviated: the first setting that begins so is meant. check and explain take the name of a "
    "container, or the path of a config with a slash in it.",
    args=Args,
)


def run(args: Args) -> int:
    if args.listed:
        names = [key.name for key in SYSTEM_KEYS if key.listed]
        if args.json:
            from lxcpy.cli import output

            sys.stdout.write(output.json([{"key": name, "value": system_value(name) or None} for name in names]))
        else:
            sys.stdout.write("".join(f"{name}\n" for name in names))
        return 0
    if not args.rest:
        sys.stdout.write(help_text(COMMAND, args.prog))
        return 0
    wanted = args.rest[0]
    if wanted in VERBS:
        path = _path(args)
        return _check(path, json=args.json) if wanted == "check" else _explain(path, json=args.json)
    for key in SYSTEM_KEYS:
        # LXC compares as many characters as were typed
        if key.listed and key.name.startswith(wanted):
            value = system_value(key.name)
            if args.json:
                from lxcpy.cli import output

                sys.stdout.write(output.json({"key": key.name, "value": value or None}))
                return 0
            sys.stdout.write(f"{value}\n" if value else f"{key.name} is not set.\n")
            return 0
    (sys.stderr if args.json else sys.stdout).write(f"Unknown configuration item: {wanted}\n")
    return 1


def _path(args: Args) -> str:
    """The config that is meant."""
    from lxcpy.errors import UsageError

    if len(args.rest) != 2:
        raise UsageError(f"{args.rest[0]} takes one container or file", hint=f"{args.prog} {args.rest[0]} NAME")
    name = args.rest[1]
    if "/" in name:
        return name
    return os.path.join(args.lxcpaths[0] if args.lxcpaths else default_lxcpath(), name, "config")


def _check(path: str, *, json: bool) -> int:
    from lxcpy.runtime.doctor import config

    found = config.findings(path)
    if json:
        from lxcpy.cli import output

        sys.stdout.write(output.json([finding.to_dict() for finding in found]))
    else:
        lines = [line for finding in found for line in finding.lines()] or [f"{path}: nothing is wrong"]
        sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 1 if any(finding.error for finding in found) else 0


def _explain(path: str, *, json: bool) -> int:
    from lxcpy.config.explain import as_text, explain

    rows = explain(path, limits=_outcomes)
    if json:
        from lxcpy.cli import output

        sys.stdout.write(output.json([row.to_dict() for row in rows]))
    else:
        sys.stdout.write("".join(f"{line}\n" for line in as_text(rows)))
    return 0


def _outcomes(entries: Sequence[CgroupEntry]) -> Sequence[str]:
    """What each limit becomes on this host."""
    from lxcpy.cgroups.layout import detect
    from lxcpy.cgroups.translate import translate

    return translate(entries, detect()).outcomes
