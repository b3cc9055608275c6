"""`isolated(function, "mnt", "net")`: run a function as root of new namespaces, in a process that ends with it."""

from __future__ import annotations

import os
import pickle
import select
import signal
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from lxcpy.kernel import mount, namespace

TIMEOUT = 30  # seconds


def _report(function: Callable[[], Any], writer: int) -> None:
    try:
        answer = ("result", function(), "")
    except BaseException as error:
        answer = ("error", error, traceback.format_exc())
    try:
        data = pickle.dumps(answer)
    except Exception:
        data = pickle.dumps(("error", RuntimeError(f"{answer[1]!r} cannot be sent"), answer[2]))
    with os.fdopen(writer, "wb") as file:
        file.write(data)


def _inside(function: Callable[[], Any], names: tuple[str, ...], writer: int) -> None:
    flags = 0
    for name in names:
        flags |= namespace.NAMESPACES[name]
    namespace.unshare(flags)
    if "pid" in names or "time" in names:  # these take the next child only
        pid = os.fork()
        if pid:
            os.close(writer)
            os.waitpid(pid, 0)
            return
    if "mnt" in names:
        mount.mount(None, "/", None, mount.MS_REC | mount.MS_PRIVATE)
        if "pid" in names:
            mount.mount("proc", "/proc", "proc")
    _report(function, writer)


def run_isolated(function: Callable[[], Any], *names: str) -> Any:
    """The function's result, or its exception raised here; killed after TIMEOUT."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reader)
            os.setsid()
            _inside(function, names, writer)
        except BaseException as error:
            os.write(writer, pickle.dumps(("error", error, traceback.format_exc())))
        finally:
            os._exit(0)
    os.close(writer)
    try:
        data = b""
        while True:
            ready, _, _ = select.select([reader], [], [], TIMEOUT)
            if not ready:
                raise TimeoutError(f"{function} took more than {TIMEOUT} seconds")
            part = os.read(reader, 1 << 16)
            if not part:
                break
            data += part
    except TimeoutError:
        os.killpg(pid, signal.SIGKILL)
        raise
    finally:
        os.close(reader)
        os.waitpid(pid, 0)
    if not data:
        raise RuntimeError(f"{function} ended without an answer")
    kind, value, trace = pickle.loads(data)
    if kind == "error":
        value.add_note(trace)
        raise value
    return value


@pytest.fixture
def isolated() -> Callable[..., Any]:
    """`isolated(function, *namespaces)`; mounts are private, /proc is new in a new pid namespace."""
    return run_isolated
