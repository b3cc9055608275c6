"""The supervisor's event loop: descriptors, timers and children over one epoll."""

from __future__ import annotations

import heapq
import os
import select
import sys
import time
import traceback
from collections.abc import Callable

from lxcpy import log
from lxcpy.kernel import process
from lxcpy.kernel.fd import Fd

LOG = log.Log("loop")
WALL = 0x40000000  # __WALL of wait(2): a child whose exit signal is not SIGCHLD counts too
LONGEST = 86400.0  # seconds; epoll_wait(2) counts milliseconds in an int, which ends after 24 days

Handler = Callable[[int], None]


class Loop:
    """Calls handlers; one that raises is reported and forgotten, it never ends the loop."""

    def __init__(self) -> None:
        self.epoll = select.epoll()
        self.handlers: dict[int, Handler] = {}
        self.timers: list[tuple[float, int, Callable[[], None]]] = []
        self.serial = 0
        self.running = True

    def watch(self, fd: int, handler: Handler, events: int = select.EPOLLIN) -> None:
        """Call handler(events) when `fd` is ready."""
        self.epoll.register(fd, events)
        self.handlers[fd] = handler

    def change(self, fd: int, events: int) -> None:
        """Watch for other events."""
        self.epoll.modify(fd, events)

    def forget(self, fd: int) -> None:
        """Stop watching; call it before the descriptor is closed."""
        if self.handlers.pop(fd, None) is not None:
            try:
                self.epoll.unregister(fd)
            except OSError:
                pass

    def after(self, seconds: float, call: Callable[[], None]) -> None:
        """Call once, later."""
        self.serial += 1
        heapq.heappush(self.timers, (time.monotonic() + seconds, self.serial, call))

    def watch_process(self, pidfd: Fd, pid: int, ended: Callable[[int | None], None]) -> None:
        """Call ended(raw wait status) when a process ends; None when it is not our child and the kernel cannot tell.

        Takes the pidfd and closes it.
        """

        def ready(_events: int) -> None:
            self.forget(pidfd.number)
            status: int | None
            try:
                status = os.waitpid(pid, WALL)[1]
            except ChildProcessError:
                status = process.exit_status_of(pidfd.number)
            pidfd.close()
            ended(status)

        self.watch(pidfd.number, ready)

    def run(self) -> None:
        """Serve until `running` is False."""
        while self.running:
            timeout = min(max(0.0, self.timers[0][0] - time.monotonic()), LONGEST) if self.timers else None
            ready = [(fd, self.handlers.get(fd), events) for fd, events in self.epoll.poll(timeout)]
            for fd, handler, events in ready:
                # an earlier handler may have closed the descriptor, and its number may be another's by now
                if handler is not None and self.handlers.get(fd) is handler:
                    self._call(lambda handler=handler, events=events: handler(events))  # type: ignore[misc]
            while self.timers and self.timers[0][0] <= time.monotonic():
                self._call(heapq.heappop(self.timers)[2])

    def _call(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception:
            # one container's trouble must not be another's: say it in the supervisor's log and go on
            traceback.print_exc(file=sys.stderr)
            LOG.error("a handler failed: " + traceback.format_exc(limit=1).splitlines()[-1])
