"""Takes back what a plan made, entry by entry of its record: after a failed start, on stop, by whoever finds it."""

from __future__ import annotations

import os
from collections.abc import Callable
from errno import ENODEV, ENOENT, ESRCH
from typing import Any

from lxcpy.errors import LxcpyError, Origin
from lxcpy.log import Log
from lxcpy.network import facts, netlink, usernic
from lxcpy.network.wire import (
    CREATE,
    REQUEST,
    RT_SCOPE_LINK,
    RTM_DELLINK,
    RTM_DELLINKPROP,
    RTM_DELNEIGH,
    RTM_DELROUTE,
    RTM_NEWLINK,
    RTM_NEWLINKPROP,
    Attr,
    Script,
    Wire,
    family_of,
    run_tool,
)

LOG = Log("network")
Entry = dict[str, Any]
NLM_F_APPEND = 0x800
BATCH_GROUP = 0x6C78_0000  # "lx": the link group under which a batch is deleted


def ordered(record: dict[str, Any]) -> list[Entry]:
    """The entries last first; but devices of hardware before their namespace can die, then scripts, then the rest."""
    order = {"phys": 0, "script": 1}
    return sorted(reversed(record.get("undo", ())), key=lambda entry: order.get(entry["do"], 2))


def needs_netns(record: dict[str, Any]) -> bool:
    """Whether removal wants the container's namespace alive: devices are to be given back out of it.

    A device of hardware falls back to the first namespace when its own dies, a virtual one would be destroyed; and
    lxc-user-nic looks at the namespace before it removes a switch's port.
    """
    return any(entry["do"] in ("phys", "usernic") for entry in record.get("undo", ()))


def take_back(net: Wire, entry: Entry) -> None:
    """Undo one entry. What is gone is fine, what fails is logged."""
    try:
        if entry["do"] == "veth":
            delete(net, veth(net, entry))
        else:
            _UNDO[entry["do"]](net, entry)
    except (OSError, LxcpyError) as error:
        LOG.warn(f"network removal, {entry}: {error}")


def veth(net: Wire, entry: Entry) -> list[int]:
    """The index of a host end that is still there.

    The name may be another's by now, or was from the start; the address is the mark of the one we made.
    """
    found = facts.link(net.host, entry["host"])
    return [found.index] if found is not None and found.mac == entry["mac"] else []


def delete(net: Wire, indices: list[int]) -> None:
    """Delete links: one by its index, several as a group, for which the kernel waits only once."""
    try:
        if len(indices) == 1:
            net.send(net.link(RTM_DELLINK, REQUEST, [], index=indices[0]))
        elif indices:
            group: list[Attr] = [("IFLA_GROUP", BATCH_GROUP + os.getpid() % 0x10000)]
            together = [net.link(RTM_NEWLINK, REQUEST, group, index=index) for index in indices]
            net.send(*together, net.link(RTM_DELLINK, REQUEST, group))
    except netlink.Refused as error:
        if error.errno != ENODEV:
            LOG.warn(f"deleting {len(indices)} links: {error}")


def _undo_switch(net: Wire, entry: Entry) -> None:
    run_tool("ovs-vsctl", "--if-exists", "del-port", entry["bridge"], entry["host"])


def _undo_route(net: Wire, entry: Entry) -> None:
    family, index = family_of(entry["to"]), net.host_index(entry["device"])
    _tolerate(net, net.route(
        RTM_DELROUTE, index, family=family, to=entry["to"], length=entry["length"], scope=RT_SCOPE_LINK
    ))  # fmt: skip


def _undo_proxy(net: Wire, entry: Entry) -> None:
    _tolerate(net, net.neighbour(RTM_DELNEIGH, net.host_index(entry["device"]), entry["address"]))


def _tolerate(net: Wire, message: bytes) -> None:
    try:
        net.send(message)
    except netlink.Refused as error:
        if error.errno not in (ENOENT, ENODEV, ESRCH):
            raise


def _undo_script(net: Wire, entry: Entry) -> None:
    origin = entry["origin"]
    if origin is not None and not isinstance(origin, Origin):  # it has been JSON in between
        origin = Origin(origin[0], origin[1], tuple((file, line) for file, line in origin[2]))
    net.run(Script(entry["command"], entry["hook"], entry["type"], entry["parent"], entry["peer"], origin))


def _undo_phys(net: Wire, entry: Entry) -> None:
    """Give a device back: out of the container if that still lives, then its old name, MTU, address and altnames."""
    if net.netns >= 0:
        _fetch(net, entry)
    found = _find_phys(net, entry)
    if found is None:
        LOG.warn(f'the device "{entry["link"]}" did not come back from the container')
        return
    if found.name != entry["link"]:
        net.send(net.link(RTM_NEWLINK, REQUEST, [("IFLA_IFNAME", entry["link"])], index=found.index))
    attrs: list[Attr] = []
    if found.mtu != entry["mtu"]:
        attrs.append(("IFLA_MTU", entry["mtu"]))
    if entry["mac"] and found.mac != entry["mac"]:
        attrs.append(("IFLA_ADDRESS", entry["mac"]))
    if attrs:
        net.send(net.link(RTM_NEWLINK, REQUEST, attrs, index=found.index))
    _altnames(net, found, entry["altnames"])


def _altnames(net: Wire, found: facts.HostLink, wanted: list[str]) -> None:
    """Drop the alternative names that were given inside, restore the ones from before."""
    old, new = set(found.altnames) - set(wanted), set(wanted) - set(found.altnames)
    for command, flags, names in ((RTM_DELLINKPROP, REQUEST, old), (RTM_NEWLINKPROP, CREATE | NLM_F_APPEND, new)):
        if names:
            values = [("IFLA_ALT_IFNAME", name) for name in sorted(names)]
            net.send(net.link(command, flags, [("IFLA_PROP_LIST", {"attrs": values})], index=found.index))


def _fetch(net: Wire, entry: Entry) -> None:
    """Move the device from the container's namespace back to ours, under its transient name."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        sock, _ = netlink.socket_inside(net.netns)
        with sock:
            inside = facts.link(sock, index=entry["index"])
            if inside is None or not _is_same(inside, entry):
                inside = next((link for link in facts.links(sock) if _is_same(link, entry)), None)
            if inside is not None:
                attrs = [("IFLA_NET_NS_FD", home), ("IFLA_IFNAME", entry["transient"])]
                netlink.send(sock, net.link(RTM_NEWLINK, REQUEST, attrs, index=inside.index))
    finally:
        os.close(home)


def _is_same(link: facts.HostLink, entry: Entry) -> bool:
    """Whether a link is the device of the entry: by the hardware's address, else by index and name."""
    if entry["permanent"]:
        return bool(link.permanent == entry["permanent"])
    return bool(link.index == entry["index"] or link.name == entry["transient"])


def _find_phys(net: Wire, entry: Entry) -> facts.HostLink | None:
    for found in (facts.link(net.host, entry["transient"]), facts.link(net.host, entry["link"])):
        if found is not None and (_is_same(found, entry) or found.mac == entry["mac"]):
            return found
    by_index = facts.link(net.host, index=entry["index"])
    if by_index is not None and _is_same(by_index, entry):
        return by_index
    if not entry["permanent"]:
        return None
    return next((link for link in facts.links(net.host) if _is_same(link, entry)), None)


def _undo_usernic(net: Wire, entry: Entry) -> None:
    if (program := usernic.helper()) is None or net.netns < 0 or "host" not in entry:
        LOG.warn(f"the port of a veth on {entry['link']} stays: lxc-user-nic and the container's network are needed")
        return
    place = f"/proc/{os.getpid()}/fd/{net.netns}"
    usernic.run(
        program, "delete", entry["lxcpath"], entry["container"], place, "veth", entry["link"], entry["host"]
    )  # fmt: skip


_UNDO: dict[str, Callable[[Wire, Entry], None]] = {
    "phys": _undo_phys,
    "switch": _undo_switch,
    "route": _undo_route,
    "proxy": _undo_proxy,
    "script": _undo_script,
    "usernic": _undo_usernic,
}
