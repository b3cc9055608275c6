"""The cache of an image server's files: what was fetched last of each image, and files whose hash nobody told.

    DIR/images/…    a record an image: {"name": TITLE, "build": NAME, "files": {NAME: [size, sha256]}}; its mtime is the
                    time of its last use

The files themselves are objects of the common cache (cache.py), named by their hash.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from lxcpy.bootstrap import download
from lxcpy.bootstrap.cache import FULL, Store, failed, open_locked
from lxcpy.bootstrap.download import CHUNK, Expected, Mirrors
from lxcpy.errors import BootstrapError, meaning

_LARGEST = 64 << 30  # bytes of a file whose size nobody told


class Record(NamedTuple):
    """The build of an image that is in the cache, and its files."""

    build: str
    files: dict[str, Expected]


class Images:
    """One image. name: what tells it from all others, the server included. title: what people call it."""

    def __init__(self, store: Store, name: str, title: str) -> None:
        self.store, self.title = store, title
        self.path = f"images/{hashlib.sha256(name.encode(errors='surrogateescape')).hexdigest()}"
        try:
            os.makedirs(f"{store.directory}/images", 0o755, exist_ok=True)
        except OSError as error:
            raise BootstrapError(f'cannot use the cache "{store.directory}": {meaning(error)}') from error

    def record(self) -> Record | None:
        """What is there, with all its files; None where it is not whole."""
        data = self.store.read_small(self.path)
        try:
            found = json.loads(data or b"{}")
            files = {name: Expected(int(size), str(sha256)) for name, (size, sha256) in found["files"].items()}
            record = Record(str(found["build"]), files)
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        if not all(map(self.store.holds, files.values())):
            return None
        try:
            os.utime(f"{self.store.directory}/{self.path}")
        except OSError:
            pass  # a cache that can only be read
        return record

    @contextmanager
    def locked(self) -> Iterator[None]:
        """While it is looked up and fetched: of many who want the same image one does it, the others wait."""
        path = f"{self.store.directory}/{self.path}.lock"
        try:
            lock = open_locked(path)
        except OSError as error:
            raise failed(error, self.store.directory) from error
        try:
            yield
        finally:
            try:
                os.unlink(path)
            except FileNotFoundError:
                pass
            os.close(lock)

    def keep(self, record: Record) -> None:
        """Remember. Raises BootstrapError."""
        files = {name: [one.size, one.sha256] for name, one in record.files.items()}
        found = {"name": self.title, "build": record.build, "files": files}
        self.store.write(self.path, json.dumps(found).encode())

    def forget(self) -> None:
        """Forget the image; its files go with the next thinning of the cache."""
        try:
            os.unlink(f"{self.store.directory}/{self.path}")
        except FileNotFoundError:
            pass

    def open(self, expected: Expected) -> int:
        """A descriptor of a file whose hash has just been checked. Raises BootstrapError."""
        try:
            file = os.open(self.store.place(expected.sha256), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError as error:
            raise BootstrapError(f"the cache lost a file of the image: {meaning(error)}") from error
        if _digest(file) != expected.sha256:
            os.close(file)
            self.store.discard(expected.sha256)
            raise BootstrapError("a cached file of the image is damaged, it is removed", hint="run the command again")
        return file

    def fetch(
        self, mirrors: Mirrors, path: str, expected: Expected | None, advance: Callable[[int], None], *,
        limit: int = _LARGEST,
    ) -> Expected:  # fmt: skip
        """See that a file is there; its real size and hash. expected: of size -1 where that is not known.

        Raises download.Missing, BootstrapError.
        """
        if expected is not None and expected.size >= 0:
            self.store.fetch(mirrors, [path], expected, lambda _, data: advance(len(data)))
            return expected
        if expected is not None and (known := self._held(expected.sha256)):
            return known
        url = download.join(mirrors.bases[0], path)
        draft = f"{self.store.directory}/objects/partial/{hashlib.sha256(url.encode()).hexdigest()}"
        try:
            file = open_locked(draft)
            try:
                if expected is not None and (known := self._held(expected.sha256)):
                    os.unlink(draft)
                    return known  # another process was faster
                found = _receive(file, mirrors, path, expected, advance, limit)
                os.fchmod(file, 0o644)
                place = self.store.place(found.sha256)
                os.makedirs(os.path.dirname(place), 0o755, exist_ok=True)
                os.rename(draft, place)
                return found
            finally:
                os.close(file)
        except OSError as error:
            if error.errno in FULL and os.path.exists(draft):
                os.unlink(draft)  # somebody needs the space
            raise failed(error, self.store.directory) from error

    def _held(self, sha256: str) -> Expected | None:
        try:
            return Expected(os.stat(self.store.place(sha256)).st_size, sha256)
        except OSError:
            return None


def _digest(file: int) -> str:
    state, place = hashlib.sha256(), 0
    while data := os.pread(file, 4 * CHUNK, place):
        state.update(data)
        place += len(data)
    return state.hexdigest()


def _receive(
    file: int, mirrors: Mirrors, path: str, expected: Expected | None, advance: Callable[[int], None], limit: int
) -> Expected:
    """Fetch into an open file from its beginning. Raises Missing, BootstrapError, OSError."""

    def sink(offset: int, data: bytes) -> None:
        if offset == 0:
            os.ftruncate(file, 0)
        advance(len(data))
        view = memoryview(data)
        while view:
            written = os.pwrite(file, view, offset)
            offset += written
            view = view[written:]

    def check() -> None:
        if expected is not None and (found := _digest(file)) != expected.sha256:
            raise download.Broken(f"{path}: wrong hash: SHA256 is {found}, it should be {expected.sha256}")

    os.ftruncate(file, 0)
    mirrors.transfer([path], limit, sink, lambda: 0, check)
    return Expected(os.fstat(file).st_size, _digest(file))
