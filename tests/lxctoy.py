"""A container that is none, behind a real `Server`: what the protocol's tests talk to."""

from __future__ import annotations

import errno
import os
import select
import threading
from collections.abc import Sequence

from lxcpy.runtime import lxcmonitor
from lxcpy.runtime import lxcprotocol as wire
from lxcpy.runtime.lxcserver import Server
from lxcpy.runtime.lxctarget import Group


class Toy:
    """A Target whose init is any process of the test's. `calls` notes what was asked of it."""

    def __init__(self, lxcpath: str, name: str, pid: int, groups: Sequence[Group] = ()) -> None:
        self.lxcpath = lxcpath
        self.name = name
        self.pid = pid
        self.pidfd = os.pidfd_open(pid)
        self.now = "RUNNING"
        self.items = {"lxc.uts.name": name, "lxc.no_new_privs": "0", "lxc.net.0.type": "empty"}
        self.log: bytes | None = None
        self.terminals = {number: os.openpty() for number in (0, 1, 2)}
        self.lent: set[int] = set()
        self.calls: list[object] = []
        self.hierarchies = groups

    def close(self) -> None:
        os.close(self.pidfd)
        for pair in self.terminals.values():
            for fd in pair:
                os.close(fd)

    def state(self) -> str:
        return self.now

    def init_pid(self) -> int:
        return self.pid

    def init_pidfd(self) -> int:
        return self.pidfd

    def clone_flags(self) -> int:
        return 0x6E020000

    def config_item(self, key: str) -> str | None:
        return self.items.get(key)

    def groups(self) -> Sequence[Group]:
        return self.hierarchies

    def stop(self) -> None:
        self.calls.append("stop")

    def freeze(self, timeout: int) -> None:
        self.calls.append(("freeze", timeout))

    def unfreeze(self, timeout: int) -> None:
        self.calls.append(("unfreeze", timeout))

    def state_changed(self, state: str) -> None:
        self.calls.append(state)
        self.now = "RUNNING" if state == "THAWED" else state

    def console(self, tty: int) -> tuple[int, int] | None:
        free = [number for number in (1, 2) if number not in self.lent]
        number = (free or [-1])[0] if tty == -1 else tty
        if number not in self.terminals or number in self.lent:
            return None
        self.lent.add(number)
        return self.terminals[number][0], number

    def release_console(self, tty: int) -> None:
        self.lent.discard(tty)
        self.calls.append(("release", tty))

    def console_log(self, *, clear: bool, read: bool, read_max: int) -> bytes:
        if self.log is None:
            raise OSError(errno.EFAULT, "no buffer")
        return self.log

    def devpts_fd(self) -> int:
        return -1

    def seccomp_notify_fd(self) -> int:
        return -1

    def add_listener(self, listener: int) -> None:
        self.calls.append(os.readlink(f"/proc/self/fd/{listener}"))

    def add_device(self, rule: wire.DeviceRule) -> None:
        self.calls.append(rule)

    def systemd_scope(self) -> str | None:
        return None


class Served:
    """A Toy behind a Server in a thread of its own, for the time of a `with`."""

    def __init__(self, toy: Toy) -> None:
        self.toy = toy
        self.server = Server(toy.lxcpath, toy.name, toy)
        self._reader, self._writer = os.pipe()
        self._work: list[object] = []
        self._poll = select.epoll()  # made here: the thread may begin when the test has taken all descriptors
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Served:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        os.write(self._writer, b"q")
        self._thread.join(10)
        assert not self._thread.is_alive(), "the server hangs"
        self.server.close()
        os.close(self._reader)
        os.close(self._writer)
        self.toy.close()

    def change(self, state: str, *, stop: bool = False) -> None:
        """As the supervisor does: a new state, told to everyone."""
        self.toy.now = state
        self._work.append(state)
        os.write(self._writer, b"s" if stop else b"c")

    def _run(self) -> None:
        poll = self._poll
        poll.register(self.server.fileno(), select.EPOLLIN)
        poll.register(self._reader, select.EPOLLIN)
        while True:
            for fd, _events in poll.poll():
                if fd != self._reader:
                    self.server.on_readable()
                    continue
                word = os.read(self._reader, 1)
                if word == b"q":
                    poll.close()
                    return
                state = str(self._work.pop(0))
                self.server.state_changed(state)
                lxcmonitor.announce(self.toy.lxcpath, self.toy.name, state)
                if word == b"s":
                    poll.unregister(self.server.fileno())
                    self.server.close()
