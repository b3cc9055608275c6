"""Moves a network interface from one namespace into another: lxcpy-device and lxcpy-unshare."""

from __future__ import annotations

import os
import socket
from struct import pack

from lxcpy.errors import NetworkError, meaning
from lxcpy.network import netlink
from lxcpy.network.addresses import open_socket_in

IFLA_IFNAME, IFLA_NET_NS_FD = 3, 28


def names(pid: int) -> list[str]:
    """The interfaces of a process's network namespace. Raises NetworkError."""
    try:
        with open(f"/proc/{pid}/net/dev", "rb") as file:
            lines = file.read().split(b"\n")[2:]
    except OSError as error:
        raise NetworkError(f"cannot see the interfaces of process {pid}: {meaning(error)}") from error
    return [os.fsdecode(line.partition(b":")[0].strip()) for line in lines if b":" in line]


def move(name: str, *, source: int, target: int, new_name: str | None = None) -> None:
    """Move `name` from the network namespace of the process `source` into that of `target`, as `new_name` there.

    Raises NetworkError.
    """
    try:
        here, there = (os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC) for pid in (source, target))
        try:
            with open_socket_in(here) as sock:
                body = netlink.LINK.pack(0, 0, _index(sock, name), 0, 0)
                body += netlink.attribute(IFLA_NET_NS_FD, pack("=I", there))
                if new_name and new_name != name:
                    body += netlink.attribute(IFLA_IFNAME, os.fsencode(new_name) + b"\0")
                netlink.ask(sock, netlink.RTM_NEWLINK, body, netlink.NLM_F_ACK)
        finally:
            os.close(here)
            os.close(there)
    except OSError as error:
        wanted = f' as "{new_name}"' if new_name and new_name != name else ""
        raise NetworkError(f'cannot move the interface "{name}"{wanted}: {meaning(error)}') from error


def _index(sock: socket.socket, name: str) -> int:
    body = netlink.LINK.pack(0, 0, 0, 0, 0) + netlink.attribute(IFLA_IFNAME, os.fsencode(name) + b"\0")
    for answer, begin, _end in netlink.ask(sock, netlink.RTM_GETLINK, body):
        index: int = netlink.LINK.unpack_from(answer, begin)[2]
        return index
    raise FileNotFoundError(19, os.strerror(19))
