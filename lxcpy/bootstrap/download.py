"""Fetches files of a mirror: connections kept open, a list of mirrors tried in turn, nothing larger than announced.

What arrives is only bytes here: the caller checks them against a signature or a signed hash.
"""

from __future__ import annotations

import base64
import errno
import http.client
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple
from urllib.parse import quote, unquote, urljoin, urlsplit

from lxcpy import __version__
from lxcpy.bootstrap import proxy
from lxcpy.errors import BootstrapError, meaning
from lxcpy.log import Log

LOG = Log("bootstrap")
CHUNK = 256 << 10
TIMEOUT = 30.0  # seconds without a byte
TRIES = 3  # of one file on one mirror, when the connection fails
_REDIRECTS = 8
_NETWORK_HINT = "check the network and the mirror's name, or take another mirror with --mirror"


class Missing(Exception):
    """The mirror is there but does not have the file (or does not give it)."""


class Broken(Exception):
    """The connection failed, or what came cannot be what was asked for; another try or mirror may do."""


class Unavailable(BootstrapError):
    """A file cannot be had just now: nobody tampered with it, and another mirror or another day may do."""


class Expected(NamedTuple):
    """What a signed file says of another."""

    size: int
    sha256: str


class Client:
    """An HTTP client for several threads: each keeps its own connections."""

    def __init__(self, *, timeout: float = TIMEOUT) -> None:
        self.timeout = timeout
        self._local = threading.local()
        self._open: list[http.client.HTTPConnection] = []
        self._closed = False

    def close(self) -> None:
        """End every connection, also those that other threads are waiting on."""
        self._closed = True
        for connection in self._open:
            sock = connection.sock
            if sock is not None:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass
            connection.close()

    def get(self, url: str, *, limit: int, offset: int = 0) -> tuple[int, Iterator[bytes]]:
        """The content of a URL from byte `offset` on: where the server really starts (0 if it cannot), and chunks.

        Never more than `limit` bytes in all (offset included). Raises Missing, Broken, and BootstrapError for a
        redirect to where none may lead; the chunks raise Broken.
        """
        parts = urlsplit(url)
        if parts.scheme == "file":
            return offset, _local_file(unquote(parts.path), limit, offset)
        for _ in range(_REDIRECTS):
            response, target = self._request(url, offset)
            if response.status in (301, 302, 303, 307, 308):
                place = response.getheader("Location") or ""
                response.read()
                url = _redirected(url, place)
            elif response.status == 416 and offset:  # what was fetched before is no part of this file
                response.read()
                offset = 0
            else:
                start = _check_answer(response, url, limit, offset)
                return start, self._body(response, target, url, limit - start)
        raise Broken(f"{url}: too many redirects")

    def _body(
        self, response: http.client.HTTPResponse, target: proxy.Endpoint, url: str, limit: int
    ) -> Iterator[bytes]:
        left = limit
        try:
            # read1 would give 8 kB at a time, and threads that hash and write so little mostly wait for each other
            while data := response.read(CHUNK):
                left -= len(data)
                if left < 0:
                    raise Broken(f"{url}: larger than it should be (more than {limit} bytes)")
                yield data
            if response.length:
                raise Broken(f"{url}: the connection ended early")
        except (OSError, http.client.HTTPException) as error:
            raise Broken(f"{url}: {_reason(error)}") from error
        finally:
            if not response.isclosed():
                self._drop(target)

    def _request(self, url: str, offset: int) -> tuple[http.client.HTTPResponse, proxy.Endpoint]:
        """Send a GET; once more on a kept connection that the server had closed meanwhile."""
        target = proxy.endpoint(url)
        parts = urlsplit(url)
        headers = {"User-Agent": f"lxcpy/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        if target.user:
            headers["Authorization"] = _basic(target)
        through = proxy.for_host(target)
        place = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if through is not None and target.scheme == "http":
            host = f"[{target.host}]" if ":" in target.host else target.host
            place = f"http://{host}:{target.port}{place}"
            if through.user:
                headers["Proxy-Authorization"] = _basic(through)
        for fresh in (False, True):
            if self._closed:
                raise Broken("the download was stopped")
            connection, kept = self._connection(target, through, fresh)
            try:
                connection.request("GET", place, headers=headers)
                return connection.getresponse(), target
            except (OSError, http.client.HTTPException) as error:
                self._drop(target)
                if kept and not isinstance(error, TimeoutError):
                    continue
                raise Broken(f"{url}: {_reason(error)}") from error
        raise AssertionError("unreachable")

    def _connection(
        self, target: proxy.Endpoint, through: proxy.Endpoint | None, fresh: bool
    ) -> tuple[http.client.HTTPConnection, bool]:
        table: dict[proxy.Endpoint, http.client.HTTPConnection] = self._local.__dict__.setdefault("table", {})
        if fresh:
            self._drop(target)
        if target in table:
            return table[target], True
        host, port = (through.host, through.port) if through else (target.host, target.port)
        if target.scheme == "https":
            connection: http.client.HTTPConnection = http.client.HTTPSConnection(host, port, timeout=self.timeout)
            if through:
                headers = {"Proxy-Authorization": _basic(through)} if through.user else {}
                connection.set_tunnel(target.host, target.port, headers)
        else:
            connection = http.client.HTTPConnection(host, port, timeout=self.timeout)
        table[target] = connection
        self._open.append(connection)
        return connection, False

    def _drop(self, target: proxy.Endpoint) -> None:
        connection = self._local.__dict__.setdefault("table", {}).pop(target, None)
        if connection is not None:
            connection.close()
            if connection in self._open:
                self._open.remove(connection)


def _basic(who: proxy.Endpoint) -> str:
    return "Basic " + base64.b64encode(f"{who.user}:{who.password}".encode()).decode()


def _reason(error: Exception) -> str:
    """The failure of a connection in plain words."""
    if isinstance(error, TimeoutError) and not getattr(error, "errno", None):
        return "the mirror does not answer (timed out)"
    if isinstance(error, socket.gaierror):
        return f"the name cannot be resolved ({error.strerror})"
    if isinstance(error, http.client.HTTPException):
        return f"the mirror's answer makes no sense ({type(error).__name__})"
    if isinstance(error, OSError):
        return str(error.reason) if hasattr(error, "reason") else meaning(error)
    return str(error)


def _check_answer(response: http.client.HTTPResponse, url: str, limit: int, offset: int) -> int:
    """The offset at which the body starts. Raises Missing, Broken."""
    status = response.status
    if status not in (200, 206):
        response.read(CHUNK)
        words = f"{url}: the mirror answers {status} {response.reason}".rstrip()
        raise Broken(words) if status >= 500 or status == 429 else Missing(words)
    start = 0
    if status == 206:
        given = (response.getheader("Content-Range") or "").partition(" ")[2].partition("-")[0]
        if given != str(offset):
            raise Broken(f"{url}: the mirror answers with the wrong range")
        start = offset
    length = response.length
    if length is not None and start + length > limit:
        raise Broken(f"{url}: larger than it should be ({start + length} bytes instead of at most {limit})")
    return start


def _redirected(url: str, place: str) -> str:
    """Where a redirect leads. Raises BootstrapError if that is not another place on the web."""
    target = urljoin(url, place)
    scheme, before = urlsplit(target).scheme, urlsplit(url).scheme
    if scheme not in ("http", "https") or (before == "https" and scheme != "https"):
        raise BootstrapError(
            f'{url}: the mirror redirects to "{target}", which is refused',
            hint="a redirect may only lead to another http or https address, and never from https to http",
        )
    return target


def _local_file(path: str, limit: int, offset: int) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size > limit:
                raise Broken(f"file://{path}: larger than it should be (more than {limit} bytes)")
            file.seek(offset)
            while data := file.read(CHUNK):
                yield data
    except OSError as error:
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise Missing(f"file://{path}: {meaning(error)}") from error
        raise Broken(f"file://{path}: {meaning(error)}") from error


def join(base: str, path: str) -> str:
    """The URL of a file of a mirror; characters that URLs cannot hold are quoted."""
    return base.rstrip("/") + "/" + quote(path, safe="/+~:,=@!$&'()*;-._%")


Sink = Callable[[int, bytes], None]  # (offset, data): where the data belongs


class Mirrors:
    """The places that hold one repository, the best first; all threads share it."""

    def __init__(self, client: Client, bases: Sequence[str], *, pause: float = 0.3) -> None:
        self.client = client
        self.bases = list(bases)
        self.pause = pause  # seconds before the second try, doubled for each further one

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
            raise BootstrapError(str(error), hint=_STALE_HINT) from error

    def transfer(
        self, paths: Sequence[str], limit: int, sink: Sink, position: Callable[[], int], check: Callable[[], None]
    ) -> None:
        """Bring a file to `sink` from the first mirror that gives it whole, going on at `position()` after a break.

        `check` is called at the end and raises Broken if the content is wrong. Raises Missing, BootstrapError.
        """
        missing: Missing | None = None
        broken: list[str] = []
        for base in self.bases:
            for path in paths:
                try:
                    self._from(join(base, path), limit, sink, position, check)
                    return
                except Missing as error:
                    missing = missing or error
                except Broken as error:
                    broken.append(str(error))
                    LOG.warn(str(error))
                    break  # its other names are on the same server
        if broken:
            raise Unavailable(broken[0], hint=_hint(broken[0]))
        raise missing or Missing(f"{paths[0]}: there is no mirror")

    def _from(
        self, url: str, limit: int, sink: Sink, position: Callable[[], int], check: Callable[[], None]
    ) -> None:
        wait = self.pause
        for left in reversed(range(TRIES)):
            try:
                offset, chunks = self.client.get(url, limit=limit, offset=position())
                for chunk in chunks:
                    sink(offset, chunk)
                    offset += len(chunk)
                check()
                return
            except Broken as error:
                if not left or self.client._closed:
                    raise
                LOG.info(f"{error}; trying again")
                time.sleep(wait)
                wait *= 2


_STALE_HINT = "the mirror may be in the middle of an update: try again in some minutes, or another with --mirror"


def verify(name: str, size: int, sha256: str, expected: Expected) -> None:
    """Raises Broken if a file is not what the signed index says."""
    if size != expected.size:
        raise Broken(f"{name}: wrong size: {size} bytes, the signed index says {expected.size}")
    if sha256 != expected.sha256:
        raise Broken(f"{name}: wrong hash: SHA256 is {sha256}, the signed index says {expected.sha256}")


def _hint(words: str) -> str:
    wrong = ": wrong " in words or "larger than it should be" in words
    return _STALE_HINT if wrong else _NETWORK_HINT


def full_disk(error: OSError, where: str) -> BootstrapError:
    """The error for a file system that took no more."""
    what = "the quota is used up" if error.errno == errno.EDQUOT else "no space left"
    return BootstrapError(
        f'cannot write to "{where}": {what}',
        hint="free some space there, or put the cache elsewhere with LXCPY_CACHE_DIR",
    )
