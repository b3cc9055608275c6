"""What ls, info and top show of a running container, whoever runs it: addresses, interfaces, numbers, links.

`found` is what Container.describe and container.states give. Import-light; each function imports what it needs.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Found = dict[str, Any]


def addresses(found: Found) -> list[tuple[str, str, str]]:
    """(interface, "inet" or "inet6", address) of global scope without lo, sorted by address as LXC sorts them."""
    if "addresses" in found:
        entries = [tuple(entry) for entry in found["addresses"]]
    else:
        from lxcpy.network import addresses as network

        try:
            netns = os.open(f"/proc/{found['pid']}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return []  # it ended meanwhile
        try:
            with network.open_socket_in(netns) as sock:
                entries = list(network.addresses(sock))
        except OSError:
            return []
        finally:
            os.close(netns)
    return sorted(entries, key=lambda entry: os.fsencode(entry[2]))


def interfaces(pid: int) -> list[str]:
    """The names of the network interfaces that a process sees, sorted."""
    try:
        with open(f"/proc/{pid}/net/dev", "rb") as file:
            lines = file.read().split(b"\n")[2:]
    except OSError:
        return []
    return sorted(os.fsdecode(line.partition(b":")[0].strip()) for line in lines if b":" in line)


def links(lxcpath: str, found: Found) -> list[tuple[str, int, int]]:
    """(host interface, bytes sent, bytes received) for each configured interface, from the container's side.

    As lxc-info shows them: a veth's host end, else the link; the list ends at the first that has none.
    """
    listed = []
    for name in _host_ends(lxcpath, found):
        if not name:
            break
        folder = f"/sys/class/net/{name}/statistics"
        try:
            numbers = []
            for direction in ("rx", "tx"):  # what the host's end received, the container sent
                with open(f"{folder}/{direction}_bytes") as file:
                    numbers.append(int(file.read()))
        except OSError:
            numbers = []
        listed.append((name, *(numbers or (-1, -1))))
    return listed


def _host_ends(lxcpath: str, found: Found) -> list[str]:
    if found["ours"]:
        nics = (found.get("network") or {}).get("nics") or []
        return [nic.get("host") if nic["type"] == "veth" else nic.get("link") for nic in nics]
    from lxcpy.runtime import lxcclient

    monitor = lxcclient.command(lxcpath, found["name"])
    names: list[str] = []
    while kind := monitor.config_item(f"lxc.net.{len(names)}.type"):
        key = "veth.pair" if kind == "veth" else "link"
        names.append(monitor.config_item(f"lxc.net.{len(names)}.{key}") or "")
    return names


def write_cgroup(lxcpath: str, found: Found, record: Found, item: str, value: str) -> None:
    """Write a file of the container's limit group. record: `cgroups` of it. Raises CgroupError, StateError."""
    from lxcpy.cgroups import control

    rule = control.program_rule(record, item, value)
    if rule is None:
        control.write(record, item, value)
        return
    from lxcpy.runtime import lxcclient
    from lxcpy.runtime import lxcprotocol as wire

    major, minor = (-1 if number is None else number for number in (rule.major, rule.minor))
    device = wire.DeviceRule(rule.type, major, minor, rule.access, rule.allow)
    lxcclient.command(lxcpath, found["name"]).add_device(device)


def cgroups(lxcpath: str, found: Found) -> Found | None:
    """The record of a container's control groups, for lxcpy.cgroups; None where there is nothing to read."""
    if found["ours"]:
        record: Found | None = found.get("cgroups")
        return record
    from lxcpy.cgroups import layout
    from lxcpy.runtime import lxcclient

    monitor = lxcclient.command(lxcpath, found["name"])
    record = {"hierarchies": {}, "payload": {}, "limit": {}}
    for hierarchy in layout.detect().hierarchies:
        name = None if hierarchy.version == 2 else hierarchy.controllers[0]
        payload = monitor.cgroup(name)
        if payload:
            record["hierarchies"][hierarchy.mount] = [hierarchy.version, *hierarchy.controllers]
            record["payload"][hierarchy.mount] = payload
            record["limit"][hierarchy.mount] = monitor.cgroup(name, limit=True) or payload
    return record
