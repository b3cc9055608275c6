"""The file that holds the process id of a container's init while it runs (lxcpy-start -p)."""

from __future__ import annotations

import os
from typing import Any

from lxcpy.errors import StateError, meaning


def write(path: str | None, pid: int) -> None:
    """Init's pid, without a newline, as LXC writes its monitor's: ours is nobody's monitor alone. Raises StateError."""
    if not path:
        return
    try:
        with open(path, "w") as file:
            file.write(str(pid))
    except OSError as error:
        raise StateError(f'cannot write the process id to "{path}": {meaning(error)}') from error


def remove(record: dict[str, Any]) -> None:
    """Remove what `write` left for a container; one that is another's by now stays."""
    path = record["options"].get("pidfile")
    if not path or not record.get("init"):
        return
    try:
        with open(path) as file:
            if file.read() == str(record["init"][0]):
                os.unlink(path)
    except OSError:
        pass
