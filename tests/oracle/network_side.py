"""One side of a network comparison, run by test_network.py in namespaces of its own; prints what it made as JSON.

network_side.py links  lxc|ours FOLDER   # FOLDER/config holds lxc.net.* lines, FOLDER/setup shell lines
network_side.py service lxc|ours FOLDER  # FOLDER/settings is /etc/default/lxc
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from netns import ip, new_netns, sh  # noqa: E402

LXC_NET = "/usr/libexec/lxc/lxc-net"
KEPT = ("ifname", "flags", "mtu", "master", "address", "link_type", "altnames")


def link_view(netns: int | None = None) -> list[dict[str, Any]]:
    """The links with what a config decides about them."""
    found = []
    for one in ip("addr show", netns):
        kept = {key: one.get(key) for key in KEPT}
        kept["flags"] = sorted(set(one["flags"]) & {"UP", "BROADCAST", "NOARP"})
        kept["kind"] = one.get("linkinfo", {}).get("info_kind")
        kept["mode"] = one.get("linkinfo", {}).get("info_data", {}).get("mode")
        kept["addresses"] = [
            f"{a['local']}/{a['prefixlen']} {a['scope']}" for a in one["addr_info"] if a["scope"] != "link"
        ]
        kept["address"] = one.get("address")
        found.append(kept)
    return sorted(found, key=lambda one: str(one["ifname"]))


def sieved(routes: list[str]) -> list[str]:
    """Without those of link-local addresses, which come with the carrier, sooner or later."""
    lines = (re.sub(r" +", " ", line.replace(" linkdown", "")).strip() for line in routes)
    return sorted(line for line in lines if not line.startswith("fe80::/64"))


def route_view(netns: int | None = None) -> list[str]:
    return sieved(sh("ip -4 route show table main", "ip -6 route show table main", netns=netns).splitlines())


def host_view() -> dict[str, Any]:
    sysctls = {}
    for one in ip("link show"):
        name = one["ifname"]
        if name.startswith("h") or name.startswith("veth"):
            for path in ("ipv6/conf/{}/disable_ipv6", "ipv4/conf/{}/forwarding", "ipv6/conf/{}/proxy_ndp"):
                sysctls[path.format("HOST")] = Path(f"/proc/sys/net/{path.format(name)}").read_text().strip()
    proxies = sorted(f"{one['dst']} {one['dev']}" for one in ip("neigh show proxy"))
    return {"links": link_view(), "routes": route_view(), "proxies": proxies, "sysctls": sysctls}


def setup(folder: Path) -> None:
    """sysfs of this namespace under the host's control groups, lo up, and what the case wants."""
    own = folder / "sys"
    own.mkdir()
    sh(
        f"mount -t sysfs sysfs {own}", f"mount --bind {own}/class/net /sys/class/net",
        f"mount --bind {own}/devices /sys/devices", "ip link set lo up", (folder / "setup").read_text(),
    )  # fmt: skip


def links_of_lxc(folder: Path) -> dict[str, Any]:
    script = folder / "inside"
    script.write_text(
        f"ip -j -d addr >{folder}/a\n(ip -4 route show table main; ip -6 route show table main) >{folder}/r\n"
        f"touch {folder}/there\nfor n in $(seq 200); do [ -e {folder}/go ] && break; sleep 0.05; done\n"
    )
    config = folder / "lxc.conf"
    config.write_text((folder / "config").read_text() + "lxc.console.path = none\n")
    (folder / "lxc").mkdir()
    argv = ["lxc-execute", "-P", str(folder / "lxc"), "-n", folder.name, "-f", str(config), "--", "sh", str(script)]
    with open(folder / "log", "w") as log, subprocess.Popen(argv, stdout=log, stderr=log) as process:
        deadline = time.monotonic() + 20
        while not (folder / "there").exists():
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit((folder / "log").read_text())
            time.sleep(0.02)
        host = host_view()
        (folder / "go").touch()
        process.wait()
    # ip in the container is asked by the same words, so its answer goes through the same sieve
    global ip
    text, real = (folder / "a").read_text(), ip
    ip = lambda words, netns=None: json.loads(text)  # noqa: E731
    routes = (folder / "r").read_text().splitlines()
    inside = {"links": link_view(), "routes": sieved(routes)}
    ip = real
    return {"host": host, "inside": inside, "left": after(folder)}


def links_of_ours(folder: Path) -> dict[str, Any]:
    from lxcpy.config.load import load_text
    from lxcpy.network import facts, links
    from lxcpy.network.plan import plan

    config = load_text((folder / "config").read_text(), "config")
    netns = new_netns()
    with links.Network() as network:
        record = network.create(plan(config.net, facts.gather(config.net), config.at), pid=os.getpid(), netns=netns)
        time.sleep(0.1)
        value = {"host": host_view(), "inside": {"links": link_view(netns), "routes": route_view(netns)}}
        network.remove(record, netns)
    return {**value, "left": after(folder)}


def after(folder: Path) -> list[dict[str, Any]]:
    """The host's links when the container has gone."""
    time.sleep(0.1)
    return link_view()


def service(side: str, folder: Path) -> dict[str, Any]:
    for place in ("/run/lxc", "/var/lib/misc"):
        os.makedirs(place, exist_ok=True)
        sh(f"mount -t tmpfs tmpfs {place}")
    sh("mount -t sysfs sysfs /sys", "ip link set lo up", "sysctl -qw net.ipv4.ip_forward=0")
    sh(f"mount --bind {folder}/settings /etc/default/lxc", f"mount --bind {folder}/empty /etc/default/lxc-net")
    os.environ["LXCPY_RUN_DIR"] = str(folder / "run")
    if side == "lxc":
        sh(f"{LXC_NET} start")
    else:
        from lxcpy.network.service import control, settings

        print(control.start(settings.load()), file=sys.stderr)
    value = service_view(folder)
    if side == "lxc":
        sh(f"{LXC_NET} stop")
    else:
        print(control.stop(settings.load()), file=sys.stderr)
    value["left"] = [one["ifname"] for one in ip("link show")] + rules()
    return value


def rules() -> list[str]:
    """iptables' rules, chain by chain."""
    found = []
    for program, table in (("iptables", "filter"), ("iptables", "nat"), ("iptables", "mangle"), ("ip6tables", "nat")):
        lines = sh(f"{program} -w -t {table} -S").splitlines()
        found += [f"{program} {table} {line}" for line in lines if line.startswith("-A")]
    return found


def service_view(folder: Path) -> dict[str, Any]:
    tables = sh("nft -s list ruleset").replace("lxcpy", "lxc")
    own = sorted(part for part in re.split(r"(?m)^(?=table )", tables) if re.match(r"table \w+ lxc ", part))
    processes = [Path(f"/proc/{pid}/cmdline").read_bytes() for pid in os.listdir("/proc") if pid.isdigit()]
    (served,) = {p for p in processes if p.startswith(b"dnsmasq\0")}
    command = re.sub(r"--pid-file=\S+", "--pid-file=", served.replace(b"\0", b" ").decode().strip())
    sysctls = {
        path: Path(f"/proc/sys/net/{path}").read_text().strip()
        for path in (
            "ipv4/ip_forward",
            "ipv6/conf/all/forwarding",
            "ipv6/conf/lxcbr0/accept_dad",
            "ipv6/conf/lxcbr0/autoconf",
        )
    }
    return {
        "nft": own,
        "iptables": rules(),
        "dnsmasq": command,
        "links": link_view(),
        "routes": route_view(),
        "sysctls": sysctls,
    }


def main() -> None:
    kind, side, place = sys.argv[1:]
    folder = Path(place)
    if kind == "service":
        value = service(side, folder)
    else:
        setup(folder)
        value = links_of_lxc(folder) if side == "lxc" else links_of_ours(folder)
    print(json.dumps(value))


main()
