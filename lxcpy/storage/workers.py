"""Work shared out to processes that end with us: who is free takes the next piece."""

from __future__ import annotations

import errno
import gc
import marshal
import os
import signal
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from lxcpy import errors
from lxcpy.kernel import mount, namespace
from lxcpy.kernel.process import set_pdeathsig


def count() -> int:
    """How many processes are worth it: making files scales to a few."""
    return min(len(os.sched_getaffinity(0)), 4)


def run(pieces: Sequence[int], work: Callable[[int], None], result: Callable[[], Any], processes: int) -> list[Any]:
    """Call `work(piece)` for each number in `pieces`, about in that order, in some processes, of which this is one.

    The state that `work` leaves in a process is told by `result` there, as data that marshal can carry: one result a
    process. Raises the OSError of the process that failed, when all have ended.
    """
    processes = max(1, min(processes, len(pieces)))
    if processes == 1:
        for piece in pieces:
            work(piece)
        return [result()]
    with _Queue(pieces) as queue:
        children = []
        gc.freeze()  # a collection in a child would copy all we have
        try:
            for _ in range(processes - 1):
                children.append(_start(queue, work, result))
            failure = None
            try:
                for piece in queue:
                    work(piece)
            except OSError as error:
                failure = error
                queue.drop()
        except BaseException:
            for pid, _ in children:
                os.kill(pid, signal.SIGKILL)
            raise
        finally:
            gc.unfreeze()
            answers = [_wait(*child) for child in children]
    results = [result()]
    for answer in answers:
        if isinstance(answer, OSError):
            failure = failure or answer
        else:
            results.append(answer)
    if failure is not None:
        raise failure
    return results


def apart(work: Callable[[], None]) -> None:
    """Call `work` in a child whose mounts are its own, and end with it. Raises its LxcpyError or OSError."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            set_pdeathsig(signal.SIGKILL)
            os.write(writer, marshal.dumps(_told(work)))
        finally:
            os._exit(0)
    os.close(writer)
    answer = _wait(pid, reader)
    if isinstance(answer, OSError):
        raise answer
    if answer is not None:
        raise errors.from_dict(answer)


def _told(work: Callable[[], None]) -> Any:
    try:
        namespace.unshare(namespace.CLONE_NEWNS)
        mount.mount(None, "/", None, mount.MS_REC | mount.MS_SLAVE)
        work()
    except errors.LxcpyError as error:
        return (error.to_dict(),)
    except OSError as error:
        return [error.errno or errno.EIO, error.strerror or str(error), error.filename or ""]
    return (None,)


class _Queue:
    """Numbers in a pipe: a read takes the next one, whoever reads."""

    def __init__(self, pieces: Iterable[int]) -> None:
        # a file and a shared position would do as well, but reads of a pipe are atomic and need no lock
        numbers = list(pieces)
        self.step = max(1, -(-len(numbers) // 8000))  # the pipe holds 64 KB; more pieces go in runs
        self.numbers = numbers
        self.reader, writer = os.pipe()
        for at in range(0, len(numbers), self.step):
            os.write(writer, struct.pack("=q", at))
        os.close(writer)

    def __iter__(self) -> Iterator[int]:
        while head := os.read(self.reader, 8):
            (at,) = struct.unpack("=q", head)
            yield from self.numbers[at : at + self.step]

    def drop(self) -> None:
        """Take everything, so that the others stop."""
        while os.read(self.reader, 1 << 16):
            pass

    def __enter__(self) -> _Queue:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.reader)


def _start(queue: _Queue, work: Callable[[int], None], result: Callable[[], Any]) -> tuple[int, int]:
    reader, writer = os.pipe()
    parent = os.getpid()
    pid = os.fork()
    if pid:
        os.close(writer)
        return pid, reader
    code = 1
    try:
        os.close(reader)
        set_pdeathsig(signal.SIGKILL)
        if os.getppid() == parent:
            code = _child(queue, work, result, writer)
    finally:
        os._exit(code)


def _child(queue: _Queue, work: Callable[[int], None], result: Callable[[], Any], writer: int) -> int:
    try:
        for piece in queue:
            work(piece)
        answer: Any = (result(),)
    except OSError as error:
        queue.drop()
        answer = [error.errno or errno.EIO, error.strerror or str(error), error.filename or ""]
    with os.fdopen(writer, "wb") as stream:
        stream.write(marshal.dumps(answer))
    return 0


def _wait(pid: int, reader: int) -> Any:
    """The result of a child, or its OSError."""
    with os.fdopen(reader, "rb") as stream:
        said = stream.read()
    _, status = os.waitpid(pid, 0)
    if not said:
        return OSError(errno.EIO, f"a copying process ended early (wait status {status:#x})")
    answer = marshal.loads(said)
    return OSError(*answer) if isinstance(answer, list) else answer[0]
