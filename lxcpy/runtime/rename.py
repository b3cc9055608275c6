"""Renames a container: its directory in one step, then what in it tells its name (lxc-copy -R, cli.md, 8)."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from lxcpy import storage
from lxcpy.config import load as config_load
from lxcpy.config.file import save_text
from lxcpy.config.lines import read
from lxcpy.config.model import Config
from lxcpy.errors import StateError, StorageError, meaning
from lxcpy.log import Log
from lxcpy.runtime import clones, copy, copyconfig, copynames, destroy, lookup, pending, snapnames

LOG = Log("copy")


def rename(lxcpath: str, name: str, new_name: str, arguments: Sequence[str] = ()) -> None:
    """Give container `name` another name. Raises LxcpyError, and it has the old one then.

    arguments: of the clone hooks, which run as for a copy; the destroy hooks run before, with the old name, as in LXC.
    """
    copy.check_root()
    source = copy.load_source(lxcpath, name)
    _check(source)
    destroy.clear_leftover(lxcpath, new_name)
    old, new = source.directory, os.path.join(lxcpath, new_name)
    with copy.held(lxcpath, name, shared=False), ExitStack() as undo:
        if lookup.state(lxcpath, name) != "STOPPED":
            raise StateError(f"{name} is running", hint=f"lxcpy-stop -n {name} stops it")
        destroy.run_hooks(source.config, lookup.config_path(lxcpath, name), name)
        pending.note(old, do="rename", old=name, new=new_name)
        undo.callback(copy.attempt, pending.done, old)
        _move(old, new)
        undo.callback(copy.attempt, _undo, old, new, source.content)
        config = _tell(lxcpath, name, new_name)
        names = _names(source.config, name, new_name)
        copynames.introduce(config, lookup.config_path(lxcpath, new_name), names, arguments)
        undo.pop_all()
        pending.done(new)


def finish(lxcpath: str, name: str, task: Mapping[str, str]) -> None:
    """What a killed rename left undone; its hooks are not run again."""
    if name == task["new"]:
        LOG.warn(f'the renaming of "{task["old"]}" to "{name}" was cut short, and is finished now')
        before = config_load.load(lookup.config_path(lxcpath, name))
        config = _tell(lxcpath, task["old"], name)
        names = _names(before, task["old"], name)
        copynames.introduce(config, lookup.config_path(lxcpath, name), names, hooked=False)
    pending.done(os.path.join(lxcpath, name))


def _check(source: copy.Source) -> None:
    """Raises StateError for a container that cannot be renamed, in LXC's opinion."""
    name = source.name
    if snapnames.names(source.lxcpath, name):
        raise StateError(
            f"{name} has snapshots and cannot be renamed", hint=f"lxcpy-snapshot -n {name} -d ALL deletes them"
        )
    clones.check_none(source.directory, f"{name} cannot be renamed")
    if source.kind == "overlay":
        raise StateError(
            f"{name} is a snapshot clone and cannot be renamed", hint="copy it (-s, or -B dir), then destroy it"
        )


def _names(config: Config, old: str, new: str) -> copynames.Names:
    called = dict.fromkeys((old, config.uts.name or old))
    return copynames.Names(new, old, new, tuple(word for word in called if word != new))


def _move(old: str, new: str) -> None:
    try:
        os.rename(old, new)  # onto an empty directory at most
    except OSError as error:
        hint = None
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            hint = "it is not a container, and not empty: move it away"
        raise StorageError(f'cannot rename "{old}" to "{new}": {meaning(error)}', hint=hint) from error


def _tell(lxcpath: str, old_name: str, new_name: str) -> Config:
    """Write the new name into the config. May be done again."""
    old, new = os.path.join(lxcpath, old_name), os.path.join(lxcpath, new_name)
    config_file = lookup.config_path(lxcpath, new_name)
    config = config_load.load(config_file)
    kind, path = storage.parse(moved(config.rootfs.path or "", old, new))
    change = copyconfig.Change(old, new, f"{kind}:{path}", new_name, fstab=config.mount.fstab or "")
    content, files = copyconfig.rewrite(read(config_file), change)
    missing = [file for file in files if not os.path.exists(file.target)]
    copy.copy_files([file for file in missing if not copyconfig.inside(file.source, old)], config)
    try:
        save_text(config_file, content)
    except OSError as error:
        raise StorageError(f'cannot write "{config_file}": {meaning(error)}') from error
    return config_load.load(config_file)


def moved(rootfs: str, old: str, new: str) -> str:
    """An lxc.rootfs.path whose last directory lies in `new` instead of `old`, if it does."""
    at = rootfs.rfind(f"{old}/")
    if at < 0 or (at and rootfs[at - 1] != ":"):
        return rootfs
    return rootfs[:at] + new + rootfs[at + len(old) :]


def _undo(old: str, new: str, content: str) -> None:
    os.rename(new, old)
    save_text(os.path.join(old, "config"), content)
