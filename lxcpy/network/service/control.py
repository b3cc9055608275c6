"""Start, stop and describe the service. Each step that makes something names its undo in the state file.

A start is idempotent: what stands is used, what is missing is made, and a failure takes with it all that this start
made. A bridge that lxc-net has up is used as it is; only what is in our state file is ever taken down.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

from lxcpy.errors import NetworkError, meaning
from lxcpy.log import Log
from lxcpy.network import facts, links, netlink
from lxcpy.network.addresses import addresses
from lxcpy.network.service import dnsmasq, firewall, state
from lxcpy.network.service.settings import Settings
from lxcpy.network.wire import CREATE, REQUEST, RTM_DELLINK, RTM_NEWLINK, info, run_tool

LOG = Log("net")
LXC_STATE = "/run/lxc/network_up"
RTM_DELADDR = 21
IFA_F_NODAD = 2
Entry = dict[str, Any]
Step = Callable[["_Start"], Iterator[Entry]]


def start(settings: Settings) -> str:
    """Bring everything up; returns what a user is told. Raises NetworkError that names the step."""
    if not settings.use:
        return "USE_LXC_BRIDGE is not true: no bridge is wanted"
    with state.lock(), links.Network() as net:
        known = state.load()
        if known is None and lxc_net_is_up(settings.bridge):
            return f"{settings.bridge} is up already, by lxc-net"
        if known is not None and known.get("bridge") != settings.bridge:
            raise NetworkError(
                f"lxcpy-net is up with the bridge {known.get('bridge')}, but the settings say {settings.bridge}",
                at=settings.origins.get("LXC_BRIDGE"),
                hint="lxcpy-net restart",
            )
        made = _Start(settings, net, known).run()
    return f"{settings.bridge} is up{'' if made else ' already'}: {_summary(settings)}"


def stop(settings: Settings) -> str:
    """Take down what start made; returns what a user is told. Raises NetworkError for what could not be."""
    with state.lock(), links.Network() as net:
        known = state.load()
        if known is None:
            if lxc_net_is_up(settings.bridge):
                return f"{settings.bridge} is lxc-net's and stays"
            return "lxcpy-net is not up"
        left: list[Entry] = []
        failures: list[str] = []
        for entry in reversed(known["undo"]):
            try:
                if _undo(net, entry):
                    continue
            except (OSError, NetworkError) as error:
                failures.append(f"{_describe(entry)}: {meaning(error) if isinstance(error, OSError) else error}")
            left.insert(0, entry)
        state.save({**known, "undo": left} if left else None)
    if failures:
        raise NetworkError(
            f"lxcpy-net could not take everything down: {'; '.join(failures)}", hint="lxcpy-net stop again"
        )
    bridge = known["bridge"]
    return f"{bridge} is down, but stays: it has ports" if left else f"{bridge} is down"


def _summary(settings: Settings) -> str:
    first, _, last = settings.dhcp_range.partition(",")
    return f"{settings.addr}/{settings.length}, DHCP from {first} to {last.split(',')[0]}"


def lxc_net_is_up(bridge: str) -> bool:
    """Whether LXC's own service holds the bridge."""
    return facts.name_taken(bridge) and (os.path.exists(LXC_STATE) or dnsmasq.running(dnsmasq.LXC_PID_FILE) is not None)


class _Start:
    """One start: the steps, and what they made."""

    def __init__(self, settings: Settings, net: links.Network, known: dict[str, Any] | None) -> None:
        self.settings = settings
        self.net = net
        self.entries: list[Entry] = list(known["undo"]) if known else []
        self.made: list[Entry] = []
        self.index = 0
        self.ipv6 = False

    def run(self) -> bool:
        """Returns whether anything had to be made."""
        steps: tuple[tuple[str, Step], ...] = (
            ("look for what is needed", _Start.needs),
            ("make the bridge", _Start.bridge),
            ("give it its address", _Start.address),
            ("give it its IPv6 address", _Start.address6),
            ("raise it", _Start.up),
            ("switch forwarding on", _Start.forwarding),
            ("set the firewall's rules", _Start.rules),
            ("start dnsmasq", _Start.server),
        )
        with ExitStack() as undo:
            for name, step in steps:
                try:
                    for entry in step(self):
                        LOG.info(_describe(entry))
                        undo.callback(self._take_back, entry)
                        self._keep(entry)
                except OSError as error:
                    words = getattr(error, "words", "")
                    text = f"{meaning(error)} ({words})" if words else meaning(error)
                    raise NetworkError(f"lxcpy-net could not {name}, {self.settings.bridge}: {text}") from error
            undo.pop_all()
        return bool(self.made)

    def _keep(self, entry: Entry) -> None:
        """Written down at once, so that a stop finds it even if this process is killed before the next step."""
        self.made.append(entry)
        if entry not in self.entries:
            self.entries.append(entry)
        state.save({"bridge": self.settings.bridge, "undo": self.entries})

    def _take_back(self, entry: Entry) -> None:
        try:
            _undo(self.net, entry)
        except (OSError, NetworkError) as error:
            LOG.warn(f"undo of {_describe(entry)}: {error}")
        self.entries.remove(entry)
        state.save({"bridge": self.settings.bridge, "undo": self.entries} if self.entries else None)

    # the steps: each yields the undo of what it has made

    def needs(self) -> Iterator[Entry]:
        if not facts.in_path("dnsmasq"):
            raise NetworkError("lxcpy-net needs dnsmasq for DHCP and DNS, and it is not in PATH",
                               hint="apt install dnsmasq-base")  # fmt: skip
        if not facts.in_path("nft") and not facts.in_path("iptables"):
            raise NetworkError("lxcpy-net needs nft or iptables for its rules, and neither is in PATH",
                               hint="apt install nftables")  # fmt: skip
        return iter(())

    def bridge(self) -> Iterator[Entry]:
        name = self.settings.bridge
        found = facts.link(self.net.host, name)
        if found is None:
            attrs = [("IFLA_IFNAME", name), ("IFLA_ADDRESS", self.settings.bridge_mac), info("bridge")]
            self.net.send(links.link_message(RTM_NEWLINK, CREATE, attrs))
            yield {"do": "bridge", "name": name}
        elif found.kind != "bridge":
            raise NetworkError(
                f'there is a link "{name}", and it is not a bridge', at=self.settings.origins.get("LXC_BRIDGE"),
                hint="name another as LXC_BRIDGE in /etc/default/lxc-net",
            )  # fmt: skip
        self.index = socket.if_nametoindex(name)
        self._sysctl(f"ipv6/conf/{name}/accept_dad", "0")

    def address(self) -> Iterator[Entry]:
        value, length = self.settings.addr, self.settings.length
        if not self._has(value):
            broadcast = firewall.broadcast(value, length)
            self.net.send(links.address_message(self.index, value, length, broadcast))
            yield {"do": "address", "bridge": self.settings.bridge, "address": value, "length": length}

    def address6(self) -> Iterator[Entry]:
        name = self.settings.bridge
        self.ipv6 = self.settings.ipv6 and facts.read_sysctl(f"ipv6/conf/{name}/disable_ipv6") == "0"
        if not self.ipv6:
            return
        self._sysctl(f"ipv6/conf/{name}/autoconf", "0")
        value, length = self.settings.ipv6_addr, int(self.settings.ipv6_mask)
        if not self._has(value):
            self.net.send(links.address_message(self.index, value, length, flags=IFA_F_NODAD))
            yield {"do": "address", "bridge": name, "address": value, "length": length}

    def up(self) -> Iterator[Entry]:
        self.net.send(links.link_message(RTM_NEWLINK, REQUEST, [], index=self.index, up=True))
        return iter(())

    def forwarding(self) -> Iterator[Entry]:
        """Stays on at stop, as others may have come to rely on it."""
        if facts.read_sysctl("ipv4/ip_forward") != "1":
            self.net.write_sysctl("ipv4/ip_forward", "1")
        if self.ipv6 and facts.read_sysctl("ipv6/conf/all/forwarding") != "1":
            self._keep_routers()
            self.net.write_sysctl("ipv6/conf/all/forwarding", "1")
        return iter(())

    def _keep_routers(self) -> None:
        """A forwarding host drops the default routes it learned from router advertisements unless accept_ra is 2."""
        with open("/proc/net/ipv6_route") as file:
            learned = {
                line.split()[9]
                for line in file
                if int(line.split()[8], 16) & RTF_ADDRCONF_DEFAULT == RTF_ADDRCONF_DEFAULT
            }
        for device in learned:
            if facts.read_sysctl(f"ipv6/conf/{device}/accept_ra") == "1":
                LOG.notice(f"{device} keeps its IPv6 default route: accept_ra = 2")
                self._sysctl(f"ipv6/conf/{device}/accept_ra", "2")

    def rules(self) -> Iterator[Entry]:
        nat6 = self.ipv6 and self.settings.ipv6_nat
        if self._use_nft():
            tables = firewall.nft_tables(nat6=nat6)
            entry = {"do": "nft", "tables": tables}
            if entry not in self.entries or not all(nft_has(table) for table in tables):
                run_tool("nft", "-f", "-", data=firewall.nft_script(self.settings, nat6=nat6))
                yield entry
        else:
            wait = _succeeds("iptables", "-w", "-L", "-n")
            for rule in firewall.iptables_rules(self.settings, nat6=nat6):
                yield from self._rule(rule, wait)
        if facts.in_path("iptables"):
            try:
                yield from self._rule(firewall.checksum_rule(self.settings), _succeeds("iptables", "-w", "-L", "-n"))
            except NetworkError as error:  # a kernel without the target; DHCP clients of this decade do without
                LOG.info(f"no CHECKSUM rule: {error}")

    def _rule(self, rule: firewall.Rule, wait: bool) -> Iterator[Entry]:
        command = firewall.iptables_command(rule, wait=wait)
        check = ["-C" if word in ("-A", "-I") else word for word in command]
        if not _succeeds(*check):
            run_tool(*command)
            yield {"do": "iptables", "rule": list(rule), "wait": wait}

    def _use_nft(self) -> bool:
        if self.settings.use_nft and facts.in_path("nft") and _succeeds("nft", "list", "tables"):
            return True
        if facts.in_path("iptables"):
            return False
        raise NetworkError("nft does not work here and there is no iptables", hint="nft list tables shows the reason")

    def server(self) -> Iterator[Entry]:
        pid_file = dnsmasq.pid_file()
        if dnsmasq.running(pid_file) is not None:
            return
        os.makedirs(dnsmasq.LEASES, exist_ok=True)
        command = dnsmasq.command(self.settings, ipv6=self.ipv6, user=dnsmasq.user(), pid_file=pid_file)
        try:
            run_tool(*command)
        except NetworkError as error:
            hint = None
            if "in use" in error.what:
                hint = f"another server holds the port on {self.settings.addr}: ss -lnp 'sport = :53 or sport = :67'"
            raise NetworkError(f"lxcpy-net could not start dnsmasq: {error.what.split(' failed: ', 1)[-1]}",
                               hint=hint) from error  # fmt: skip
        yield {"do": "dnsmasq", "pid_file": pid_file}

    def _has(self, address: str) -> bool:
        wanted = socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)
        for name, family, value in addresses(self.net.host):
            kind = socket.AF_INET6 if family == "inet6" else socket.AF_INET
            if name == self.settings.bridge and socket.inet_pton(kind, value) == wanted:
                return True
        return False

    def _sysctl(self, path: str, value: str) -> None:
        try:
            self.net.write_sysctl(path, value)
        except FileNotFoundError:
            pass  # a kernel without IPv6


RTF_ADDRCONF_DEFAULT = 0x00040000 | 0x00010000  # RTF_ADDRCONF, RTF_DEFAULT


def _succeeds(*command: str) -> bool:
    try:
        run_tool(*command)
    except NetworkError:
        return False
    return True


def nft_has(table: str) -> bool:
    """Whether the table stands."""
    return _succeeds("nft", "list", "table", *table.split())


def ports(net: links.Network, bridge: str) -> list[str]:
    """The names of a bridge's ports."""
    found = facts.link(net.host, bridge)
    return [] if found is None else sorted(link.name for link in facts.links(net.host) if link.master == found.index)


def _describe(entry: Entry) -> str:
    what = entry["do"]
    if what == "bridge":
        return f"bridge {entry['name']}"
    if what == "address":
        return f"address {entry['address']}/{entry['length']} on {entry['bridge']}"
    if what == "nft":
        return f"nft tables {', '.join(entry['tables'])}"
    if what == "iptables":
        return f"rule {' '.join(entry['rule'])}"
    return "dnsmasq"


def _undo(net: links.Network, entry: Entry) -> bool:
    """Take one thing back; False if it has to stay for now."""
    what = entry["do"]
    if what == "dnsmasq":
        dnsmasq.stop(entry["pid_file"])
    elif what == "nft":
        run_tool("nft", "-f", "-", data=firewall.nft_removal(entry["tables"]))
    elif what == "iptables":
        command = firewall.iptables_command(tuple(entry["rule"]), wait=entry["wait"], delete=True)
        if _succeeds(*["-C" if word == "-D" else word for word in command]):
            run_tool(*command)
    elif what == "address":
        found = facts.link(net.host, entry["bridge"])
        if found is not None:
            _tolerate(net, links.address_message(
                found.index, entry["address"], entry["length"], command=RTM_DELADDR
            ), 99)  # fmt: skip
    elif what == "bridge":
        return _undo_bridge(net, entry["name"])
    return True


def _undo_bridge(net: links.Network, name: str) -> bool:
    found = facts.link(net.host, name)
    if found is None or found.kind != "bridge":
        return True
    if ports(net, name):  # containers hang on it: it goes down as in lxc-net, and is there for the next start
        net.send(links.link_message(RTM_NEWLINK, REQUEST, [], index=found.index, up=False))
        return False
    _tolerate(net, links.link_message(RTM_DELLINK, REQUEST, [], index=found.index), 19)
    return True


def _tolerate(net: links.Network, message: bytes, errno: int) -> None:
    """Send; `errno` (EADDRNOTAVAIL, ENODEV) means that somebody was faster."""
    try:
        net.send(message)
    except netlink.Refused as error:
        if error.errno != errno:
            raise
