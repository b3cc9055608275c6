"""An HTTP client: connections kept open, redirects followed within limits, nothing larger than announced."""

from __future__ import annotations

import http.client
import os
import socket
import ssl
import stat
import threading
import time
from collections.abc import Iterator, Mapping
from urllib.parse import unquote, urljoin, urlsplit

from lxcpy import __version__
from lxcpy.bootstrap.access import Access, basic
from lxcpy.bootstrap.dial import Dialler
from lxcpy.bootstrap.proxy import Endpoint, clean, endpoint
from lxcpy.errors import BootstrapError, meaning

CHUNK = 256 << 10
TIMEOUT = 30.0  # seconds without an answer, or with less than SLOWEST bytes a second
SLOWEST = 100
_GATHER = 0.2  # seconds that bytes of a slow connection are gathered before they are passed on
_REDIRECTS = 8


class Missing(Exception):
    """The mirror is there but does not have the file (or does not give it)."""


class NotModified(Exception):
    """The file is still what `Client.known` says of it."""


class Broken(Exception):
    """The connection failed, or what came cannot be what was asked for; another try or mirror may do."""

    again = True  # whether another try on the same mirror may do
    hint = "check the network and the mirror's name, or take another mirror with --mirror"


class Wrong(Broken):
    """What came is not what the signed files say."""

    hint = "the mirror may be in the middle of an update: try again in some minutes, or another with --mirror"


class Denied(Broken):
    """The server wants to know who asks."""

    again = False
    hint = "give user and password in the address, in /etc/apt/auth.conf or in ~/.netrc"


class Untrusted(Broken):
    """Nobody that this machine believes vouches for the server."""

    again = False
    hint = "--ca names a file with the certificate of the authority, SSL_CERT_FILE one with all of them"


class Client:
    """An HTTP client for several threads: each keeps its own connections.

    known: for a URL, what its server said of the file (ETag, Last-Modified) when the caller got it; it is only fetched
    if it changed. `seen`: what servers said of files in this client's time.
    """

    def __init__(self, *, timeout: float = TIMEOUT, access: Access | None = None) -> None:
        self.timeout = timeout
        self.access = access or Access()
        self.known: dict[str, tuple[str, str]] = {}
        self.seen: dict[str, tuple[str, str]] = {}
        self._dialler = Dialler()
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

        Never more than `limit` bytes in all (offset included). Raises Missing, Broken, NotModified, and BootstrapError
        for a redirect to where none may lead; the chunks raise Broken.
        """
        asked = url = self.access.learn(url)
        parts = urlsplit(url)
        if parts.scheme == "file":
            return offset, _local_file(unquote(parts.path), limit, offset)
        for _ in range(_REDIRECTS):
            response, target = self._request(url, offset, {} if offset else self._conditions(asked))
            if response.status in (301, 302, 303, 307, 308):
                place = response.getheader("Location") or ""
                response.read()
                url = self.access.learn(redirected(url, place))
            elif response.status == 304 and asked in self.known:
                response.read()
                raise NotModified(asked)
            elif response.status == 416 and offset:  # what was fetched before is no part of this file
                response.read()
                offset = 0
            else:
                start = _check_answer(response, url, limit, offset)
                self.seen[asked] = (response.getheader("ETag") or "", response.getheader("Last-Modified") or "")
                return start, self._body(response, target, url, limit - start)
        raise Broken(f"{url}: too many redirects")

    def _conditions(self, url: str) -> dict[str, str]:
        tag, modified = self.known.get(url, ("", ""))
        return {key: value for key, value in (("If-None-Match", tag), ("If-Modified-Since", modified)) if value}

    def _body(self, response: http.client.HTTPResponse, target: Endpoint, url: str, limit: int) -> Iterator[bytes]:
        left = limit
        try:
            while data := _gather(response, self.timeout):
                left -= len(data)
                if left < 0:
                    raise Wrong(f"{url}: larger than it should be (more than {limit} bytes)")
                yield data
            if response.length:
                raise Broken(f"{url}: the connection ended early")
        except (OSError, http.client.HTTPException) as error:
            raise _broken(url, None, error) from error
        finally:
            if not response.isclosed():
                response.close()  # it holds the socket alone where the server said "Connection: close"
                self._drop(target)

    def _request(
        self, url: str, offset: int, conditions: Mapping[str, str]
    ) -> tuple[http.client.HTTPResponse, Endpoint]:
        """Send a GET; once more on a kept connection that the server had closed meanwhile."""
        target = endpoint(url)
        parts = urlsplit(url)
        headers = {"User-Agent": f"lxcpy/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity", **conditions}
        if offset:
            headers["Range"] = f"bytes={offset}-"
        if login := self.access.authorization(url):
            headers["Authorization"] = login
        through = self.access.proxies.for_host(target)
        place = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        if through is not None and target.scheme == "http":
            place = f"{target}{place}"
            if through.user:
                headers["Proxy-Authorization"] = basic(through.user, through.password)
        for fresh in (False, True):
            if self._closed:
                raise Broken("the download was stopped")
            kept = False
            try:
                connection, kept = self._connection(target, through, fresh)
                connection.request("GET", place, headers=headers)
                return connection.getresponse(), target
            except (OSError, http.client.HTTPException) as error:
                self._drop(target)
                if kept and not isinstance(error, TimeoutError):
                    continue
                raise _broken(url, through, error) from error
        raise AssertionError("unreachable")

    def _connection(
        self, target: Endpoint, through: Endpoint | None, fresh: bool
    ) -> tuple[http.client.HTTPConnection, bool]:
        table: dict[Endpoint, http.client.HTTPConnection] = self._local.__dict__.setdefault("table", {})
        if fresh:
            self._drop(target)
        if target in table:
            return table[target], True
        table[target] = connection = self._connect(target, through)
        self._open.append(connection)
        return connection, False

    def _connect(self, target: Endpoint, through: Endpoint | None) -> http.client.HTTPConnection:
        """A connection, opened by its first request unless it is one through a proxy.

        Raises BootstrapError, Denied, OSError, http.client.HTTPException.
        """
        first = through or target
        if target.scheme == first.scheme == "http":
            return self._dialling(http.client.HTTPConnection(first.host, first.port, timeout=self.timeout))
        if through is not None and target.scheme == through.scheme == "https":
            raise BootstrapError(
                f"the proxy {through} is asked by https, which cannot carry https to {target.host}",
                hint="set https_proxy to an http:// address of the proxy",
            )
        context = self.access.tls(target.host)
        if through is None or target.scheme == "http":
            return self._dialling(
                http.client.HTTPSConnection(first.host, first.port, timeout=self.timeout, context=context)
            )
        connection = http.client.HTTPSConnection(target.host, target.port, timeout=self.timeout, context=context)
        connection.sock = _tunnel(self._dialler, target, through, context, self.timeout)
        connection.auto_open = 0  # it would connect directly
        return connection

    def _dialling(self, connection: http.client.HTTPConnection) -> http.client.HTTPConnection:
        """Let it be opened by our own: http.client takes one address after the other, a whole timeout for each."""
        vars(connection)["_create_connection"] = self._dialler.dial
        return connection

    def _drop(self, target: Endpoint) -> None:
        connection = self._local.__dict__.setdefault("table", {}).pop(target, None)
        if connection is not None:
            connection.close()
            if connection in self._open:
                self._open.remove(connection)


def _tunnel(
    dialler: Dialler, target: Endpoint, through: Endpoint, context: ssl.SSLContext, timeout: float
) -> ssl.SSLSocket:
    """TLS to a host through a proxy: http.client's own forgets the brackets of IPv6 addresses before Python 3.13.

    Raises Denied, OSError, http.client.HTTPException.
    """
    place = str(target).partition("://")[2]
    lines = [f"CONNECT {place} HTTP/1.1", f"Host: {place}"]
    if through.user:
        lines.append(f"Proxy-Authorization: {basic(through.user, through.password)}")
    sock = dialler.dial((through.host, through.port), timeout)
    try:
        sock.sendall("\r\n".join([*lines, "", ""]).encode())
        with http.client.HTTPResponse(sock, method="CONNECT") as response:
            response.begin()
            if response.status != 200:
                kind = Denied if response.status == 407 else Broken
                raise kind(f"{target}: the proxy {through} answers {response.status} {response.reason}".rstrip())
            return context.wrap_socket(sock, server_hostname=target.host)
    except BaseException:
        sock.close()
        raise


def _gather(response: http.client.HTTPResponse, timeout: float) -> bytes:
    """The next bytes of a body, as many as come in a moment: threads that hash and write little mostly wait.

    Raises TimeoutError if a server trickles: each byte would begin a new timeout of the socket.
    """
    parts: list[bytes] = []
    size = 0
    began = time.monotonic()
    while size < CHUNK and (data := response.read1(CHUNK - size)):
        parts.append(data)
        size += len(data)
        passed = time.monotonic() - began
        if passed > timeout:
            raise TimeoutError
        if passed > _GATHER and size > SLOWEST * timeout:
            break
    return b"".join(parts)


def _broken(url: str, through: Endpoint | None, error: Exception) -> Broken:
    """The failure of a connection in plain words."""
    where = f"{url}, through the proxy {through}" if through is not None else url
    if isinstance(error, ssl.SSLCertVerificationError):
        return Untrusted(f"{url}: its certificate is not trusted ({error.verify_message})")
    return Broken(f"{where}: {_reason(error)}")


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
        if status in (401, 407):
            raise Denied(words)
        raise Broken(words) if status >= 500 or status == 429 else Missing(words)
    start = 0
    if status == 206:
        given = (response.getheader("Content-Range") or "").partition(" ")[2].partition("-")[0]
        if given != str(offset):
            raise Broken(f"{url}: the mirror answers with the wrong range")
        start = offset
    length = response.length
    if length is not None and start + length > limit:
        raise Wrong(f"{url}: larger than it should be ({start + length} bytes instead of at most {limit})")
    return start


def redirected(url: str, place: str) -> str:
    """Where a redirect leads. Raises BootstrapError if that is not another place on the web."""
    target = urljoin(url, place)
    scheme, before = urlsplit(target).scheme, urlsplit(url).scheme
    if scheme not in ("http", "https") or (before == "https" and scheme != "https"):
        raise BootstrapError(
            f'{url}: the mirror redirects to "{clean(target)}", which is refused',
            hint="a redirect may only lead to another http or https address, and never from https to http",
        )
    return target


def _local_file(path: str, limit: int, offset: int) -> Iterator[bytes]:
    try:
        # O_NONBLOCK: a FIFO there must not hang us, nor may a device that never ends be read.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise Missing(f"file://{path}: not a regular file")
            if status.st_size > limit:
                raise Wrong(f"file://{path}: larger than it should be (more than {limit} bytes)")
            file.seek(offset)
            while data := file.read(CHUNK):
                yield data
    except OSError as error:
        if isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise Missing(f"file://{path}: {meaning(error)}") from error
        raise Broken(f"file://{path}: {meaning(error)}") from error
