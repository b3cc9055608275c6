"""Whose ids a container's are on the host: lxc.idmap as the runtime needs it. Import-light beside the config."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lxcpy.config.model import Config
from lxcpy.errors import SecurityError
from lxcpy.kernel import idmap
from lxcpy.kernel.idmap import IdRange

if TYPE_CHECKING:
    from lxcpy.runtime.joins import Namespaces


def ranges(config: Config) -> tuple[list[IdRange], list[IdRange]]:
    """lxc.idmap as ranges of uids and of gids. Raises SecurityError for a map that leaves its root without an id."""
    uids = [IdRange(entry.nsid, entry.hostid, entry.count) for entry in config.idmap if entry.kind == "u"]
    gids = [IdRange(entry.nsid, entry.hostid, entry.count) for entry in config.idmap if entry.kind == "g"]
    for found, letter, what in ((uids, "u", "user"), (gids, "g", "group")):
        if config.idmap and idmap.to_host(found, 0) is None:
            raise SecurityError(
                f"lxc.idmap: the container's {what} 0 has no {what} of the host",
                at=config.at("lxc.idmap", 0),
                hint=f"add lxc.idmap = {letter} 0 FIRST COUNT; /etc/sub{letter}id lists the ranges of each user",
            )
    return uids, gids


def root(uids: Sequence[IdRange], gids: Sequence[IdRange]) -> tuple[int, int]:
    """The host's ids of the container's root; 0 where nothing is mapped."""
    return idmap.to_host(uids, 0) or 0, idmap.to_host(gids, 0) or 0


def give(directory: str, owner: tuple[int, int]) -> None:
    """A container's directory becomes its root's, which has to pass it; an ordinary user's keeps the user's group, and
    by that its way in (mode 0770), as LXC has it. Raises OSError."""
    os.chown(directory, owner[0], -1 if os.geteuid() else owner[1])


def check_user(config: Config, spaces: Namespaces | None = None) -> None:
    """Raises SecurityError for an ordinary user's container without a user namespace, or with ids that are not its."""
    if os.geteuid() == 0 or (spaces is not None and "user" in spaces.share):
        return
    from lxcpy.runtime import mapped

    if not config.idmap:
        raise SecurityError(
            "lxc.idmap: a container of an ordinary user needs an id map, and there is none in its config",
            at=config.at("lxc.idmap"),
            hint=mapped.grant_hint(),
        )
    for number, entry in enumerate(config.idmap):
        own = mapped.own_ranges()[entry.kind == "g"]
        if not any(one.hostid <= entry.hostid <= one.hostid + one.count - entry.count for one in own):
            raise SecurityError(
                f"lxc.idmap: {entry.kind} {entry.nsid} {entry.hostid} {entry.count} has ids that you are not granted",
                at=config.at("lxc.idmap", number),
                hint=mapped.grant_hint(),
            )
