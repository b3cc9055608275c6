"""The supervisor's launchers: processes that wait, forked and warm, for a start.

To fork a launcher and to let it touch its pages for the first time costs more than a start itself. So one always waits,
and in a burst each does start after start. One that ran hooks, or failed, is not used again.
"""

from __future__ import annotations

import json
import os
import select
from typing import TYPE_CHECKING

from lxcpy.kernel import process
from lxcpy.kernel.fd import Fd, write_all
from lxcpy.runtime import launching
from lxcpy.runtime.channel import Channel, Closed

if TYPE_CHECKING:
    from lxcpy.runtime.launcher import Options
    from lxcpy.runtime.supervisor import Supervisor

SPARE_AFTER = 0.05  # seconds after a start; not at once, for the start is to have the processor
LEAVE = 5.0  # seconds that those that are free have to leave in, at the end
KEEP = 1.0  # seconds that those beyond the one spare wait for more


class Worker:
    """One launcher process and our end of its channel."""

    def __init__(self, pid: int, channel: Channel, *, outdated: bool = False) -> None:
        self.pid = pid
        self.channel = channel
        self.outdated = outdated  # of the code before a re-exec: it does no more than what it is at


class Pool:
    """The launchers that are free."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.free: list[Worker] = []

    def prepare(self) -> None:
        """See that one waits, unless launchers are at work: those become free."""
        if not self.free and not self.supervisor.launching and self.supervisor.loop.running:
            self.free.append(self._fork(warm=True))

    def hire(self, options: Options, stdio: list[int]) -> Worker:
        """Give a launcher its work, a new one if none is free. Raises OSError."""
        self.supervisor.loop.after(SPARE_AFTER, self.prepare)
        # in a memory file: the caller's environment may be longer than a datagram
        with Fd(os.memfd_create("start", os.MFD_CLOEXEC)) as work:
            write_all(work.number, json.dumps(options._asdict()).encode())
            while True:
                worker = self.free.pop() if self.free else self._fork(warm=False)
                try:
                    worker.channel.send({}, [work.number, *stdio])
                    return worker
                except Closed:
                    worker.channel.close()  # it died while it waited

    def release(self, worker: Worker) -> None:
        """A launcher has done its start and can do another."""
        if worker.outdated:
            worker.channel.close()
            return
        self.free.append(worker)
        self.supervisor.loop.after(KEEP, self._thin_out)

    def _thin_out(self) -> None:
        while len(self.free) > 1:
            self.free.pop(0).channel.close()  # it leaves at the end of its channel

    def _fork(self, *, warm: bool) -> Worker:
        ours, theirs = Channel.pair()
        pid, pidfd = self.supervisor.fork()
        if pid == 0:
            self.supervisor.shed([theirs.fileno()])
            launching.serve(theirs, warm=warm)
        theirs.close()
        worker = Worker(pid, ours)
        self.supervisor.children.watch(pid, Fd(pidfd))
        return worker

    def close(self) -> None:
        """At the supervisor's end: those that are free have left, so that nothing of them is in its control group."""
        free, self.free = self.free, []
        for worker in free:
            worker.channel.close()
        poll = select.poll()
        for worker in free:
            try:
                with process.pidfd_open(worker.pid) as pidfd:
                    poll.register(pidfd.number, select.POLLIN)
                    poll.poll(LEAVE * 1000)
                    poll.unregister(pidfd.number)
            except ProcessLookupError:
                pass

    def ended(self, pid: int) -> None:
        """A child has ended; it may have been one of those that are free."""
        for worker in [worker for worker in self.free if worker.pid == pid]:
            self.free.remove(worker)
            worker.channel.close()
