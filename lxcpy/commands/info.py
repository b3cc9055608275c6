"""Show a container's state, addresses and use of resources."""

from __future__ import annotations

from lxcpy.cli.options import Args as CommonArgs
from lxcpy.cli.options import Command, Option


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
