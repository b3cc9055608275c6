"""Keeps two commands from changing one container's files at once: a lock on its directory, gone with its holder.

Who copies from a container shares it; who removes, renames or restores one holds it alone.
"""

from __future__ import annotations

import fcntl
import os
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager

from lxcpy import paths
from lxcpy.errors import StateError
from lxcpy.kernel.fd import Fd

PATIENCE = 10.0  # seconds for which a command of LXC may hold its lock


@contextmanager
def hold(directory: str, *, shared: bool = False, wait: bool = False) -> Iterator[None]:
    """Hold the lock of a container's directory. Raises StateError where another command has it, FileNotFoundError."""
    with Fd(_locked(directory, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, wait)):
        yield


def free(directory: str) -> bool:
    """Does nobody hold the lock? Raises FileNotFoundError."""
    try:
        with hold(directory):
            return True
    except StateError:
        return False


def check(directory: str) -> None:
    """Raises StateError where another command changes the container at this moment, or removes it."""
    try:
        with hold(directory, shared=True):
            pass
    except FileNotFoundError:
        pass


@contextmanager
def lxc(directory: str) -> Iterator[None]:
    """Hold LXC's own lock of a container (runtime.md, G3), which it takes for the files that say who depends on whom.

    Only for a moment: every lxc-* command waits for it. Raises OSError, StateError where one of those keeps it.
    """
    path = f"{paths.lxc_locks()}{os.path.dirname(directory)}/.{os.path.basename(directory)}"
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NOCTTY | os.O_CLOEXEC
    with Fd(os.open(path, flags, 0o600)) as file:
        deadline = time.monotonic() + PATIENCE
        while not _record_lock(file.number):
            if time.monotonic() > deadline:
                raise StateError(f'a command of LXC holds its lock "{path}"', hint="fuser -v tells which one")
            time.sleep(0.02)
        yield


def _record_lock(fd: int) -> bool:
    """Lock an open file description, as LXC does, unless it is locked already."""
    try:
        # struct flock of fcntl(2): type, whence, start, length, pid
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    except BlockingIOError:
        return False
    return True


def _locked(directory: str, kind: int, wait: bool) -> int:
    while True:
        fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(fd, kind if wait else kind | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(fd), os.stat(directory)):
                return fd
        except BlockingIOError:
            os.close(fd)
            raise StateError(
                f'container "{os.path.basename(directory)}" is in use by another command',
                hint="wait until it is copied, restored, renamed or removed",
            ) from None
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)  # renamed between the two calls
