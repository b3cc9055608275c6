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
from lxcpy.config import load as config_load
from lxcpy.config.file import save_text
from lxcpy.config.lines import read
from lxcpy.errors import StateError, StorageError, meaning
from lxcpy.log import Log
from lxcpy.runtime import clones, copy, copyconfig, destroy, lookup, pending, rename
from lxcpy.storage.tree import remove_tree

LOG = Log("snapshot")
OWN = (
    "snaps",
    pending.MARK,
    pending.NEW,
    pending.MADE,
    pending.ARRIVING,
    pending.REPLACED,
)  # what a restored container keeps


def restore(lxcpath: str, name: str, snapshot: copy.Source) -> None:
    """Put the snapshot in place of the container. Raises LxcpyError, and the container is as it was then."""
    directory = os.path.join(lxcpath, name)
    now = copy.load_source(lxcpath, name)
    if not now.config.rootfs.managed:
        raise StateError(
            f"{name} has lxc.rootfs.managed = 0: its root filesystem is not ours to replace",
            hint="restore the snapshot under another name (-N)",
        )
    clones.check_none(directory, f"{name} cannot be restored in its place")
    with copy.held(lxcpath, name, shared=False), copy.held(snapshot.lxcpath, snapshot.name), ExitStack() as undo:
        _check_stopped(lxcpath, name)
        pairs = _make(directory, lxcpath, name, snapshot, undo)
        destroy.run_hooks(now.config, lookup.config_path(lxcpath, name), name)
        rootfs = now.config.rootfs.path or ""
        task = {
            "do": "restore",
            "keep": _kept(directory, snapshot),
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
        undo.callback(copy.attempt, remove_tree, made)
        clones.note_originals(made, pairs)
    except OSError as error:
        raise StorageError(f'cannot make "{made}": {meaning(error)}') from error
    known = clones.originals(directory)
    new = [pair for pair in pairs if pair not in known]
    undo.callback(copy.attempt, clones.forget, new, lxcpath, name)
    clones.register(new, lxcpath, name)
    choice = copy.Choice(snapshot.kind, snapshot=snapshot.kind != "dir")
    config = copy.fill(copy.Build(snapshot, made, name, choice, host=name, new_macs=True), undo)
    config_file = os.path.join(made, "config")
    rootfs = rename.moved(config.rootfs.path or "", made, directory)
    change = copyconfig.Change(made, directory, rootfs, name, fstab=config.mount.fstab or "")
    content, _files = copyconfig.rewrite(read(config_file), change)
    try:
        save_text(config_file, content)
    except OSError as error:
        raise StorageError(f'cannot write "{config_file}": {meaning(error)}') from error
    config_load.load_text(content, config_file)
    return pairs


def _kept(directory: str, snapshot: copy.Source) -> list[str]:
    """Entries of the container's directory that the snapshot's lower directories lie in: they stay as they are."""
    kept = []
    for path in snapshot.path.split(":")[:-1]:
        if path.startswith(f"{directory}/"):
            kept.append(path[len(directory) + 1 :].split("/")[0])
    return kept


def finish(lxcpath: str, name: str, task: Mapping[str, Any]) -> None:
    """What is left to do once a restore is decided. Raises StorageError, and may be done again."""
    directory = os.path.join(lxcpath, name)
    made, arriving = os.path.join(directory, pending.MADE), os.path.join(directory, pending.ARRIVING)
    replaced = os.path.join(directory, pending.REPLACED)
    keep = {*OWN, *task["keep"]}
    try:
        if os.path.isdir(made):
            os.makedirs(replaced, exist_ok=True)
            _move_all(directory, replaced, keep | {"config"})
            os.rename(made, arriving)
        if os.path.isdir(arriving):
            _move_all(arriving, directory, keep | {"config"})
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


def _move_all(source: str, target: str, but: Sequence[str] | set[str]) -> None:
    for entry in os.listdir(source):
        if entry not in but:
            os.rename(os.path.join(source, entry), os.path.join(target, entry))


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
