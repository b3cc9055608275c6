"""The answerer of a policy's `notify` actions: passes each stopped call on to the proxy of lxc.seccomp.notify.proxy.

The wire is liblxc's. One message a call on a SEQPACKET socket: a header (reserved, monitor's pid, init's pid, the
kernel's three structure sizes, length of the cookie), struct seccomp_notif, an empty struct seccomp_notif_resp, the
cookie; with it the descriptors of the caller's /proc/PID, of its memory, and of the listener. The answer is the same
without the cookie, the response filled in.
"""

from __future__ import annotations

import array
import os
import select
import socket
import struct

from lxcpy.errors import SecurityError, meaning
from lxcpy.kernel import seccomp
from lxcpy.kernel.fd import Fd
from lxcpy.log import Log

LOG = Log("seccomp")
TIMEOUT = 30.0  # seconds that the proxy may take, as in LXC
_HEADER = struct.Struct("=Qii3HxxQ")
_ENOSYS = 38


def address(text: str) -> str:
    """The socket's address from `unix:/PATH` or `unix:@ABSTRACT`. Raises SecurityError."""
    path = text.removeprefix("unix:")
    if path == text or path[:1] not in ("/", "@") or len(path) < 2 or len(os.fsencode(path)) > 107:
        raise SecurityError(f'lxc.seccomp.notify.proxy: "{text}" is not unix:/PATH or unix:@NAME')
    return "\0" + path[1:] if path[0] == "@" else path


class Proxy:
    """Answers one listener's notifications. Takes the listener over.

    init, monitor: the pids that the proxy is told. Raises SecurityError for a bad address; a proxy that cannot be
    reached is tried again with each call, which fails with ENOSYS meanwhile.
    """

    def __init__(self, listener: Fd, proxy: str, *, init: int, monitor: int, cookie: str | None = None) -> None:
        self.listener = listener
        self._address = address(proxy)
        self._name = proxy
        self._pids = (monitor, init)
        self._cookie = (cookie or "").encode()
        self._socket: socket.socket | None = None

    def fileno(self) -> int:
        return self.listener.fileno()

    def close(self) -> None:
        self.listener.close()
        self._hang_up()

    def _hang_up(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def serve(self) -> None:
        """Answer until the last process under the filter is gone. For a process of its own: a proxy may be slow."""
        poll = select.poll()
        poll.register(self.listener.number, select.POLLIN)
        while True:
            ((_, events),) = poll.poll()
            if events & select.POLLIN:
                self.answer()
            elif events:
                return

    def answer(self) -> None:
        """Take one notification and answer it. Raises nothing for a proxy's failure."""
        try:
            notification = seccomp.receive_notification(self.listener.number)
        except OSError as error:
            LOG.debug(f"notification lost: {meaning(error)}")  # ENOENT: the caller was killed
            return
        number, pid, *_ = seccomp.NOTIFICATION.unpack(notification)
        try:
            response = self._ask(notification, number, pid)
        except (OSError, ValueError) as error:
            LOG.error(f"seccomp proxy {self._name}: {error}")
            response = seccomp.RESPONSE.pack(number, 0, -_ENOSYS, 0)
        try:
            seccomp.respond(self.listener.number, response)
        except OSError as error:
            LOG.debug(f"answer not delivered: {meaning(error)}")

    def _ask(self, notification: bytes, number: int, pid: int) -> bytes:
        with (
            Fd(os.open(f"/proc/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as process,
            Fd(os.open(f"/proc/{pid}/mem", os.O_RDWR | os.O_CLOEXEC)) as memory,
        ):
            if not seccomp.notification_valid(self.listener.number, number):
                raise ValueError(f"notification {number} is not waiting any more")
            header = _HEADER.pack(0, *self._pids, *seccomp.notification_sizes(), len(self._cookie))
            blank = bytes(seccomp.RESPONSE.size)
            fds = [process.number, memory.number, self.listener.number]
            size = len(header) + len(notification) + len(blank)
            answer = self._exchange(header + notification + blank + self._cookie, fds, size)
        if len(answer) != size or _HEADER.unpack_from(answer)[0] != 0:
            raise ValueError(f"an answer of {len(answer)} bytes, not {size}, or reserved bytes set")
        _, value, error, flags = seccomp.RESPONSE.unpack_from(answer, size - len(blank))
        return seccomp.RESPONSE.pack(number, value, error, flags)  # whatever id the proxy filled in

    def _exchange(self, message: bytes, fds: list[int], size: int) -> bytes:
        """Send and receive; once more on a new connection if the old one has broken down."""
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))]
        if self._socket is not None:
            try:
                self._socket.sendmsg([message], rights)
                return self._socket.recv(size + 1)
            except OSError:
                self._hang_up()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._socket.settimeout(TIMEOUT)
            self._socket.connect(self._address)
            self._socket.sendmsg([message], rights)
            return self._socket.recv(size + 1)
        except OSError:
            self._hang_up()
            raise
