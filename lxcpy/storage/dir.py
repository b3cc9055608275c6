"""Storage `dir`: the rootfs is a directory, bound on the mount point."""

from __future__ import annotations

import os

from lxcpy.errors import StorageError, meaning
from lxcpy.kernel import mount as kernel
from lxcpy.kernel.fd import Fd
from lxcpy.storage.base import Shift

_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class Dir:
    type = "dir"

    def create(self, rootfs: str, *, owner: tuple[int, int] = (0, 0)) -> str:
        try:
            os.makedirs(rootfs, 0o755, exist_ok=True)
            os.chmod(rootfs, 0o755)
            os.chown(rootfs, *owner)
        except OSError as error:
            raise StorageError(f'cannot make the directory "{rootfs}": {meaning(error)}') from error
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
            attributes = kernel.attributes(words.flags)
            if attributes:
                atime = kernel.MS_NOATIME | kernel.MS_STRICTATIME | kernel.MS_RELATIME
                clear = kernel.MOUNT_ATTR__ATIME if words.flags & atime else 0
                kernel.mount_setattr(tree.number, "", flags, attr_set=attributes, attr_clear=clear)
            if words.propagation:
                kernel.mount_setattr(tree.number, "", flags, propagation=words.propagation & ~kernel.MS_REC)
            with Fd(os.open(target, _DIRECTORY)) as place:
                kernel.move_mount(tree.number, place.number)

    def clone(self, source: str, rootfs: str, *, snapshot: bool = False, shift: Shift | None = None) -> str:
        raise StorageError("x")

    def destroy(self, source: str) -> None:
        raise StorageError("x")


BACKEND = Dir()
