"""A peek at a config: what ls and autostart want to know of hundreds of containers, from the text alone.

Follows includes; a file that is included twice is read once. A value that does not make sense is passed over: the
commands that start the container say what is wrong with it. Imports nothing heavy.
"""

from __future__ import annotations

import os

from lxcpy.config.numbers import number
from lxcpy.config.presets import members
from lxcpy.config.text import MAX_FILE, decode, value_of
from lxcpy.kernel.record import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_DEPTH = 32


class Peek(NamedTuple):
    """The part of a config that the listing commands use."""

    auto: bool = False
    order: int = 0
    delay: int = 0  # seconds
    groups: tuple[str, ...] = ()
    unprivileged: bool = False
    rootfs: str = ""
    ephemeral: bool = False
    requires: tuple[str, ...] = ()  # lxcpy.start.requires
    after: tuple[str, ...] = ()  # lxcpy.start.after
    restart: str = "no"  # lxcpy.restart


# Names of every era → what they tell.
_KEYS = {
    "lxc.start.auto": "auto", "lxc.start.order": "order", "lxc.start.delay": "delay", "lxc.group": "groups",
    "lxc.idmap": "maps", "lxc.id_map": "maps", "lxc.rootfs.path": "rootfs", "lxc.rootfs": "rootfs",
    "lxc.ephemeral": "ephemeral", "lxc.include": "include", "lxcpy.start.requires": "requires",
    "lxcpy.start.after": "after", "lxcpy.restart": "restart",
}  # fmt: skip
_Pairs = list[tuple[str, str]]
_CACHE: dict[str, tuple[tuple[int, int, int, int], _Pairs]] = {}


def _pairs(text: str) -> _Pairs:
    """What a text tells, in order."""
    found = []
    for line in text.split("\n"):
        if "=" not in line:
            continue
        key, _, value = line.partition("=")
        name = _KEYS.get(key.strip(" \t\r"))
        if name is not None:
            found.append((name, value_of(value)))
    return found


def _read(path: str) -> _Pairs:
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        status = os.fstat(number)
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev)
        cached = _CACHE.get(path)
        if cached is not None and cached[0] == stamp:
            return cached[1]
        data = b""
        while len(data) <= MAX_FILE and (chunk := os.read(number, 1 << 20)):
            data += chunk
    finally:
        os.close(number)
    pairs = _pairs(decode(data))
    if len(_CACHE) > 4096:
        _CACHE.clear()
    _CACHE[path] = (stamp, pairs)
    return pairs


def _collect(path: str, pairs: _Pairs, found: _Pairs, inside: tuple[str, ...]) -> None:
    for name, value in pairs:
        if name != "include":
            found.append((name, value))
        elif value and len(inside) < MAX_DEPTH and len(found) < 10000:
            try:
                for member in members(value, path):
                    if member not in inside:
                        _collect(member, _read(member), found, (*inside, member))
            except (OSError, ValueError):  # no such file; a NUL in its name
                pass


def _settle(pairs: _Pairs) -> Peek:
    numbers = {"auto": 0, "order": 0, "delay": 0, "ephemeral": 0}
    words: dict[str, list[str]] = {"groups": [], "requires": [], "after": []}
    maps, rootfs, restart = 0, "", ""
    for name, value in pairs:
        if name in numbers:
            try:
                numbers[name] = number(value) if value else 0
            except ValueError:
                pass
        elif name in words:
            words[name] = [*words[name], *value.split()] if value else []
        elif name == "maps":
            maps = maps + 1 if value else 0
        elif name == "restart":
            restart = value
        else:
            rootfs = value
    return Peek(numbers["auto"] == 1, numbers["order"], max(numbers["delay"], 0), tuple(words["groups"]), maps > 0,
                rootfs, numbers["ephemeral"] == 1, tuple(words["requires"]), tuple(words["after"]),
                restart or "no")  # fmt: skip


def peek(path: str, defines: Sequence[str] = ()) -> Peek:
    """What the commands want to know of the config at `path`. Raises OSError where it cannot be read.

    defines: `KEY=VALUE` texts that come after the file.
    """
    found: _Pairs = []
    _collect(path, _read(path), found, (path,))
    for define in defines:
        _collect(path, _pairs(define), found, (path,))
    return _settle(found)


def peek_text(text: str, file: str = "config") -> Peek:
    """As `peek`, of a text; `file` is where relative includes start."""
    found: _Pairs = []
    _collect(file, _pairs(text), found, (file,))
    return _settle(found)
