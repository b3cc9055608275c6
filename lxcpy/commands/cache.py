"""List, check or thin the cache of packages and root filesystems."""

from __future__ import annotations

import os
import sys

from lxcpy import paths
from lxcpy.cli import output
from lxcpy.cli.options import PLAIN, Args, Command, Option
from lxcpy.commands.create import size
from lxcpy.errors import LxcpyError, StateError, UsageError, meaning

TYPE_CHECKING = False  # importing typing costs more than this command's help
if TYPE_CHECKING:
    from typing import Any

    from lxcpy.bootstrap.inventory import Entry

VERBS = ("list", "verify", "prune")
_AGES = {"h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


class CacheArgs(Args):
    age: float | None
    size: int | None
    all: bool
    repair: bool
    dry_run: bool
    json: bool


def age(text: str) -> float:
    """Seconds from `N[hdw]`; a bare number is days. Raises ValueError."""
    number, unit = (text, "d") if text.isdigit() else (text[:-1], text[-1:].lower())
    if not number.isdigit() or unit not in _AGES:
        raise ValueError(f'"{text}" is not an age: write a number and one of h d w')
    return int(number) * _AGES[unit]


COMMAND = Command(
    "cache",
    "List, check or thin the cache of packages and root filesystems.",
    "list|verify|prune [OPTION...]",
    (
        Option("a", "all", None, "List each file by itself.", section="With list"),
        Option("", "repair", None, "Remove what is damaged.", section="With verify"),
        Option(
            "", "age", "AGE", "Remove what was not used for so long: a number and one of h d w (default d).",
            convert=age, section="With prune",
        ),
        Option(
            "", "size", "SIZE", "Remove the longest unused until no more than SIZE is left, with a unit of b k m g t "
            "(default m).", convert=size, section="With prune",
        ),
        Option("", "dry-run", None, "Only say what would be removed.", section="With prune"),
        Option("", "json", None, "Print JSON.", section="Output"),
    ),
    exit_status={0: "done; verify: nothing is damaged", 1: "it could not be done; verify: something is damaged"},
    named=False,
    common=PLAIN,
    args=CacheArgs,
    words="""\
    list     Show what there is, and when it was used last. The default.
    verify   Check each file and blob by its hash, each root filesystem by what was noted when it was made.
    prune    Remove what --age and --size say, and downloads that were given up.""",
)  # fmt: skip


def run(args: CacheArgs) -> int:
    """Raises LxcpyError."""
    verb = args.rest[0] if args.rest else "list"
    if len(args.rest) > 1 or verb not in VERBS:
        raise UsageError(f'"{" ".join(args.rest)}" is none of {", ".join(VERBS)}', hint=f"{args.prog} list")
    directory = paths.cache_dir()
    if os.geteuid() and not os.access(directory, os.R_OK | os.X_OK) and os.path.exists(directory):
        raise StateError(f'cannot read the cache "{directory}"', hint="run the command with sudo")
    try:
        return {"list": _list, "verify": _verify, "prune": _prune}[verb](args, directory)
    except OSError as error:
        place = error.filename or directory
        raise LxcpyError(
            f'cannot use the cache: "{place}": {meaning(error)}', hint="run the command as root"
        ) from error


def _list(args: CacheArgs, directory: str) -> int:
    from lxcpy.bootstrap import inventory

    found = inventory.entries(directory)
    if args.json:
        _tell({"directory": directory, "entries": [entry.to_dict() for entry in found]})
        return 0
    rows: list[tuple[str, str, str, str]] = [("KIND", "SIZE", "USED", "NAME")]
    kinds: dict[str, list[Entry]] = {}
    for entry in found:
        kinds.setdefault(entry.kind, []).append(entry)
    for kind, entries in kinds.items():
        if args.all or kind == "rootfs":
            rows += [(kind, _size(entry.size), _ago(entry.used), entry.name) for entry in entries]
        else:
            newest = max(entry.used for entry in entries)
            rows.append((kind, _size(sum(entry.size for entry in entries)), _ago(newest), f"{len(entries)} files"))
    rows.append(("total", _size(sum(entry.size for entry in found)), "", directory))
    _print_table(rows)
    return 0


def _verify(args: CacheArgs, directory: str) -> int:
    from lxcpy.bootstrap import inventory
    from lxcpy.storage import blob

    bad: list[dict[str, Any]] = []
    count = 0
    for entry, problem in inventory.verify(directory, blob.usable, blob.fingerprint):
        count += 1
        if not problem:
            continue
        removed = args.repair and inventory.remove(entry)
        bad.append({**entry.to_dict(), "problem": problem, "repaired": removed})
        if not args.json:
            print(f"{entry.kind} {entry.name}: {problem}" + (": removed" if removed else f" ({entry.path})"))
    if args.json:
        _tell({"directory": directory, "checked": count, "damaged": bad})
    else:
        print(f"{count} checked, {len(bad)} damaged")
    return 1 if any(not one["repaired"] for one in bad) else 0


def _prune(args: CacheArgs, directory: str) -> int:
    from lxcpy.bootstrap import inventory, rootfscache
    from lxcpy.storage.tree import remove_tree

    if os.geteuid():
        raise StateError("only root can remove what is in the cache", hint="run the command with sudo")
    gone: list[Entry] = []
    for entry in inventory.prune(directory, age=args.age, size=args.size):
        if args.dry_run or inventory.remove(entry):
            gone.append(entry)
    if not args.dry_run and os.path.isdir(f"{directory}/rootfs"):
        rootfscache.sweep(f"{directory}/rootfs", remove_tree)
        for path in inventory.leftovers(directory):
            os.unlink(path)
    freed = sum(entry.size for entry in gone)
    if args.json:
        _tell({"directory": directory, "freed": freed, "removed": [entry.to_dict() for entry in gone]})
        return 0
    for entry in gone:
        print(f"{entry.kind} {entry.name}")
    print(f"{len(gone)} {'would be ' if args.dry_run else ''}removed, {_size(freed)}")
    return 0


def _tell(value: object) -> None:
    sys.stdout.write(output.json(value))


def _print_table(rows: list[tuple[str, str, str, str]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for kind, amount, used, name in rows:
        print(f"{kind:<{widths[0]}}  {amount:>{widths[1]}}  {used:>{widths[2]}}  {name}")


def _size(count: int) -> str:
    from lxcpy.bootstrap import progress

    return progress.size(count)


def _ago(moment: float) -> str:
    import time

    passed = max(time.time() - moment, 0.0)
    for unit, seconds in (("d", 86400), ("h", 3600), ("min", 60)):
        if passed >= 2 * seconds:
            return f"{int(passed // seconds)} {unit}"
    return f"{int(passed)} s"
