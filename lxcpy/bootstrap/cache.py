"""The cache of files that a hash names: packages and indices of all templates, releases and mirrors in one place.

    DIR/objects/ab/abcdef…     a whole file, named by its SHA256
    DIR/objects/partial/…      a file that is arriving, locked by who fetches it; kept for the next try if that one dies
    DIR/releases/…             the last signed release file of each suite of each mirror, and its date (kept.py)
    DIR/plans/…                solved package lists, named by what went into them
    DIR/rootfs/…               finished root filesystems (rootfscache.py)
    DIR/images/…               the newest build of each image of image servers (imagecache.py)
    DIR/oci/ALGORITHM/…        blobs of OCI images that skopeo fetched, named by their digests (oci.py)
    DIR/logs/…                 logs of failed bootstraps

Whoever uses an object checks its hash again: a cache that went bad costs a second download, never a bad system. An
object's mtime is the time of its last use. inventory.py lists, checks and thins all this.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import threading
from collections.abc import Sequence

from lxcpy.bootstrap import download
from lxcpy.bootstrap.download import CHUNK, Expected, Mirrors
from lxcpy.errors import BootstrapError, meaning

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
FULL = (errno.ENOSPC, errno.EDQUOT)
DRAFT = ".new"  # the end of a small file's name while it is written


class Store:
    """The cache directory; made if it is missing. Raises BootstrapError if it cannot be."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        try:
            for part in ("objects/partial", "releases", "plans", "rootfs", "logs"):
                os.makedirs(f"{directory}/{part}", 0o755, exist_ok=True)
            _spread(f"{directory}/rootfs")
        except OSError as error:
            raise failed(error, directory) from error

    def place(self, sha256: str) -> str:
        """The path of an object, there or not."""
        return f"{self.directory}/objects/{sha256[:2]}/{sha256}"

    def holds(self, expected: Expected) -> bool:
        """Whether an object of that name and size is there; its content is for the user to check."""
        try:
            status = os.lstat(self.place(expected.sha256))
        except OSError:
            return False
        return status.st_size == expected.size

    def read(self, expected: Expected) -> bytes | None:
        """The checked content of an object; None if there is none. A bad one is removed."""
        try:
            file = os.open(self.place(expected.sha256), _READ)
        except OSError:
            return None
        with open(file, "rb") as stream:
            data = stream.read()
        if len(data) == expected.size and hashlib.sha256(data).hexdigest() == expected.sha256:
            return data
        self.discard(expected.sha256)
        return None

    def discard(self, sha256: str) -> None:
        """Remove an object that turned out bad."""
        try:
            os.unlink(self.place(sha256))
        except FileNotFoundError:
            pass

    def fetch(self, mirrors: Mirrors, paths: Sequence[str], expected: Expected, progress: download.Sink) -> bool:
        """See that an object is there, from a mirror if need be; True if it had to be fetched.

        progress: told of each piece that arrives; it may raise Broken, and what came is dropped.
        Any number of processes may want the same one: the first fetches, the others wait for it. Raises BootstrapError.
        """
        if self._used(expected):
            return False
        name = f"{self.directory}/objects/partial/{expected.sha256}"
        try:
            file = open_locked(name)
            try:
                if self._used(expected):
                    _remove(name)
                    return False
                _receive(file, mirrors, paths, expected, progress)
                os.fchmod(file, 0o644)
                os.makedirs(os.path.dirname(self.place(expected.sha256)), 0o755, exist_ok=True)
                os.rename(name, self.place(expected.sha256))
                return True
            finally:
                os.close(file)
        except OSError as error:
            if error.errno in FULL:
                _remove(name)  # somebody needs the space
            raise failed(error, self.directory) from error

    def _used(self, expected: Expected) -> bool:
        """`holds`, noted as a use."""
        if not self.holds(expected):
            return False
        try:
            os.utime(self.place(expected.sha256))
        except OSError:
            pass  # just removed, which is found out soon; or a cache that can only be read
        return True

    def write(self, path: str, data: bytes) -> None:
        """Put a small file under the cache's directory, whole or not at all. Raises BootstrapError."""
        target = f"{self.directory}/{path}"
        draft = f"{target}.{os.getpid()}-{threading.get_ident()}{DRAFT}"
        try:
            with open(draft, "wb") as stream:
                stream.write(data)
            os.rename(draft, target)
        except OSError as error:
            _remove(draft)
            raise failed(error, self.directory) from error

    def read_small(self, path: str) -> bytes | None:
        """A small file under the cache's directory, unchecked; None if there is none."""
        try:
            with open(f"{self.directory}/{path}", "rb") as stream:
                return stream.read()
        except OSError:
            return None


def _receive(
    file: int, mirrors: Mirrors, paths: Sequence[str], expected: Expected, progress: download.Sink
) -> None:
    """Fetch into an open file, going on after what an earlier try left in it. Raises BootstrapError, OSError."""
    state = hashlib.sha256()
    done = 0
    while done < expected.size and (data := os.pread(file, CHUNK, done)):
        state.update(data)
        done += len(data)

    def drop() -> None:
        nonlocal state, done
        state, done = hashlib.sha256(), 0
        os.ftruncate(file, 0)

    def sink(offset: int, data: bytes) -> None:
        nonlocal done
        if offset != done:
            drop()
        try:
            progress(done, data)
        except download.Broken:
            drop()
            raise
        state.update(data)
        while data:
            written = os.pwrite(file, data, done)
            done += written
            data = data[written:]

    def check() -> None:
        try:
            download.verify(paths[-1], done, state.hexdigest(), expected)
        except download.Broken:
            drop()
            raise

    if done >= expected.size:  # whole already, or nonsense
        try:
            check()
            return
        except download.Broken:
            pass
    mirrors.fetch(paths, expected.size, sink, lambda: done, check)


def open_locked(name: str, how: int = fcntl.LOCK_EX) -> int:
    """A descriptor of the file `name`, which exists and is locked for us when it returns.

    Raises OSError; BlockingIOError if LOCK_NB is in `how` and somebody else holds it.
    """
    while True:
        file = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(file, how)
            # The one before us may have moved it to its place, or removed it.
            if os.path.lexists(name) and os.path.samestat(os.fstat(file), os.lstat(name)):
                return file
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(file)
            raise
        os.close(file)


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def failed(error: OSError, directory: str) -> BootstrapError:
    """The error for a cache that cannot be used."""
    if error.errno in FULL:
        return download.full_disk(error, directory)
    return BootstrapError(
        f'cannot use the cache "{directory}": {meaning(error)}', hint="run as root, or set LXCPY_CACHE_DIR"
    )


_FS_IOC_GETFLAGS, _FS_IOC_SETFLAGS, _FS_TOPDIR_FL = 0x80086601, 0x40086602, 0x20000


def _spread(directory: str) -> None:
    """Let ext4 put each entry of a directory into a block group of its own.

    Otherwise a tree made soon after another was removed meets inodes that ext4 keeps back for up to five minutes
    (recently_deleted) and scans past them one by one: seconds instead of tenths.
    """
    file = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        flags = bytearray(8)
        fcntl.ioctl(file, _FS_IOC_GETFLAGS, flags)
        value = int.from_bytes(flags[:4], "little") | _FS_TOPDIR_FL
        fcntl.ioctl(file, _FS_IOC_SETFLAGS, value.to_bytes(8, "little"))
    except OSError:
        pass  # another file system: nothing to gain
    finally:
        os.close(file)
