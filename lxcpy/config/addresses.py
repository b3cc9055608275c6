"""Codecs of network values: addresses, routes, MACs, names of links, VLAN ids."""

from __future__ import annotations

import random

from lxcpy.config.numbers import unsigned
from lxcpy.config.values import POSITIVE, Codec, octets

IFNAMSIZ = 16
VLAN_MAX = 4094


def _canonical(text: str, family: str) -> str:
    """An address in the kernel's spelling. Raises ValueError."""
    import socket  # 2.5 ms that commands without addresses do not pay

    kind = socket.AF_INET if family == "IPv4" else socket.AF_INET6
    try:
        return socket.inet_ntop(kind, socket.inet_pton(kind, text))
    except (OSError, UnicodeError, ValueError):
        raise ValueError(f'"{text}" is not an {family} address') from None


def _class_length(address: str) -> int:
    """The prefix length of an IPv4 address's class, as before CIDR; 0 from class D on."""
    first = int(address.partition(".")[0])
    return 8 if first < 128 else 16 if first < 192 else 24 if first < 224 else 0


def _ipv4(text: str) -> str:
    whole, blank, broadcast = text.partition(" ")
    address, slash, length = whole.partition("/")
    address = _canonical(address, "IPv4")
    bits = unsigned(length, 32) if slash else _class_length(address)
    return f"{address}/{bits}" + (f" {_canonical(broadcast, 'IPv4')}" if blank else "")


def _ipv6(text: str) -> str:
    address, slash, length = text.partition("/")
    return f"{_canonical(address, 'IPv6')}/{unsigned(length, 128) if slash else 64}"


def _route(family: str, longest: int) -> Codec:
    def parse(text: str) -> str:
        address, _, length = text.partition("/")
        if not length:
            raise ValueError(f'"{text}" has no prefix length')
        return f"{_canonical(address, family)}/{unsigned(length, longest)}"

    return Codec("a network such as " + ("192.0.2.0/24" if longest == 32 else "2001:db8::/64"), parse)


def _gateway(family: str) -> Codec:
    def parse(text: str) -> str:
        return text if text in ("auto", "dev") else _canonical(text, family)

    return Codec(f"an {family} address, auto or dev", parse)


def _link(text: str) -> str:
    if octets(text) >= IFNAMSIZ and text[-1:] != "+":
        raise ValueError(f'"{text}" is longer than {IFNAMSIZ - 1} bytes')
    if "/" in text or text in (".", "..") or any(char.isspace() for char in text):
        raise ValueError(f'"{text}" cannot be the name of a network device')
    return text


def _flags(text: str) -> str:
    if text.lower() != "up":
        raise ValueError(f'"{text}" is unknown')
    return "up"


_HEX = frozenset("0123456789abcdefABCDEFxX")


def _mac(text: str) -> str:
    parts = text.split(":")
    if len(parts) != 6 or any(len(part) != 2 or not _HEX.issuperset(part) for part in parts):
        raise ValueError(f'"{text}" is not a MAC address')
    return text


def fill_hwaddr(text: str, draw: random.Random | None = None) -> str:
    """A MAC address with each `x` replaced by a random digit; the first byte stays a unicast one."""
    draw = draw or random.SystemRandom()
    digits = list(text)
    for at, digit in enumerate(digits):
        if digit in "xX":
            digits[at] = f"{draw.randrange(16) & (0xE if at == 1 else 0xF):x}"
    return "".join(digits)


def _vlan(text: str) -> int:
    return unsigned(text, 65535)


def _port_vlan(text: str) -> int:
    return unsigned(text, VLAN_MAX)


IPV4_ADDRESS = Codec("ADDRESS[/LENGTH] [BROADCAST], such as 10.0.3.12/24", _ipv4,
                     lambda value: str(value).partition(" ")[0])  # fmt: skip
IPV6_ADDRESS = Codec("ADDRESS[/LENGTH], such as 2001:db8::12/64", _ipv6)
IPV4_GATEWAY = _gateway("IPv4")
IPV6_GATEWAY = _gateway("IPv6")
IPV4_ROUTE = _route("IPv4", 32)
IPV6_ROUTE = _route("IPv6", 128)
LINK = Codec(f"the name of a network device, at most {IFNAMSIZ - 1} bytes", _link)
FLAGS = Codec("up", _flags)
MAC = Codec("a MAC address; each x stands for a random digit, as in 10:66:6a:xx:xx:xx", _mac)
MTU = POSITIVE
VLAN_ID = Codec("a number from 0 to 65535", _vlan)
PORT_VLAN_ID = Codec(f"a number from 0 to {VLAN_MAX}", _port_vlan)
PORT_VLAN = Codec(f"none, or a number from 0 to {VLAN_MAX}",
                  lambda text: text if text == "none" else str(_port_vlan(text)))  # fmt: skip
