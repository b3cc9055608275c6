"""What the machine's firewall, whoever's it is, does with a packet: nft's rules as JSON, and iptables-legacy's.

A small evaluator: it follows chains and jumps for one new packet. A match that it does not know counts as not met, so
an answer of "drop" is as good as the rules that were understood.
"""

from __future__ import annotations

import ipaddress
import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from lxcpy.errors import NetworkError
from lxcpy.network.facts import in_path
from lxcpy.network.wire import run_tool

Expression = list[dict[str, Any]]
_NEUTRAL = frozenset(("counter", "log", "limit", "comment", "mangle", "quota"))
_DEPTH = 20  # jumps that are followed


class Packet(NamedTuple):
    """The first IPv4 packet of a flow. "" stands for any device that is not named."""

    iif: str
    oif: str
    source: str
    protocol: str = "tcp"
    port: int = 80
    state: str = "new"


class Chain(NamedTuple):
    """One chain; a base chain has a hook."""

    family: str
    table: str
    name: str
    hook: str
    kind: str
    policy: str
    rules: list[Expression]

    def __str__(self) -> str:
        return f"{self.family} {self.table} {self.name}"


class Ruleset:
    """The chains of a network namespace."""

    def __init__(self, chains: Iterable[Chain]) -> None:
        self.chains = {(chain.family, chain.table, chain.name): chain for chain in chains}

    def base(self, hook: str, kind: str) -> Iterator[Chain]:
        """The base chains that see IPv4 packets at a hook."""
        for chain in self.chains.values():
            if chain.hook == hook and chain.kind == kind and chain.family in ("ip", "inet", "legacy"):
                yield chain

    def dropped(self, hook: str, packet: Packet) -> Chain | None:
        """The base chain that drops the packet; None: all let it pass."""
        for chain in self.base(hook, "filter"):
            if (self._walk(chain, packet) or chain.policy) == "drop":
                return chain
        return None

    def masqueraded(self, packet: Packet) -> bool:
        """Whether its source address is replaced as it leaves."""
        return any(self._walk(chain, packet) == "nat" for chain in self.base("postrouting", "nat"))

    def _walk(self, chain: Chain, packet: Packet, depth: int = 0) -> str | None:
        """accept, drop, nat; None where the end of the chain is reached, or `return`."""
        for rule in chain.rules:
            verdict = self._rule(chain, rule, packet, depth)
            if verdict == "return":
                return None
            if verdict is not None:
                return verdict
        return None

    def _rule(self, chain: Chain, rule: Expression, packet: Packet, depth: int) -> str | None:
        for statement in rule:
            [(word, value)] = statement.items()
            if word == "match":
                if not _matches(value, packet):
                    return None
            elif word == "xt":
                if value["type"] == "target":
                    return _TARGETS.get(value["name"])
                if value["name"] != "comment":
                    return None
            elif word == "vmap":
                return self._verdict(chain, _looked_up(value, packet), packet, depth)
            elif word not in _NEUTRAL:
                return self._verdict(chain, statement, packet, depth)
        return None

    def _verdict(self, chain: Chain, statement: Mapping[str, Any], packet: Packet, depth: int) -> str | None:
        for word, value in statement.items():
            if word in ("jump", "goto"):
                target = self.chains.get((chain.family, chain.table, value["target"]))
                found = self._walk(target, packet, depth + 1) if target and depth < _DEPTH else None
                return found or ("return" if word == "goto" else None)
            return _VERDICTS.get(word)
        return None


_VERDICTS = {
    "accept": "accept", "drop": "drop", "reject": "drop", "return": "return", "masquerade": "nat", "snat": "nat",
}  # fmt: skip
_TARGETS = {"REJECT": "drop", "MASQUERADE": "nat", "SNAT": "nat"}


def _looked_up(value: Mapping[str, Any], packet: Packet) -> dict[str, Any]:
    """The verdict that a map has for the packet."""
    data = value["data"]
    if isinstance(data, dict) and "set" in data:
        for key, verdict in data["set"]:
            if _matches({"op": "==", "left": value["key"], "right": key}, packet) and isinstance(verdict, dict):
                return verdict
    return {}


def _matches(match: Mapping[str, Any], packet: Packet) -> bool:
    field = _field(match["left"], packet)
    if field is None:
        return False
    same = any(_same(field, wanted) for wanted in _listed(match["right"]))
    return same if match["op"] in ("==", "in") else not same if match["op"] == "!=" else False


def _field(left: Any, packet: Packet) -> str | None:
    """What the packet has at a place that a rule looks at; None for a place that is not known here."""
    if not isinstance(left, dict):
        return None
    [(kind, where)] = left.items()
    if kind == "payload" and isinstance(where, dict) and "protocol" in where:
        if where["protocol"] == packet.protocol and where["field"] == "dport":
            return str(packet.port)
        if where["protocol"] == "ip":
            # 203.0.113.1 (RFC 5737) is some address out there
            return {"saddr": packet.source, "daddr": "203.0.113.1", "protocol": packet.protocol}.get(where["field"])
    if kind == "meta":
        known = {"iifname": packet.iif, "oifname": packet.oif, "iif": packet.iif, "oif": packet.oif}
        return {**known, "l4proto": packet.protocol, "nfproto": "ipv4", "protocol": "ip"}.get(where["key"])
    return packet.state if kind == "ct" and where.get("key") == "state" else None


def _listed(right: Any) -> list[Any]:
    if isinstance(right, dict) and "set" in right:
        return list(right["set"])
    return list(right) if isinstance(right, list) else [right]


def _same(field: str, wanted: Any) -> bool:
    if isinstance(wanted, dict):
        if "prefix" in wanted:
            wanted = f"{wanted['prefix']['addr']}/{wanted['prefix']['len']}"
        elif "range" in wanted:
            low, high = wanted["range"]
            return field.isdigit() and isinstance(low, int) and low <= int(field) <= high
    text = str(wanted)
    if text.endswith("*"):
        return bool(field) and field.startswith(text[:-1])
    if "/" in text:
        try:
            return ipaddress.ip_address(field) in ipaddress.ip_network(text, strict=False)
        except ValueError:
            return False
    return field == text


def parse_nft(text: str) -> list[Chain]:
    """The output of `nft -j list ruleset`. Raises ValueError."""
    chains: dict[tuple[str, str, str], Chain] = {}
    for item in json.loads(text)["nftables"]:
        if "chain" in item:
            it = item["chain"]
            hook, kind, policy = it.get("hook", ""), it.get("type", ""), it.get("policy", "accept")
            chains[it["family"], it["table"], it["name"]] = Chain(
                it["family"], it["table"], it["name"], hook, kind, policy, []
            )
        elif "rule" in item:
            it = item["rule"]
            rules = chains[it["family"], it["table"], it["chain"]].rules
            rules.append([{part: None} if isinstance(part, str) else part for part in it.get("expr", ())])
    return list(chains.values())


_HOOKS = {"INPUT": "input", "FORWARD": "forward", "OUTPUT": "output", "POSTROUTING": "postrouting"}


def parse_legacy(table: str, text: str) -> list[Chain]:
    """The output of `iptables-legacy -t TABLE -S`."""
    chains: dict[str, Chain] = {}
    for line in text.splitlines():
        kind, name, *words = shlex.split(line)
        if kind in ("-P", "-N"):
            policy = words[0].lower() if words else "accept"
            hook = _HOOKS.get(name, "") if kind == "-P" else ""
            chains[name] = Chain("legacy", table, name, hook, table, policy, [])
        elif kind == "-A" and name in chains:
            chains[name].rules.append(list(_legacy_rule(words)))
    return list(chains.values())


def _legacy_rule(words: list[str]) -> Iterator[dict[str, Any]]:
    op, at = "==", 0
    while at < len(words):
        word, value = words[at], words[at + 1] if at + 1 < len(words) else ""
        at += 2
        if word == "!":
            op, at = "!=", at - 1
            continue
        left = _LEGACY.get(word)
        if left is not None:
            right: Any = value.lower().split(",") if word == "--ctstate" else value.replace("+", "*")
            yield {"match": {"op": op, "left": left, "right": right}}
        elif word == "--dport":
            low, _, high = value.partition(":")
            ports = {"range": [int(low), int(high or low)]}
            protocol = words[words.index("-p") + 1]
            yield {"match": {"op": op, "left": {"payload": {"protocol": protocol, "field": "dport"}}, "right": ports}}
        elif word in ("-j", "-g"):
            known = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "reject", "RETURN": "return"}
            if value in ("MASQUERADE", "SNAT"):
                yield {"masquerade": None}
            elif value not in ("LOG", "CHECKSUM", "MARK"):
                jump = {"jump" if word == "-j" else "goto": {"target": value}}
                yield {known[value]: None} if value in known else jump
        elif word.startswith("-") and word not in ("-m", "--comment", "--reject-with"):
            yield {"match": {"op": op, "left": "unknown", "right": ""}}
        op = "=="


_LEGACY = {
    "-i": {"meta": {"key": "iifname"}}, "-o": {"meta": {"key": "oifname"}}, "-p": {"meta": {"key": "l4proto"}},
    "-s": {"payload": {"protocol": "ip", "field": "saddr"}}, "-d": {"payload": {"protocol": "ip", "field": "daddr"}},
    "--ctstate": {"ct": {"key": "state"}}, "--state": {"ct": {"key": "state"}},
}  # fmt: skip


def read() -> Ruleset | None:
    """The rules of the caller's network namespace; None where they cannot be seen (no root, no program)."""
    chains: list[Chain] = []
    seen = False
    if in_path("nft"):
        try:
            chains += parse_nft(run_tool("nft", "-j", "list", "ruleset"))
            seen = True
        except (NetworkError, ValueError, KeyError):
            pass
    for table in _legacy_tables():
        try:
            chains += parse_legacy(table, run_tool("iptables-legacy", "-t", table, "-S"))
            seen = True
        except (NetworkError, ValueError):
            pass
    return Ruleset(chains) if seen else None


def _legacy_tables() -> list[str]:
    """The tables that iptables-legacy has in use; asking it for another would load it."""
    if not in_path("iptables-legacy"):
        return []
    try:
        with open("/proc/net/ip_tables_names") as file:
            return [name for name in file.read().split() if name in ("filter", "nat")]
    except OSError:
        return []
