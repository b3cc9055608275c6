"""Run a command in new namespaces."""

from __future__ import annotations

from lxcpy.cli.options import Args as CommonArgs
from lxcpy.cli.options import Command, Option
from lxcpy.commands.attach import NAMESPACES, namespaces


class Args(CommonArgs):
    namespaces: tuple[str, ...] | None
    user: str | None
    hostname: str | None
    ifname: list[str]
    daemon: bool
    remount: bool


COMMAND = Command(
    "unshare",
    "Run a command in new namespaces.",
    "-s NAMESPACES [OPTION...] -- COMMAND [ARGUMENT...]",
    (
        Option(
            "s", "namespaces", "LIST",
            "The namespaces to make: MOUNT, PID, UTSNAME, IPC, USER, NETWORK, CGROUP, TIME joined by |.",
            convert=namespaces, choices=tuple(NAMESPACES),
        ),
        Option("u", "user", "USER", "With USER: become this user, a name or an id, inside."),
        Option("H", "hostname", "HOSTNAME", "With UTSNAME: set this host name inside."),
        Option("i", "ifname", "NAME", "With NETWORK: move this network interface inside; repeatable.", many=True),
        Option("d", "daemon", None, "Do not wait for the command."),
        Option("M", "remount", None, "With MOUNT: mount /proc, /dev/shm and /dev/mqueue anew inside."),
    ),
    {0: "the command ended with 0", 1: "the command ended otherwise, or could not be run"},
    named=False,
    args=Args,
)  # fmt: skip
