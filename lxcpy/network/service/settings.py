"""The settings of lxcpy-net: LXC's variables in /etc/default/lxc and /etc/default/lxc-net.

These files are shell assignments. They are parsed, not run: a settings file ought not to be a program of root's. What
distributions write there is understood: quotes, references to earlier variables, comments, `export`.
"""

from __future__ import annotations

import hashlib
import ipaddress
import os
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from lxcpy.errors import NetworkError, Origin

FILES = ("/etc/default/lxc", "/etc/default/lxc-net")
MACHINE_ID = "/etc/machine-id"
ASSIGNMENT = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")
REFERENCE = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)\}|([A-Za-z_][A-Za-z0-9_]*))")


class Settings(NamedTuple):
    """What the service makes. Field names are the variables' without LXC_, in lower case."""

    use: bool = True  # USE_LXC_BRIDGE
    bridge: str = "lxcbr0"
    bridge_mac: str = "10:66:6a:00:00:00"
    addr: str = "10.0.3.1"
    netmask: str = "255.255.255.0"
    network: str = "10.0.3.0/24"
    dhcp_range: str = "10.0.3.2,10.0.3.254"
    dhcp_max: str = "253"
    dhcp_confile: str = ""
    dhcp_ping: bool = True
    domain: str = ""
    use_nft: bool = True
    ipv6_enable: bool = True
    ipv6_addr: str = ""
    ipv6_mask: str = "64"
    ipv6_network: str = ""
    ipv6_nat: bool = True
    origins: Mapping[str, Origin] = {}

    @property
    def length(self) -> int:
        """The IPv4 prefix length."""
        return ipaddress.ip_network(f"0.0.0.0/{self.netmask}").prefixlen

    @property
    def ipv6(self) -> bool:
        """Whether the bridge gets an IPv6 address: enabled, and address, mask and network all given."""
        return self.ipv6_enable and bool(self.ipv6_addr and self.ipv6_mask and self.ipv6_network)


_BOOLEANS = ("dhcp_ping", "use_nft", "ipv6_enable", "ipv6_nat")


def words(text: str, known: Mapping[str, str]) -> str:
    """The value of an assignment: the first shell word of `text`, quotes removed, references to `known` filled in.

    Raises ValueError for what only a shell can tell: command substitutions, `${NAME:-…}` and unended quotes.
    """
    value, quote, position = "", "", 0
    while position < len(text):
        letter = text[position]
        if quote:
            if letter == quote:
                quote = ""
                position += 1
                continue
        elif letter in "'\"":
            quote = letter
            position += 1
            continue
        elif letter.isspace() or letter in ";&|":  # a # ends nothing in mid-word
            break
        if letter == "\\" and quote != "'" and position + 1 < len(text):
            following = text[position + 1]
            value += following if not quote or following in '"\\$`' else letter + following
            position += 2
            continue
        if quote != "'" and letter in "$`":
            found = REFERENCE.match(text, position)
            if found is None:
                raise ValueError(f"{text.strip()} needs a shell")
            value += known.get(found[1] or found[2], "")
            position = found.end()
            continue
        value += letter
        position += 1
    if quote:
        raise ValueError(f"{text.strip()} has a quote without its end")
    return value


def read(path: str, values: dict[str, str], origins: dict[str, Origin]) -> None:
    """Add the assignments of one file; a missing file has none. Raises NetworkError with the line that is not one."""
    try:
        with open(path, errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise NetworkError(f'cannot read "{path}": {os.strerror(error.errno or 0)}') from error
    for number, line in enumerate(lines, 1):
        found = ASSIGNMENT.match(line)
        if found is None:
            continue
        try:
            values[found[1]] = words(found[2], values)
        except ValueError as error:
            if found[1] in _NAMES:
                raise NetworkError(
                    f"{found[1]}: {error}", at=Origin(path, number), hint="write the value itself; the file is not run"
                ) from None
            continue
        origins[found[1]] = Origin(path, number)


_NAMES = {"USE_LXC_BRIDGE": "use", **{f"LXC_{name.upper()}": name for name in Settings._fields if name != "origins"}}


def load(files: tuple[str, ...] = FILES, machine_id: str = MACHINE_ID) -> Settings:
    """The settings of this machine. Raises NetworkError with the line of a value that cannot be."""
    values: dict[str, str] = {}
    origins: dict[str, Origin] = {}
    prefix = ipv6_prefix(machine_id)
    for path in files:
        read(path, values, origins)
    found: dict[str, object] = {
        "ipv6_addr": f"{prefix}::1",
        "ipv6_network": f"{prefix}::/{values.get('LXC_IPV6_MASK', '64')}",
    }
    for variable, field in _NAMES.items():
        if variable in values and variable != "LXC_USE":
            found[field] = values[variable] == "true" if field in (*_BOOLEANS, "use") else values[variable]
    settings = Settings(**found, origins=origins)  # type: ignore[arg-type]
    check(settings)
    return settings


def ipv6_prefix(machine_id: str = MACHINE_ID) -> str:
    """A /64 of this machine's own (RFC 4193), derived from its machine id as LXC derives it."""
    try:
        with open(machine_id, "rb") as file:
            own = file.read()
    except OSError:
        own = b""
    digest = hashlib.sha256(b"LXC_IPV6_PREFIX\n" + own).hexdigest()
    return f"fd{digest[0:2]}:{digest[2:6]}:{digest[6:10]}:{digest[10:14]}"


def check(settings: Settings) -> None:
    """Values that the kernel or dnsmasq would refuse. Raises NetworkError."""
    for field, make in _CHECKS.items():
        value = getattr(settings, field)
        if not value and field.startswith("ipv6"):
            continue
        try:
            make(value)
        except ValueError as error:
            variable = f"LXC_{field.upper()}"
            raise NetworkError(f'{variable}: "{value}": {error}', at=settings.origins.get(variable)) from None


def _bridge(value: str) -> None:
    if not value or len(value.encode()) > 15 or "/" in value or any(letter.isspace() for letter in value):
        raise ValueError("not the name of a link")


def _range(value: str) -> None:
    for address in value.split(",")[:2]:
        ipaddress.IPv4Address(address.strip())


_CHECKS: dict[str, Callable[[str], object]] = {
    "bridge": _bridge,
    "addr": ipaddress.IPv4Address,
    "netmask": lambda value: ipaddress.ip_network(f"0.0.0.0/{value}"),
    "network": lambda value: ipaddress.IPv4Network(value, strict=False),
    "dhcp_range": _range,
    "dhcp_max": int,
    "ipv6_addr": ipaddress.IPv6Address,
    "ipv6_network": lambda value: ipaddress.IPv6Network(value, strict=False),
    "ipv6_mask": int,
}
