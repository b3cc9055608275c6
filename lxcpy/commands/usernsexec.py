"""Run a command as root of a new user namespace."""

from __future__ import annotations

from typing import NamedTuple

from lxcpy.cli.options import PLAIN, Command, Option, natural
from lxcpy.cli.options import Args as CommonArgs


class Mapping(NamedTuple):
    """One -m: `length` ids from `inside` on are the host's from `outside` on."""

    kind: str  # u, g or b
    inside: int
    outside: int
    length: int


class Args(CommonArgs):
    map: list[Mapping]
    self: bool
    uid: int
    gid: int


def mapping(text: str) -> Mapping:
    """`{u|g|b}:NSID:HOSTID:RANGE`. Raises ValueError."""
    kind, *numbers = text.split(":")
    if kind not in ("u", "g", "b") or len(numbers) != 3:
        raise ValueError(f'"{text}" is not u, g or b and three numbers: u:0:100000:65536')
    inside, outside, length = map(natural, numbers)
    return Mapping(kind, inside, outside, length)


COMMAND = Command(
    "usernsexec",
    "Run a command as root of a new user namespace.",
    "[-m MAP]... [-s] [-u UID] [-g GID] [-- COMMAND [ARGUMENT...]]",
    (
        Option(
            "m", "map", "MAP",
            "{u|g|b}:NSID:HOSTID:RANGE maps users, groups or both; repeatable (default: the first ranges of the caller "
            "in /etc/subuid and /etc/subgid, from 0 on).",
            many=True, convert=mapping,
        ),
        Option("s", "self", None, "Map the caller's own ids too, to the first that are free."),
        Option("u", "uid", "UID", "User id to become inside (default 0).", convert=natural, default=0),
        Option("g", "gid", "GID", "Group id to become inside (default 0).", convert=natural, default=0),
    ),
    {"STATUS": "the command's own exit status", 1: "the namespace could not be made"},
    named=False,
    common=PLAIN,
    stdout_help=True,
    words="Without COMMAND: /bin/sh.",
    args=Args,
)  # fmt: skip
