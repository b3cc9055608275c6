"""Removes a container for good: destroy hooks, storage, directory."""

from __future__ import annotations

import os

from lxcpy import storage
from lxcpy.config import load as config_load
from lxcpy.config.model import Config
from lxcpy.errors import ConfigError, LxcpyError, StateError, StorageError, meaning
from lxcpy.runtime import hooks, lookup, partial
from lxcpy.storage.tree import remove_tree


def destroy(lxcpath: str, name: str, *, snapshots: bool = False, running: bool = False) -> None:
    """Remove container `name`.

    snapshots: its snapshots too; without, a container that has some is refused, as LXC does.
    running:   the caller knows that it does not run, though its state may still say so.
    Raises StateError, HookError (a destroy hook forbade it), StorageError.
    """
    directory = os.path.join(lxcpath, name)
    config_file = lookup.config_path(lxcpath, name)
    unfinished = _unfinished(lxcpath, name)
    if not os.path.exists(config_file) and not unfinished:
        raise lookup.no_such(lxcpath, name)
    if not running and lookup.state(lxcpath, name) != "STOPPED":
        raise StateError(f"{name} is running", hint=f"lxcpy-stop -n {name} stops it, lxcpy-destroy -f kills it first")
    if not unfinished:
        _check_dependents(directory, name, snapshots)
    config = _config(config_file, unfinished)
    if config is not None:
        environment = hooks.base_environment(config, name=name, config_file=config_file, caller=dict(os.environ))
        hooks.run_all(config, "destroy", environment)
        _forget_in_source(directory, lxcpath, name)
        if config.rootfs.path and config.rootfs.managed:
            kind, source = storage.parse(config.rootfs.path)
            storage.backend(kind).destroy(source)
    _remove_directory(directory, keep_rootfs=config is not None and not config.rootfs.managed)


def _unfinished(lxcpath: str, name: str) -> bool:
    """Was its creation cut short? Raises StateError while it is still being made."""
    try:
        lives = partial.maker_lives(lxcpath, name)
    except FileNotFoundError:
        return False
    if lives:
        raise StateError(f'container "{name}" is being created', hint="end lxcpy-create, it cleans up")
    return True


def _config(config_file: str, unfinished: bool) -> Config | None:
    try:
        return config_load.load(config_file)
    except ConfigError:
        if unfinished:
            return None
        raise


def _check_dependents(directory: str, name: str, snapshots: bool) -> None:
    snaps = os.path.join(directory, "snaps")
    if not snapshots and os.path.isdir(snaps) and os.listdir(snaps):
        raise StateError(
            f"Destroying {name} failed: {name} has snapshots.", hint="lxcpy-destroy -s removes them along with it"
        )
    clones = dependents(directory)
    if clones:
        listed = ", ".join(clone for _path, clone in clones)
        raise StateError(f"{name} has clones that depend on it: {listed}", hint="destroy those first")


def dependents(directory: str) -> list[tuple[str, str]]:
    """(lxcpath, name) of the snapshot clones of a container, from its lxc_snapshots file."""
    try:
        with open(os.path.join(directory, "lxc_snapshots"), encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return []
    pairs = list(zip(lines[::2], lines[1::2], strict=False))
    return [(path, clone) for path, clone in pairs if os.path.isdir(os.path.join(path, clone))]


def _forget_in_source(directory: str, lxcpath: str, name: str) -> None:
    """Take this clone out of the lxc_snapshots of whom it was made from (its lxc_rdepends)."""
    try:
        with open(os.path.join(directory, "lxc_rdepends"), encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return
    for source_path, source in zip(lines[::2], lines[1::2], strict=False):
        forget_dependent(os.path.join(source_path, source), lxcpath, name)


def forget_dependent(directory: str, lxcpath: str, name: str) -> None:
    """Take the clone (lxcpath, name) out of a container's lxc_snapshots."""
    path = os.path.join(directory, "lxc_snapshots")
    left = [pair for pair in dependents(directory) if pair != (lxcpath, name)]
    if left:
        temporary = f"{path}.{os.getpid()}.new"
        with open(temporary, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write("".join(f"{source_path}\n{source}\n" for source_path, source in left))
        os.rename(temporary, path)
    elif os.path.exists(path):
        os.unlink(path)


def _remove_directory(directory: str, *, keep_rootfs: bool) -> None:
    try:
        if keep_rootfs:
            for entry in os.listdir(directory):
                if entry != "rootfs":
                    _remove(os.path.join(directory, entry))
            if not os.listdir(directory):
                os.rmdir(directory)
            return
        # the config goes last: what is left by a kill in between is still a container that can be destroyed
        for entry in sorted(os.listdir(directory), key=lambda entry: entry == "config"):
            _remove(os.path.join(directory, entry))
        os.rmdir(directory)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise StorageError(f'cannot remove "{error.filename or directory}": {meaning(error)}') from error


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        remove_tree(path)
    else:
        os.unlink(path)


__all__ = ["LxcpyError", "dependents", "destroy", "forget_dependent"]
