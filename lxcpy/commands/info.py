"""Show a container's state, addresses and use of resources."""

from __future__ import annotations

import sys

from lxcpy.cli import output
from lxcpy.cli.options import Args as CommonArgs
from lxcpy.cli.options import Command, Option
from lxcpy.errors import ConfigError, StateError
from lxcpy.kernel.record import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lxcpy.cgroups.stats import Stats


class Args(CommonArgs):
    config: list[str]
    ips: bool
    state: bool
    pid: bool
    stats: bool
    no_humanize: bool
    json: bool


COMMAND = Command(
    "info",
    "Show a container's state, addresses and use of resources.",
    "--name=NAME",
    (
        Option("c", "config", "KEY", "The value of a configuration key; repeatable.", many=True),
        Option("i", "ips", None, "The IP addresses."),
        Option("s", "state", None, "The state."),
        Option("p", "pid", None, "The process id of its init, as the host sees it."),
        Option("S", "stats", None, "The use of processor, memory, disk and network."),
        Option("H", "no-humanize", None, "Plain numbers in bytes and nanoseconds; a single value without its label."),
        Option("", "json", None, "One object with everything.", ours=True),
    ),
    {0: "shown, even where a key of -c is unknown", 1: "there is no such container"},
    args=Args,
)


class Facts(NamedTuple):
    """What is to be shown; None and -1: cannot be known."""

    name: str
    state: str
    pid: int = 0
    ips: tuple[str, ...] = ()
    numbers: Stats | None = None
    links: tuple[tuple[str, int, int], ...] = ()  # (host interface, sent, received)
    restart: dict[str, Any] | None = None  # under lxcpy.restart: runtime.restart.Restarts.describe


class Wanted(NamedTuple):
    """Which parts, and how."""

    state: bool
    pid: bool
    ips: bool
    stats: bool
    name: bool  # the full listing begins with it
    raw: bool = False  # -H
    bare: bool = False  # the value without its label


def wanted(args: Args) -> Wanted:
    """The parts that the options select; all of them where there is none."""
    every = not (args.state or args.pid or args.ips or args.stats or args.config)
    bare = args.no_humanize and args.state + args.pid + args.ips == 1 and not args.stats
    return Wanted(
        args.state or every,
        args.pid or every,
        args.ips or every,
        args.stats or every,
        name=every,
        raw=args.no_humanize,
        bare=bare,
    )


def lines(facts: Facts, want: Wanted) -> list[str]:
    """lxc-info's listing."""

    def row(label: str, value: object) -> str:
        return str(value) if want.bare else f"{label:<15} {value}"

    def size(value: int) -> str:
        return str(value) if want.raw else output.size(value)

    found = [row("Name:", facts.name)] if want.name else []
    if want.state:
        found.append(row("State:", facts.state))
    if want.name and facts.restart:
        found.append(row("Restart:", restart_text(facts.restart)))
    if facts.state == "STOPPED":
        return found
    if want.pid:
        found.append(row("PID:", facts.pid))
    if want.ips:
        found += [row("IP:", address) for address in facts.ips]
    if want.stats:
        if numbers := facts.numbers:
            if numbers.cpu is not None:
                found.append(row("CPU use:", numbers.cpu if want.raw else f"{numbers.cpu / 1e9:.2f} seconds"))
            for label, value in (("BlkIO", numbers.blkio_total), ("Memory", numbers.memory), ("KMem", numbers.kmem)):
                if value is not None:
                    found.append(row(f"{label} use:", size(value)))
        for name, sent, received in facts.links:
            found.append(row("Link:", name))
            if sent >= 0:
                rows = ((" TX bytes:", sent), (" RX bytes:", received), (" Total bytes:", sent + received))
                found += [row(label, size(value)) for label, value in rows]
    return found


def restart_text(found: dict[str, Any]) -> str:
    """What lxcpy.restart does about the container."""
    if "gave-up" in found:
        return f"given up after {found['gave-up']} tries"
    limit = f" of {found['limit']}" if found["limit"] else ""
    if "in" in found:
        return f"in {found['in']:.0f} seconds, try {found['try']}{limit}"
    return f"{found['policy']}, {found['tries']}{limit} tries used" if found["tries"] else str(found["policy"])


def restart_dict(found: dict[str, Any]) -> dict[str, Any]:
    """The same for --json."""
    return {
        "policy": found.get("policy"),
        "tries": found.get("tries", found.get("try", found.get("gave-up"))),
        "limit": found.get("limit") or None,
        "in": found.get("in"),
        "gave_up": "gave-up" in found,
    }


def gather(lxcpath: str, name: str, want: Wanted) -> Facts:
    """Ask for what is wanted, and for nothing else. Raises StateError for a container that is none."""
    from lxcpy.container import Container

    container = Container(name, lxcpath)
    found = container.describe(addresses=want.ips, cgroups=want.stats, network=want.stats, restart=want.name)
    if not found:
        if not container.defined:
            raise StateError(f"{name} doesn't exist", hint=f"lxcpy-ls -P {lxcpath} lists those that do")
        from lxcpy.runtime import state

        tries = state.gave_up(container.lxcpath, name) if want.name else 0
        return Facts(name, "STOPPED", restart={"gave-up": tries} if tries else None)
    from lxcpy.runtime import usage

    facts = Facts(name, str(found["state"]), int(found["pid"]), restart=found.get("restart"))
    if facts.state == "STOPPED":
        return facts
    if want.ips:
        facts = facts._replace(ips=tuple(address for _, _, address in usage.addresses(found)))
    if want.stats:
        from lxcpy.cgroups import stats

        record = usage.cgroups(lxcpath, found)
        numbers = stats.read(record) if record else stats.Stats()
        facts = facts._replace(numbers=numbers, links=tuple(usage.links(lxcpath, found)))
    return facts


def values(path: str, keys: list[str], *, bare: bool) -> tuple[str, str]:
    """What -c prints on standard output and on standard error: the values of `keys` in the config at `path`.

    A list has one item a line and an empty line after the last. bare: the value alone.
    """
    found, wrong = lookup(path, keys)
    out = ""
    for key, value in found:
        if bare:
            out += f"{value}\n"
        else:
            out += f"{key} = {value}\n" if value else f"{key} =\n"
    return out, wrong


def lookup(path: str, keys: list[str]) -> tuple[list[tuple[str, str]], str]:
    """(key, value) of each key that there is, and what is to be said of the others."""
    from lxcpy.config.file import ConfigFile

    config = ConfigFile.load(path)
    found, wrong = [], ""
    for key in keys:
        try:
            found.append((key, config.get(key)))
        except ConfigError:
            wrong += f"{key} invalid\n"
    return found, wrong


def to_dict(facts: Facts, lxcpath: str, keys: list[tuple[str, str]]) -> dict[str, Any]:
    """For --json."""
    from lxcpy.cgroups.stats import Stats

    return {
        "name": facts.name,
        "lxcpath": lxcpath,
        "state": facts.state,
        "pid": facts.pid or None,
        "ipv4": [address for address in facts.ips if ":" not in address],
        "ipv6": [address for address in facts.ips if ":" in address],
        **(facts.numbers or Stats()).to_dict(),
        "restart": None if facts.restart is None else restart_dict(facts.restart),
        "links": [
            {"interface": name, "sent": None if sent < 0 else sent, "received": None if received < 0 else received}
            for name, sent, received in facts.links
        ],
        "config": [{"key": key, "value": value} for key, value in keys],
    }


def run(args: Args) -> int:
    want = Wanted(True, True, True, True, name=True) if args.json else wanted(args)
    facts = gather(args.lxcpath, args.name, want)
    path = args.rcfile or f"{args.lxcpath}/{args.name}/config"
    if args.json:
        found, wrong = lookup(path, args.config) if args.config else ([], "")
        sys.stdout.write(output.json(to_dict(facts, args.lxcpath, found)))
        sys.stderr.write(wrong)
        return 0
    sys.stdout.write("".join(f"{line}\n" for line in lines(facts, want)))
    if args.config:
        out, wrong = values(path, args.config, bare=args.no_humanize and len(args.config) == 1)
        sys.stdout.write(out)
        sys.stderr.write(wrong)
    return 0
