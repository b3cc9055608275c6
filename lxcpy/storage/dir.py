"""Storage `dir`: the rootfs is a directory, bound on the mount point."""

from __future__ import annotations

import errno
import os

from lxcpy.errors import StorageError, meaning
from lxcpy.kernel import mount as kernel
from lxcpy.kernel.fd import Fd
from lxcpy.storage.base import Shift
from lxcpy.storage.copy import copy_tree
from lxcpy.storage.tree import remove_tree

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_ATIME = kernel.MS_NOATIME | kernel.MS_STRICTATIME | kernel.MS_RELATIME


class Dir:
    type = "dir"

    def create(self, rootfs: str, *, owner: tuple[int, int] = (0, 0)) -> str:
        make_directory(rootfs, owner)
        return f"dir:{rootfs}"

    def directory(self, source: str) -> str | None:
        return source

    def mount(self, source: str, target: str, options: str | None = None) -> None:
        """Bind it, with what is mounted in it. options: words of fstab for the bind (ro, nosuid, rslave …).

        Raises OSError, whose meaning the caller knows best.
        """
        words = kernel.parse_options(options or "")
        flags = kernel.AT_EMPTY_PATH | kernel.AT_RECURSIVE
        with kernel.open_tree(kernel.AT_FDCWD, source, kernel.OPEN_TREE_CLONE | kernel.AT_RECURSIVE) as tree:
            wanted = kernel.attributes(words.flags)
            if wanted or words.flags & _ATIME:
                clear = kernel.MOUNT_ATTR__ATIME if words.flags & _ATIME else 0
                kernel.mount_setattr(tree.number, "", flags, attr_set=wanted, attr_clear=clear)
            if words.propagation:
                kernel.mount_setattr(tree.number, "", flags, propagation=words.propagation & ~kernel.MS_REC)
            with Fd(os.open(target, _DIRECTORY)) as place:
                kernel.move_mount(tree.number, place.number)

    def clone(self, source: str, rootfs: str, *, snapshot: bool = False, shift: Shift | None = None) -> str:
        """Copy the tree; a snapshot is an overlay over it, whose source must not change from then on."""
        if snapshot:
            from lxcpy.storage.overlay import BACKEND as OVERLAY

            return OVERLAY.over(source, rootfs, shift=shift)
        copy_tree(source, rootfs, shift=shift)
        return f"dir:{rootfs}"

    def destroy(self, source: str) -> None:
        destroy_directory(source)


def make_directory(path: str, owner: tuple[int, int]) -> None:
    """Make a directory of a container's root, mode 0755; it may be there. Raises StorageError."""
    try:
        os.makedirs(path, 0o755, exist_ok=True)
        os.chmod(path, 0o755)
        os.chown(path, *owner)
    except OSError as error:
        raise StorageError(f'cannot make the directory "{path}": {meaning(error)}') from error


def destroy_directory(path: str) -> None:
    """Remove a tree; one that is gone is no error. Raises StorageError."""
    try:
        remove_tree(path)
    except OSError as error:
        place = error.filename or path
        hint = f"umount {place}" if error.errno == errno.EBUSY else None
        raise StorageError(f'cannot remove "{place}": {meaning(error)}', hint=hint) from error


BACKEND = Dir()
