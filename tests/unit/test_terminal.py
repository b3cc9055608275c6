"""The terminal proxy, between two real pseudo terminals."""

from __future__ import annotations

import os
import signal
import subprocess
import termios
import threading
import time
from collections.abc import Iterator

import pytest

from lxcpy.errors import StateError
from lxcpy.kernel import pty
from lxcpy.runtime import terminal


@pytest.mark.parametrize(
    ("chunks", "passed", "left"),
    [
        ([b"abc"], b"abc", False),
        ([b"ab\x01q"], b"ab", True),
        ([b"ab\x01", b"q"], b"ab", True),
        ([b"\x01\x01"], b"\x01", False),
        ([b"\x01\x01q"], b"\x01q", False),
        ([b"\x01x"], b"x", False),
        ([b"\x01", b"\x01", b"\x01q"], b"\x01", True),
        ([b"q"], b"q", False),
    ],
)
def test_escape(chunks: list[bytes], passed: bytes, left: bool) -> None:
    escape = terminal.Escape(1)
    results = [escape.feed(chunk) for chunk in chunks]
    assert b"".join(data for data, _left in results) == passed
    assert results[-1][1] == left


def test_no_escape() -> None:
    assert terminal.Escape(0).feed(b"\x00\x01q") == (b"\x00\x01q", False)


class Line:
    """The user at `user`, the proxy's `source` and `sink` at `near`, the container's side at `far`."""

    def __init__(self) -> None:
        self.user, self.near, _index = pty.open_pty()
        self.master, self.far, _index = pty.open_pty()
        self.end: str | None = None


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    yield line
    for fd in (line.user, line.near, line.master, line.far):
        fd.close()


def proxy(line: Line, act, **options: object) -> str:  # type: ignore[no-untyped-def]
    """Run the proxy here (signals belong to the main thread) while another thread acts."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            act()
        except BaseException as error:
            failures.append(error)
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        return terminal.proxy(line.master.number, source=line.near.number, sink=line.near.number, **options)  # type: ignore[arg-type]
    finally:
        thread.join()
        assert not failures, failures


def expect(fd: pty.Fd, wanted: bytes) -> bytes:
    data = b""
    while wanted not in data:
        data += os.read(fd.number, 4096)
    return data


def wait_raw(line: Line) -> None:
    end = time.monotonic() + 5
    while termios.tcgetattr(line.near.number)[3] & termios.ICANON:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_bytes_pass_and_the_escape_ends(line: Line) -> None:
    before = termios.tcgetattr(line.near.number)
    pty.make_raw(line.far.number)
    pty.set_window_size(line.near.number, 91, 37)

    def act() -> None:
        wait_raw(line)
        assert pty.window_size(line.far.number) == (91, 37)
        os.write(line.user.number, b"hello\x03\x00\xff")
        assert expect(line.far, b"\xff") == b"hello\x03\x00\xff"
        os.write(line.far.number, b"answer\n")
        assert expect(line.user, b"\n") == b"answer\n"
        os.write(line.user.number, b"\x01q")

    assert proxy(line, act, escape=1) == terminal.ESCAPED
    assert termios.tcgetattr(line.near.number) == before


def test_the_window_follows(line: Line) -> None:
    def act() -> None:
        wait_raw(line)
        pty.set_window_size(line.near.number, 120, 50)
        os.kill(os.getpid(), signal.SIGWINCH)
        end = time.monotonic() + 5
        while pty.window_size(line.far.number) != (120, 50):
            assert time.monotonic() < end
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGHUP)

    handlers = [signal.getsignal(number) for number in (signal.SIGWINCH, signal.SIGHUP, signal.SIGTERM)]
    assert proxy(line, act) == terminal.SIGNALLED
    assert [signal.getsignal(number) for number in (signal.SIGWINCH, signal.SIGHUP, signal.SIGTERM)] == handlers


def test_the_container_side_closes(line: Line) -> None:
    def act() -> None:
        wait_raw(line)
        os.write(line.far.number, b"last words")
        line.far.close()

    assert proxy(line, act) == terminal.CLOSED
    assert expect(line.user, b"last words")


def test_the_end_of_the_command_is_the_end_though_others_keep_the_terminal(line: Line) -> None:
    child = subprocess.Popen(["sleep", "0.3"])
    pidfd = os.pidfd_open(child.pid)
    try:
        assert proxy(line, lambda: os.write(line.far.number, b"said"), child=pidfd) == terminal.CLOSED
        assert expect(line.user, b"said")
    finally:
        os.close(pidfd)
        child.wait()


def test_the_user_hangs_up(line: Line) -> None:
    def act() -> None:
        wait_raw(line)
        line.user.close()

    assert proxy(line, act) == terminal.INPUT_ENDED


def test_much_at_once_and_a_log(line: Line, tmp_path) -> None:  # type: ignore[no-untyped-def]
    pty.make_raw(line.far.number)
    log = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT)
    down, up = os.urandom(300_000), bytes(range(2, 256)) * 500

    def act() -> None:
        wait_raw(line)
        writer = threading.Thread(target=lambda: write_all(line.far, down))
        writer.start()
        typist = threading.Thread(target=lambda: write_all(line.user, up))
        typist.start()
        got = [b"", b""]
        readers = [
            threading.Thread(target=lambda at=at, fd=fd, size=size: got.__setitem__(at, read(fd, size)))  # type: ignore[misc]
            for at, fd, size in ((0, line.user, len(down)), (1, line.far, len(up)))
        ]
        for thread in readers:
            thread.start()
        for thread in (*readers, writer, typist):
            thread.join()
        assert got[0] == down
        assert got[1] == up
        os.write(line.user.number, b"\x01q")

    assert proxy(line, act, escape=1, log=log) == terminal.ESCAPED
    os.close(log)
    assert (tmp_path / "log").read_bytes() == down


def write_all(fd: pty.Fd, data: bytes) -> None:
    while data:
        data = data[os.write(fd.number, data) :]


def read(fd: pty.Fd, size: int) -> bytes:
    data = b""
    while len(data) < size:
        data += os.read(fd.number, 65536)
    return data


def test_input_that_cannot_be_waited_for(line: Line) -> None:
    null = os.open("/dev/null", os.O_RDONLY)
    try:
        with pytest.raises(StateError, match="standard input is a file"):
            terminal.proxy(line.master.number, source=null, sink=1)
    finally:
        os.close(null)
    assert os.get_blocking(line.master.number)
