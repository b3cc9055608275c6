"""The change of root: the container's tree becomes /, the host's goes away."""

from __future__ import annotations

import errno
import os

from lxcpy.errors import RootfsError, meaning
from lxcpy.kernel import mount, namespace
from lxcpy.kernel.fd import Fd
from lxcpy.rootfs.context import DIRECTORY, Context


def pivot(context: Context) -> None:
    """Make context.root the root and working directory of this process; nothing happens if the host's is shared.

    `pivot_root(".", ".")` stacks the old root on the new one (pivot_root(2), NOTES), so no directory is needed for it
    in the container. The new tree becomes a peer group of its own: services in the container that have mount namespaces
    expect theirs to receive from the root. Raises RootfsError.
    """
    if context.root is None or context.target is None:
        return
    _check_same(context.root.number, context.target)
    try:
        _leave_chroot()
        with Fd(os.open("/", DIRECTORY)) as old:
            os.fchdir(context.root.number)
            mount.pivot_root(".", ".")
            os.fchdir(old.number)
            # a hook may have made a mount shared again: the unmount must not reach the host
            mount.mount(None, ".", None, mount.MS_SLAVE | mount.MS_REC)
            mount.umount(".", mount.MNT_DETACH)
            os.fchdir(context.root.number)
            mount.mount(None, ".", None, mount.MS_SHARED | mount.MS_REC)
    except OSError as error:
        hint = None
        if error.errno == errno.EINVAL:
            hint = "the host's own root must not be an initramfs, and the rootfs must be a mount point"
        raise RootfsError(f'cannot change root to "{context.target}": {meaning(error)}', hint=hint) from error


def _leave_chroot() -> None:
    """Make the root of the mount namespace this process's root: to join a mount namespace sets it (setns(2)).

    pivot_root(2) changes the caller's root. Where a chroot is the host's, the namespace's would stay what lies outside
    of it, and who joins the namespace, lxc-attach or the container's own nsenter, would be there.
    """
    with Fd(os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)) as own:
        namespace.setns(own.number, namespace.CLONE_NEWNS)


def _check_same(root: int, target: str) -> None:
    """A mount over the rootfs itself would be what the container starts in. Raises RootfsError."""
    try:
        now = os.stat(target)
        then = os.fstat(root)
    except OSError as error:
        raise RootfsError(f'the root file system on "{target}" cannot be seen: {meaning(error)}') from error
    if (now.st_dev, now.st_ino) != (then.st_dev, then.st_ino):
        raise RootfsError(
            f'something was mounted over the root file system on "{target}"',
            hint="look for a mount entry or a mount hook whose target is the root itself",
        )
