"""Temporary clones: snapshot clones that go when they stop (lxc-copy -e, cli.md, 8; runtime.md, H4)."""

from __future__ import annotations

import os
import random
import shlex
import stat
import string
from collections.abc import Sequence
from typing import NamedTuple

from lxcpy.config import load as config_load
from lxcpy.errors import StorageError, UsageError
from lxcpy.runtime import copy, ids, lookup
from lxcpy.runtime.copyconfig import field
from lxcpy.storage.overlay import DELTA, PRIVATE

KINDS = ("bind", "overlay")


class Mount(NamedTuple):
    """One mount of -m."""

    kind: str  # of KINDS
    source: str  # absolute, of the host
    target: str  # below the container's root, without a slash in front
    access: str = "rw"


class Request(NamedTuple):
    """What lxcpy-copy -e was asked for."""

    copy: copy.Request  # new_name "": one is drawn
    mounts: Sequence[Mount] = ()
    tmpfs: bool = False
    keep_data: bool = False


def parse_mounts(text: str) -> tuple[Mount, ...]:
    """The mounts of `{bind,overlay}=SRC[:DST][:ro|rw]`, several joined by commas. Raises ValueError."""
    return tuple(_parse_mount(word) for word in text.split(",") if word)


def _parse_mount(text: str) -> Mount:
    kind, _, rest = text.partition("=")
    if kind not in KINDS:
        raise ValueError(f'"{text}" does not begin with bind= or overlay=')
    source, *others = rest.split(":")
    access = ""
    if kind == "bind" and others and others[-1] in ("ro", "rw"):
        access = others.pop()
    if len(others) > 1:
        raise ValueError(f'"{text}" has an excess element: "{others[1]}"')
    if not source:
        raise ValueError(f'"{text}" has no source')
    target = os.path.normpath("/" + (others[0] if others else source)).strip("/")
    if not target:
        raise ValueError(f'"{text}" would lie on the root of the container')
    return Mount(kind, os.path.normpath("/" + source.lstrip("/")), target, access or "rw")


def make(request: Request) -> str:
    """Make the clone, ready to be started; its name. Raises LxcpyError with nothing left behind."""
    wanted = request.copy
    if request.tmpfs and (request.keep_data or wanted.backing not in (None, "overlay", "overlayfs")):
        raise UsageError(
            "A container can only be placed on a tmpfs when the overlay storage driver is used",
            hint="leave out -D (--keepdata), and -B but for -B overlay",
        )
    name = wanted.new_name or draw_name(wanted.new_lxcpath, wanted.name)
    plan = wanted._replace(
        new_name=name,
        snapshot=True,
        backing="overlay" if request.tmpfs else wanted.backing,
        adapt=lambda directory, content: _adapt(request, name, directory, content),
    )
    copy.copy(plan)
    return name


def draw_name(lxcpath: str, name: str) -> str:
    """NAME and six random characters that are no container's name yet."""
    while True:
        made = f"{name}_{_six()}"
        if not os.path.lexists(os.path.join(lxcpath, made)):
            return made


def _six() -> str:
    return "".join(random.SystemRandom().choices(string.ascii_letters + string.digits, k=6))


def _adapt(request: Request, name: str, directory: str, content: str) -> str:
    """The last lines of the clone's config, and the files they name. Raises OSError, StorageError."""
    lines = []
    if request.tmpfs:
        lines.append(("lxc.hook.pre-mount", _tmpfs_script(directory, "" if request.copy.keep_name else name)))
    if not request.keep_data:
        lines.append(("lxc.ephemeral", "1"))
    for mount in request.mounts:
        lines.append(("lxc.mount.entry", _entry(mount, directory)))
    return copy.with_lines(content, lines)


def _tmpfs_script(directory: str, host: str) -> str:
    """The hook that puts the clone's delta on a tmpfs, with the host name that the tmpfs hides."""
    overlay, delta = (shlex.quote(os.path.join(directory, part)) for part in (PRIVATE, DELTA))
    script = f"#! /bin/sh\nmount -n -t tmpfs -o mode=0755 none {overlay}\n"
    if host:
        script += f"mkdir -p {delta}/etc\necho {shlex.quote(host)} > {delta}/etc/hostname\n"
    path = os.path.join(directory, f"pre-start-{_six()}")
    with open(path, "x", encoding="utf-8", errors="surrogateescape") as file:
        file.write(script)
        os.fchmod(file.fileno(), 0o755)
    return path


def _entry(mount: Mount, directory: str) -> str:
    source, target = field(mount.source), field(mount.target)
    try:
        status = os.stat(mount.source)
    except FileNotFoundError:
        if mount.kind == "overlay":
            raise StorageError(f'-m: the directory "{mount.source}" is missing') from None
        status = None  # a bind mount without its source is left out at the start
    if mount.kind == "bind":
        create = "dir" if status is not None and stat.S_ISDIR(status.st_mode) else "file"
        return f"{source} {target} none bind,optional,{mount.access},create={create} 0 0"
    upper, work = (_overlay_directory(directory, word) for word in ("delta", "work"))
    assert status is not None
    os.chmod(upper, stat.S_IMODE(status.st_mode))  # what is seen of the merged directory is the upper one's
    if os.geteuid() == 0:  # else it stays the container's root's, whose files of the host would be nobody's
        os.chown(upper, status.st_uid, status.st_gid)
    return f"{source} {target} overlay lowerdir={source},upperdir={field(upper)},workdir={field(work)},create=dir"


def _overlay_directory(directory: str, word: str) -> str:
    path = os.path.join(directory, f"{word}#{_six()}")
    os.mkdir(path, 0o700)
    uids, gids = ids.ranges(config_load.load(lookup.config_path(*os.path.split(directory))))
    os.chown(path, *ids.root(uids, gids))
    return path
