"""Takes, restores and deletes snapshots of a container: copies that keep its name and addresses (cli.md, 17)."""

from __future__ import annotations

import os
import shutil
import time

from lxcpy.errors import LxcpyError, StateError, UsageError
from lxcpy.runtime import copy, destroy, lookup, making, mapped, partial, pending, restore
from lxcpy.runtime.snapnames import folder, names, unfinished


@mapped.with_ids
def take(lxcpath: str, name: str, comment: str | None = None, config: str | None = None) -> str:
    """Take a snapshot of a stopped container; its name, the first free one of snap0, snap1 and so on.

    comment: a file that is kept with it. config: another config file of the container's. Raises LxcpyError.
    """
    if comment is not None and not os.access(comment, os.R_OK):
        raise UsageError(f'the comment "{comment}" cannot be read', hint="-c names a file")
    copy.settle(lxcpath, name)
    kind = copy.load_source(lxcpath, name, config).kind
    if lookup.state(lxcpath, name) != "STOPPED":
        raise StateError(f"{name} is running", hint=f"lxcpy-stop -n {name} stops it")
    path = folder(lxcpath, name)
    for one in unfinished(lxcpath, name):
        _clear(path, one)
    number = 0
    while True:
        while not _free(path, f"snap{number}"):
            number += 1
        made = f"snap{number}"
        try:
            copy.copy(
                copy.Request(
                    name, lxcpath, made, path, snapshot=kind != "dir", backing=kind,
                    keep_name=True, keep_macs=True, config=config, depends=False,
                    adapt=lambda directory, content: _dated(directory, content, comment),
                )
            )  # fmt: skip
            return made
        except making.Taken:
            number += 1  # another command was faster with this name
        finally:
            _remove_empty(path)


def _dated(directory: str, content: str, comment: str | None) -> str:
    """Give a snapshot its date and comment; its config stays. Raises OSError."""
    with open(os.path.join(directory, "ts"), "w") as file:
        file.write(time.strftime("%Y:%m:%d %H:%M:%S"))
    if comment is not None:
        shutil.copyfile(comment, os.path.join(directory, "comment"))
        shutil.copymode(comment, os.path.join(directory, "comment"))
    return content


@mapped.with_ids
def put_back(lxcpath: str, name: str, snapshot: str, new_name: str | None = None) -> None:
    """Make the container what it was, or a new container `new_name` of the snapshot. Raises LxcpyError."""
    pending.settle(lxcpath, name)
    path = folder(lxcpath, name)
    _check(lxcpath, name, snapshot)
    if new_name is None or new_name == name:
        restore.restore(lxcpath, name, path, snapshot)
        return
    kind = copy.load_source(path, snapshot).kind
    copy.copy(copy.Request(snapshot, path, new_name, lxcpath, snapshot=kind != "dir", backing=kind))


@mapped.with_ids
def delete(lxcpath: str, name: str, snapshot: str) -> None:
    """Delete a snapshot. Raises StateError where there is none, or something depends on it; LxcpyError."""
    pending.settle(lxcpath, name)
    _check(lxcpath, name, snapshot)
    destroy.destroy(folder(lxcpath, name), snapshot)


@mapped.with_ids
def delete_all(lxcpath: str, name: str) -> None:
    """Delete every snapshot that can be deleted. Raises the LxcpyError of the first that cannot."""
    pending.settle(lxcpath, name)
    path = folder(lxcpath, name)
    found = [*names(lxcpath, name), *unfinished(lxcpath, name)]
    if not found:
        raise StateError(f"{name} has no snapshots")
    failures = []
    for one in found:
        try:
            destroy.destroy(path, one)
        except LxcpyError as error:
            failures.append(error)
    for one in os.listdir(path):
        _remove_empty(os.path.join(path, one))
    _remove_empty(path)
    if failures:
        raise failures[0]


def _free(path: str, snapshot: str) -> bool:
    """Is the name free? An empty directory is of a command that was killed before it could leave its mark."""
    try:
        return not os.listdir(os.path.join(path, snapshot))
    except FileNotFoundError:
        return True
    except NotADirectoryError:
        return False


def _check(lxcpath: str, name: str, snapshot: str) -> None:
    there = names(lxcpath, name)
    if snapshot not in [*there, *unfinished(lxcpath, name)]:
        if not os.path.exists(lookup.config_path(lxcpath, name)):
            raise lookup.no_such(lxcpath, name)
        hint = f"there are {', '.join(there)}" if there else f"{name} has no snapshots"
        raise StateError(f'{name} has no snapshot "{snapshot}"', hint=hint)


def _clear(path: str, snapshot: str) -> None:
    """Remove a snapshot that was killed while it was made; one that is just being made stays."""
    try:
        if not partial.maker_lives(path, snapshot):
            destroy.destroy(path, snapshot)
    except FileNotFoundError:
        pass


def _remove_empty(path: str) -> None:
    try:
        os.rmdir(path)
    except OSError:
        pass  # others are in there, or it is gone
