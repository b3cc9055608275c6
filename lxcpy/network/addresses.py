"""The addresses of a network namespace, fast: for ls and info, without pyroute2.

A dump of 100 containers must stay far under LXC's fork and setns for each, so one netlink socket is kept or opened per
namespace and the answer is walked with struct.
"""

from __future__ import annotations

import socket
from struct import pack

from lxcpy.network.netlink import (
    ADDRESS,
    LINK,
    NLM_F_DUMP,
    RTM_GETADDR,
    RTM_GETLINK,
    Refused,
    ask,
    attribute,
    attributes,
    open_socket,
    socket_inside,
    text,
)

__all__ = ["addresses", "open_socket", "open_socket_in", "split"]

LOOPBACK_INDEX = 1  # fixed in each namespace
IFA_ADDRESS, IFA_LOCAL, IFA_LABEL = 1, 2, 3
IFLA_IFNAME, IFLA_EXT_MASK = 3, 29
RTEXT_FILTER_SKIP_STATS = 1 << 3
RT_SCOPE_UNIVERSE, RT_SCOPE_LINK = 0, 253


def open_socket_in(netns: int) -> socket.socket:
    """A NETLINK_ROUTE socket of the namespace behind descriptor `netns`, which it keeps alive until closed.

    The calling thread visits the namespace and comes back. Raises OSError.
    """
    return socket_inside(netns)[0]


def _name(sock: socket.socket, index: int) -> str:
    body = LINK.pack(0, 0, index, 0, 0) + attribute(IFLA_EXT_MASK, pack("=I", RTEXT_FILTER_SKIP_STATS))
    try:
        for answer, begin, end in ask(sock, RTM_GETLINK, body):
            for kind, start, stop in attributes(answer, begin + LINK.size, end):
                if kind == IFLA_IFNAME:
                    return text(answer, start, stop)
    except Refused:
        pass  # gone between the two questions
    return str(index)


def addresses(sock: socket.socket, *, names: bool = True, loopback: bool = False) -> list[tuple[str, str, str]]:
    """What LXC's get_ips(scope=0) tells of the namespace `sock` was opened in: [(interface, "inet"|"inet6", address)].

    In the kernel's order, which is LXC's: all IPv4, then all IPv6, each by interface. Left out: the loopback device
    (unless `loopback`), and IPv6 addresses of link scope. names=False saves a question for each interface that has IPv6
    alone; its name is then its index as text. Raises OSError.
    """
    found: list[tuple[int, str, str]] = []
    known: dict[int, str] = {}
    for answer, begin, end in ask(sock, RTM_GETADDR, ADDRESS.pack(0, 0, 0, 0, 0), NLM_F_DUMP):
        family, _, _, scope, index = ADDRESS.unpack_from(answer, begin)
        if index == LOOPBACK_INDEX and not loopback:
            continue
        if family == socket.AF_INET6:
            if scope == RT_SCOPE_LINK:
                continue
            kind_name = "inet6"
        elif family == socket.AF_INET:
            kind_name = "inet"
        else:
            continue
        value = b""
        for kind, start, stop in attributes(answer, begin + ADDRESS.size, end):
            if kind == IFA_LOCAL or (kind == IFA_ADDRESS and not value):  # they differ on point-to-point links
                value = answer[start:stop]
            elif kind == IFA_LABEL:
                known.setdefault(index, text(answer, start, stop).split(":", 1)[0])
        if value:
            found.append((index, kind_name, socket.inet_ntop(family, value)))
    if names:
        for index in {entry[0] for entry in found} - known.keys():
            known[index] = _name(sock, index)
    return [(known.get(index) or str(index), family, address) for index, family, address in found]


def split(found: list[tuple[str, str, str]]) -> tuple[list[str], list[str]]:
    """The IPv4 and the IPv6 addresses, as `ls -f` shows them."""
    return [a for _, family, a in found if family == "inet"], [a for _, family, a in found if family == "inet6"]
