"""Restores a snapshot in its container's place: made aside first, then put in place of what is there.

The new state is made in a directory of the container's own. When it is complete the mark of pending.py is written, and
from then on the container is the snapshot's: what was there is moved aside, what was made is moved in, the config last,
so that the container has a complete config at every moment. Each step may be done again after a kill.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from lxcpy import storage
from lxcpy.errors import StateError, StorageError, meaning
from lxcpy.log import Log
from lxcpy.runtime import clones, copy, copyfiles, destroy, lookup, making, pending
from lxcpy.storage import overlay
from lxcpy.storage.tree import remove_tree

LOG = Log("snapshot")


def restore(lxcpath: str, name: str, folder: str, snapshot: str) -> None:
    """Put the snapshot `snapshot` of `folder` in place of the container.

    Raises LxcpyError, and the container is as it was then.
    """
    directory = os.path.join(lxcpath, name)
    copy.settle(lxcpath, name)
    with copy.held(lxcpath, name, shared=False), copy.held(folder, snapshot), ExitStack() as undo:
        now, then = copy.load_source(lxcpath, name), copy.load_source(folder, snapshot)
        if not now.config.rootfs.managed:
            raise StateError(
                f"{name} has lxc.rootfs.managed = 0: its root filesystem is not ours to replace",
                hint="restore the snapshot under another name (-N)",
            )
        clones.check_none(directory, f"{name} cannot be restored in its place")
        _check_stopped(lxcpath, name)
        pairs = _make(directory, lxcpath, name, then, undo)
        destroy.run_hooks(now.config, lookup.config_path(lxcpath, name), name)
        rootfs = now.config.rootfs.path or ""
        task = {
            "do": "restore",
            "replace": _replaced(directory, now, then),
            "storage": "" if f"{directory}/" in rootfs.rpartition(":")[2] else f"{now.kind}:{now.path}",
            "left": [pair for pair in clones.originals(directory) if pair not in pairs],
        }
        _check_stopped(lxcpath, name)
        pending.note(directory, **task)
        undo.pop_all()
        finish(lxcpath, name, task)


def _check_stopped(lxcpath: str, name: str) -> None:
    if lookup.state(lxcpath, name) != "STOPPED":
        raise StateError(f"{name} is running", hint=f"lxcpy-stop -n {name} stops it")


def _make(directory: str, lxcpath: str, name: str, snapshot: copy.Source, undo: ExitStack) -> clones.Pairs:
    """Make the new state, its config as it will be in place; on whom it depends."""
    made = os.path.join(directory, pending.MADE)
    sweep(directory)
    pairs = clones.originals(snapshot.directory)
    try:
        os.mkdir(made, 0o770)
        undo.callback(making.attempt, remove_tree, made)
        clones.note_originals(made, pairs)
    except OSError as error:
        raise StorageError(f'cannot make "{made}": {meaning(error)}') from error
    known = clones.originals(directory)
    new = [pair for pair in pairs if pair not in known]
    undo.callback(making.attempt, clones.forget, new, lxcpath, name)
    clones.register(new, lxcpath, name)
    choice = copy.Choice(snapshot.kind, snapshot=snapshot.kind != "dir")
    copy.fill(copy.Build(snapshot, made, name, choice, host=name, new_macs=True, in_place=True), undo)
    copyfiles.retell(made, made, directory)
    return pairs


def _replaced(directory: str, now: copy.Source, then: copy.Source) -> list[str]:
    """What of the container's directory makes room, where it is there: its storage, and each file that is made anew.

    The rest is not of the snapshot, which could not bring it back: it stays. So do the lower directories of an overlay,
    which the snapshot shows as well.
    """
    storages = [os.path.join(directory, "rootfs"), os.path.join(directory, overlay.PRIVATE), now.path]
    if now.kind == "overlay":
        layers = overlay.parse(now.path)
        storages += [layers.upper, layers.work]
    shown = overlay.parse(then.path).lowers if then.kind == "overlay" else ()
    gone = {clones.ORIGINALS, *_entries(storages, directory)}
    made = os.path.join(directory, pending.MADE)
    for folder, folders, files in os.walk(made):
        inner = os.path.relpath(folder, made)
        if inner == ".":
            gone |= {"rootfs", overlay.PRIVATE} & set(folders)
            folders[:] = [entry for entry in folders if entry not in gone]
        gone |= {os.path.normpath(os.path.join(inner, entry)) for entry in files}
    return sorted(gone - {"config"} - _entries(shown, directory))


def _entries(paths: Sequence[str], directory: str) -> set[str]:
    """The entries of the directory that the paths lie in, as far as they do."""
    return {path[len(directory) + 1 :].split("/")[0] for path in paths if path.startswith(f"{directory}/")}


def finish(lxcpath: str, name: str, task: Mapping[str, Any]) -> None:
    """What is left to do once a restore is decided. Raises StorageError, and may be done again."""
    directory = os.path.join(lxcpath, name)
    made, arriving = os.path.join(directory, pending.MADE), os.path.join(directory, pending.ARRIVING)
    replaced = os.path.join(directory, pending.REPLACED)
    try:
        if os.path.isdir(made):
            os.makedirs(replaced, exist_ok=True)
            _move(directory, replaced, task["replace"])
            os.rename(made, arriving)
        if os.path.isdir(arriving):
            _move(arriving, directory, task["replace"])
            if os.path.exists(os.path.join(arriving, "config")):
                os.rename(os.path.join(arriving, "config"), os.path.join(directory, "config"))
        if task["storage"]:
            kind, source = storage.parse(task["storage"])
            storage.backend(kind).destroy(source)
        clones.forget([(path, original) for path, original in task["left"]], lxcpath, name)
        pending.done(directory)
    except OSError as error:
        raise StorageError(
            f'{name} is restored only in part: "{error.filename}": {meaning(error)}', hint="the next command goes on"
        ) from error
    sweep(directory)


def _move(source: str, target: str, entries: Sequence[str]) -> None:
    for entry in entries:
        try:
            if "/" in entry and os.path.lexists(os.path.join(source, entry)):
                os.makedirs(os.path.join(target, os.path.dirname(entry)), 0o755, exist_ok=True)
            os.rename(os.path.join(source, entry), os.path.join(target, entry))
        except FileNotFoundError:
            pass  # there is none, or it was moved before a kill


def sweep(directory: str) -> None:
    """Remove what restores have left that were never decided, or are done."""
    for entry in (pending.NEW, pending.MADE, pending.ARRIVING, pending.REPLACED):
        try:
            if entry == pending.NEW and os.path.exists(os.path.join(directory, entry)):
                os.unlink(os.path.join(directory, entry))
                continue
            remove_tree(os.path.join(directory, entry))
        except OSError as error:
            LOG.warn(f'"{error.filename or entry}" could not be removed: {meaning(error)}')
