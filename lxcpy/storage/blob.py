"""A packed tree: one file with every content one after the other and an index, from which a tree is made fast.

    MAGIC | contents … | index (marshal) | FOOTER

Twice as fast as copying a tree: nothing has to be looked up in the source, and its bytes are read in order. The file is
trusted like the tree it was made from; it belongs in a directory that only root can write to.

It is not forced to the disk when it is made, which would take longer than making it. The footer names the boot it was
made in instead: after a crash in that boot it counts as stale. `settle` forces it and says so in the footer.
"""

from __future__ import annotations

import errno
import hashlib
import marshal
import mmap
import os
import stat
import struct
import time
import zlib
from typing import Any

from lxcpy.errors import StorageError
from lxcpy.kernel.fd import Fd, openat2
from lxcpy.storage import attributes, workers
from lxcpy.storage.base import Shift
from lxcpy.storage.copy import (
    INSIDE,
    LIST,
    MAKE,
    READ,
    SPECIAL,
    Folder,
    copy_range,
    dress_special,
    failed,
    list_tree,
)  # fmt: skip

MAGIC = b"lxcpyB1\n"
FOOTER = struct.Struct("<QQI16s8s")  # index offset, index length, CRC of the index, boot id or zeros, MAGIC
SETTLED = bytes(16)
_SETTLES = 60.0  # seconds after which the kernel has written most of it by itself
_VERSION = 1
_PIECE = 4 << 20  # bytes

# In the index, which marshal reads as tuples:
# folder: (path, mode, uid, gid, mtime, attributes, files, specials)
# file:   (name, mode, uid, gid, mtime, size, offset, extents or None, attributes)
# extent: (position in the file, length, offset in the blob)
# special: (name, mode, uid, gid, mtime, device, link text, attributes)
Attributes = tuple[tuple[str, bytes], ...]


def pack(tree: str, path: str, *, processes: int | None = None) -> None:
    """Write the packed form of the directory `tree` to the file `path`, in one step at the end.

    What is mounted in the tree is left out. Raises StorageError.
    """
    temporary = f"{path}.{os.getpid()}.new"
    try:
        try:
            _Pack(tree, temporary).run(processes or workers.count())
            os.rename(temporary, path)
        except BaseException:
            _unlink(temporary)
            raise
    except OSError as error:
        raise failed(f'cannot pack "{tree}" to "{path}"', error) from error


def unpack(path: str, target: str, *, shift: Shift | None = None, processes: int | None = None) -> None:
    """Make the directory `target`, which may exist if it is empty, from a packed tree.

    What is half made stays for the caller to remove. Raises StorageError; `usable` tells beforehand whether the file
    itself would be the reason.
    """
    mask = os.umask(0)
    try:
        with Fd(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as file:
            index, _ = _read(file.number, path)
            _Unpack(file.number, index, target, shift).run(processes or workers.count())
        settle(path, once_older=_SETTLES)
    except OSError as error:
        raise failed(f'cannot make "{target}" from "{path}"', error) from error
    finally:
        os.umask(mask)


def usable(path: str) -> bool:
    """Whether `path` is a packed tree that is whole."""
    try:
        with Fd(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as file:
            _read(file.number, path)
    except (OSError, StorageError):
        return False
    return True


def fingerprint(path: str) -> str:
    """The SHA256 of what was packed, as hexadecimal; `settle` does not change it. Raises OSError."""
    state = hashlib.sha256()
    with Fd(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as file:
        left = max(os.fstat(file.number).st_size - FOOTER.size, 0)
        while left and (data := os.read(file.number, min(left, _PIECE))):
            state.update(data)
            left -= len(data)
    return state.hexdigest()


def settle(path: str, *, once_older: float = 0.0) -> None:
    """Force a packed tree to the disk, so that it outlives a crash; not yet if it is younger than `once_older` seconds.

    Raises nothing: a cache that cannot be written to is still one that can be read.
    """
    try:
        with Fd(os.open(path, os.O_RDWR | os.O_CLOEXEC)) as file:
            status = os.fstat(file.number)
            footer = os.pread(file.number, FOOTER.size, status.st_size - FOOTER.size)
            offset, length, check, boot, magic = FOOTER.unpack(footer)
            if magic == MAGIC and boot == _boot_id() and time.time() - status.st_mtime >= once_older:
                os.fdatasync(file.number)
                settled = FOOTER.pack(offset, length, check, SETTLED, MAGIC)
                os.pwrite(file.number, settled, status.st_size - FOOTER.size)
    except (OSError, struct.error):
        pass


def _boot_id() -> bytes:
    with open("/proc/sys/kernel/random/boot_id") as file:
        return bytes.fromhex(file.read().strip().replace("-", ""))


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _read(file: int, path: str) -> tuple[dict[str, Any], bytes]:
    """(index, boot id). Raises StorageError for a file that is not ours, was cut short or went through a crash."""
    size = os.fstat(file).st_size
    try:
        if size < len(MAGIC) + FOOTER.size or os.pread(file, len(MAGIC), 0) != MAGIC:
            raise ValueError("it is not a packed tree")
        offset, length, check, boot, magic = FOOTER.unpack(os.pread(file, FOOTER.size, size - FOOTER.size))
        if magic != MAGIC or offset + length + FOOTER.size != size:
            raise ValueError("it was cut short")
        if boot not in (SETTLED, _boot_id()):
            raise ValueError("the machine went down before it was on the disk")
        text = os.pread(file, length, offset)
        if zlib.crc32(text) != check:
            raise ValueError("its index is damaged")
        index = marshal.loads(text)
        if index["version"] != _VERSION:
            raise ValueError("another version made it")
    except ValueError as error:
        raise StorageError(f'"{path}" cannot be used: {error}', hint="remove it; it will be made again") from error
    return index, boot


def _attributes(file: int | str) -> Attributes:
    try:
        names = os.listxattr(file, follow_symlinks=isinstance(file, int))
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return ()
        raise
    return tuple((name, os.getxattr(file, name, follow_symlinks=isinstance(file, int))) for name in names)


class _Pack:
    """Statuses first, by which every content has its place; then contents, in processes."""

    def __init__(self, tree: str, path: str) -> None:
        self.tree = tree
        self.blob = Fd(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600))
        self.folders: list[list[Any]] = []
        self.links: list[tuple[str, str]] = []
        self.first: dict[int, str] = {}
        self.end = len(MAGIC)

    def run(self, processes: int) -> None:
        listed = list_tree(self.tree)
        with self.blob, Fd(os.open(self.tree, LIST | os.O_CLOEXEC)) as self.top:
            os.pwrite(self.blob.number, MAGIC, 0)
            for folder in listed.folders:
                self._note(folder)
            os.ftruncate(self.blob.number, self.end)
            workers.run(range(len(self.folders)), self._fill, lambda: None, processes)
            text = marshal.dumps({"version": _VERSION, "folders": self.folders, "links": self.links}, 4)
            footer = FOOTER.pack(self.end, len(text), zlib.crc32(text), _boot_id(), MAGIC)
            os.lseek(self.blob.number, self.end, os.SEEK_SET)
            with open(self.blob.number, "wb", closefd=False) as stream:
                stream.write(text + footer)

    def _note(self, folder: Folder) -> None:
        with openat2(self.top.number, folder.path or ".", LIST, resolve=INSIDE) as here:
            number = here.number
            status = os.fstat(number)
            files: list[Any] = []
            specials: list[Any] = []
            mode = stat.S_IMODE(status.st_mode)
            owner = (status.st_uid, status.st_gid)
            self.folders.append([folder.path, mode, *owner, status.st_mtime_ns, _attributes(number), files, specials])
            prefix = f"{folder.path}/" if folder.path else ""
            for name in folder.files:
                self._note_file(number, prefix, name, files)
            for name in folder.others:
                self._note_special(number, prefix, name, specials)

    def _is_further(self, status: os.stat_result, path: str) -> bool:
        if status.st_nlink == 1:
            return False
        first = self.first.setdefault(status.st_ino, path)
        if first == path:
            return False
        self.links.append((path, first))
        return True

    def _note_file(self, directory: int, prefix: str, name: str, files: list[Any]) -> None:
        with Fd(os.open(name, READ, dir_fd=directory)) as file:
            status = os.fstat(file.number)
            if not stat.S_ISREG(status.st_mode) or self._is_further(status, prefix + name):
                return
            size = status.st_size
            extents = None
            offset = self.end
            if size and status.st_blocks * 512 < size:
                extents = self._extents(file.number, size)
            else:
                self.end += size
            mode = stat.S_IMODE(status.st_mode)
            files.append(
                (name, mode, status.st_uid, status.st_gid, status.st_mtime_ns, size, offset, extents,
                 _attributes(file.number))
            )  # fmt: skip

    def _extents(self, file: int, size: int) -> tuple[tuple[int, int, int], ...]:
        found = []
        at = 0
        while at < size:
            try:
                start = os.lseek(file, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:  # nothing but a hole
                    break
                raise
            at = os.lseek(file, start, os.SEEK_HOLE)
            found.append((start, at - start, self.end))
            self.end += at - start
        return tuple(found)

    def _note_special(self, directory: int, prefix: str, name: str, specials: list[Any]) -> None:
        status = os.stat(name, dir_fd=directory, follow_symlinks=False)
        if self._is_further(status, prefix + name):
            return
        link = os.readlink(name, dir_fd=directory) if stat.S_ISLNK(status.st_mode) else ""
        specials.append(
            (name, status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, status.st_rdev, link,
             _attributes(f"/proc/self/fd/{directory}/{name}"))
        )  # fmt: skip

    def _fill(self, at: int) -> None:
        """Copy the contents of one folder's files to their places."""
        path, files = self.folders[at][0], self.folders[at][6]
        # a description of its own: processes share the position of an inherited one
        with (
            Fd(os.open(self.blob.path, os.O_WRONLY | os.O_CLOEXEC)) as blob,
            openat2(self.top.number, path or ".", LIST, resolve=INSIDE) as here,
        ):
            for name, _, _, _, _, size, offset, extents, _ in files:
                if not size:
                    continue
                with Fd(os.open(name, READ, dir_fd=here.number)) as file:
                    for start, length, place in extents if extents is not None else ((0, size, offset),):
                        os.lseek(file.number, start, os.SEEK_SET)
                        os.lseek(blob.number, place, os.SEEK_SET)
                        copy_range(file.number, blob.number, length)


class _Unpack:
    """Directories first, then files in processes, then further names and the directories whose times those change."""

    def __init__(self, file: int, index: dict[str, Any], target: str, shift: Shift | None) -> None:
        self.folders = index["folders"]
        self.links = index["links"]
        self.shift = shift
        self.blob = mmap.mmap(file, 0, prot=mmap.PROT_READ)
        self.content = memoryview(self.blob)
        os.makedirs(target, 0o700, exist_ok=True)
        self.target = Fd(os.open(target, LIST | os.O_CLOEXEC))
        os.chmod(self.target.number, 0o700)
        attributes.clear(self.target.number)
        self.owner = (os.geteuid(), os.getegid())

    def run(self, processes: int) -> None:
        with self.target, self.blob, self.content:
            for folder in self.folders:
                if folder[0]:
                    os.mkdir(folder[0], 0o700, dir_fd=self.target.number)
            order = sorted(range(len(self.folders)), key=lambda at: -len(self.folders[at][6]))
            workers.run(order, self._fill, lambda: None, processes)
            self._link()

    def _fill(self, at: int) -> None:
        path, _, _, _, _, _, files, specials = self.folders[at]
        name = ""
        with openat2(self.target.number, path or ".", LIST, resolve=INSIDE) as here:
            try:
                for file in files:
                    name = file[0]
                    self._make_file(here.number, *file)
                for special in specials:
                    name = special[0]
                    self._make_special(here.number, *special)
            except OSError as error:
                raise OSError(error.errno, error.strerror, os.path.join(path, name)) from error
            self._finish(here.number, self.folders[at])

    def _make_file(
        self, here: int, name: str, mode: int, uid: int, gid: int, mtime: int, size: int, offset: int,
        extents: tuple[tuple[int, int, int], ...] | None, xattrs: Attributes,
    ) -> None:  # fmt: skip
        file = os.open(name, MAKE, mode & 0o777, dir_fd=here)
        try:
            if extents is not None:
                for start, length, place in extents:
                    os.lseek(file, start, os.SEEK_SET)
                    self._write(file, place, length)
                os.ftruncate(file, size)
            elif size:
                self._write(file, offset, size)
            owner = self._owner(uid, gid)
            if owner != self.owner:
                os.fchown(file, *owner)
            if mode & SPECIAL:
                os.fchmod(file, mode)
            if xattrs:
                attributes.put(file, xattrs, self.shift)
            os.utime(file, ns=(mtime, mtime))
        finally:
            os.close(file)

    def _write(self, file: int, offset: int, length: int) -> None:
        end = offset + length
        while offset < end:
            offset += os.write(file, self.content[offset:end])

    def _make_special(
        self, here: int, name: str, mode: int, uid: int, gid: int, mtime: int, device: int, link: str,
        xattrs: Attributes,
    ) -> None:  # fmt: skip
        if stat.S_ISLNK(mode):
            os.symlink(link, name, dir_fd=here)
        else:
            os.mknod(name, stat.S_IFMT(mode) | mode & 0o777, device, dir_fd=here)
        owner = self._owner(uid, gid)
        if owner != self.owner or mode & SPECIAL:
            dress_special(here, name, mode, owner)
        if xattrs:
            attributes.put(f"/proc/self/fd/{here}/{name}", xattrs, self.shift, follow=False)
        os.utime(name, ns=(mtime, mtime), dir_fd=here, follow_symlinks=False)

    def _owner(self, uid: int, gid: int) -> tuple[int, int]:
        return (uid, gid) if self.shift is None else (self.shift.uid(uid), self.shift.gid(gid))

    def _finish(self, here: int, folder: Any) -> None:
        _, mode, uid, gid, mtime, xattrs, _, _ = folder
        os.fchown(here, *self._owner(uid, gid))  # always: the target itself may have been there, with another owner
        os.fchmod(here, mode)
        if xattrs:
            attributes.put(here, xattrs, self.shift)
        os.utime(here, ns=(mtime, mtime))

    def _link(self) -> None:
        top = self.target.number
        spoiled = set()
        for path, first in self.links:
            try:
                os.link(first, path, src_dir_fd=top, dst_dir_fd=top, follow_symlinks=False)
            except OSError as error:
                raise OSError(error.errno, error.strerror, path) from error
            spoiled.add(os.path.dirname(path))
        for folder in self.folders:
            if folder[0] in spoiled:
                with openat2(top, folder[0] or ".", LIST, resolve=INSIDE) as here:
                    self._finish(here.number, folder)
