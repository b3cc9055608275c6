"""A container without a runtime: a cloned child applies a whole rootfs plan, changes root and runs busybox."""

from __future__ import annotations

import os
import shutil
import socket
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from lxcpy.config.model import Config
from lxcpy.errors import LxcpyError
from lxcpy.kernel import namespace
from lxcpy.kernel.fd import Fd
from lxcpy.kernel.idmap import IdRange, write_maps
from lxcpy.rootfs import apply, terminals
from lxcpy.rootfs.context import Context, Idmapper, map_here, map_tree
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


def apply_all(
    config: Config, facts: Facts, between: Callable[[Context], None] | None = None, idmap: Idmapper = map_here
) -> terminals.Terminals:
    """Every phase in the runtime's order."""
    steps = plan(config, facts)
    modules = set(sys.modules)
    context = Context(config, facts, idmap=idmap)
    apply.run(steps.isolate, context)
    apply.run(steps.root, context)
    apply.run(steps.mounts, context)
    if between is not None:
        between(context)
    apply.run(steps.devices, context)
    made = terminals.make(context, config)
    apply.pivot(context)
    apply.run(steps.finish, context)
    late = set(sys.modules) - modules
    assert between is not None or not late, f"imported after the clone, where its file may be gone: {late}"
    return made


def ask(sock: socket.socket) -> Idmapper:
    """The Idmapper of a process in a user namespace: the parent does it on the descriptor."""

    def idmap(tree: Fd, namespace_: str) -> None:
        socket.send_fds(sock, [namespace_.encode()], [tree.number])
        answer = sock.recv(100).decode()
        if answer != "done":
            raise OSError(22, answer)

    return idmap


def serve(sock: socket.socket, pid: int) -> None:
    """Answer until the child has closed its end, by its end or by exec."""
    while True:
        word, fds, _, _ = socket.recv_fds(sock, 100, 1)
        if not word:
            return
        path = f"/proc/{pid}/ns/user" if word == b"container" else word.decode()
        with Fd(fds[0]) as tree, Fd(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as userns:
            try:
                map_tree(tree.number, userns.number)
                sock.send(b"done")
            except OSError as error:
                sock.send(str(error).encode())


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
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid, pidfd = namespace.clone(flags)
    if pid == 0:
        try:
            os.close(go)
            os.read(ready, 1)
            if ids:
                os.setgroups([])
                os.setresgid(0, 0, 0)
                os.setresuid(0, 0, 0)
            made = apply_all(config, facts, between, ask(there) if ids else map_here)
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
    there.close()
    try:
        if ids:
            write_maps(pid, [IdRange(0, ids, 65536)], [IdRange(0, ids, 65536)])
        os.write(go, b"g")
        os.close(go)
        serve(here, pid)
        with open(result, "rb") as stream:
            text = stream.read().decode(errors="replace")
    finally:
        os.waitpid(pid, 0)
        os.close(pidfd)
        here.close()
    if not text.startswith("+"):
        raise Failed(text[1:] or "the child said nothing")
    return text[1:]
