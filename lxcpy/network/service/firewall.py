"""The rules that let containers reach DHCP and DNS on the bridge and the world behind it: nft tables, or iptables.

With nft everything stands in tables of our own, made and deleted in one transaction; with iptables each rule is added
to the machine's chains and deleted again one by one. The rules are lxc-net's.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from lxcpy.network.service.settings import Settings

TABLES = ("inet lxcpy", "ip lxcpy", "ip6 lxcpy")
Rule = tuple[str, ...]  # program, table, -I or -A, chain, and the match and target


def nft_tables(*, nat6: bool) -> list[str]:
    """The tables that nft_script makes."""
    return list(TABLES if nat6 else TABLES[:2])


def nft_script(settings: Settings, *, nat6: bool) -> str:
    """One transaction for nft -f. nat6: masquerade IPv6 too. Made anew if it stands already."""
    bridge, lines = f'"{settings.bridge}"', []
    for table in nft_tables(nat6=nat6):
        lines += [f"add table {table}", f"flush table {table}"]
    lines += [
        "add chain inet lxcpy input { type filter hook input priority 0; }",
        f"add rule inet lxcpy input iifname {bridge} udp dport {{ 53, 67 }} accept",
        f"add rule inet lxcpy input iifname {bridge} tcp dport {{ 53, 67 }} accept",
        "add chain inet lxcpy forward { type filter hook forward priority 0; }",
        f"add rule inet lxcpy forward iifname {bridge} accept",
        f"add rule inet lxcpy forward oifname {bridge} accept",
    ]
    networks = [("ip", settings.network)] + ([("ip6", settings.ipv6_network)] if nat6 else [])
    for family, network in networks:
        lines += [
            f"add chain {family} lxcpy postrouting {{ type nat hook postrouting priority 100; }}",
            f"add rule {family} lxcpy postrouting "
            f"{family} saddr {network} {family} daddr != {network} counter masquerade",
        ]
    return "\n".join(lines) + "\n"


def nft_removal(tables: Iterable[str]) -> str:
    """Delete the tables; added first, so that a missing one is no error."""
    return "".join(f"add table {table}\ndelete table {table}\n" for table in tables)


def iptables_rules(settings: Settings, *, nat6: bool) -> list[Rule]:
    """The rules for machines without nft."""
    bridge, network, network6 = settings.bridge, settings.network, settings.ipv6_network
    rules: list[Rule] = []
    if nat6:
        rules.append(_rule("ip6tables", "nat", "-A", f"POSTROUTING -s {network6} ! -d {network6} -j MASQUERADE"))
    for port in ("67", "53"):
        for protocol in ("udp", "tcp"):
            rules.append(_rule("iptables", "filter", "-I", f"INPUT -i {bridge} -p {protocol} --dport {port} -j ACCEPT"))
    rules += [
        _rule("iptables", "filter", "-I", f"FORWARD -i {bridge} -j ACCEPT"),
        _rule("iptables", "filter", "-I", f"FORWARD -o {bridge} -j ACCEPT"),
        _rule("iptables", "nat", "-A", f"POSTROUTING -s {network} ! -d {network} -j MASQUERADE"),
    ]
    return rules


def checksum_rule(settings: Settings) -> Rule:
    """Fills in the checksums of DHCP answers, which a virtual link leaves out and old DHCP clients insist on."""
    words = f"POSTROUTING -o {settings.bridge} -p udp -m udp --dport 68 -j CHECKSUM --checksum-fill"
    return _rule("iptables", "mangle", "-A", words)


def iptables_command(rule: Rule, *, wait: bool, delete: bool = False) -> list[str]:
    """The command that adds a rule, or deletes it. wait: this iptables knows -w, the lock that others hold."""
    program, table, add, *words = rule
    return [program, *(["-w"] if wait else []), "-t", table, "-D" if delete else add, *words]


def _rule(program: str, table: str, add: str, words: str) -> Rule:
    return program, table, add, *words.split()


def broadcast(address: str, length: int) -> str | None:
    """The subnet's last address; None where it has none (RFC 3021)."""
    return str(ipaddress.ip_interface(f"{address}/{length}").network.broadcast_address) if length < 31 else None
