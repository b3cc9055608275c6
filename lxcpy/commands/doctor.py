"""Say what keeps a container from starting or working, why, and what cures it."""

from __future__ import annotations

import os
import sys

from lxcpy.cli.options import Args as CommonArgs
from lxcpy.cli.options import Command, Option
from lxcpy.errors import LxcpyError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lxcpy.runtime.doctor.finding import Finding


class Args(CommonArgs):
    fix: bool
    json: bool
    all: bool


COMMAND = Command(
    "doctor",
    "Say what keeps a container from starting or working, why, and what cures it.",
    "[NAME] [OPTION...]",
    (
        Option("", "fix", None, "Mend what can be mended without harm, say what was done, and check again."),
        Option("a", "all", None, "Show what is in order, too, of each container."),
        Option("", "json", None, "Print the findings as JSON."),
    ),
    {0: "nothing is wrong; there may be warnings", 1: "there are errors, or no such container"},
    default_name="",
    many_paths=True,
    words="Without NAME: the machine, and what is wrong with any container.",
    args=Args,
)


def run(args: Args) -> int:
    if len(args.rest) > (0 if args.name else 1):
        raise UsageError("one container at a time", hint=f"{args.prog} NAME; without NAME all are looked at")
    name = args.name or "".join(args.rest)
    if name:
        return _one(args, name)
    return _all(args)


def _one(args: Args, name: str) -> int:
    from lxcpy.container import Container
    from lxcpy.runtime.doctor import report

    one = Container(name, args.lxcpath)
    one.require_defined()
    found = report.container(one.lxcpath, one.name)
    fixed = list(report.mend(found)) if args.fix else []
    if fixed:
        found = report.container(one.lxcpath, one.name)
    if args.json:
        _print_json({**_plain(one.name, one.lxcpath, found), "fixes": fixed})
    else:
        _print([*fixed, *_lines(found)])
    return _status(found)


def _all(args: Args) -> int:
    from lxcpy.runtime import lookup
    from lxcpy.runtime.doctor import report

    machine = report.machine(args.lxcpath)
    fixed = list(report.mend(machine)) if args.fix else []
    containers: list[tuple[str, str, list[Finding]]] = []
    for lxcpath in args.lxcpaths:
        for name in lookup.defined(lxcpath):
            found = _checked(lxcpath, name)
            if args.fix:
                done = [f"{name}: {text}" for text in report.mend(found)]
                fixed += done
                found = _checked(lxcpath, name) if done else found
            containers.append((name, lxcpath, found))
    if fixed:
        machine = report.machine(args.lxcpath)
    if args.json:
        rows = [_plain(name, lxcpath, found) for name, lxcpath, found in containers]
        _print_json({"machine": [finding.to_dict() for finding in machine], "containers": rows, "fixes": fixed})
    else:
        lines = [*fixed, *_lines(machine)]
        for name, lxcpath, found in containers:
            lines += ["", _summary(name, lxcpath, found, args)]
            lines += _lines([finding for finding in found if finding.level != "ok" or args.all])
        _print(lines)
    return max([_status(machine), *(_status(found) for _name, _lxcpath, found in containers)])


def _checked(lxcpath: str, name: str) -> list[Finding]:
    from lxcpy.runtime.doctor import finding, report

    try:
        return report.container(lxcpath, name)
    except LxcpyError as error:  # destroyed meanwhile
        return [finding.failed("state", error)]


def _summary(name: str, lxcpath: str, found: list[Finding], args: Args) -> str:
    place = os.path.join(lxcpath, name) if len(args.lxcpaths) > 1 else name
    counts = {level: sum(finding.level == level for finding in found) for level in ("error", "warning")}
    words = [f"{count} {level}{'' if count == 1 else 's'}" for level, count in counts.items() if count]
    return f"{place}: {', '.join(words) or 'nothing is wrong'}"


def _lines(found: list[Finding]) -> list[str]:
    order = {"error": 0, "warning": 1, "ok": 2}
    return [line for finding in sorted(found, key=lambda it: order[it.level]) for line in finding.lines()]


def _plain(name: str, lxcpath: str, found: list[Finding]) -> dict[str, Any]:
    from lxcpy.runtime.doctor.finding import worst

    return {
        "name": name, "lxcpath": lxcpath, "worst": worst(found), "findings": [finding.to_dict() for finding in found]
    }  # fmt: skip


def _status(found: list[Finding]) -> int:
    return 1 if any(finding.level == "error" for finding in found) else 0


def _print(lines: list[str]) -> None:
    """Names of files are a container's: a control character does not reach the terminal."""
    for line in lines:
        text = "".join(letter if letter.isprintable() or "\udc80" <= letter <= "\udcff" else "?" for letter in line)
        sys.stdout.write(f"{text}\n")


def _print_json(value: dict[str, Any]) -> None:
    from lxcpy.cli import output

    sys.stdout.write(output.json(value))
