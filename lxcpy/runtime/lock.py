"""Keeps two commands from changing one container's files at once: a lock on its directory, gone with its holder.

Who copies from a container shares it; who removes, renames or restores one holds it alone.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from lxcpy.errors import StateError
from lxcpy.kernel.fd import Fd


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
