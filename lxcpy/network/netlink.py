"""One rtnetlink socket: requests with acknowledgement, dumps, and the walk over attributes.

Standard library only and import-light: `ls` reads addresses through it. Messages that change something are built by
`links`; the few questions asked often (one link, all addresses) are short enough to be packed here.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator
from struct import Struct, pack_into, unpack_from

NETLINK_ROUTE = 0
SOL_NETLINK = 270
NETLINK_CAP_ACK = 10  # an error answer repeats our header alone, not the whole request
NETLINK_EXT_ACK = 11  # and says in words what was wrong

NLM_F_REQUEST = 0x1
NLM_F_MULTI = 0x2
NLM_F_ACK = 0x4
NLM_F_DUMP_INTR = 0x10
NLM_F_DUMP = 0x300
NLM_F_EXCL = 0x200
NLM_F_CREATE = 0x400
NLM_F_CAPPED = 0x100
NLM_F_ACK_TLVS = 0x200

NLMSG_ERROR = 2
NLMSG_DONE = 3
NLMSGERR_ATTR_MSG = 1
NLA_TYPE_MASK = 0x3FFF

RTM_NEWLINK = 16
RTM_GETLINK = 18
RTM_NEWADDR = 20
RTM_GETADDR = 22

HEADER = Struct("=IHHII")  # length, type, flags, sequence, port
LINK = Struct("=BxHiII")  # family, ARP type, index, flags, change mask
ADDRESS = Struct("=BBBBI")  # family, prefix length, flags, scope, index
ATTRIBUTE = Struct("=HH")  # length, type
BUFFER = 1 << 16


class Refused(OSError):
    """The kernel's no to one message: errno, the kernel's own words where it has some, and which message it was."""

    def __init__(self, errno: int, number: int, words: str = "") -> None:
        super().__init__(errno, words or os.strerror(errno))
        self.number = number
        self.words = words


def attributes(data: bytes | memoryview, start: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The attributes between two offsets as (type, begin of value, end of value); a torn tail ends the walk."""
    while start + 4 <= end:
        length, kind = ATTRIBUTE.unpack_from(data, start)
        if length < 4 or start + length > end:
            return
        yield kind & NLA_TYPE_MASK, start + 4, start + length
        start += (length + 3) & ~3


def text(data: bytes | memoryview, begin: int, end: int) -> str:
    """An attribute's NUL-terminated string."""
    return bytes(data[begin:end]).split(b"\0", 1)[0].decode(errors="surrogateescape")


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    return ATTRIBUTE.pack(4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def open_socket() -> socket.socket:
    """A NETLINK_ROUTE socket in the caller's network namespace, which it keeps alive until closed.

    The socket goes on speaking to that namespace wherever the caller moves. One process at a time may use it: answers
    go to whoever reads first, so a forked child opens its own. Raises OSError.
    """
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_ROUTE)
    try:
        sock.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        sock.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
    except OSError:
        pass  # before 4.12: errors carry no words
    return sock


def socket_inside(netns: int, names: Iterable[str] = ()) -> tuple[socket.socket, dict[str, int]]:
    """A netlink socket of the namespace behind descriptor `netns`, and the indices of these devices in it.

    The calling thread visits the namespace and comes back; other threads are not moved. Who is not root could not come
    back: a child goes there. Raises OSError.
    """
    if os.geteuid():
        from lxcpy.network.visit import socket_by_child

        return socket_by_child(netns, names)
    from lxcpy.kernel.namespace import CLONE_NEWNET, setns  # not for the light commands that import this module

    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(netns, CLONE_NEWNET)
        try:
            sock = open_socket()
            try:
                indices = {name: socket.if_nametoindex(name) for name in names}
            except OSError:
                sock.close()
                raise
        finally:
            setns(home, CLONE_NEWNET)
    finally:
        os.close(home)
    return sock, indices


def _words(answer: bytes, offset: int, end: int, flags: int) -> str:
    """The kernel's sentence in an error answer whose NLMSG_ERROR payload starts at `offset`."""
    if not flags & NLM_F_ACK_TLVS:
        return ""
    inner = 16 if flags & NLM_F_CAPPED else (unpack_from("=I", answer, offset + 4)[0] + 3) & ~3
    for kind, begin, stop in attributes(answer, offset + 4 + inner, end):
        if kind == NLMSGERR_ATTR_MSG:
            return text(answer, begin, stop)
    return ""


def _messages(answer: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """(type, flags, sequence, begin, end) of each message of one datagram."""
    start, size = 0, len(answer)
    while start + 16 <= size:
        length, kind, flags, sequence, _ = HEADER.unpack_from(answer, start)
        if length < 16 or start + length > size:
            return
        yield kind, flags, sequence, start + 16, start + length
        start += (length + 3) & ~3


def send(sock: socket.socket, *messages: bytes) -> None:
    """Send messages in one datagram and wait for the answer to each. Raises Refused for the first that failed.

    The kernel carries out all of them in order, also those behind a failed one. Each must ask for an acknowledgement.
    """
    if not messages:
        return
    datagram = bytearray()
    for number, message in enumerate(messages):
        start = len(datagram)
        datagram += message
        pack_into("=I", datagram, start + 8, number + 1)
        datagram += b"\0" * (-len(message) % 4)
    sock.send(datagram)
    missing, failure = len(messages), None
    while missing:
        answer = sock.recv(BUFFER)
        for kind, flags, sequence, begin, end in _messages(answer):
            if kind != NLMSG_ERROR:
                continue
            missing -= 1
            errno = -unpack_from("=i", answer, begin)[0]
            if errno and (failure is None or sequence - 1 < failure.number):
                failure = Refused(errno, sequence - 1, _words(answer, begin, end, flags))
    if failure is not None:
        raise failure


def ask(sock: socket.socket, kind: int, body: bytes, flags: int = 0) -> list[tuple[bytes, int, int]]:
    """Send one question; (datagram, begin, end) of each message answered. Raises Refused.

    flags: NLM_F_DUMP for every object of that kind. A dump that the kernel calls inconsistent is taken as it came.
    The answer is read to its end, as the socket would otherwise begin the next one with what is left.
    """
    sock.send(HEADER.pack(16 + len(body), kind, NLM_F_REQUEST | flags, 1, 0) + body)
    found: list[tuple[bytes, int, int]] = []
    while True:
        answer = sock.recv(BUFFER)
        for kind_, flags_, _, begin, end in _messages(answer):
            if kind_ == NLMSG_DONE:
                return found
            if kind_ == NLMSG_ERROR:
                errno = -unpack_from("=i", answer, begin)[0]
                if errno:
                    raise Refused(errno, 0, _words(answer, begin, end, flags_))
                return found
            found.append((answer, begin, end))
            if not flags_ & NLM_F_MULTI:
                return found
