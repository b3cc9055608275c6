"""The `partial` file: LXC's mark of a container that is being made. Its lock tells whether the maker still lives."""

from __future__ import annotations

import fcntl
import os

from lxcpy.errors import StateError, meaning


def path(lxcpath: str, name: str) -> str:
    """LXCPATH/NAME/partial."""
    return os.path.join(lxcpath, name, "partial")


def take(lxcpath: str, name: str) -> int:
    """Make and lock the mark; its descriptor, which holds the lock. Raises StateError, OSError."""
    mode = 0o600 if os.geteuid() else 0o000  # root needs no right to look at it
    mark = os.open(path(lxcpath, name), os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, mode)
    # a lock of the open file description, as LXC takes it: it ends with the last copy of the descriptor
    fcntl.lockf(mark, fcntl.LOCK_EX | fcntl.LOCK_NB) if not hasattr(fcntl, "F_OFD_SETLK") else _ofd_lock(mark)
    return mark


def _ofd_lock(mark: int) -> None:
    import struct

    # struct flock of fcntl(2): type, whence, start, length, pid
    fcntl.fcntl(mark, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))


def maker_lives(lxcpath: str, name: str) -> bool:
    """Is somebody making this container right now? Raises FileNotFoundError without a mark."""
    import struct

    mark = os.open(path(lxcpath, name), os.O_RDWR | os.O_CLOEXEC)
    try:
        question = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
        answer = fcntl.fcntl(mark, fcntl.F_OFD_GETLK, question)
        return int(struct.unpack("hhqqi4x", answer)[0]) != fcntl.F_UNLCK
    finally:
        os.close(mark)


def check(lxcpath: str, name: str) -> None:
    """Refuse a container whose making is under way or was cut short. Raises StateError."""
    try:
        lives = maker_lives(lxcpath, name)
    except FileNotFoundError:
        return
    except OSError as error:
        raise StateError(f"cannot read {path(lxcpath, name)}: {meaning(error)}") from error
    if lives:
        raise StateError(f'container "{name}" is being created', hint="wait until the command that does it is done")
    raise StateError(
        f'the creation of container "{name}" was cut short',
        hint=f"lxcpy-destroy -n {name} removes what is there; then create it again",
    )
