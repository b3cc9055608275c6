"""The lines of a config file and of what it includes, applied to Settings. Knows nothing of the model.

Parsed files are kept by (mtime, size, inode), since one supervisor loads the same presets for hundreds of containers.
All problems of a config are collected, each with its line and the includes that led there.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from typing import Any, NamedTuple

from lxcpy import paths
from lxcpy.config import schema, text
from lxcpy.config.keys.row import INCLUDE, REMOVED
from lxcpy.config.presets import PRESET_DIRS, members
from lxcpy.config.schema import Found
from lxcpy.config.settings import ANY_TYPE, Settings
from lxcpy.errors import ConfigError, ConfigErrors, Origin, meaning

MAX_DEPTH = 32
MAX_FILES = 1000  # files read for one config: includes can multiply
MAX_PROBLEMS = 100
_NOTHING = object()


class Item(NamedTuple):
    """One line, understood as far as it can be without the lines before it."""

    number: int
    found: Found | None  # None: the line cannot be understood at all
    text: str
    value: Any  # parsed; _NOTHING: the value is empty
    problem: tuple[str, str | None] | None  # reason and hint


Parsed = tuple[Item, ...]


class _Cached(NamedTuple):
    stamp: tuple[int, int, int, int]
    parsed: Parsed


_CACHE: dict[str, _Cached] = {}
_CACHE_SIZE = 4096


def parse(content: str) -> Parsed:
    """The lines of one file's text."""
    wrong = text.fault(content)
    if wrong:
        return (Item(wrong.number, None, "", _NOTHING, (wrong.reason, wrong.hint)),)
    items: list[Item] = []
    settings = Settings()
    unknown = 0
    for line in text.lines(content):
        if line.key is None:
            problem = (f'"{_short(line.text)}" has no "="', "write KEY = VALUE")
            items.append(Item(line.number, None, "", _NOTHING, problem))
            continue
        found = schema.lookup(line.key)
        if found is None:
            unknown += 1
            near = schema.nearest(line.key) if unknown <= MAX_PROBLEMS else None
            unknown_key = (f'unknown key "{_short(line.key)}"', f"the nearest key is {near}" if near else None)
            items.append(Item(line.number, None, "", _NOTHING, unknown_key))
        elif not line.value:
            items.append(Item(line.number, found, "", _NOTHING, None))
        else:
            try:
                items.append(Item(line.number, found, line.value, settings.parse(found, line.value), None))
            except ValueError as error:
                reason = str(error)
                reason = reason if len(reason) <= 240 else f"{reason[:160]}...{reason[-60:]}"
                wrong_value = (reason, found.row.value.grammar)
                items.append(Item(line.number, found, line.value, _NOTHING, wrong_value))
    return tuple(items)


def _short(line: str) -> str:
    line = line.strip()
    return line if len(line) <= 80 else line[:77] + "..."


def read(path: str) -> str:
    """A config file's text. Raises OSError, also where it is no file."""
    content, _ = _read(path)
    return content


def _read(path: str) -> tuple[str, os.stat_result]:
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        status = os.fstat(number)
        if stat.S_ISDIR(status.st_mode):
            raise IsADirectoryError(21, "Is a directory", path)
        if not stat.S_ISREG(status.st_mode) and not os.path.samestat(status, os.stat(os.devnull)):
            raise OSError(22, "Not a regular file", path)
        chunks, size = [], 0
        while chunk := os.read(number, 1 << 20):
            chunks.append(chunk)
            size += len(chunk)
            if size > text.MAX_FILE:
                break
    finally:
        os.close(number)
    return text.decode(b"".join(chunks)), status


def _parsed(path: str) -> tuple[Parsed, tuple[int, int]]:
    """A file's lines and its (device, inode). Raises OSError."""
    status = os.stat(path)
    cached = _CACHE.get(path)
    stamp = (status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev)
    if cached is not None and cached.stamp == stamp:
        return cached.parsed, (status.st_dev, status.st_ino)
    content, status = _read(path)
    stamp = (status.st_mtime_ns, status.st_size, status.st_ino, status.st_dev)
    parsed = parse(content)
    if len(_CACHE) >= _CACHE_SIZE:
        del _CACHE[next(iter(_CACHE))]
    _CACHE[path] = _Cached(stamp, parsed)
    return parsed, (status.st_dev, status.st_ino)


class Loader:
    """The state of one load."""

    def __init__(self, *, note_lines: bool = False) -> None:
        """note_lines: keep which line of the top file sets which key to what."""
        self.note_lines = note_lines
        self.lines: list[tuple[int, str, str]] = []
        self.settings = Settings()
        self.problems: list[ConfigError] = []
        self.warnings: list[tuple[Origin, str]] = []
        self.includes: list[tuple[str, Origin]] = []
        self.left_out = 0
        self.files = 0

    def problem(self, at: Origin, what: str, hint: str | None = None) -> None:
        """Note one problem."""
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(ConfigError(what, at=at, hint=hint))
        else:
            self.left_out += 1

    def file(self, path: str, via: tuple[tuple[str, int], ...] = (), inside: tuple[tuple[int, int], ...] = ()) -> None:
        """Apply one file. Raises OSError where it cannot be read."""
        parsed, identity = _parsed(path)
        if identity in inside:
            self.problem(Origin(via[0][0], via[0][1], via[1:]), f'"{path}" includes itself',
                         "take one of the includes out")  # fmt: skip
            return
        self.apply(parsed, path, via, (*inside, identity))

    def apply(self, parsed: Parsed, file: str, via: tuple[tuple[str, int], ...] = (),
              inside: tuple[tuple[int, int], ...] = ()) -> None:  # fmt: skip
        """Apply the lines of one file."""
        settings = self.settings
        for number, found, value_text, value, problem in parsed:
            at = Origin(file, number, via)
            if found is None or problem is not None:
                self.wrong(found, problem, at)
                continue
            shape = found.row.shape
            try:
                if shape is INCLUDE:
                    self.note(number, found, value_text, via)
                    self.include(value_text, at, inside)
                    continue
                if shape is REMOVED:
                    self.removed(found, value, at)
                elif value is _NOTHING:
                    settings.set_empty(found)
                else:
                    settings.put(found, value, at)
                self.note(number, found, value_text, via)
            except ValueError as error:
                self.problem(at, f"{written(found)}: {error}")

    def note(self, number: int, found: Found, value: str, via: tuple[tuple[str, int], ...]) -> None:
        """Keep what a line of the top file sets, where that is asked for."""
        if self.note_lines and not via:
            self.lines.append((number, self.settings.resolved(found), value))

    def wrong(self, found: Found | None, problem: tuple[str, str | None] | None, at: Origin) -> None:
        """Note a line that no other line can make right."""
        reason, hint = problem or ("", None)
        self.problem(at, f"{written(found)}: {reason}" if found else reason, hint)
        if found and found.row.into == "net.type":  # so that the interface's other lines are judged as well
            self.settings.put(found, ANY_TYPE, at)

    def removed(self, found: Found, value: Any, at: Origin) -> None:
        """Take note of a key that LXC no longer has; one of them, lxc.rootfs.backend, still says something."""
        if not found.row.into:
            self.warnings.append((at, f"{found.row.name} is left out: {found.row.summary}"))
        elif value is not _NOTHING:
            self.settings.put(found, value, at)

    def include(self, name: str, at: Origin, inside: tuple[tuple[int, int], ...]) -> None:
        """Apply a file, or the *.conf files of a directory in the order of their names."""
        if not name:
            return
        via = ((at.file, at.line), *at.via)
        if len(inside) >= MAX_DEPTH:
            self.problem(at, f'"{name}": includes are nested more than {MAX_DEPTH} deep')
            return
        try:
            for one in members(name, at.file):
                self.files += 1
                if self.files > MAX_FILES:
                    if self.files == MAX_FILES + 1:
                        self.problem(at, f"more than {MAX_FILES} files are included")
                    return
                self.includes.append((one, at))
                self.file(one, via, inside)
        except OSError as error:
            hint = "is the name mistyped?" if isinstance(error, FileNotFoundError) else None
            if hint and name.startswith(PRESET_DIRS):
                hint = f"lxcpy's presets are in {paths.data_dir('config')}; {hint}"
            self.problem(at, f'lxc.include: cannot read "{error.filename or name}": {meaning(error)}', hint)

    def check(self) -> None:
        """Raise ConfigErrors where there are problems."""
        if self.problems:
            if self.left_out:
                last = self.problems[-1]
                last.hint = f"{last.hint}; " if last.hint else ""
                last.hint += f"{self.left_out} more problems are not shown"
            raise ConfigErrors(self.problems)


def written(found: Found) -> str:
    if found.net == schema.LAST:
        return found.row.old[0].replace(".[i]", "")
    return found.key


def apply_defines(loader: Loader, defines: Sequence[str]) -> None:
    """Apply `KEY=VALUE` of the command line."""
    for number, define in enumerate(defines, 1):
        at = f"-s {_short(define)}"
        if not define.lstrip().startswith(text.PREFIXES):
            loader.problem(Origin(at, number), f'"{_short(define)}" does not begin with "lxc." or "lxcpy."')
        else:
            loader.apply(parse(define), at)


def run(path: str, defines: Sequence[str] = (), *, note_lines: bool = False) -> Loader:
    """Load without building: for check and explain. Raises ConfigError where the file cannot be read."""
    loader = Loader(note_lines=note_lines)
    try:
        loader.file(path)
    except OSError as error:
        hint = "is the container's name right?" if isinstance(error, FileNotFoundError) else None
        raise ConfigError(f'cannot read the config "{path}": {meaning(error)}', hint=hint) from error
    apply_defines(loader, defines)
    return loader
