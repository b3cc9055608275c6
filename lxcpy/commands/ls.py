"""List the containers."""

from __future__ import annotations

import os
import sys

from lxcpy import paths
from lxcpy.cli import output
from lxcpy.cli.options import Args as CommonArgs
from lxcpy.cli.options import Command, Option
from lxcpy.kernel.record import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from lxcpy.config.light import Peek

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


class Row(NamedTuple):
    """One container as it is listed; `state` is "" where nobody asked."""

    name: str
    state: str = ""
    pid: int = 0
    ram: int | None = None  # bytes; None: it does not run, or this host cannot tell
    swap: int | None = None
    autostart: bool = False
    groups: tuple[str, ...] = ()
    interfaces: tuple[str, ...] = ()
    ipv4: tuple[str, ...] = ()
    ipv6: tuple[str, ...] = ()
    unprivileged: bool = False
    level: int = 0  # of nesting
    lxcpath: str = ""
    parent: str = ""  # the containers around it, outermost first, joined by slashes

    @property
    def running(self) -> bool:
        return self.state not in ("", "STOPPED")

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        found = dict(self._asdict())
        found["memory"] = found.pop("ram")
        found["pid"], found["parent"] = self.pid or None, self.parent or None
        return found


# -- printing --------------------------------------------------------------------------------------------------------

FANCY = ("NAME", "STATE", "AUTOSTART", "GROUPS", "IPV4", "IPV6", "UNPRIVILEGED")


def cells(row: Row) -> dict[str, str]:
    """The text of each column of one row."""
    return {
        "NAME": row.name,
        "STATE": row.state or "-",
        "PID": str(row.pid) if row.pid > 0 else "-",
        "RAM": f"{(row.ram or 0) / 1048576:.2f}",
        # LXC divides whole numbers here
        "SWAP": f"{(row.swap or 0) // 1048576:.2f}",
        "AUTOSTART": str(int(row.autostart)),
        "GROUPS": ", ".join(row.groups) or "-",
        "INTERFACE": ", ".join(row.interfaces) or "-",
        "IPV4": ", ".join(row.ipv4) or "-",
        "IPV6": ", ".join(row.ipv6) or "-",
        "UNPRIVILEGED": "true" if row.unprivileged else "false",
    }


def table(rows: list[Row], columns: tuple[str, ...]) -> list[str]:
    """lxc-ls's table: a header and a line a row, each cell padded to its column and followed by a space."""
    texts = [cells(row) for row in rows]
    widths = {name: max([len(name), *(len(text[name]) for text in texts)]) for name in COLUMNS}
    widths["NAME"] = max([len("NAME"), *(len(row.name) + row.level for row in rows)])
    memory = {name: max([len(name), *(len(text[name]) for text in texts)]) for name in ("RAM", "SWAP")}
    lines = ["".join(f"{name:<{widths[name] + 2 * (name in memory)}} " for name in columns)]
    for row, text in zip(rows, texts, strict=True):
        line = ""
        for name in columns:
            if name in memory:
                line += f"{text[name]:>{memory[name]}}MB " if row.running else f"{'-':<{memory[name]}}   "
            elif name == "NAME" and row.level:
                line += f"{chr(92):>{row.level}}{row.name:<{widths[name] - row.level}} "
            else:
                line += f"{text[name]:<{widths[name]}} "
        lines.append(line)
    return lines


def plain(rows: list[Row], columns: int) -> str:
    """Names side by side, as many as fit into `columns` of a terminal; 0 for one padded name a line."""
    width = max([len("NAME"), *(len(row.name) + row.level for row in rows)])
    text, used = "", 0
    for row in rows:
        text += f"{row.name:<{width}}"
        used += width
        if used + width >= columns:
            text, used = text + "\n", 0
        else:
            text, used = text + " ", used + 1
    return text + "\n" if used else text


def split(text: str | None) -> tuple[str, ...]:
    """Words between commas, trimmed, without the empty ones."""
    return tuple(word.strip() for word in (text or "").split(",") if word.strip())


# -- gathering -------------------------------------------------------------------------------------------------------


class Asked(NamedTuple):
    """What has to be found out, and of whom."""

    active: bool = False
    running: bool = False
    frozen: bool = False
    stopped: bool = False
    defined: bool = False
    nesting: int = 0
    groups: tuple[str, ...] = ()
    detail: bool = False  # everything but memory and interfaces
    memory: bool = False
    interfaces: bool = False
    paths: bool = False  # nested names are paths

    @property
    def states(self) -> bool:
        return self.detail or self.active or self.running or self.frozen or self.stopped or self.nesting > 0

    @property
    def peeks(self) -> bool:
        return self.detail or bool(self.groups) or self.nesting > 0


def keep(asked: Asked, state: str) -> bool:
    """Do the filters on the state let a container through? All that are given must hold."""
    return not (
        (asked.active and state == "STOPPED")
        or (asked.running and state == "STOPPED")
        or (asked.frozen and not asked.active and state != "FROZEN")
        or (asked.stopped and state != "STOPPED")
    )


def gather(lxcpath: str, asked: Asked, matches: Callable[[str], bool], level: int = 0, parent: str = "") -> list[Row]:
    """The rows of an lxcpath and of what is nested in it."""
    from lxcpy.runtime import lxcclient

    known = set(paths.containers(lxcpath))
    found: dict[str, dict[str, Any]] = {}
    if level:
        found = states_inside(lxcpath)
    elif asked.states:
        from lxcpy.container import states

        found = states(lxcpath, addresses=asked.detail, cgroups=asked.memory)
    running = set(found) if asked.states else set(lxcclient.running(lxcpath))
    rows: list[Row] = []
    for name in sorted(known | running, key=os.fsencode):
        if not matches(name) or (asked.defined and name not in known):
            continue
        facts = found.get(name)
        state = str(facts["state"]) if facts else "STOPPED"
        if not keep(asked, state):
            continue
        peeked = None
        if asked.peeks:
            peeked = _peek(lxcpath, name, facts, name in known)
            if not set(asked.groups) <= set(peeked.groups):
                continue
        place = f"{parent}/{name}" if parent else name
        row = Row(place if asked.paths else name, state if asked.states else "", level=level)
        row = row._replace(lxcpath=lxcpath, parent=parent)
        if asked.detail and peeked:
            row = row._replace(groups=peeked.groups, autostart=peeked.auto, unprivileged=peeked.unprivileged)
        if asked.detail and facts:
            row = _detailed(row, lxcpath, asked, facts)
        rows.append(row)
        if asked.nesting > level:

            def listing(parent: str = place) -> list[Row]:
                return gather(lxcpath, asked, matches, level + 1, parent)

            rootfs = peeked.rootfs.removeprefix("dir:") if peeked else ""
            rows += nested(int(facts["pid"]) if facts else rootfs, listing)
    return rows


def nested(place: int | str, listing: Callable[[], list[Row]]) -> list[Row]:
    """The rows that `listing` gives inside a container: the pid of its init, or its rootfs where it is stopped."""
    if not place or (isinstance(place, str) and not os.path.isdir(place)):
        return []
    from lxcpy.runtime import elsewhere

    found = elsewhere.ask(place, listing)
    values: list[list[Any]]
    values = [[tuple(value) if isinstance(value, list) else value for value in row] for row in found or []]
    return [Row(*row) for row in values]


def states_inside(lxcpath: str) -> dict[str, dict[str, Any]]:
    """What runs inside a container, by the command sockets alone: a supervisor in there is none of ours."""
    from lxcpy.runtime import lxcclient

    found: dict[str, dict[str, Any]] = {}
    try:
        for name in lxcclient.running(lxcpath):
            if one := lxcclient.command(lxcpath, name).now():
                found[name] = one
    except OSError:
        pass  # no /proc in there
    return found


def _peek(lxcpath: str, name: str, facts: dict[str, Any] | None, known: bool) -> Peek:
    """What the config says: the one it was started with, where it runs."""
    from lxcpy.config.light import Peek, peek

    path = (facts or {}).get("config") or (f"{lxcpath}/{name}/config" if known else "")
    try:
        return peek(path) if path else Peek()
    except OSError:
        return Peek()


def _detailed(row: Row, lxcpath: str, asked: Asked, facts: dict[str, Any]) -> Row:
    """The row of a running container with what only the kernel knows."""
    from lxcpy.runtime import usage

    found = usage.addresses(facts)
    row = row._replace(
        pid=int(facts["pid"]),
        ipv4=tuple(address for _, family, address in found if family == "inet"),
        ipv6=tuple(address for _, family, address in found if family == "inet6"),
    )
    if asked.interfaces:
        row = row._replace(interfaces=tuple(usage.interfaces(row.pid)))
    if asked.memory:
        from lxcpy.cgroups import stats

        record = usage.cgroups(lxcpath, facts)
        numbers = stats.read(record) if record else None
        if numbers:
            row = row._replace(ram=numbers.memory, swap=numbers.swap)
    return row


def _pattern(args: Args) -> Callable[[str], bool]:
    """--filter or the only positional argument; an expression that is none matches nothing, as in LXC."""
    text = args.filter or (args.rest[0] if len(args.rest) == 1 else None)
    if text is None:
        return lambda name: True
    from lxcpy.kernel.ere import Pattern

    try:
        return Pattern(text).matches
    except ValueError:
        return lambda name: False


def run(args: Args) -> int:
    columns = tuple(name.upper() for name in split(args.fancy_format)) if args.fancy_format else FANCY
    detail = args.fancy or args.json
    asked = Asked(
        active=args.active,
        running=args.running,
        frozen=args.frozen,
        stopped=args.stopped,
        defined=args.defined,
        nesting=args.nesting,
        groups=split(args.groups),
        detail=detail,
        memory=args.json or (detail and bool({"RAM", "SWAP"} & set(columns))),
        interfaces=args.json or (detail and "INTERFACE" in columns),
        paths=not args.json and (args.line or not args.fancy),
    )
    rows = gather(args.lxcpath, asked, _pattern(args))
    if args.json:
        sys.stdout.write(output.json([row.to_dict() for row in rows]))
    elif not rows:
        pass
    elif args.fancy:
        wrong = [name for name in split(args.fancy_format) if name.upper() not in COLUMNS]
        if wrong:
            sys.stderr.write(f"Invalid key: {wrong[0]}\n")
            return 0
        sys.stdout.write("".join(f"{line}\n" for line in table(rows, columns)))
    elif args.line:
        sys.stdout.write("".join(f"{row.name}\n" for row in rows))
    else:
        sys.stdout.write(plain(rows, output.width()))
    return 0
