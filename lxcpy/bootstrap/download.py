"""Fetches files of mirrors: a list of them tried in turn, broken downloads resumed.

What arrives is only bytes here: the caller checks them against a signature or a signed hash.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple
from urllib.parse import quote

from lxcpy.bootstrap.transport import CHUNK as CHUNK
from lxcpy.bootstrap.transport import TIMEOUT as TIMEOUT
from lxcpy.bootstrap.transport import Broken as Broken
from lxcpy.bootstrap.transport import Client as Client
from lxcpy.bootstrap.transport import Missing as Missing
from lxcpy.bootstrap.transport import NotModified as NotModified
from lxcpy.bootstrap.transport import Wrong as Wrong
from lxcpy.errors import BootstrapError
from lxcpy.log import Log

LOG = Log("bootstrap")
TRIES = 3  # of one file on one mirror, when the connection fails before it brought STEP bytes more
STEP = 64 << 10


class Unavailable(BootstrapError):
    """A file cannot be had just now: nobody tampered with it, and another mirror or another day may do."""


class Stale(Unavailable):
    """The mirrors do not have what the signed files at hand promise: they changed meanwhile, or lag behind."""


class Expected(NamedTuple):
    """What a signed file says of another."""

    size: int
    sha256: str


def join(base: str, path: str) -> str:
    """The URL of a file of a mirror; characters that URLs cannot hold are quoted."""
    return base.rstrip("/") + "/" + quote(path, safe="/+~:,=@!$&'()*;-._%")


Sink = Callable[[int, bytes], None]  # (offset, data): where the data belongs


class Mirrors:
    """The places that hold one repository, the best first; all threads share it."""

    def __init__(self, client: Client, bases: Sequence[str], *, pause: float = 0.3) -> None:
        self.client = client
        self.bases = [client.access.learn(base) for base in bases]
        self.pause = pause  # seconds before the second try, doubled for each further one
        self.sources: dict[str, str] = {}  # path: the base it came from
        self.offline = False

    @contextmanager
    def session(self, name: str) -> Iterator[None]:
        """The time in which files that belong together are read and verified."""
        yield

    def read(self, path: str, limit: int) -> bytes:
        """A small file, unchecked. Raises Missing if a mirror is there but lacks it, BootstrapError if none is."""
        data = bytearray()

        def sink(offset: int, chunk: bytes) -> None:
            del data[offset:]
            data.extend(chunk)

        self.transfer([path], limit, sink, lambda: 0, lambda: None)
        return bytes(data)

    def fetch(
        self, paths: Sequence[str], size: int, sink: Sink, position: Callable[[], int], check: Callable[[], None]
    ) -> None:
        """A file that a signed file names, as `transfer`, where it cannot be missing. Raises BootstrapError."""
        try:
            self.transfer(paths, size, sink, position, check)
        except Missing as error:
            raise Stale(str(error), hint=Wrong.hint) from error

    def transfer(
        self, paths: Sequence[str], limit: int, sink: Sink, position: Callable[[], int], check: Callable[[], None]
    ) -> None:
        """Bring a file to `sink` from the first mirror that gives it whole, going on at `position()` after a break.

        `check` is called at the end and raises Broken if the content is wrong. Raises Missing, BootstrapError.
        """
        missing: Missing | None = None
        broken: Broken | None = None
        for base in self.bases:
            for path in paths:
                try:
                    self._from(join(base, path), limit, sink, position, check)
                    self.sources[path] = base
                    return
                except Missing as error:
                    missing = missing or error
                except Broken as error:
                    broken = broken or error
                    LOG.warn(str(error))
                    break  # its other names are on the same server
        if broken is not None:
            raise (Stale if isinstance(broken, Wrong) else Unavailable)(str(broken), hint=broken.hint)
        raise missing or Missing(f"{paths[0]}: there is no mirror")

    def _from(self, url: str, limit: int, sink: Sink, position: Callable[[], int], check: Callable[[], None]) -> None:
        wait, tries, reached = self.pause, TRIES, position()
        while True:
            try:
                offset, chunks = self.client.get(url, limit=limit, offset=position())
                for chunk in chunks:
                    sink(offset, chunk)
                    offset += len(chunk)
                check()
                return
            except Broken as error:
                if position() >= reached + STEP:  # a bad line, but it gets there
                    wait, tries, reached = self.pause, TRIES, position()
                tries -= 1
                if not tries or not error.again or self.client._closed:
                    raise
                LOG.info(f"{error}; trying again")
                time.sleep(wait)
                wait *= 2


def verify(name: str, size: int, sha256: str, expected: Expected) -> None:
    """Raises Broken if a file is not what the signed index says."""
    if size != expected.size:
        raise Wrong(f"{name}: wrong size: {size} bytes, the signed index says {expected.size}")
    if sha256 != expected.sha256:
        raise Wrong(f"{name}: wrong hash: SHA256 is {sha256}, the signed index says {expected.sha256}")


def full_disk(error: OSError, where: str) -> BootstrapError:
    """The error for a file system that took no more."""
    what = "the quota is used up" if error.errno == errno.EDQUOT else "no space left"
    return BootstrapError(
        f'cannot write to "{where}": {what}',
        hint="free some space there, or put the cache elsewhere with LXCPY_CACHE_DIR",
    )
