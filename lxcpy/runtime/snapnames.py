"""The snapshots that a container has: where they are, and what is known of them.

LXCPATH/NAME/snaps/snapN is a container's directory like any other, with two files more: `ts`, when it was taken, and
`comment`. Where LXCPATHsnaps exists the snapshots are there, in a directory of the container's name, as with old LXC.
"""

from __future__ import annotations

import os
import re
import time
from typing import NamedTuple

from lxcpy.config import text
from lxcpy.errors import meaning
from lxcpy.log import Log
from lxcpy.runtime import lookup

LOG = Log("snapshot")


class Snapshot(NamedTuple):
    """One snapshot of a container."""

    name: str
    path: str  # the directory of snapshots, its lxcpath
    timestamp: str  # YYYY:MM:DD HH:MM:SS, local time; "" where it is not known
    comment: str | None

    def to_dict(self) -> dict[str, object]:
        """For --json; time: seconds since 1970, None where it is not known."""
        try:
            when = int(time.mktime(time.strptime(self.timestamp, "%Y:%m:%d %H:%M:%S")))
        except (ValueError, OverflowError):
            when = None
        directory = os.path.join(self.path, self.name)
        return {"snapshot": self.name, "directory": directory, "time": when, "comment": self.comment}


def folder(lxcpath: str, name: str) -> str:
    """Where the snapshots of a container are."""
    old = f"{lxcpath}snaps"
    return os.path.join(old, name) if os.path.isdir(old) else os.path.join(lxcpath, name, "snaps")


def names(lxcpath: str, name: str) -> list[str]:
    """The snapshots of a container in the order of their numbers, without those whose making was cut short."""
    path = folder(lxcpath, name)
    try:
        entries = os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted((entry for entry in entries if _complete(path, entry)), key=_order)


def unfinished(lxcpath: str, name: str) -> list[str]:
    """The snapshots whose making was cut short, or is under way."""
    path = folder(lxcpath, name)
    try:
        return [entry for entry in os.listdir(path) if os.path.lexists(os.path.join(path, entry, "partial"))]
    except (FileNotFoundError, NotADirectoryError):
        return []


def listed(lxcpath: str, name: str) -> list[Snapshot]:
    """All that is known of the snapshots. Raises StateError where there is no such container."""
    if not os.path.exists(lookup.config_path(lxcpath, name)):
        raise lookup.no_such(lxcpath, name)
    path = folder(lxcpath, name)
    return [
        Snapshot(one, path, _read(path, one, "ts") or "", _read(path, one, "comment")) for one in names(lxcpath, name)
    ]


def _complete(path: str, entry: str) -> bool:
    directory = os.path.join(path, entry)
    return os.path.exists(os.path.join(directory, "config")) and not os.path.lexists(f"{directory}/partial")


def _order(name: str) -> tuple[tuple[bool, int, str], ...]:
    """snap2 before snap10."""
    return tuple((word.isdigit(), int(word) if word.isdigit() else 0, word) for word in re.split(r"([0-9]+)", name))


def _read(path: str, snapshot: str, file: str) -> str | None:
    try:
        with open(os.path.join(path, snapshot, file), "rb") as stream:
            return text.decode(stream.read())
    except FileNotFoundError:
        return None
    except OSError as error:
        LOG.warn(f'"{path}/{snapshot}/{file}" cannot be read: {meaning(error)}')
        return None
