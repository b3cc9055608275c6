"""What the plan must know of the host's links, read once with one question a link."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from struct import pack, unpack_from

from lxcpy.config.model import Nic
from lxcpy.network.addresses import RTEXT_FILTER_SKIP_STATS
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
    text,
)

IFLA_ADDRESS, IFLA_IFNAME, IFLA_MTU, IFLA_MASTER, IFLA_LINKINFO = 1, 3, 4, 10, 18
IFLA_EXT_MASK, IFLA_PROP_LIST, IFLA_ALT_IFNAME, IFLA_PERM_ADDRESS = 29, 52, 53, 54
IFLA_INFO_KIND, IFLA_INFO_DATA = 1, 2
IFLA_BR_VLAN_FILTERING, IFLA_BR_VLAN_DEFAULT_PVID = 7, 39
IFF_UP = 1


@dataclass(frozen=True)
class HostLink:
    """One network device of the host, as the kernel describes it."""

    name: str
    index: int
    mtu: int = 1500
    kind: str = ""  # bridge, veth, openvswitch, …; empty for hardware
    mac: str = ""
    permanent: str = ""  # the hardware's own address, where it has one
    altnames: tuple[str, ...] = ()
    up: bool = False
    master: int = 0
    vlan_filtering: bool = False
    default_pvid: int = 0
    radio: str = ""  # the wiphy's name (phy0) of a wireless device
    ipv4: str | None = None  # its first addresses
    ipv6: str | None = None


@dataclass(frozen=True)
class Facts:
    """The world a network plan is made in. `sysctl` reads /proc/sys/net/PATH, None where it does not exist.

    ordinary: lxcpath and name of an ordinary user's container; None: root starts it.
    """

    links: Mapping[str, HostLink] = field(default_factory=dict)
    taken: Callable[[str], bool] = lambda name: False
    random: Callable[[int], bytes] = os.urandom
    sysctl: Callable[[str], str | None] = lambda path: None
    lxc_bridge: str = "lxcbr0"  # the bridge that lxcpy-net makes
    programs: Callable[[str], bool] = lambda name: False  # is it in PATH?
    ordinary: tuple[str, str] | None = None


def _mac(data: bytes) -> str:
    return data.hex(":") if any(data) else ""


def parse_link(data: bytes, begin: int, end: int) -> HostLink:
    """A RTM_NEWLINK message's payload as a HostLink."""
    _, _, index, flags, _ = LINK.unpack_from(data, begin)
    value: dict[str, object] = {"index": index, "up": bool(flags & IFF_UP)}
    altnames: list[str] = []
    for kind, start, stop in attributes(data, begin + LINK.size, end):
        if kind == IFLA_IFNAME:
            value["name"] = text(data, start, stop)
        elif kind == IFLA_MTU:
            value["mtu"] = unpack_from("=I", data, start)[0]
        elif kind == IFLA_MASTER:
            value["master"] = unpack_from("=I", data, start)[0]
        elif kind == IFLA_ADDRESS:
            value["mac"] = _mac(data[start:stop])
        elif kind == IFLA_PERM_ADDRESS:
            value["permanent"] = _mac(data[start:stop])
        elif kind == IFLA_PROP_LIST:
            altnames += [text(data, *at) for prop, *at in attributes(data, start, stop) if prop == IFLA_ALT_IFNAME]
        elif kind == IFLA_LINKINFO:
            value.update(_kind(data, start, stop))
    return HostLink(altnames=tuple(altnames), **value)  # type: ignore[arg-type]


def _kind(data: bytes, begin: int, end: int) -> dict[str, object]:
    value: dict[str, object] = {}
    for kind, start, stop in attributes(data, begin, end):
        if kind == IFLA_INFO_KIND:
            value["kind"] = text(data, start, stop)
        elif kind == IFLA_INFO_DATA and value.get("kind") == "bridge":
            for option, first, _ in attributes(data, start, stop):
                if option == IFLA_BR_VLAN_FILTERING:
                    value["vlan_filtering"] = bool(data[first])
                elif option == IFLA_BR_VLAN_DEFAULT_PVID:
                    value["default_pvid"] = unpack_from("=H", data, first)[0]
    return value


def link(sock: socket.socket, name: str = "", index: int = 0) -> HostLink | None:
    """The link of that name or index in the socket's namespace, None if there is none. Raises OSError."""
    body = LINK.pack(0, 0, index, 0, 0) + attribute(IFLA_EXT_MASK, pack("=I", RTEXT_FILTER_SKIP_STATS))
    if name:
        if len(name.encode()) > 15:
            return None
        body += attribute(IFLA_IFNAME, name.encode() + b"\0")
    try:
        for answer, begin, end in ask(sock, RTM_GETLINK, body):
            return parse_link(answer, begin, end)
    except Refused as error:
        if error.errno not in (19, 22, 34):  # ENODEV; EINVAL, ERANGE: no name a link could have
            raise
    return None


def links(sock: socket.socket) -> list[HostLink]:
    """Every link of the socket's namespace."""
    body = LINK.pack(0, 0, 0, 0, 0) + attribute(IFLA_EXT_MASK, pack("=I", RTEXT_FILTER_SKIP_STATS))
    return [parse_link(answer, begin, end) for answer, begin, end in ask(sock, RTM_GETLINK, body, NLM_F_DUMP)]


def first_address(sock: socket.socket, index: int, family: int) -> str | None:
    """The first address of a link, as LXC takes it for `gateway = auto`."""
    for answer, begin, end in ask(sock, RTM_GETADDR, ADDRESS.pack(family, 0, 0, 0, 0), NLM_F_DUMP):
        if ADDRESS.unpack_from(answer, begin)[4] != index or answer[begin] != family:
            continue
        found = {kind: answer[start:stop] for kind, start, stop in attributes(answer, begin + ADDRESS.size, end)}
        value = found.get(2) or found.get(1)  # IFA_LOCAL, else IFA_ADDRESS
        if value:
            return socket.inet_ntop(family, value)
    return None


def name_taken(name: str) -> bool:
    """Whether a link of this name exists in the caller's namespace."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        return False
    return True


def read_sysctl(path: str) -> str | None:
    """The text of /proc/sys/net/PATH, None where it does not exist."""
    try:
        with open(f"/proc/sys/net/{path}") as file:
            return file.read().strip()
    except OSError:
        return None


def in_path(program: str) -> bool:
    """Whether PATH holds an executable of this name."""
    path = os.environ.get("PATH") or os.defpath
    return any(os.access(os.path.join(folder or ".", program), os.X_OK) for folder in path.split(":"))


def matched(nets: Sequence[Nic]) -> Sequence[Nic]:
    """The interfaces with `eth+`, as the link of a phys, replaced by the last device whose name begins so, as in LXC.

    Where there is none it stays. Raises OSError.
    """
    if not any(nic.type == "phys" and (nic.link or "").endswith("+") for nic in nets):
        return nets
    with open_socket() as sock:
        names = [one.name for one in links(sock)]
    found = []
    for nic in nets:
        begin = (nic.link or "").removesuffix("+")
        fitting = [name for name in names if name.startswith(begin)] if begin != nic.link else []
        found.append(replace(nic, link=fitting[-1]) if nic.type == "phys" and fitting else nic)
    return found


def gather(nets: Iterable[Nic]) -> Facts:
    """The facts that a plan for these interfaces needs, of the caller's network namespace. Raises OSError."""
    found: dict[str, HostLink] = {}
    missing = False
    with open_socket() as sock:
        for nic in nets:
            if not nic.link or nic.type in ("empty", "none") or nic.link in found:
                continue
            host = link(sock, nic.link)
            if host is None:
                missing = True
                continue
            extra: dict[str, object] = {}
            if nic.ipv4_gateway == "auto":
                extra["ipv4"] = first_address(sock, host.index, socket.AF_INET)
            if nic.ipv6_gateway == "auto":
                extra["ipv6"] = first_address(sock, host.index, socket.AF_INET6)
            if nic.type == "phys":
                extra["radio"] = _radio(nic.link)
            found[nic.link] = replace(host, **extra) if extra else host  # type: ignore[arg-type]
    return Facts(found, name_taken, os.urandom, read_sysctl, _lxc_bridge() if missing else "lxcbr0", in_path)


def _radio(name: str) -> str:
    try:
        with open(f"/sys/class/net/{name}/phy80211/name") as file:
            return file.read().strip()
    except OSError:
        return ""


def _lxc_bridge() -> str:
    from lxcpy.network.service.settings import load

    return load().bridge
