"""What lxcpy-net has made: a file in the run directory, and the lock under which it changes."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from lxcpy import paths
from lxcpy.errors import NetworkError, meaning


def path() -> str:
    """The state file."""
    return os.path.join(paths.run_dir(), "network.json")


@contextmanager
def lock() -> Iterator[None]:
    """One start or stop at a time. Raises NetworkError where the run directory cannot be written."""
    try:
        os.makedirs(paths.run_dir(), mode=0o755, exist_ok=True)
        fd = os.open(f"{path()}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        hint = "run it as root" if os.geteuid() else None
        raise NetworkError(f'cannot write in "{paths.run_dir()}": {meaning(error)}', hint=hint) from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def load() -> dict[str, Any] | None:
    """{"bridge", "undo": entries in the order made}; None if nothing is made. An unreadable file counts as nothing."""
    try:
        with open(path()) as file:
            value = json.load(file)
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) and isinstance(value.get("undo"), list) else None


def save(value: dict[str, Any] | None) -> None:
    """Write it whole or not at all; None removes the file. Raises OSError."""
    if value is None:
        try:
            os.unlink(path())
        except FileNotFoundError:
            pass
        return
    temporary = f"{path()}.new"
    with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644), "w") as file:
        json.dump(value, file, indent=1)
    os.rename(temporary, path())
