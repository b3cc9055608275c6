"""The user's terminal connected to one of a container's: what attach, console and `start -F` show.

The terminal is raw meanwhile and is given back as it was on every way out: an escape, the end of either side, a signal,
an error.
"""

from __future__ import annotations

import os
import select
import signal

from lxcpy.errors import StateError, meaning
from lxcpy.kernel import pty

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import FrameType
    from typing import Any

ESCAPED = "escaped"  # the user typed the escape
INPUT_ENDED = "input ended"
CLOSED = "closed"  # the container's side has gone
SIGNALLED = "signalled"  # SIGTERM or SIGHUP

CHUNK = 4096
BACKLOG = 1 << 16  # typed but not taken; then nothing more is read
GRACE = 0.5  # seconds without a word after the command's end, where others keep its terminal open


class Escape:
    """Finds `Ctrl-a q` in what is typed; `Ctrl-a Ctrl-a` stands for one Ctrl-a, Ctrl-a before anything else for
    nothing."""

    def __init__(self, code: int) -> None:
        self.code = code  # 1 for Ctrl-a; 0: no escape
        self.seen = False

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What is to be passed on, and whether the user wants to leave."""
        if not self.code or (not self.seen and self.code not in data):
            return data, False
        out = bytearray()
        for byte in data:
            if byte == self.code and not self.seen:
                self.seen = True
            elif byte == ord("q") and self.seen:
                return bytes(out), True
            else:
                self.seen = False
                out.append(byte)
        return bytes(out), False


def proxy(master: int, *, source: int = 0, sink: int = 1, escape: int = 0, log: int = -1, child: int = -1) -> str:
    """Pass bytes between `source`, `sink` and a terminal's master until one side ends; why it ended is returned.

    escape: code of the control character that begins an escape; 0: there is none.
    log: a descriptor that gets a copy of what is shown. child: a pidfd, whose end is soon the end too.
    Raises StateError when the source cannot be waited for (a file, /dev/null).
    """
    with _Terminal(source, master) as terminal:
        return _Proxy(master, source, sink, Escape(escape), log, child, terminal).run()


class _Terminal:
    """Raw mode and signals, until the end of the `with`."""

    def __init__(self, source: int, master: int) -> None:
        self.source = source
        self.master = master
        self.saved: list[Any] | None = None
        self.handlers: dict[int, Any] = {}
        self.received: set[int] = set()
        self.wake = -1  # readable after a signal
        self._poke = -1

    def __enter__(self) -> _Terminal:
        self.wake, self._poke = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._old_wakeup = signal.set_wakeup_fd(self._poke, warn_on_full_buffer=False)
        for number in (signal.SIGWINCH, signal.SIGTERM, signal.SIGHUP, signal.SIGCONT):
            self.handlers[number] = signal.signal(number, self._note)
        # Else setting the terminal's mode from the background would stop us half way.
        for number in (signal.SIGTTOU, signal.SIGTTIN):
            self.handlers[number] = signal.signal(number, signal.SIG_IGN)
        if os.isatty(self.source):
            self.resize()
            try:
                self.saved = pty.make_raw(self.source)
            except OSError:
                self.__exit__()
                raise
        return self

    def __exit__(self, *_exception: object) -> None:
        if self.saved is not None:
            try:
                pty.restore(self.source, self.saved)
            except OSError:
                pass  # it was hung up
        for number, handler in self.handlers.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        signal.set_wakeup_fd(self._old_wakeup)
        os.close(self.wake)
        os.close(self._poke)

    def resize(self) -> None:
        """Give the container's terminal the window's size."""
        pty.copy_window_size(self.source, self.master)

    def again(self) -> None:
        """After SIGCONT: the shell has had the terminal meanwhile."""
        if self.saved is not None:
            try:
                pty.make_raw(self.source)
            except OSError:
                pass
        self.resize()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.received.add(number)


class _Proxy:
    def __init__(
        self, master: int, source: int, sink: int, escape: Escape, log: int, child: int, terminal: _Terminal
    ) -> None:
        self.master = master
        self.source = source
        self.sink = sink
        self.escape = escape
        self.log = log
        self.child = child
        self.terminal = terminal
        self.typed = b""  # not taken yet
        self.reading = False
        self.ended = False  # the command

    def run(self) -> str:
        self.poll = select.epoll()
        blocking = os.get_blocking(self.master)
        os.set_blocking(self.master, False)
        try:
            self.poll.register(self.master, select.EPOLLIN)
            self.poll.register(self.terminal.wake, select.EPOLLIN)
            if self.child >= 0:
                self.poll.register(self.child, select.EPOLLIN)
            self._read_source(True)
            while True:
                ready = self.poll.poll(GRACE if self.ended else None)
                if not ready:
                    return CLOSED
                for fd, events in ready:
                    end = self._ready(fd, events)
                    if end:
                        return end
        finally:
            self.poll.close()
            try:
                os.set_blocking(self.master, blocking)
            except OSError:
                pass

    def _read_source(self, on: bool) -> None:
        if on == self.reading:
            return
        self.reading = on
        if not on:
            self.poll.unregister(self.source)
            return
        try:
            self.poll.register(self.source, select.EPOLLIN)
        except PermissionError:
            raise StateError(
                "standard input is a file that cannot be waited for", hint="call it with a terminal or a pipe as input"
            ) from None

    def _ready(self, fd: int, events: int) -> str:
        if fd == self.terminal.wake:
            return self._signals()
        if fd == self.source:
            return self._from_user()
        if fd == self.child:
            # What it said last may still be on its way: the kernel passes a terminal's data on in a thread of its own.
            # The end of the session hangs up on the terminal, and the master tells when all has come.
            self.poll.unregister(self.child)
            self.ended = True
            return ""
        if events & select.EPOLLOUT:
            self._flush()
        if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR):
            return self._from_container()
        return ""

    def _signals(self) -> str:
        try:
            while os.read(self.terminal.wake, CHUNK):
                pass
        except BlockingIOError:
            pass
        received, self.terminal.received = self.terminal.received, set()
        if received & {signal.SIGTERM, signal.SIGHUP}:
            return SIGNALLED
        if signal.SIGCONT in received:
            self.terminal.again()
        elif received:
            self.terminal.resize()
        return ""

    def _from_user(self) -> str:
        try:
            data = os.read(self.source, CHUNK)
        except BlockingIOError:
            return ""
        except OSError:
            data = b""  # hung up
        if not data:
            return INPUT_ENDED
        passed, leave = self.escape.feed(data)
        self.typed += passed
        self._flush()
        return ESCAPED if leave else ""

    def _flush(self) -> None:
        try:
            while self.typed:
                self.typed = self.typed[os.write(self.master, self.typed) :]
        except BlockingIOError:
            pass
        except OSError:
            self.typed = b""  # the read tells that the other side has gone
        self.poll.modify(self.master, select.EPOLLIN | (select.EPOLLOUT if self.typed else 0))
        self._read_source(len(self.typed) < BACKLOG)

    def _from_container(self) -> str:
        """Show what has come."""
        try:
            data = os.read(self.master, CHUNK)
        except BlockingIOError:
            return ""
        except OSError:
            data = b""  # EIO: nobody has the other side open
        if not data:
            return CLOSED
        if self.log >= 0:
            try:
                os.write(self.log, data)
            except OSError as error:
                self.log = -1
                os.write(2, f"\r\nthe terminal is no longer logged: {meaning(error)}\r\n".encode())
        return self._show(data)

    def _show(self, data: bytes) -> str:
        while data:
            try:
                data = data[os.write(self.sink, data) :]
            except BlockingIOError:
                select.select([], [self.sink], [])
            except OSError:
                return INPUT_ENDED  # nobody looks any more
        return ""
