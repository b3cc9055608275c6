"""The mark of a container that is being renamed or restored, which a kill does not leave half done.

Both are a point from which on they are decided, and steps behind it that may be done again. The mark says which, as
JSON; who finds it without its lock (lock.py) does what is left to do. Real LXC knows nothing of it, and must not: it
destroys what carries a `partial` whose maker is gone.
"""

from __future__ import annotations

import os
from typing import Any

from lxcpy.errors import StateError, StorageError, meaning
from lxcpy.runtime import lock

MARK = ".lxcpy-pending"
NEW = f"{MARK}.new"
MADE, ARRIVING, REPLACED = ".lxcpy-restored", ".lxcpy-arriving", ".lxcpy-replaced"  # restore.py


def note(directory: str, **task: Any) -> None:
    """Write the mark: from now on `task` is done, by whoever. The caller holds the lock. Raises StorageError."""
    import json

    path = os.path.join(directory, MARK)
    try:
        with open(os.path.join(directory, NEW), "w") as file:
            json.dump(task, file)
        os.rename(os.path.join(directory, NEW), path)
    except OSError as error:
        _remove(os.path.join(directory, NEW))
        raise StorageError(f'cannot write "{path}": {meaning(error)}') from error


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def done(directory: str) -> None:
    """Nothing is left to do."""
    os.unlink(os.path.join(directory, MARK))


def left(directory: str) -> bool:
    """Is there anything that a killed command did not finish, or that one does just now?"""
    return any(os.path.lexists(os.path.join(directory, name)) for name in (MARK, NEW, MADE, ARRIVING, REPLACED))


def settle(lxcpath: str, name: str) -> None:
    """Finish what a killed rename or restore began. Raises StateError while one is under way, LxcpyError."""
    directory = os.path.join(lxcpath, name)
    if not left(directory):
        return
    from lxcpy.runtime import mapped

    mapped.with_ids(_settle)(lxcpath, name)


def _settle(lxcpath: str, name: str) -> None:
    try:
        with lock.hold(os.path.join(lxcpath, name)):
            finish(lxcpath, name)
    except FileNotFoundError:
        pass  # renamed meanwhile


def finish(lxcpath: str, name: str) -> None:
    """As `settle`, for who holds the lock."""
    from lxcpy.runtime import rename, restore

    directory = os.path.join(lxcpath, name)
    task = _task(directory)
    if task is None:
        restore.sweep(directory)
    elif task["do"] == "rename":
        rename.finish(lxcpath, name, task)
    elif task["do"] == "restore":
        restore.finish(lxcpath, name, task)
    else:
        raise StateError(f'"{directory}/{MARK}" asks for "{task["do"]}", which this lxcpy does not know')


def _task(directory: str) -> dict[str, Any] | None:
    import json

    try:
        with open(os.path.join(directory, MARK)) as file:
            task: dict[str, Any] = json.load(file)
            return task
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise StateError(f'"{directory}/{MARK}" cannot be understood: {error}') from error
