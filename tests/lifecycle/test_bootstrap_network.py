"""Ways to a mirror: proxies, logins, private authorities, IPv6, lists of mirrors, bad lines. All servers are real."""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from debmirror import Handler, Server
from probes import requires
from proxyserver import Authority, Proxy

from lxcpy.bootstrap import hostapt
from lxcpy.bootstrap.access import Access, basic
from lxcpy.bootstrap.cache import Store
from lxcpy.bootstrap.download import Client, Expected, Mirrors
from lxcpy.errors import BootstrapError

CONTENT = bytes(range(256)) * 4000
EXPECTED = Expected(len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
SECRET = "s3cr3t-w0rd"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "mirror"
    (folder / "pool").mkdir(parents=True)
    (folder / "pool/file").write_bytes(CONTENT)
    return folder


@pytest.fixture
def serve(root: Path) -> Iterator[Callable[..., Server]]:
    """Servers of the folder, with options of Server."""
    made: list[Server] = []

    def start(**options: object) -> Server:
        made.append(Server(root, **options))  # type: ignore[arg-type]
        return made[-1]

    yield start
    for server in made:
        server.stop()


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    found = Proxy()
    yield found
    found.stop()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls") / "ca")


@pytest.fixture
def fetch(tmp_path: Path) -> Callable[..., list[str]]:
    """Fetch the file from the addresses with the access; the lines of the error, [] if it came."""

    def run(*urls: str, access: Access | None = None, timeout: float = 1) -> list[str]:
        client = Client(timeout=timeout, access=access or Access(environment={}))
        store = Store(str(tmp_path / "cache"))
        try:
            mirrors = Mirrors(client, urls, pause=0.01)
            assert SECRET not in str(mirrors.bases)
            store.fetch(mirrors, ["pool/file"], EXPECTED, lambda *_: None)
            assert store.read(EXPECTED) == CONTENT
            store.discard(EXPECTED.sha256)
            return []
        except BootstrapError as error:
            return error.lines()
        finally:
            client.close()

    return run


Fetch = Callable[..., list[str]]
Serve = Callable[..., Server]


def test_through_a_proxy(serve: Serve, proxy: Proxy, fetch: Fetch) -> None:
    mirror = serve()
    assert fetch(mirror.url, access=Access(environment={"http_proxy": proxy.url})) == []
    assert proxy.asked == [f"GET {mirror.url}/pool/file"]
    assert fetch(mirror.url, access=Access(environment={"http_proxy": proxy.url, "no_proxy": "127.0.0.1"})) == []
    assert len(proxy.asked) == 1


@requires("openssl")
def test_https_through_a_proxy(serve: Serve, proxy: Proxy, fetch: Fetch, authority: Authority) -> None:
    mirror = serve(tls=authority.context)
    access = Access(ca=str(authority.ca), environment={"https_proxy": proxy.url})
    assert fetch(mirror.url, access=access) == []
    assert proxy.asked == [f"CONNECT {mirror.url.removeprefix('https://')}"]


@requires("openssl")
def test_a_proxy_that_wants_a_login(serve: Serve, proxy: Proxy, fetch: Fetch, authority: Authority) -> None:
    proxy.login = basic("us:er", SECRET)  # a colon in the name is part of the password to the server
    plain, encrypted = serve(), serve(tls=authority.context)
    given = proxy.url.replace("//", f"//us%3Aer:{SECRET}@")
    for scheme, mirror in (("http", plain), ("https", encrypted)):
        assert fetch(mirror.url, access=Access(ca=str(authority.ca), environment={f"{scheme}_proxy": given})) == []
        access = Access(ca=str(authority.ca), environment={f"{scheme}_proxy": given.replace(SECRET, "wrong")})
        said = fetch(mirror.url, access=access)
        assert "answers 407" in said[0]
        assert "wrong" not in "".join(said)


def test_a_proxy_that_is_not_there(serve: Serve, fetch: Fetch) -> None:
    mirror = serve()
    said = fetch(mirror.url, access=Access(environment={"http_proxy": f"http://me:{SECRET}@127.0.0.1:9"}))
    assert said[0] == f"{mirror.url}/pool/file, through the proxy http://127.0.0.1:9: Connection refused"
    said = fetch(mirror.url, access=Access(environment={"http_proxy": f"socks5h://me:{SECRET}@127.0.0.1:9"}))
    assert said[0] == '"socks5h://127.0.0.1:9" is not an http or https address'


@requires("apt-config")
def test_the_proxy_of_apt(
    serve: Serve, proxy: Proxy, fetch: Fetch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with apt: its settings win over http_proxy, those of one host over all others; DIRECT is none."""
    mirror = serve()
    config = tmp_path / "apt.conf"
    monkeypatch.setenv("APT_CONFIG", str(config))
    environment = {"http_proxy": "http://127.0.0.1:9"}

    def asked(text: str) -> bool:
        config.write_text(text)
        proxy.asked.clear()
        access = Access(apt=hostapt.settings(), environment=environment)
        assert fetch(mirror.url, access=access) == []
        return bool(proxy.asked)

    assert asked(f'Acquire::http::Proxy "{proxy.url}";')
    assert asked(f'Acquire::http {{ Proxy "http://127.0.0.1:9"; Proxy::"127.0.0.1" "{proxy.url}"; }};')
    assert not asked('Acquire::http::Proxy "DIRECT";')
    detect = tmp_path / "detect"
    detect.write_text(f'#!/bin/sh\n[ "$1" = http://127.0.0.1 ] && echo {proxy.url}\n')
    detect.chmod(0o755)
    assert asked(f'Acquire::http::Proxy-Auto-Detect "{detect}";')


def test_a_mirror_that_wants_a_login(serve: Serve, fetch: Fetch, tmp_path: Path) -> None:
    mirror = serve(login=basic("us@er", SECRET))
    assert fetch(mirror.url.replace("//", f"//us%40er:{SECRET}@")) == []
    said = fetch(mirror.url.replace("//", f"//us%40er:{SECRET}x@"))
    assert said == [
        f"{mirror.url}/pool/file: the mirror answers 401 Unauthorized",
        "  hint: give user and password in the address, in /etc/apt/auth.conf or in ~/.netrc",
    ]
    netrc = tmp_path / ".netrc"
    netrc.write_text(f"machine 127.0.0.1\nlogin us@er\npassword {SECRET}\n")
    netrc.chmod(0o600)
    assert fetch(mirror.url, access=Access(environment={"HOME": str(tmp_path)})) == []
    assert fetch(mirror.url, access=Access(environment={"NETRC": str(netrc)})) == []


@requires("openssl")
def test_logins_of_apt(
    serve: Serve, fetch: Fetch, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """apt_auth.conf(5): the longest path wins, and without a scheme an entry is for https alone."""
    encrypted = serve(tls=authority.context, login=basic("u", SECRET))
    plain = serve(login=basic("u", SECRET))
    file = tmp_path / "auth.conf"
    monkeypatch.setattr("lxcpy.bootstrap.access.APT_AUTH", str(file))
    monkeypatch.setattr("lxcpy.bootstrap.access.apt_logins.__defaults__", (str(file),))
    access = lambda: Access(ca=str(authority.ca), apt={}, environment={})  # noqa: E731
    file.write_text(f"machine 127.0.0.1 login u password {SECRET}\n")
    assert fetch(encrypted.url, access=access()) == []
    assert "401" in fetch(plain.url, access=access())[0]
    (tmp_path / "auth.conf.d").mkdir()
    lines = f"machine {plain.url}/pool login u password {SECRET}\nmachine {plain.url} login x password y\n"
    (tmp_path / "auth.conf.d/one.conf").write_text(lines)
    assert fetch(plain.url, access=access()) == []
    assert "401" in fetch(plain.url, access=Access(environment={}))[0]


def test_a_login_stays_with_its_host(serve: Serve, fetch: Fetch) -> None:
    """A mirror that redirects to another host does not get the first one's login sent there."""
    told: list[str | None] = []
    other = serve()

    def tell(handler: Handler, data: bytes) -> None:
        told.append(handler.headers.get("Authorization"))
        handler.whole(data)

    other.faults["pool/file"] = tell
    first = serve(login=basic("u", SECRET))
    first.faults["pool/file"] = lambda handler, _: handler.give(302, b"", {"Location": f"{other.url}/pool/file"})
    assert fetch(first.url.replace("//", f"//u:{SECRET}@")) == []
    assert told == [None]


@requires("openssl")
def test_a_private_authority(
    serve: Serve, fetch: Fetch, authority: Authority, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mirror = serve(tls=authority.context)
    said = fetch(mirror.url)
    assert said[0].startswith(f"{mirror.url}/pool/file: its certificate is not trusted (")
    assert said[1].startswith("  hint: --ca names a file with the certificate of the authority")
    assert fetch(mirror.url, access=Access(ca=str(authority.ca), environment={})) == []
    assert fetch(mirror.url, access=Access(apt={"acquire::https::cainfo": str(authority.ca)}, environment={})) == []
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca))
    assert fetch(mirror.url) == []
    monkeypatch.delenv("SSL_CERT_FILE")
    (tmp_path / "junk").write_text("junk")
    for name, words in (("junk", "NO_CERTIFICATE_OR_CRL_FOUND"), ("none", "No such file or directory")):
        said = fetch(mirror.url, access=Access(ca=str(tmp_path / name), environment={}))
        assert said[0] == f'cannot use the certificates in "{tmp_path}/{name}": {words}'


@requires("openssl")
def test_a_certificate_of_another_host(serve: Serve, fetch: Fetch, authority: Authority) -> None:
    mirror = serve(tls=authority.context)
    url = mirror.url.replace("127.0.0.1", "localhost")
    said = fetch(url, access=Access(ca=str(authority.ca), environment={}))
    assert "its certificate is not trusted (Hostname mismatch" in said[0]


@requires("openssl")
def test_ipv6_alone(serve: Serve, fetch: Fetch, proxy: Proxy, authority: Authority) -> None:
    plain, encrypted = serve(host="::1"), serve(host="::1", tls=authority.context)
    assert plain.url.startswith("http://[::1]:")
    assert fetch(plain.url) == []
    assert fetch(plain.url, access=Access(environment={"http_proxy": proxy.url})) == []
    assert proxy.asked == [f"GET {plain.url}/pool/file"]
    assert fetch(encrypted.url, access=Access(ca=str(authority.ca), environment={})) == []
    access = Access(ca=str(authority.ca), environment={"https_proxy": proxy.url})
    assert fetch(encrypted.url, access=access) == []
    assert proxy.asked[1:] == [f"CONNECT {encrypted.url.removeprefix('https://')}"]


def test_the_next_mirror_of_a_list(serve: Serve, fetch: Fetch, root: Path) -> None:
    """One that is not there, one that lacks the file, one with another file: the fourth has it."""
    lacking, wrong, good = serve(), serve(), serve()
    lacking.faults["pool/file"] = lambda handler, _: handler.give(404, b"")
    wrong.faults["pool/file"] = lambda handler, data: handler.give(200, data[::-1])
    assert fetch("http://127.0.0.1:9", lacking.url, wrong.url, good.url) == []
    said = fetch("http://127.0.0.1:9", lacking.url, wrong.url)
    assert said[0] == "http://127.0.0.1:9/pool/file: Connection refused"


@requires("root")
@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFCHR])
def test_what_is_no_regular_file_is_not_read(fetch: Fetch, tmp_path: Path, kind: int) -> None:
    """A FIFO would never open, /dev/zero never end."""
    (tmp_path / "odd/pool").mkdir(parents=True)
    os.mknod(tmp_path / "odd/pool/file", kind | 0o600, os.makedev(1, 5))
    said = fetch(f"file://{tmp_path}/odd")
    assert said[0] == f"file://{tmp_path}/odd/pool/file: not a regular file"


def test_a_half_from_one_mirror_is_completed_by_the_next(serve: Serve, fetch: Fetch) -> None:
    first, second = serve(), serve()

    def half(handler: Handler, data: bytes) -> None:
        if not handler.headers.get("Range"):
            handler.give(200, data[: len(data) // 2], length=len(data))
        handler.close_connection = True

    ranges: list[str | None] = []

    def note(handler: Handler, data: bytes) -> None:
        ranges.append(handler.headers.get("Range"))
        handler.whole(data)

    first.faults["pool/file"], second.faults["pool/file"] = half, note
    assert fetch(first.url, second.url) == []
    assert ranges == [f"bytes={len(CONTENT) // 2}-"]


def test_a_line_that_breaks_again_and_again(serve: Serve, fetch: Fetch) -> None:
    """Ten pieces, each ended by a reset: as long as it gets on, it is not given up."""
    mirror = serve()
    step = len(CONTENT) // 10

    def piece(handler: Handler, data: bytes) -> None:
        start = int((handler.headers.get("Range") or "bytes=0-")[6:-1])
        headers = {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"}
        handler.give(206 if start else 200, data[start : start + step], headers, length=len(data) - start)
        handler.close_connection = True

    mirror.faults["pool/file"] = piece
    assert fetch(mirror.url) == []
    assert len(mirror.requests) == 10


def test_a_mirror_that_trickles(serve: Serve, fetch: Fetch) -> None:
    """A byte now and then keeps a connection's timeout from passing, and yet it is a stall."""
    mirror = serve()

    def trickle(handler: Handler, data: bytes) -> None:
        handler.give(200, b"", length=len(data))
        for number in range(200):
            handler.wfile.write(data[number : number + 1])
            handler.wfile.flush()
            if handler.server.stopping.wait(0.1):
                break
        handler.close_connection = True

    mirror.faults["pool/file"] = trickle
    began = time.monotonic()
    said = fetch(mirror.url, timeout=0.5)
    assert said[0] == f"{mirror.url}/pool/file: the mirror does not answer (timed out)"
    assert time.monotonic() - began < 10


def test_what_the_server_says_of_a_file_is_asked_again(serve: Serve) -> None:
    from lxcpy.bootstrap.download import NotModified

    mirror = serve()
    client = Client(timeout=1, access=Access(environment=os.environ))
    url = f"{mirror.url}/pool/file"
    assert b"".join(client.get(url, limit=1 << 30)[1]) == CONTENT
    client.known[url] = client.seen[url]
    with pytest.raises(NotModified):
        client.get(url, limit=1 << 30)
    assert mirror.unchanged == ["/pool/file"]
    client.close()
