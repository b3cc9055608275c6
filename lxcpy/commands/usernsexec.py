"""Run a command as root of a new user namespace."""

from __future__ import annotations

import os

from lxcpy.cli.options import PLAIN, Command, Option, natural
from lxcpy.cli.options import Args as CommonArgs
from lxcpy.errors import SecurityError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxcpy.kernel.idmap import IdRange


class Args(CommonArgs):
    map: list[tuple[str, int, int, int]]
    myself: bool
    uid: int
    gid: int


def mapping(text: str) -> tuple[str, int, int, int]:
    """(u, g or b; first id inside; first id outside; how many) from `{u|g|b}:NSID:HOSTID:RANGE`. Raises ValueError."""
    kind, *numbers = text.split(":")
    if kind not in ("u", "g", "b") or len(numbers) != 3:
        raise ValueError(f'"{text}" is not u, g or b and three numbers: u:0:100000:65536')
    inside, outside, length = map(natural, numbers)
    return kind, inside, outside, length


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
        Option("s", "self", None, "Map the caller's own ids too, to the first that are free.", key="myself"),
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


def ranges(maps: list[tuple[str, int, int, int]], kind: str) -> list[IdRange]:
    """The maps of users (u) or of groups (g)."""
    from lxcpy.kernel.idmap import IdRange

    return [IdRange(*numbers) for which, *numbers in maps if which in (kind, "b")]


def default_maps() -> tuple[list[IdRange], list[IdRange]]:
    """The first ranges of the caller in /etc/subuid and /etc/subgid, from 0 on. Raises SecurityError."""
    from lxcpy.kernel import idmap

    uids, gids = idmap.subids(os.getuid())
    if not uids or not gids:
        raise SecurityError(
            "Failed to find subuid or subgid allocation",
            hint="usermod --add-subuids and --add-subgids grant one; or use -m",
        )
    return uids[:1], gids[:1]


def with_self(found: list[IdRange], own: int) -> list[IdRange]:
    """The ranges and one more: the caller's own id at the first id inside that is free."""
    from lxcpy.kernel.idmap import IdRange, to_host

    free = 0
    while to_host(found, free) is not None:
        free = next(low + count for low, _, count in found if low <= free < low + count)
    return [*found, IdRange(free, own, 1)]


def run(args: Args) -> int:
    from lxcpy.runtime import newns

    uids, gids = (ranges(args.map, "u"), ranges(args.map, "g")) if args.map else default_maps()
    if args.myself:
        uids, gids = with_self(uids, os.getuid()), with_self(gids, os.getgid())

    def become() -> None:
        newns.private_mounts()
        try:
            os.setgroups([])
        except PermissionError:
            pass  # setgroups is denied in this namespace: there is nothing to drop
        os.setresgid(args.gid, args.gid, args.gid)
        os.setresuid(args.uid, args.uid, args.uid)

    return newns.run(args.rest or ["/bin/sh"], ("user", "mnt"), uids=uids, gids=gids, inside=become)
