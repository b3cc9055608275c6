"""The supervisor's child processes, and what the end of each means.

That is plain data, not a closure, so that a supervisor can hand its children over to the code that replaces it. Orphans
of hooks become the supervisor's children too (it is a subreaper): they are waited for and forgotten.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from lxcpy import log
from lxcpy.kernel.fd import Fd
from lxcpy.runtime.loop import WALL

if TYPE_CHECKING:
    from lxcpy.runtime.live import Live
    from lxcpy.runtime.supervisor import Supervisor

LOG = log.Log("children")


class Ending(NamedTuple):
    """What follows the end of a child."""

    what: str = ""  # a row of ENDINGS; "": nothing
    live: Live | None = None
    reboot: bool = False  # of a teardown: the container is to start again
    bare: bool = False  # of a teardown or undo: it runs no hooks, for an earlier one was killed


NOTHING = Ending()
# what → what to do with the container, the ending, the raw wait status (None where nobody can tell)
ENDINGS: dict[str, Callable[[Any, Ending, int | None], None]] = {
    "": lambda live, ending, status: None,
    "init": lambda live, ending, status: live.ended(status),
    "teardown": lambda live, ending, status: live.torn_down(ending, status),
    "undo": lambda live, ending, status: live.undone(ending, status),
}
RETRY = 1.0  # seconds


class Children:
    """Those that somebody waits for, by pid."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.loop = supervisor.loop
        self.known: dict[int, tuple[int, Ending]] = {}  # pid → pidfd, what follows
        self.asked_to_leave = False
        self.retrying = False
        reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.pipe = (Fd(reader), Fd(writer))
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, self._note)
            signal.siginterrupt(number, False)  # system calls made through ctypes are not repeated by Python
        self.loop.watch(reader, self._signalled)

    def watch(self, pid: int, pidfd: Fd, ending: Ending = NOTHING) -> None:
        """Do what `ending` says when the process has ended. Takes the pidfd."""
        self.known[pid] = (pidfd.number, ending)

        def over(status: int | None) -> None:
            self.known.pop(pid, None)
            self.supervisor.pool.ended(pid)
            ENDINGS[ending.what](ending.live, ending, status)
            self.reap_strangers()

        self.loop.watch_process(pidfd, pid, over)

    def _note(self, number: int, _frame: object) -> None:
        if number == signal.SIGTERM:
            self.asked_to_leave = True

    def _signalled(self, _events: int) -> None:
        try:
            while os.read(self.pipe[0].number, 4096):
                pass
        except BlockingIOError:
            pass
        if self.asked_to_leave:
            LOG.info("asked to leave by a signal")
            self.supervisor.leave()
            return
        self.reap_strangers()

    def reap_strangers(self) -> None:
        """Wait for ended children that nobody knows; not while a launcher works: a container's first process is ours
        before its launcher tells of it."""
        if any(live.state == "STARTING" for live in self.supervisor.containers.values()):
            if not self.retrying:
                self.retrying = True
                self.loop.after(RETRY, self._retry)
            return
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT | WALL)
                if found is None or found.si_pid in self.known:
                    return  # the loop sees the end of one that is known; its turn comes after that
                os.waitpid(found.si_pid, WALL)
            except ChildProcessError:
                return

    def _retry(self) -> None:
        self.retrying = False
        self.reap_strangers()


def at_rest() -> None:
    """In a child: the signals that this process listens to are nothing to it."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
