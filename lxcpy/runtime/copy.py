"""Copies a container: directory, config, storage, clone hooks; all of it or nothing (lxc-copy, cli.md, 8).

The mark `partial` stands, locked, while the copy is made, so that a killed one is known for what it is: the next
command of that name clears it away. The original is held meanwhile; nobody removes it under the copy's feet.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from lxcpy import storage
from lxcpy.config import load as config_load
from lxcpy.config import text
from lxcpy.config.file import save_text
from lxcpy.config.lines import read
from lxcpy.config.model import Config
from lxcpy.errors import StateError, StorageError, UsageError, meaning
from lxcpy.log import Log
from lxcpy.runtime import (
    clones,
    copyconfig,
    copyfiles,
    copynames,
    destroy,
    ids,
    lock,
    lookup,
    making,
    mapped,
    partial,
    pending,
)
from lxcpy.storage.base import Shift
from lxcpy.storage.tree import mounts_in

LOG = Log("copy")
SNAPSHOT_OF = {"dir": "overlay"}  # what a snapshot clone becomes where the original's own type cannot make one


class Request(NamedTuple):
    """What lxcpy-copy was asked for."""

    name: str
    lxcpath: str
    new_name: str
    new_lxcpath: str
    snapshot: bool = False
    allow_running: bool = False
    backing: str | None = None
    keep_name: bool = False
    keep_macs: bool = False
    arguments: Sequence[str] = ()  # of the clone hooks
    config: str | None = None  # another config file of the original
    depends: bool = True  # whether a snapshot clone depends on the original itself, not only on what that depends on
    # called with the copy's directory and the text of its config when all else is done: its last word on the text
    adapt: Callable[[str, str], str] | None = None


class Source(NamedTuple):
    """A container that is copied."""

    lxcpath: str
    name: str
    content: str  # of its config file
    config: Config
    kind: str  # of its storage
    path: str  # lxc.rootfs.path without the type

    @property
    def directory(self) -> str:
        return os.path.join(self.lxcpath, self.name)


class Choice(NamedTuple):
    """What storage a copy has."""

    kind: str
    snapshot: bool


class Build(NamedTuple):
    """One copy to be made."""

    source: Source
    directory: str  # where it is made
    name: str
    choice: Choice
    host: str | None = None  # its new host name; None: the original's
    new_macs: bool = False
    arguments: Sequence[str] = ()
    in_place: bool = False  # it takes the place of a container of its name, which lives on if that fails


@mapped.with_ids
def copy(request: Request) -> None:
    """Make the copy. Raises making.Taken where another has the name, LxcpyError; nothing is left behind."""
    settle(request.lxcpath, request.name)
    with held(request.lxcpath, request.name, needed=request.config is None):
        source = load_source(request.lxcpath, request.name, request.config)
        same_path = os.path.realpath(request.new_lxcpath) == os.path.realpath(request.lxcpath)
        choice = choose(source.kind, same_path=same_path, snapshot=request.snapshot, backing=request.backing)
        check_options(source.config, choice)
        if not request.allow_running and lookup.state(source.lxcpath, source.name) != "STOPPED":
            raise StateError(f"{source.name} is running", hint="stop it, or copy it as it is with -a (--allowrunning)")
        destroy.clear_leftover(request.new_lxcpath, request.new_name)
        uids, gids = ids.ranges(source.config)
        owner = ids.root(uids, gids) if uids else None
        with making.made(request.new_lxcpath, request.new_name, owner=owner) as undo:
            directory = os.path.join(request.new_lxcpath, request.new_name)
            pairs = originals(source, choice, depends=request.depends)
            note(directory, pairs, request.new_lxcpath, request.new_name, undo)
            build = Build(
                source,
                directory,
                request.new_name,
                choice,
                host=None if request.keep_name else request.new_name,
                new_macs=not request.keep_macs,
                arguments=request.arguments,
            )
            fill(build, undo)
            if request.adapt is not None:
                _adapt(request.adapt, directory)


def settle(lxcpath: str, name: str) -> None:
    """Finish what a killed command left of a change. Raises StateError where one made only half of the container."""
    if os.path.isdir(os.path.join(lxcpath, name)):
        pending.settle(lxcpath, name)
        partial.check(lxcpath, name)


def load_source(lxcpath: str, name: str, config_file: str | None = None) -> Source:
    """What is known of a container that is to be copied, and is held. Raises StateError, ConfigErrors, StorageError."""
    path = config_file or lookup.config_path(lxcpath, name)
    if not os.path.exists(path):
        if config_file:
            raise StateError(f'the config file "{config_file}" does not exist', hint="--rcfile names it")
        raise lookup.no_such(lxcpath, name)
    config = config_load.load(path)
    if not config.rootfs.path:
        raise StorageError(f"{name} has no lxc.rootfs.path: there is nothing to copy")
    kind, source = storage.parse(config.rootfs.path)
    return Source(lxcpath, name, read(path), config, _plain(kind), source)


def mounted_in(source: Source) -> list[str]:
    """What the host has mounted below a root filesystem that is a directory: a full copy leaves it out."""
    if source.kind != "dir":
        return []
    rootfs = os.path.realpath(source.path)
    return [place for place in mounts_in(rootfs) if place != rootfs]


def choose(kind: str, *, same_path: bool, snapshot: bool, backing: str | None = None) -> Choice:
    """The storage of a copy of a container on storage `kind`. Raises StorageError, UsageError.

    same_path: whether the copy is in the original's lxcpath; a full copy elsewhere is a directory.
    """
    if backing is None:
        backing = SNAPSHOT_OF.get(kind, kind) if snapshot else kind if same_path else "dir"
    backing = _plain(backing)
    if backing not in storage.KNOWN:
        known = ", ".join(storage.KNOWN)
        raise UsageError(f'"{backing}" is not a valid backing storage type.', hint=f"one of {known}")
    storage.backend(backing)
    if backing == "overlay" and not snapshot:
        raise StorageError(
            "an overlay shows another container's files: it can only be a snapshot clone",
            hint="-s makes one; -B dir makes a full copy",
        )
    if backing == "dir" and snapshot:
        raise StorageError("a directory cannot be a snapshot clone", hint="-B overlay, or leave out -B")
    if snapshot and backing != kind and SNAPSHOT_OF.get(kind) != backing:
        raise StorageError(f'storage of type {kind} cannot have a snapshot clone of type "{backing}"')
    return Choice(backing, snapshot)


def check_options(config: Config, choice: Choice) -> None:
    """Raises StorageError where the copy's storage could not be mounted as lxc.rootfs.options says."""
    words = (config.rootfs.options or "").split(",")
    if choice.kind != "dir" and any(word.startswith("idmap=") for word in words):
        raise StorageError(
            f"lxc.rootfs.options: idmap= works with storage of type dir only, not {choice.kind}",
            at=config.at("lxc.rootfs.options"),
            hint="make a full copy, without -s",
        )


def originals(source: Source, choice: Choice, *, depends: bool = True) -> clones.Pairs:
    """Whom a copy depends on: what its original depends on, and the original."""
    if not choice.snapshot:
        return []
    own = [(source.lxcpath, source.name)] if depends and choice.kind == "overlay" else []
    return [*clones.originals(source.directory), *own]


def note(directory: str, pairs: clones.Pairs, lxcpath: str, name: str, undo: ExitStack) -> None:
    """Write down, on both sides, whom a clone depends on: before it does so. Raises StateError, StorageError."""
    try:
        clones.note_originals(directory, pairs)
    except OSError as error:
        raise StorageError(f'cannot write in "{directory}": {meaning(error)}') from error
    undo.callback(making.attempt, clones.forget, pairs, lxcpath, name)
    clones.register(pairs, lxcpath, name)


@contextmanager
def held(lxcpath: str, name: str, *, shared: bool = True, needed: bool = True) -> Iterator[None]:
    """Keep a container as it is, or to oneself. Raises StateError where another command changes it, or removed it."""
    directory = os.path.join(lxcpath, name)
    with ExitStack() as stack:
        try:
            stack.enter_context(lock.hold(directory, shared=shared))
        except FileNotFoundError:
            if needed:
                raise lookup.no_such(lxcpath, name) from None
        if pending.left(directory):
            raise StateError(f"{name} was just left half changed by a command that was killed", hint="try again")
        yield


def fill(build: Build, undo: ExitStack) -> Config:
    """Make storage, config and files of a copy in its directory, and introduce it to itself; its config.

    Raises LxcpyError; what is half made is for `undo`.
    """
    source = build.source
    rootfs = _clone(build)
    kind, path = storage.parse(rootfs)
    undo.callback(making.attempt, storage.backend(kind).destroy, path)
    change = copyconfig.Change(
        old=source.directory,
        new=build.directory,
        rootfs=rootfs,
        name=build.host,
        new_macs=build.new_macs,
        fstab=source.config.mount.fstab or "",
        old_rootfs=source.path if source.kind == "dir" else "",
    )
    content, files = copyconfig.rewrite(source.content, change)
    copyfiles.copy_files(files, source.config, change)
    config_file = os.path.join(build.directory, "config")
    try:
        save_text(config_file, content)
    except OSError as error:
        raise StorageError(f'cannot write "{config_file}": {meaning(error)}') from error
    config = config_load.load(config_file)
    if not build.in_place:
        # what the clone hooks did elsewhere the destroy hooks undo, as with LXC
        undo.callback(making.attempt, destroy.run_hooks, config, config_file, build.name)
    called = (source.name, source.config.uts.name or source.name)
    names = copynames.Names(build.name, source.name, build.host, tuple(dict.fromkeys(called)))
    copynames.introduce(config, config_file, names, build.arguments)
    return config


def _clone(build: Build) -> str:
    source = build.source
    uids, gids = (tuple(ranges) for ranges in ids.ranges(source.config))
    # the ids stay as they are; an overlay's own directories belong to the container's root
    shift = Shift(before=(uids, gids), after=(uids, gids)) if uids else None
    rootfs = os.path.join(build.directory, "rootfs")
    return storage.backend(source.kind).clone(source.path, rootfs, snapshot=build.choice.snapshot, shift=shift)


def _adapt(adapt: Callable[[str, str], str], directory: str) -> None:
    config_file = os.path.join(directory, "config")
    try:
        save_text(config_file, adapt(directory, read(config_file)))
    except OSError as error:
        raise StorageError(f'cannot prepare "{directory}": {meaning(error)}') from error
    config_load.load(config_file)


def with_lines(content: str, lines: Sequence[tuple[str, str]]) -> str:
    """A config's text with lines added at its end."""
    gap = "" if not content or content.endswith("\n") else "\n"
    return content + gap + "".join(f"{key} = {text.quoted(value)}\n" for key, value in lines)


def _plain(kind: str) -> str:
    return "overlay" if kind == "overlayfs" else kind
