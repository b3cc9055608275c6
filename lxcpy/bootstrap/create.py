"""Fills a container's root filesystem from a template, and says in its config what the system needs."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from lxcpy import paths
from lxcpy.bootstrap import busybox, deb_system
from lxcpy.bootstrap.cache import Store
from lxcpy.bootstrap.progress import Progress
from lxcpy.bootstrap.template import Template, overlay, parse
from lxcpy.errors import BootstrapError, meaning

Clone = Callable[[str, str], None]
"""clone(source, target): an exact copy of a tree, over the empty directory `target`."""
Remove = Callable[[str], None]


def bootstrap(
    template: Template,
    words: Sequence[str],
    *,
    target: str,
    config_path: str,
    name: str,
    progress: Progress,
    clone: Clone,
    remove: Remove,
) -> None:
    """Make the system in the empty directory `target` and append to the config. Raises BootstrapError, UsageError."""
    options = parse(template, words)
    if template.settings["engine"] == "busybox":
        lines = busybox.fill(target, name, options.get("busybox-path"))
    else:
        lines = _deb(template, options, target, name, progress, clone, remove)
    try:
        with open(config_path, "a", encoding="utf-8") as config:
            config.write("".join(f"{line}\n" for line in lines))
    except OSError as error:
        raise BootstrapError(f'cannot append to "{config_path}": {meaning(error)}') from error


def _deb(
    template: Template, options: Mapping[str, str], target: str, name: str, progress: Progress, clone: Clone,
    remove: Remove,
) -> list[str]:  # fmt: skip
    store = Store(paths.cache_dir())
    with ExitStack() as stack:
        system = deb_system.System(template, options, store, progress, stack)
        key = _key(system, template)
        cached = f"{store.directory}/rootfs/{template.name}-{system.codename}-{system.arch}-{key}"
        if "no-cache" in options:
            system.install(target)
        else:
            with open(f"{cached}.lock", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # creates at the same time make it once
                if "flush-cache" in options and os.path.isdir(cached):
                    remove(cached)
                if not os.path.isdir(cached):
                    _build(system, cached, remove)
                progress.start("copy")
                clone(cached, target)
                progress.finish("copy")
        system.customize(target, name)
        root = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            overlay(template, root, system.values(name))
        finally:
            os.close(root)
        progress.message(f"{template.name} {system.codename} ({system.arch}) is ready")
        return system.config_lines(name)


def _build(system: deb_system.System, cached: str, remove: Remove) -> None:
    """Make the cached tree; its name appears when it is whole. A leftover of a killed one goes first."""
    partial = f"{cached}.partial"
    if os.path.isdir(partial):
        remove(partial)
    os.mkdir(partial, 0o755)
    try:
        system.install(partial)
        os.rename(partial, cached)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


def _key(system: deb_system.System, template: Template) -> str:
    """What went in: the packages by hash, and the template's settings."""
    settings = "\n".join(f"{key}={value}" for key, value in sorted(template.settings.items()))
    return hashlib.sha256(f"{system.plan.digest()}\n{settings}".encode()).hexdigest()[:16]
