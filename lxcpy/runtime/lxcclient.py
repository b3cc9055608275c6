"""The client's side of liblxc's command protocol: how our commands act on containers that a real LXC monitor runs.

`command(LXCPATH, NAME).state()`. Light: it uses the C half of the socket module alone, whose whole costs a command a
fifth of its start-up time.
"""

from __future__ import annotations

import _socket
import errno
import os
import struct
import time

from lxcpy.errors import StateError, meaning
from lxcpy.kernel.record import NamedTuple
from lxcpy.runtime import lxcprotocol as wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TIMEOUT = 10.0  # seconds; a monitor answers from memory, so one that does not is stuck or stopped
LOOK = 0.1  # seconds between two looks for a monitor that is not there
_TIMEVAL = struct.Struct("ll")


class Terminal(NamedTuple):
    """A terminal lent by a container. Close `hold` to give it back."""

    master: int
    tty: int
    hold: int  # the connection


class _Answer(NamedTuple):
    result: int
    value: int
    data: bytes
    fds: list[int]
    sock: _socket.socket


class Gone(StateError):
    """The container is not running: nobody listens."""


class Command:
    """Commands for one container; each is a connection of its own. All raise Gone when it is not running (but `state`,
    `running` and `wait`, which tell), and StateError when the monitor refuses or does not answer."""

    def __init__(self, address: bytes, name: str, timeout: float = TIMEOUT) -> None:
        self.address = address
        self.name = name
        self.timeout = timeout

    def state(self) -> str:
        """The state; STOPPED when nobody listens."""
        try:
            number = wire.signed(self._ask(wire.GET_STATE).value)
        except Gone:
            return "STOPPED"
        return wire.STATES[number] if 0 <= number < wire.MAX_STATE else "STOPPED"

    def running(self) -> bool:
        """Is there a monitor at all?"""
        return self.state() != "STOPPED"

    def now(self) -> dict[str, Any] | None:
        """What Container.describe says of a container of real LXC's; None when it is STOPPED."""
        state = self.state()
        if state == "STOPPED":
            return None
        try:
            return {"name": self.name, "state": state, "pid": self.init_pid(), "ours": False}
        except Gone:  # it has stopped in between
            return None

    def init_pid(self) -> int:
        """The pid of init as this process sees it; 0 before there is one."""
        return max(wire.signed(self._ask(wire.GET_INIT_PID).value), 0)

    def init_pidfd(self) -> int:
        """A pidfd of init, the caller's; -1 where the monitor has none."""
        return self._ask_fd(wire.GET_INIT_PIDFD)

    def clone_flags(self) -> int:
        """CLONE_NEW* of the namespaces that are the container's own."""
        return self._ask(wire.GET_CLONE_FLAGS).value & 0xFFFFFFFF

    def config_item(self, key: str) -> str | None:
        """A key of the running config, as LXC writes it; None when unset or unknown."""
        answer = self._ask(wire.GET_CONFIG_ITEM, wire.c_string(key))
        return wire.text(answer.data) if answer.result == 0 else None

    def cgroup(self, controller: str | None, *, limit: bool = False) -> str | None:
        """The container's group below the mount of `controller`'s hierarchy; None where LXC uses none.

        controller: `memory`, `name=systemd`; None: a v2 hierarchy without controllers.
        limit: the group that carries the limits, where it is another than the payload's.
        """
        number = wire.GET_LIMIT_CGROUP if limit else wire.GET_CGROUP
        try:
            answer = self._ask(number, wire.c_string(controller) if controller is not None else b"")
        except Gone:
            if self.running():  # the monitor hung up: it knows no such hierarchy
                return None
            raise
        return wire.text(answer.data) if answer.result == 0 else None

    def cgroup_fds(self) -> list[int]:
        """Descriptors of the payload's groups in every hierarchy, the caller's."""
        return self._ask(wire.GET_CGROUP_CTX, bytes(wire.CGROUP_CTX.size)).fds

    def cgroup2_fd(self, *, limit: bool = True) -> int:
        """A descriptor of the container's group on pure v2, the caller's; -1 on other layouts."""
        return self._ask_fd(wire.GET_LIMIT_CGROUP2_FD if limit else wire.GET_CGROUP2_FD)

    def devpts_fd(self) -> int:
        """The root of the container's devpts, the caller's; -1 where there is none."""
        return self._ask_fd(wire.GET_DEVPTS_FD)

    def name_of(self) -> str:
        """The name, asked of a socket whose name does not tell."""
        return wire.text(self._ask(wire.GET_NAME).data)

    def lxcpath(self) -> str:
        """The lxcpath, likewise."""
        return wire.text(self._ask(wire.GET_LXCPATH).data)

    def stop(self) -> None:
        """Kill init (lxc.signal.stop) and wait until the monitor has gone."""
        try:
            answer = self._ask(wire.STOP, timeout=None)
        except Gone:
            return
        if answer.result == -errno.ESRCH:
            raise StateError(f"{self.name} is not running")
        raise StateError(f'container "{self.name}" cannot be stopped: {os.strerror(-answer.result)}')

    def freeze(self, timeout: float | None = None) -> None:
        """Stop every process until `thaw`."""
        from lxcpy.runtime.lxcfreeze import freeze

        freeze(self, timeout)

    def thaw(self, timeout: float | None = None) -> None:
        """Let a frozen container go on."""
        from lxcpy.runtime.lxcfreeze import thaw

        thaw(self, timeout)

    def notify(self, state: str) -> None:
        """Tell the monitor that its container is in `state` now (a client freezes, not the monitor)."""
        self._ask(wire.SERVE_STATE_CLIENTS, value=wire.state_number(state))

    def add_device(self, rule: wire.DeviceRule) -> None:
        """Change the device rules where a program enforces them (cgroup v2): the monitor alone knows the others."""
        answer = self._ask(wire.ADD_BPF_DEVICE_CGROUP, wire.device_item(rule))
        if answer.result < 0:
            raise StateError(f'container "{self.name}": the device rule "{rule.text}": {os.strerror(-answer.result)}')

    def console(self, tty: int = -1) -> Terminal:
        """Borrow a terminal: 0 the console, N tty N, -1 the next free one."""
        answer = self._ask(wire.GET_TTY_FD, value=tty, hold=True)
        if answer.result < 0 or not answer.fds:
            answer.sock.close()
            which = "no tty is free" if tty < 0 else f"{'the console' if tty == 0 else f'tty {tty}'} is busy or missing"
            raise StateError(
                f'container "{self.name}": access denied: {which}',
                hint="lxc.tty.max says how many ttys the container has",
            )
        return Terminal(answer.fds[0], wire.signed(answer.value), answer.sock.detach())

    def console_log(self, *, clear: bool = False, read: bool = True, read_max: int = 0) -> bytes:
        """The console's ring buffer (lxc.console.buffer.size); empty where there is none."""
        data = wire.CONSOLE_LOG_REQUEST.pack(clear, read, read_max, False)
        answer = self._ask(wire.CONSOLE_LOG, data)
        return answer.data.rstrip(b"\0") if answer.result == 0 else b""

    def wait(self, states: tuple[str, ...], timeout: float | None = None, *, change: bool = False) -> str | None:
        """Wait for one of `states`: the state reached, or None after `timeout` seconds.

        change: not the state it is in now, only one that it enters from now on.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while True:
            # 2 is LXC's word for `from now on`; a client with it on RUNNING is kept over a reboot, all others are not
            asked = (1 + change if state in states else 2 * (state == "RUNNING") for state in wire.STATES)
            try:
                answer = self._ask(wire.ADD_STATE_CLIENT, wire.STATE_MASK.pack(*asked), hold=True)
            except Gone:
                if "STOPPED" in states:
                    return "STOPPED"
                if not self._appear(end):
                    return None
                continue
            finally:
                change = False  # what comes after the first answer is new
            with _closing(answer.sock):
                if answer.result < 0:
                    raise StateError(f'container "{self.name}": {os.strerror(-answer.result)}')
                if answer.result < wire.MAX_STATE:
                    return wire.STATES[answer.result]
                reached = _told(answer.sock, end)
            if reached is None or reached in states:
                return reached
            if not reached:
                time.sleep(LOOK)  # it ends, or reboots: ask again

    def _appear(self, end: float | None) -> bool:
        """Wait for a container that nobody runs yet. Nothing tells of a new socket, so it is looked for."""
        while self.state() == "STOPPED":
            left = LOOK if end is None else end - time.monotonic()
            if left <= 0:
                return False
            time.sleep(min(left, LOOK))
        return True

    def _ask_fd(self, command: int) -> int:
        answer = self._ask(command)
        return answer.fds[0] if answer.result == 0 and answer.fds else -1

    def _ask(
        self, command: int, data: bytes = b"", *, value: int = 0, hold: bool = False, timeout: float | None = -1
    ) -> _Answer:
        """One request and its answer. timeout: seconds, None for ever, -1 this object's."""
        sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM | _socket.SOCK_CLOEXEC)
        try:
            _connect(sock, self.address)
            sock.settimeout(self.timeout if timeout == -1 else timeout)
            credentials = wire.CREDENTIALS.pack(os.getpid(), os.getuid(), os.getgid())
            sock.sendmsg(
                [wire.request(command, data, value)],
                [(_socket.SOL_SOCKET, wire.SCM_CREDENTIALS, credentials)],
                _socket.MSG_NOSIGNAL,
            )
            if data:
                sock.sendall(data, _socket.MSG_NOSIGNAL)
            answer = _receive(sock)
        except TimeoutError:
            sock.close()
            raise StateError(
                f'container "{self.name}": its monitor does not answer',
                hint="it may be stopped or very busy; look for it with `ps -ef | grep monitor`",
            ) from None
        except OSError as error:
            sock.close()
            if error.errno in (errno.ECONNREFUSED, errno.EPIPE, errno.ECONNRESET):
                raise Gone(f'container "{self.name}" is not running') from None
            raise StateError(f'container "{self.name}": its command socket: {meaning(error)}') from error
        if answer.result == -errno.EPERM and command != wire.GET_CONFIG_ITEM:
            sock.close()
            raise StateError(
                f'container "{self.name}" belongs to another user', hint="act as that user, or as root"
            )
        if not hold:
            sock.close()
        return answer


def command(lxcpath: str, name: str) -> Command:
    """Commands for the container of this lxcpath and name."""
    return Command(wire.socket_name(lxcpath, name), name)


def running(lxcpath: str) -> list[str]:
    """The names of an lxcpath's containers that run, whoever runs them, sorted. Asks the kernel, not the containers."""
    prefix = lxcpath.encode(errors="surrogateescape") + b"/"
    with open("/proc/net/unix", "rb") as file:
        table = file.read()
    names = set()
    for line in table.split(b"\n"):
        if not line.endswith(b"/command"):
            continue
        path = line.partition(b" @")[2][: -len(b"/command")]
        if path.startswith(prefix):
            rest = path[len(prefix) :].strip(b"/")
            if rest and b"/" not in rest:
                names.add(rest.decode(errors="surrogateescape"))
        elif path.startswith(b"lxc/") and len(path) == 20:
            name = _hashed(path[4:].decode("latin-1"), lxcpath)
            if name:
                names.add(name)
    return sorted(names)


def _hashed(digest: str, lxcpath: str) -> str | None:
    """The name behind a hashed socket, if it is one of this lxcpath."""
    asked = Command(wire.hashed_socket_name(digest), digest)
    try:
        return asked.name_of() if asked.lxcpath() == lxcpath else None
    except StateError:
        return None


def _told(sock: _socket.socket, end: float | None) -> str | None:
    """The state that a state client is told of; empty when the monitor hangs up, None when the time is over."""
    sock.settimeout(None if end is None else max(end - time.monotonic(), 0.001))
    try:
        data = sock.recv(wire.MESSAGE.size)
    except TimeoutError:
        return None
    except OSError:
        return ""
    return wire.STATES[wire.parse_message(data).value % wire.MAX_STATE] if len(data) == wire.MESSAGE.size else ""


class _closing:
    def __init__(self, sock: _socket.socket) -> None:
        self.sock = sock

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_exception: object) -> None:
        self.sock.close()


def _connect(sock: _socket.socket, address: bytes) -> None:
    """connect(2). With a full backlog it waits, but not longer than TIMEOUT. Raises OSError."""
    sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, _TIMEVAL.pack(int(TIMEOUT), 0))
    try:
        sock.connect(address)
    except BlockingIOError:
        raise TimeoutError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT)) from None


def _receive(sock: _socket.socket) -> _Answer:
    """An answer. Raises ConnectionResetError at the end of the connection."""
    head, ancillary, _flags, _address = sock.recvmsg(
        wire.HEADER.size, _socket.CMSG_SPACE(4 * wire.CGROUP_CTX_MAX_FD), _socket.MSG_CMSG_CLOEXEC
    )
    fds = []
    for level, kind, payload in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            fds += [int.from_bytes(payload[at : at + 4], "little") for at in range(0, len(payload) - 3, 4)]
    if len(head) != wire.HEADER.size:
        for fd in fds:
            os.close(fd)
        raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
    result, length, value = wire.HEADER.unpack(head)
    data = b""
    while len(data) < length:
        part = sock.recv(min(length - len(data), 1 << 20))
        if not part:
            break
        data += part
    return _Answer(result, value, data, fds, sock)
