"""Names with several addresses, of which not all answer; mirrors that IPv6 alone leads to."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from debcreate import Creation, tiny_template
from debmirror import Archive, Key, Server, tiny
from probes import requires

from lxcpy.bootstrap.dial import Dialler
from lxcpy.bootstrap.transport import Broken, Client

NAME = "both.example"
Resolve = Callable[..., None]
Silent = Callable[[str, int], int]


@pytest.fixture
def resolve(monkeypatch: pytest.MonkeyPatch) -> Resolve:
    """Let NAME have these addresses, in this order."""
    real = socket.getaddrinfo

    def set_up(*places: str) -> None:
        def found(host: str, *words: Any, **options: Any) -> list[Any]:
            hosts = places if host == NAME else (host,)
            return [one for place in hosts for one in real(place, *words, **options)]

        monkeypatch.setattr(socket, "getaddrinfo", found)

    return set_up


@pytest.fixture
def silent() -> Iterator[Silent]:
    """Make an address answer nothing: a listener whose queue is full drops what asks further (listen(2))."""
    with ExitStack() as stack:

        def full(host: str, port: int = 0) -> int:
            listener = stack.enter_context(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(0)
            found: int = listener.getsockname()[1]
            for _ in range(4):
                one = stack.enter_context(socket.socket(listener.family))
                one.setblocking(False)
                one.connect_ex((host, found))
            return found

        yield full


@pytest.fixture
def listening() -> Iterator[Callable[[str, int], int]]:
    with ExitStack() as stack:

        def start(host: str, port: int = 0) -> int:
            listener = stack.enter_context(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
            listener.listen(8)
            found: int = listener.getsockname()[1]
            return found

        yield start


@pytest.mark.parametrize(("dead", "alive"), [("::1", "127.0.0.1"), ("127.0.0.1", "::1")])
def test_an_address_that_does_not_answer_holds_nothing_up(
    resolve: Resolve, silent: Silent, listening: Silent, dead: str, alive: str
) -> None:
    port = silent(dead, 0)
    listening(alive, port)
    resolve(dead, alive)
    began = time.monotonic()
    with Dialler().dial((NAME, port), 40) as found:
        assert found.getpeername()[0] == alive
        assert found.gettimeout() == 40
    assert time.monotonic() - began < 20


def test_an_address_that_refuses_is_passed_over(resolve: Resolve, listening: Silent) -> None:
    port = listening("127.0.0.1", 0)
    resolve("::1", "127.0.0.2", "127.0.0.1")
    with Dialler().dial((NAME, port), 10) as found:
        assert found.getpeername()[0] == "127.0.0.1"


def test_a_name_is_looked_up_once_while_it_leads_somewhere(resolve: Resolve, monkeypatch: pytest.MonkeyPatch) -> None:
    """For four threads at once and later; what answered is tried first; after a failure the name is asked again."""
    resolve("::1", "127.0.0.1")
    asked = []
    found = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda *words, **more: asked.append(words) or found(*words, **more))
    dialler = Dialler()
    with socket.create_server(("127.0.0.1", 0), backlog=64) as four:
        port = four.getsockname()[1]
        with ThreadPoolExecutor(4) as pool:
            for one in pool.map(lambda _: dialler.dial((NAME, port), 10), range(8)):
                one.close()
        assert len(asked) == 1
        with socket.create_server(("::1", port), family=socket.AF_INET6), dialler.dial((NAME, port), 10) as one:
            assert one.getpeername()[0] == "127.0.0.1"
    with pytest.raises(ConnectionRefusedError):
        dialler.dial((NAME, port), 10)
    assert len(asked) == 1
    with socket.create_server(("::1", port), family=socket.AF_INET6), dialler.dial((NAME, port), 10) as one:
        assert one.getpeername()[0] == "::1"
    assert len(asked) == 2


def test_where_none_answers(resolve: Resolve, silent: Silent) -> None:
    resolve("::1", "127.0.0.1")
    with pytest.raises(ConnectionRefusedError):
        Dialler().dial((NAME, 9), 10)
    port = silent("127.0.0.1", 0)
    resolve("127.0.0.1", "127.0.0.1")
    with pytest.raises(TimeoutError):
        Dialler().dial((NAME, port), 1)
    with pytest.raises(Broken, match="the name cannot be resolved"):
        Client(timeout=5).get("http://nowhere.invalid/x", limit=1)


@requires("root", "gpg", "gpgv", "busybox")
@pytest.mark.usefixtures("cache")
def test_a_system_from_a_mirror_with_ipv6_alone(
    archive: Archive, key: Key, tmp_path: Path, resolve: Resolve, silent: Silent
) -> None:
    """By its address, and by a name whose other address does not answer."""
    tiny(archive)
    archive.publish("tiny", fields={"Suite": "stable"})
    server = Server(archive.root, host="::1")
    create = Creation(tiny_template(tmp_path / "template"), server, key, tmp_path)
    try:
        root = create() / "rootfs"
        assert (root / "etc/apt/sources.list").read_text() == f"deb {server.url} tiny main\n"
        assert server.url.startswith("http://[::1]:")
        port = server.server_address[1]
        silent("127.0.0.1", port)
        resolve("127.0.0.1", "::1")
        server.url = f"http://{NAME}:{port}"
        root = create("--no-cache") / "rootfs"
        assert (root / "usr/share/extra").read_text() == "extra\n"
    finally:
        server.stop()
