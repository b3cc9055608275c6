"""What the operations work on: descriptors of the host's and the container's trees.

Descriptors and not paths, because the content of a rootfs is hostile: a name below `root` is resolved by openat2 with
RESOLVE_IN_ROOT and the mount is made on the descriptor that came out, so no link can redirect it. Those of the host
are opened before anything is mounted; the container's own mounts cannot hide them.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from typing import TYPE_CHECKING

from lxcpy.config.model import Config
from lxcpy.errors import RootfsError, meaning
from lxcpy.kernel import mount
from lxcpy.kernel.fd import Fd, make_dirs_in_root, make_file_in_root, open_in_root

if TYPE_CHECKING:
    from lxcpy.rootfs.plan import Facts

DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC

Idmapper = Callable[[Fd, str], None]
"""Maps the ids of a detached mount: (tree, `container` or the path of a user namespace). Raises OSError.

A process inside a user namespace may not do it itself, so the launcher does it on the descriptor it is sent."""


def map_here(tree: Fd, namespace: str) -> None:
    """The Idmapper of a process that has the host's rights. Raises OSError."""
    path = "/proc/self/ns/user" if namespace == "container" else namespace
    with Fd(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as userns:
        map_tree(tree.number, userns.number)


def map_tree(tree: int, userns: int) -> None:
    """Show the detached mount `tree` and those below it with the id maps of a user namespace. Raises OSError."""
    flags = mount.AT_EMPTY_PATH | mount.AT_RECURSIVE
    mount.mount_setattr(tree, "", flags, attr_set=mount.MOUNT_ATTR_IDMAP, userns_fd=userns)


class Context:
    """The state of one application of a plan, in the container's first process.

    own_root:  the container has a rootfs of its own; else `root` is the host's root.
    own_dev:   /dev is a filesystem of the container's; else nothing may be removed or replaced in it.
    target:    where the rootfs is mounted (lxc.rootfs.mount); None if the host's root is shared.
    userns:    the process is in a user namespace: no mknod, locked mount flags.
    root:      the container's root directory (O_PATH), once it is mounted.
    devpts:    the container's own devpts (O_PATH), once it is mounted.
    """

    __slots__ = (
        "dev", "devpts", "host_dev", "idmap", "isolated", "mknod", "own_dev", "own_root", "proc", "root", "target",
        "userns",
    )  # fmt: skip

    def __init__(self, config: Config, facts: Facts, *, idmap: Idmapper = map_here) -> None:
        """In the container's first process, before anything is mounted. Raises RootfsError."""
        self.own_root = facts.source is not None
        self.own_dev = self.own_root or config.autodev.enabled
        self.target = facts.mount if self.own_root else None
        self.userns = facts.userns
        self.idmap = idmap
        self.isolated = False
        self.mknod = not facts.userns
        self.root: Fd | None = None
        self.dev: Fd | None = None
        self.devpts: Fd | None = None
        self.proc: Fd | None = None
        try:
            self.host_dev = Fd(os.open("/dev", DIRECTORY))
            if not self.own_root:
                self.root = Fd(os.open("/", DIRECTORY))
        except OSError as error:
            raise RootfsError(f"cannot open the host's directories: {meaning(error)}") from error

    @property
    def root_fd(self) -> int:
        """The number of `root`; EBADF's -1 before it is mounted."""
        return self.root.number if self.root is not None else -1

    def dev_fd(self) -> int:
        """The container's /dev, opened at the first call, which must come after it is mounted. Raises OSError."""
        if self.dev is None:
            self.dev = open_in_root(self.root_fd, "dev", DIRECTORY)
        return self.dev.number

    def open_target(self, path: str, create: str = "") -> Fd:
        """The mount point `path` below the root as an O_PATH descriptor; create: `dir`, `file`, `own` or nothing.

        `own` is a directory of the root itself, made if it is missing: a link in its place is refused, as LXC does, so
        that what belongs on /proc is never mounted elsewhere. Raises OSError.
        """
        if create == "own":
            return self._own_directory(path)
        if create == "dir":
            return make_dirs_in_root(self.root_fd, path)
        if create == "file":
            # the mode is LXC's: what is left when the mount is gone should not pass for a file
            return make_file_in_root(self.root_fd, path, 0o000)
        return open_in_root(self.root_fd, path, os.O_PATH)

    def _own_directory(self, name: str) -> Fd:
        try:
            os.mkdir(name, 0o755, dir_fd=self.root_fd)
        except FileExistsError:
            pass
        place = open_in_root(self.root_fd, name, os.O_PATH | os.O_NOFOLLOW)
        mode = os.fstat(place.number).st_mode
        if not stat.S_ISDIR(mode):
            place.close()
            wrong = errno.ELOOP if stat.S_ISLNK(mode) else errno.ENOTDIR
            raise OSError(wrong, f"/{name} of the root file system is not a directory")
        return place

    def detached_proc(self) -> Fd:
        """A procfs of the container's pid namespace that is mounted nowhere. Raises OSError.

        It can be written to where the container's own /proc/sys is read-only, and needs no /proc at all.
        """
        if self.proc is None:
            with mount.fsopen("proc") as filesystem:
                mount.fsconfig_create(filesystem.number)
                self.proc = mount.fsmount(filesystem.number)
        return self.proc

    def close(self) -> None:
        """Close every descriptor."""
        for fd in (self.root, self.dev, self.devpts, self.proc, self.host_dev):
            if fd is not None:
                fd.close()
