"""lxcpy-net for real: a bridge with DHCP, DNS and NAT in namespaces of the test's own."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonpages
import pytest
from netns import ip, link, make, names, new_netns, sh, values
from probes import missing, requires

from lxcpy.cli import main
from lxcpy.config.model import Nic
from lxcpy.errors import NetworkError
from lxcpy.kernel.mount import mount
from lxcpy.network.service import control, dnsmasq, settings, state, status
from lxcpy.network.service.settings import Settings

pytestmark = requires("root", "namespaces", "bridge", "veth", "dnsmasq", "nft", "nftables")
LXC_NET = "/usr/libexec/lxc/lxc-net"
V6 = {"ipv6_addr": "fd77::1", "ipv6_network": "fd77::/64"}


@pytest.fixture
def service(isolated: Callable[..., Any], tmp_path: Path) -> Callable[[Callable[[], Any]], Any]:
    """Runs a function where the service may be started: own network, mounts, processes and run directory."""

    def call(function: Callable[[], Any]) -> Any:
        def body() -> Any:
            os.environ["LXCPY_RUN_DIR"] = str(tmp_path / "run")
            for folder in ("/var/lib/misc", "/run/lxc"):
                os.makedirs(folder, exist_ok=True)
                mount("tmpfs", folder, "tmpfs")
            mount("sysfs", "/sys", "sysfs")
            sh("ip link set lo up")
            sh("sysctl -qw net.ipv4.ip_forward=0")  # a new namespace begins with the first one's
            return function()

        return isolated(body, "net", "mnt", "pid", "ipc")

    return call


Service = Callable[[Callable[[], Any]], Any]


def seen() -> dict[str, Any]:
    return status.status(Settings())


def tables() -> list[str]:
    return sorted(line.removeprefix("table ") for line in sh("nft list tables").splitlines() if "lxcpy" in line)


def test_start_and_stop(service: Service) -> None:
    def body() -> None:
        assert control.start(Settings(**V6)) == "lxcbr0 is up: 10.0.3.1/24, DHCP from 10.0.3.2 to 10.0.3.254"
        assert link("lxcbr0")["address"] == "10:66:6a:00:00:00"
        assert values("lxcbr0") == ["10.0.3.1/24", "fd77::1/64"]
        assert ip("addr show dev lxcbr0")[0]["addr_info"][0]["broadcast"] == "10.0.3.255"
        assert tables() == ["inet lxcpy", "ip lxcpy", "ip6 lxcpy"]
        value = seen()
        pid = value["dnsmasq"].pop("pid")
        assert value == {
            "up": True, "wanted": True, "provider": "lxcpy-net", "firewall": "nft",
            "bridge": {
                "name": "lxcbr0", "up": True, "mac": "10:66:6a:00:00:00", "addresses": ["10.0.3.1", "fd77::1"],
                "ports": [],
            },
            "dnsmasq": {"range": "10.0.3.2,10.0.3.254", "leases": 0},
            "forwarding": {"ipv4": True, "ipv6": True},
        }  # fmt: skip
        assert control.stop(Settings()) == "lxcbr0 is down"
        assert names() == ["lo"] and tables() == [] and state.load() is None
        assert not os.path.exists(f"/proc/{pid}/exe") and not os.path.exists(dnsmasq.pid_file())
        assert "CHECKSUM" not in sh("iptables-save" if shutil.which("iptables") else "true")
        assert control.stop(Settings()) == "lxcpy-net is not up"
        assert seen()["up"] is False and seen()["bridge"] is None

    service(body)


def test_a_second_start_repairs(service: Service) -> None:
    def body() -> None:
        control.start(Settings())
        before = seen()["dnsmasq"]["pid"]
        assert control.start(Settings()).startswith("lxcbr0 is up already: ")
        assert seen()["dnsmasq"]["pid"] == before
        os.kill(before, signal.SIGKILL)
        sh("nft flush ruleset", "ip addr flush dev lxcbr0")
        while dnsmasq.running(dnsmasq.pid_file()):
            time.sleep(0.01)
        assert seen()["up"] is False
        assert control.start(Settings()).startswith("lxcbr0 is up: ")
        assert seen()["up"] is True and tables() == ["inet lxcpy", "ip lxcpy"]
        known = state.load()
        assert known is not None and len({json.dumps(entry) for entry in known["undo"]}) == len(known["undo"])
        assert control.stop(Settings()) == "lxcbr0 is down"
        assert names() == ["lo"]

    service(body)


def test_a_bridge_with_ports_stays(service: Service) -> None:
    def body() -> None:
        control.start(Settings())
        netns = new_netns()
        record = make([Nic(0, "veth", "up", "lxcbr0")], netns)
        assert seen()["bridge"]["ports"] == [record["nics"][0]["host"]]
        assert control.stop(Settings()) == "lxcbr0 is down, but stays: it has ports"
        assert "lxcbr0" in names() and values("lxcbr0") == [] and "UP" not in link("lxcbr0")["flags"]
        assert control.start(Settings()).startswith("lxcbr0 is up: ")
        assert "UP" in link("lxcbr0")["flags"]
        sh(f"ip link delete {record['nics'][0]['host']}")
        assert control.stop(Settings()) == "lxcbr0 is down"
        assert names() == ["lo"]

    service(body)


def test_a_bridge_of_somebody_elses_is_used_and_left(service: Service) -> None:
    def body() -> None:
        sh("ip link add lxcbr0 type bridge", "ip addr add 10.0.3.1/24 dev lxcbr0", "ip link set lxcbr0 up")
        assert seen()["provider"] == "other"
        control.start(Settings())
        assert seen()["up"] is True
        control.stop(Settings())
        assert values("lxcbr0") == ["10.0.3.1/24"]

    service(body)


def test_a_link_that_is_no_bridge(service: Service) -> None:
    def body() -> list[str]:
        sh("ip link add lxcbr0 type veth peer name x0")
        with pytest.raises(NetworkError) as caught:
            control.start(Settings())
        return caught.value.lines()

    assert service(body) == [
        'there is a link "lxcbr0", and it is not a bridge',
        "  hint: name another as LXC_BRIDGE in /etc/default/lxc-net",
    ]


def test_a_failure_leaves_nothing(service: Service) -> None:
    def body() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as other:
            other.bind(("0.0.0.0", 53))
            other.listen()
            with pytest.raises(NetworkError) as caught:
                control.start(Settings())
        what, hint = caught.value.what, caught.value.hint
        assert what.startswith("lxcpy-net could not start dnsmasq: ") and "Address already in use" in what
        assert hint == "another server holds the port on 10.0.3.1: ss -lnp 'sport = :53 or sport = :67'"
        assert names() == ["lo"] and tables() == [] and state.load() is None

    service(body)


def test_what_the_kernel_refuses_names_the_step(service: Service) -> None:
    def body() -> str:
        with pytest.raises(NetworkError) as caught:
            control.start(Settings(bridge_mac="01:00:00:00:00:01"))
        assert names() == ["lo"] and state.load() is None
        return caught.value.what

    assert service(body).startswith("lxcpy-net could not make the bridge, lxcbr0: Cannot assign requested address")


@pytest.mark.parametrize(
    ("kept", "what"),
    [
        (("nft", "iptables"), "lxcpy-net needs dnsmasq for DHCP and DNS, and it is not in PATH"),
        (("dnsmasq",), "lxcpy-net needs nft or iptables for its rules, and neither is in PATH"),
    ],
)
def test_missing_programs(service: Service, tmp_path: Path, kept: tuple[str, ...], what: str) -> None:
    def body() -> tuple[str, list[str]]:
        folder = tmp_path / "bin"
        folder.mkdir()
        for name in kept:
            found = shutil.which(name)
            if found:
                (folder / name).symlink_to(found)
        path, os.environ["PATH"] = os.environ["PATH"], str(folder)
        with pytest.raises(NetworkError) as caught:
            control.start(Settings())
        os.environ["PATH"] = path
        return caught.value.what, names()

    assert service(body) == (what, ["lo"])


def test_a_start_that_was_killed_is_cleaned_up_by_stop(service: Service) -> None:
    def body() -> list[str]:
        pid = os.fork()
        if pid == 0:
            control._Start.server = lambda self: os._exit(9)  # type: ignore[method-assign,assignment,misc]
            control.start(Settings())
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
        assert "lxcbr0" in names() and tables()
        control.stop(Settings())
        return names() + tables()

    assert service(body) == ["lo"]


def test_other_settings_than_those_that_are_up(service: Service) -> None:
    def body() -> None:
        control.start(Settings())
        with pytest.raises(NetworkError) as caught:
            control.start(Settings(bridge="lxcbr7"))
        assert caught.value.what == "lxcpy-net is up with the bridge lxcbr0, but the settings say lxcbr7"
        assert caught.value.hint == "lxcpy-net restart"
        assert control.stop(Settings(bridge="lxcbr7")) == "lxcbr0 is down"

    service(body)


def test_no_bridge_wanted(service: Service) -> None:
    def body() -> list[str]:
        return [control.start(Settings(use=False)), *names()]

    assert service(body) == ["USE_LXC_BRIDGE is not true: no bridge is wanted", "lo"]


@requires("iptables")
def test_iptables(service: Service) -> None:
    def body() -> None:
        before = sh("iptables -w -S", "iptables -w -t nat -S", "ip6tables -w -t nat -S", "iptables -w -t mangle -S")
        control.start(Settings(use_nft=False, **V6))  # type: ignore[arg-type]
        assert tables() == [] and seen()["firewall"] == "iptables"
        made = sh("iptables -w -S", "iptables -w -t nat -S", "ip6tables -w -t nat -S")
        assert made.count("lxcbr0") == 6 and made.count("MASQUERADE") == 2
        control.start(Settings(use_nft=False, **V6))  # type: ignore[arg-type]
        assert sh("iptables -w -S", "iptables -w -t nat -S", "ip6tables -w -t nat -S") == made
        control.stop(Settings())
        after = sh("iptables -w -S", "iptables -w -t nat -S", "ip6tables -w -t nat -S", "iptables -w -t mangle -S")
        assert after == before

    service(body)


def test_dhcp_names_and_the_world_behind(service: Service, tmp_path: Path) -> None:
    """A client gets an address; what it sends to the world arrives from the host's address."""

    def body() -> None:
        world = new_netns()
        sh("ip link add up0 type veth peer name w0", "ip addr add 198.51.100.1/24 dev up0", "ip link set up0 up")
        sh(f"ip link set w0 netns /proc/{os.getpid()}/fd/{world}")
        sh("ip link set lo up", "ip addr add 198.51.100.2/24 dev w0", "ip link set w0 up", netns=world)
        control.start(Settings(dhcp_ping=False, domain="lxc"))
        netns = new_netns()
        make([Nic(0, "veth", "up", "lxcbr0", hwaddr="00:16:3e:00:00:31")], netns)
        script = tmp_path / "dhcp"
        script.write_text(
            "#!/bin/sh\n[ $1 = bound ] || exit 0\nip addr add $ip/$mask dev eth0\nip route add default via $router\n"
            "echo $ip $router $dns $domain\n"
        )
        script.chmod(0o755)
        said = sh(f"busybox udhcpc -f -n -q -i eth0 -t 10 -T 1 -F web -s {script} 2>/dev/null", netns=netns).split()
        assert said[1:] == ["10.0.3.1", "10.0.3.1", "lxc"] and said[0].startswith("10.0.3.")
        assert seen()["dnsmasq"]["leases"] == 1
        assert said[0] in sh("busybox nslookup web.lxc 10.0.3.1", netns=netns)
        sh("busybox ping -c1 -w5 -q 198.51.100.2", netns=netns)  # the world knows no way to 10.0.3.0/24
        control.stop(Settings())
        assert seen()["dnsmasq"] is None

    service(body)


@pytest.mark.skipif(not os.access(LXC_NET, os.X_OK), reason="no lxc-net of LXC's")
def test_lxc_net_is_up_already(service: Service) -> None:
    def body() -> None:
        sh(f"{LXC_NET} start")
        value = seen()
        assert (value["provider"], value["up"]) == ("lxc-net", True)
        assert control.start(Settings()) == "lxcbr0 is up already, by lxc-net"
        assert state.load() is None and tables() == []
        assert control.stop(Settings()) == "lxcbr0 is lxc-net's and stays"
        assert seen()["dnsmasq"]["pid"] == value["dnsmasq"]["pid"]
        sh(f"{LXC_NET} stop")
        assert control.start(Settings()).startswith("lxcbr0 is up: ")
        control.stop(Settings())

    service(body)


def test_the_command(service: Service, tmp_path: Path) -> None:
    (tmp_path / "lxc-net").write_text('LXC_BRIDGE="br7"\nLXC_IPV6_ENABLE=false\n')
    settings.FILES = (str(tmp_path / "none"), str(tmp_path / "lxc-net"))
    settings.load.__defaults__ = (settings.FILES, settings.MACHINE_ID)

    def command(*words: str) -> tuple[int, str]:
        out, err = (io.TextIOWrapper(io.BytesIO(), write_through=True) for _ in range(2))
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main.run("net", "lxcpy-net", list(words))
        return code, "".join(stream.buffer.getvalue().decode() for stream in (out, err))  # type: ignore[attr-defined]

    def body() -> None:
        up = "br7 is up: 10.0.3.1/24, DHCP from 10.0.3.2 to 10.0.3.254\n"
        assert command("status") == (
            3,
            "bridge:      br7, missing\nforwarding:  off\nfirewall:    no rules of lxcpy-net\n"
            "dnsmasq:     not running\n",
        )
        assert command("start") == (0, up)
        code, text = command("status")
        assert code == 0 and text.splitlines()[:2] == [
            "bridge:      br7, up, 0 ports, made by lxcpy-net",
            "addresses:   10.0.3.1",
        ]
        code, text = command("status", "--json")
        assert code == 0 and jsonpages.read("lxcpy-net status --json", text)["bridge"]["name"] == "br7"
        assert command("restart") == (0, "br7 is down\n" + up)
        assert command("stop") == (0, "br7 is down\n")
        assert command() == (
            1, "lxcpy-net: one of start, stop, restart, status is needed\n  hint: lxcpy-net start\n"
        )  # fmt: skip
        settings.load.__defaults__ = ((), settings.MACHINE_ID)
        os.setuid(65534)
        assert command("start") == (
            1, "lxcpy-net: lxcpy-net start needs root\n  hint: sudo lxcpy-net start\n"
        )  # fmt: skip

    service(body)


def test_ipv6_routes_learned_from_routers_are_kept(service: Service) -> None:
    """The kernel drops them when forwarding goes on, unless accept_ra is 2."""

    def body() -> tuple[str | None, bool]:
        world = new_netns()
        sh("ip link add up0 type veth peer name w0", f"ip link set w0 netns /proc/{os.getpid()}/fd/{world}")
        sh("ip link set up0 up", "ip addr add fd55::2/64 dev up0 nodad")
        sh("ip link set lo up", "ip addr add fd55::1/64 dev w0 nodad", "ip link set w0 up",
           "sysctl -qw net.ipv6.conf.all.forwarding=1", netns=world)  # fmt: skip
        sh("dnsmasq --conf-file=/dev/null --pid-file=/run/lxc/ra.pid --port=0 --interface=w0 --enable-ra"
           " --dhcp-range=fd55::,ra-only -u root", netns=world)  # fmt: skip

        def learned() -> bool:
            return "proto ra" in sh("ip -6 route show default")

        deadline = time.monotonic() + 20
        while not learned() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert learned()
        control.start(Settings(**V6))  # type: ignore[arg-type]
        with open("/proc/sys/net/ipv6/conf/up0/accept_ra") as file:
            return file.read().strip(), learned()

    assert missing("dnsmasq") is None
    assert service(body) == ("2", True)
