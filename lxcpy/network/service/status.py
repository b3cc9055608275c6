"""What of the service is up, as data and as lines."""

from __future__ import annotations

import os
from typing import Any

from lxcpy.network import facts, links
from lxcpy.network.addresses import addresses
from lxcpy.network.service import control, dnsmasq, state
from lxcpy.network.service.settings import Settings


def status(settings: Settings) -> dict[str, Any]:
    """The service as plain data.

    up: bridge, address and dnsmasq are there, whoever made them. provider: lxcpy-net, lxc-net, other, or None without
    a bridge. bridge: name, up, mac, addresses, ports. firewall: nft, iptables or None (ours alone is looked at).
    dnsmasq: pid, range, leases. forwarding: ipv4, ipv6.
    """
    known = state.load()
    name = known["bridge"] if known else settings.bridge
    entries = known["undo"] if known else []
    with links.Network() as net:
        found = facts.link(net.host, name)
        values = [value for device, _, value in addresses(net.host) if device == name] if found else []
        ports = control.ports(net, name)
    lxc_net = control.lxc_net_is_up(name) and not entries
    pid = dnsmasq.running(dnsmasq.LXC_PID_FILE if lxc_net else dnsmasq.pid_file())
    provider = None
    if found is not None:
        provider = "lxc-net" if lxc_net else "lxcpy-net" if entries else "other"
    bridge = None
    if found is not None:
        bridge = {"name": name, "up": found.up, "mac": found.mac, "addresses": values, "ports": ports}
    return {
        "up": bool(found and found.up and values and pid),
        "wanted": settings.use,
        "provider": provider,
        "bridge": bridge,
        "firewall": _firewall(entries),
        "dnsmasq": {"pid": pid, "range": settings.dhcp_range, "leases": dnsmasq.leases(settings)} if pid else None,
        "forwarding": {
            "ipv4": facts.read_sysctl("ipv4/ip_forward") == "1",
            "ipv6": facts.read_sysctl("ipv6/conf/all/forwarding") == "1",
        },
    }


def _firewall(entries: list[dict[str, Any]]) -> str | None:
    for entry in entries:
        if entry["do"] == "nft":
            # only root may list tables; for others what was made counts
            there = os.geteuid() != 0 or all(control.nft_has(table) for table in entry["tables"])
            return "nft" if there else None
    return "iptables" if sum(entry["do"] == "iptables" for entry in entries) > 1 else None


def lines(value: dict[str, Any], bridge: str) -> list[str]:
    """The same for people; `bridge` is the name of the one that is missing."""
    found, served, forwarding = value["bridge"], value["dnsmasq"], value["forwarding"]
    if found is None:
        text = [f"bridge:      {bridge}, missing"]
    else:
        ports = f"{len(found['ports'])} port{'' if len(found['ports']) == 1 else 's'}"
        maker = "not made by a service" if value["provider"] == "other" else f"made by {value['provider']}"
        text = [
            f"bridge:      {found['name']}, {'up' if found['up'] else 'down'}, {ports}, {maker}",
            f"addresses:   {', '.join(found['addresses']) or 'none'}",
        ]
    families = [name for key, name in (("ipv4", "IPv4"), ("ipv6", "IPv6")) if forwarding[key]]
    text.append(f"forwarding:  {', '.join(families) or 'off'}")
    if value["provider"] != "lxc-net":
        text.append(f"firewall:    {value['firewall'] or 'no rules of lxcpy-net'}")
    if served is None:
        text.append("dnsmasq:     not running")
    else:
        text.append(f"dnsmasq:     pid {served['pid']}, DHCP {served['range']}, {served['leases']} leases")
    return text
