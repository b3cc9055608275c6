"""A container without a runtime: a cloned child applies a whole rootfs plan, changes root and runs busybox."""

from __future__ import annotations

import os
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path

from lxcpy.config.model import Config
from lxcpy.errors import LxcpyError
from lxcpy.kernel import namespace
from lxcpy.kernel.idmap import IdRange, write_maps
from lxcpy.rootfs import apply, terminals
from lxcpy.rootfs.context import Context
from lxcpy.rootfs.plan import Facts, plan

BUSYBOX = "/bin/busybox"
NEW = ("mnt", "pid", "uts", "ipc", "net")


class Failed(Exception):
    """The child's LxcpyError, or its traceback, as text."""


def make_rootfs(path: Path, *, owner: int = 0) -> str:
    """A rootfs with nothing but a static busybox."""
    for name in ("bin", "proc", "sys", "dev", "etc", "tmp"):
        (path / name).mkdir(parents=True, exist_ok=True)
    shutil.copy(BUSYBOX, path / "bin/busybox")
    for name in ("sh", "cat", "stat", "ls"):
        (path / "bin" / name).symlink_to("busybox")
    if owner:
        for folder, _, files in os.walk(path):
            os.chown(folder, owner, owner)
            for name in files:
                os.chown(os.path.join(folder, name), owner, owner, follow_symlinks=False)
    return str(path)


def apply_all(config: Config, facts: Facts, between: Callable[[Context], None] | None = None) -> terminals.Terminals:
    """Every phase in the runtime's order."""
    steps = plan(config, facts)
    context = Context(config, facts)
    apply.run(steps.isolate, context)
    apply.run(steps.root, context)
    apply.run(steps.mounts, context)
    if between is not None:
        between(context)
    apply.run(steps.devices, context)
    made = terminals.make(context, config)
    apply.pivot(context)
    apply.run(steps.finish, context)
    return made


def run(
    config: Config,
    facts: Facts,
    script: str,
    *,
    new: tuple[str, ...] = NEW,
    ids: int = 0,
    between: Callable[[Context], None] | None = None,
    inside: Callable[[terminals.Terminals], object] | None = None,
) -> str:
    """What `sh -c SCRIPT` prints in the container, or the text of what `inside` returns there. Raises Failed.

    ids: with a user namespace, the first of 65536 host ids.
    """
    flags = 0
    for name in (*new, *(("user",) if ids else ())):
        flags |= namespace.NAMESPACES[name]
    ready, go = os.pipe()
    result, out = os.pipe()
    pid, pidfd = namespace.clone(flags)
    if pid == 0:
        try:
            os.close(go)
            os.read(ready, 1)
            if ids:
                os.setgroups([])
                os.setresgid(0, 0, 0)
                os.setresuid(0, 0, 0)
            made = apply_all(config, facts, between)
            if inside is not None:
                os.write(out, b"+" + str(inside(made)).encode())
                os._exit(0)
            os.write(out, b"+")
            os.dup2(out, 1)
            os.dup2(out, 2)
            os.execve("/bin/sh", ["sh", "-c", script], {"PATH": "/bin"})
        except LxcpyError as error:
            os.write(out, b"-" + "\n".join(error.lines()).encode())
        except BaseException:
            os.write(out, b"-" + traceback.format_exc().encode())
        os._exit(1)
    os.close(out)
    os.close(ready)
    try:
        if ids:
            write_maps(pid, [IdRange(0, ids, 65536)], [IdRange(0, ids, 65536)])
        os.write(go, b"g")
        os.close(go)
        with open(result, "rb") as stream:
            text = stream.read().decode(errors="replace")
    finally:
        os.waitpid(pid, 0)
        os.close(pidfd)
    if not text.startswith("+"):
        raise Failed(text[1:] or "the child said nothing")
    return text[1:]
