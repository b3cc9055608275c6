"""Links made and removed through rtnetlink: the only module that imports pyroute2.

pyroute2's message classes encode the requests; its sockets are not used. They run an asyncio loop each in 0.9 (0.3 to
1 ms a call, a thread in some versions), and a plain socket serves all versions alike and is safe in a forked child. Its
package is not imported whole either: that costs 25 MB and 120 ms, for the supervisor as for each `lxcpy-net`, the four
message modules 4 MB and 23 ms.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
import types
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from errno import EEXIST, ENODEV, ENOENT
from typing import Any

from lxcpy.errors import LxcpyError, NetworkError, Origin, meaning
from lxcpy.kernel.namespace import CLONE_NEWNET, setns
from lxcpy.log import Log
from lxcpy.network import facts, netlink
from lxcpy.network.plan import NetworkPlan
from lxcpy.network.steps import (
    CREATE,
    REQUEST,
    RT_SCOPE_LINK,
    RT_SCOPE_UNIVERSE,
    RTM_DELLINK,
    RTM_DELNEIGH,
    RTM_DELROUTE,
    RTM_NEWADDR,
    RTM_NEWLINK,
    Attr,
    Inside,
    Script,
    Step,
    family_of,
    run_tool,
)


def _message_classes() -> tuple[Any, Any, Any, Any]:
    """pyroute2's message modules, loaded beside its package's __init__ unless somebody has loaded that already."""
    bare = "pyroute2" not in sys.modules
    if bare:
        spec = importlib.util.find_spec("pyroute2")
        if spec is None or spec.submodule_search_locations is None:
            raise ImportError("pyroute2 is not installed")
        package = types.ModuleType("pyroute2")
        package.__path__ = list(spec.submodule_search_locations)
        package.__spec__ = spec
        sys.modules["pyroute2"] = package
    try:
        from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
        from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
        from pyroute2.netlink.rtnl.ifinfmsg.plugins.ipvlan import ipvlan
        from pyroute2.netlink.rtnl.ndmsg import ndmsg
        from pyroute2.netlink.rtnl.rtmsg import rtmsg
    finally:
        if bare:
            del sys.modules["pyroute2"]  # who imports it later gets the whole
    if not any(name == "IFLA_IPVLAN_FLAGS" for name, *_ in ipvlan.nla_map):
        ipvlan.nla_map = (*ipvlan.nla_map, ("IFLA_IPVLAN_FLAGS", "uint16"))
    return ifinfmsg, ifaddrmsg, rtmsg, ndmsg


_ifinfmsg, _ifaddrmsg, _rtmsg, _ndmsg = _message_classes()
LOG = Log("network")
IFF_UP = 1
RT_TABLE_MAIN, RTPROT_BOOT, RTN_UNICAST = 254, 3, 1
NTF_PROXY, NDA_DST = 0x08, 1
BATCH_GROUP = 0x6C78_0000  # "lx": the link group under which a batch is deleted
Runner = Callable[[Script], None]


def _encode(message: Any, command: int, flags: int, attrs: Sequence[Attr]) -> bytes:
    message["header"]["type"], message["header"]["flags"] = command, flags
    message["attrs"] = list(attrs)
    message.encode()
    return bytes(message.data)


def link_message(
    command: int, flags: int, attrs: Sequence[Attr], *, index: int = 0, up: bool | None = None, family: int = 0
) -> bytes:
    """RTM_*LINK. `up` raises the link or takes it down, None leaves it."""
    message = _ifinfmsg()
    message["family"], message["index"] = family, index
    if up is not None:
        message["flags"], message["change"] = (IFF_UP if up else 0), IFF_UP
    return _encode(message, command, flags, attrs)


def address_message(
    index: int, address: str, length: int, broadcast: str | None = None, *, command: int = RTM_NEWADDR, flags: int = 0
) -> bytes:
    """RTM_*ADDR. flags: IFA_F_NODAD (2) gives an IPv6 address that can be used at once."""
    message = _ifaddrmsg()
    message["family"], message["prefixlen"], message["index"] = family_of(address), length, index
    message["flags"] = flags
    attrs = [("IFA_LOCAL", address), ("IFA_ADDRESS", address)]
    if broadcast:
        attrs.append(("IFA_BROADCAST", broadcast))
    return _encode(message, command, CREATE if command == RTM_NEWADDR else REQUEST, attrs)


def route_message(
    command: int, index: int, *, family: int, to: str | None = None, length: int = 0, via: str | None = None,
    scope: int = RT_SCOPE_UNIVERSE,
) -> bytes:  # fmt: skip
    """RTM_*ROUTE in the main table."""
    message = _rtmsg()
    message["family"], message["dst_len"], message["table"] = family, length, RT_TABLE_MAIN
    message["proto"], message["scope"], message["type"] = RTPROT_BOOT, scope, RTN_UNICAST
    attrs: list[Attr] = [("RTA_OIF", index)]
    if to is not None:
        attrs.append(("RTA_DST", to))
    if via is not None:
        attrs.append(("RTA_GATEWAY", via))
    return _encode(message, command, REQUEST if command == RTM_DELROUTE else CREATE, attrs)


def neighbour_message(command: int, index: int, address: str) -> bytes:
    """RTM_*NEIGH of a proxy entry."""
    message = _ndmsg()
    message["family"], message["ifindex"] = family_of(address), index
    message["flags"], message["ndm_type"] = NTF_PROXY, NDA_DST
    return _encode(message, command, REQUEST if command == RTM_DELNEIGH else CREATE, [("NDA_DST", address)])


def socket_inside(netns: int, names: Iterable[str] = ()) -> tuple[socket.socket, dict[str, int]]:
    """A netlink socket of the namespace behind descriptor `netns`, and the indices of these devices in it.

    The calling thread visits the namespace and comes back; other threads are not moved. Raises OSError.
    """
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(netns, CLONE_NEWNET)
        try:
            sock = netlink.open_socket()
            try:
                indices = {name: socket.if_nametoindex(name) for name in names}
            except OSError:
                sock.close()
                raise
        finally:
            setns(home, CLONE_NEWNET)
    finally:
        os.close(home)
    return sock, indices


class Network:
    """The netlink socket of one start or one removal; implements steps.Wire. Each process opens its own."""

    link = staticmethod(link_message)
    address = staticmethod(address_message)
    route = staticmethod(route_message)
    neighbour = staticmethod(neighbour_message)

    def __init__(self, run: Runner | None = None) -> None:
        """`run` executes script.up and script.down; without it they are skipped. Raises OSError."""
        self.host = netlink.open_socket()
        self.netns = -1
        self.pid = 0
        self._run = run
        self._indices: dict[str, int] = {}

    def __enter__(self) -> Network:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the host's socket."""
        self.host.close()

    # steps.Wire

    def send(self, *messages: bytes) -> None:
        netlink.send(self.host, *messages)

    def host_index(self, name: str) -> int:
        return socket.if_nametoindex(name)

    def container_index(self, name: str) -> int:
        return self._indices[name]

    def write_sysctl(self, path: str, value: str) -> None:
        fd = os.open(f"/proc/sys/net/{path}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, value.encode())
        finally:
            os.close(fd)

    def run(self, script: Script) -> None:
        if self._run is not None:
            self._run(script)

    # create

    def create(self, plan: NetworkPlan, *, pid: int, netns: int) -> dict[str, Any]:
        """Carry out a plan for the new namespace behind descriptor `netns`, in which `pid` lives; returns the record.

        Nothing is left behind on failure. Raises NetworkError with the failing step's line; what `run` raises passes.
        """
        self.netns, self.pid = netns, pid
        with ExitStack() as undo:
            for step in plan.host:
                LOG.debug(str(step))
                try:
                    step.apply(self)
                except OSError as error:
                    raise _explain(step, error) from error
                entry = step.undo()
                if entry is not None and entry["do"] != "script":
                    undo.callback(self._undo, entry)
            self._configure(plan.inside)
            undo.pop_all()
        return plan.record

    def _configure(self, inside: Sequence[Inside]) -> None:
        """The container's side: one visit for the socket, one datagram for all."""
        if not inside:
            return
        names = dict.fromkeys(step.name for step in inside)
        try:
            sock, self._indices = socket_inside(self.netns, names)
        except OSError as error:
            raise NetworkError(
                f"cannot configure {', '.join(names)} in the container's network: {meaning(error)}", at=inside[0].at
            ) from error
        with sock:
            for step in inside:
                LOG.debug(f"container: {step}")
            try:
                netlink.send(sock, *[step.message(self) for step in inside])
            except netlink.Refused as error:
                raise _explain(inside[error.number], error) from error

    # remove

    def remove(self, record: dict[str, Any], netns: int | None = None) -> None:
        """Take back what a record names. What is gone already is fine, and what fails is logged.

        netns: the container's namespace while it lives; it saves virtual devices of type phys from dying with it.
        """
        self.remove_many([(record, netns)])

    def remove_many(self, records: Iterable[tuple[dict[str, Any], int | None]]) -> None:
        """Remove several at once. The kernel waits for a grace period (15 ms) once and not for each veth."""
        doomed: list[int] = []
        for record, netns in records:
            self.netns = -1 if netns is None else netns
            for entry in sorted(reversed(record.get("undo", ())), key=lambda entry: _ORDER.get(entry["do"], 0)):
                try:
                    if entry["do"] == "veth":
                        found = facts.link(self.host, entry["host"])
                        if found is not None and found.mac == entry["mac"]:
                            doomed.append(found.index)
                    else:
                        self._undo(entry)
                except (OSError, LxcpyError) as error:
                    LOG.warn(f"network removal, {entry}: {error}")
        self._delete(doomed)

    def _delete(self, indices: list[int]) -> None:
        try:
            if len(indices) == 1:
                self.send(link_message(RTM_DELLINK, REQUEST, [], index=indices[0]))
            elif indices:
                group = BATCH_GROUP + os.getpid() % 0x10000
                gather = [link_message(RTM_NEWLINK, REQUEST, [("IFLA_GROUP", group)], index=n) for n in indices]
                self.send(*gather, link_message(RTM_DELLINK, REQUEST, [("IFLA_GROUP", group)]))
        except netlink.Refused as error:
            if error.errno != ENODEV:
                LOG.warn(f"deleting {len(indices)} links: {error}")

    def _undo(self, entry: dict[str, Any]) -> None:
        _UNDO[entry["do"]](self, entry)


def create(plan: NetworkPlan, *, pid: int, netns: int, script: Runner | None = None) -> dict[str, Any]:
    """Network.create with a socket of its own; `script` runs script.up."""
    with Network(script) as network:
        return network.create(plan, pid=pid, netns=netns)


def remove(record: dict[str, Any], *, netns: int | None = None, script: Runner | None = None) -> None:
    """Network.remove with a socket of its own; `script` runs script.down. Raises NetworkError without a socket."""
    try:
        network = Network(script)
    except OSError as error:
        raise NetworkError(f"cannot open a netlink socket: {meaning(error)}") from error
    with network:
        network.remove(record, netns)


def lingers(record: dict[str, Any] | None) -> bool:
    """Whether removal would have something to do: a host end still there, a route, a proxy entry, a script, a device.

    Host ends die with the container's namespace, some 20 to 50 ms after its last process, without anybody's doing.
    """
    return any(entry["do"] != "veth" or facts.name_taken(entry["host"]) for entry in (record or {}).get("undo", ()))


def _explain(step: Step | Inside, error: OSError) -> NetworkError:
    """A step that failed, as a sentence."""
    words = getattr(error, "words", "")
    text = f"{meaning(error)} ({words})" if words else meaning(error)
    hint = None
    if error.errno == EEXIST and hasattr(step, "host"):
        hint = f"a device {step.host} exists already; lxc.net.[i].veth.pair must be unique"
    return NetworkError(f"network: {step}: {text}", at=step.at, hint=hint)


def _undo_veth(net: Network, entry: dict[str, Any]) -> None:
    # The name may be another's by now, or was from the start; the address is the mark of the one we made.
    found = facts.link(net.host, entry["host"])
    if found is not None and found.mac == entry["mac"]:
        net._delete([found.index])


def _undo_switch(net: Network, entry: dict[str, Any]) -> None:
    run_tool("ovs-vsctl", "--if-exists", "del-port", entry["bridge"], entry["host"])


def _undo_route(net: Network, entry: dict[str, Any]) -> None:
    family, index = family_of(entry["to"]), net.host_index(entry["device"])
    _tolerate(net, route_message(
        RTM_DELROUTE, index, family=family, to=entry["to"], length=entry["length"], scope=RT_SCOPE_LINK
    ))  # fmt: skip


def _undo_proxy(net: Network, entry: dict[str, Any]) -> None:
    _tolerate(net, neighbour_message(RTM_DELNEIGH, net.host_index(entry["device"]), entry["address"]))


def _tolerate(net: Network, message: bytes) -> None:
    try:
        net.send(message)
    except netlink.Refused as error:
        if error.errno not in (ENOENT, ENODEV, 3):  # ESRCH: no such route
            raise


def _undo_script(net: Network, entry: dict[str, Any]) -> None:
    origin = entry["origin"]
    if origin is not None and not isinstance(origin, Origin):  # it has been JSON in between
        origin = Origin(origin[0], origin[1], tuple((file, line) for file, line in origin[2]))
    net.run(Script(entry["command"], entry["hook"], entry["type"], entry["parent"], entry["peer"], origin))


def _undo_phys(net: Network, entry: dict[str, Any]) -> None:
    """Give a device back: out of the container if that still lives, then its old name, MTU, address and altnames."""
    if net.netns >= 0:
        _fetch(net, entry)
    found = _find_phys(net, entry)
    if found is None:
        LOG.warn(f'the device "{entry["link"]}" did not come back from the container')
        return
    if found.name != entry["link"]:
        net.send(link_message(RTM_NEWLINK, REQUEST, [("IFLA_IFNAME", entry["link"])], index=found.index))
    attrs: list[Attr] = []
    if found.mtu != entry["mtu"]:
        attrs.append(("IFLA_MTU", entry["mtu"]))
    if entry["mac"] and found.mac != entry["mac"]:
        attrs.append(("IFLA_ADDRESS", entry["mac"]))
    if attrs:
        net.send(link_message(RTM_NEWLINK, REQUEST, attrs, index=found.index))
    _altnames(net, found, entry["altnames"])


def _altnames(net: Network, found: facts.HostLink, wanted: list[str]) -> None:
    """Drop the alternative names that were given inside, restore the ones from before."""
    old, new = set(found.altnames) - set(wanted), set(wanted) - set(found.altnames)
    for command, flags, names in ((109, REQUEST, old), (108, CREATE | 0x800, new)):  # RTM_DELLINKPROP, RTM_NEWLINKPROP
        if names:
            values = [("IFLA_ALT_IFNAME", name) for name in sorted(names)]
            net.send(link_message(command, flags, [("IFLA_PROP_LIST", {"attrs": values})], index=found.index))


def _fetch(net: Network, entry: dict[str, Any]) -> None:
    """Move the device from the container's namespace back to ours, under its transient name."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        sock, _ = socket_inside(net.netns)
        with sock:
            inside = facts.link(sock, index=entry["index"])
            if inside is None or not _is_same(inside, entry):
                inside = next((link for link in facts.links(sock) if _is_same(link, entry)), None)
            if inside is not None:
                attrs = [("IFLA_NET_NS_FD", home), ("IFLA_IFNAME", entry["transient"])]
                netlink.send(sock, link_message(RTM_NEWLINK, REQUEST, attrs, index=inside.index))
    finally:
        os.close(home)


def _is_same(link: facts.HostLink, entry: dict[str, Any]) -> bool:
    """Whether a link is the device of the entry: by the hardware's address, else by index and name."""
    if entry["permanent"]:
        return bool(link.permanent == entry["permanent"])
    return bool(link.index == entry["index"] or link.name == entry["transient"])


def _find_phys(net: Network, entry: dict[str, Any]) -> facts.HostLink | None:
    for found in (facts.link(net.host, entry["transient"]), facts.link(net.host, entry["link"])):
        if found is not None and (_is_same(found, entry) or found.mac == entry["mac"]):
            return found
    by_index = facts.link(net.host, index=entry["index"])
    if by_index is not None and _is_same(by_index, entry):
        return by_index
    if not entry["permanent"]:
        return None
    return next((link for link in facts.links(net.host) if _is_same(link, entry)), None)


# scripts first, and devices of hardware before they could be lost with their namespace
_ORDER = {"script": -1, "phys": -2}
_UNDO: dict[str, Callable[[Network, dict[str, Any]], None]] = {
    "veth": _undo_veth,
    "phys": _undo_phys,
    "switch": _undo_switch,
    "route": _undo_route,
    "proxy": _undo_proxy,
    "script": _undo_script,
}
