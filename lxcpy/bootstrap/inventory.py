"""What is in the cache: listed, checked, and thinned by age and size. All of it can be fetched or made again."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from lxcpy.bootstrap import rootfscache
from lxcpy.bootstrap.cache import DRAFT, open_locked

_PIECE = 4 << 20  # bytes
_NOT_ITS_NAME = "its content is not what its name says"
_ABANDONED = 24 * 3600.0  # seconds after which an unfinished file is not expected to be finished


class Entry(NamedTuple):
    """One thing in the cache.

    kind: object, rootfs, partial (an unfinished download), release, plan, image, oci (a blob of an OCI image) or log.
    name: what it is, as far as that is known; of an object the package or file that it is. used: when it was used
    last, seconds since the epoch.
    """

    kind: str
    name: str
    path: str
    size: int
    used: float

    def to_dict(self) -> dict[str, object]:
        """As plain data, for JSON."""
        return {**self._asdict(), "used": int(self.used)}


def entries(directory: str) -> list[Entry]:
    """All there is in the cache `directory`, by kind and name; nothing where there is no cache. Raises OSError."""
    names = _object_names(directory)
    found: list[Entry] = []
    for path, status in _files(f"{directory}/objects", 2):
        name = os.path.basename(path)
        if os.path.basename(os.path.dirname(path)) == "partial":
            found.append(Entry("partial", names.get(name, name), path, status.st_size, status.st_mtime))
        else:
            found.append(Entry("object", names.get(name, name), path, status.st_size, status.st_mtime))
    for path, status in _files(f"{directory}/rootfs", 1):
        if path.endswith(".packed"):
            name = os.path.basename(path).removesuffix(".packed")
            found.append(Entry("rootfs", name, path, status.st_size, status.st_mtime))
    for folder, kind in (("releases", "release"), ("plans", "plan"), ("images", "image"), ("logs", "log")):
        for path, status in _files(f"{directory}/{folder}", 1):
            if not path.endswith((".lock", DRAFT)):
                name = str(_json(path).get("name") or "") if kind == "image" else ""
                found.append(Entry(kind, name or os.path.basename(path), path, status.st_size, status.st_mtime))
    for path, status in _files(f"{directory}/oci", 2):
        name = f"{os.path.basename(os.path.dirname(path))}:{os.path.basename(path)}"
        found.append(Entry("oci", name, path, status.st_size, status.st_mtime))
    return sorted(found, key=lambda entry: (entry.kind, entry.name, entry.path))


def verify(
    directory: str, usable: Callable[[str], bool], fingerprint: Callable[[str], str]
) -> Iterator[tuple[Entry, str]]:
    """Each object, root filesystem, image and blob of one with what is wrong with it, "" if nothing is.

    usable, fingerprint: of packed trees, as rootfscache.Trees has them. Raises OSError.
    """
    for entry in entries(directory):
        try:
            if entry.kind == "object":
                good = _digest(entry.path) == os.path.basename(entry.path)
                yield entry, "" if good else _NOT_ITS_NAME
            elif entry.kind == "oci":
                algorithm, _, value = entry.name.partition(":")
                good = algorithm in ("sha256", "sha512") and _digest(entry.path, algorithm) == value
                yield entry, "" if good else _NOT_ITS_NAME
            elif entry.kind == "image":
                good = isinstance(_json(entry.path).get("files"), dict)
                yield entry, "" if good else "it does not tell the image's files"
            elif entry.kind == "rootfs":
                yield entry, _rootfs_problem(entry.path, usable, fingerprint)
        except FileNotFoundError:
            continue  # somebody removed it meanwhile


def _rootfs_problem(path: str, usable: Callable[[str], bool], fingerprint: Callable[[str], str]) -> str:
    if not usable(path):
        return "it is not whole, or the machine went down before it was on the disk"
    noted = rootfscache.noted(path).get("sha256")
    return "" if noted is None or noted == fingerprint(path) else "its content has changed since it was made"


def remove(entry: Entry) -> bool:
    """Remove an entry; False if it is in use. Raises OSError."""
    if entry.kind == "rootfs":
        return rootfscache.remove(entry.path)
    if entry.kind == "partial":
        try:
            os.close(open_locked(entry.path, fcntl.LOCK_EX | fcntl.LOCK_NB))
        except BlockingIOError:
            return False
    try:
        os.unlink(entry.path)
    except FileNotFoundError:
        pass
    return True


def prune(directory: str, *, age: float | None = None, size: int | None = None) -> Iterator[Entry]:
    """What can go, the longest unused first; the caller removes it.

    age: seconds; what was not used for so long. size: bytes; as much as is needed for the rest to be no larger. In any
    case: downloads that nobody went on with for a day. What is known of releases stays but for its age: it is what
    tells an old state of a mirror from the newest. Raises OSError.
    """
    now = time.time()
    found = sorted(entries(directory), key=lambda entry: entry.used)
    total = sum(entry.size for entry in found)
    for entry in found:
        unused = now - entry.used
        old = age is not None and unused > age
        abandoned = entry.kind == "partial" and unused > _ABANDONED
        too_much = size is not None and total > size and entry.kind != "release"
        if (old and not _is_date(entry)) or abandoned or too_much:
            total -= entry.size
            yield entry


def leftovers(directory: str) -> Iterator[str]:
    """Drafts and locks of processes that were killed, a day old at least. Raises OSError."""
    limit = time.time() - _ABANDONED
    for folder in ("releases", "plans", "images", "rootfs"):
        for path, status in _files(f"{directory}/{folder}", 1):
            if status.st_mtime < limit and path.endswith(DRAFT):
                yield path


def _is_date(entry: Entry) -> bool:
    """Whether it is the date of the newest release that a mirror gave (release.py)."""
    return entry.kind == "release" and not entry.name.endswith(".kept")


def _files(directory: str, depth: int) -> Iterator[tuple[str, os.stat_result]]:
    """The regular files at a depth below a directory, with their statuses."""
    try:
        with os.scandir(directory) as found:
            names = sorted(found, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in names:
        if depth > 1 and entry.is_dir(follow_symlinks=False):
            yield from _files(entry.path, depth - 1)
        elif depth == 1:
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            if stat.S_ISREG(status.st_mode):
                yield entry.path, status


def _object_names(directory: str) -> dict[str, str]:
    """SHA256: what it is, from the plans and the images' records."""
    names: dict[str, str] = {}
    for path, _ in _files(f"{directory}/plans", 1):
        items = _json(path).get("items")
        for item in items if isinstance(items, list) else ():
            if isinstance(item, list) and len(item) > 7:
                names[str(item[7])] = f"{item[0]} {item[1]} ({item[2]})"
    for path, _ in _files(f"{directory}/images", 1):
        record = _json(path)
        files = record.get("files", {})
        for name, expected in files.items() if isinstance(files, dict) else ():
            if isinstance(expected, list) and len(expected) == 2:
                names[str(expected[1])] = f"{name} {record.get('build', '')}".rstrip()
    return names


def _json(path: str) -> dict[str, object]:
    """A file's object; an empty one where it holds none."""
    try:
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _digest(path: str, algorithm: str = "sha256") -> str:
    state = hashlib.new(algorithm)
    with open(path, "rb") as file:
        while data := file.read(_PIECE):
            state.update(data)
    return state.hexdigest()
