"""Network namespaces for tests: `ip` and `bridge` as the second opinion on what was made."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

from lxcpy.config.model import Nic
from lxcpy.kernel.namespace import CLONE_NEWNET, setns, unshare
from lxcpy.network import facts, links
from lxcpy.network.plan import NetworkPlan, plan


def sh(*commands: str, netns: int | None = None) -> str:
    """Run shell commands, in the namespace behind a descriptor if one is given; their output."""
    argv = ["sh", "-ec", "\n".join(commands)]
    if netns is not None:
        argv = ["nsenter", f"--net=/proc/{os.getpid()}/fd/{netns}", *argv]
    done = subprocess.run(argv, capture_output=True, text=True)
    assert done.returncode == 0, f"{commands}: {done.stdout}{done.stderr}"
    return done.stdout


def ip(words: str, netns: int | None = None) -> list[dict[str, Any]]:
    """`ip -j -d WORDS` as data."""
    return json.loads(sh(f"ip -j -d {words}", netns=netns) or "[]")  # type: ignore[no-any-return]


def link(name: str, netns: int | None = None) -> dict[str, Any]:
    return ip(f"link show dev {name}", netns)[0]


def names(netns: int | None = None) -> list[str]:
    return sorted(one["ifname"] for one in ip("link show", netns))


def values(name: str, netns: int | None = None) -> list[str]:
    """The addresses of a link but for its link-local ones."""
    found = ip(f"addr show dev {name}", netns)[0]["addr_info"]
    return [f"{one['local']}/{one['prefixlen']}" for one in found if one["scope"] == "global"]


def new_netns() -> int:
    """A descriptor of a new network namespace; the caller stays where it is."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    unshare(CLONE_NEWNET)
    made = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    setns(home, CLONE_NEWNET)
    os.close(home)
    return made


def make(nets: Sequence[Nic], netns: int, run: Callable[..., None] | None = None) -> dict[str, Any]:
    """Plan and create, as a launcher does; the record."""
    return create(planned(nets), netns, run)


def create(made: NetworkPlan, netns: int, run: Callable[..., None] | None = None) -> dict[str, Any]:
    with links.Network(run) as network:
        return network.create(made, pid=os.getpid(), netns=netns)


def remove(record: dict[str, Any], netns: int | None = None, run: Callable[..., None] | None = None) -> None:
    with links.Network(run) as network:
        network.remove(record, netns)


def lingers(record: dict[str, Any]) -> bool:
    """Whether a host end is still there."""
    return any(facts.name_taken(nic["host"]) for nic in record["nics"])


def planned(nets: Sequence[Nic]) -> NetworkPlan:
    return plan(nets, facts.gather(nets))


def bridge(name: str = "br0", extra: str = "") -> None:
    """A bridge with addresses, up."""
    sh(
        "ip link set lo up", f"ip link add {name} type bridge {extra}", f"ip addr add 10.9.0.1/24 dev {name}",
        f"ip addr add fd09::1/64 dev {name} nodad", f"ip link set {name} up",
    )  # fmt: skip
