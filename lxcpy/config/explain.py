"""The effective config: every value that is set, and the line it comes from through the includes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from lxcpy.config import schema, text
from lxcpy.config.keys.row import CGROUP, FOLD, LIST, MAP, REMOVED, Row
from lxcpy.config.lines import run
from lxcpy.config.model import CgroupEntry
from lxcpy.config.settings import Settings
from lxcpy.errors import Origin


class Effective(NamedTuple):
    """One value in force."""

    key: str
    value: str  # canonical; one item of a list
    at: Origin | None
    note: str = ""  # what it becomes on this host
    limit: bool = False  # whether it is a limit of a control group

    def to_dict(self) -> dict[str, object]:
        """As plain data."""
        at = self.at and self.at.to_dict()
        return {"key": self.key, "value": self.value, "note": self.note or None, "at": at}


def explain(
    path: str, *, defines: Sequence[str] = (), limits: Callable[[Sequence[CgroupEntry]], Sequence[str]] | None = None
) -> list[Effective]:
    """The values in force of a config file, by the order of the key table.

    limits: what each limit becomes on this host (cgroups.translate), asked once with all of them. Raises ConfigErrors
    where the config is wrong, ConfigError where the file cannot be read.
    """
    loader = run(path, defines)
    loader.check()
    found = list(effective(loader.settings))
    if limits is None:
        return found
    entries = [CgroupEntry(*entry) for entry in loader.settings.limits]
    notes = iter(limits(entries))
    # the rows of the two dialects stand apart in the list, the entries do not
    by_entry = {(e.dialect, e.key, e.value, e.origin): note for e, note in zip(entries, notes, strict=True)}
    return [_noted(row, by_entry) for row in found]


def _noted(row: Effective, notes: dict[tuple[int, str, str, Origin | None], str]) -> Effective:
    for dialect, prefix in ((1, "lxc.cgroup."), (2, "lxc.cgroup2.")):
        if row.limit and row.key.startswith(prefix):
            note = notes.get((dialect, row.key.removeprefix(prefix), row.value, row.at), "")
            return row._replace(note=note) if note else row
    return row


def effective(settings: Settings) -> Iterator[Effective]:
    """The values of the settings."""
    for row in schema.ROWS:
        if row.shape is CGROUP:
            for entry in settings.limits:
                if entry[0] == (1 if row.name == "lxc.cgroup.*" else 2):
                    yield Effective(row.name[:-1] + entry[1], entry[2], entry[3], limit=True)
        elif row.into.startswith("net."):
            continue
        elif row.into in settings.values and row.shape is not REMOVED:
            yield from _values(row, row.name, settings.values[row.into], settings.where.get(row.into))
    nets = [row for row in schema.ROWS if row.name.startswith("lxc.net.[i].")]
    for index in sorted(settings.nets):
        for row in nets:
            if row.into in settings.nets[index]:
                name = row.name.replace("[i]", str(index))
                yield from _values(row, name, settings.nets[index][row.into], settings.nets_where[index].get(row.into))


def _values(row: Row, name: str, value: object, where: object) -> Iterator[Effective]:
    if row.shape is MAP and isinstance(value, dict):
        by_sub = where if isinstance(where, dict) else {}
        for sub, item in value.items():
            yield Effective(name[:-1] + sub, _text(row, item), by_sub.get(sub))
    elif isinstance(value, list):
        by_item = where if isinstance(where, list) else [None] * len(value)
        for item, at in zip(value, by_item, strict=True):
            yield Effective(name, _text(row, item) if row.shape is LIST else str(item), at)
    elif row.shape is FOLD:  # a time: seconds and nanoseconds are written apart
        for part in _parts(value):
            yield Effective(name, row.value.format(part), where if isinstance(where, Origin) else None)
    else:
        yield Effective(name, _text(row, value), where if isinstance(where, Origin) else None)


def _parts(value: Any) -> list[tuple[int | None, int | None]]:
    seconds, nanoseconds = value
    parts: list[tuple[int | None, int | None]] = []
    if seconds:
        parts.append((seconds, None))
    if nanoseconds:
        parts.append((None, nanoseconds))
    return parts or [(0, None)]


def _text(row: Row, value: object) -> str:
    """A value as it could be written: what LXC shows of some texts (no type of a rootfs, no broadcast) is less."""
    return value if isinstance(value, str) else row.value.format(value)


def flat(settings: Settings) -> str:
    """The settings as one text without includes, which loads to the same settings whatever becomes of the files."""
    rows = [row for row in effective(settings) if not row.limit]
    lines = [f"{row.key} = {text.quoted(row.value)}\n" for row in rows]
    for dialect, sub, limit, _ in settings.limits:  # in their order: device rules depend on it
        lines.append(f"lxc.cgroup{'' if dialect == 1 else '2'}.{sub} = {text.quoted(limit)}\n")
    if settings.values.get("cap.keep") == []:
        lines.append("lxc.cap.keep = none\n")
    if settings.values.get("rootfs.backend"):
        lines.append(f"lxc.rootfs.backend = {text.quoted(settings.values['rootfs.backend'])}\n")
    return "".join(lines)


def as_text(rows: Sequence[Effective]) -> list[str]:
    """Lines for a terminal: a config that could be used as it is, each line with its origin as a comment."""
    lines = [f"{row.key} = {row.value}" for row in rows]
    width = min(max((len(line) for line in lines), default=0), 60)
    shown = []
    for line, row in zip(lines, rows, strict=True):
        remarks = [str(row.at)] if row.at else ["set by an empty value" if not row.value else "default"]
        if row.note:
            remarks.append(row.note)
        shown.append(f"{line:<{width}}  # {'; '.join(remarks)}")
    return shown
