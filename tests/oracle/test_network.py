"""The same lxc.net.* lines, and the same /etc/default/lxc, through LXC and through us: what stands afterwards."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from probes import requires

pytestmark = requires("root", "namespaces", "lxc>=5.0", "bridge", "veth")
SIDE = Path(__file__).parent / "network_side.py"
BRIDGE = """\
ip link add br0 type bridge
ip link set br0 address 02:00:00:00:00:01 mtu 1450
ip addr add 10.9.0.1/24 dev br0
ip addr add fd09::1/64 dev br0 nodad
ip link set br0 up
"""
DEVICE = """\
ip link add d0 type veth peer name d1
ip link set d0 address 02:00:00:00:00:02 mtu 1400 up
ip link set d1 address 02:00:00:00:00:03 up
"""


def sides(kind: str, folder: Path, **files: str) -> dict[str, Any]:
    """What LXC made and what we made, each in namespaces of its own."""
    made = {}
    for side in ("lxc", "ours"):
        place = folder / side
        place.mkdir()
        for name, text in files.items():
            (place / name).write_text(text)
        own = place.rename(folder / f"{folder.parent.name}-{os.getpid()}-{side}")
        flags = ["--net", "--mount"] + (["--pid", "--fork", "--mount-proc"] if kind == "service" else [])
        argv = ["unshare", *flags, sys.executable, str(SIDE), kind, side, str(own)]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        made[side] = json.loads(done.stdout)
    return made


def anonymous(value: Any, config: str) -> Any:
    """Random names and addresses made equal. What LXC 5.0.2 sets as broadcast is not looked at (0.0.0.255)."""
    text = json.dumps(value)
    for name in set(re.findall(r"\bveth[0-9A-Za-z]{6}\b", text)):
        text = text.replace(name, "VETH")
    value = json.loads(text)
    for one in (*value["host"]["links"], *value["left"]):
        if one["ifname"] in ("VETH", "h0"):
            one["address"] = one["address"][:2]  # fe
    for one in value["inside"]["links"]:
        if "hwaddr" not in config and not one["address"].startswith(("02:00", "00:00")):
            one["address"] = "random"
    return value


def net(*lines: str) -> str:
    return "".join(f"lxc.net.{line}\n" for line in lines)


VETH = ("0.type = veth", "0.link = br0", "0.flags = up")
CASES: dict[str, tuple[str, str]] = {
    "bridge": (BRIDGE, net(*VETH, "0.ipv4.address = 10.9.0.5/24", "0.ipv4.gateway = auto", "0.veth.pair = h0")),
    "random": (BRIDGE, net(*VETH)),
    "down": (BRIDGE, net(*VETH[:2], "0.ipv4.address = 10.9.0.5/24")),
    "ipv6": (BRIDGE, net(*VETH, "0.ipv6.address = fd09::5", "0.ipv6.gateway = auto", "0.hwaddr = 00:16:3e:01:02:03")),
    "gateway-link-local": (BRIDGE, net(*VETH, "0.ipv6.gateway = fe80::1")),
    "gateway-dev": (BRIDGE, net(*VETH, "0.ipv4.address = 10.9.0.5/24", "0.ipv4.gateway = dev")),
    "gateway-outside": (BRIDGE, net(*VETH, "0.ipv4.address = 10.77.0.5/32", "0.ipv4.gateway = 10.9.0.1")),
    "gateway-outside-6": (BRIDGE, net(*VETH, "0.ipv6.address = fd77::5/128", "0.ipv6.gateway = fd09::1")),
    "several-addresses": (
        BRIDGE, net(*VETH, "0.ipv4.address = 10.9.0.5/24", "0.ipv4.address = 10.9.0.6/24", "0.ipv4.address = 10.1.2.3")
    ),
    "mtu": (BRIDGE, net(*VETH, "0.mtu = 1300")),
    "name": (BRIDGE, net(*VETH, "0.name = lan0")),
    "no-link": ("", net("0.type = veth", "0.flags = up", "0.veth.pair = h0")),
    "two": (BRIDGE, net(*VETH, "1.type = veth", "1.link = br0", "1.name = lan", "2.type = veth", "2.link = br0")),
    "eth0-second": (BRIDGE, net(*VETH, "1.type = veth", "1.link = br0", "1.name = eth0")),
    "empty": ("", net("0.type = empty", "0.flags = up")),
    "empty-down": ("", net("0.type = empty")),
    "none-configured": ("", ""),
    "router": (
        DEVICE + "ip addr add 198.51.100.1/24 dev d0\n",
        net("0.type = veth", "0.flags = up", "0.veth.mode = router", "0.veth.pair = h0", "0.link = d0",
            "0.ipv4.address = 10.9.0.5/32", "0.ipv4.gateway = 169.254.1.1", "0.veth.ipv4.route = 10.8.0.0/16"),
    ),
    "macvlan": (DEVICE, net("0.type = macvlan", "0.link = d0", "0.flags = up", "0.macvlan.mode = bridge",
                            "0.ipv4.address = 10.9.0.5/24")),
    "macvlan-private": (DEVICE, net("0.type = macvlan", "0.link = d0", "0.flags = up")),
    "macvlan-passthru": (DEVICE, net("0.type = macvlan", "0.link = d0", "0.macvlan.mode = passthru", "0.mtu = 1300")),
    "phys": (DEVICE, net("0.type = phys", "0.link = d0", "0.flags = up", "0.ipv4.address = 10.9.0.5/24")),
    "phys-renamed": (DEVICE, net("0.type = phys", "0.link = d0", "0.name = wan", "0.mtu = 1280")),
}  # fmt: skip
NEEDS = {name: ("macvlan",) for name in CASES if name.startswith("macvlan")}


@pytest.mark.parametrize("name", [pytest.param(name, marks=requires(*NEEDS.get(name, ()))) for name in CASES])
def test_links(tmp_path: Path, name: str) -> None:
    setup, config = CASES[name]
    made = sides("links", tmp_path, setup=setup or "true\n", config=config)
    lxc, ours = (anonymous(made[side], config) for side in ("lxc", "ours"))
    assert ours["inside"] == lxc["inside"]
    if "br0" in config:  # LXC 7 switches IPv6 off on a bridge's port, 5.0.2 does not yet
        assert ours["host"]["sysctls"]["ipv6/conf/HOST/disable_ipv6"] == "1"
        lxc["host"]["sysctls"]["ipv6/conf/HOST/disable_ipv6"] = "1"
    assert ours["host"] == lxc["host"]
    assert ours["left"] == lxc["left"]


SETTINGS = """\
USE_LXC_BRIDGE="true"
LXC_BRIDGE_MAC="02:16:3e:00:00:00"
LXC_IPV6_ENABLE={ipv6}
LXC_IPV6_ADDR="fd77::1"
LXC_IPV6_MASK="64"
LXC_IPV6_NETWORK="fd77::/64"
LXC_IPV6_NAT="true"
LXC_USE_NFT="{nft}"
"""
MORE = """\
LXC_ADDR="10.77.0.1"
LXC_NETMASK="255.255.0.0"
LXC_NETWORK="10.77.0.0/16"
LXC_DHCP_RANGE="10.77.0.2,10.77.255.254"
LXC_DHCP_MAX="1000"
LXC_DHCP_PING="false"
LXC_DOMAIN="lxc"
"""


@requires("dnsmasq", "nft", "iptables", "nftables")
@pytest.mark.parametrize("nft", ["true", "false"])
@pytest.mark.parametrize("more", ["", MORE], ids=["defaults", "changed"])
def test_service(tmp_path: Path, nft: str, more: str) -> None:
    made = sides("service", tmp_path, settings=SETTINGS.format(ipv6="true", nft=nft) + more, empty="")
    lxc, ours = made["lxc"], made["ours"]
    if nft == "true":  # where iptables is to be had, we fill in checksums beside nft's rules too
        assert [rule for rule in ours["iptables"] if "CHECKSUM" not in rule] == []
        ours["iptables"] = []
    assert ours == lxc
