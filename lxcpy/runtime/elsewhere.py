"""Runs a question with a container's eyes: its root directory, network and processes; for lxc-ls --nesting.

What is seen there is the container's and may be hostile, so the question runs in a child that has the container's root
as its own, may not take long, and answers in JSON.
"""

from __future__ import annotations

import json
import os
import select
import signal
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

TIMEOUT = 10.0  # seconds
LIMIT = 1 << 24  # bytes of an answer


def ask(place: int | str, question: Callable[[], Any]) -> Any:
    """The answer of `question`, run inside a container: the pid of its init, or the rootfs directory of a stopped one.

    question imports nothing: the libraries are out of sight. None where there is no answer: the container ended, or
    took too long.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            _enter(place)
            # a process id namespace is joined by the children alone
            grandchild = os.fork()
            if grandchild == 0:
                _write(writer, json.dumps(question()).encode())
                os._exit(0)
            os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]) & 1)
        except BaseException:
            os._exit(1)
    os.close(writer)
    try:
        data = _read(reader)
    finally:
        os.close(reader)
        _end(child)
    try:
        return json.loads(data)
    except ValueError:
        return None


def _enter(place: int | str) -> None:
    os.setpgid(0, 0)  # so that both children can be ended together
    if isinstance(place, str):
        os.chroot(place)
        os.chdir("/")
        return
    from lxcpy.kernel.namespace import open_namespace, setns

    root = os.open(f"/proc/{place}/root", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    for namespace in [open_namespace(place, name) for name in ("net", "pid")]:
        setns(namespace.fileno())
    os.fchdir(root)
    os.chroot(".")


def _write(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


def _read(fd: int) -> bytes:
    """Everything until the other end closes; b"" when that takes too long or is too much."""
    data = b""
    deadline = time.monotonic() + TIMEOUT
    while len(data) < LIMIT:
        left = deadline - time.monotonic()
        if left <= 0 or not select.select([fd], [], [], left)[0]:
            return b""
        part = os.read(fd, 1 << 16)
        if not part:
            return data
        data += part
    return b""


def _end(child: int) -> None:
    """Reap the child; whatever of its group still runs is killed."""
    try:
        os.killpg(child, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass
    os.waitpid(child, 0)
