"""lxc-monitor's side: what changes is written to lxc-monitord's fifo, and read from its socket.

lxc-monitord reads `/run/lxc/LXCPATH/monitor-fifo` and copies each message to whoever is connected to the lxcpath's
abstract socket. LXC runs it on demand. `announce` is the containers' end; `Monitor` the watchers', which does
lxc-monitord's work itself where none runs, so that it needs no LXC, and real lxc-monitor can watch beside it.
"""

from __future__ import annotations

import errno
import os

from lxcpy.errors import StateError, meaning
from lxcpy.runtime import lxcprotocol as wire

_SET_PIPE_SIZE = 1031  # F_SETPIPE_SZ, fcntl(2)
_ROOM = 1 << 20  # bytes in the fifo, some 4,000 messages: a writer does not wait, what does not fit is lost
_BEHIND = 16 << 20  # bytes that a watcher may be behind


def announce(lxcpath: str, name: str, state: str) -> None:
    """Tell lxc-monitord of a state change. One failing open(2) when nobody watches; never waits, never raises."""
    _send(lxcpath, wire.message(name, wire.state_number(state)))


def announce_exit(lxcpath: str, name: str, status: int) -> None:
    """Tell lxc-monitord that init has ended. status: the raw status of wait(2)."""
    _send(lxcpath, wire.message(name, status, wire.MESSAGE_EXIT_CODE))


def _send(lxcpath: str, data: bytes) -> None:
    try:
        # Without O_NONBLOCK the open would wait for a reader, the write for one that is stuck.
        fd = os.open(wire.monitor_fifo(lxcpath), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return
    try:
        os.write(fd, data)
    except OSError:
        pass
    finally:
        os.close(fd)


class Monitor:
    """What happens to the containers of one lxcpath: register `fileno()`, call `on_readable()`.

    Raises StateError when the fifo cannot be made.
    """

    def __init__(self, lxcpath: str) -> None:
        self.lxcpath = lxcpath
        self._source = _open(lxcpath)

    def fileno(self) -> int:
        """Readable when there may be messages. It can change after a call of on_readable."""
        return self._source.fileno()

    def on_readable(self) -> list[wire.Message]:
        """What has happened since, in order."""
        messages = self._source.read()
        if messages is None:  # lxc-monitord, or the watcher that stood in for it, has gone
            self._source.close()
            self._source = _open(self.lxcpath)
            return []
        return messages

    def close(self) -> None:
        self._source.close()


def quit_monitord(lxcpath: str) -> bool:
    """Tell lxc-monitord to end (lxc-monitor -Q). False where none runs."""
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        try:
            sock.connect(wire.monitor_socket_name(lxcpath))
            sock.send(b"quit")
        except OSError:
            return False
    return True


def _open(lxcpath: str) -> _Subscription | _Relay:
    for _ in range(10):
        try:
            return _Subscription(lxcpath)
        except OSError:
            pass
        try:
            return _Relay(lxcpath)
        except BlockingIOError:
            # Another has locked the fifo and will listen in a moment.
            import time

            time.sleep(0.05)
        except OSError as error:
            raise StateError(f'the monitor\'s fifo of "{lxcpath}" cannot be used: {meaning(error)}') from error
    raise StateError(f'the monitor of "{lxcpath}" does not answer', hint="end the lxc-monitord that holds its fifo")


class _Subscription:
    """A connection to lxc-monitord."""

    def __init__(self, lxcpath: str) -> None:
        import socket

        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(wire.monitor_socket_name(lxcpath))
        except OSError:
            self._socket.close()
            raise
        self._socket.setblocking(False)
        self._rest = b""

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> list[wire.Message] | None:
        try:
            data = self._socket.recv(64 * wire.MESSAGE.size)
        except BlockingIOError:
            return []
        except OSError:
            return None
        if not data:
            return None
        messages, self._rest = _split(self._rest + data)
        return messages

    def close(self) -> None:
        self._socket.close()


class _Relay:
    """lxc-monitord's work: the fifo, locked as LXC locks it, and the socket for other watchers.

    Raises OSError; BlockingIOError when another does it already.
    """

    def __init__(self, lxcpath: str) -> None:
        import fcntl
        import select
        import socket

        self._path = wire.monitor_fifo(lxcpath)
        os.makedirs(os.path.dirname(self._path), 0o755, exist_ok=True)
        try:
            os.mkfifo(self._path, 0o600)
        except FileExistsError:
            pass
        # For reading and writing: the end of the last writer is then no end of the file.
        self._fifo = os.open(self._path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        self._watchers: dict[int, tuple[socket.socket, bytearray]] = {}  # with what is to be sent
        self._rest = b""
        try:
            fcntl.lockf(self._fifo, fcntl.LOCK_EX | fcntl.LOCK_NB)  # fcntl's lock, as LXC takes it
            try:
                fcntl.fcntl(self._fifo, _SET_PIPE_SIZE, _ROOM)
            except OSError:
                pass  # an ordinary user's pipes have used up what they may
            self._listener.bind(wire.monitor_socket_name(lxcpath))
            self._listener.listen(100)
        except OSError as error:
            self._listener.close()
            os.close(self._fifo)
            if error.errno in (errno.EACCES, errno.EAGAIN, errno.EADDRINUSE):
                raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN)) from error
            raise
        self._epoll = select.epoll()
        self._epoll.register(self._fifo, select.EPOLLIN)
        self._epoll.register(self._listener, select.EPOLLIN)

    def fileno(self) -> int:
        return self._epoll.fileno()

    def read(self) -> list[wire.Message]:
        import select

        messages: list[wire.Message] = []
        for fd, events in self._epoll.poll(0):
            if fd == self._fifo:
                messages += self._read_fifo()
            elif fd == self._listener.fileno():
                self._accept()
            elif events == select.EPOLLOUT:
                self._push(fd)
            else:
                self._drop(fd)  # watchers have nothing to say but `quit`, which is not for us
        return messages

    def close(self) -> None:
        try:
            os.unlink(self._path)
        except OSError:
            pass
        for fd in list(self._watchers):
            self._drop(fd)
        self._epoll.close()
        self._listener.close()
        os.close(self._fifo)

    def _read_fifo(self) -> list[wire.Message]:
        try:
            data = os.read(self._fifo, _ROOM)
        except BlockingIOError:
            return []
        messages, self._rest = _split(self._rest + data)
        copied = b"".join(wire.message(m.name, m.value, m.kind) for m in messages)
        for fd, (_watcher, unsent) in list(self._watchers.items()):
            unsent += copied
            self._push(fd)
        return messages

    def _push(self, fd: int) -> None:
        """Send a watcher what it has room for; the rest when it has read."""
        import select

        watcher, unsent = self._watchers[fd]
        try:
            del unsent[: watcher.send(unsent)]
        except BlockingIOError:
            pass
        except OSError:
            self._drop(fd)  # gone
            return
        if len(unsent) > _BEHIND:
            self._drop(fd)  # it does not read
        else:
            self._epoll.modify(fd, select.EPOLLIN | (select.EPOLLOUT if unsent else 0))

    def _accept(self) -> None:
        import select
        import socket

        try:
            watcher, _address = self._listener.accept()
        except OSError:
            return
        peer = watcher.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, wire.CREDENTIALS.size)
        uid = wire.CREDENTIALS.unpack(peer)[1]
        if uid not in (0, os.geteuid()) or len(self._watchers) >= 256:
            watcher.close()
            return
        watcher.setblocking(False)
        self._watchers[watcher.fileno()] = (watcher, bytearray())
        self._epoll.register(watcher, select.EPOLLIN)

    def _drop(self, fd: int) -> None:
        self._watchers.pop(fd)[0].close()


def _split(data: bytes) -> tuple[list[wire.Message], bytes]:
    """The whole messages in `data`, and what is left of the next."""
    size = wire.MESSAGE.size
    whole = len(data) - len(data) % size
    return [wire.parse_message(data[at : at + size]) for at in range(0, whole, size)], data[whole:]
