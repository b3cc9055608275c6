"""Mirrors whose release files are kept: asked for anew only if they changed, fetched once by many at a time, and all
there is where nothing may be fetched.

    DIR/releases/HOST_PATH.kept    {"tag", "modified"} of the server, "sha256"; a newline; the file as it was verified
    DIR/releases/HOST_PATH.lock    held while it is fetched and verified
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from lxcpy.bootstrap.cache import Store, open_locked
from lxcpy.bootstrap.download import Client, Mirrors, Missing, NotModified, Sink, Unavailable, join
from lxcpy.errors import BootstrapError
from lxcpy.log import Log

LOG = Log("bootstrap")
_PATIENCE = 10.0  # seconds to wait for another process that fetches the same; its mirror may be dead


class KeptMirrors(Mirrors):
    """The places of one repository, and what the store has of it.

    offline: nothing is fetched. keep: False where nobody verifies what is read.
    """

    def __init__(
        self, client: Client, bases: Sequence[str], store: Store, *, offline: bool = False, keep: bool = True,
        pause: float = 0.3,
    ) -> None:  # fmt: skip
        super().__init__(client, bases, pause=pause)
        self.store = store
        self.offline = offline
        self.keep = keep
        self._fresh: dict[str, bytes] = {}  # read in this session, not verified yet

    @contextmanager
    def session(self, name: str) -> Iterator[None]:
        """What is read in it is kept if it ends well; what was kept is forgotten if it turns out bad."""
        if self.offline:
            yield
            return
        with self._locked(name):
            self._fresh.clear()
            try:
                yield
            except BootstrapError as error:
                if not isinstance(error, Unavailable):  # such as a release that is only old
                    for url in self._fresh.keys() & self.client.known.keys():
                        self._forget(url)
                raise
            if not self.keep:
                return
            for url, data in self._fresh.items():
                tag, modified = self.client.seen.get(url) or self.client.known.get(url) or ("", "")
                head = json.dumps({"tag": tag, "modified": modified, "sha256": hashlib.sha256(data).hexdigest()})
                self.store.write(_place(url), head.encode() + b"\n" + data)

    def read(self, path: str, limit: int) -> bytes:
        """As Mirrors.read."""
        urls = [join(base, path) for base in self.bases]
        kept = {url: found for url in urls if (found := self._kept(url))}
        if self.offline:
            if kept:
                return next(iter(kept.values()))[1]
            raise Missing(f"{urls[0]}: not in the cache, and --offline fetches nothing")
        self.client.known.update({url: conditions for url, (conditions, _) in kept.items()})
        try:
            data = super().read(path, limit)
        except NotModified as error:
            url = str(error)
            data = kept[url][1]
        else:
            url = join(self.sources[path], path)
        if "://" in url and not url.startswith("file:"):
            self._fresh[url] = data
        return data

    def transfer(
        self, paths: Sequence[str], limit: int, sink: Sink, position: Callable[[], int], check: Callable[[], None]
    ) -> None:
        """As Mirrors.transfer; Unavailable too where nothing may be fetched."""
        if self.offline:
            raise Unavailable(
                f"{join(self.bases[0], paths[0])}: not in the cache, and --offline fetches nothing",
                hint="make the same once without --offline",
            )
        super().transfer(paths, limit, sink, position, check)

    def _kept(self, url: str) -> tuple[tuple[str, str], bytes] | None:
        """((tag, modified), content) of a file; None where there is none, or one that went bad."""
        head, newline, data = (self.store.read_small(_place(url)) or b"").partition(b"\n")
        if not newline:
            return None
        try:
            found = json.loads(head)
            if found["sha256"] != hashlib.sha256(data).hexdigest():
                return None
            return (str(found["tag"]), str(found["modified"])), data
        except (ValueError, KeyError, TypeError):
            return None

    def _forget(self, url: str) -> None:
        self.client.known.pop(url, None)
        try:
            os.unlink(f"{self.store.directory}/{_place(url)}")
        except FileNotFoundError:
            pass

    @contextmanager
    def _locked(self, name: str) -> Iterator[None]:
        path = f"{self.store.directory}/{_place(join(self.bases[0], name)).removesuffix('.kept')}.lock"
        deadline = time.monotonic() + _PATIENCE
        lock = -1
        while lock < 0:
            try:
                lock = open_locked(path, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    LOG.info(f"{name}: another process fetches it too, and takes long")
                    break
                time.sleep(0.02)
            except OSError:
                break  # a cache that cannot be written to fails where it must
        try:
            yield
        finally:
            if lock >= 0:
                os.close(lock)


def _place(url: str) -> str:
    """Where a file is kept, below the store's directory."""
    name = re.sub(r"[^A-Za-z0-9.-]+", "_", url.partition("://")[2])
    return f"releases/{name if len(name) < 200 else hashlib.sha256(url.encode()).hexdigest()}.kept"
