"""Entries of fstab: lxc.mount.fstab and lxc.mount.entry as operations (runtime.md, C3 and C4)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from lxcpy.errors import Origin, RootfsError, meaning
from lxcpy.kernel import mount
from lxcpy.log import Log
from lxcpy.rootfs.ops import Bind, MakeHostDirectory, Mount, Operation

LOG = Log("rootfs")


class Entry(NamedTuple):
    """One line: six fields of fstab(5), of which the last two say nothing here."""

    source: str
    target: str
    fstype: str
    options: str

    def has(self, word: str) -> bool:
        return word in self.options.split(",")


class Place(NamedTuple):
    """What the rule for absolute targets needs to know; `rootfs` is lxc.rootfs.path without its type, None if unset."""

    rootfs: str | None
    lxcpath: str
    name: str


def parse(line: str) -> Entry | None:
    """The fields of a line; None for an empty line or a comment. Raises ValueError without a target."""
    fields = line.split()
    if not fields or fields[0].startswith("#"):
        return None
    if len(fields) < 2:
        raise ValueError(f'"{line.strip()}" has no target')
    fields += [""] * (4 - len(fields))
    return Entry(*(re.sub(r"\\(040|011|012|134|043)", _octal, field) for field in fields[:4]))


def _octal(match: re.Match[str]) -> str:
    return chr(int(match.group(1), 8))


def read(path: str, at: Origin | None = None) -> str:
    """The text of lxc.mount.fstab. Raises RootfsError."""
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError as error:
        hint = "make the file, or remove lxc.mount.fstab"
        raise RootfsError(f'fstab "{path}" cannot be read: {meaning(error)}', at=at, hint=hint) from error


def from_text(text: str, path: str, place: Place) -> list[Operation]:
    """The operations of a whole file. Raises RootfsError naming the line."""
    lines = enumerate(text.splitlines(), 1)
    return from_lines(((line, Origin(path, number)) for number, line in lines), place)


def from_lines(lines: Iterable[tuple[str, Origin | None]], place: Place) -> list[Operation]:
    """The operations of entries, in their order. Raises RootfsError."""
    operations: list[Operation] = []
    for line, origin in lines:
        try:
            entry = parse(line)
        except ValueError as error:
            hint = "an entry is SOURCE TARGET TYPE OPTIONS, as in fstab(5)"
            raise RootfsError(f"mount entry {error}", at=origin, hint=hint) from error
        if entry is None:
            continue
        target = target_of(entry.target, place)
        if target is None:
            where = f"{place.lxcpath}/{place.name}/rootfs"
            LOG.warn(f'ignoring mount entry on "{entry.target}": an absolute target must be below {where}')
            continue
        operations.extend(operations_of(entry, target, place, origin))
    return operations


def target_of(target: str, place: Place) -> str | None:
    """The target below the container's root; None if it is to be ignored.

    An absolute target counts if LXCPATH/NAME/rootfs or the rootfs's own path stands anywhere in it; what comes after is
    the target. Without a rootfs every target is one of the host.
    """
    if place.rootfs is None or not target.startswith("/"):
        return target.strip("/")
    for prefix in (f"{place.lxcpath.rstrip('/')}/{place.name}/rootfs", place.rootfs.rstrip("/")):
        at = target.find(prefix)
        if prefix and at >= 0:
            return target[at + len(prefix) :].strip("/")
    return None


def operations_of(entry: Entry, target: str, place: Place, origin: Origin | None) -> list[Operation]:
    """One entry's operations: the mount itself, before it the directories that an overlay of the container's needs.

    Raises RootfsError for options that contradict each other.
    """
    optional = relative = False
    create = ""
    idmap = None
    rest = []
    for word in entry.options.split(","):
        if word in ("create=dir", "create=file"):
            create = word.partition("=")[2]
        elif word == "optional":
            optional = True
        elif word == "relative":
            relative = True
        elif word.startswith("idmap="):
            idmap = word.partition("=")[2]
        else:
            rest.append(word)
    options = mount.parse_options(",".join(rest))
    if options.flags & mount.MS_BIND:
        # the source's flags stay in force, as with LXC; `dev` alone takes one away
        clear = mount.MOUNT_ATTR_NODEV if options.clear & mount.MS_NODEV else 0
        bind = Bind(
            entry.source, target, bool(options.flags & mount.MS_REC), options.flags & ~(mount.MS_BIND | mount.MS_REC),
            clear, options.propagation, relative, create, idmap, origin, optional,
        )  # fmt: skip
        return [bind]
    if idmap is not None:
        raise RootfsError(
            f'mount entry on "{entry.target}": only a bind mount can have idmap={idmap}',
            at=origin,
            hint="add the option bind, or remove idmap",
        )
    source = entry.source
    new = Mount(
        source, target, entry.fstype, options.flags & ~mount.MS_REMOUNT, options.data, create, options.propagation,
        origin=origin, optional=optional,
    )  # fmt: skip
    return [*overlay_directories(entry, place, origin), new]


def overlay_directories(entry: Entry, place: Place, origin: Origin | None) -> list[Operation]:
    """The upper and work directories of an overlay entry that lie in the container's directory, not in its rootfs."""
    if not entry.fstype.startswith("overlay"):
        return []
    operations: list[Operation] = []
    for word in entry.options.split(","):
        key, _, path = word.partition("=")
        if key not in ("upperdir", "workdir") or not path:
            continue
        if place.rootfs is not None:
            lower = place.rootfs.partition(":/")[0]
            if not path.startswith(f"{place.lxcpath}/{place.name}") or path.startswith(lower):
                continue
        operations.append(MakeHostDirectory(path, origin, optional=True))
    return operations
