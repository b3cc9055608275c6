"""A real SIGKILL at each change of a file that some work makes, one after the other."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator

# audit events of what changes the file system; `open` counts where it writes
CHANGES = frozenset({
    "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.link", "os.symlink", "os.chmod", "os.chown", "os.truncate",
    "os.utime", "os.fork",
})  # fmt: skip


def _kills(event: str, arguments: tuple[object, ...]) -> bool:
    if event == "open":
        flags = arguments[2]
        return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
    return event in CHANGES


def killed(work: Callable[[], None], step: int) -> bool:
    """Run `work` in a child that is killed just before its change number `step`; whether that came to pass.

    An exception of the work's is the test's failure.
    """
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            left = step

            def count(event: str, arguments: tuple[object, ...]) -> None:
                nonlocal left
                if os.getpid() == child and _kills(event, arguments):
                    left -= 1
                    if left < 0:
                        os.kill(child, signal.SIGKILL)

            child = os.getpid()
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # one copying process: the same steps every time
            sys.addaudithook(count)
            work()
            status = 0
        except BaseException as error:
            sys.stderr.write(f"killed({step}): {error!r}\n")
        finally:
            os._exit(status)
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert status == 0
    return False


def steps(prepare: Callable[[], None], work: Callable[[], None], *, stride: int = 1) -> Iterator[int]:
    """Prepare and run `work`, killed before its first change, its second and so on, until it gets through.

    Yields the number of the change after each run; -1 for the one that was not killed.
    """
    step = 0
    while True:
        prepare()
        if not killed(work, step):
            yield -1
            return
        yield step
        step += stride
