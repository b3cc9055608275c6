"""The files in a container's directory that its config names: they go along with a copy, and learn of a new name."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from lxcpy.config import text
from lxcpy.config.file import save_text
from lxcpy.config.lines import read
from lxcpy.config.model import Config
from lxcpy.config.presets import members
from lxcpy.errors import StorageError, meaning
from lxcpy.runtime import copyconfig

_HARMLESS = ("lxc.include", "lxc.seccomp.profile")  # where they are missing the copy is no worse than its original


def copy_files(files: Sequence[copyconfig.File], config: Config, change: copyconfig.Change) -> None:
    """Copy the files that go along, mode and all, with the paths in them. Raises StorageError.

    config: the original's.
    """
    left = list(files)
    while left:
        file = left.pop()
        if file.key == "lxc.include" and os.path.isdir(file.source):
            for source in members(file.source, file.source):
                target = os.path.join(file.target, os.path.basename(source))
                left.append(copyconfig.File(file.key, source, target))
            continue
        if os.path.lexists(file.target):
            if file.key == "lxc.mount.fstab" and file.source != file.target:
                raise StorageError(f'"{file.target}" is in the way of lxc.mount.fstab', at=config.at(file.key))
            continue
        try:
            left += _copy(file, change)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and file.key in _HARMLESS:
                continue
            raise StorageError(
                f'{file.key}: cannot copy "{file.source}": {meaning(error)}', at=config.at(file.key)
            ) from error


def _copy(file: copyconfig.File, change: copyconfig.Change) -> list[copyconfig.File]:
    """Copy one file; what it needs itself. Raises OSError."""
    more: list[copyconfig.File] = []
    os.makedirs(os.path.dirname(file.target), 0o755, exist_ok=True)
    with open(file.source, "rb") as reader:
        status = os.fstat(reader.fileno())
        content = reader.read()
        if file.key == "lxc.include":
            new, more = copyconfig.rewrite_included(text.decode(content), change, os.path.dirname(file.source))
            content = text.encode(new)
        elif file.key == "lxc.mount.fstab":
            content = text.encode(copyconfig.rewrite_fstab(text.decode(content), change))
        with open(file.target, "xb") as writer:
            writer.write(content)
            os.fchmod(writer.fileno(), status.st_mode & 0o7777)
    return more


def retell(place: str, old: str, new: str) -> None:
    """Let the texts of a container, whose directory is at `place`, speak of `new` where they speak of `old`.

    May be done again. Raises StorageError.
    """
    seen: set[str] = set()
    left = [("config", os.path.join(place, "config"))]
    while left:
        kind, path = left.pop()
        if path in seen:
            continue
        seen.add(path)
        try:
            before = read(path)
            after = copyconfig.moved_paths(before, old, new) if kind == "fstab" else copyconfig.moved(before, old, new)
            if after != before:
                save_text(path, after)
        except OSError as error:
            if kind != "config" and isinstance(error, FileNotFoundError):
                continue
            raise StorageError(f'cannot rewrite "{path}": {meaning(error)}') from error
        if kind == "config":
            left += _named(after, os.path.dirname(path), place, new)


def _named(content: str, folder: str, place: str, new: str) -> Iterator[tuple[str, str]]:
    """(kind, path) of the texts below `place` that a config names, which writes `new` for that directory."""
    for line in text.lines(content):
        if line.key not in ("lxc.include", "lxc.mount.fstab", "lxc.mount") or not line.value:
            continue
        path = os.path.normpath(os.path.join(folder, line.value))
        if copyconfig.inside(path, new) and not copyconfig.inside(path, place):
            path = place + path[len(new) :]
        if not copyconfig.inside(path, place):
            continue
        if line.key == "lxc.include":
            yield from (("config", one) for one in members(path, path))
        else:
            yield "fstab", path
