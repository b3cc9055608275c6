"""Whose ids a container's are on the host: lxc.idmap as the runtime needs it. Import-light beside the config."""

from __future__ import annotations

from collections.abc import Sequence

from lxcpy.config.model import Config
from lxcpy.errors import SecurityError
from lxcpy.kernel import idmap
from lxcpy.kernel.idmap import IdRange


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
