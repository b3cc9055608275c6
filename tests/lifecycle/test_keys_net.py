"""The keys of config/keys/net.py, by what they do: on a host with a bridge br0, in namespaces of the test's own."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import netns
import pytest

pytestmark = pytest.mark.requires("root", "busybox", "bridge", "veth")
BARE = """\
lxc.rootfs.path = dir:{rootfs}
lxc.init.cmd = /bin/sh /init
lxc.mount.auto = proc:mixed sys:ro
lxc.pty.max = 16
"""
VETH = "lxc.net.0.type = veth\nlxc.net.0.link = br0\nlxc.net.0.flags = up\n"
ADDRESSES = "lxc.net.0.ipv4.address = 10.9.0.7/24\nlxc.net.0.ipv6.address = fd09::7/64\n"

if TYPE_CHECKING:
    from conftest import Box, Define


@pytest.fixture
def lan(own_host: str, box: Define) -> Define:
    """A container with the given keys, started, on a host that has br0 with 10.9.0.1/24 and fd09::1/64."""
    netns.bridge()

    def start(extra: str) -> Box:
        one = box(extra, base=BARE)
        one.start()
        return one

    return start


def ip(one: Box, words: str) -> list[dict[str, Any]]:
    """What `ip` says in the container's network namespace."""
    fd = os.open(f"/proc/{one.init_pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return netns.ip(words, fd)
    finally:
        os.close(fd)


def names(one: Box) -> list[str]:
    return sorted(link["ifname"] for link in ip(one, "link show"))


def link(one: Box, name: str = "eth0") -> dict[str, Any]:
    return ip(one, f"link show dev {name}")[0]


def host_end(one: Box) -> dict[str, Any]:
    """The host's end of the container's veth."""
    index = link(one)["link_index"]
    return next(found for found in netns.ip("link show") if found["ifindex"] == index)


def addresses(one: Box, name: str = "eth0") -> list[str]:
    found = ip(one, f"addr show dev {name}")[0]["addr_info"]
    return [f"{each['local']}/{each['prefixlen']}" for each in found if each["scope"] == "global"]


# -- of every interface ----------------------------------------------------------------------------------------------


def test_net(lan: Define) -> None:
    """Empty, it forgets all interfaces."""
    assert names(lan(f"{VETH}lxc.net =\nlxc.net.1.type = empty\n")) == ["lo"]


def test_net_i(lan: Define) -> None:
    """Empty, it forgets this one."""
    assert names(lan(f"{VETH}lxc.net.1.type = veth\nlxc.net.1.link = br0\nlxc.net.1 =\n")) == ["eth0", "lo"]


def test_net_type(lan: Define) -> None:
    assert link(lan("lxc.net.0.type = veth\n"))["linkinfo"]["info_kind"] == "veth"
    assert names(lan("lxc.net.0.type = empty\n")) == ["lo"]
    none = lan("lxc.net.0.type = none\n")
    assert os.readlink(f"/proc/{none.init_pid}/ns/net") == os.readlink("/proc/self/ns/net")


def test_net_type_phys(lan: Define) -> None:
    """The device itself is there while the container runs, and back when it does not."""
    netns.sh("ip link add nic0 type veth peer name wire0", "ip link set wire0 up")
    one = lan("lxc.net.0.type = phys\nlxc.net.0.link = nic0\nlxc.net.0.name = eth0\nlxc.net.0.flags = up\n")
    assert names(one) == ["eth0", "lo"]
    assert "nic0" not in netns.names()
    assert one.kill(10)
    assert "nic0" in netns.names()


def test_net_link_of_a_phys_may_be_a_beginning(lan: Define) -> None:
    netns.sh(*(f"ip link add nic{number} type veth peer name wire{number}" for number in (1, 2)))
    one = lan("lxc.net.0.type = phys\nlxc.net.0.link = nic+\n")
    assert names(one) == ["lo", "nic2"]
    assert {"nic1", "wire2"} <= set(netns.names())
    assert one.kill(10)
    assert "nic2" in netns.names()


def test_net_flags(lan: Define) -> None:
    up, down = lan(VETH), lan("lxc.net.0.type = veth\nlxc.net.0.link = br0\n")
    for one, wanted in ((up, True), (down, False)):
        for name in ("eth0", "lo"):
            assert ("UP" in link(one, name)["flags"]) is wanted


def test_net_link(lan: Define) -> None:
    assert host_end(lan(VETH))["master"] == "br0"


def test_net_name(lan: Define) -> None:
    assert names(lan(f"{VETH}lxc.net.0.name = lan7\n")) == ["lan7", "lo"]


def test_net_hwaddr(lan: Define) -> None:
    assert link(lan(f"{VETH}lxc.net.0.hwaddr = 00:16:3e:12:34:56\n"))["address"] == "00:16:3e:12:34:56"


def test_net_mtu(lan: Define) -> None:
    one = lan(f"{VETH}lxc.net.0.mtu = 1300\n")
    assert link(one)["mtu"] == host_end(one)["mtu"] == 1300


def test_net_ipv4_address(lan: Define) -> None:
    """It is there, and packets go from it to the host."""
    one = lan(f"{VETH}lxc.net.0.ipv4.address = 10.9.0.7/24\nlxc.net.0.ipv4.address = 10.9.9.7/24 10.9.9.200\n")
    found = ip(one, "-4 addr show dev eth0")[0]["addr_info"]
    assert [(each["local"], each["prefixlen"], each["broadcast"]) for each in found] == [
        ("10.9.0.7", 24, "10.9.0.255"), ("10.9.9.7", 24, "10.9.9.200"),
    ]  # fmt: skip
    assert "1 packets received" in one.sh("busybox ping -c 1 -W 5 10.9.0.1")


def test_net_ipv6_address(lan: Define) -> None:
    one = lan(f"{VETH}lxc.net.0.ipv6.address = fd09::7/64\nlxc.net.0.ipv6.address = fd19::7/96\n")
    assert sorted(addresses(one)) == ["fd09::7/64", "fd19::7/96"]


def default_route(one: Box, family: int) -> dict[str, Any]:
    (route,) = ip(one, f"-{family} route show default")
    return route


def test_net_ipv4_gateway(lan: Define) -> None:
    text = VETH + ADDRESSES
    assert default_route(lan(f"{text}lxc.net.0.ipv4.gateway = 10.9.0.254\n"), 4)["gateway"] == "10.9.0.254"
    assert default_route(lan(f"{text}lxc.net.0.ipv4.gateway = auto\n"), 4)["gateway"] == "10.9.0.1"
    assert "gateway" not in default_route(lan(f"{text}lxc.net.0.ipv4.gateway = dev\n"), 4)


def test_net_ipv6_gateway(lan: Define) -> None:
    text = VETH + ADDRESSES
    assert default_route(lan(f"{text}lxc.net.0.ipv6.gateway = fd09::fe\n"), 6)["gateway"] == "fd09::fe"
    assert default_route(lan(f"{text}lxc.net.0.ipv6.gateway = auto\n"), 6)["gateway"] == "fd09::1"
    assert "gateway" not in default_route(lan(f"{text}lxc.net.0.ipv6.gateway = dev\n"), 6)


SCRIPT = """\
#!/bin/sh
echo "$*" > {log}
ip -o link show $6 >> {log}
"""


def scripted(lan: Define, hook: str, tmp_path: Path) -> tuple[Box, Path]:
    script, log = tmp_path / "script", tmp_path / "log"
    script.write_text(SCRIPT.format(log=log))
    script.chmod(0o755)
    return lan(f"{VETH}lxc.net.0.script.{hook} = {script}\n"), log


def test_net_script_up(lan: Define, tmp_path: Path) -> None:
    one, log = scripted(lan, "up", tmp_path)
    arguments, shown = log.read_text().splitlines()
    assert arguments == f"{one.name} net up veth br0 {host_end(one)['ifname']}"
    assert "master br0" in shown


def test_net_script_down(lan: Define, tmp_path: Path) -> None:
    """When the container has ended, while its interface is still there."""
    one, log = scripted(lan, "down", tmp_path)
    name = host_end(one)["ifname"]
    assert not log.exists()
    assert one.kill(10)
    arguments, shown = log.read_text().splitlines()
    assert arguments == f"{one.name} net down veth br0 {name}"
    assert "master br0" in shown
    assert name not in netns.names()


def test_net_l2proxy(lan: Define) -> None:
    """The host answers for the container's address on the link, until the container ends."""
    netns.sh("echo 1 > /proc/sys/net/ipv4/conf/br0/forwarding")
    one = lan(
        "lxc.net.0.type = veth\nlxc.net.0.veth.mode = router\nlxc.net.0.link = br0\nlxc.net.0.flags = up\n"
        "lxc.net.0.ipv4.address = 10.9.0.7/32\nlxc.net.0.l2proxy = 1\n"
    )
    assert [each["dst"] for each in netns.ip("neigh show proxy dev br0")] == ["10.9.0.7"]
    assert one.kill(10)
    assert netns.ip("neigh show proxy dev br0") == []


# -- veth ------------------------------------------------------------------------------------------------------------


def test_net_veth_mode(lan: Define) -> None:
    """As a router the host has the way to the container's address, and no bridge the veth."""
    one = lan(
        "lxc.net.0.type = veth\nlxc.net.0.link = br0\nlxc.net.0.flags = up\nlxc.net.0.veth.mode = router\n"
        "lxc.net.0.ipv4.address = 10.77.0.7/32\nlxc.net.0.ipv4.gateway = 10.9.0.254\n"
    )
    host = host_end(one)
    assert "master" not in host
    (route,) = netns.ip("-4 route show 10.77.0.7")
    assert route["dev"] == host["ifname"]
    assert [each["dst"] for each in netns.ip(f"neigh show proxy dev {host['ifname']}")] == ["10.9.0.254"]
    assert "1 packets received" in one.sh("busybox ping -c 1 -W 5 10.9.0.1")


def test_net_veth_pair(lan: Define) -> None:
    one = lan(f"{VETH}lxc.net.0.veth.pair = mine7\n")
    assert host_end(one)["ifname"] == "mine7"


def test_net_veth_n_rxqueues(lan: Define) -> None:
    assert link(lan(f"{VETH}lxc.net.0.veth.n_rxqueues = 3\n"))["num_rx_queues"] == 3


def test_net_veth_n_txqueues(lan: Define) -> None:
    assert link(lan(f"{VETH}lxc.net.0.veth.n_txqueues = 3\n"))["num_tx_queues"] == 3


def test_net_veth_ipv4_route(lan: Define) -> None:
    one = lan(f"{VETH}lxc.net.0.veth.ipv4.route = 10.50.0.0/16\nlxc.net.0.veth.ipv4.route = 10.60.0.0/16\n")
    for net in ("10.50.0.0/16", "10.60.0.0/16"):
        (route,) = netns.ip(f"-4 route show {net}")
        assert route["dev"] == host_end(one)["ifname"]


def test_net_veth_ipv6_route(lan: Define) -> None:
    one = lan("lxc.net.0.type = veth\nlxc.net.0.flags = up\nlxc.net.0.veth.ipv6.route = fd50::/64\n")
    (route,) = netns.ip("-6 route show fd50::/64")
    assert route["dev"] == host_end(one)["ifname"]


def vlans(one: Box) -> dict[int, set[str]]:
    """VLAN → flags of the container's bridge port."""
    (port,) = json.loads(netns.sh(f"bridge -j vlan show dev {host_end(one)['ifname']}"))
    return {each["vlan"]: set(each.get("flags", ())) for each in port["vlans"]}


FILTERING = "ip link set br0 type bridge vlan_filtering 1"


@pytest.mark.requires("bridge-vlan")
def test_net_veth_vlan_id(lan: Define) -> None:
    netns.sh(FILTERING)
    assert vlans(lan(f"{VETH}lxc.net.0.veth.vlan.id = 7\n")) == {7: {"PVID", "Egress Untagged"}}


@pytest.mark.requires("bridge-vlan")
def test_net_veth_vlan_tagged_id(lan: Define) -> None:
    netns.sh(FILTERING)
    one = lan(f"{VETH}lxc.net.0.veth.vlan.tagged.id = 8\nlxc.net.0.veth.vlan.tagged.id = 9\n")
    assert vlans(one) == {1: {"PVID", "Egress Untagged"}, 8: set(), 9: set()}


# -- on a link of the host -------------------------------------------------------------------------------------------


def on_link(lan: Define, kind: str, extra: str) -> dict[str, Any]:
    """ip's word on an interface made on br0."""
    one = lan(f"lxc.net.0.type = {kind}\nlxc.net.0.link = br0\nlxc.net.0.flags = up\n{extra}")
    found: dict[str, Any] = link(one)["linkinfo"]
    assert found["info_kind"] == kind
    return found["info_data"]  # type: ignore[no-any-return]


@pytest.mark.requires("macvlan")
def test_net_macvlan_mode(lan: Define) -> None:
    for mode in ("bridge", "vepa", "private"):
        assert on_link(lan, "macvlan", f"lxc.net.0.macvlan.mode = {mode}\n")["mode"] == mode


@pytest.mark.requires("vlan")
def test_net_vlan_id(lan: Define) -> None:
    assert on_link(lan, "vlan", "lxc.net.0.vlan.id = 7\n")["id"] == 7


@pytest.mark.requires("ipvlan")
def test_net_ipvlan_mode(lan: Define) -> None:
    assert on_link(lan, "ipvlan", "lxc.net.0.ipvlan.mode = l2\n")["mode"] == "l2"


@pytest.mark.requires("ipvlan")
def test_net_ipvlan_isolation(lan: Define) -> None:
    assert on_link(lan, "ipvlan", "lxc.net.0.ipvlan.isolation = private\n")["private"]
