"""The bytes of messages for what this kernel may lack, read back attribute by attribute as linux/if_link.h has them."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import pytest

from lxcpy.network import links, netlink
from lxcpy.network.facts import HostLink, parse_link
from lxcpy.network.steps import CreateLink, PortVlan

ROOT = Path(__file__).parents[2]
IFLA_LINK, IFLA_LINKINFO, IFLA_AF_SPEC, IFLA_NET_NS_FD = 5, 18, 26, 28


class Wire:
    """Encodes for real, keeps instead of sending."""

    netns, pid = 9, 1
    link = staticmethod(links.link_message)

    def __init__(self) -> None:
        self.sent: list[bytes] = []

    def send(self, *messages: bytes) -> None:
        self.sent += messages

    def host_index(self, name: str) -> int:
        return 3


def tree(message: bytes, begin: int, end: int) -> list[tuple[int, bytes]]:
    return [(kind, message[start:stop]) for kind, start, stop in netlink.attributes(message, begin, end)]


def sent(step: CreateLink | PortVlan) -> tuple[tuple[int, ...], dict[int, bytes]]:
    """(the header's type, the interface header's family and index), the attributes."""
    wire = Wire()
    step.apply(wire)  # type: ignore[arg-type]
    (message,) = wire.sent
    length, command, *_ = netlink.HEADER.unpack_from(message)
    assert length == len(message)
    family, _, index, _, _ = netlink.LINK.unpack_from(message, 16)
    return (command, family, index), dict(tree(message, 32, length))


def data(attributes: dict[int, bytes]) -> tuple[bytes, dict[int, bytes]]:
    """(kind, the IFLA_INFO_DATA)."""
    info = dict(tree(attributes[IFLA_LINKINFO], 0, len(attributes[IFLA_LINKINFO])))
    return info[1].rstrip(b"\0"), dict(tree(info[2], 0, len(info[2])))


@pytest.mark.parametrize(
    ("mode", "isolation", "values"),
    [
        ("l2", "bridge", {1: 0}),
        ("l3", "private", {1: 1, 2: 1}),
        ("l3s", "vepa", {1: 2, 2: 2}),
    ],
)
def test_ipvlan(mode: str, isolation: str, values: dict[int, int]) -> None:
    head, attributes = sent(CreateLink("ipvlan", "eth0", "d0", 4, mode, isolation))
    assert head == (16, 0, 0)
    kind, found = data(attributes)
    assert kind == b"ipvlan"
    assert {key: struct.unpack("=H", value)[0] for key, value in found.items()} == values
    assert attributes[IFLA_LINK] == struct.pack("=I", 4) and attributes[IFLA_NET_NS_FD] == struct.pack("=I", 9)


def test_vlan() -> None:
    _, attributes = sent(CreateLink("vlan", "eth0", "d0", 4, vlan=77))
    assert data(attributes) == (b"vlan", {1: struct.pack("=H", 77)})


def test_macvlan() -> None:
    _, attributes = sent(CreateLink("macvlan", "eth0", "d0", 4, "passthru"))
    assert data(attributes) == (b"macvlan", {1: struct.pack("=I", 8)})


@pytest.mark.parametrize(("how", "command", "flags"), [("tagged", 19, 0), ("untagged", 19, 6), ("remove", 17, 6)])
def test_port_vlan(how: str, command: int, flags: int) -> None:
    head, attributes = sent(PortVlan("v0", 5, how))
    assert head == (command, 7, 3)
    spec = attributes[IFLA_AF_SPEC]
    assert tree(spec, 0, len(spec)) == [(0, struct.pack("=H", 1)), (2, struct.pack("=HH", flags, 5))]


def test_a_link_as_the_kernel_describes_it() -> None:
    part = netlink.attribute
    options = part(7, b"\1") + part(39, struct.pack("=H", 4))
    body = netlink.LINK.pack(0, 1, 12, 1, 0) + part(3, b"br0\0") + part(4, struct.pack("=I", 1400))
    body += part(1, bytes(5) + b"\1") + part(18, part(1, b"bridge\0") + part(2, options))
    body += part(52 | 0x8000, part(53, b"one\0") + part(53, b"two\0"))
    assert parse_link(body, 0, len(body)) == HostLink(
        "br0", 12, 1400, "bridge", "00:00:00:00:00:01", altnames=("one", "two"), up=True, vlan_filtering=True,
        default_pvid=4,
    )  # fmt: skip


def test_a_torn_attribute_ends_the_walk() -> None:
    good = netlink.attribute(1, b"abcd")
    assert tree(good + b"\x20\0\1\0ab", 0, len(good) + 6) == [(1, b"abcd")]
    assert tree(good + b"\x02\0\1\0", 0, len(good) + 4) == [(1, b"abcd")]


def test_pyroute2_is_not_loaded_whole() -> None:
    """25 MB and 120 ms are at stake, and an asyncio loop; who imports pyroute2 afterwards gets all of it."""
    script = (
        "import sys, lxcpy.network.links\n"
        "assert 'asyncio' not in sys.modules and 'pyroute2' not in sys.modules\n"
        "import pyroute2; pyroute2.IPRoute"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)


def test_addresses_need_no_pyroute2() -> None:
    script = "import sys, lxcpy.network.addresses; assert not any(n.startswith('pyroute2') for n in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
