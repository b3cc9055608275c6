"""Removes a container for good: destroy hooks, storage, directory; with its snapshots and clones where asked for."""

from __future__ import annotations

import os

from lxcpy import storage
from lxcpy.config import load as config_load
from lxcpy.config.model import Config
from lxcpy.errors import ConfigError, StateError, StorageError, meaning
from lxcpy.runtime import clones, hooks, lock, lookup, making, mapped, partial, pending, snapnames, state
from lxcpy.storage.tree import remove_tree


@mapped.with_ids
def destroy(lxcpath: str, name: str, *, running: bool = False) -> None:
    """Remove container `name`. Refused while it has snapshots, or clones that depend on it.

    running: the caller knows that it does not run, though its state may still say so.
    Raises StateError, HookError (a destroy hook forbade it), StorageError.
    """
    directory = os.path.join(lxcpath, name)
    pending.settle(lxcpath, name)
    if not _unfinished(lxcpath, name) and not os.path.exists(lookup.config_path(lxcpath, name)):
        raise lookup.no_such(lxcpath, name)
    if not running:
        _check_stopped(lxcpath, name)
    try:
        with lock.hold(directory, wait=running):
            # what was true before the lock was had need not be true now
            if not running:
                _check_stopped(lxcpath, name)
            _destroy(lxcpath, name, _unfinished(lxcpath, name))
    except FileNotFoundError:
        pass  # another was faster


@mapped.with_ids
def destroy_all(lxcpath: str, name: str) -> None:
    """Remove container `name` with its snapshots and all clones that depend on it or on those.

    Nothing is removed unless all of them are stopped. Raises as `destroy`.
    """
    doomed = family(lxcpath, name)
    for path, one in doomed:
        _check_stopped(path, one)
    for path, one in doomed:
        destroy(path, one)


def family(lxcpath: str, name: str) -> list[tuple[str, str]]:
    """(lxcpath, name) of a container, its snapshots and what depends on them, each after what depends on it."""
    found: dict[tuple[str, str], None] = {}
    _visit((lxcpath, name), found, [])
    return list(found)


def _visit(pair: tuple[str, str], found: dict[tuple[str, str], None], above: list[tuple[str, str]]) -> None:
    if pair in found or pair in above:
        return
    lxcpath, name = pair
    path = snapnames.folder(lxcpath, name)
    below = [(path, one) for one in [*snapnames.names(lxcpath, name), *snapnames.unfinished(lxcpath, name)]]
    for other in [*clones.dependents(os.path.join(lxcpath, name)), *below]:
        _visit(other, found, [*above, pair])
    found[pair] = None


def run_hooks(config: Config, config_file: str, name: str) -> None:
    """Run the destroy hooks. Raises HookError: one of them forbids it."""
    environment = hooks.base_environment(config, name=name, config_file=config_file, caller=dict(os.environ))
    hooks.run_all(config, "destroy", environment)


def clear_leftover(lxcpath: str, name: str) -> None:
    """Refuse a name that is taken; remove what a killed command left of a container. Raises Taken."""
    directory = os.path.join(lxcpath, name)
    if not os.path.lexists(directory):
        return
    pending.settle(lxcpath, name)
    try:
        if partial.maker_lives(lxcpath, name):
            raise making.Taken(f'container "{name}" is being created by another command', hint="wait until it is done")
        destroy(lxcpath, name)
    except FileNotFoundError:
        if os.path.exists(os.path.join(directory, "config")):
            raise making.taken(directory) from None


def _destroy(lxcpath: str, name: str, unfinished: bool) -> None:
    """As `destroy`, for who holds the lock."""
    directory = os.path.join(lxcpath, name)
    config_file = lookup.config_path(lxcpath, name)
    if not unfinished:
        _check_dependents(lxcpath, name)
    config = _config(config_file, unfinished)
    if config is not None:
        run_hooks(config, config_file, name)
        if config.rootfs.path and config.rootfs.managed:
            kind, source = storage.parse(config.rootfs.path)
            storage.backend(kind).destroy(source)
    state.forget_restart(lxcpath, name)
    pairs = clones.originals(directory)
    _remove_directory(directory, keep_rootfs=config is not None and not config.rootfs.managed)
    clones.forget(pairs, lxcpath, name)  # last: what is left after a kill still holds its originals


def _check_stopped(lxcpath: str, name: str) -> None:
    if lookup.state(lxcpath, name) != "STOPPED":
        raise StateError(f"{name} is running", hint=f"lxcpy-stop -n {name} stops it, lxcpy-destroy -f kills it first")


def _unfinished(lxcpath: str, name: str) -> bool:
    """Was its creation cut short? Raises StateError while it is still being made."""
    try:
        lives = partial.maker_lives(lxcpath, name)
    except FileNotFoundError:
        return False
    if lives:
        raise StateError(f'container "{name}" is being created', hint="end the command that does it: it cleans up")
    return True


def _config(config_file: str, unfinished: bool) -> Config | None:
    try:
        return config_load.load(config_file)
    except ConfigError:
        if unfinished:
            return None
        raise


def _check_dependents(lxcpath: str, name: str) -> None:
    if snapnames.names(lxcpath, name):
        raise StateError(
            f"Destroying {name} failed: {name} has snapshots.", hint="lxcpy-destroy -s removes them along with it"
        )
    clones.check_none(os.path.join(lxcpath, name), f"Destroying {name} failed")


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
