"""Apply a plan: the loop over operations, the words for its failures, and the change of root.

Runs between clone and exec in the container's first process: nothing is imported here at run time.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from lxcpy.errors import LxcpyError, RootfsError, meaning
from lxcpy.kernel.fd import exists_in_root, open_in_root
from lxcpy.log import Log
from lxcpy.rootfs.context import Context
from lxcpy.rootfs.dev import Devpts, Link, Node
from lxcpy.rootfs.ops import Bind, Isolate, Mount, MountRoot, Operation
from lxcpy.rootfs.pivot import pivot

__all__ = ["Context", "pivot", "run"]

LOG = Log("rootfs")


def run(operations: Iterable[Operation], context: Context) -> None:
    """Apply operations in order. Raises RootfsError at the first that fails and is not optional.

    Nothing is undone: the mount namespace ends with its processes, and what was made on disk are mount points.
    """
    mask = os.umask(0)
    try:
        for operation in operations:
            LOG.debug(str(operation))
            try:
                operation.apply(context)
            except OSError as error:
                if not operation.optional:
                    raise failure(operation, error, context) from error
                LOG.info(f"{operation} (optional): {error}")
            except LxcpyError as error:
                error.at = error.at or operation.origin  # a storage backend knows no config
                raise
    finally:
        os.umask(mask)


def failure(operation: Operation, error: OSError, context: Context) -> RootfsError:
    """The error of an operation in a user's words, with the next step where one is known."""
    what = f"cannot {operation}: {meaning(error)}"
    return RootfsError(what, at=operation.origin, hint=_hint(operation, error, context))


def _hint(operation: Operation, error: OSError, context: Context) -> str | None:
    if isinstance(operation, Isolate) and error.errno == errno.EINVAL:
        return "the supervisor's root is a chroot and no mount point: mount --bind DIR DIR before the chroot"
    if isinstance(operation, MountRoot):
        return _root_hint(operation, error)
    if isinstance(operation, (Bind, Mount)):
        if error.errno == errno.ENOENT:
            return _missing_hint(operation, context)
        if isinstance(operation, Bind) and not operation.inside and _kinds_differ(operation, context):
            return "a directory can be bound on a directory only, a file on a file: use create=file for a file"
        if error.errno in (errno.ELOOP, errno.ENOTDIR) and isinstance(operation, Mount) and operation.create == "own":
            return f"/{operation.target} of the root file system must be a directory, and no link to one"
        if error.errno == errno.ENODEV and isinstance(operation, Mount):
            return f'the kernel has no file system "{operation.fstype}"; /proc/filesystems lists what it has'
        if error.errno == errno.EINVAL and context.userns and isinstance(operation, Bind) and not operation.recursive:
            return "in a user namespace a directory with mounts below can be bound with rbind only"
        if error.errno in (errno.EPERM, errno.EACCES) and context.userns:
            return _userns_hint(operation)
    if error.errno == errno.ENOENT and isinstance(operation, (Node, Devpts, Link)):
        return "the root file system has no usable /dev: set lxc.autodev = 1"
    if error.errno == errno.EROFS:
        return "the root file system is read-only; make what is missing there, or remove ro from lxc.rootfs.options"
    return None


def _root_hint(operation: MountRoot, error: OSError) -> str | None:
    if error.errno == errno.ENOENT:
        if os.path.isdir(operation.target):
            return "create the root file system, or correct lxc.rootfs.path"
        return f"make the directory {operation.target}, or correct lxc.rootfs.mount"
    if error.errno in (errno.EPERM, errno.EACCES):
        return "the mapped root of the container needs the right to enter every directory on the way to its rootfs"
    return None


def _missing_hint(operation: Bind | Mount, context: Context) -> str | None:
    try:
        if not exists_in_root(context.root_fd, operation.target):
            return "add create=dir (or create=file) to the entry's options to have the target made"
        if isinstance(operation, Bind):
            return f'"{operation.source}" does not exist; add optional to the entry\'s options if it need not'
    except OSError:
        pass
    return None


def _kinds_differ(operation: Bind, context: Context) -> bool:
    try:
        with open_in_root(context.root_fd, operation.target, os.O_PATH) as target:
            return os.path.isdir(operation.source) != os.path.isdir(target.path)
    except OSError:
        return False


def _userns_hint(operation: Bind | Mount) -> str:
    if isinstance(operation, Mount) and operation.fstype == "sysfs":
        return "in a user namespace sysfs needs a network namespace of the container's own"
    if isinstance(operation, Mount) and operation.fstype == "proc":
        return "in a user namespace procfs needs a pid namespace of the container's own, and an unobscured /proc here"
    return "a container with lxc.idmap may mount only what a user namespace allows, and reach only what its ids may"
