"""Runs a command in new namespaces: lxcpy-unshare and lxcpy-usernsexec."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from typing import Any

from lxcpy.errors import LxcpyError, StateError, from_dict, meaning
from lxcpy.kernel import idmap, mount, namespace
from lxcpy.kernel.fd import Fd
from lxcpy.kernel.idmap import IdRange
from lxcpy.runtime.execpath import exec_in_path


def run(
    argv: Sequence[str],
    names: Sequence[str],
    *,
    uids: Sequence[IdRange] = (),
    gids: Sequence[IdRange] = (),
    inside: Callable[[], None] = lambda: None,
    outside: Callable[[int], None] = lambda pid: None,
    wait: bool = True,
) -> int:
    """The exit status of `argv`, 128+N where signal N ended it; 0 without `wait`. Raises LxcpyError.

    names:   namespaces of lxcpy.kernel.namespace.
    uids, gids: maps of a new user namespace.
    inside:  what the new process does before it becomes the command.
    outside: what is done to it from here meanwhile, by its pid.
    """
    flags = 0
    for name in names:
        flags |= namespace.NAMESPACES[name]
    going_reader, going = os.pipe2(os.O_CLOEXEC)
    said, saying = os.pipe2(os.O_CLOEXEC)
    try:
        pid, pidfd = namespace.clone(flags)
    except OSError as error:
        raise StateError(f"cannot make the namespaces: {meaning(error)}", hint=_hint(names)) from error
    if pid == 0:
        os.close(going)
        _child(argv, inside, going_reader, saying)
    for fd in (going_reader, saying):
        os.close(fd)
    with Fd(said) as words, Fd(going) as gate, Fd(pidfd):
        try:
            if uids or gids:
                idmap.write_maps(pid, uids, gids)
            outside(pid)
        except BaseException as error:
            gate.close()  # the child ends at the empty read
            os.waitpid(pid, 0)
            if isinstance(error, OSError):
                raise StateError(f"cannot set the new process up: {error}") from error
            raise
        os.write(gate.number, b"1")
        _raise(words)
    if not wait:
        return 0
    _, status = os.waitpid(pid, 0)
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def private_mounts() -> None:
    """Let no mount of this namespace reach the host. Raises OSError."""
    mount.mount(None, "/", None, mount.MS_REC | mount.MS_SLAVE)


def _child(argv: Sequence[str], inside: Callable[[], None], gate: int, saying: int) -> None:
    try:
        if os.read(gate, 1):
            inside()
            try:
                exec_in_path(argv, os.environ)
            except OSError as error:
                raise StateError(f'cannot execute "{argv[0]}": {meaning(error)}') from error
    except LxcpyError as error:
        os.write(saying, json.dumps(error.to_dict()).encode())
    except OSError as error:
        os.write(saying, json.dumps(StateError(str(error)).to_dict()).encode())
    finally:
        os._exit(1)


def _raise(words: Fd) -> None:
    """Raise what the child reports; nothing, once it has become the command."""
    text = b""
    while part := os.read(words.number, 4096):
        text += part
    if text:
        failure: dict[str, Any] = json.loads(text)
        raise from_dict(failure)


def _hint(names: Sequence[str]) -> str | None:
    if os.geteuid() and "user" not in names:
        return "run it as root, or with USER among the namespaces"
    return None
