"""The plan of lxc.net.[i]: names, order, gateways, VLANs, and the errors, without a kernel."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from lxcpy.config.model import Nic, Veth
from lxcpy.errors import NetworkError, Origin
from lxcpy.network.facts import Facts, HostLink
from lxcpy.network.names import complete_mac, random_name
from lxcpy.network.plan import NetworkPlan, plan
from lxcpy.network.undo import needs_netns
from lxcpy.network.usernic import UserVeth

BRIDGE = HostLink("br0", 7, 1400, "bridge", "10:66:6a:00:00:00", ipv4="10.0.3.1", ipv6="fd00::1")
ETH = HostLink("eth1", 3, 1500, "", "aa:00:00:00:00:01", "aa:00:00:00:00:02", ("enp1s0",))
SYSCTLS: dict[str, str] = {}


def facts(*links: HostLink, sysctls: Mapping[str, str] = SYSCTLS, programs: tuple[str, ...] = ()) -> Facts:
    """A host with these links, whose random bytes are all zero."""
    return Facts(
        {link.name: link for link in links},
        random=bytes,
        sysctl=sysctls.get,
        lxc_bridge="lxcbr0",
        programs=programs.__contains__,
    )


def described(*nics: Nic, world: Facts | None = None) -> list[str]:
    return plan(nics, world or facts(BRIDGE, ETH)).describe()


def refused(nic: Nic, world: Facts | None = None) -> NetworkError:
    origins = {f"lxc.net.{nic.index}.{key}": Origin("config", line) for line, key in enumerate(KEYS, 1)}
    with pytest.raises(NetworkError) as caught:
        plan([nic], world or facts(BRIDGE, ETH), origins.get)
    return caught.value


KEYS = ("type", "link", "flags", "hwaddr", "ipv4.gateway", "ipv6.gateway", "vlan.id", "veth.vlan.id", "l2proxy", "name")


def test_veth_on_a_bridge() -> None:
    nic = Nic(0, "veth", "up", "br0", ipv4_address=("10.0.3.5/24",), ipv4_gateway="auto", ipv6_address=("fd00::5/64",))
    assert described(nic) == [
        "host: veth veth000000 (fe:00:00:00:00:00) to eth0 (00:16:3e:00:00:00) in the container, "
        "mtu 1400, on bridge br0",
        "host: write 1 to /proc/sys/net/ipv6/conf/veth000000/disable_ipv6",
        "container: lo up",
        "container: address 10.0.3.5/24 broadcast 10.0.3.255 on eth0",
        "container: address fd00::5/64 on eth0",
        "container: eth0 up",
        "container: route default via 10.0.3.1 on eth0",
    ]


def test_lo_goes_up_once_and_first() -> None:
    lines = described(Nic(0, "veth", "up", "br0"), Nic(1, "veth", "up", "br0"))
    assert [line for line in lines if line.endswith(" up")] == [
        "container: lo up",
        "container: eth0 up",
        "container: eth1 up",
    ]


def test_nothing_up_without_the_flag() -> None:
    assert not any(line.endswith(" up") for line in described(Nic(0, "veth", link="br0")))


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ([None, None], ["eth0", "eth1"]),
        ([None, "eth0"], ["eth1", "eth0"]),
        (["wan", None], ["wan", "eth0"]),
        (["lan%d", "lan%d", None], ["lan0", "lan1", "eth0"]),
    ],
)
def test_names_inside(given: list[str | None], names: list[str]) -> None:
    nics = [Nic(index, "veth", link="br0", name=name) for index, name in enumerate(given)]
    assert [nic["name"] for nic in plan(nics, facts(BRIDGE)).nics] == names


def test_one_name_twice() -> None:
    nics = [Nic(0, "veth", link="br0", name="lan"), Nic(3, "veth", link="br0", name="lan")]
    with pytest.raises(NetworkError) as caught:
        plan(nics, facts(BRIDGE), {"lxc.net.3.name": Origin("config", 9)}.get)
    assert caught.value.what == 'lxc.net.3: "lan" is the name of lxc.net.0 already'
    assert caught.value.at == Origin("config", 9)


def test_interfaces_go_by_index_whatever_their_order() -> None:
    made = plan([Nic(5, "veth", link="br0"), Nic(1, "macvlan", link="eth1")], facts(BRIDGE, ETH))
    assert [nic["index"] for nic in made.nics] == [1, 5]
    assert [nic["name"] for nic in made.nics] == ["eth0", "eth1"]


def test_a_device_that_is_moved_keeps_its_name() -> None:
    nics = [Nic(0, "phys", link="eth1"), Nic(1, "veth", link="br0"), Nic(2, "veth", link="br0")]
    assert [nic["name"] for nic in plan(nics, facts(BRIDGE, ETH)).nics] == ["eth1", "eth0", "eth2"]


def test_gateway_outside_of_the_subnet_gets_a_way_first() -> None:
    nic = Nic(0, "veth", "up", "br0", ipv4_address=("192.168.7.5/32",), ipv4_gateway="10.0.3.1")
    assert described(nic)[-2:] == [
        "container: route 10.0.3.1 on eth0",
        "container: route default via 10.0.3.1 on eth0",
    ]


def test_gateway_of_link_scope_needs_no_address() -> None:
    lines = described(Nic(0, "veth", "up", "br0", ipv6_gateway="fe80::1"))
    assert lines[-1] == "container: route default (IPv6) via fe80::1 on eth0"
    assert not any("route fe80" in line for line in lines)


def test_gateway_dev() -> None:
    nic = Nic(0, "veth", "up", "br0", ipv4_address=("10.0.3.5/24",), ipv4_gateway="dev")
    assert described(nic)[-1] == "container: route default on eth0"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("10.1.2.3/8", "10.1.2.3/8 broadcast 10.255.255.255"),
        ("10.1.2.3/24 10.1.2.0", "10.1.2.3/24 broadcast 10.1.2.0"),
        ("10.1.2.3/31", "10.1.2.3/31"),
        ("10.1.2.3/32", "10.1.2.3/32"),
    ],
)
def test_broadcast(value: str, text: str) -> None:
    assert f"container: address {text} on eth0" in described(Nic(0, "veth", link="br0", ipv4_address=(value,)))


def test_queues_cross_over() -> None:
    made = plan([Nic(0, "veth", link="br0", veth=Veth(n_rxqueues=2, n_txqueues=3))], facts(BRIDGE))
    sent: list[dict[str, Any]] = []
    made.host[0].apply(_Wire(sent))
    host, peer = sent[0], sent[0]["IFLA_LINKINFO"]["IFLA_INFO_DATA"]["VETH_INFO_PEER"]
    assert (peer["IFLA_NUM_RX_QUEUES"], peer["IFLA_NUM_TX_QUEUES"]) == (2, 3)
    assert (host["IFLA_NUM_RX_QUEUES"], host["IFLA_NUM_TX_QUEUES"]) == (3, 2)


class _Wire:
    """Keeps the attributes of each link message as nested dictionaries."""

    netns, pid = 9, 1

    def __init__(self, sent: list[dict[str, Any]]) -> None:
        self.sent = sent

    def link(self, command: int, flags: int, attrs: Any, **_: Any) -> bytes:
        self.sent.append(self._plain(attrs))
        return b""

    def send(self, *messages: bytes) -> None:
        pass

    def _plain(self, attrs: Any) -> dict[str, Any]:
        return {name: self._plain(v["attrs"]) if isinstance(v, dict) and "attrs" in v else v for name, v in attrs}


def test_vlans_of_a_port() -> None:
    bridge = HostLink("br0", 7, kind="bridge", vlan_filtering=True, default_pvid=1)
    nic = Nic(0, "veth", link="br0", veth=Veth(vlan_id="5", vlan_tagged_id=(6, 7)))
    assert [line for line in described(nic, world=facts(bridge)) if "VLAN" in line] == [
        "host: take VLAN 1 from bridge port veth000000",
        "host: VLAN 5 untagged on bridge port veth000000",
        "host: VLAN 6 tagged on bridge port veth000000",
        "host: VLAN 7 tagged on bridge port veth000000",
    ]
    none = Nic(0, "veth", link="br0", veth=Veth(vlan_id="none"))
    assert [line for line in described(none, world=facts(bridge)) if "VLAN" in line] == [
        "host: take VLAN 1 from bridge port veth000000"
    ]


@pytest.mark.parametrize(
    ("veth", "words"),
    [
        (Veth(), []),
        (Veth(vlan_id="5"), ["vlan_mode=access", "tag=5"]),
        (Veth(vlan_tagged_id=(6, 7)), ["vlan_mode=trunk", "trunks=6,7"]),
        (Veth(vlan_id="5", vlan_tagged_id=(6,)), ["vlan_mode=native-untagged", "tag=5", "trunks=6"]),
        (Veth(vlan_id="none", vlan_tagged_id=(6,)), ["vlan_mode=trunk", "trunks=6"]),
    ],
)
def test_open_vswitch(veth: Veth, words: list[str]) -> None:
    world = facts(HostLink("ovs0", 9, kind="openvswitch"), programs=("ovs-vsctl",))
    lines = described(Nic(0, "veth", link="ovs0", veth=veth), world=world)
    assert lines[2] == " ".join(["host: Open vSwitch port veth000000 on ovs0", *words])
    assert "on bridge" not in lines[0]


def test_router_mode() -> None:
    nic = Nic(
        0, "veth", "up", ipv4_address=("10.9.0.5/32",), ipv4_gateway="169.254.1.1",
        veth=Veth(mode="router", ipv4_route=("10.8.0.0/16",)),
    )  # fmt: skip
    assert described(nic) == [
        "host: veth veth000000 (fe:00:00:00:00:00) to eth0 (00:16:3e:00:00:00) in the container",
        "host: route 10.8.0.0/16 to veth000000",
        "host: write 1 to /proc/sys/net/ipv4/conf/veth000000/forwarding",
        "host: answer for 169.254.1.1 on veth000000",
        "host: route 10.9.0.5/32 to veth000000",
        "container: lo up",
        "container: address 10.9.0.5/32 on eth0",
        "container: eth0 up",
        "container: route 169.254.1.1 on eth0",
        "container: route default via 169.254.1.1 on eth0",
    ]


def test_router_mode_of_ipv6_asks_for_forwarding() -> None:
    nic = Nic(0, "veth", "up", ipv6_address=("fd9::5/128",), ipv6_gateway="fe80::1", veth=Veth(mode="router"))
    error = refused(nic, facts())
    assert error.what == "lxc.net.0: ipv6.gateway needs the sysctl net.ipv6.conf.all.forwarding = 1"
    assert error.hint == "sysctl -w net.ipv6.conf.all.forwarding=1"
    lines = described(nic, world=facts(sysctls={"ipv6/conf/all/forwarding": "1"}))
    assert "host: write 1 to /proc/sys/net/ipv6/conf/veth000000/proxy_ndp" in lines
    assert "host: answer for fe80::1 on veth000000" in lines


def test_l2proxy() -> None:
    nic = Nic(0, "ipvlan", "up", "eth1", l2proxy=True, ipvlan_mode="l3s", ipv4_address=("10.9.0.5/32",))
    assert refused(nic).what == "lxc.net.0: l2proxy needs the sysctl net.ipv4.conf.eth1.forwarding = 1"
    world = facts(ETH, sysctls={"ipv4/conf/eth1/forwarding": "1"})
    made = plan([nic], world)
    assert made.describe()[:3] == [
        "host: answer for 10.9.0.5 on eth1",
        "host: route 10.9.0.5/32 to lo",
        "host: ipvlan eth0 in the container on eth1 (mode l3s)",
    ]
    assert [entry["do"] for entry in made.record["undo"]] == ["proxy", "route"]
    wrong = Nic(0, "ipvlan", "up", "eth1", l2proxy=True, ipv4_address=("10.9.0.5/32",))
    assert refused(wrong, world).what == "lxc.net.0: l2proxy works with ipvlan mode l3s only"


def test_types_on_a_link() -> None:
    lines = described(
        Nic(0, "macvlan", link="eth1", macvlan_mode="bridge"),
        Nic(1, "ipvlan", link="eth1", ipvlan_mode="l2", ipvlan_isolation="vepa"),
        Nic(2, "vlan", link="eth1", vlan_id=9),
    )
    assert lines == [
        "host: macvlan eth0 in the container on eth1 (mode bridge)",
        "host: ipvlan eth1 in the container on eth1 (mode l2, vepa)",
        "host: vlan eth2 in the container on eth1 (VLAN 9)",
    ]


def test_a_moved_device_can_be_given_back() -> None:
    made = plan([Nic(0, "phys", link="eth1", name="wan", mtu=1300, hwaddr="02:00:00:00:00:09")], facts(ETH))
    assert made.describe() == [
        "host: move eth1 into the container as wan, mtu 1300",
        "container: wan with address 02:00:00:00:00:09",
    ]
    assert needs_netns(made.record)
    assert made.record["undo"] == [
        {
            "do": "phys", "link": "eth1", "index": 3, "name": "wan", "transient": "phys000000",
            "mac": "aa:00:00:00:00:01", "permanent": "aa:00:00:00:00:02", "mtu": 1500, "altnames": ["enp1s0"],
        }
    ]  # fmt: skip


def test_record_is_json_and_names_all() -> None:
    made = plan(
        [Nic(0, "veth", "up", "br0", script_up="/up", script_down="/down x", veth=Veth(pair="web0"))], facts(BRIDGE)
    )
    record = json.loads(json.dumps(made.record))
    assert record["nics"] == [
        {
            "index": 0, "type": "veth", "link": "br0", "name": "eth0", "host": "web0", "mtu": 1400,
            "hwaddr": "00:16:3e:00:00:00",
        }
    ]  # fmt: skip
    assert [entry["do"] for entry in record["undo"]] == ["veth", "script"]
    assert record["undo"][1]["command"] == "/down x"
    assert not needs_netns(record)


def test_scripts() -> None:
    made = plan(
        [Nic(0, "veth", link="br0", script_up="/up", veth=Veth(pair="web0")), Nic(1, "empty", script_up="/e")],
        facts(BRIDGE),
    )
    scripts = [step.script for step in made.host if hasattr(step, "script")]
    assert [script.arguments for script in scripts] == [["veth", "br0", "web0"], ["empty"]]
    assert scripts[0].environment == {"LXC_NET_TYPE": "veth", "LXC_NET_PARENT": "br0", "LXC_NET_PEER": "web0"}


def test_empty_and_none_make_nothing() -> None:
    assert plan([Nic(0, "none")], facts()) == NetworkPlan()
    assert described(Nic(0, "empty")) == []
    assert described(Nic(0, "empty", "up")) == ["container: lo up"]


@pytest.mark.parametrize("template", ["00:16:3e:xx:xx:xx", "xx:xx:xx:xx:xx:xx", "00163exxxxxx", "02:0:0:0:0:1"])
def test_complete_mac(template: str) -> None:
    mac = complete_mac(template, lambda size: b"\xff" * size)
    octets = mac.split(":")
    assert len(mac) == 17 and len(octets) == 6
    assert int(octets[0], 16) % 2 == 0


@pytest.mark.parametrize("template", ["", "00:16:3e", "00:16:3e:00:00:gg", "00:16:3e:00:00:000", "hello"])
def test_no_mac(template: str) -> None:
    with pytest.raises(ValueError):
        complete_mac(template, bytes)


def test_random_names_avoid_those_there_are() -> None:
    draws = iter([b"\0" * 6, b"\1" * 6])
    world = Facts(random=lambda size: next(draws), taken="veth000000".__eq__)
    assert random_name("veth", world) == "veth111111"


ERRORS: list[tuple[Nic, str, int, str | None]] = [
    (Nic(0), "no type is given", 1, "lxc.net.0.type = veth"),
    (Nic(0, "veth", link="lxcbr0"), 'the bridge "lxcbr0" does not exist', 2, "lxcpy-net start makes lxcbr0"),
    (Nic(0, "veth", link="br5"), 'the bridge "br5" does not exist', 2, "ip link add br5 type bridge"),
    (Nic(0, "macvlan", link="eth9"), 'the link "eth9" does not exist', 2, "ip link shows the devices there are"),
    (Nic(0, "macvlan"), "macvlan needs a link", 1, "lxc.net.0.link = NAME"),
    (Nic(0, "veth", link="eth1"), '"eth1" is not a bridge', 2,
     "give a bridge as link, or use type macvlan, ipvlan or phys"),
    (Nic(0, "vlan", link="eth1"), "vlan needs a VLAN id", 1, "lxc.net.0.vlan.id = NUMBER"),
    (Nic(0, "veth", link="br0", hwaddr="zz"), '"zz" is not a hardware address', 4,
     "six pairs of hexadecimal digits, 00:16:3e:xx:xx:xx"),
    (Nic(0, "ipvlan", link="eth1", hwaddr="02:00:00:00:00:01"), "an ipvlan has its link's hardware address", 4,
     "remove hwaddr, or use macvlan"),
    (Nic(0, "veth", link="br0", ipv4_gateway="10.0.3.1", ipv4_address=("10.0.3.2/24",)),
     "ipv4.gateway needs the interface up", 5, "lxc.net.0.flags = up"),
    (Nic(0, "veth", "up", "br0", ipv4_gateway="10.0.3.1"), "ipv4.gateway needs an address", 5,
     "lxc.net.0.ipv4.address = ADDRESS/LENGTH"),
    (Nic(0, "ipvlan", "up", "eth1", ipv4_gateway="auto", ipv4_address=("10.0.3.2/24",)),
     "ipv4.gateway = auto works with veth and macvlan only", 5, None),
    (Nic(0, "macvlan", "up", "eth1", ipv4_gateway="auto", ipv4_address=("10.0.3.2/24",)),
     'the link "eth1" has no IPv4 address that could be the gateway', 5,
     "write the gateway's address instead of auto, or give eth1 one"),
    (Nic(0, "veth", link="br0", veth=Veth(vlan_id="5")), 'the bridge "br0" does not filter VLANs', 8,
     "ip link set br0 type bridge vlan_filtering 1"),
    (Nic(0, "veth", veth=Veth(vlan_id="5")), "veth.vlan.id needs a bridge as link", 8, None),
    (Nic(0, "empty", name="eth0"), 'an empty network has no device "eth0"', 10, "remove the name"),
]  # fmt: skip


@pytest.mark.parametrize(("nic", "what", "line", "hint"), ERRORS, ids=[error[1] for error in ERRORS])
def test_errors(nic: Nic, what: str, line: int, hint: str | None) -> None:
    error = refused(nic)
    assert (error.what, error.hint) == (f"lxc.net.0: {what}", hint)
    assert error.at == Origin("config", line)


def test_open_vswitch_without_its_tool() -> None:
    error = refused(Nic(0, "veth", link="ovs0"), facts(HostLink("ovs0", 9, kind="openvswitch")))
    assert error.what == 'lxc.net.0: "ovs0" is an Open vSwitch bridge, but ovs-vsctl is not in PATH'


def test_an_ordinary_users_veth_is_the_helpers() -> None:
    world = replace(facts(BRIDGE), ordinary=("/home/u/c", "web"))
    made = plan([Nic(0, "veth", "up", "br0", hwaddr="00:16:3e:00:00:01", script_up="/up", script_down="/down")], world)
    assert made.describe() == [
        "host: veth on br0 to eth0 in the container, by lxc-user-nic",
        "host: run /up (net up veth br0)",
        "host: at removal, run /down (net down veth br0)",
        "container: lo up",
        "container: eth0 with address 00:16:3e:00:00:01",
        "container: eth0 up",
    ]
    assert plan([Nic(0, "veth")], world).host[0] == UserVeth("/home/u/c", "web", "none", "eth0")


@pytest.mark.parametrize(
    ("nic", "key"),
    [
        (Nic(0, "macvlan", link="br0"), "type = macvlan"), (Nic(0, "phys", link="br0"), "type = phys"),
        (Nic(0, "veth", link="br0", veth=Veth(vlan_id="5")), "veth.vlan.id"),
        (Nic(0, "veth", link="br0", veth=Veth(mode="router")), "veth.mode"),
        (Nic(0, "veth", link="br0", l2proxy=True), "l2proxy"),
    ],
)  # fmt: skip
def test_what_only_root_can_have(nic: Nic, key: str) -> None:
    with pytest.raises(NetworkError, match=f"{key}: only root's containers can have that"):
        plan([nic], replace(facts(BRIDGE), ordinary=("/home/u/c", "web")))
