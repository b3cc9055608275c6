"""The key table as a whole: which row a key belongs to.

Lookup does not depend on the order of rows: a test proves that no two rows can match one key.
"""

from __future__ import annotations

from typing import NamedTuple

from lxcpy.config.keys import cgroup, hooks, identity, init, net, own, rootfs, security, terminal
from lxcpy.config.keys.row import CGROUP, DEFAULT, MAP, Row
from lxcpy.config.text import PREFIXES

__all__ = ["DEFAULT", "FAMILIES", "LAST", "NET_MAX", "ROWS", "Found", "is_map", "lookup", "nearest"]

FAMILIES = (identity, init, rootfs, net, cgroup, security, terminal, hooks, own)
ROWS: tuple[Row, ...] = tuple(row for family in FAMILIES for row in family.ROWS)

LAST = -1  # the index of `lxc.network.X` of LXC 1.x: the interface begun last
NET_MAX = 2**31 - 2


class Found(NamedTuple):
    """The row of a key, and what the key adds to it."""

    row: Row
    net: int | None = None  # the index of lxc.net.[i].X; LAST for the old names without a number
    sub: str | None = None  # of lxc.prlimit.*; empty: the key without a sub-key
    old: bool = False  # whether the name is one of another era

    @property
    def key(self) -> str:
        """The modern name, index and sub-key filled in."""
        name = self.row.name
        if self.net is not None:
            return name.replace("[i]", str(self.net))
        if self.sub is not None:
            return name[:-2] if self.sub == "" else name[:-1] + self.sub
        return name


def _tables() -> tuple[dict[str, Found], dict[str, Row], dict[str, Row], list[tuple[str, Row, bool]]]:
    exact: dict[str, Found] = {}
    nets: dict[str, Row] = {}  # what stands behind lxc.net.I. and lxc.network.I.
    old_nets: dict[str, Row] = {}
    prefixes: list[tuple[str, Row, bool]] = []
    for row in ROWS:
        for name in (row.name, *row.old):
            old = name != row.name
            if name.startswith("lxc.net.[i]."):
                nets[name[12:]] = row
            elif name.startswith("lxc.network.[i]."):
                old_nets[name[16:]] = row
            elif name.endswith(".*"):
                prefixes.append((name[:-1], row, old))
                exact[name[:-2]] = Found(row, sub="", old=old)
            elif not name.endswith("[i]"):
                exact[name] = Found(row, old=old)
    return exact, nets, old_nets, prefixes


EXACT, _NETS, _OLD_NETS, _PREFIXES = _tables()
_INTERFACE = next(row for row in ROWS if row.name == "lxc.net.[i]")


def lookup(key: str) -> Found | None:
    """The row of a key of any era; None: there is no such key."""
    found = EXACT.get(key)
    if found is not None:
        return found
    if key.startswith("lxc.net."):
        return _lookup_net(key[8:], old=False)
    if key.startswith("lxc.network."):
        return _lookup_net(key[12:], old=True)
    for prefix, row, old in _PREFIXES:
        if key.startswith(prefix) and len(key) > len(prefix):
            return Found(row, sub=key[len(prefix) :], old=old)
    return None


def _lookup_net(rest: str, *, old: bool) -> Found | None:
    number, dot, sub = rest.partition(".")
    if not number[:1].isdigit():
        row = _OLD_NETS.get(rest) if old else None
        return Found(row, net=LAST, old=True) if row else None
    if not number.isdigit() or not number.isascii() or len(number) > 10 or int(number) > NET_MAX:
        return None
    if not dot:
        return Found(_INTERFACE, net=int(number), old=old)
    row = _OLD_NETS.get(sub) if old else _NETS.get(sub)
    return Found(row, net=int(number), old=old) if row else None


def is_map(row: Row) -> bool:
    """Whether the row's keys have sub-keys."""
    return row.shape in (MAP, CGROUP)


def nearest(key: str) -> str | None:
    """The known key that a wrong one probably means, index filled in."""
    import difflib  # on the way to an error only

    number = next((part for part in key.split(".")[2:3] if part.isdigit()), "")
    names = [name.replace("[i]", number or "0") for row in ROWS for name in (row.name, *row.old)]
    if not number:
        names += [f"lxc.network.{name}" for name in _OLD_NETS]
    plain = {name.removesuffix(".*"): name for name in names}
    match = difflib.get_close_matches(key[:100], plain, n=1, cutoff=0.75)
    if not match and not key.startswith(PREFIXES):
        match = difflib.get_close_matches(f"lxc.{key[:100]}", plain, n=1, cutoff=0.75)
    return plain[match[0]] if match else None
