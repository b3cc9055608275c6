"""Descriptors with one owner, and paths inside a root directory that cannot lead out of it.

A path inside a root filesystem is a pair (directory descriptor, relative name). Its content is hostile: every lookup
here is openat2(2) with RESOLVE_IN_ROOT, so that absolute links and `..` are read as chroot(2) would, and magic links of
procfs are refused.
"""

from __future__ import annotations

import ctypes
import os
import stat

from lxcpy.kernel import libc

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

_OPEN_FLAGS = {
    "O_WRONLY": os.O_WRONLY,
    "O_RDWR": os.O_RDWR,
    "O_CREAT": os.O_CREAT,
    "O_EXCL": os.O_EXCL,
    "O_TRUNC": os.O_TRUNC,
    "O_APPEND": os.O_APPEND,
    "O_NONBLOCK": os.O_NONBLOCK,
    "O_PATH": os.O_PATH,
    "O_DIRECTORY": os.O_DIRECTORY,
    "O_NOFOLLOW": os.O_NOFOLLOW,
    "O_CLOEXEC": os.O_CLOEXEC,
}
_RESOLVE_FLAGS = {
    "RESOLVE_NO_XDEV": RESOLVE_NO_XDEV,
    "RESOLVE_NO_MAGICLINKS": RESOLVE_NO_MAGICLINKS,
    "RESOLVE_NO_SYMLINKS": RESOLVE_NO_SYMLINKS,
    "RESOLVE_BENEATH": RESOLVE_BENEATH,
    "RESOLVE_IN_ROOT": RESOLVE_IN_ROOT,
}
_decode_open = libc.flags(_OPEN_FLAGS)
_decode_resolve = libc.flags(_RESOLVE_FLAGS)


class _OpenHow(ctypes.Structure):
    _fields_ = [("flags", libc.u64), ("mode", libc.u64), ("resolve", libc.u64)]


def _decode_how(how: _OpenHow) -> str:
    return f"{{{_decode_open(how.flags)}, {how.mode:#o}, {_decode_resolve(how.resolve)}}}"


_openat2 = libc.syscall(
    "openat2",
    (libc.int_, libc.directory),
    (libc.string, libc.text),
    (ctypes.POINTER(_OpenHow), _decode_how),
    (libc.ulong, libc.number),
)


class Fd:
    """A descriptor with one owner: closed once, by `close`, by leaving a `with`, or when nobody holds it any more.

    `steal` gives it up: the caller owns the number from then on.
    """

    __slots__ = ("_number",)

    def __init__(self, number: int) -> None:
        if number < 0:
            raise OSError(9, f"{number} is not a descriptor")
        self._number = number

    @property
    def number(self) -> int:
        """The descriptor. Raises OSError(EBADF) once closed or stolen, so that a stale number is never used."""
        if self._number < 0:
            raise OSError(9, "the descriptor is closed")
        return self._number

    def fileno(self) -> int:
        return self.number

    @property
    def closed(self) -> bool:
        return self._number < 0

    @property
    def path(self) -> str:
        """A name for calls that take a path only: the magic link to what is open."""
        return f"/proc/self/fd/{self.number}"

    def steal(self) -> int:
        number = self.number
        self._number = -1
        return number

    def close(self) -> None:
        number, self._number = self._number, -1
        if number >= 0:
            os.close(number)

    def __enter__(self) -> Fd:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        number, self._number = getattr(self, "_number", -1), -1
        if number >= 0:
            try:
                os.close(number)
            except OSError:
                pass  # the destructor has nobody to tell

    def __repr__(self) -> str:
        return f"Fd({self._number})"


def openat2(directory: int, path: str, flags: int, mode: int = 0, *, resolve: int = 0) -> Fd:
    """openat2(2), O_CLOEXEC added. Raises OSError."""
    how = _OpenHow(flags | os.O_CLOEXEC, mode if flags & (os.O_CREAT | os.O_TMPFILE & ~os.O_DIRECTORY) else 0, resolve)
    name = libc.encode(path)
    for _ in range(64):
        try:
            return Fd(_openat2(directory, name, how, ctypes.sizeof(how)))
        except (BlockingIOError, InterruptedError):
            # EAGAIN: a rename or mount anywhere raced with a lookup through `..` (openat2(2)); it asks for a retry.
            continue
    return Fd(_openat2(directory, name, how, ctypes.sizeof(how)))


def open_in_root(root: int, path: str, flags: int, mode: int = 0) -> Fd:
    """Open `path` as seen by a process whose root directory is `root`.

    The last component is followed unless O_NOFOLLOW. An empty path, `/` and `.` are the root itself.
    Raises OSError; ELOOP for a magic link of procfs.
    """
    return openat2(root, path or ".", flags, mode, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS)


def _split(path: str) -> tuple[str, str]:
    """(parent, last name); refuses names that cannot be made or removed."""
    parent, _, name = path.rstrip("/").rpartition("/")
    if name in ("", ".", ".."):
        raise OSError(22, f'"{path}" does not end in a name')
    return parent, name


def _open_parent(root: int, path: str) -> tuple[Fd, str]:
    parent, name = _split(path)
    return open_in_root(root, parent, os.O_PATH | os.O_DIRECTORY), name


def make_dirs_in_root(root: int, path: str, mode: int = 0o755) -> Fd:
    """Make the directory `path` and its parents inside `root`; an O_PATH descriptor of the last.

    Links are followed inside the root, also those that point at nothing yet (dev/shm → /run/shm): their target is made.
    New directories get exactly `mode`. Raises OSError.
    """
    return _make_dirs(root, path, mode, 0)


def _make_dirs(root: int, path: str, mode: int, depth: int) -> Fd:
    try:
        return open_in_root(root, path, os.O_PATH | os.O_DIRECTORY)
    except FileNotFoundError:
        pass
    here = open_in_root(root, "", os.O_PATH | os.O_DIRECTORY)
    done = ""
    for name in path.split("/"):
        if name in ("", "."):
            continue
        done = f"{done}/{name}"
        try:
            below = open_in_root(root, done, os.O_PATH | os.O_DIRECTORY)
        except FileNotFoundError:
            below = _make_one(root, here.number, done, mode, depth)
        here.close()
        here = below
    return here


def _make_one(root: int, parent: int, path: str, mode: int, depth: int) -> Fd:
    """The directory `path`, whose last name is missing in `parent`, or is a link to something missing."""
    name = path.rpartition("/")[2]
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        target = _link_target(parent, name)
        if target is None:
            return open_in_root(root, path, os.O_PATH | os.O_DIRECTORY)  # somebody else made it in between
        if depth >= 40:
            raise libc.failure(40, f"mkdir({libc.text(path)})") from None
        above = "" if target.startswith("/") else path.rpartition("/")[0]
        return _make_dirs(root, f"{above}/{target}", mode, depth + 1)
    made = open_in_root(root, path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
    os.chmod(made.path, mode)  # mkdir's mode is cut by the umask
    return made


def _link_target(parent: int, name: str) -> str | None:
    try:
        return os.readlink(name, dir_fd=parent)
    except OSError:
        return None


def make_file_in_root(root: int, path: str, mode: int = 0o644) -> Fd:
    """Make the file `path` (empty) and its parents inside `root` if it is missing; an O_PATH descriptor of it.

    What is there already, of any kind, is left as it is. Raises OSError.
    """
    try:
        return open_in_root(root, path, os.O_PATH)
    except FileNotFoundError:
        pass
    parent, _ = _split(path)
    make_dirs_in_root(root, parent).close()
    try:
        open_in_root(root, path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK, mode).close()
    except FileNotFoundError:  # a link whose target's directory is missing
        above, name = _open_parent(root, path)
        with above:
            target = _link_target(above.number, name)
        if target is None:
            raise
        place = target if target.startswith("/") else f"{parent}/{target}"
        make_dirs_in_root(root, _split(place)[0]).close()
        open_in_root(root, path, os.O_WRONLY | os.O_CREAT | os.O_NONBLOCK, mode).close()
    return open_in_root(root, path, os.O_PATH)


def read_in_root(root: int, path: str, limit: int = 1 << 20) -> bytes:
    """The content of a regular file inside `root`. Raises OSError; EFBIG if it is longer than `limit` bytes."""
    # O_NONBLOCK: a FIFO put there by the container must not hang us.
    with open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY) as file:
        if not stat.S_ISREG(os.fstat(file.number).st_mode):
            raise OSError(22, f'"{path}" is not a regular file')
        parts, left = [], limit + 1
        while left and (part := os.read(file.number, min(left, 1 << 16))):
            parts.append(part)
            left -= len(part)
        if not left:
            raise libc.failure(27, f'read("{path}", at most {limit} bytes)')
        return b"".join(parts)


def write_in_root(root: int, path: str, data: bytes, mode: int = 0o644) -> None:
    """Put a file with this content at `path` inside `root`, atomically; a link or file there is replaced.

    The parent must exist. Raises OSError.
    """
    parent, name = _open_parent(root, path)
    with parent:
        temporary = f".{name[:200]}.{os.getpid()}-{os.urandom(4).hex()}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with Fd(os.open(temporary, flags, 0o600, dir_fd=parent.number)) as file:
            try:
                write_all(file.number, data)
                os.fchmod(file.number, mode)
                os.rename(temporary, name, src_dir_fd=parent.number, dst_dir_fd=parent.number)
            except BaseException:
                os.unlink(temporary, dir_fd=parent.number)
                raise


def write_all(file: int, data: bytes) -> None:
    """write(2) until everything is written. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def unlink_in_root(root: int, path: str) -> None:
    """Remove the file or link `path` inside `root`. Raises OSError; FileNotFoundError if it is not there."""
    parent, name = _open_parent(root, path)
    with parent:
        os.unlink(name, dir_fd=parent.number)


def symlink_in_root(root: int, path: str, target: str) -> None:
    """Make the link `path` inside `root`; its parent must exist. Raises OSError; EEXIST if something is there."""
    parent, name = _open_parent(root, path)
    with parent:
        os.symlink(target, name, dir_fd=parent.number)


def exists_in_root(root: int, path: str) -> bool:
    """Whether something is at `path` inside `root`, a dangling link included. Raises OSError for what is neither."""
    try:
        open_in_root(root, path, os.O_PATH | os.O_NOFOLLOW).close()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True
