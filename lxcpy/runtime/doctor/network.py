"""The links a container asks for, and whether its packets get anywhere: bridge, DHCP, forwarding, firewall, NAT."""

from __future__ import annotations

import ipaddress
import os
import pwd
from collections.abc import Iterator
from typing import NamedTuple

from lxcpy.config.model import Config, Nic
from lxcpy.errors import NetworkError, Origin
from lxcpy.network import facts, links, ruleset, usernic
from lxcpy.network.addresses import addresses, open_socket
from lxcpy.network.facts import HostLink
from lxcpy.network.service import control, dnsmasq
from lxcpy.network.service import settings as service_settings
from lxcpy.network.service.settings import Settings
from lxcpy.network.wire import REQUEST, RTM_NEWLINK
from lxcpy.runtime.doctor import sockets
from lxcpy.runtime.doctor.finding import ERROR, WARNING, Finding, Fix, ok

CHECK = "network"


class Bridge(NamedTuple):
    """A bridge of the host."""

    link: HostLink
    address: str  # its first IPv4 address, "" without one
    ours: bool  # it is the one that lxcpy-net makes
    uplinks: tuple[str, ...]  # ports that are no container's: the network goes on behind them


def check(config: Config) -> Iterator[Finding]:
    """The interfaces of a container. Raises NetworkError for settings of lxcpy-net that cannot be read."""
    settings = service_settings.load()
    done = set()
    for nic in config.net:
        if os.geteuid():
            yield from _granted(nic, config)
        if not nic.link or nic.type in ("none", "empty", None):
            continue
        at = config.at(f"lxc.net.{nic.index}.link")
        wants = nic.type == "veth" and nic.veth.mode == "bridge"
        served = wants and nic.flags == "up" and not nic.ipv4_address
        if (nic.link, served) not in done:
            done.add((nic.link, served))
            yield from _link(nic, settings, at, bridge=wants, served=served)


def _granted(nic: Nic, config: Config) -> Iterator[Finding]:
    """What an ordinary user's interface needs of the machine."""
    key = f"lxc.net.{nic.index}"
    at, why = config.at(f"{key}.type"), "the container does not start"
    if nic.type == "none":
        return
    unfit = usernic.unfit(nic)
    if unfit is not None:
        yield Finding(ERROR, CHECK, f"{key}: an ordinary user's container cannot have {unfit}", why,
                      usernic.USERS_HAVE, at)  # fmt: skip
    elif nic.type == "veth" and usernic.helper() is None:
        yield Finding(ERROR, CHECK, f"{key}: lxc-user-nic, which makes an ordinary user's veth, is not installed", why,
                      f"apt install lxc; or {key}.type = empty", at)  # fmt: skip
    elif nic.type == "veth" and not usernic.grants(nic.link or "none"):
        user = pwd.getpwuid(os.geteuid()).pw_name
        cure = f"as root: echo {user} veth {nic.link or 'none'} 10 >> {usernic.USERNET}"
        yield Finding(ERROR, CHECK, f'{key}: {usernic.USERNET} grants {user} no veth on "{nic.link}"', why, cure, at)


def _link(nic: Nic, settings: Settings, at: Origin | None, *, bridge: bool, served: bool) -> Iterator[Finding]:
    key, name = f"lxc.net.{nic.index}.link", str(nic.link)
    with open_socket() as sock:
        found = facts.link(sock, name)
    ours = name == settings.bridge
    if found is None:
        cure = f"ip link shows what there is; correct {key}"
        if bridge:
            cure = f"ip link add {name} type bridge && ip link set {name} up"
        if ours and bridge:
            cure = "lxcpy-net start (systemctl enable --now lxcpy-net makes it at each boot)"
        yield Finding(ERROR, CHECK, f'{key}: there is no link "{name}" on this host', "the container does not start",
                      cure, at, _start_service(settings) if ours and bridge else None)  # fmt: skip
        return
    if not found.up:
        cure = f"ip link set {name} up"
        yield Finding(ERROR, CHECK, f'{key}: "{name}" is down', "the container's packets go nowhere", cure, at,
                      Fix(cure, lambda: _raise_link(found)))  # fmt: skip
    if not bridge:
        if found.up:
            yield ok(CHECK, f'{key}: "{name}" is up')
        return
    if found.kind not in ("bridge", "openvswitch"):
        yield Finding(ERROR, CHECK, f'{key}: "{name}" is no bridge', "a veth pair cannot be connected to it",
                      f"make a bridge, or lxc.net.{nic.index}.type = macvlan for a device of hardware", at)  # fmt: skip
        return
    if found.up:
        yield ok(CHECK, f'{key}: the bridge "{name}" is up')
    if found.kind == "bridge":
        yield from _bridge(_facts(found, ours=ours), settings, at, served=served)


def _facts(found: HostLink, *, ours: bool) -> Bridge:
    with open_socket() as sock:
        ports = [link for link in facts.links(sock) if link.master == found.index]
        address = next((value for device, kind, value in addresses(sock) if (device, kind) == (found.name, "inet")), "")
    return Bridge(found, address, ours, tuple(sorted(port.name for port in ports if port.kind not in ("veth", "tun"))))


def _bridge(bridge: Bridge, settings: Settings, at: Origin | None, *, served: bool) -> Iterator[Finding]:
    name = bridge.link.name
    if bridge.uplinks:
        yield ok(CHECK, f'"{name}" goes on behind {", ".join(bridge.uplinks)}: DHCP and routing are that network\'s')
        return
    level = ERROR if bridge.ours else WARNING
    start = _start_service(settings) if bridge.ours else None
    cure = "lxcpy-net start" if bridge.ours else f"ip address add ADDRESS/LENGTH dev {name}"
    if not bridge.address:
        yield Finding(level, CHECK, f'the bridge "{name}" has no IPv4 address', "containers on it have no gateway",
                      cure, at, start)  # fmt: skip
    if served:
        yield from _dhcp(bridge, settings, at, level, start)
    if facts.read_sysctl("ipv4/ip_forward") != "1":
        yield Finding(level, CHECK, "IPv4 forwarding is off (net.ipv4.ip_forward = 0)",
                      "containers reach the host and each other, but nothing beyond",
                      "sysctl -w net.ipv4.ip_forward=1, and a line in /etc/sysctl.d to keep it", at,
                      Fix("sysctl -w net.ipv4.ip_forward=1", _forward) if bridge.ours else None)  # fmt: skip
    else:
        yield ok(CHECK, "IPv4 forwarding is on")
    yield from _firewall(bridge, at, level, start, served=served)


def _dhcp(
    bridge: Bridge, settings: Settings, at: Origin | None, level: str, start: Fix | None
) -> Iterator[Finding]:
    """Who answers DHCP on the bridge; and, where nobody does yet, who keeps our server from it."""
    name = bridge.link.name
    own = next((pid for file in (dnsmasq.pid_file(), dnsmasq.LXC_PID_FILE) if (pid := dnsmasq.running(file))), None)
    if bridge.ours and own is not None:
        yield ok(CHECK, f'DHCP and DNS on "{name}": dnsmasq, pid {own}')
        return
    server = sockets.holder(67, "", protocols=("udp",), device=name)
    if server is not None:
        yield ok(CHECK, f'DHCP on "{name}": {server}')
        return
    why = "the container waits for an address and gets none"
    if not bridge.ours:
        cure = f"run a DHCP server on {name}, or give the container lxc.net.[i].ipv4.address"
        yield Finding(WARNING, CHECK, f'nothing serves DHCP on "{name}"', why, cure, at)
        return
    taken = sockets.holder(53, settings.addr, protocols=("udp", "tcp"))
    if taken is not None:
        cure = f"let it leave {settings.addr} (systemd-resolved: DNSStubListener=no; dnsmasq: bind-interfaces; named: "
        cure += "listen-on), or switch our DNS off: port=0 in the file that LXC_DHCP_CONFILE names"
        yield Finding(ERROR, CHECK, f"port 53 on {settings.addr} is taken by {taken}",
                      f'dnsmasq cannot serve DHCP and DNS on "{name}"', cure, at)  # fmt: skip
        start = None
    if not facts.in_path("dnsmasq"):
        start = None
    cure = "lxcpy-net start" if facts.in_path("dnsmasq") else "apt install dnsmasq-base, then lxcpy-net start"
    yield Finding(level, CHECK, f'nothing serves DHCP on "{name}"', why, cure, at, start)


def _firewall(
    bridge: Bridge, at: Origin | None, level: str, start: Fix | None, *, served: bool
) -> Iterator[Finding]:
    rules = ruleset.read() if os.geteuid() == 0 else None
    if rules is None and os.geteuid():
        yield ok(CHECK, "the firewall's rules are root's to see")
        return
    if rules is None:
        why = "they may keep containers from the network"
        cure = "run it as root, with nft in PATH"
        yield Finding(WARNING, CHECK, "the firewall's rules cannot be seen", why, cure, at)
        return
    name, inside = bridge.link.name, _neighbour(bridge.address)
    out = ruleset.Packet(name, default_device(), inside)
    asks = (
        ("forward", out, "forwards", f"containers on {name} reach nothing beyond the host"),
        ("forward", out._replace(iif=out.oif, oif=name, source="203.0.113.1", state="established"), "gets back",
         f"answers do not reach the containers on {name}"),
        ("input", ruleset.Packet(name, "", "0.0.0.0", "udp", 67), "asks for by DHCP", "containers get no address"),
        ("input", ruleset.Packet(name, "", inside, "udp", 53), "asks for by DNS", "containers resolve no name"),
    )  # fmt: skip
    told = set()
    for hook, packet, word, why in asks if served else asks[:2]:
        chain = rules.dropped(hook, packet)
        if chain is not None and str(chain) not in told:
            told.add(str(chain))
            yield Finding(level, CHECK, f'the firewall drops what "{name}" {word} (chain {chain})', why,
                          _accept(chain, name), at)  # fmt: skip
    if not told:
        yield ok(CHECK, f'the firewall lets the packets of "{name}" pass')
    if bridge.address and not _public(inside) and not rules.masqueraded(out):
        cure = "lxcpy-net start" if bridge.ours else f"nft add rule ip nat postrouting iifname {name} masquerade"
        yield Finding(level, CHECK, f'nothing masquerades the addresses of "{name}"',
                      "the world beyond the host does not know where to answer", cure, at, start)  # fmt: skip


def _accept(chain: ruleset.Chain, name: str) -> str:
    """How the owner of a chain lets a bridge's packets pass."""
    verb = {"forward": "FORWARD", "input": "INPUT"}[chain.hook]
    if chain.table == "firewalld":
        return f"firewall-cmd --permanent --zone=trusted --add-interface={name} && firewall-cmd --reload"
    if os.path.exists("/etc/ufw/ufw.conf") and facts.in_path("ufw"):
        return f"ufw allow in on {name} && ufw route allow in on {name} && ufw route allow out on {name}"
    if chain.family == "inet" or (chain.family == "ip" and chain.name not in ("FORWARD", "INPUT")):
        rules = [f"nft insert rule {chain} iifname {name} accept"]
        if verb == "FORWARD":
            rules.append(f"nft insert rule {chain} oifname {name} accept")
        return " && ".join(rules)
    program = "iptables-legacy" if chain.family == "legacy" else "iptables"
    place = "DOCKER-USER" if verb == "FORWARD" and _docker() else verb
    rules = [f"{program} -I {place} -i {name} -j ACCEPT"]
    if verb == "FORWARD":
        rules.append(f"{program} -I {place} -o {name} -j ACCEPT")
    return " && ".join(rules)


def _docker() -> bool:
    return facts.name_taken("docker0")


def _neighbour(address: str) -> str:
    """An address that a container on the bridge may have."""
    return str(ipaddress.IPv4Address(address) + 1) if address else "0.0.0.0"


def _public(address: str) -> bool:
    return ipaddress.ip_address(address).is_global


def default_device() -> str:
    """The device of the IPv4 default route, "" without one."""
    try:
        with open("/proc/net/route") as file:
            rows = [line.split() for line in file][1:]
    except OSError:
        return ""
    return next((row[0] for row in rows if row[1] == row[7] == "00000000"), "")


def _raise_link(found: HostLink) -> None:
    with links.Network() as net:
        net.send(links.link_message(RTM_NEWLINK, REQUEST, [], index=found.index, up=True))


def _forward() -> None:
    with links.Network() as net:
        net.write_sysctl("ipv4/ip_forward", "1")


def _start_service(settings: Settings) -> Fix | None:
    """lxcpy-net start; not where its use is switched off."""
    return Fix("lxcpy-net start", lambda: control.start(settings)) if settings.use and os.geteuid() == 0 else None


def machine() -> Iterator[Finding]:
    """The network that templates ask for, whether or not a container does."""
    try:
        settings = service_settings.load()
    except NetworkError as error:
        yield Finding(ERROR, CHECK, error.what, "lxcpy-net does not start", error.hint or "", error.at)
        return
    for program, package in (("dnsmasq", "dnsmasq-base"), ("nft", "nftables")):
        if settings.use and not facts.in_path(program):
            yield Finding(WARNING, CHECK, f"{program} is not installed", "lxcpy-net needs it for its bridge",
                          f"apt install {package}")  # fmt: skip
    if not settings.use:
        yield ok(CHECK, "USE_LXC_BRIDGE is not true: no bridge of lxcpy-net is wanted")
        return
    if not facts.name_taken(settings.bridge):
        yield Finding(WARNING, CHECK, f'the bridge "{settings.bridge}" of lxcpy-net is not up',
                      "containers of most templates hang on it", "lxcpy-net start", None,
                      _start_service(settings))  # fmt: skip
        return
    nic = Nic(0, "veth", "up", settings.bridge)
    for finding in _link(nic, settings, settings.origins.get("LXC_BRIDGE"), bridge=True, served=True):
        yield finding._replace(what=finding.what.removeprefix("lxc.net.0.link: "))


