"""What other programs' firewalls do with a bridge's packets: rules as Docker, ufw and firewalld write them."""

from __future__ import annotations

import json
from typing import Any

from lxcpy.network.ruleset import Chain, Packet, Ruleset, parse_legacy, parse_nft

OUT = Packet("br0", "eth0", "10.0.3.2")
BACK = Packet("eth0", "br0", "203.0.113.1", state="established")


def match(key: str, value: Any, op: str = "==", kind: str = "meta") -> dict[str, Any]:
    return {"match": {"op": op, "left": {kind: {"key": key}}, "right": value}}


def forward(*rules: list[dict[str, Any]], policy: str = "drop", others: dict[str, list[Any]] | None = None) -> Ruleset:
    base = Chain("ip", "filter", "FORWARD", "forward", "filter", policy, list(rules))
    more = [Chain("ip", "filter", name, "", "", "accept", found) for name, found in (others or {}).items()]
    return Ruleset([base, *more])


def test_a_policy_decides_where_no_rule_does() -> None:
    assert str(forward().dropped("forward", OUT)) == "ip filter FORWARD"
    assert forward(policy="accept").dropped("forward", OUT) is None
    assert forward().dropped("input", OUT) is None


def test_docker_drops_and_its_user_chain_accepts() -> None:
    established = [match("state", ["related", "established"], "in", "ct"), {"accept": None}]
    rules = (
        [{"counter": {}}, {"jump": {"target": "DOCKER-USER"}}],
        [match("oifname", "docker0"), *established],
        [match("iifname", "docker0"), match("oifname", "docker0", "!="), {"accept": None}],
    )
    returns = {"DOCKER-USER": [[{"counter": {}}, {"return": None}]]}
    assert forward(*rules, others=returns).dropped("forward", OUT)
    opened = {"DOCKER-USER": [[match("iifname", "br0"), {"accept": None}], *returns["DOCKER-USER"]]}
    assert forward(*rules, others=opened).dropped("forward", OUT) is None
    assert forward(*rules, others=opened).dropped("forward", BACK)
    assert forward([*established], others=opened).dropped("forward", BACK) is None


def test_firewalld_s_map_and_last_reject() -> None:
    vmap = {"vmap": {"key": {"meta": {"key": "iifname"}}, "data": {"set": [["br0", {"goto": {"target": "trusted"}}]]}}}
    rules = ([vmap], [{"reject": {"type": "icmpx"}}])
    assert forward(*rules, policy="accept", others={"trusted": [[{"accept": None}]]}).dropped("forward", OUT) is None
    assert forward(*rules, policy="accept", others={"trusted": []}).dropped("forward", OUT) is None  # goto: no way back
    assert forward(*rules, policy="accept").dropped("forward", OUT._replace(iif="br1"))


def test_devices_sets_ranges_and_what_is_not_known() -> None:
    accept = {"accept": None}
    for condition, passes in (
        (match("iifname", "br*"), True), (match("iifname", {"set": ["a", "br0"]}), True), (match("mark", 1), False),
        ({"match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}},
                    "right": {"range": [79, 81]}}}, True),
        ({"match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "saddr"}},
                    "right": {"prefix": {"addr": "10.0.3.0", "len": 24}}}}, True),
        ({"xt": {"type": "match", "name": "comment"}}, True), ({"xt": {"type": "match", "name": "owner"}}, False),
    ):  # fmt: skip
        assert (forward([condition, accept]).dropped("forward", OUT) is None) is passes, condition


def test_each_base_chain_has_to_let_it_pass() -> None:
    text = json.dumps({"nftables": [
        {"chain": {"family": "inet", "table": "a", "name": "f", "hook": "forward", "type": "filter"}},
        {"chain": {"family": "inet", "table": "b", "name": "f", "hook": "forward", "type": "filter", "policy": "drop"}},
        {"rule": {"family": "inet", "table": "a", "chain": "f", "expr": [match("iifname", "br0"), {"accept": None}]}},
    ]})  # fmt: skip
    assert str(Ruleset(parse_nft(text)).dropped("forward", OUT)) == "inet b f"


def test_iptables_legacy() -> None:
    text = (
        "-P INPUT ACCEPT\n-P FORWARD DROP\n-N mine\n-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT\n"
        '-A FORWARD -i br+ ! -o br0 -m comment --comment "a b" -j mine\n-A mine -p udp -m udp --dport 53 -j DROP\n'
        "-A mine -m owner --uid-owner 0 -j DROP\n-A mine -j ACCEPT\n"
    )
    rules = Ruleset(parse_legacy("filter", text))
    assert rules.dropped("forward", OUT) is None
    assert rules.dropped("forward", BACK) is None
    assert rules.dropped("forward", OUT._replace(protocol="udp", port=53))
    assert rules.dropped("forward", OUT._replace(iif="eth1"))
    nat = parse_legacy("nat", "-P POSTROUTING ACCEPT\n-A POSTROUTING -s 10.0.3.0/24 ! -d 10.0.3.0/24 -j MASQUERADE\n")
    assert Ruleset(nat).masqueraded(OUT)
    assert not Ruleset(nat).masqueraded(OUT._replace(source="10.9.0.1"))
