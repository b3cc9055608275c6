"""Names and hardware addresses: those given, and those drawn."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable

from lxcpy.config.model import Nic
from lxcpy.errors import NetworkError, Origin
from lxcpy.network.facts import Facts

ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


def names_inside(nics: list[Nic], at: Callable[[str], Origin | None]) -> dict[int, str]:
    """The names inside: those given, then eth0, eth1, … around them, as the kernel would fill in eth%d."""
    names: dict[int, str] = {}
    for nic in nics:
        if nic.type == "empty":
            names[nic.index] = "lo"
        elif nic.name and "%d" not in nic.name:
            names[nic.index] = nic.name
        elif nic.type == "phys" and not nic.name and nic.link:
            names[nic.index] = nic.link
    for nic in nics:
        if nic.index not in names:
            pattern = nic.name or "eth%d"
            used = set(names.values())
            number = next(n for n in range(len(nics) + 1) if pattern.replace("%d", str(n), 1) not in used)
            names[nic.index] = pattern.replace("%d", str(number), 1)
    for nic in nics:
        twin = next(
            (other for other in nics if other.index < nic.index and names[other.index] == names[nic.index]), None
        )
        if twin is not None and names[nic.index] != "lo":
            raise NetworkError(
                f'lxc.net.{nic.index}: "{names[nic.index]}" is the name of lxc.net.{twin.index} already',
                at=at(f"lxc.net.{nic.index}.name"),
            )
    return names


def complete_mac(template: str, draw: Callable[[int], bytes]) -> str:
    """A hardware address as `aa:bb:cc:dd:ee:ff`: x digits drawn, the first octet kept even. Raises ValueError."""
    text = template.strip().lower()
    digits = iter(draw(len(text)).hex())
    text = "".join(next(digits) if letter == "x" else letter for letter in text)
    parts = text.split(":") if ":" in text else [text[n : n + 2] for n in range(0, len(text), 2)]
    if len(parts) != 6 or not all(1 <= len(part) <= 2 for part in parts):
        raise ValueError(f'"{template}" is not a hardware address')
    octets = [int(part, 16) for part in parts]
    if "x" in template.lower().split(":")[0][-1:]:
        octets[0] &= 0xFE
    return ":".join(f"{octet:02x}" for octet in octets)


def random_name(prefix: str, facts: Facts, length: int = 6) -> str:
    """A free device name: `prefix` and random letters and digits."""
    while True:
        name = prefix + "".join(ALPHABET[byte % len(ALPHABET)] for byte in facts.random(length))
        if not facts.taken(name):
            return name


def bare(value: str) -> str:
    """The address of `ADDR/LEN [BROADCAST]`."""
    return value.split()[0].split("/")[0]


def contains(value: str, address: str) -> bool:
    """Whether `ADDR/LEN [BROADCAST]` puts `address` on the link."""
    return ipaddress.ip_address(address) in ipaddress.ip_interface(value.split()[0]).network
