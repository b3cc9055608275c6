"""Who listens on a port of this network namespace, from /proc/net and the descriptors of processes."""

from __future__ import annotations

import errno
import os
import socket
import sys
from collections.abc import Iterator

_LISTENING = {"tcp": ("0A",), "udp": ("07",)}  # TCP_LISTEN; an unconnected UDP socket is in TCP_CLOSE


def holder(port: int, address: str, *, protocols: tuple[str, ...], device: str = "") -> str | None:
    """The process that holds a port on an address as `NAME (pid N)`; None where it is free.

    address: "" for any. device: what serves other devices alone (SO_BINDTODEVICE, dnsmasq --interface) does not count.
    """
    if device and os.geteuid() == 0 and not _bound(port, device):
        return None
    for protocol in protocols:
        for inode in _inodes(protocol, port, address):
            pid = _pid_of(inode)
            if not pid or not _elsewhere(pid, device):
                return f"{_name(pid)} (pid {pid})" if pid else "a process that cannot be seen"
    return None


def _bound(port: int, device: str) -> bool:
    """Whether a UDP socket gets what arrives at the port on a device: the kernel then refuses another one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device.encode())
            sock.bind(("0.0.0.0", port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def _inodes(protocol: str, port: int, address: str) -> Iterator[str]:
    """Sockets that packets to the address and port reach; one of IPv6's wildcard gets IPv4's as well."""
    wanted = {"00000000"} | ({_hex(address)} if address else set())
    for file, width in ((protocol, 8), (f"{protocol}6", 32)):
        try:
            with open(f"/proc/net/{file}") as lines:
                rows = [line.split() for line in lines][1:]
        except OSError:
            continue
        for row in rows:
            host, _, number = row[1].rpartition(":")
            if int(number, 16) != port or row[3] not in _LISTENING[protocol]:
                continue
            if not address or host in wanted or (width == 32 and not host.strip("0")):
                yield row[9]


def _hex(address: str) -> str:
    """As /proc/net/udp writes it: four bytes as a number of the machine's byte order."""
    return f"{int.from_bytes(socket.inet_aton(address), sys.byteorder):08X}"


def _pid_of(inode: str) -> int:
    """A process with that socket; 0 where none can be seen."""
    link = f"socket:[{inode}]"
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                for fd in os.scandir(f"/proc/{entry}/fd"):
                    if os.readlink(fd.path) == link:
                        return int(entry)
            except OSError:
                continue  # it has gone, or is another user's
    return 0


def _words(pid: int) -> list[str]:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().decode(errors="replace").split("\0")
    except OSError:
        return []


def _elsewhere(pid: int, device: str) -> bool:
    named = [word.partition("=")[2] for word in _words(pid) if word.startswith("--interface=")]
    return bool(device and named and device not in named)


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm") as file:
            text = file.read().strip()
    except OSError:
        return "?"
    return "".join(letter if letter.isprintable() else "?" for letter in text)  # the process names itself
