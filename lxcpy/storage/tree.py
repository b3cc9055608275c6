"""Directory trees with hostile content: removal that leaves the tree by no way, and hints to the file system."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from lxcpy.kernel.fd import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, Fd, openat2
from lxcpy.kernel.proc import mountinfo

_INSIDE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV
_LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_DEEP = 64  # levels of which a descriptor is kept; deeper directories are moved up

_GETFLAGS, _SETFLAGS = 0x80086601, 0x40086602  # FS_IOC_GETFLAGS, FS_IOC_SETFLAGS
_IMMUTABLE, _APPEND, _TOPDIR = 0x10, 0x20, 0x20000


def remove_tree(path: str) -> None:
    """Remove the directory `path` and everything in it; nothing happens if it is not there.

    Links are removed, never followed. If anything is mounted in it nothing is removed, and the error is EBUSY.
    Immutable files lose that attribute. Raises OSError, whose `filename` tells the place.
    """
    parent, name = os.path.split(os.path.abspath(path))
    mounted = mounts_in(os.path.join(os.path.realpath(parent), name))
    if mounted:
        raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), mounted[-1])
    try:
        with Fd(os.open(parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as above:
            _Removal(above.number, name, path).run()
    except FileNotFoundError:
        pass


def give_tree(path: str, uid: int, gid: int) -> None:
    """Give a tree of one's own to another; what cannot be given stays. Links are not followed."""
    if not os.path.isdir(path):
        return
    for _folder, folders, files, directory in os.fwalk(path):
        for name in (".", *folders, *files):
            try:
                if os.stat(name, dir_fd=directory, follow_symlinks=False).st_uid == os.geteuid():
                    os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)
            except OSError:
                pass


def mounts_in(path: str) -> list[str]:
    """The mount points at and below a path without links, as this process sees them, in the order of mounting."""
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        targets = [entry.target for entry in mountinfo(file.read())]
    return [target for target in targets if target == path or target.startswith(path.rstrip("/") + "/")]


class _Level:
    __slots__ = ("directories", "fd", "name")

    def __init__(self, name: str, fd: Fd) -> None:
        self.name = name
        self.fd = fd
        self.directories: list[str] = []


class _Removal:
    """One removal: a stack of open directories instead of recursion, so that no depth is too deep."""

    def __init__(self, above: int, name: str, path: str) -> None:
        self.above = above
        self.name = name
        self.path = path
        self.moved = 0

    def run(self) -> None:
        stack = [self._open(self.above, self.name, [])]
        while stack:
            level = stack[-1]
            if level.directories:
                name = level.directories.pop()
                if len(stack) >= _DEEP:
                    self._move_up(stack, name)
                    continue
                try:
                    stack.append(self._open(level.fd.number, name, stack))
                except FileNotFoundError:
                    pass  # somebody else removes here too
                continue
            stack.pop()
            level.fd.close()
            self._rmdir(stack, level.name)

    def _open(self, above: int, name: str, stack: list[_Level]) -> _Level:
        """Open a directory, unlink what is no directory in it, and note the directories."""
        try:
            resolve = _INSIDE if stack else 0
            level = _Level(name, openat2(above, name, _LIST, resolve=resolve))
        except OSError as error:
            if error.errno == errno.EXDEV:
                raise self._failed(errno.EBUSY, stack, name) from None
            if error.errno == errno.ENOTDIR or isinstance(error, FileNotFoundError):
                raise
            raise self._failed(error.errno or 0, stack, name) from error
        number = level.fd.number
        with os.scandir(number) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    level.directories.append(entry.name)
                else:
                    self._unlink(number, entry.name, [*stack, level])
        return level

    def _unlink(self, directory: int, name: str, stack: list[_Level]) -> None:
        try:
            os.unlink(name, dir_fd=directory)
        except FileNotFoundError:
            pass
        except PermissionError:
            if not (_soften(directory, None) | _soften(directory, name)):
                raise self._failed(errno.EPERM, stack, name) from None
            self._again(os.unlink, directory, name, stack)
        except OSError as error:
            raise self._failed(error.errno or 0, stack, name) from error

    def _rmdir(self, stack: list[_Level], name: str) -> None:
        directory = stack[-1].fd.number if stack else self.above
        try:
            os.rmdir(name, dir_fd=directory)
        except FileNotFoundError:
            pass
        except PermissionError:
            if not (_soften(directory, None) | _soften(directory, name)):
                raise self._failed(errno.EPERM, stack, name) from None
            self._again(os.rmdir, directory, name, stack)
        except OSError as error:
            raise self._failed(error.errno or 0, stack, name) from error

    def _again(self, call: object, directory: int, name: str, stack: list[_Level]) -> None:
        try:
            call(name, dir_fd=directory)  # type: ignore[operator]
        except OSError as error:
            raise self._failed(error.errno or 0, stack, name) from error

    def _move_up(self, stack: list[_Level], name: str) -> None:
        """Move a directory that is too deep to the top, to be removed from there."""
        self.moved += 1
        new = f".removed-{os.getpid()}-{self.moved}"
        try:
            os.rename(name, new, src_dir_fd=stack[-1].fd.number, dst_dir_fd=stack[0].fd.number)
        except OSError as error:
            raise self._failed(error.errno or 0, stack, name) from error
        stack[0].directories.append(new)

    def _failed(self, number: int, stack: list[_Level], name: str) -> OSError:
        inner = [level.name for level in stack[1:]]
        place = os.path.join(self.path, *inner, name) if stack else self.path
        return OSError(number, os.strerror(number), place)


def _soften(directory: int, name: str | None) -> bool:
    """Take the immutable and append-only attributes from a file, or the directory itself; whether there were some."""
    try:
        if name is None:
            return _change_flags(directory, _IMMUTABLE | _APPEND, 0)
        with Fd(os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=directory)) as file:
            return _change_flags(file.number, _IMMUTABLE | _APPEND, 0)
    except OSError:
        return False


def _change_flags(fd: int, clear: int, add: int) -> bool:
    """Change a file's attributes (chattr(1)); whether that changed anything. Raises OSError."""
    # the kernel reads and writes an int, whatever the request's size says
    (flags,) = struct.unpack("i", fcntl.ioctl(fd, _GETFLAGS, bytes(4)))
    wanted = flags & ~clear | add
    if wanted != flags:
        fcntl.ioctl(fd, _SETFLAGS, struct.pack("i", wanted))
    return bool(wanted != flags)


def spread(path: str) -> None:
    """Have ext4 spread the directories made in `path` over the disk (chattr +T); elsewhere nothing happens.

    ext4 does not reuse an inode for a minute after its removal, and searches past all of them when it makes a new one
    in the same group: creating and destroying containers in turn becomes ten times slower (fs/ext4/ialloc.c,
    recently_deleted).
    """
    try:
        with Fd(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)) as directory:
            _change_flags(directory.number, 0, _TOPDIR)
    except OSError:
        pass
