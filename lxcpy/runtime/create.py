"""Makes a container: directory, config, storage, template; all of it or nothing.

The order is lxc-create's, so that any LXC template works: the config exists before the template runs and the template
appends to it; the `partial` mark stands, locked, as long as that takes. A mark without its lock tells that a creation
was killed: the next one of that name clears what is left and begins anew.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from lxcpy import paths, storage
from lxcpy.bootstrap import script
from lxcpy.bootstrap import template as templates
from lxcpy.bootstrap.create import bootstrap
from lxcpy.bootstrap.progress import Silent
from lxcpy.bootstrap.rootfscache import Trees
from lxcpy.config import load as config_load
from lxcpy.config import system
from lxcpy.config.file import ConfigFile
from lxcpy.config.model import Config
from lxcpy.errors import ConfigError, UsageError, meaning
from lxcpy.kernel import idmap
from lxcpy.runtime import destroy, ids, lookup, making, mapped
from lxcpy.storage import blob
from lxcpy.storage.base import Shift
from lxcpy.storage.copy import copy_tree
from lxcpy.storage.tree import give_tree, remove_tree

_LOGIN = re.compile(r"://[^/\s,]*@")


class Request(NamedTuple):
    """What lxcpy-create was asked for."""

    name: str
    lxcpath: str
    template: str  # a name, the path of a script, or none
    words: Sequence[str] = ()  # the template's own options
    config: str | None = None  # the file to begin with
    backing: str = "dir"
    directory: str | None = None  # --dir
    progress: Any = None  # bootstrap.progress.Progress; None: silent
    quiet: bool = False
    apart: bool = False  # standard output is for the progress alone: a script's words go to standard error


@mapped.with_ids
def create(request: Request) -> str:
    """Make the container; the path of its root filesystem, "" without one. Raises LxcpyError with nothing left."""
    start = _begin_config(request)
    template = None if request.template == "none" else find_template(request.template)
    destroy.clear_leftover(request.lxcpath, request.name)
    with making.made(request.lxcpath, request.name, empty=False) as undo:
        config_path = lookup.config_path(request.lxcpath, request.name)
        config = ConfigFile.from_text(start, config_path)
        config.draw_hwaddrs()
        rootfs = ""
        if template is not None or request.backing not in ("dir", "none"):
            if request.directory and not os.path.lexists(request.directory):
                undo.callback(making.attempt, remove_tree, request.directory)
            rootfs = _make_storage(request, config)
        config.save(config_path)
        os.chmod(config_path, 0o640)
        if template is not None:
            _run_template(request, template, rootfs, config_path)
            _add_header(config_path, template, request.words)
        config_load.load(config_path)  # a template that wrote a bad config is a failure here, not at the first start
    return rootfs


def find_template(name: str) -> Any:
    """Our template of that name, else a script: an absolute path, or LXC's lxc-NAME. Raises UsageError."""
    if not name.startswith("/"):
        try:
            return templates.find(name)
        except UsageError:
            if (found := script.find(name)) is None:
                raise
            return found
    found = script.find(name)
    if found is None:
        raise UsageError(f"bad template: {name}", hint="it must be an executable file")
    return found


def answered(name: str, words: Sequence[str]) -> str | None:
    """What a template's options only ask to be shown: its help, or what its server has; None if they ask for more.

    Raises LxcpyError.
    """
    found = None if name == "none" else find_template(name)
    if not isinstance(found, templates.Template):
        return None
    options = templates.parse(found, words)
    if "help" in options:
        return templates.help_text(found)
    if "list" not in options:
        return None
    from lxcpy.bootstrap import imagedownload

    return imagedownload.listing(found, options)


def _begin_config(request: Request) -> str:
    """The text the config starts with. Raises ConfigError, StateError."""
    path = request.config or system.default_config()
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            text = file.read()
    except FileNotFoundError:
        if request.config:
            what = f'cannot read the config "{path}": No such file or directory'
            raise ConfigError(what, hint="-f names it") from None
        ids.check_user(Config())
        return ""
    except OSError as error:
        raise ConfigError(f'cannot read the config "{path}": {meaning(error)}') from error
    ids.check_user(config_load.load(path))
    return text


def _make_storage(request: Request, config: ConfigFile) -> str:
    """The empty rootfs; lxc.rootfs.path goes into the config. Returns the directory."""
    kind = "dir" if request.backing in ("none", "best") else request.backing
    rootfs = request.directory or os.path.join(request.lxcpath, request.name, "rootfs")
    uids, gids = _ranges(config)
    if uids:
        # as LXC: the container's root must be able to pass its directory
        ids.give(os.path.join(request.lxcpath, request.name), ids.root(uids, gids))
    text = storage.backend(kind).create(rootfs, owner=ids.root(uids, gids))
    config.set("lxc.rootfs.path", text)
    return rootfs


def _ranges(config: ConfigFile) -> tuple[list[idmap.IdRange], list[idmap.IdRange]]:
    return ids.ranges(config_load.load_text(config.text, config.file))


def _run_template(request: Request, template: Any, rootfs: str, config_path: str) -> None:
    if isinstance(template, script.Script):
        uids, gids = _ranges(ConfigFile.load(config_path))
        script.run(
            template,
            path=os.path.join(request.lxcpath, request.name),
            name=request.name,
            rootfs=rootfs,
            words=request.words,
            quiet=request.quiet,
            apart=request.apart,
            uids=uids,
            gids=gids,
        )
        return
    def fill(trees: Trees) -> None:
        progress = request.progress or Silent()
        bootstrap(
            template, request.words, target=rootfs, config_path=config_path, name=request.name, progress=progress,
            trees=trees,
        )  # fmt: skip

    config = ConfigFile.load(config_path)
    if os.geteuid() == 0:
        fill(_trees(config))
        return

    os.makedirs(paths.cache_dir(), 0o755, exist_ok=True)  # and what is above it: the user's own

    def fill_inside(uid: int, gid: int) -> None:
        try:
            verbs = (copy_tree, remove_tree, blob.pack, blob.unpack, blob.usable)
            fill(Trees(*verbs, fingerprint=blob.fingerprint, inside=True))
        finally:
            give_tree(paths.cache_dir(), uid, gid)  # to who may want to remove it

    mapped.as_root(fill_inside, *_ranges(config))


def _trees(config: ConfigFile) -> Trees:
    """What the bootstrapper needs of the storage; owners move into the container's id map, if it has one."""
    uids, gids = _ranges(config)
    shift = Shift(after=(tuple(uids), tuple(gids)))

    def copy(source: str, target: str) -> None:
        copy_tree(source, target, shift=shift if uids else None)

    return Trees(
        copy, remove_tree, blob.pack, blob.unpack, blob.usable, shifted=bool(uids), fingerprint=blob.fingerprint
    )


def _add_header(config_path: str, template: Any, words: Sequence[str]) -> None:
    """LXC's comments in front of the config: how the container was made, and how to nest."""
    header = f"# Template used to create this container: {template.path}\n"
    shown = " ".join(_without_secrets(words)).replace("\n", " ")
    header += f"# Parameters passed to the template: {shown}".rstrip() + "\n"
    header += "# For additional config options, please look at lxc.container.conf(5)\n\n"
    header += "# Uncomment the following line to support nesting containers:\n"
    header += "#lxc.include = /usr/share/lxc/config/nesting.conf\n"
    header += "# (Be aware this has security implications)\n\n"
    config = ConfigFile.load(config_path)
    temporary = f"{config_path}.new"
    with open(temporary, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(header + config.text)
        os.fchmod(file.fileno(), 0o640)
    os.rename(temporary, config_path)


def _without_secrets(words: Sequence[str]) -> list[str]:
    """A template's options as they may be written down: no password, no login in an address."""
    shown = []
    hidden = False
    for word in words:
        name, equals, _ = word.partition("=")
        secret = len(name) > 4 and "--password".startswith(name)  # getopt takes what is unambiguous
        if hidden or (secret and equals):
            word = f"{name}=***" if secret else "***"
        hidden = secret and not equals
        shown.append(_LOGIN.sub("://", word))
    return shown
