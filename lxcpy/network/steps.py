"""The steps of a network plan: each says what it does, does it, and names what undoes it.

A step knows no pyroute2: it gives kernel names and values to a Wire, which `links` implements. Host steps are applied
one by one, as a script may have to run between them; container steps are one message each, sent together through a
socket inside the container's namespace.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from lxcpy.errors import Origin
from lxcpy.network.wire import (
    AF_BRIDGE,
    AF_INET,
    CREATE,
    REQUEST,
    RT_SCOPE_LINK,
    RTM_DELLINK,
    RTM_DELLINKPROP,
    RTM_NEWLINK,
    RTM_NEWNEIGH,
    RTM_NEWROUTE,
    RTM_SETLINK,
    Attr,
    Wire,
    family_of,
    info,
    run_tool,
    send_patiently,
)
from lxcpy.network.wire import Script as Script

BRIDGE_FLAGS_MASTER, BRIDGE_VLAN_INFO_PVID, BRIDGE_VLAN_INFO_UNTAGGED = 1, 2, 4
MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
IPVLAN_ISOLATIONS = {"bridge": 0, "private": 1, "vepa": 2}


@dataclass(frozen=True)
class Step:
    """One thing to do on the host. `at` is the config line that asked for it."""

    at: Origin | None = field(default=None, kw_only=True, compare=False)

    def apply(self, wire: Wire) -> None:
        """Do it. Raises OSError, or NetworkError where more can be said."""
        raise NotImplementedError

    def undo(self) -> dict[str, Any] | None:
        """The record entry by which links.remove takes it back, None where nothing stays."""
        return None


@dataclass(frozen=True)
class CreateVeth(Step):
    """A pair: the host end up and on its bridge, the other made inside the container, all in one message."""

    host: str
    name: str
    host_mac: str
    mac: str
    mtu: int | None = None
    bridge: str | None = None  # a bridge of the kernel; an Open vSwitch port is a step of its own
    bridge_index: int = 0
    rx: int | None = None  # queues of the container's end
    tx: int | None = None

    def apply(self, wire: Wire) -> None:
        peer: list[Attr] = [("IFLA_IFNAME", self.name), ("IFLA_ADDRESS", self.mac), ("IFLA_NET_NS_FD", wire.netns)]
        attrs: list[Attr] = [("IFLA_IFNAME", self.host), ("IFLA_ADDRESS", self.host_mac)]
        if self.mtu:
            peer.append(("IFLA_MTU", self.mtu))
            attrs.append(("IFLA_MTU", self.mtu))
        if self.rx:
            peer.append(("IFLA_NUM_RX_QUEUES", self.rx))
            attrs.append(("IFLA_NUM_TX_QUEUES", self.rx))
        if self.tx:
            peer.append(("IFLA_NUM_TX_QUEUES", self.tx))
            attrs.append(("IFLA_NUM_RX_QUEUES", self.tx))
        if self.bridge_index:
            attrs.append(("IFLA_MASTER", self.bridge_index))
        attrs.append(info("veth", [("VETH_INFO_PEER", {"attrs": peer})]))
        # The other end cannot be up yet: veth_open() says ENOTCONN until the pair is complete. Until it is, the host
        # end has no carrier, so neither IPv6 nor the bridge begins anything on it.
        send_patiently(wire, wire.link(RTM_NEWLINK, CREATE, attrs, up=True))

    def undo(self) -> dict[str, Any]:
        return {"do": "veth", "host": self.host, "mac": self.host_mac}

    def __str__(self) -> str:
        text = f"veth {self.host} ({self.host_mac}) to {self.name} ({self.mac}) in the container"
        if self.mtu:
            text += f", mtu {self.mtu}"
        return text + (f", on bridge {self.bridge}" if self.bridge else "")


@dataclass(frozen=True)
class CreateLink(Step):
    """A macvlan, ipvlan or vlan on a link of the host, made inside the container with its final name."""

    kind: str
    name: str
    link: str
    link_index: int
    mode: str = ""  # macvlan and ipvlan
    isolation: str = "bridge"  # ipvlan
    vlan: int = 0
    mac: str | None = None
    mtu: int | None = None

    def apply(self, wire: Wire) -> None:
        data: list[Attr] = []
        if self.kind == "macvlan":
            data.append(("IFLA_MACVLAN_MODE", MACVLAN_MODES[self.mode]))
        elif self.kind == "ipvlan":
            data.append(("IFLA_IPVLAN_MODE", IPVLAN_MODES[self.mode]))
            if IPVLAN_ISOLATIONS[self.isolation]:
                data.append(("IFLA_IPVLAN_FLAGS", IPVLAN_ISOLATIONS[self.isolation]))
        else:
            data.append(("IFLA_VLAN_ID", self.vlan))
        attrs: list[Attr] = [("IFLA_IFNAME", self.name), ("IFLA_LINK", self.link_index), ("IFLA_NET_NS_FD", wire.netns)]
        if self.mac:
            attrs.append(("IFLA_ADDRESS", self.mac))
        if self.mtu:
            attrs.append(("IFLA_MTU", self.mtu))
        wire.send(wire.link(RTM_NEWLINK, CREATE, [*attrs, info(self.kind, data)]))

    def __str__(self) -> str:
        how = f"VLAN {self.vlan}" if self.kind == "vlan" else f"mode {self.mode}"
        if self.kind == "ipvlan" and self.isolation != "bridge":
            how += f", {self.isolation}"
        return f"{self.kind} {self.name} in the container on {self.link} ({how})"


@dataclass(frozen=True)
class MoveLink(Step):
    """A device of the host moved into the container, with what is needed to give it back."""

    link: str
    index: int
    name: str
    transient: str  # its name on the way back, when it may meet one that took its old name
    mac: str = ""
    permanent: str = ""
    kept_mtu: int = 1500
    altnames: tuple[str, ...] = ()
    mtu: int | None = None
    radio: str = ""

    def apply(self, wire: Wire) -> None:
        if self.altnames:  # the container gets a clean device
            names = [("IFLA_ALT_IFNAME", name) for name in self.altnames]
            wire.send(wire.link(RTM_DELLINKPROP, REQUEST, [("IFLA_PROP_LIST", {"attrs": names})], index=self.index))
        if self.mtu:
            wire.send(wire.link(RTM_NEWLINK, REQUEST, [("IFLA_MTU", self.mtu)], index=self.index))
        if self.radio:  # a wireless device moves with its phy, and only so
            run_tool("iw", "phy", self.radio, "set", "netns", str(wire.pid), at=self.at)
            return
        attrs: list[Attr] = [("IFLA_NET_NS_FD", wire.netns), ("IFLA_IFNAME", self.name)]
        wire.send(wire.link(RTM_NEWLINK, REQUEST, attrs, index=self.index))

    def undo(self) -> dict[str, Any]:
        return {
            "do": "phys", "link": self.link, "index": self.index, "name": self.name, "transient": self.transient,
            "mac": self.mac, "permanent": self.permanent, "mtu": self.kept_mtu, "altnames": list(self.altnames),
        }  # fmt: skip

    def __str__(self) -> str:
        mtu = f", mtu {self.mtu}" if self.mtu else ""
        return f"move {self.link} into the container as {self.name}{mtu}"


@dataclass(frozen=True)
class Sysctl(Step):
    """Write /proc/sys/net/PATH. `optional`: the kernel may lack it."""

    path: str
    value: str
    optional: bool = False

    def apply(self, wire: Wire) -> None:
        try:
            wire.write_sysctl(self.path, self.value)
        except FileNotFoundError:
            if not self.optional:
                raise

    def __str__(self) -> str:
        return f"write {self.value} to /proc/sys/net/{self.path}"


@dataclass(frozen=True)
class PortVlan(Step):
    """A VLAN of a bridge port: added tagged, added as the untagged one, or removed."""

    host: str
    vlan: int
    how: str  # tagged, untagged, remove

    def apply(self, wire: Wire) -> None:
        flags = BRIDGE_VLAN_INFO_PVID | BRIDGE_VLAN_INFO_UNTAGGED if self.how != "tagged" else 0
        spec: list[Attr] = [
            ("IFLA_BRIDGE_FLAGS", BRIDGE_FLAGS_MASTER),
            ("IFLA_BRIDGE_VLAN_INFO", {"vid": self.vlan, "flags": flags}),
        ]
        command = RTM_DELLINK if self.how == "remove" else RTM_SETLINK
        attrs: list[Attr] = [("IFLA_AF_SPEC", {"attrs": spec})]
        wire.send(wire.link(command, REQUEST, attrs, index=wire.host_index(self.host), family=AF_BRIDGE))

    def __str__(self) -> str:
        if self.how == "remove":
            return f"take VLAN {self.vlan} from bridge port {self.host}"
        return f"VLAN {self.vlan} {self.how} on bridge port {self.host}"


@dataclass(frozen=True)
class SwitchPort(Step):
    """A port of an Open vSwitch bridge, which its own tool adds."""

    bridge: str
    host: str
    settings: tuple[str, ...] = ()  # vlan_mode=…, tag=…, trunks=…

    def apply(self, wire: Wire) -> None:
        run_tool("ovs-vsctl", "add-port", self.bridge, self.host, at=self.at)
        if self.settings:
            run_tool("ovs-vsctl", "set", "port", self.host, *self.settings, at=self.at)

    def undo(self) -> dict[str, Any]:
        return {"do": "switch", "bridge": self.bridge, "host": self.host}

    def __str__(self) -> str:
        return " ".join(["Open vSwitch port", self.host, "on", self.bridge, *self.settings])


@dataclass(frozen=True)
class HostRoute(Step):
    """A route of the host to the container through a device: the veth's host end, or lo for an ipvlan's l2proxy."""

    to: str
    length: int
    device: str
    kept: bool = False  # the device outlives the container, so the route must be taken back

    def apply(self, wire: Wire) -> None:
        index, family = wire.host_index(self.device), family_of(self.to)
        send_patiently(
            wire,
            wire.route(RTM_NEWROUTE, index, family=family, to=self.to, length=self.length, scope=RT_SCOPE_LINK),
        )

    def undo(self) -> dict[str, Any] | None:
        return {"do": "route", "to": self.to, "length": self.length, "device": self.device} if self.kept else None

    def __str__(self) -> str:
        return f"route {self.to}/{self.length} to {self.device}"


@dataclass(frozen=True)
class Proxy(Step):
    """Answer ARP or neighbour solicitations for an address on a device of the host."""

    address: str
    device: str
    kept: bool = False

    def apply(self, wire: Wire) -> None:
        wire.send(wire.neighbour(RTM_NEWNEIGH, wire.host_index(self.device), self.address))

    def undo(self) -> dict[str, Any] | None:
        return {"do": "proxy", "address": self.address, "device": self.device} if self.kept else None

    def __str__(self) -> str:
        return f"answer for {self.address} on {self.device}"


@dataclass(frozen=True)
class RunScript(Step):
    """script.up, or nothing but the note that script.down is due at removal."""

    script: Script

    def apply(self, wire: Wire) -> None:
        if self.script.hook == "up":
            wire.run(self.script)

    def undo(self) -> dict[str, Any] | None:
        return {"do": "script", **self.script.__dict__} if self.script.hook == "down" else None

    def __str__(self) -> str:
        return str(self.script) if self.script.hook == "up" else f"at removal, {self.script}"


@dataclass(frozen=True)
class Inside:
    """One thing to do in the container's namespace: one message."""

    name: str
    at: Origin | None = field(default=None, kw_only=True, compare=False)

    def message(self, wire: Wire) -> bytes:
        """The request. Raises OSError where the device is gone."""
        raise NotImplementedError


@dataclass(frozen=True)
class SetLink(Inside):
    """Properties of a device and whether it goes up."""

    up: bool = False
    mac: str | None = None

    def message(self, wire: Wire) -> bytes:
        attrs: list[Attr] = [("IFLA_ADDRESS", self.mac)] if self.mac else []
        return wire.link(RTM_NEWLINK, REQUEST, attrs, index=wire.container_index(self.name), up=self.up or None)

    def __str__(self) -> str:
        mac = f" with address {self.mac}" if self.mac else ""
        return f"{self.name}{mac}{' up' if self.up else ''}"


@dataclass(frozen=True)
class AddAddress(Inside):
    address: str
    length: int
    broadcast: str | None = None

    def message(self, wire: Wire) -> bytes:
        return wire.address(wire.container_index(self.name), self.address, self.length, self.broadcast)

    def __str__(self) -> str:
        broadcast = f" broadcast {self.broadcast}" if self.broadcast else ""
        return f"address {self.address}/{self.length}{broadcast} on {self.name}"


@dataclass(frozen=True)
class AddRoute(Inside):
    """The default route (`to` None), or the way to a gateway outside of the subnet."""

    family: int
    to: str | None = None
    via: str | None = None

    def message(self, wire: Wire) -> bytes:
        index = wire.container_index(self.name)
        if self.to is None:
            return wire.route(RTM_NEWROUTE, index, family=self.family, via=self.via)
        length = 32 if self.family == AF_INET else 128
        return wire.route(RTM_NEWROUTE, index, family=self.family, to=self.to, length=length, scope=RT_SCOPE_LINK)

    def __str__(self) -> str:
        target = self.to or ("default" if self.family == AF_INET else "default (IPv6)")
        return f"route {target}{f' via {self.via}' if self.via else ''} on {self.name}"
