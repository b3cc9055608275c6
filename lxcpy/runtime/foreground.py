"""A container that ends with its command: `lxcpy-start -F` and `lxcpy-execute`."""

from __future__ import annotations

import os
import select

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxcpy.container import Start


def stay(started: Start) -> None:
    """Show the container's console on this terminal until it is STOPPED; input is passed on where there is any."""
    from lxcpy.runtime import terminal

    master = started.take_console()
    if master >= 0:
        silent, writer = os.pipe2(os.O_CLOEXEC)  # an input that never says anything
        try:
            end = terminal.proxy(master, source=0 if _can_be_waited_for(0) else silent)
            if end == terminal.INPUT_ENDED:
                end = terminal.proxy(master, source=silent)
            if end == terminal.SIGNALLED:
                return  # the closed connection ends the container
        finally:
            os.close(silent)
            os.close(writer)
            os.close(master)
    started.wait()


def status(started: Start) -> int:
    """Wait until the container is STOPPED: the exit status of its command, 128+N where signal N ended it."""
    raw = started.wait()
    if raw is None:
        return 1
    return os.WEXITSTATUS(raw) if os.WIFEXITED(raw) else 128 + os.WTERMSIG(raw)


def _can_be_waited_for(fd: int) -> bool:
    """Is it a terminal, a pipe or a socket? A file, or /dev/null, is not."""
    with select.epoll() as poll:
        try:
            poll.register(fd, select.EPOLLIN)
        except OSError:
            return False
    return True
