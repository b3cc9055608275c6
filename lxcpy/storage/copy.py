"""Copy a tree exactly and fast: contents with holes, hard links, owners, modes, times, extended attributes, devices.

The tree's directories are listed and made; then processes take them one by one and copy the files in them, since making
a file costs more than moving its bytes and Python's threads would wait for each other. Every name is reached through
the descriptor of its directory and no link is followed: the source may belong to a container, even to a running one.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import NamedTuple

from lxcpy.errors import StorageError, meaning
from lxcpy.kernel.fd import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, Fd, openat2
from lxcpy.log import Log
from lxcpy.storage import attributes, workers
from lxcpy.storage.base import Shift

LOG = Log("storage")

INSIDE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
LIST = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # a FIFO that took a file's place must not hang us
MAKE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_SMALL = 64 << 10  # below, read and write; above, the kernel copies
SPECIAL = stat.S_ISUID | stat.S_ISGID | stat.S_ISVTX

Names = list[tuple[str, os.stat_result]]


class Folder(NamedTuple):
    """One directory: its path below the root (empty for the root), and the names in it but those of directories."""

    path: str
    files: list[str]  # regular
    others: list[str]  # links, devices, sockets, FIFOs


class Tree(NamedTuple):
    """The directories of a tree, each before those below it, and the mount points, which are not entered."""

    folders: list[Folder]
    mounts: list[str]


def copy_tree(source: str, target: str, *, shift: Shift | None = None, processes: int | None = None) -> None:
    """Make the directory `target`, which may exist if it is empty, an exact copy of `source`.

    shift: how owners change. What is mounted in the tree is left out, its mount point is copied. What is half made
    stays for the caller to remove. Raises StorageError.
    """
    if shift is not None and not shift.changes:
        shift = None
    mask = os.umask(0)
    try:
        tree = list_tree(source)
        for path in tree.mounts:
            LOG.warn(f'"{source}/{path}" is a mount point; what is mounted there was not copied')
        _Copy(source, target, tree, shift).run(processes or workers.count())
    except OSError as error:
        raise failed(f'cannot copy "{source}" to "{target}"', error) from error
    finally:
        os.umask(mask)


def failed(what: str, error: OSError) -> StorageError:
    """The StorageError of a copy that failed at error.filename."""
    hint = None
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "make room on the target's file system"
    elif error.errno in (errno.EPERM, errno.EACCES):
        hint = "run the command with sudo"
    where = f"{os.fsdecode(error.filename)}: " if error.filename else ""
    return StorageError(f"{what}: {where}{error.strerror or meaning(error)}", hint=hint)


def clone_cached(source: str, target: str, *, shift: Shift | None = None) -> None:
    """Fill the directory `target` from a finished rootfs: a packed one (a file, storage/blob.py) or a directory.

    Raises StorageError.
    """
    if os.path.isfile(source):
        from lxcpy.storage import blob

        blob.unpack(source, target, shift=shift)
    else:
        copy_tree(source, target, shift=shift)


def list_tree(root: str) -> Tree:
    """The directories and names of a tree. Raises OSError."""
    folders: list[Folder] = []
    mounts: list[str] = []
    with Fd(os.open(root, LIST | os.O_CLOEXEC)) as top:
        pending = [""]
        while pending:
            path = pending.pop()
            try:
                here = openat2(top.number, path or ".", LIST, resolve=INSIDE | RESOLVE_NO_XDEV)
            except OSError as error:
                if error.errno == errno.EXDEV:
                    mounts.append(path)
                    folders.append(Folder(path, [], []))
                    continue
                raise OSError(error.errno, os.strerror(error.errno or 0), path) from error
            prefix = f"{path}/" if path else ""
            folder = Folder(path, [], [])
            folders.append(folder)
            below = []
            with here, os.scandir(here.number) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        below.append(prefix + entry.name)
                    elif entry.is_file(follow_symlinks=False):
                        folder.files.append(entry.name)
                    else:
                        folder.others.append(entry.name)
            pending.extend(reversed(below))
    return Tree(folders, mounts)


class _Copy:
    """One copy: directories first, then files in processes, then the files that have several names."""

    def __init__(self, source: str, target: str, tree: Tree, shift: Shift | None) -> None:
        self.tree = tree
        self.shift = shift
        os.makedirs(target, 0o700, exist_ok=True)
        self.source = Fd(os.open(source, LIST | os.O_CLOEXEC))
        self.target = Fd(os.open(target, LIST | os.O_CLOEXEC))
        # what a file would inherit from here is not the source's
        os.chmod(self.target.number, 0o700)
        attributes.clear(self.target.number)
        self.owner = (os.geteuid(), os.getegid())
        self.linked: list[tuple[int, str, str]] = []  # inode, directory, name

    def run(self, processes: int) -> None:
        with self.source, self.target:
            folders = self.tree.folders
            for folder in folders:
                if folder.path:
                    os.mkdir(folder.path, 0o700, dir_fd=self.target.number)
            # the fullest first, so that nobody is left with one at the end
            order = sorted(range(len(folders)), key=lambda at: -len(folders[at].files))
            found = workers.run(order, self._copy_folder, lambda: self.linked, processes)
            self._link([link for links in found for link in links])

    def _copy_folder(self, at: int) -> None:
        folder = self.tree.folders[at]
        path = folder.path or "."
        name = ""
        with (
            openat2(self.source.number, path, LIST, resolve=INSIDE) as source,
            openat2(self.target.number, path, LIST, resolve=INSIDE) as target,
        ):
            try:
                for name in folder.files:
                    self._copy_file(source.number, target.number, folder.path, name)
                for name in folder.others:
                    self._copy_other(source.number, target.number, folder.path, name)
            except OSError as error:
                place = os.path.join(folder.path, name)
                raise OSError(error.errno, error.strerror, place) from error
            self._finish(source.number, target.number)

    def _finish(self, source: int, target: int) -> None:
        """The directory's own attributes, when all it holds is there."""
        status = os.fstat(source)
        os.fchown(target, *self._owner(status))
        os.fchmod(target, stat.S_IMODE(status.st_mode))
        attributes.copy(source, target, self.shift)
        os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns))

    def _copy_file(self, source: int, target: int, folder: str, name: str, *, first: bool = False) -> None:
        """Copy a regular file; one with several names is noted, and copied at its `first` name when all are known."""
        try:
            reader = os.open(name, READ, dir_fd=source)
        except FileNotFoundError:
            return  # removed meanwhile
        try:
            status = os.fstat(reader)
            mode = status.st_mode
            if not stat.S_ISREG(mode):
                return  # replaced meanwhile
            if status.st_nlink > 1 and not first:
                self.linked.append((status.st_ino, folder, name))
                return
            writer = os.open(name, MAKE, mode & 0o777, dir_fd=target)
            try:
                copy_content(reader, writer, status)
                owner = self._owner(status)
                if owner != self.owner:
                    os.fchown(writer, *owner)
                if mode & SPECIAL:
                    # after the change of owner, which takes these bits away
                    os.fchmod(writer, stat.S_IMODE(mode))
                attributes.copy(reader, writer, self.shift)
                os.utime(writer, ns=(status.st_atime_ns, status.st_mtime_ns))
            finally:
                os.close(writer)
        finally:
            os.close(reader)

    def _copy_other(self, source: int, target: int, folder: str, name: str, *, first: bool = False) -> None:
        try:
            status = os.stat(name, dir_fd=source, follow_symlinks=False)
        except FileNotFoundError:
            return
        if status.st_nlink > 1 and not first:
            self.linked.append((status.st_ino, folder, name))
            return
        make_special(target, name, status, os.readlink(name, dir_fd=source) if stat.S_ISLNK(status.st_mode) else "")
        dress_special(target, name, status.st_mode, self._owner(status))
        attributes.copy_named(source, target, name, self.shift)
        os.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=target, follow_symlinks=False)

    def _owner(self, status: os.stat_result) -> tuple[int, int]:
        if self.shift is None:
            return status.st_uid, status.st_gid
        return self.shift.uid(status.st_uid), self.shift.gid(status.st_gid)

    def _link(self, linked: list[tuple[int, str, str]]) -> None:
        """Copy the files with several names once and give them the others; then their directories' times again."""
        copied: dict[int, str] = {}
        for inode, folder, name in sorted(linked):
            path = os.path.join(folder, name)
            first = copied.setdefault(inode, path)
            try:
                if first == path:
                    self._copy_first(folder, name)
                else:
                    top = self.target.number
                    os.link(first, path, src_dir_fd=top, dst_dir_fd=top, follow_symlinks=False)
            except OSError as error:
                raise OSError(error.errno, error.strerror, path) from error
        for folder in {folder for _, folder, _ in linked}:
            with self._open(self.source, folder) as source, self._open(self.target, folder) as target:
                self._finish(source.number, target.number)

    def _copy_first(self, folder: str, name: str) -> None:
        with self._open(self.source, folder) as source, self._open(self.target, folder) as target:
            regular = stat.S_ISREG(os.stat(name, dir_fd=source.number, follow_symlinks=False).st_mode)
            make = self._copy_file if regular else self._copy_other
            make(source.number, target.number, folder, name, first=True)

    def _open(self, top: Fd, folder: str) -> Fd:
        return openat2(top.number, folder or ".", LIST, resolve=INSIDE)


def make_special(directory: int, name: str, status: os.stat_result, link: str) -> None:
    """Make a link, device, socket or FIFO. Raises OSError."""
    if stat.S_ISLNK(status.st_mode):
        os.symlink(link, name, dir_fd=directory)
    else:
        mode = stat.S_IFMT(status.st_mode) | status.st_mode & 0o777
        os.mknod(name, mode, status.st_rdev, dir_fd=directory)


def dress_special(directory: int, name: str, mode: int, owner: tuple[int, int]) -> None:
    """Its owner and the mode bits that a change of owner takes away. Raises OSError."""
    os.chown(name, *owner, dir_fd=directory, follow_symlinks=False)
    if mode & SPECIAL and not stat.S_ISLNK(mode):
        os.chmod(name, stat.S_IMODE(mode), dir_fd=directory)


def copy_content(reader: int, writer: int, status: os.stat_result) -> None:
    """Copy what is in a regular file, with its holes. Raises OSError."""
    size = status.st_size
    if size <= _SMALL:
        # one read beyond the size: the file may have grown
        while data := os.read(reader, size + 1 if size else 4096):
            os.write(writer, data)
            if len(data) <= size:
                return
        return
    if status.st_blocks * 512 < size:
        _copy_sparse(reader, writer, size)
        return
    copy_range(reader, writer, size)


def copy_range(reader: int, writer: int, length: int) -> None:
    """Copy `length` bytes between the files' positions; less if the source ends. Raises OSError."""
    while length > 0:
        try:
            done = os.copy_file_range(reader, writer, length)
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise
            done = os.sendfile(writer, reader, None, length)  # another file system
        if not done:
            return
        length -= done


def _copy_sparse(reader: int, writer: int, size: int) -> None:
    at = 0
    while at < size:
        try:
            start = os.lseek(reader, at, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole
                break
            raise
        at = os.lseek(reader, start, os.SEEK_HOLE)
        os.lseek(reader, start, os.SEEK_SET)
        os.lseek(writer, start, os.SEEK_SET)
        copy_range(reader, writer, at - start)
    os.ftruncate(writer, size)
