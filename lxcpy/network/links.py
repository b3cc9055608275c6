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
from dataclasses import replace
from errno import EEXIST
from typing import Any

from lxcpy.errors import NetworkError, meaning
from lxcpy.log import Log
from lxcpy.network import netlink, undo
from lxcpy.network.plan import NetworkPlan
from lxcpy.network.steps import Inside, RunScript, Step
from lxcpy.network.wire import (
    CREATE,
    REQUEST,
    RT_SCOPE_UNIVERSE,
    RTM_DELNEIGH,
    RTM_DELROUTE,
    RTM_NEWADDR,
    Attr,
    Script,
    family_of,
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
        self._hosts: dict[str, str] = {}  # the host ends, by the container's, whose names somebody else chose
        self._host: str | None = None  # the last of them

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

    def learn(self, name: str, host: str) -> None:
        self._hosts[name] = self._host = host

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
        done: list[Step] = []
        with ExitStack() as stack:
            for step in plan.host:
                if isinstance(step, RunScript) and step.script.type == "veth" and step.script.peer is None:
                    step = replace(step, script=replace(step.script, peer=self._host))
                LOG.debug(str(step))
                try:
                    step.apply(self)
                except OSError as error:
                    raise _explain(step, error) from error
                done.append(step)
                entry = step.undo()
                if entry is not None:
                    stack.callback(undo.take_back, self, entry)
            self._configure(plan.inside)
            stack.pop_all()
        record = replace(plan, host=tuple(done)).record
        for item in (*record["nics"], *record["undo"]):
            if item.get("name") in self._hosts:
                item["host"] = self._hosts[item["name"]]
        return record

    def _configure(self, inside: Sequence[Inside]) -> None:
        """The container's side: one visit for the socket, one datagram for all."""
        if not inside:
            return
        names = dict.fromkeys(step.name for step in inside)
        try:
            sock, self._indices = netlink.socket_inside(self.netns, names)
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
        """Remove several at once. The kernel waits for a grace period (15 ms) once and not for each veth.

        A veth also dies by itself, some 20 to 70 ms after the last process and socket of the container's namespace.
        """
        doomed: list[int] = []
        for record, netns in records:
            self.netns = -1 if netns is None else netns
            for entry in undo.ordered(record):
                if entry["do"] == "veth":
                    doomed += undo.veth(self, entry)
                else:
                    undo.take_back(self, entry)
        undo.delete(self, doomed)


def _explain(step: Step | Inside, error: OSError) -> NetworkError:
    """A step that failed, as a sentence."""
    words = getattr(error, "words", "")
    text = f"{meaning(error)} ({words})" if words else meaning(error)
    hint = None
    if error.errno == EEXIST and hasattr(step, "host"):
        hint = f"a device {step.host} exists already; lxc.net.[i].veth.pair must be unique"
    return NetworkError(f"network: {step}: {text}", at=step.at, hint=hint)
