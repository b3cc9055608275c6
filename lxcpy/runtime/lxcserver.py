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
from collections.abc import Mapping, Sequence
from typing import Any

from lxcpy.errors import StateError, meaning
from lxcpy.log import Log
from lxcpy.runtime import lxcprotocol as wire
from lxcpy.runtime import packing
from lxcpy.runtime.lxcanswers import Reply, Request, answer
from lxcpy.runtime.lxctarget import Target
from lxcpy.runtime.packing import Parcel

LOG = Log("commands")

MAX_CLIENTS = 256  # open connections of this container, the held ones included
MAX_STRANGERS = 8  # of users who will be refused
EVENTS = 64  # handled in one call, so that a busy container does not starve the others
BACKLOG = 100  # LXC's
UNREAD = 1 << 25  # bytes of answers that wait for slow readers; with more, the slowest is cut off
_CONTROL = socket.CMSG_SPACE(wire.CREDENTIALS.size) + socket.CMSG_SPACE(4)  # one descriptor; more is cut off


_PLAIN = ("stranger", "command", "length", "value", "tty", "wanted", "held")  # of a client, as they are


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

    def pack(self, parcel: Parcel) -> dict[str, Any]:
        """It as data."""
        found = {name: getattr(self, name) for name in _PLAIN}
        bytes_ = {name: packing.text(getattr(self, name)) for name in ("data", "pending")}
        return {"fd": parcel.keep(self.fd), **found, **bytes_}

    @classmethod
    def unpack(cls, packed: Mapping[str, Any]) -> _Client:
        """What `pack` packed."""
        client = cls(socket.socket(fileno=packed["fd"]), packed["stranger"])
        for name in _PLAIN:
            setattr(client, name, packed[name])
        client.data, client.pending = packing.data(packed["data"]), packing.data(packed["pending"])
        client.wanted = tuple(packed["wanted"]) if packed["wanted"] is not None else None
        return client


class Taken(StateError):
    """Somebody listens under this name: the container runs, under LXC or under lxcpy."""


class _Drop(Exception):
    """The connection is closed without an answer."""


class Server:
    """The command socket of one container.

    Raises Taken, and StateError when there is no socket to be had.
    """

    def __init__(self, lxcpath: str, name: str, target: Target, packed: Mapping[str, Any] | None = None) -> None:
        """packed: what `pack` said of it, for the one that goes on with it."""
        self.target = target
        self._clients: dict[int, _Client] = {}  # by descriptor, oldest first
        if packed is not None:
            self._listener = socket.socket(fileno=packed["listener"])
        else:
            self._listen(lxcpath, name)
        self._epoll = select.epoll()
        # Edge-triggered: connections that cannot be taken for want of descriptors must not wake the loop for ever.
        # Here, since connections inherit it: what comes between accept(2) and its being set there has no credentials.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._epoll.register(self._listener, select.EPOLLIN | select.EPOLLET)
        for one in packed["clients"] if packed else ():
            client = _Client.unpack(one)
            self._clients[client.fd] = client
            self._epoll.register(client.fd, select.EPOLLOUT if client.pending else select.EPOLLIN)

    def pack(self, parcel: Parcel) -> dict[str, Any]:
        """It and its clients as data."""
        return {
            "listener": parcel.keep(self._listener.fileno()),
            "clients": [client.pack(parcel) for client in self._clients.values()],
        }

    def _listen(self, lxcpath: str, name: str) -> None:
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            self._listener.bind(wire.socket_name(lxcpath, name))
            self._listener.listen(BACKLOG)
        except OSError as error:
            self._listener.close()
            if error.errno == errno.EADDRINUSE:
                raise Taken(f'container "{name}" is already running') from error
            raise StateError(f'container "{name}": its command socket cannot be made: {meaning(error)}') from error

    def fileno(self) -> int:
        """Readable when there is something to do."""
        return self._epoll.fileno()

    def on_readable(self) -> None:
        """Do what there is to do, without waiting. Never raises for what a client does."""
        ready = [(self._clients.get(fd), events) for fd, events in self._epoll.poll(0, EVENTS)]
        for client, events in ready:
            if client is None:
                self._accept()
            elif self._clients.get(client.fd) is client:  # an earlier one's end may have been its end
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
        """Hang up on the oldest client that nothing is held for, else on the oldest that waits for a state."""
        clients = self._clients.values()
        for client in (*(one for one in clients if not one.held), *(one for one in clients if one.wanted)):
            self._drop(client)
            return True
        return False

    def _drop(self, client: _Client) -> None:
        if self._clients.pop(client.fd, None) is not None:
            self._epoll.unregister(client.fd)  # closing does not do it while a child just forked has a copy
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
        except BlockingIOError:
            pass  # the rest is still to come
        except (_Drop, OSError):
            self._drop(client)

    def _receive(self, client: _Client) -> None:
        """Take what has come, and answer once all has. Raises _Drop, OSError; BlockingIOError for what is to come."""
        if client.command < 0:
            self._receive_header(client)
        rights: list[int] = []
        try:
            while len(client.data) < client.length:
                left = client.length - len(client.data)
                if client.command == wire.SECCOMP_NOTIFY_ADD_LISTENER:
                    data, ancillary, _flags, _address = client.sock.recvmsg(left, _CONTROL, socket.MSG_CMSG_CLOEXEC)
                    rights += _rights(ancillary)
                else:
                    data = client.sock.recv(left)
                if not data:
                    raise _Drop
                client.data += data
            self._answer(client, rights)
        finally:
            for fd in rights:
                os.close(fd)

    def _receive_header(self, client: _Client) -> None:
        data, ancillary, _flags, _address = client.sock.recvmsg(wire.HEADER.size, _CONTROL, socket.MSG_CMSG_CLOEXEC)
        for fd in _rights(ancillary):
            os.close(fd)
        allowed = not client.stranger
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == wire.SCM_CREDENTIALS:
                allowed = _allowed(*wire.CREDENTIALS.unpack(payload[: wire.CREDENTIALS.size])[1:])
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

    def _answer(self, client: _Client, rights: Sequence[int]) -> None:
        reply = answer(self.target, Request(client.command, client.value, client.data, tuple(rights)))
        client.held, client.tty, client.wanted = reply.hold, reply.tty, reply.wanted
        try:
            if not reply.silent:
                self._reply(client, reply)
        finally:
            for fd in reply.fds if reply.close else ():
                os.close(fd)
        if reply.tell:
            self.state_changed(reply.tell)
        if not client.held and not client.pending:
            raise _Drop

    def _reply(self, client: _Client, reply: Reply) -> None:
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
            unread = [other for other in self._clients.values() if other.pending and other is not client]
            while unread and sum(len(other.pending) for other in unread) + len(client.pending) > UNREAD:
                self._drop(unread.pop(0))

    def _send(self, client: _Client) -> None:
        client.pending = client.pending[client.sock.send(client.pending, socket.MSG_NOSIGNAL) :]
        if not client.pending:
            raise _Drop


def _rights(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors that came along; the caller's to close."""
    found: list[int] = []
    for level, kind, payload in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found += (int.from_bytes(payload[at : at + 4], "little") for at in range(0, len(payload) - 3, 4))
    return found


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
