"""Messages between two processes that trust each other: JSON in one SOCK_SEQPACKET datagram, descriptors beside it.

Used between supervisor and launcher, and between launcher and the container's first process. A datagram keeps message
and descriptors together, so neither side needs framing; the end of the peer is an empty read.
"""

from __future__ import annotations

import array
import json
import select
import socket
from typing import Any

LIMIT = 1 << 17  # bytes of one message: SO_SNDBUF's default of 208 KiB bounds a datagram
MAX_FDS = 250  # the kernel's SCM_MAX_FD is 253


class Closed(Exception):
    """The other side has gone."""


class Channel:
    """One end of a socket pair."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end

    @classmethod
    def pair(cls) -> tuple[Channel, Channel]:
        """Two connected ends, both close-on-exec."""
        one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(one), cls(other)

    def fileno(self) -> int:
        return self.socket.fileno()

    def close(self) -> None:
        self.socket.close()

    def send(self, message: dict[str, Any], fds: list[int] | None = None) -> None:
        """Send one message and copies of `fds`. Raises Closed, or OSError when the message is too long."""
        ancillary = []
        if fds:
            ancillary.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds)))
        try:
            self.socket.sendmsg([json.dumps(message).encode()], ancillary, socket.MSG_NOSIGNAL)
        except (BrokenPipeError, ConnectionResetError):
            raise Closed from None

    def ended(self) -> bool:
        """Has the peer gone?"""
        poll = select.poll()
        poll.register(self.socket, 0)
        return bool(poll.poll(0))  # POLLHUP is told in any case

    def _receive(self) -> Any:
        return self.socket.recvmsg(LIMIT, socket.CMSG_SPACE(MAX_FDS * 4), socket.MSG_CMSG_CLOEXEC)

    def receive(self) -> tuple[dict[str, Any], list[int]]:
        """Wait for one message: (message, descriptors, now the caller's). Raises Closed at the end of the peer."""
        try:
            data, ancillary, _flags, _address = self._receive()
        except ConnectionResetError:
            # The peer left with something of ours unread. The kernel tells that first, and once (unix_release_sock sets
            # sk_err); what the peer has sent before is still there.
            try:
                data, ancillary, _flags, _address = self._receive()
            except ConnectionResetError:
                raise Closed from None
        fds = array.array("i")
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
        if not data:
            raise Closed
        return json.loads(data), list(fds)
