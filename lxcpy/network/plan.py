"""From `lxc.net.[i]` to a list of steps: which links are made, with which names and addresses, in which order.

Pure: the host's links come in as Facts, random names and addresses are drawn here, so that the record of what will be
made can be written before anything is. The rules are LXC's (src/lxc/network.c).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from lxcpy.config.model import Nic
from lxcpy.errors import NetworkError, Origin
from lxcpy.network.facts import Facts, HostLink
from lxcpy.network.names import bare, complete_mac, contains, names_inside, random_name
from lxcpy.network.steps import (
    AddAddress,
    AddRoute,
    CreateLink,
    CreateVeth,
    HostRoute,
    Inside,
    MoveLink,
    PortVlan,
    Proxy,
    RunScript,
    SetLink,
    Step,
    SwitchPort,
    Sysctl,
)
from lxcpy.network.usernic import USERS_HAVE, UserVeth, unfit
from lxcpy.network.wire import AF_INET, AF_INET6, Script

At = Callable[[str], Origin | None]


@dataclass(frozen=True)
class NetworkPlan:
    """The steps on the host and inside the container, and the record by which anyone can take them back."""

    host: tuple[Step, ...] = ()
    inside: tuple[Inside, ...] = ()
    nics: tuple[dict[str, Any], ...] = ()  # index, type, link, name, host, hwaddr, mtu: what get_running_config shows

    @property
    def steps(self) -> tuple[Step | Inside, ...]:
        """All of them, in order."""
        return self.host + self.inside

    @property
    def record(self) -> dict[str, Any]:
        """JSON-able: `nics` as above, `undo` the entries for links.remove, in the order they were made."""
        undo = [entry for entry in (step.undo() for step in self.host) if entry is not None]
        return {"version": 1, "nics": [dict(nic) for nic in self.nics], "undo": undo}

    def describe(self) -> list[str]:
        """The steps as lines, host first."""
        return [f"host: {step}" for step in self.host] + [f"container: {step}" for step in self.inside]


def plan(nets: Iterable[Nic], facts: Facts, at: At = lambda key: None) -> NetworkPlan:
    """The plan for a new network namespace. Raises NetworkError with the line to blame."""
    nics = sorted((nic for nic in nets if nic.type != "none"), key=lambda nic: nic.index)
    names = names_inside(nics, at)
    builders = [_Builder(nic, names[nic.index], facts, at) for nic in nics]
    for builder in builders:
        builder.build()
    inside = [step for builder in builders for step in builder.inside]
    loopback = SetLink("lo", up=True)
    if loopback in inside:  # one `up` raises lo, and once
        inside = [inside[inside.index(loopback)], *(step for step in inside if step != loopback)]
    host = (step for builder in builders for step in builder.host)
    return NetworkPlan(tuple(host), tuple(inside), tuple(builder.facts_of_nic() for builder in builders))


@dataclass
class _Builder:
    """One interface's share of the plan."""

    nic: Nic
    name: str
    facts: Facts
    at: At
    host: list[Step] = field(default_factory=list)
    inside: list[Inside] = field(default_factory=list)
    shown: dict[str, Any] = field(default_factory=dict)

    def origin(self, key: str) -> Origin | None:
        """Where `lxc.net.[i].KEY` was written, else where the interface began."""
        prefix = f"lxc.net.{self.nic.index}."
        return self.at(prefix + key) or self.at(prefix + "type")

    def fail(self, what: str, key: str, hint: str | None = None) -> NetworkError:
        return NetworkError(f"lxc.net.{self.nic.index}: {what}", at=self.origin(key), hint=hint)

    def facts_of_nic(self) -> dict[str, Any]:
        nic = self.nic
        return {"index": nic.index, "type": nic.type, "link": nic.link, "name": self.name, **self.shown}

    def build(self) -> None:
        nic = self.nic
        make = _TYPES.get(nic.type or "")
        if make is None:
            raise self.fail("no type is given", "type", f"lxc.net.{nic.index}.type = veth")
        if self.facts.ordinary is not None and (key := unfit(nic)) is not None:
            raise self.fail(f"{key}: only root's containers can have that", key.split()[0], USERS_HAVE)
        if nic.l2proxy and nic.link:
            self.l2proxy()
        make(self)
        if nic.script_up:
            self.script("up", nic.script_up)
        if nic.script_down:
            self.script("down", nic.script_down)
        self.configure()

    def script(self, hook: str, command: str) -> None:
        parent = None if self.nic.type == "empty" else self.nic.link
        at = self.origin(f"script.{hook}")
        script = Script(command, hook, self.nic.type or "", parent, self.shown.get("host"), at)
        self.host.append(RunScript(script, at=at))

    def link(self) -> HostLink:
        """The link this interface hangs on. Raises NetworkError where it is missing."""
        nic = self.nic
        if not nic.link:
            raise self.fail(f"{nic.type} needs a link", "type", f"lxc.net.{nic.index}.link = NAME")
        found = self.facts.links.get(nic.link)
        if found is not None:
            return found
        if nic.type != "veth":
            raise self.fail(f'the link "{nic.link}" does not exist', "link", "ip link shows the devices there are")
        hint = f"ip link add {nic.link} type bridge"
        if nic.link == self.facts.lxc_bridge:
            hint = f"lxcpy-net start makes {nic.link}"
        raise self.fail(f'the bridge "{nic.link}" does not exist', "link", hint)

    def mac(self, *, drawn: bool) -> str | None:
        """The container side's hardware address: the one given, else one under LXC's prefix if `drawn`."""
        if not self.nic.hwaddr and not drawn:
            return None
        try:
            mac = complete_mac(self.nic.hwaddr or "00:16:3e:xx:xx:xx", self.facts.random)
        except ValueError as error:
            raise self.fail(str(error), "hwaddr", "six pairs of hexadecimal digits, 00:16:3e:xx:xx:xx") from None
        self.shown["hwaddr"] = mac
        return mac

    # one method a type

    def veth(self) -> None:
        nic, veth = self.nic, self.nic.veth
        if self.facts.ordinary is not None:
            return self.user_veth(*self.facts.ordinary)
        self.check_vlans()
        host = veth.pair or random_name("veth", self.facts)
        bridged = veth.mode == "bridge" and bool(nic.link)
        link = self.link() if bridged else self.facts.links.get(nic.link or "")
        switched = bridged and link is not None and self.switched(link)
        mtu = nic.mtu or (link.mtu if link else None)
        bridge = link if bridged and not switched else None
        self.shown.update(host=host, mtu=mtu)
        self.host.append(
            CreateVeth(
                host, self.name, "fe:" + self.facts.random(5).hex(":"), self.mac(drawn=True) or "", mtu,
                bridge.name if bridge else None, bridge.index if bridge else 0, veth.n_rxqueues, veth.n_txqueues,
                at=self.origin("link" if nic.link else "type"),
            )
        )  # fmt: skip
        if bridged:
            self.host.append(Sysctl(f"ipv6/conf/{host}/disable_ipv6", "1", optional=True, at=self.origin("link")))
        if switched and link is not None:
            self.host.append(SwitchPort(link.name, host, self.switch_settings(), at=self.origin("link")))
        elif bridge is not None:
            self.port_vlans(bridge, host)
        for key, routes in (("veth.ipv4.route", veth.ipv4_route), ("veth.ipv6.route", veth.ipv6_route)):
            for route in routes:
                to, _, length = route.partition("/")
                whole = 128 if ":" in to else 32
                self.host.append(HostRoute(to, int(length or whole), host, at=self.origin(key)))
        if veth.mode == "router":
            self.router(host)

    def user_veth(self, lxcpath: str, container: str) -> None:
        """Made by lxc-user-nic, which chooses the host end; what is left to do is inside."""
        link = self.link() if self.nic.link else None
        switch = link is not None and self.switched(link)
        self.shown.update(host=None, mtu=link.mtu if link else None)
        at, place = self.origin("link" if link else "type"), link.name if link else "none"
        self.host.append(UserVeth(lxcpath, container, place, self.name, switch=switch, at=at))
        self.inside.append(SetLink(self.name, mac=self.mac(drawn=True), at=self.origin("hwaddr")))

    def switched(self, link: HostLink) -> bool:
        """Whether the link is an Open vSwitch bridge; NetworkError where it is no bridge at all."""
        if link.kind == "bridge":
            return False
        if self.facts.programs("ovs-vsctl"):
            return True
        if link.kind == "openvswitch":
            raise self.fail(f'"{link.name}" is an Open vSwitch bridge, but ovs-vsctl is not in PATH', "link",
                            "install openvswitch-switch")  # fmt: skip
        raise self.fail(f'"{link.name}" is not a bridge', "link",
                        "give a bridge as link, or use type macvlan, ipvlan or phys")  # fmt: skip

    def check_vlans(self) -> None:
        nic, veth = self.nic, self.nic.veth
        key = "veth.vlan.id" if veth.vlan_id is not None else "veth.vlan.tagged.id"
        if (veth.vlan_id is not None or veth.vlan_tagged_id) and (veth.mode != "bridge" or not nic.link):
            raise self.fail(f"{key} needs a bridge as link", key)
        if veth.vlan_id not in (None, "none") and int(veth.vlan_id) in veth.vlan_tagged_id:
            raise self.fail(f"VLAN {veth.vlan_id} cannot be both tagged and untagged", "veth.vlan.tagged.id")

    def port_vlans(self, bridge: HostLink, host: str) -> None:
        veth = self.nic.veth
        if veth.vlan_id is None and not veth.vlan_tagged_id:
            return
        key = "veth.vlan.id" if veth.vlan_id is not None else "veth.vlan.tagged.id"
        if not bridge.vlan_filtering:
            raise self.fail(f'the bridge "{bridge.name}" does not filter VLANs', key,
                            f"ip link set {bridge.name} type bridge vlan_filtering 1")  # fmt: skip
        if veth.vlan_id is not None:
            wanted = 0 if veth.vlan_id == "none" else int(veth.vlan_id)
            if bridge.default_pvid not in (0, wanted):
                self.host.append(PortVlan(host, bridge.default_pvid, "remove", at=self.origin("veth.vlan.id")))
            if wanted:
                self.host.append(PortVlan(host, wanted, "untagged", at=self.origin("veth.vlan.id")))
        for vlan in veth.vlan_tagged_id:
            self.host.append(PortVlan(host, vlan, "tagged", at=self.origin("veth.vlan.tagged.id")))

    def switch_settings(self) -> tuple[str, ...]:
        """ovs-vsctl's words for the VLAN keys, as LXC chooses them."""
        veth = self.nic.veth
        tag = veth.vlan_id not in (None, "none")
        if veth.vlan_id == "none" and not veth.vlan_tagged_id:
            raise self.fail("an Open vSwitch port without any VLAN is not possible", "veth.vlan.id",
                            "give veth.vlan.tagged.id too, or drop veth.vlan.id = none")  # fmt: skip
        if veth.vlan_tagged_id:
            words = ["vlan_mode=native-untagged" if tag else "vlan_mode=trunk"]
            words += [f"tag={veth.vlan_id}"] if tag else []
            return (*words, "trunks=" + ",".join(map(str, veth.vlan_tagged_id)))
        return ("vlan_mode=access", f"tag={veth.vlan_id}") if tag else ()

    def router(self, host: str) -> None:
        """Router mode: the host answers for the gateway on the veth and routes the container's addresses to it."""
        nic = self.nic
        for family, gateway in (("ipv4", self.gateway("ipv4")), ("ipv6", self.gateway("ipv6"))):
            at = self.origin(f"{family}.gateway")
            if gateway in (None, "dev"):
                continue
            if family == "ipv6":
                self.require("ipv6/conf/all/forwarding", "ipv6.gateway")
            self.host.append(Sysctl(f"{family}/conf/{host}/forwarding", "1", at=at))
            if family == "ipv6":
                self.host.append(Sysctl(f"ipv6/conf/{host}/proxy_ndp", "1", at=at))
            self.host.append(Proxy(str(gateway), host, at=at))
        for family, values, length in (("ipv4", nic.ipv4_address, 32), ("ipv6", nic.ipv6_address, 128)):
            for value in values:
                self.host.append(HostRoute(bare(value), length, host, at=self.origin(f"{family}.address")))

    def macvlan(self) -> None:
        nic, link = self.nic, self.link()
        drawn = nic.macvlan_mode != "passthru"  # passthru takes over the link's own address
        step = CreateLink("macvlan", self.name, link.name, link.index, nic.macvlan_mode, at=self.origin("link"))
        self.host.append(replace(step, mac=self.mac(drawn=drawn), mtu=nic.mtu))

    def ipvlan(self) -> None:
        nic, link = self.nic, self.link()
        if nic.hwaddr:
            raise self.fail("an ipvlan has its link's hardware address", "hwaddr", "remove hwaddr, or use macvlan")
        step = CreateLink("ipvlan", self.name, link.name, link.index, nic.ipvlan_mode, nic.ipvlan_isolation)
        self.host.append(replace(step, mtu=nic.mtu, at=self.origin("link")))

    def vlan(self) -> None:
        nic, link = self.nic, self.link()
        if nic.vlan_id is None:
            raise self.fail("vlan needs a VLAN id", "type", f"lxc.net.{nic.index}.vlan.id = NUMBER")
        step = CreateLink("vlan", self.name, link.name, link.index, vlan=nic.vlan_id, at=self.origin("vlan.id"))
        self.host.append(replace(step, mac=self.mac(drawn=False), mtu=nic.mtu))

    def phys(self) -> None:
        nic, link = self.nic, self.link()
        if link.radio and not self.facts.programs("iw"):
            raise self.fail(f'"{link.name}" is wireless and moves only with iw, which is not in PATH', "link",
                            "install iw")  # fmt: skip
        self.shown.update(host=None, mtu=nic.mtu or link.mtu)
        self.host.append(
            MoveLink(
                link.name, link.index, link.name if link.radio else self.name, random_name("phys", self.facts),
                link.mac, link.permanent, link.mtu, link.altnames, nic.mtu, link.radio, at=self.origin("link"),
            )
        )  # fmt: skip
        if link.radio:
            self.name = link.name
        mac = self.mac(drawn=False)
        if mac:
            self.inside.append(SetLink(self.name, mac=mac, at=self.origin("hwaddr")))

    def empty(self) -> None:
        if self.nic.name not in (None, "lo"):
            raise self.fail(f'an empty network has no device "{self.nic.name}"', "name", "remove the name")

    def configure(self) -> None:
        """Addresses, up, gateways: inside the container."""
        nic = self.nic
        if nic.type != "empty":
            for value in nic.ipv4_address:
                self.inside.append(_ipv4(self.name, value, self.origin("ipv4.address")))
            for value in nic.ipv6_address:
                address, _, length = value.partition("/")
                at = self.origin("ipv6.address")
                self.inside.append(AddAddress(self.name, address, int(length or 64), at=at))
        if nic.flags == "up":
            self.inside.append(SetLink("lo", up=True, at=self.origin("flags")))
            if nic.type != "empty":
                self.inside.append(SetLink(self.name, up=True, at=self.origin("flags")))
        if nic.type != "empty":
            self.default_route("ipv4", AF_INET, nic.ipv4_address)
            self.default_route("ipv6", AF_INET6, nic.ipv6_address)

    def gateway(self, family: str) -> str | None:
        """The gateway as an address, `dev` or None; `auto` is the link's own address."""
        nic = self.nic
        value = nic.ipv4_gateway if family == "ipv4" else nic.ipv6_gateway
        if value != "auto":
            return value
        key = f"{family}.gateway"
        if nic.type not in ("veth", "macvlan"):
            raise self.fail(f"{key} = auto works with veth and macvlan only", key)
        if not nic.link:
            raise self.fail(f"{key} = auto needs a link", key)
        link = self.link()
        found = link.ipv4 if family == "ipv4" else link.ipv6
        if found is None:
            kind = "IPv4" if family == "ipv4" else "IPv6"
            raise self.fail(f'the link "{link.name}" has no {kind} address that could be the gateway', key,
                            f"write the gateway's address instead of auto, or give {link.name} one")  # fmt: skip
        return found

    def default_route(self, name: str, family: int, values: tuple[str, ...]) -> None:
        gateway, key = self.gateway(name), f"{name}.gateway"
        if gateway is None:
            return
        at = self.origin(key)
        if self.nic.flags != "up":
            raise self.fail(f"{key} needs the interface up", key, f"lxc.net.{self.nic.index}.flags = up")
        local = gateway != "dev" and ipaddress.ip_address(gateway).is_link_local
        if not values and not (family == AF_INET6 and local):
            raise self.fail(f"{key} needs an address", key, f"lxc.net.{self.nic.index}.{name}.address = ADDRESS/LENGTH")
        if gateway == "dev":
            self.inside.append(AddRoute(self.name, family, at=at))
            return
        # The kernel takes a gateway only where it has a way to it, so one outside of the subnet gets a host route.
        if not (family == AF_INET6 and local) and not any(contains(value, gateway) for value in values):
            self.inside.append(AddRoute(self.name, family, to=gateway, at=at))
        self.inside.append(AddRoute(self.name, family, via=gateway, at=at))

    def require(self, path: str, key: str) -> None:
        if self.facts.sysctl(path) != "1":
            name = path.replace("/", ".") if "." not in path else path
            raise self.fail(f"{key} needs the sysctl net.{name} = 1", key, f"sysctl -w net.{name}=1")

    def l2proxy(self) -> None:
        """Proxy entries on the link for the container's addresses, as LXC's l2proxy."""
        nic, link = self.nic, self.link()
        if nic.ipv4_address:
            self.require(f"ipv4/conf/{link.name}/forwarding", "l2proxy")
        if nic.ipv6_address:
            self.require(f"ipv6/conf/{link.name}/proxy_ndp", "l2proxy")
            self.require(f"ipv6/conf/{link.name}/forwarding", "l2proxy")
        if nic.type == "ipvlan" and nic.ipvlan_mode != "l3s":
            hint = f"lxc.net.{nic.index}.ipvlan.mode = l3s"
            raise self.fail("l2proxy works with ipvlan mode l3s only", "l2proxy", hint)
        at = self.origin("l2proxy")
        for value in (*nic.ipv4_address, *nic.ipv6_address):
            address = bare(value)
            self.host.append(Proxy(address, link.name, kept=True, at=at))
            if nic.type == "ipvlan":  # the route is what makes the kernel answer
                self.host.append(HostRoute(address, 128 if ":" in address else 32, "lo", kept=True, at=at))


_TYPES: dict[str, Callable[[_Builder], None]] = {
    "veth": _Builder.veth,
    "macvlan": _Builder.macvlan,
    "ipvlan": _Builder.ipvlan,
    "vlan": _Builder.vlan,
    "phys": _Builder.phys,
    "empty": _Builder.empty,
}


def _ipv4(name: str, value: str, at: Origin | None) -> AddAddress:
    """`ADDR/LEN [BROADCAST]`; without one it is the subnet's last address, and none for /31 and /32 (RFC 3021)."""
    words = value.split()
    address, _, length = words[0].partition("/")
    broadcast = words[1] if len(words) > 1 else None
    if broadcast is None and int(length or 32) < 31:
        broadcast = str(ipaddress.ip_interface(words[0]).network.broadcast_address)
    return AddAddress(name, address, int(length or 32), broadcast, at=at)
