"""A container's console and ttys on the supervisor's side.

The console's master is always read, else init would block once the terminal's buffer is full: into the ring buffer,
the log file and the attached client. A client of the console gets a terminal of its own, proxied, so that a second
reader never steals output from the log (LXC does the same). A client of a tty gets that tty's master itself.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Mapping
from typing import Any

from lxcpy import log
from lxcpy.config.model import Config
from lxcpy.kernel import pty
from lxcpy.kernel.fd import Fd
from lxcpy.runtime import packing
from lxcpy.runtime.loop import Loop
from lxcpy.runtime.packing import Parcel
from lxcpy.runtime.ring import ConsoleLog, Ring

LOG = log.Log("console")
CHUNK = 16384
BACKLOG = 1 << 18  # bytes kept for a client that does not read; older ones are dropped


class Console:
    """The console of one container."""

    def __init__(self, loop: Loop, master: Fd, config: Config, packed: Mapping[str, Any] | None = None) -> None:
        """packed: what `pack` said of it, for the one that goes on with it."""
        packed = packed or {}
        self.loop = loop
        self.master = master
        self.ring = Ring(config.console.buffer_size) if config.console.buffer_size else None
        if self.ring and packed:
            self.ring.write(packing.data(packed["ring"]))
        self.log: ConsoleLog | None = None
        if config.console.logfile:
            self.log = ConsoleLog(
                config.console.logfile,
                limit=config.console.size,
                rotate=config.console.rotate,
                fd=packed.get("log", -1),
            )
        self.output = packed.get("output", -1)  # lxc.console.path: a device or file that gets a copy
        if self.output < 0 and config.console.path and config.console.path != "none":
            self._open_output(config.console.path)
        self.proxy: Fd | None = None  # our side of the attached client's terminal
        self.pending = b""
        if packed.get("proxy", -1) >= 0:
            self.proxy, self.pending = Fd(packed["proxy"]), packing.data(packed["pending"])
            events = select.EPOLLIN | (select.EPOLLOUT if self.pending else 0)
            loop.watch(self.proxy.number, self._from_client, events)
        os.set_blocking(master.number, False)
        loop.watch(master.number, self._from_container)

    def pack(self, parcel: Parcel) -> dict[str, Any]:
        """It as data."""
        return {
            "master": parcel.keep(self.master.number),
            "ring": packing.text(self.ring.peek()) if self.ring else "",
            "log": parcel.keep(self.log.fileno() if self.log else -1),
            "output": parcel.keep(self.output),
            "proxy": parcel.keep(self.proxy.number if self.proxy else -1),
            "pending": packing.text(self.pending),
        }

    def _open_output(self, path: str) -> None:
        try:
            self.output = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError as error:
            LOG.error(f'lxc.console.path: cannot open "{path}": {error.strerror}')

    def attach(self) -> Fd | None:
        """A terminal onto the console for one client: its master, the caller's; None when one is attached already."""
        if self.proxy is not None:
            return None
        master, slave, _index = pty.open_pty("/dev/ptmx")
        pty.make_raw(slave.number)
        os.set_blocking(slave.number, False)
        self.proxy = slave
        self.loop.watch(slave.number, self._from_client)
        return master

    def detach(self) -> None:
        """Let the client go."""
        if self.proxy is not None:
            self.loop.forget(self.proxy.number)
            self.proxy.close()
            self.proxy, self.pending = None, b""

    def resize(self, rows: int, columns: int) -> None:
        """Tell the container the size of the client's window."""
        pty.set_window_size(self.master.number, rows, columns)

    def close(self) -> None:
        """Read what is left and let go of everything."""
        self._from_container(select.EPOLLIN)
        self.detach()
        if not self.master.closed:
            self.loop.forget(self.master.number)
            self.master.close()
        if self.output >= 0:
            os.close(self.output)
            self.output = -1
        if self.log:
            self.log.close()

    def _from_container(self, _events: int) -> None:
        if self.master.closed:
            return
        try:
            data = os.read(self.master.number, CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""  # EIO: the last slave is closed; it may be opened again, so ask again in a while
        if not data:
            number = self.master.number
            self.loop.forget(number)
            self.loop.after(0.2, self._watch_again)
            return
        if self.ring:
            self.ring.write(data)
        if self.log:
            self.log.write(data)
        if self.output >= 0:
            try:
                os.write(self.output, data)
            except OSError:
                pass
        if self.proxy is not None:
            self.pending = (self.pending + data)[-BACKLOG:]
            self._flush()

    def _watch_again(self) -> None:
        if not self.master.closed and self.master.number not in self.loop.handlers:
            self.loop.watch(self.master.number, self._from_container)

    def _flush(self) -> None:
        assert self.proxy is not None
        try:
            while self.pending:
                self.pending = self.pending[os.write(self.proxy.number, self.pending) :]
            self.loop.change(self.proxy.number, select.EPOLLIN)
        except BlockingIOError:
            self.loop.change(self.proxy.number, select.EPOLLIN | select.EPOLLOUT)
        except OSError:
            self.detach()

    def _from_client(self, events: int) -> None:
        assert self.proxy is not None
        if events & select.EPOLLOUT:
            self._flush()
        if self.proxy is None or not events & (select.EPOLLIN | select.EPOLLHUP):
            return
        try:
            data = os.read(self.proxy.number, CHUNK)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.detach()  # the client closed its master
            return
        pty.copy_window_size(self.proxy.number, self.master.number)  # nothing else tells that the window has changed
        try:
            os.write(self.master.number, data)
        except OSError:
            pass  # the container does not read its console: drop, as a terminal line does


class Ttys:
    """The masters of /dev/tty1.. of one container, and who holds which."""

    def __init__(self, masters: list[Fd]) -> None:
        self.masters = masters
        self.holders: dict[int, object] = {}
        self.slaves: dict[int, Fd] = {}  # of ttys that are held: without a getty on it a master has nothing but EIO

    def pack(self, parcel: Parcel, name: Callable[[object], object]) -> dict[str, Any]:
        """They as data; name: the holder's."""
        return {
            "masters": parcel.keep_all([master.number for master in self.masters]),
            "held": [
                [number, name(holder), parcel.keep(self.slaves[number].number)]
                for number, holder in self.holders.items()
            ],
        }

    @classmethod
    def unpack(cls, packed: Mapping[str, Any], holder: Callable[[Any], object]) -> Ttys:
        """What `pack` packed; holder: the one of a name."""
        made = cls([Fd(number) for number in packed["masters"]])
        for number, name, slave in packed["held"]:
            made.holders[number], made.slaves[number] = holder(name), Fd(slave)
        return made

    def take(self, number: int, holder: object) -> int:
        """Give tty `number` to a holder, -1 for the first free one. The number taken; 0 when there is none."""
        if number < 0:
            number = next((n for n in range(1, len(self.masters) + 1) if n not in self.holders), 0)
        if not 1 <= number <= len(self.masters) or number in self.holders:
            return 0
        self.slaves[number] = pty.open_slave(self.masters[number - 1].number)
        self.holders[number] = holder
        return number

    def release(self, holder: object) -> None:
        """Take back what a holder has."""
        for number in [number for number, held_by in self.holders.items() if held_by == holder]:
            del self.holders[number]
            self.slaves.pop(number).close()

    def master(self, number: int) -> Fd:
        """The master of /dev/ttyNUMBER."""
        return self.masters[number - 1]

    def close(self) -> None:
        """Close every terminal."""
        for fd in (*self.masters, *self.slaves.values()):
            fd.close()
