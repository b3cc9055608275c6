"""What a storage backend is, and what all of them share."""

from __future__ import annotations

from typing import Protocol

from lxcpy.kernel.idmap import IdRange


class Shift:
    """How the owners of a tree change while it is copied: host ids of `before` become host ids of `after`.

    Each is (uid ranges, gid ranges) of a container's id map; empty ranges mean ids as they are. An id that `before`
    does not map stays as it is.
    """

    __slots__ = ("after_gids", "after_uids", "before_gids", "before_uids")

    def __init__(
        self,
        before: tuple[tuple[IdRange, ...], tuple[IdRange, ...]] = ((), ()),
        after: tuple[tuple[IdRange, ...], tuple[IdRange, ...]] = ((), ()),
    ) -> None:
        self.before_uids, self.before_gids = before
        self.after_uids, self.after_gids = after

    def uid(self, number: int) -> int:
        return _shifted(number, self.before_uids, self.after_uids)

    def gid(self, number: int) -> int:
        return _shifted(number, self.before_gids, self.after_gids)

    @property
    def changes(self) -> bool:
        """Whether any id may change."""
        return (self.before_uids, self.before_gids) != (self.after_uids, self.after_gids)

    @property
    def root(self) -> tuple[int, int]:
        """(uid, gid) on the host of the container's root after the copy."""
        return _shifted(0, (), self.after_uids), _shifted(0, (), self.after_gids)


def _shifted(number: int, before: tuple[IdRange, ...], after: tuple[IdRange, ...]) -> int:
    inside = number
    if before:
        for entry in before:
            if entry.hostid <= number < entry.hostid + entry.count:
                inside = number - entry.hostid + entry.nsid
                break
        else:
            return number
    for entry in after:
        if entry.nsid <= inside < entry.nsid + entry.count:
            return inside - entry.nsid + entry.hostid
    return inside


class Backend(Protocol):
    """One kind of storage. `source` is an lxc.rootfs.path without its type; `text` one with it.

    Every method raises StorageError.
    """

    @property
    def type(self) -> str: ...

    def create(self, rootfs: str, *, owner: tuple[int, int] = (0, 0)) -> str:
        """Make an empty rootfs for a container whose directory holds `rootfs` (LXCPATH/NAME/rootfs); its text."""
        ...

    def directory(self, source: str) -> str | None:
        """Where the content can be read on the host without mounting anything; None if it cannot."""
        ...

    def mount(self, source: str, target: str, options: str | None = None) -> None:
        """Mount it on the directory `target` of the caller's mount namespace."""
        ...

    def clone(self, source: str, rootfs: str, *, snapshot: bool = False, shift: Shift | None = None) -> str:
        """Make a copy for another container, whose directory will hold `rootfs`; its text.

        shift: how owners change, if they do; None: the container has no id map.
        """
        ...

    def destroy(self, source: str) -> None:
        """Remove it. What is gone already is no error."""
        ...
