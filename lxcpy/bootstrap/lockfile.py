"""The lock file: all that went into a system, by hash, so that it can be made again.

JSON, schema version 1, written so that line-wise differences tell what changed: one package a line, by name. What is
read may come from anybody: nothing of it is used before it has the shape below. lxcpy-templates(7) describes it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from lxcpy.bootstrap.packages import SAFE_PATH
from lxcpy.bootstrap.plan import REQUIRED, STAGES, Item
from lxcpy.errors import BootstrapError, UsageError, meaning

VERSION = 1
_LIMIT = 64 << 20  # bytes; one of a full desktop has 1 MB
_WORD = re.compile(r"[^\x00-\x20\x7f]*")
_LINE = re.compile(r"[^\x00-\x1f\x7f]*")
_TEXT = re.compile(r"[^\x00-\x08\x0b-\x1f\x7f]*")
_URL = re.compile(r"(?:https?://|file:/)[^\x00-\x20\x7f]+")
_HASH = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9][a-z0-9+.-]*")  # of a package, deb-control(5)
_VERSION = re.compile(r"[0-9A-Za-z.+:~-]+")
# The options that shape what is installed; those that only say where from, or who may log in, are not in a lock.
OPTIONS = ("release", "arch", "variant", "packages", "enable-non-free", "foreign", "user")
HOST = ("locale", "timezone", "resolv_conf", "ttys")
SOURCES = (
    "release", "codename", "arch", "mirror", "sources_suite", "components", "pockets", "security_mirror",
    "security_suite",
)  # fmt: skip


class Origin(NamedTuple):
    """A suite of an archive as it was.

    mirrors, snapshots: where its packages were, and where they should be for good. release: the SHA256 of its verified
    release file, of the time `date` (seconds since the epoch). signers: fingerprints of the keys that had signed it.
    """

    suite: str
    date: int
    mirrors: tuple[str, ...]
    snapshots: tuple[str, ...]
    components: tuple[str, ...]
    release: str
    signers: tuple[str, ...]


class Lock(NamedTuple):
    """options: of OPTIONS, as they were given. host: what the host gave, of HOST. sources: see System.values.

    template_digest: of its settings and files. epoch: seconds since the epoch. name, tree: of the container that was
    made when the lock was written, and its root filesystem's digest (reproduce.digest).
    """

    template: str
    template_digest: str
    epoch: int
    options: Mapping[str, str]
    host: Mapping[str, Any]
    sources: Mapping[str, Any]
    origins: tuple[Origin, ...]
    items: tuple[Item, ...]
    name: str
    tree: str

    def asked(self) -> dict[str, str]:
        """The options that make the same again."""
        return {**self.options, **{key: self.host[key] for key in ("locale", "timezone")}}


def check_place(path: str) -> None:
    """That a lock can be written there, before the work that leads to it. Raises UsageError."""
    folder = os.path.dirname(os.path.abspath(path))
    if not os.path.isdir(folder):
        raise UsageError(f'--lock: cannot write "{path}": there is no directory "{folder}"')
    if os.path.isdir(path):
        raise UsageError(f'--lock: cannot write "{path}": {meaning(IsADirectoryError(21, ""))}')
    if not os.access(folder, os.W_OK):
        raise UsageError(f'--lock: cannot write "{path}": {meaning(PermissionError(13, ""))}')


def write(path: str, lock: Lock) -> None:
    """Write a lock, whole or not at all. Raises BootstrapError."""
    draft = f"{path}.{os.getpid()}.new"
    try:
        with open(draft, "w", encoding="utf-8") as file:
            file.write(text(lock))
        os.rename(draft, path)
    except OSError as error:
        try:
            os.unlink(draft)
        except FileNotFoundError:
            pass
        raise BootstrapError(f'cannot write the lock "{path}": {meaning(error)}') from error


def text(lock: Lock) -> str:
    """The file's content."""
    head = {
        "lxcpy-lock": VERSION,
        "template": {"name": lock.template, "sha256": lock.template_digest},
        "source_date_epoch": lock.epoch,
        "options": dict(lock.options),
        "host": dict(lock.host),
        "sources": dict(lock.sources),
        "repositories": [one._asdict() for one in lock.origins],
        "tree": {"name": lock.name, "sha256": lock.tree},
    }
    packages = ",\n  ".join(json.dumps(item._asdict()) for item in sorted(lock.items))
    return json.dumps(head, indent=1)[:-2] + f',\n "packages": [\n  {packages}\n ]\n}}\n'


def read(path: str) -> Lock:
    """The lock in a file. Raises BootstrapError, which names the file and the place in it."""
    try:
        with open(path, "rb") as file:
            data = file.read(_LIMIT + 1)
    except OSError as error:
        raise BootstrapError(f'cannot read the lock "{path}": {meaning(error)}') from error
    try:
        if len(data) > _LIMIT:
            raise ValueError("larger than any lock is")
        return _lock(json.loads(data))
    except RecursionError:
        problem = "nested too deeply"
    except UnicodeDecodeError:
        problem = "not UTF-8"
    except ValueError as error:
        problem = str(error)
    raise BootstrapError(f'the lock "{path}" cannot be used: {problem}', hint="it is written by --lock=FILE")


def _lock(found: Any) -> Lock:
    """Raises ValueError that names the place."""
    top = _Table(found, "")
    version = top.take("lxcpy-lock", int)
    if version != VERSION:
        raise ValueError(f"it is of schema version {version}, and this lxcpy knows {VERSION}")
    template, tree, host, sources = (top.table(key) for key in ("template", "tree", "host", "sources"))
    options = top.table("options")
    for key in options.found:
        if key not in OPTIONS:
            raise ValueError(f'options: there is no "{key}"; there are {", ".join(OPTIONS)}')
    origins = tuple(_origin(one) for one in top.tables("repositories"))
    items = tuple(_item(one, len(origins)) for one in top.tables("packages"))
    names = {item.name: item for item in items}
    if twice := next((item.name for item in items if names[item.name] is not item), ""):
        raise ValueError(f"packages: {twice} is there twice")
    if not any(item.stage <= REQUIRED for item in items):
        raise ValueError("packages: none is essential or required, of stage 0 or 1")
    return Lock(
        template.text("name", _WORD), template.text("sha256", _HASH), top.number("source_date_epoch", 1 << 40),
        {key: options.text(key, _LINE) for key in options.found},
        {"ttys": host.number("ttys", 1 << 10), **{key: host.text(key, _TEXT) for key in HOST if key != "ttys"}},
        {"pockets": list(sources.texts("pockets", _WORD)),
         **{key: sources.text(key, _LINE) for key in SOURCES if key != "pockets"}},
        origins, items, tree.text("name", _LINE), tree.text("sha256", _HASH),
    )  # fmt: skip


def _origin(table: _Table) -> Origin:
    return Origin(
        table.text("suite", SAFE_PATH), table.number("date", 1 << 40), table.texts("mirrors", _URL),
        table.texts("snapshots", _URL), table.texts("components", _WORD), table.text("release", _HASH),
        table.texts("signers", _WORD),
    )  # fmt: skip


def _item(table: _Table, repositories: int) -> Item:
    return Item(
        table.text("name", _NAME), table.text("version", _VERSION), table.text("arch", _NAME),
        table.number("stage", STAGES[-1]), table.number("repository", repositories - 1),
        table.text("filename", SAFE_PATH), table.number("size", 10**12), table.text("sha256", _HASH),
        table.text("priority", _LINE), table.text("section", _LINE),
    )  # fmt: skip


class _Table:
    """An object of the file. Each method raises ValueError that names the place."""

    def __init__(self, found: Any, place: str) -> None:
        if not isinstance(found, dict):
            raise ValueError(f"{place or 'all of it'}: {_kind(found)} where an object should be")
        self.found: dict[str, Any] = found
        self.place = place

    def where(self, key: str) -> str:
        return f"{self.place}.{key}" if self.place else key

    def take(self, key: str, kind: type) -> Any:
        if key not in self.found:
            raise ValueError(f"{self.where(key)} is missing")
        found = self.found[key]
        if not isinstance(found, kind) or isinstance(found, bool):
            raise ValueError(f"{self.where(key)}: {_kind(found)} where {_NOUNS[kind]} should be")
        return found

    def number(self, key: str, most: int) -> int:
        found: int = self.take(key, int)
        if not 0 <= found <= most:
            raise ValueError(f"{self.where(key)}: {found} is not between 0 and {most}")
        return found

    def text(self, key: str, pattern: re.Pattern[str]) -> str:
        return _matching(self.take(key, str), pattern, self.where(key))

    def texts(self, key: str, pattern: re.Pattern[str]) -> tuple[str, ...]:
        return tuple(_each(self.take(key, list), self.where(key), lambda one, at: _matching(one, pattern, at)))

    def table(self, key: str) -> _Table:
        return _Table(self.take(key, dict), self.where(key))

    def tables(self, key: str) -> list[_Table]:
        found = _each(self.take(key, list), self.where(key), _Table)
        if not found:
            raise ValueError(f"{self.where(key)}: empty")
        return found


_NOUNS = {int: "a number", str: "a text", list: "a list", dict: "an object"}


def _kind(found: Any) -> str:
    return _NOUNS.get(type(found), "another value")


def _each(found: list[Any], place: str, make: Callable[[Any, str], Any]) -> list[Any]:
    return [make(one, f"{place}[{number}]") for number, one in enumerate(found)]


def _matching(found: Any, pattern: re.Pattern[str], place: str) -> str:
    if not isinstance(found, str) or not pattern.fullmatch(found):
        raise ValueError(f"{place}: {json.dumps(found)[:80]} is not what belongs there")
    return found
