"""Finished root filesystems, kept packed in the cache and named by all that went into them.

    DIR/rootfs/NAME.lock       held by who makes NAME; whatever stands under a NAME whose lock is free is a leftover
    DIR/rootfs/NAME.partial/   the tree while it is made
    DIR/rootfs/NAME.packed     the finished one
    DIR/rootfs/NAME.json       what is known of it: {"sha256": of the packed tree, and what its maker noted}

Whoever copies a tree shares its lock, so that nobody removes it meanwhile. A kill at any moment leaves a partial tree
that the next run removes, never a packed one that is not whole.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from lxcpy.bootstrap.cache import DRAFT, Store, open_locked
from lxcpy.bootstrap.progress import Progress
from lxcpy.errors import BootstrapError, LxcpyError, meaning
from lxcpy.log import Log

LOG = Log("bootstrap")
_KEPT = 4  # packed trees of one kind; the longest unused go first


Renewal = Callable[[Mapping[str, Any]], Callable[[str], None] | None]


class Trees(NamedTuple):
    """What the storage can do with trees; all raise LxcpyError.

    copy(source, target): an exact copy into an empty directory, its owners shifted where the container has an id map.
    remove(tree). pack(tree, file) and unpack(file, directory): the packed form. usable(file): whether it is one, whole.
    shifted: copy shifts owners, so a tree is finished before it is copied. fingerprint(file): the SHA256 of what was
    packed. inside: this process is root in the container's own user namespace, so nothing is to be shifted.
    """

    copy: Callable[[str, str], None]
    remove: Callable[[str], None]
    pack: Callable[[str, str], None]
    unpack: Callable[[str, str], None]
    usable: Callable[[str], bool]
    shifted: bool = False
    fingerprint: Callable[[str], str] | None = None
    inside: bool = False

    @property
    def mapped(self) -> bool:
        """Whether the container has an id map."""
        return self.shifted or self.inside


class RootfsCache:
    """The packed trees of a store."""

    def __init__(self, store: Store, trees: Trees) -> None:
        self.directory = f"{store.directory}/rootfs"
        self.trees = trees

    def fill(
        self, kind: str, key: str, target: str, make: Callable[[str], None], progress: Progress, *, anew: bool = False,
        about: Mapping[str, Any] | None = None, renewal: Renewal | None = None,
    ) -> None:  # fmt: skip
        """Put the tree KIND-KEY into the empty directory `target`; `make(directory)` makes it if it is not there.

        anew: make it in any case. about: what to note of it, as plain data. renewal: takes what was noted of another
        tree of the kind and returns what makes a copy of that into this one; None where nothing does. Raises
        BootstrapError, and what `make` and the storage raise.
        """
        name = f"{self.directory}/{kind}-{key}"
        fill = partial(self._fill, kind, make=make, progress=progress, renewal=None if anew else renewal)
        while anew or not self._copy(name, target, progress):
            with self._locked(name):
                # Another process may have made it while this one waited.
                if anew or not self.trees.usable(f"{name}.packed"):
                    self._make(name, fill, progress, about or {})
                    self._thin(kind)
                    if self._move(f"{name}.partial", target):
                        return
            anew = False

    def flush(self, kind: str) -> None:
        """Remove the packed trees of a kind (a template, or a template, release and architecture)."""
        for path in self._entries(kind):
            remove(path)

    def empty(self, directory: str) -> None:
        """Remove all in a directory. Raises LxcpyError, OSError."""
        with os.scandir(directory) as entries:
            for entry in list(entries):
                self.trees.remove(entry.path) if entry.is_dir(follow_symlinks=False) else os.unlink(entry.path)

    @contextmanager
    def workplace(self, name: str) -> Iterator[str]:
        """A directory for a tree that is copied to its place when it is finished; gone afterwards."""
        path = f"{self.directory}/work-{name}-{os.getpid()}"
        with self._locked(path):
            os.mkdir(f"{path}.partial", 0o755)
            try:
                yield f"{path}.partial"
            finally:
                self.trees.remove(f"{path}.partial")
                _unlink(f"{path}.lock")  # nobody else waits for a name with this process's number

    def _copy(self, name: str, target: str, progress: Progress) -> bool:
        """Give the container a copy of the packed tree; False if there is none."""
        with self._locked(name, shared=True):
            if not self.trees.usable(f"{name}.packed"):
                return False
            progress.start("copy")
            self.trees.unpack(f"{name}.packed", target)
            os.utime(f"{name}.packed")
            progress.finish("copy")
            return True

    def _make(
        self, name: str, make: Callable[[str], None], progress: Progress, about: Mapping[str, Any]
    ) -> None:
        partial = f"{name}.partial"
        try:
            os.mkdir(partial, 0o755)
            make(partial)
        except BaseException:
            self.trees.remove(partial)
            raise
        progress.start("pack")
        try:
            _unlink(f"{name}.json")
            self.trees.pack(partial, f"{name}.packed")
            self._note(name, about)
        except BaseException:
            self.trees.remove(partial)
            raise
        progress.finish("pack")

    def _fill(
        self, kind: str, tree: str, make: Callable[[str], None], progress: Progress, renewal: Renewal | None
    ) -> None:
        """Make a tree out of the newest one that renewal can use; afresh where there is none, or that fails."""
        for path in sorted(self._entries(kind), key=_last_use, reverse=True) if renewal else ():
            assert renewal is not None
            if (renew := renewal(noted(path))) is None:
                continue
            try:
                if self._unpack_older(path, tree):
                    renew(tree)
                    return
            except LxcpyError as error:
                progress.message(f"the cached system could not be brought up to date, so afresh: {error.what}")
            self.empty(tree)
            break
        make(tree)

    def _unpack_older(self, path: str, tree: str) -> bool:
        """False where it is just made or removed: who waits for another's lock while holding one may wait forever."""
        try:
            lock = open_locked(f"{path.removesuffix('.packed')}.lock", fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        try:
            if not self.trees.usable(path):
                return False
            self.trees.unpack(path, tree)
            return True
        finally:
            os.close(lock)

    def _note(self, name: str, about: Mapping[str, Any]) -> None:
        digest = {"sha256": self.trees.fingerprint(f"{name}.packed")} if self.trees.fingerprint else {}
        draft = f"{name}.json.{os.getpid()}{DRAFT}"
        try:
            with open(draft, "w", encoding="utf-8") as file:
                json.dump({**about, **digest}, file)
            os.rename(draft, f"{name}.json")
        except OSError as error:  # of a full disk, as a rule: the tree itself is there
            LOG.warn(f"cannot write {name}.json: {meaning(error)}")
            _unlink(draft)

    def _move(self, partial: str, target: str) -> bool:
        """Give the tree just made to the container, for free on one file system; False where it is another."""
        try:
            for entry in os.listdir(partial):
                os.rename(f"{partial}/{entry}", f"{target}/{entry}")
            os.chmod(target, 0o755)
            return True
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise BootstrapError(f'cannot move the new system to "{target}": {meaning(error)}') from error
            return False
        finally:
            self.trees.remove(partial)

    def _entries(self, kind: str) -> list[str]:
        return [
            f"{self.directory}/{name}"
            for name in os.listdir(self.directory)
            if name.startswith(f"{kind}-") and name.endswith(".packed")
        ]

    def _thin(self, kind: str) -> None:
        """Keep the last used of a kind."""
        for path in sorted(self._entries(kind), key=_last_use, reverse=True)[_KEPT:]:
            remove(path)

    @contextmanager
    def _locked(self, name: str, *, shared: bool = False) -> Iterator[None]:
        """Hold NAME's lock; leftovers of those who held one and were killed are removed first."""
        try:
            lock = open_locked(f"{name}.lock", fcntl.LOCK_SH if shared else fcntl.LOCK_EX)
        except OSError as error:
            raise BootstrapError(f'cannot use the cache "{self.directory}": {meaning(error)}') from error
        try:
            sweep(self.directory, self.trees.remove, os.path.basename(name))
            yield
        finally:
            os.close(lock)


def sweep(directory: str, remove: Callable[[str], None], own: str = "") -> None:
    """Remove the trees that killed processes left in the cache's directory `directory`.

    own: a name whose lock the caller holds. Raises OSError, and what remove(tree) raises.
    """
    for entry in os.listdir(directory):
        name, end = os.path.splitext(entry)
        if end != ".partial":
            continue
        lock = -1
        try:
            if name != own:
                lock = open_locked(f"{directory}/{name}.lock", fcntl.LOCK_EX | fcntl.LOCK_NB)
            LOG.info(f"removing {entry}, which a killed run left")
            remove(f"{directory}/{entry}")
            if lock >= 0 and not os.path.exists(f"{directory}/{name}.packed"):
                _unlink(f"{directory}/{name}.lock")
        except BlockingIOError:
            continue  # somebody is at work
        finally:
            if lock >= 0:
                os.close(lock)


def noted(path: str) -> dict[str, Any]:
    """What was noted of a packed tree; nothing where nothing was."""
    try:
        with open(f"{path.removesuffix('.packed')}.json", encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def remove(path: str) -> bool:
    """Remove a packed tree and what belongs to it; False if it is in use."""
    name = path.removesuffix(".packed")
    try:
        lock = open_locked(f"{name}.lock", fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    try:
        for end in ("packed", "json", "lock"):
            _unlink(f"{name}.{end}")
        return True
    finally:
        os.close(lock)


def _last_use(path: str) -> float:
    try:
        return os.path.getmtime(path)
    except FileNotFoundError:
        return 0.0  # another process removed it


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
