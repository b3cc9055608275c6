"""The operations a plan is made of. Each one prints as a line and applies itself to a Context.

They are tuples: two plans can be compared, and a plan crosses a fork for nothing. `apply` raises OSError; the loop in
`apply.py` turns it into a RootfsError with the operation's words.
"""

from __future__ import annotations

import os
from typing import NamedTuple, Protocol

from lxcpy.errors import Origin
from lxcpy.kernel import mount
from lxcpy.kernel.fd import Fd, open_in_root
from lxcpy.rootfs.context import DIRECTORY, Context

CLONE = mount.OPEN_TREE_CLONE | mount.AT_EMPTY_PATH

FLAG_WORDS = (
    (mount.MS_RDONLY, "ro"), (mount.MS_NOSUID, "nosuid"), (mount.MS_NODEV, "nodev"), (mount.MS_NOEXEC, "noexec"),
    (mount.MS_SYNCHRONOUS, "sync"), (mount.MS_DIRSYNC, "dirsync"), (mount.MS_NOATIME, "noatime"),
    (mount.MS_NODIRATIME, "nodiratime"), (mount.MS_RELATIME, "relatime"), (mount.MS_STRICTATIME, "strictatime"),
    (mount.MS_MANDLOCK, "mand"), (mount.MS_LAZYTIME, "lazytime"), (mount.MS_NOSYMFOLLOW, "nosymfollow"),
)  # fmt: skip
PROPAGATION_WORDS = {
    mount.MS_PRIVATE: "private", mount.MS_SLAVE: "slave", mount.MS_SHARED: "shared", mount.MS_UNBINDABLE: "unbindable",
}  # fmt: skip

ATIMES = mount.MS_NOATIME | mount.MS_STRICTATIME | mount.MS_RELATIME


class Operation(Protocol):
    """One step: `origin` is the config line that asked for it; the failure of an `optional` one is only logged."""

    @property
    def origin(self) -> Origin | None: ...
    @property
    def optional(self) -> bool: ...

    def apply(self, context: Context) -> None: ...


def attributes(flags: int) -> tuple[int, int]:
    """What mount_setattr(2) must set and clear to bring the mount flags `flags` (MS_*) in force.

    It changes what is named alone, so flags of the source that a user namespace has locked stay as they are; a
    remount would have to repeat them.
    """
    # the access time modes are one field: it is cleared as a whole before a mode is set
    return mount.attributes(flags), mount.MOUNT_ATTR__ATIME if flags & ATIMES else 0


def words(flags: int, data: str | None = None, more: tuple[str, ...] = ()) -> str:
    """The options as a mount table shows them: ` (nosuid,nodev,mode=755)`; nothing where there is none."""
    parts = [word for flag, word in FLAG_WORDS if flags & flag]
    parts.extend(more)
    if data:
        parts.append(data)
    return f" ({','.join(parts)})" if parts else ""


def propagation_words(propagation: int) -> tuple[str, ...]:
    """`rslave` and the like, for `words`."""
    name = PROPAGATION_WORDS.get(propagation & ~mount.MS_REC)
    if name is None:
        return ()
    return ("r" + name if propagation & mount.MS_REC else name,)


def propagate(tree: int, propagation: int) -> None:
    """Give the mount of the descriptor `tree` a propagation (MS_SHARED and the like, MS_REC). Raises OSError."""
    flags = mount.AT_EMPTY_PATH | (mount.AT_RECURSIVE if propagation & mount.MS_REC else 0)
    mount.mount_setattr(tree, "", flags, propagation=propagation & ~mount.MS_REC)


class Isolate(NamedTuple):
    """Cut the propagation of our mounts to the host; the host's still reach us."""

    origin: Origin | None = None
    optional: bool = False

    def __str__(self) -> str:
        return "make every mount dependent on the host's (rslave)"

    def apply(self, context: Context) -> None:
        if not context.isolated:
            mount.mount(None, "/", None, mount.MS_REC | mount.MS_SLAVE)
            context.isolated = True


class RootSource(Protocol):
    """A storage backend, as far as a rootfs needs it."""

    @property
    def type(self) -> str: ...

    def mount(self, source: str, target: str, options: str | None = None) -> None: ...


class MountRoot(NamedTuple):
    """Mount the container's root filesystem; `idmap` names the user namespace whose id maps it gets."""

    backend: RootSource
    source: str
    target: str
    options: str | None = None
    idmap: str | None = None
    flags: int = 0
    origin: Origin | None = None
    optional: bool = False

    def __str__(self) -> str:
        return f"mount {self.backend.type}:{self.source} on {self.target}{words(0, self.options)}"

    def apply(self, context: Context) -> None:
        if self.idmap is None:
            self.backend.mount(self.source, self.target, self.options)
        else:
            self._mount_mapped(context, self.idmap)
        context.root = Fd(os.open(self.target, DIRECTORY))

    def _mount_mapped(self, context: Context, idmap: str) -> None:
        with mount.open_tree(mount.AT_FDCWD, self.source, mount.OPEN_TREE_CLONE | mount.AT_RECURSIVE) as tree:
            context.idmap(tree, idmap)
            attr_set, attr_clear = attributes(self.flags)
            flags = mount.AT_EMPTY_PATH | mount.AT_RECURSIVE
            mount.mount_setattr(tree.number, "", flags, attr_set=attr_set, attr_clear=attr_clear,
                                propagation=mount.MS_SLAVE)  # fmt: skip
            with Fd(os.open(self.target, DIRECTORY)) as target:
                mount.move_mount(tree.number, target.number)


class Mount(NamedTuple):
    """Mount a filesystem that is not there yet. `fresh` unmounts what a recursive bind brought to the place."""

    source: str
    target: str
    fstype: str
    flags: int = 0
    data: str | None = None
    create: str = ""
    propagation: int = 0
    fresh: bool = False
    origin: Origin | None = None
    optional: bool = False

    def __str__(self) -> str:
        options = words(self.flags, self.data, propagation_words(self.propagation))
        what = self.fstype if self.source in (self.fstype, "none") else f"{self.fstype} {self.source}"
        return f"mount {what} on {self.target or '/'}{options}"

    def apply(self, context: Context) -> None:
        if self.fresh and context.own_root:
            unmount_at(context, self.target)
        with context.open_target(self.target, self.create) as target:
            mount.mount(self.source, target.path, self.fstype, self.flags, self.data)
        if self.propagation:
            # opened again: the first descriptor is below the new mount
            with context.open_target(self.target) as target:
                propagate(target.number, self.propagation)


class Bind(NamedTuple):
    """Show a file or a directory at a second place.

    source is a path of the host, or, `inside`, one below the container's root. flags are MS_*; clear is MOUNT_ATTR_*.
    idmap is `container` or the path of a user namespace.
    """

    source: str
    target: str
    recursive: bool = False
    flags: int = 0
    clear: int = 0
    propagation: int = 0
    inside: bool = False
    create: str = ""
    idmap: str | None = None
    origin: Origin | None = None
    optional: bool = False

    def __str__(self) -> str:
        more = propagation_words(self.propagation)
        if self.idmap:
            more += (f"idmap={self.idmap}",)
        place = "the container's " if self.inside else ""
        kind = "rbind" if self.recursive else "bind"
        return f"{kind} {place}{self.source} on {self.target or '/'}{words(self.flags, None, more)}"

    def apply(self, context: Context) -> None:
        with self._open_source(context) as tree:
            if self.idmap:
                context.idmap(tree, self.idmap)
            attr_set, attr_clear = attributes(self.flags)
            attr_clear |= self.clear
            if attr_set or attr_clear:
                mount.mount_setattr(tree.number, "", mount.AT_EMPTY_PATH, attr_set=attr_set, attr_clear=attr_clear)
            if self.propagation:
                propagate(tree.number, self.propagation)
            with context.open_target(self.target, self.create) as target:
                mount.move_mount(tree.number, target.number)

    def _open_source(self, context: Context) -> Fd:
        flags = mount.OPEN_TREE_CLONE | (mount.AT_RECURSIVE if self.recursive else 0)
        if not self.inside:
            return mount.open_tree(mount.AT_FDCWD, self.source, flags)
        with open_in_root(context.root_fd, self.source, os.O_PATH) as source:
            return mount.open_tree(source.number, "", flags | mount.AT_EMPTY_PATH)


class ReadOnly(NamedTuple):
    """Make a part of the tree read-only, but for `except_`, a path below it. A missing path needs no protection.

    mounted: `path` is a mount point, whose mount alone becomes read-only: the filesystem itself stays writable, and so
    does the excepted part.
    """

    path: str
    except_: str | None = None
    mounted: bool = False
    origin: Origin | None = None
    optional: bool = False

    def __str__(self) -> str:
        rest = f" except {self.path}/{self.except_}" if self.except_ else ""
        return f"make {self.path} read-only{rest}"

    def apply(self, context: Context) -> None:
        try:
            place = context.open_target(self.path)
        except FileNotFoundError:
            return
        with place:
            kept = self._keep(place)
            if self.mounted:
                self._protect(place, kept)
                return
            with mount.open_tree(place.number, "", CLONE) as tree:
                mount.move_mount(tree.number, place.number)
                self._protect(tree, kept)

    def _keep(self, place: Fd) -> Fd | None:
        """A detached copy of the excepted part, taken while it is still writable."""
        if self.except_ is None:
            return None
        try:
            with open_in_root(place.number, self.except_, os.O_PATH) as part:
                return mount.open_tree(part.number, "", CLONE)
        except FileNotFoundError:
            return None

    def _protect(self, place: Fd, kept: Fd | None) -> None:
        mount.mount_setattr(place.number, "", mount.AT_EMPTY_PATH, attr_set=mount.MOUNT_ATTR_RDONLY)
        if kept is not None and self.except_ is not None:
            with kept, open_in_root(place.number, self.except_, os.O_PATH) as hole:
                mount.move_mount(kept.number, hole.number)


class MakeDirectory(NamedTuple):
    """Make a directory, and those above it, below the container's root."""

    path: str
    mode: int = 0o755
    origin: Origin | None = None
    optional: bool = False

    def __str__(self) -> str:
        return f"make directory {self.path}"

    def apply(self, context: Context) -> None:
        context.open_target(self.path, "dir").close()


class MakeHostDirectory(NamedTuple):
    """Make a directory on the host: the upper or work directory of an overlay entry."""

    path: str
    origin: Origin | None = None
    optional: bool = False

    def __str__(self) -> str:
        return f"make host directory {self.path}"

    def apply(self, context: Context) -> None:
        os.makedirs(self.path, 0o755, exist_ok=True)


class Propagate(NamedTuple):
    """Change the propagation of the mounts from `path` down."""

    path: str
    propagation: int
    origin: Origin | None = None
    optional: bool = False

    def __str__(self) -> str:
        return f"make {self.path} {'/'.join(propagation_words(self.propagation))}"

    def apply(self, context: Context) -> None:
        with context.open_target(self.path) as place:
            propagate(place.number, self.propagation)


class Sysctl(NamedTuple):
    """Write a kernel parameter of the container's namespaces (lxc.sysctl.*)."""

    key: str
    value: str
    origin: Origin | None = None
    optional: bool = False

    def __str__(self) -> str:
        return f"set kernel parameter {self.key} = {self.value}"

    def apply(self, context: Context) -> None:
        path = "sys/" + self.key.replace(".", "/")
        with open_in_root(context.detached_proc().number, path, os.O_WRONLY) as file:
            os.write(file.number, self.value.encode())


def unmount_at(context: Context, path: str) -> None:
    """Unmount the filesystems mounted on `path` itself, as far as the kernel allows. Raises nothing."""
    try:
        own = os.fstat(context.root_fd).st_dev
        while True:
            with context.open_target(path) as place:
                # asked first: a refusal costs more than the question, and there is hardly ever anything
                if os.fstat(place.number).st_dev == own:
                    return
                mount.umount(place.path, mount.MNT_DETACH)
    except OSError:
        return  # not a mount point, not there, or locked in a user namespace
