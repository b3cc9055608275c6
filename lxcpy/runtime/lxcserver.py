"""liblxc's command socket, served for a container of ours: real lxc-info, lxc-stop, lxc-attach … control it.

One `Server` a container, driven by the supervisor's loop: it owns an epoll instance of its own, so the loop registers
`Server.fileno()` alone and calls `on_readable()`. Nothing blocks and nothing a client does can hurt: a request is
bounded, an answer waits in memory for a slow reader, idle connections give way to new ones, another user's are few and
get LXC's refusal. What the commands mean is asked of a `Target`.
"""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable
from typing import NamedTuple

from lxcpy.errors import StateError, meaning
from lxcpy.log import Log
from lxcpy.runtime import lxcprotocol as wire
from lxcpy.runtime.lxctarget import Target, find_group, layout

LOG = Log("commands")

MAX_CLIENTS = 256  # open connections of this container, the held ones included
MAX_STRANGERS = 8  # of users who will be refused
EVENTS = 64  # handled in one call, so that a busy container does not starve the others
BACKLOG = 100  # LXC's


class _Client:
    """One connection: it reads one request and gets one answer."""

    __slots__ = ("command", "data", "fd", "held", "length", "pending", "sock", "stranger", "tty", "value", "wanted")

    def __init__(self, sock: socket.socket, stranger: bool) -> None:
        self.sock = sock
        self.fd = sock.fileno()
        self.stranger = stranger
        self.command = -1  # -1: no request yet
        self.length = self.value = 0
        self.data = b""
        self.pending = b""  # answer that the client has not read
        self.tty: int | None = None  # the terminal lent to it
        self.wanted: tuple[int, ...] | None = None  # the states it waits for
        self.held = False  # it stays after its answer


class _Hold(Exception):
    """There is no answer but the end of the connection, later."""


class _Drop(Exception):
    """The connection is closed without an answer."""


class Server:
    """The command socket of one container.

    Raises StateError when the name is taken: the container runs, under LXC or under lxcpy.
    """

    def __init__(self, lxcpath: str, name: str, target: Target) -> None:
        self.target = target
        self._clients: dict[int, _Client] = {}  # by descriptor, oldest first
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._listener.bind(wire.socket_name(lxcpath, name))
            self._listener.listen(BACKLOG)
        except OSError as error:
            self._listener.close()
            if error.errno == errno.EADDRINUSE:
                raise StateError(f'container "{name}" is already running') from error
            raise StateError(f'container "{name}": its command socket cannot be made: {meaning(error)}') from error
        self._epoll = select.epoll()
        # Edge-triggered: connections that cannot be taken for want of descriptors must not wake the loop for ever.
        self._epoll.register(self._listener, select.EPOLLIN | select.EPOLLET)

    def fileno(self) -> int:
        """Readable when there is something to do."""
        return self._epoll.fileno()

    def on_readable(self) -> None:
        """Do what there is to do, without waiting. Never raises for what a client does."""
        for fd, events in self._epoll.poll(0, EVENTS):
            if fd == self._listener.fileno():
                self._accept()
            elif (client := self._clients.get(fd)) is not None:
                self._serve(client, events)

    def state_changed(self, state: str) -> None:
        """Tell the clients that wait for `state`; each is told once and let go."""
        number = wire.state_number(state)
        data = wire.message(self.target.name, number)
        for client in [client for client in self._clients.values() if client.wanted and client.wanted[number]]:
            try:
                client.sock.send(data, socket.MSG_NOSIGNAL)
            except OSError:
                pass  # it has gone, or does not read what it asked for
            self._drop(client)

    def close(self) -> None:
        """Stop listening and hang up on everyone: the name is free, and clients of STOP learn that it is done."""
        for client in list(self._clients.values()):
            self._drop(client)
        self.abandon()

    def abandon(self) -> None:
        """Close the descriptors only: for a forked child, whose copies would keep the name taken."""
        for client in self._clients.values():
            client.sock.close()
        self._clients.clear()
        self._listener.close()
        self._epoll.close()

    def _accept(self) -> None:
        for _ in range(2 * BACKLOG):
            try:
                sock, _address = self._listener.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE) and self._make_room():
                    continue
                return
            try:
                self._admit(sock)
            except OSError:
                sock.close()
        # More came while these were taken: ask for another edge.
        self._epoll.modify(self._listener, select.EPOLLIN | select.EPOLLET)

    def _admit(self, sock: socket.socket) -> None:
        """Take a connection. Raises OSError when it must be refused."""
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        peer = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, wire.CREDENTIALS.size)
        client = _Client(sock, not _allowed(*wire.CREDENTIALS.unpack(peer)[1:]))
        strangers = [other for other in self._clients.values() if other.stranger]
        if client.stranger and len(strangers) >= MAX_STRANGERS:
            self._drop(strangers[0])
        if len(self._clients) >= MAX_CLIENTS and not self._make_room():
            raise OSError(errno.EUSERS, "every connection is held")
        self._epoll.register(client.fd, select.EPOLLIN)
        self._clients[client.fd] = client

    def _make_room(self) -> bool:
        """Hang up on the oldest client that nothing is held for."""
        for client in self._clients.values():
            if not client.held:
                self._drop(client)
                return True
        return False

    def _drop(self, client: _Client) -> None:
        self._clients.pop(client.fd, None)
        client.sock.close()
        if client.tty is not None:
            self.target.release_console(client.tty)

    def _serve(self, client: _Client, events: int) -> None:
        try:
            if client.pending:
                self._send(client)
            elif client.command < 0 or len(client.data) < client.length:
                self._receive(client)
            else:
                # Held, or waiting for its container to stop: all it may do is go.
                raise _Drop
        except (_Drop, OSError):
            self._drop(client)

    def _receive(self, client: _Client) -> None:
        if client.command < 0:
            self._receive_header(client)
        while len(client.data) < client.length:
            try:
                data = client.sock.recv(client.length - len(client.data))
            except BlockingIOError:
                return
            if not data:
                raise _Drop
            client.data += data
        self._answer(client)

    def _receive_header(self, client: _Client) -> None:
        data, ancillary, _flags, _address = client.sock.recvmsg(
            wire.HEADER.size, socket.CMSG_SPACE(wire.CREDENTIALS.size), socket.MSG_CMSG_CLOEXEC
        )
        allowed = not client.stranger
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == wire.SCM_CREDENTIALS:
                allowed = _allowed(*wire.CREDENTIALS.unpack(payload[: wire.CREDENTIALS.size])[1:])
            elif level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                for offset in range(0, len(payload) - 3, 4):
                    os.close(int.from_bytes(payload[offset : offset + 4], "little"))
        if len(data) != wire.HEADER.size:
            raise _Drop
        client.command, length, client.value = wire.HEADER.unpack(data)
        if not allowed:
            LOG.warn(f"command {client.command} of another user refused")
            client.command = max(client.command, 0)
            client.sock.send(wire.answer(-errno.EPERM), socket.MSG_NOSIGNAL)
            raise _Drop
        if length > wire.DATA_MAX:
            raise _Drop
        client.length = max(length, 0)
        if client.command == wire.SECCOMP_NOTIFY_ADD_LISTENER:
            client.length = 1  # the byte that carries the descriptor

    def _answer(self, client: _Client) -> None:
        handler = _HANDLERS.get(client.command)
        try:
            if handler is None:
                raise OSError(errno.ENOSYS, "no such command")
            reply = handler(self, client)
        except OSError as error:
            reply = _Reply(result=-(error.errno or errno.EIO))
        except _Hold:
            client.held = True
            return
        client.held = reply.hold
        self._reply(client, reply)
        if not client.held and not client.pending:
            raise _Drop

    def _reply(self, client: _Client, reply: _Reply) -> None:
        data = wire.answer(reply.result, length=len(reply.data), value=reply.value) + reply.data
        if len(data) > 1 << 16:
            _widen(client.sock, len(data))
        if reply.fds:
            rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, b"".join(fd.to_bytes(4, "little") for fd in reply.fds))
            sent = client.sock.sendmsg([data], [rights], socket.MSG_NOSIGNAL)
        else:
            sent = client.sock.send(data, socket.MSG_NOSIGNAL)
        client.pending = data[sent:]
        if client.pending:
            self._epoll.modify(client.fd, select.EPOLLOUT)

    def _send(self, client: _Client) -> None:
        client.pending = client.pending[client.sock.send(client.pending, socket.MSG_NOSIGNAL) :]
        if not client.pending:
            raise _Drop


class _Reply(NamedTuple):
    result: int = 0
    value: int = 0  # in the header's pointer
    data: bytes = b""
    fds: tuple[int, ...] = ()  # copies are sent
    hold: bool = False


def _allowed(uid: int, gid: int) -> bool:
    """LXC's rule: root, or the user and group that the monitor runs as."""
    return uid == 0 or (uid == os.getuid() and gid == os.getgid())


def _widen(sock: socket.socket, size: int) -> None:
    """Make room for the whole answer: LXC's clients read the data with one recv(2) and take less for an error."""
    so_sndbufforce = 32  # asm-generic/socket.h; the socket module does not name it
    for option in (so_sndbufforce, socket.SO_SNDBUF):
        try:
            sock.setsockopt(socket.SOL_SOCKET, option, 2 * size)
            return
        except OSError:
            continue  # not root: net.core.wmem_max bounds the other


def _one_fd(fd: int, *, missing: int = errno.EBADF) -> _Reply:
    return _Reply(fds=(fd,)) if fd >= 0 else _Reply(result=-missing)


def _string(client: _Client) -> str:
    """The request's data as a string. Raises OSError for what is none."""
    if not client.data or client.data.find(b"\0") != len(client.data) - 1:
        raise OSError(errno.EINVAL, "not a string")
    return wire.text(client.data)


def _terminal(server: Server, client: _Client) -> _Reply:
    lent = server.target.console(wire.signed(client.value))
    if lent is None:
        return _Reply(result=-errno.EBADF)
    master, client.tty = lent
    return _Reply(value=client.tty, fds=(master,), hold=True)


def _stop(server: Server, client: _Client) -> _Reply:
    server.target.stop()
    raise _Hold  # answered by hanging up when the container has stopped


def _cgroup(server: Server, client: _Client) -> _Reply:
    controller = _string(client) if client.data else None
    group = find_group(server.target.groups(), controller)
    if group is None:
        raise _Drop
    path = group.limit if client.command == wire.GET_LIMIT_CGROUP else group.payload
    return _Reply(data=wire.c_string(path))


def _config_item(server: Server, client: _Client) -> _Reply:
    value = server.target.config_item(_string(client))
    if not value:
        return _Reply(result=-1)
    return _Reply(data=wire.c_string(value))


def _state_client(server: Server, client: _Client) -> _Reply:
    if len(client.data) != wire.STATE_MASK.size:
        return _Reply(result=-errno.EINVAL)
    wanted = wire.STATE_MASK.unpack(client.data)
    state = wire.state_number(server.target.state())
    if wanted[state] == 1:  # another number waits for the next time: 2 while rebooting
        return _Reply(result=state, value=state)
    client.wanted = wanted
    return _Reply(result=wire.MAX_STATE, value=wire.MAX_STATE, hold=True)


def _console_log(server: Server, client: _Client) -> _Reply:
    if len(client.data) != wire.CONSOLE_LOG_REQUEST.size:
        return _Reply(result=-errno.EINVAL)
    clear, read, read_max, _write = wire.CONSOLE_LOG_REQUEST.unpack(client.data)
    return _Reply(data=server.target.console_log(clear=clear, read=read, read_max=read_max))


def _serve_state_clients(server: Server, client: _Client) -> _Reply:
    number = wire.signed(client.value)
    state = wire.STATES[number] if 0 <= number < wire.MAX_STATE else ""
    if state not in ("FREEZING", "FROZEN", "THAWED", "RUNNING"):
        return _Reply(result=-errno.EINVAL)
    server.target.state_changed(state)
    server.state_changed(state)
    return _Reply()


def _add_device(server: Server, client: _Client) -> _Reply:
    rule = wire.parse_device(client.data)
    if rule is None:
        return _Reply(result=-errno.EINVAL)
    server.target.add_device(rule)
    return _Reply()


def _freeze(server: Server, client: _Client) -> _Reply:
    if layout(server.target.groups()) != wire.LAYOUT_UNIFIED:
        return _Reply(result=-errno.ENOENT)
    act = server.target.freeze if client.command == wire.FREEZE else server.target.unfreeze
    act(wire.signed(client.value))
    return _Reply()


def _cgroup2_fd(server: Server, client: _Client) -> _Reply:
    groups = server.target.groups()
    if layout(groups) != wire.LAYOUT_UNIFIED:
        return _Reply(result=-errno.EINVAL)
    path = groups[0].limit if client.command == wire.GET_LIMIT_CGROUP2_FD else groups[0].payload
    return _lend_directories(server, client, [groups[0].mount + path])


def _cgroup_ctx(server: Server, client: _Client) -> _Reply:
    groups = server.target.groups()[: wire.CGROUP_CTX_MAX_FD]
    if not groups:
        return _Reply(result=-errno.ENOENT)
    kind = layout(groups)
    utilities = wire.UTILITY_DEVICES | wire.UTILITY_FREEZER if kind == wire.LAYOUT_UNIFIED else 0
    data = wire.CGROUP_CTX.pack(kind, utilities, len(groups), *[-1] * wire.CGROUP_CTX_MAX_FD)
    return _lend_directories(server, client, [group.mount + group.payload for group in groups], data)


def _cgroup_fd(server: Server, client: _Client) -> _Reply:
    kind, _utilities, wanted_type, _fd, name = wire.CGROUP_FD.unpack(
        client.data[: wire.CGROUP_FD.size].ljust(wire.CGROUP_FD.size, b"\0")
    )
    controller = wire.text(name)
    if not controller:
        return _Reply(result=-errno.EINVAL)
    groups = server.target.groups()
    group = find_group(groups, controller)
    if group is None:
        return _Reply(result=-errno.ENOENT)
    kind, fs_type = layout(groups), wire.CGROUP_TYPE[group.version]
    if wanted_type not in (0, fs_type):
        return _Reply(result=-errno.EINVAL)
    utilities = wire.UTILITY_DEVICES | wire.UTILITY_FREEZER if kind == wire.LAYOUT_UNIFIED else 0
    path = group.limit if client.command == wire.GET_LIMIT_CGROUP_FD else group.payload
    return _lend_directories(
        server, client, [group.mount + path], wire.CGROUP_FD.pack(kind, utilities, fs_type, -1, name)
    )


def _lend_directories(server: Server, client: _Client, paths: list[str], data: bytes = b"") -> _Reply:
    """Send descriptors of directories, opened for this answer alone. Raises OSError, and _Hold when it is sent."""
    fds: list[int] = []
    try:
        for path in paths:
            fds.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        length = min(len(data), client.length)
        server._reply(client, _Reply(data=data[:length], fds=tuple(fds)))
    finally:
        for fd in fds:
            os.close(fd)
    raise _Drop


def _scope(server: Server, client: _Client) -> _Reply:
    scope = server.target.systemd_scope()
    return _Reply(data=wire.c_string(scope)) if scope else _Reply(result=-errno.EINVAL)


def _no_proxy(server: Server, client: _Client) -> _Reply:
    return _Reply(result=-errno.ENOSYS)


def _winch(server: Server, client: _Client) -> _Reply:
    raise _Drop


_HANDLERS: dict[int, Callable[[Server, _Client], _Reply]] = {
    wire.GET_TTY_FD: _terminal,
    wire.TERMINAL_WINCH: _winch,
    wire.STOP: _stop,
    wire.GET_STATE: lambda server, client: _Reply(value=wire.state_number(server.target.state())),
    wire.GET_INIT_PID: lambda server, client: _Reply(value=server.target.init_pid()),
    wire.GET_CLONE_FLAGS: lambda server, client: _Reply(value=server.target.clone_flags()),
    wire.GET_CGROUP: _cgroup,
    wire.GET_CONFIG_ITEM: _config_item,
    wire.GET_NAME: lambda server, client: _Reply(data=wire.c_string(server.target.name)),
    wire.GET_LXCPATH: lambda server, client: _Reply(data=wire.c_string(server.target.lxcpath)),
    wire.ADD_STATE_CLIENT: _state_client,
    wire.CONSOLE_LOG: _console_log,
    wire.SERVE_STATE_CLIENTS: _serve_state_clients,
    wire.SECCOMP_NOTIFY_ADD_LISTENER: _no_proxy,
    wire.ADD_BPF_DEVICE_CGROUP: _add_device,
    wire.FREEZE: _freeze,
    wire.UNFREEZE: _freeze,
    wire.GET_CGROUP2_FD: _cgroup2_fd,
    wire.GET_INIT_PIDFD: lambda server, client: _one_fd(server.target.init_pidfd()),
    wire.GET_LIMIT_CGROUP: _cgroup,
    wire.GET_LIMIT_CGROUP2_FD: _cgroup2_fd,
    wire.GET_DEVPTS_FD: lambda server, client: _one_fd(server.target.devpts_fd()),
    wire.GET_SECCOMP_NOTIFY_FD: lambda server, client: _one_fd(server.target.seccomp_notify_fd()),
    wire.GET_CGROUP_CTX: _cgroup_ctx,
    wire.GET_CGROUP_FD: _cgroup_fd,
    wire.GET_LIMIT_CGROUP_FD: _cgroup_fd,
    wire.GET_SYSTEMD_SCOPE: _scope,
}
