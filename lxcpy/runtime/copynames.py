"""What a copy of a root filesystem is told about itself: clone hooks, and its own name where the original's stands."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lxcpy import paths, storage
from lxcpy.config.model import Config
from lxcpy.errors import RootfsError, StorageError, meaning
from lxcpy.kernel.fd import Fd, open_in_root
from lxcpy.log import Log
from lxcpy.runtime import hooks
from lxcpy.storage import workers
from lxcpy.storage.overlay import USERXATTR

LOG = Log("copy")
_LIMIT = 1 << 20  # bytes of a file with names


class Names(NamedTuple):
    """The copy and its original."""

    name: str
    source: str
    host: str | None  # the copy's new host name; None: it keeps the original's
    hosts: tuple[str, ...] = ()  # what the original may be called in its own files


def introduce(
    config: Config, config_file: str, names: Names, arguments: Sequence[str] = (), *, hooked: bool = True
) -> None:
    """Run the clone hooks of the copy and write its host name, in a mount namespace of their own.

    config: the copy's. arguments: of the hooks. hooked: whether they run. Raises HookError, StorageError.
    """
    kind, source = storage.parse(config.rootfs.path or "")
    backend = storage.backend(kind)
    directory = backend.directory(source)
    hooked = hooked and bool(config.hook.clone)
    if not hooked and names.host is None:
        return
    if directory is not None and not hooked:
        write_names(directory, names)
        return

    def work() -> None:
        target = directory or _mounted(config, backend, source)
        if hooked:
            environment = hooks.base_environment(
                config, name=names.name, config_file=config_file, caller=dict(os.environ)
            )
            environment.update(LXC_SRC_NAME=names.source, LXC_ROOTFS_MOUNT=target)
            hooks.run_all(config, "clone", environment, extra=arguments)
        if names.host is not None:
            write_names(target, names)

    try:
        workers.apart(work)
    except OSError as error:
        raise StorageError(f'cannot prepare the copy "{names.name}": {error.strerror or meaning(error)}') from error


def _mounted(config: Config, backend: storage.Backend, source: str) -> str:
    target = config.rootfs.mount or paths.ROOTFS_MOUNT
    options = [word for word in (config.rootfs.options or "").split(",") if word not in ("", "ro")]
    if config.idmap and backend.type == "overlay":
        options.append(USERXATTR)
    try:
        os.makedirs(target, exist_ok=True)
        backend.mount(source, target, ",".join(options) or None)
    except OSError as error:
        raise RootfsError(
            f'cannot mount "{config.rootfs.path}" on "{target}": {error.strerror}', at=config.at("lxc.rootfs.path")
        ) from error
    return target


def write_names(rootfs: str, names: Names) -> None:
    """Write the host name where a system keeps it: /etc/hostname, and its own lines of two more files.

    A file that is missing, or that the container made something else of, stays as it is.
    """
    host = names.host or ""
    with Fd(os.open(rootfs, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
        _edit(root.number, "etc/hostname", lambda _: host)
        _edit(root.number, "etc/hosts", lambda text: hosts(text, names.hosts, host))
        _edit(root.number, "etc/sysconfig/network", lambda text: network(text, names.hosts, host))


def hosts(text: str, old: Sequence[str], new: str) -> str:
    """hosts(5) with the system's own name changed: lines of loopback addresses alone, and whole words."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if re.match(r"\s*(127\.|::1\s)", line):
            lines[number] = _renamed(line, old, new)
    return "\n".join(lines)


def network(text: str, old: Sequence[str], new: str) -> str:
    """/etc/sysconfig/network of Red Hat's older systems, which take their host name from it."""
    lines = text.split("\n")
    return "\n".join(_renamed(line, old, new) if line.startswith("HOSTNAME=") else line for line in lines)


def _renamed(line: str, old: Sequence[str], new: str) -> str:
    words = "|".join(re.escape(name) for name in old)
    # a name with its domain is the system's too
    return re.sub(rf"(?<![\w.-])(?:{words})(?![\w-])", lambda _: new, line) if words else line


def _edit(root: int, path: str, change: Callable[[str], str]) -> None:
    """Change a regular file in place, so that its owner, mode and attributes stay."""
    try:
        with open_in_root(root, path, os.O_PATH) as found:
            if not stat.S_ISREG(os.fstat(found.number).st_mode):
                return
            # a device or FIFO is never opened for real: the kind was looked at first, of this very file
            with open(found.path, "r+b") as file:
                before = file.read(_LIMIT)
                after = change(before.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
                if after != before:
                    file.seek(0)
                    file.truncate()
                    file.write(after)
    except FileNotFoundError:
        pass
    except OSError as error:
        LOG.warn(f"/{path} of the copy keeps the original's name: {meaning(error)}")
