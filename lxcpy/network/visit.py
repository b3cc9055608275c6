"""A netlink socket of an ordinary user's container, fetched by a child: nobody comes back from a user namespace."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Iterable

from lxcpy.kernel.namespace import CLONE_NEWNET, CLONE_NEWUSER, setns

NS_GET_USERNS = 0xB701  # ioctl_ns(2): the user namespace that a namespace belongs to


def socket_by_child(netns: int, names: Iterable[str] = ()) -> tuple[socket.socket, dict[str, int]]:
    """As netlink.socket_inside. The kernel lets the namespace's owner use the socket from outside. Raises OSError."""
    wanted = list(names)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours:
        pid = os.fork()
        if pid == 0:
            try:
                _fetch(netns, wanted, theirs)
            finally:
                os._exit(0)
        theirs.close()
        data, fds, _flags, _address = socket.recv_fds(ours, 1 << 16, 1, socket.MSG_CMSG_CLOEXEC)
    os.waitpid(pid, 0)
    if not fds:
        number = struct.unpack("i", data)[0] if data else errno.EIO
        raise OSError(number, os.strerror(number))
    sock = socket.socket(fileno=fds[0])
    return sock, dict(zip(wanted, struct.unpack(f"{len(wanted)}I", data[1:]), strict=True))


def _fetch(netns: int, names: list[str], channel: socket.socket) -> None:
    """In the child."""
    from lxcpy.network.netlink import open_socket

    try:
        setns(fcntl.ioctl(netns, NS_GET_USERNS), CLONE_NEWUSER)
        setns(netns, CLONE_NEWNET)
        with open_socket() as sock:
            indices = struct.pack(f"{len(names)}I", *map(socket.if_nametoindex, names))
            socket.send_fds(channel, [b"." + indices], [sock.fileno()])
    except OSError as error:
        channel.send(struct.pack("i", error.errno or errno.EIO))
