"""Links of each type for real, in namespaces of the test's own."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from netns import bridge, create, ip, lingers, link, make, names, new_netns, planned, remove, sh, values
from probes import requires

from lxcpy.config.model import Nic, Veth
from lxcpy.errors import NetworkError, Origin
from lxcpy.network import addresses, facts, links, netlink
from lxcpy.network.plan import plan
from lxcpy.network.wire import Script

pytestmark = requires("root", "namespaces", "veth", "bridge")
Isolated = Callable[..., Any]


def test_veth(isolated: Isolated) -> None:
    def body() -> None:
        bridge()
        sh("ip link set br0 mtu 1450")
        netns = new_netns()
        nic = Nic(
            0, "veth", "up", "br0", hwaddr="00:16:3e:0a:0b:0c", ipv4_address=("10.9.0.5/24",), ipv4_gateway="auto",
            ipv6_address=("fd09::5/64",), ipv6_gateway="auto", veth=Veth(pair="web0"),
        )  # fmt: skip
        record = make([nic], netns)
        host, inside = link("web0"), link("eth0", netns)
        assert (host["master"], host["mtu"], host["address"][:2]) == ("br0", 1450, "fe")
        assert "UP" in host["flags"] and "UP" in link("lo", netns)["flags"]
        assert (inside["address"], inside["mtu"]) == ("00:16:3e:0a:0b:0c", 1450)
        assert "UP" in inside["flags"]
        assert values("eth0", netns) == ["10.9.0.5/24", "fd09::5/64"]
        assert [route["gateway"] for route in ip("route show default", netns)] == ["10.9.0.1"]
        assert [route["gateway"] for route in ip("-6 route show default", netns)] == ["fd09::1"]
        with open("/proc/sys/net/ipv6/conf/web0/disable_ipv6") as file:
            assert file.read() == "1\n"
        sh("busybox ping -c1 -w5 -q 10.9.0.1", netns=netns)
        remove(json.loads(json.dumps(record)))
        assert names() == ["br0", "lo"] and names(netns) == ["lo"]
        remove(record)

    isolated(body, "net")


def test_a_bridge_keeps_its_own_address(isolated: Isolated) -> None:
    """A bridge takes the lowest address among its ports: the host end begins with fe for that."""

    def body() -> tuple[str, str]:
        sh("ip link add low type veth peer name lowx", "ip link set low address 02:00:00:00:00:01")
        bridge()
        sh("ip link set low master br0", "ip link set low up")
        before = link("br0")["address"]
        make([Nic(0, "veth", "up", "br0")], new_netns())
        return before, link("br0")["address"]

    before, after = isolated(body, "net")
    assert before == after


def test_several_interfaces(isolated: Isolated) -> None:
    def body() -> list[str]:
        bridge()
        netns = new_netns()
        make([Nic(0, "veth", "up", "br0"), Nic(1, "veth", "up", "br0", name="lan"), Nic(4, "veth", None, "br0")], netns)
        assert "UP" not in link("eth1", netns)["flags"]
        return names(netns)

    assert isolated(body, "net") == ["eth0", "eth1", "lan", "lo"]


def test_no_link_no_flags(isolated: Isolated) -> None:
    def body() -> None:
        netns = new_netns()
        record = make([Nic(0, "veth")], netns)
        host = record["nics"][0]["host"]
        assert "master" not in link(host)
        assert "UP" not in link("lo", netns)["flags"]
        assert link("eth0", netns)["address"].startswith("00:16:3e")

    isolated(body, "net")


def test_queues(isolated: Isolated) -> None:
    def body() -> None:
        netns = new_netns()
        make([Nic(0, "veth", veth=Veth(pair="q0", n_rxqueues=3, n_txqueues=2))], netns)
        inside, host = link("eth0", netns), link("q0")
        assert (inside["num_rx_queues"], inside["num_tx_queues"]) == (3, 2)
        assert (host["num_rx_queues"], host["num_tx_queues"]) == (2, 3)

    isolated(body, "net")


def test_empty(isolated: Isolated) -> None:
    def body() -> None:
        netns = new_netns()
        assert make([Nic(0, "empty", "up")], netns)["undo"] == []
        assert names(netns) == ["lo"] and "UP" in link("lo", netns)["flags"]

    isolated(body, "net")


def test_gateway_outside_of_the_subnet(isolated: Isolated) -> None:
    def body() -> None:
        bridge()
        netns = new_netns()
        nic = Nic(0, "veth", "up", "br0", ipv4_address=("10.77.0.5/32",), ipv4_gateway="10.9.0.1")
        make([nic], netns)
        routes = {route["dst"]: route.get("gateway") for route in ip("route show", netns)}
        assert routes == {"default": "10.9.0.1", "10.9.0.1": None}

    isolated(body, "net")


def test_gateway_dev_and_broadcast(isolated: Isolated) -> None:
    def body() -> None:
        bridge()
        netns = new_netns()
        nic = Nic(0, "veth", "up", "br0", ipv4_address=("10.9.0.5/24 10.9.0.77", "10.9.0.6/24"), ipv4_gateway="dev")
        make([nic], netns)
        found = ip("-4 addr show dev eth0", netns)[0]["addr_info"]
        assert [one["broadcast"] for one in found] == ["10.9.0.77", "10.9.0.255"]
        assert "gateway" not in ip("route show default", netns)[0]

    isolated(body, "net")


def test_router_mode(isolated: Isolated) -> None:
    def body() -> None:
        sh("ip link set lo up", "sysctl -qw net.ipv6.conf.all.forwarding=1", "ip link add d0 type veth peer name d0x")
        # the kernel answers for an address that it would forward to another device
        sh("ip addr add 198.51.100.1/24 dev d0", "ip link set d0 up", "ip link set d0x up")
        sh("ip route add default via 198.51.100.2")
        netns = new_netns()
        nic = Nic(
            0, "veth", "up", ipv4_address=("10.9.0.5/32",), ipv4_gateway="169.254.1.1", ipv6_address=("fd09::5/128",),
            ipv6_gateway="fe80::1", veth=Veth("router", "r0", ipv4_route=("10.8.0.0/16",), ipv6_route=("fd08::/32",)),
        )  # fmt: skip
        make([nic], netns)
        assert {route["dst"] for route in ip("route show dev r0")} == {"10.8.0.0/16", "10.9.0.5"}
        assert {"fd08::/32", "fd09::5"} <= {route["dst"] for route in ip("-6 route show dev r0")}
        assert {one["dst"] for one in ip("neigh show proxy")} == {"169.254.1.1", "fe80::1"}
        for path in ("ipv4/conf/r0/forwarding", "ipv6/conf/r0/forwarding", "ipv6/conf/r0/proxy_ndp"):
            assert facts.read_sysctl(path) == "1"
        sh("busybox ping -c1 -w5 -q 198.51.100.1", netns=netns)

    isolated(body, "net")


@requires("bridge-vlan")
def test_vlans_of_a_bridge_port(isolated: Isolated) -> None:
    def body() -> dict[int, list[str]]:
        bridge(extra="vlan_filtering 1")
        make([Nic(0, "veth", "up", "br0", veth=Veth(pair="v0", vlan_id="5", vlan_tagged_id=(7, 8)))], new_netns())
        found = json.loads(sh("bridge -j vlan show dev v0"))[0]["vlans"]
        return {one["vlan"]: one.get("flags", []) for one in found}

    assert isolated(body, "net") == {5: ["PVID", "Egress Untagged"], 7: [], 8: []}


@requires("macvlan")
@pytest.mark.parametrize("mode", ["private", "vepa", "bridge", "passthru"])
def test_macvlan(isolated: Isolated, mode: str) -> None:
    def body() -> None:
        sh("ip link add d0 type veth peer name d0x", "ip link set d0 up")
        netns = new_netns()
        mac = None if mode == "passthru" else "00:16:3e:00:00:09"
        record = make([Nic(0, "macvlan", "up", "d0", macvlan_mode=mode, hwaddr=mac, mtu=1300)], netns)
        found = link("eth0", netns)
        assert found["linkinfo"]["info_kind"] == "macvlan"
        assert (found["linkinfo"]["info_data"]["mode"], found["mtu"]) == (mode, 1300)
        assert found["address"] == (mac or link("d0")["address"])
        assert record["undo"] == []

    isolated(body, "net")


@requires("ipvlan")
@pytest.mark.parametrize(
    ("mode", "isolation"), [("l3", "bridge"), ("l2", "private"), ("l3s", "vepa"), ("l2", "bridge")]
)
def test_ipvlan(isolated: Isolated, mode: str, isolation: str) -> None:
    def body() -> dict[str, Any]:
        sh("ip link add d0 type veth peer name d0x", "ip link set d0 up")
        netns = new_netns()
        make([Nic(0, "ipvlan", "up", "d0", ipvlan_mode=mode, ipvlan_isolation=isolation)], netns)
        return dict(link("eth0", netns)["linkinfo"]["info_data"])

    data = isolated(body, "net")
    assert data["mode"] == mode
    assert isolation in json.dumps(data) if isolation != "bridge" else True


@requires("ipvlan")
def test_l2proxy(isolated: Isolated) -> None:
    def body() -> None:
        sh(
            "ip link set lo up",
            "ip link add d0 type veth peer name d0x",
            "ip link set d0 up",
            "sysctl -qw net.ipv4.conf.d0.forwarding=1",
        )
        nic = Nic(0, "ipvlan", "up", "d0", l2proxy=True, ipvlan_mode="l3s", ipv4_address=("10.9.0.5/32",))
        record = make([nic], new_netns())
        assert [one["dst"] for one in ip("neigh show proxy")] == ["10.9.0.5"]
        assert [one["dst"] for one in ip("route show dev lo")] == ["10.9.0.5"]
        for _ in range(2):
            remove(record)
            assert ip("neigh show proxy") == [] and ip("route show dev lo") == []

    isolated(body, "net")


@requires("vlan")
def test_vlan(isolated: Isolated) -> None:
    def body() -> None:
        sh("ip link add d0 type veth peer name d0x", "ip link set d0 up")
        netns = new_netns()
        make([Nic(0, "vlan", "up", "d0", vlan_id=77, ipv4_address=("10.9.0.5/24",))], netns)
        assert link("eth0", netns)["linkinfo"]["info_data"]["id"] == 77
        assert values("eth0", netns) == ["10.9.0.5/24"]

    isolated(body, "net")


def _physical(name: str = "d0") -> None:
    """A device that can stand for hardware, with an alternative name."""
    sh(f"ip link add {name} type veth peer name {name}x", f"ip link set {name} mtu 1400 address 02:00:00:00:00:01")
    sh(f"ip link property add dev {name} altname enp9s9")


def test_phys_out_and_back(isolated: Isolated) -> None:
    def body() -> None:
        _physical()
        netns = new_netns()
        record = make([Nic(0, "phys", "up", "d0", name="wan", mtu=1280, hwaddr="02:00:00:00:00:99")], netns)
        inside = link("wan", netns)
        assert (inside["mtu"], inside["address"], inside.get("altnames")) == (1280, "02:00:00:00:00:99", None)
        assert names() == ["d0x", "lo"]
        sh(
            "ip link set wan down",
            "ip link set wan name other",
            "ip link property add dev other altname theirs",
            netns=netns,
        )
        sh("ip link add wan type veth peer name wanx")  # its name inside is taken by another out here
        remove(json.loads(json.dumps(record)), netns=netns)
        back = link("d0")
        assert (back["mtu"], back["address"], back["altnames"]) == (1400, "02:00:00:00:00:01", ["enp9s9"])
        assert names(netns) == ["lo"]
        remove(record, netns=netns)
        remove(record)
        assert names() == ["d0", "d0x", "lo", "wan", "wanx"]

    isolated(body, "net")


def test_phys_swaps_names(isolated: Isolated) -> None:
    def body() -> None:
        sh("ip link add d1 type veth peer name d1x", "ip link add d2 type veth peer name d2x")
        before = {name: link(name)["address"] for name in ("d1", "d2")}
        netns = new_netns()
        nics = [Nic(0, "phys", link="d1", name="d2"), Nic(1, "phys", link="d2", name="d1")]
        record = make(nics, netns)
        assert {name: link(name, netns)["address"] for name in ("d2", "d1")} == {"d2": before["d1"], "d1": before["d2"]}
        remove(record, netns=netns)
        assert {name: link(name)["address"] for name in ("d1", "d2")} == before

    isolated(body, "net")


def test_phys_whose_name_was_taken_meanwhile(isolated: Isolated) -> None:
    def body() -> list[str]:
        _physical()
        netns = new_netns()
        record = make([Nic(0, "phys", link="d0")], netns)
        sh("ip link add d0 type veth peer name d0y")
        remove(record, netns=netns)
        return names()

    left = isolated(body, "net")
    assert left[:4] == ["d0", "d0x", "d0y", "lo"] and left[4].startswith("phys") and len(left) == 5


def test_scripts_run_in_their_order(isolated: Isolated) -> None:
    def body() -> list[tuple[str, list[str], list[str]]]:
        bridge()
        seen: list[tuple[str, list[str], list[str]]] = []

        def run(script: Script) -> None:
            seen.append((script.hook, script.arguments, names()))

        nic = Nic(0, "veth", "up", "br0", script_up="/up", script_down="/down", veth=Veth(pair="s0"))
        record = make([nic], new_netns(), run)
        remove(json.loads(json.dumps(record)), run=run)
        assert "s0" not in names()
        return seen

    there = ["br0", "lo", "s0"]
    assert isolated(body, "net") == [("up", ["veth", "br0", "s0"], there), ("down", ["veth", "br0", "s0"], there)]


def test_a_failing_script_leaves_nothing(isolated: Isolated) -> None:
    def body() -> list[str]:
        bridge()

        def run(script: Script) -> None:
            raise NetworkError("no")

        with pytest.raises(NetworkError, match="no"):
            make([Nic(0, "veth", "up", "br0", script_up="/up")], new_netns(), run)
        return names()

    assert isolated(body, "net") == ["br0", "lo"]


def test_what_script_up_did_script_down_undoes_when_the_start_fails(isolated: Isolated) -> None:
    def body() -> list[str]:
        bridge()
        seen: list[str] = []
        first = Nic(0, "veth", "up", "br0", script_up="/up", script_down="/down")
        second = Nic(1, "veth", "up", "br0", ipv4_address=("10.9.0.5/24", "10.9.0.5/24"))
        with pytest.raises(NetworkError, match="Address already assigned"):
            make([first, second], new_netns(), lambda script: seen.append(script.hook))
        return seen

    assert isolated(body, "net") == ["up", "down"]


def test_a_failing_step_names_itself_and_leaves_nothing(isolated: Isolated) -> None:
    def body() -> None:
        bridge()
        netns = new_netns()
        nics = [Nic(0, "veth", "up", "br0"), Nic(1, "veth", "up", "br0", ipv4_address=("10.9.0.5/24", "10.9.0.5/24"))]
        origins = {"lxc.net.1.ipv4.address": Origin("config", 7)}
        made = plan(nics, facts.gather(nics), origins.get)
        with pytest.raises(NetworkError) as caught:
            create(made, netns)
        assert caught.value.what == (
            "network: address 10.9.0.5/24 broadcast 10.9.0.255 on eth1: File exists (ipv4: Address already assigned)"
        )
        assert caught.value.at == Origin("config", 7)
        assert names() == ["br0", "lo"]

    isolated(body, "net")


def test_a_pair_name_that_is_taken_stays_the_others(isolated: Isolated) -> None:
    def body() -> None:
        bridge()
        first = make([Nic(0, "veth", "up", "br0", veth=Veth(pair="web0"))], new_netns())
        made = planned([Nic(0, "veth", "up", "br0", veth=Veth(pair="web0"))])
        with pytest.raises(NetworkError) as caught:
            create(made, new_netns())
        assert "File exists" in caught.value.what
        assert caught.value.hint == "a device web0 exists already; lxc.net.[i].veth.pair must be unique"
        remove(made.record)  # as after a kill -9: the name is not enough
        assert "web0" in names()
        remove(first)
        assert "web0" not in names()

    isolated(body, "net")


def test_a_pair_name_whose_owner_is_dying_is_waited_for(isolated: Isolated) -> None:
    def body() -> None:
        bridge()
        nic = Nic(0, "veth", "up", "br0", veth=Veth(pair="web0"))
        for _ in range(5):
            netns = new_netns()
            make([nic], netns)
            os.close(netns)  # nobody removes it: the kernel does, some time later

    isolated(body, "net")


def test_remove_many(isolated: Isolated) -> None:
    def body() -> None:
        bridge()
        records = [make([Nic(0, "veth", "up", "br0")], new_netns()) for _ in range(12)]
        assert all(map(lingers, records))
        with links.Network() as network:
            network.remove_many((record, None) for record in records)
        assert names() == ["br0", "lo"]
        assert not any(map(lingers, records))

    isolated(body, "net")


def test_host_ends_die_with_the_namespace(isolated: Isolated) -> None:
    def body() -> bool:
        bridge()
        netns = new_netns()
        record = make([Nic(0, "veth", "up", "br0")], netns)
        os.close(netns)
        deadline = time.monotonic() + 10
        while lingers(record) and time.monotonic() < deadline:
            time.sleep(0.01)
        return lingers(record)

    assert isolated(body, "net") is False


def test_missing_bridge_and_a_link_that_is_none(isolated: Isolated) -> None:
    def body() -> tuple[str, str]:
        sh("ip link add d0 type veth peer name d0x")
        found = []
        for name in ("lxcbr0", "d0"):
            with pytest.raises(NetworkError) as caught:
                planned([Nic(0, "veth", "up", name)])
            found.append(caught.value.what)
        return found[0], found[1]

    missing, wrong = isolated(body, "net")
    assert missing == 'lxc.net.0: the bridge "lxcbr0" does not exist'
    assert wrong == 'lxc.net.0: "d0" is not a bridge'


def test_alternative_names_find_a_link(isolated: Isolated) -> None:
    def body() -> str:
        bridge()
        sh("ip link property add dev br0 altname the-container-bridge")
        return str(planned([Nic(0, "veth", link="br0")]).describe()[0].rsplit(" ", 1)[1])

    assert isolated(body, "net") == "br0"


def test_addresses(isolated: Isolated) -> None:
    def body() -> None:
        bridge()
        netns = new_netns()
        nics = [
            Nic(0, "veth", "up", "br0", ipv4_address=("10.9.0.5/24", "10.9.0.6/24"), ipv6_address=("fd09::5/64",)),
            Nic(1, "veth", "up", "br0", ipv6_address=("fd09::6/64",)),
            Nic(2, "veth", "up", "br0", ipv4_address=("169.254.7.7/16",)),
        ]
        make(nics, netns)
        with addresses.open_socket_in(netns) as sock:
            found = addresses.addresses(sock)
            assert found == [
                ("eth0", "inet", "10.9.0.5"), ("eth0", "inet", "10.9.0.6"), ("eth2", "inet", "169.254.7.7"),
                ("eth0", "inet6", "fd09::5"), ("eth1", "inet6", "fd09::6"),
            ]  # fmt: skip
            assert addresses.split(found)[1] == ["fd09::5", "fd09::6"]
            begin = time.perf_counter()
            for _ in range(100):
                addresses.addresses(sock, names=False)
            assert (time.perf_counter() - begin) / 100 < 0.002
            assert [name for name, _, _ in addresses.addresses(sock, loopback=True)].count("lo") == 2

    isolated(body, "net")


def test_many_addresses_take_several_datagrams(isolated: Isolated) -> None:
    def body() -> int:
        sh("ip link add d0 type veth peer name d0x", "ip link set d0 up")
        batch = "\n".join(f"addr add 10.{n}.{m}.1/32 dev d0" for n in range(4) for m in range(150))
        sh(f"ip -batch - <<END\n{batch}\nEND")
        with addresses.open_socket() as sock:
            return len(addresses.addresses(sock))

    assert isolated(body, "net") == 600


def test_no_thread_and_no_socket_stays(isolated: Isolated) -> None:
    def body() -> None:
        bridge()
        before = os.listdir("/proc/self/fd")
        netns = new_netns()
        record = make([Nic(0, "veth", "up", "br0")], netns)
        remove(record, netns=netns)
        os.close(netns)
        assert os.listdir("/proc/self/fd") == before
        assert threading.active_count() == 1
        assert len(os.listdir("/proc/self/task")) == 1

    isolated(body, "net")


def test_the_words_of_the_kernel(isolated: Isolated) -> None:
    def body() -> tuple[int, int, str]:
        with links.Network() as net:
            with pytest.raises(netlink.Refused) as caught:
                good = links.link_message(16, links.REQUEST, [("IFLA_MTU", 1500)], index=1)
                bad = links.link_message(16, links.REQUEST, [("IFLA_MTU", 2**31)], index=1)
                net.send(good, bad, bad)
            return caught.value.errno or 0, caught.value.number, caught.value.words

    errno, number, words = isolated(body, "net")
    assert (errno, number) == (22, 1) and "mtu" in words


def test_names_given_by_a_user_namespaces_container(isolated: Isolated) -> None:
    """The namespace may belong to another user namespace; the host's root may still configure it."""

    def body() -> list[str]:
        bridge()
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            from lxcpy.kernel.namespace import CLONE_NEWNET, CLONE_NEWUSER, unshare

            unshare(CLONE_NEWUSER | CLONE_NEWNET)
            os.write(writer, b"x")
            time.sleep(30)
            os._exit(0)
        os.read(reader, 1)
        netns = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        try:
            make([Nic(0, "veth", "up", "br0", ipv4_address=("10.9.0.5/24",))], netns)
            return values("eth0", netns)
        finally:
            os.kill(pid, 9)
            os.waitpid(pid, 0)

    assert isolated(body, "net") == ["10.9.0.5/24"]
