"""Renames a container: its directory in one step, then what in it tells its name (lxc-copy -R, cli.md, 8)."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from lxcpy import storage
from lxcpy.config import load as config_load
from lxcpy.config.file import save_text
from lxcpy.config.lines import read
from lxcpy.config.model import Config
from lxcpy.errors import StateError, StorageError, meaning
from lxcpy.log import Log
from lxcpy.runtime import (
    clones,
    copy,
    copyconfig,
    copyfiles,
    copynames,
    destroy,
    lookup,
    making,
    mapped,
    pending,
    snapnames,
)
from lxcpy.runtime.state import forget_restart

LOG = Log("copy")


@mapped.with_ids
def rename(lxcpath: str, name: str, new_name: str, arguments: Sequence[str] = (), *, keep_name: bool = False) -> None:
    """Give container `name` another name. Raises LxcpyError, and it has the old one then.

    arguments: of the clone hooks, which run as for a copy; the destroy hooks run before, with the old name.
    keep_name: whether its host name stays.
    """
    copy.settle(lxcpath, name)
    destroy.clear_leftover(lxcpath, new_name)
    old, new = os.path.join(lxcpath, name), os.path.join(lxcpath, new_name)
    with copy.held(lxcpath, name, shared=False), _target(new) as undo:
        source = copy.load_source(lxcpath, name)
        _check(source)
        destroy.run_hooks(source.config, lookup.config_path(lxcpath, name), name)
        pending.note(old, do="rename", old=name, new=new_name, keep_name=keep_name)
        undo.callback(making.attempt, pending.done, old)
        forget_restart(lxcpath, name)
        before = set(os.listdir(old))
        _move(old, new)
        undo.callback(making.attempt, _undo, old, new, source.content, before)
        config = _tell(lxcpath, name, new_name, keep_name=keep_name)
        names = _names(source.config, name, new_name, keep_name=keep_name)
        copynames.introduce(config, lookup.config_path(lxcpath, new_name), names, arguments)
        undo.pop_all()
        pending.done(new)


def finish(lxcpath: str, name: str, task: Mapping[str, Any]) -> None:
    """What a killed rename left undone; its hooks are not run again."""
    if name == task["new"]:
        LOG.warn(f'the renaming of "{task["old"]}" to "{name}" was cut short, and is finished now')
        keep_name = bool(task.get("keep_name"))
        copyfiles.retell(*(os.path.join(lxcpath, one) for one in (name, task["old"], name)))
        before = config_load.load(lookup.config_path(lxcpath, name))
        config = _tell(lxcpath, task["old"], name, keep_name=keep_name)
        names = _names(before, task["old"], name, keep_name=keep_name)
        copynames.introduce(config, lookup.config_path(lxcpath, name), names, hooked=False)
    pending.done(os.path.join(lxcpath, name))


@contextmanager
def _target(new: str) -> Iterator[ExitStack]:
    """Have the new name to oneself: nobody begins to make a container of it. Raises Taken, StorageError."""
    with ExitStack() as locks, ExitStack() as undo:
        try:
            locks.enter_context(making.own(new))
        except OSError as error:
            raise StorageError(f'cannot make "{new}": {meaning(error)}') from error
        making.check_free(new, empty=True)
        undo.callback(making.attempt, _remove_empty, new)
        yield undo


def _remove_empty(directory: str) -> None:
    if os.path.isdir(directory):
        os.rmdir(directory)


def _check(source: copy.Source) -> None:
    """Raises StateError for a container that cannot be renamed, in LXC's opinion."""
    name = source.name
    if lookup.state(source.lxcpath, name) != "STOPPED":
        raise StateError(f"{name} is running", hint=f"lxcpy-stop -n {name} stops it")
    if snapnames.names(source.lxcpath, name):
        raise StateError(
            f"{name} has snapshots and cannot be renamed", hint=f"lxcpy-snapshot -n {name} -d ALL deletes them"
        )
    clones.check_none(source.directory, f"{name} cannot be renamed")
    if source.kind == "overlay":
        raise StateError(
            f"{name} is a snapshot clone and cannot be renamed", hint="copy it (-s, or -B dir), then destroy it"
        )


def _names(config: Config, old: str, new: str, *, keep_name: bool) -> copynames.Names:
    called = dict.fromkeys((old, config.uts.name or old))
    host = None if keep_name else new
    return copynames.Names(new, old, host, tuple(word for word in called if word != new))


def _move(old: str, new: str) -> None:
    try:
        os.rename(old, new)  # onto the empty directory that we hold
    except OSError as error:
        raise StorageError(f'cannot rename "{old}" to "{new}": {meaning(error)}') from error


def _tell(lxcpath: str, old_name: str, new_name: str, *, keep_name: bool) -> Config:
    """Write the new name into the config and what it names. May be done again."""
    old, new = os.path.join(lxcpath, old_name), os.path.join(lxcpath, new_name)
    config_file = lookup.config_path(lxcpath, new_name)
    copyfiles.retell(new, old, new)
    config = config_load.load(config_file)
    kind, path = storage.parse(config.rootfs.path or "")
    name = None if keep_name else new_name
    change = copyconfig.Change(new, new, f"{kind}:{path}", name, fstab=config.mount.fstab or "")
    content, files = copyconfig.rewrite(read(config_file), change)
    copyfiles.copy_files([file for file in files if not os.path.exists(file.target)], config, change)
    try:
        save_text(config_file, content)
    except OSError as error:
        raise StorageError(f'cannot write "{config_file}": {meaning(error)}') from error
    return config_load.load(config_file)


def _undo(old: str, new: str, content: str, before: set[str]) -> None:
    os.rename(new, old)
    for entry in set(os.listdir(old)) - before:  # an fstab from elsewhere
        os.unlink(os.path.join(old, entry))
    copyfiles.retell(old, new, old)
    save_text(os.path.join(old, "config"), content)
