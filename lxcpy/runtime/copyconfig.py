"""The config of a copy, made from its original's text: which lines change, and which files go along. Pure.

The rules are lxc-copy's (cli.md, 8): lxc.rootfs.path, lxc.uts.name and lxc.mount.fstab move to the end, hardware
addresses are drawn anew in place, paths of hooks and of overlay mounts that lie in the original's directory lie in the
copy's. All other lines stay byte for byte, comments and names of other eras too.
"""

from __future__ import annotations

import os
import random
from typing import NamedTuple

from lxcpy.config import schema, text
from lxcpy.config.addresses import fill_hwaddr

MAC_TEMPLATE = "10:66:6a:xx:xx:xx"  # LXC's prefix
_MAC_LENGTH = len(MAC_TEMPLATE)


class Change(NamedTuple):
    """What a copy does to its original's config."""

    old: str  # the original's directory
    new: str  # the copy's
    rootfs: str  # the copy's lxc.rootfs.path
    name: str | None = None  # its lxc.uts.name; None: the original's
    new_macs: bool = False
    fstab: str = ""  # the lxc.mount.fstab in force


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
    lines: list[str] = []
    files: list[File] = []
    for line in content.split("\n"):
        key = text.key_of(line) if "=" in line else None
        found = schema.lookup(key) if key else None
        if found is None:
            lines.append(line)
        elif found.row.name not in dropped:
            lines.append(_line(line, found.row.name, change, files, draw))
    return _with_end("\n".join(lines), change, files), files


def inside(path: str, directory: str) -> bool:
    """Does a path lie below a directory, as it is written?"""
    return os.path.normpath(path).startswith(directory.rstrip("/") + "/")


def _line(line: str, key: str, change: Change, files: list[File], draw: random.Random | None) -> str:
    head, _, rest = line.partition("=")
    value = text.value_of(rest)
    new = value
    if key == "lxc.net.[i].hwaddr":
        if change.new_macs and len(value) == _MAC_LENGTH:
            new = fill_hwaddr(MAC_TEMPLATE, draw)
    elif key.startswith("lxc.hook."):
        new = _hook(key, value, change, files)
    elif key == "lxc.mount.entry" and " overlay" in value:
        for word in ("upperdir", "workdir", "br"):
            new = new.replace(f"{word}={change.old}/", f"{word}={change.new}/")
    if new == value:
        return line
    return f"{head}={rest.replace(value, new, 1)}"


def _hook(key: str, value: str, change: Change, files: list[File]) -> str:
    """A hook's command line; its script goes along where it is the original's own."""
    script = value.split()[0] if value.split() else ""
    if not script.startswith(change.old + "/") or not inside(script, change.old):
        return value
    files.append(File(key, script, change.new + script[len(change.old) :]))
    return change.new + value[len(change.old) :]


def _with_end(content: str, change: Change, files: list[File]) -> str:
    """The text with the lines that belong to the copy alone."""
    ends = [("lxc.rootfs.path", change.rootfs)]
    if change.name is not None:
        ends.append(("lxc.uts.name", change.name))
    if change.fstab:
        target = _moved(change.fstab, change)
        files.append(File("lxc.mount.fstab", change.fstab, target))
        ends.append(("lxc.mount.fstab", target))
    end = "\r\n" if "\r\n" in content else "\n"
    if content and not content.endswith("\n"):
        content += end
    return content + "".join(f"{key} = {text.quoted(value)}{end}" for key, value in ends)


def _moved(path: str, change: Change) -> str:
    """Where a file of the original's goes in the copy's directory."""
    for directory in (change.old, change.new):
        if inside(path, directory):
            return os.path.join(change.new, os.path.relpath(path, directory))
    return os.path.join(change.new, os.path.basename(path))
