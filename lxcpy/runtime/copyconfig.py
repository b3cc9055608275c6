"""The config of a copy, made from its original's text: which lines change, and which files go along. Pure.

The rules are lxc-copy's (cli.md, 8): lxc.rootfs.path, lxc.uts.name and lxc.mount.fstab move to the end, hardware
addresses are drawn anew in place, paths of hooks and of overlay mounts that lie in the original's directory lie in the
copy's. So do the other files that a config names there, which LXC forgets. All other lines stay byte for byte, comments
and names of other eras too.
"""

from __future__ import annotations

import os
import random
import re
from typing import NamedTuple

from lxcpy.config import schema, text
from lxcpy.config.addresses import fill_hwaddr

MAC_TEMPLATE = "10:66:6a:xx:xx:xx"  # LXC's prefix
_MAC_LENGTH = len(MAC_TEMPLATE)
# keys whose first word is a file that the container needs; those of one that is written; all that name host paths
_NEEDED = ("lxc.hook.", "lxc.net.[i].script.", "lxc.seccomp.profile", "lxc.include")
_WRITTEN = ("lxc.console.logfile", "lxc.log.file")
_HOST = (*_NEEDED, *_WRITTEN, "lxc.console.path", "lxc.seccomp.notify.proxy", "lxc.mount.", "lxc.rootfs.")


class Change(NamedTuple):
    """What a copy does to its original's config."""

    old: str  # the original's directory
    new: str  # the copy's
    rootfs: str  # the copy's lxc.rootfs.path
    name: str | None = None  # its lxc.uts.name; None: the original's
    new_macs: bool = False
    fstab: str = ""  # the lxc.mount.fstab in force
    old_rootfs: str = ""  # where the original's root filesystem is, if that is a directory

    def roots(self) -> list[str]:
        """Directories on the host that stand for the root of the original in a mount's target."""
        return [root for root in (f"{self.old}/rootfs", self.old_rootfs) if root]


class File(NamedTuple):
    """A file that goes along."""

    key: str
    source: str
    target: str


def rewrite(content: str, change: Change, draw: random.Random | None = None) -> tuple[str, list[File]]:
    """The copy's config, and the files that it needs in its directory."""
    dropped = {"lxc.rootfs.path", "lxc.rootfs.backend"}
    if change.name is not None:
        dropped.add("lxc.uts.name")
    if change.fstab:
        dropped.add("lxc.mount.fstab")
    work = _Rewriting(change, change.old, draw)
    return work.ended(work.lines(content, dropped)), work.files


def rewrite_included(content: str, change: Change, folder: str) -> tuple[str, list[File]]:
    """A file of the original's own that its config includes: the copy's, and the files that this one needs.

    folder: of the original's file, where relative includes start.
    """
    work = _Rewriting(change, folder, None)
    return work.lines(content, set()), work.files


def rewrite_fstab(content: str, change: Change) -> str:
    """The copy's fstab: what is mounted on the original's root by its path on the host is mounted on the copy's."""
    lines = content.split("\n")
    return "\n".join(line if line.lstrip().startswith("#") else _entry(line, change) for line in lines)


def moved(content: str, old: str, new: str) -> str:
    """The config, or a part of it, of a container whose directory has another name now. May be done again."""
    lines = content.split("\n")
    for number, line in enumerate(lines):
        found = _lookup(line)
        if found is not None and found.row.name.startswith(_HOST):
            head, equals, value = line.partition("=")
            lines[number] = head + equals + moved_paths(value, old, new)
    return "\n".join(lines)


def moved_paths(value: str, old: str, new: str) -> str:
    """A text with each path below the directory `old`, as it is or written as in fstab(5), below `new` instead."""
    for one, other in dict.fromkeys(((old, new), (field(old), field(new)))):
        value = re.sub(rf"(?<![^\s=:,\"']){re.escape(one)}(?=/)", lambda _, other=other: other, value)  # type: ignore[misc]
    return value


def field(path: str) -> str:
    """A path as a field of fstab(5)."""
    for character in "\\ \t\n":
        path = path.replace(character, f"\\{ord(character):03o}")
    return path


def inside(path: str, directory: str) -> bool:
    """Does a path lie below a directory, as it is written?"""
    return os.path.normpath(path).startswith(directory.rstrip("/") + "/")


class _Rewriting:
    """One text on its way to the copy, and the files that go along."""

    def __init__(self, change: Change, folder: str, draw: random.Random | None) -> None:
        self.change = change
        self.folder = folder
        self.draw = draw
        self.files: list[File] = []

    def lines(self, content: str, dropped: set[str]) -> str:
        lines: list[str] = []
        for line in content.split("\n"):
            found = _lookup(line)
            if found is None:
                lines.append(line)
            elif found.row.name not in dropped:
                lines.append(self._line(line, found.row.name))
        return "\n".join(lines)

    def ended(self, content: str) -> str:
        """The text with the lines that belong to the copy alone."""
        change = self.change
        ends = [("lxc.rootfs.path", change.rootfs)]
        if change.name is not None:
            ends.append(("lxc.uts.name", change.name))
        if change.fstab:
            inner = os.path.relpath(change.fstab, change.old) if inside(change.fstab, change.old) else ""
            target = os.path.join(change.new, inner or os.path.basename(change.fstab))
            self.files.append(File("lxc.mount.fstab", change.fstab, target))
            ends.append(("lxc.mount.fstab", target))
        end = "\r\n" if "\r\n" in content else "\n"
        if content and not content.endswith("\n"):
            content += end
        return content + "".join(f"{key} = {text.quoted(value)}{end}" for key, value in ends)

    def _line(self, line: str, key: str) -> str:
        head, _, rest = line.partition("=")
        value = text.value_of(rest)
        new = value
        if key == "lxc.net.[i].hwaddr":
            if self.change.new_macs and len(value) == _MAC_LENGTH:
                new = fill_hwaddr(MAC_TEMPLATE, self.draw)
        elif key.startswith(_NEEDED):
            new = self._needed(key, value)
        elif key in _WRITTEN:
            new = self._own(value) or value
        elif key == "lxc.mount.entry":
            new = _entry(value, self.change)
            if " overlay" in value:
                for word in ("upperdir", "workdir", "br"):
                    new = new.replace(f"{word}={self.change.old}/", f"{word}={self.change.new}/")
        if new == value:
            return line
        return f"{head}={rest.replace(value, new, 1)}"

    def _needed(self, key: str, value: str) -> str:
        """A value that is a file, or a command line; the file goes along where it is the original's own."""
        path = value if key in ("lxc.include", "lxc.seccomp.profile") else value.partition(" ")[0]
        if key == "lxc.include":
            path = os.path.normpath(os.path.join(self.folder, value)) if value else ""
        target = self._own(path)
        if not target:
            return value
        if not self._in_rootfs(path):
            self.files.append(File(key, path, target))
        if key == "lxc.include":
            return target if os.path.isabs(value) else value
        return target + value[len(path) :]

    def _own(self, path: str) -> str:
        """Where a file of the original's own is the copy's; "" for another's, and for one that the copy shares."""
        change = self.change
        if not path.startswith(f"{change.old}/") or not inside(path, change.old):
            return ""
        if self._in_rootfs(path) and not change.rootfs.startswith("dir:"):
            return ""  # a snapshot clone has its own root filesystem only when it runs
        return change.new + path[len(change.old) :]

    def _in_rootfs(self, path: str) -> bool:
        return any(inside(path, root) for root in self.change.roots())


def _entry(entry: str, change: Change) -> str:
    """A line of fstab(5) whose target is below the copy's root filesystem where it was below the original's."""
    found = re.match(r"\s*\S+\s+(\S+)", entry)
    if not found:
        return entry
    start, end = found.span(1)
    for root in map(field, change.roots()):
        if found[1] == root or found[1].startswith(f"{root}/"):
            return entry[:start] + field(f"{change.new}/rootfs") + found[1][len(root) :] + entry[end:]
    return entry


def _lookup(line: str) -> schema.Found | None:
    key = text.key_of(line) if "=" in line else None
    return schema.lookup(key) if key else None
