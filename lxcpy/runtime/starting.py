"""A start under way, on the supervisor's side: who asked for it, its launcher, and what that one says."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from lxcpy.errors import LxcpyError, StateError, from_dict, meaning
from lxcpy.kernel.fd import Fd
from lxcpy.runtime import joins, launcher, state
from lxcpy.runtime.channel import Closed
from lxcpy.runtime.children import Ending
from lxcpy.runtime.monitor import answer_calls
from lxcpy.runtime.teardown import teardown_apart

if TYPE_CHECKING:
    from lxcpy.runtime.live import Live
    from lxcpy.runtime.pool import Worker

Reply = Callable[[Mapping[str, Any]], None]


class Asked(NamedTuple):
    """A start that somebody asked for."""

    options: launcher.Options
    stdio: list[int]  # ours until the launcher has them
    reply: Reply | None  # None: nobody waits, as in a reboot

    def answer(self, answer: Mapping[str, Any]) -> None:
        """It is over."""
        self.let_go()
        if self.reply is not None:
            self.reply(answer)

    def let_go(self) -> None:
        """Close what standard input, output and error would have been."""
        while self.stdio:
            os.close(self.stdio.pop())


class Starting:
    """One start, from its turn to its end."""

    def __init__(self, live: Live, asked: Asked) -> None:
        self.live = live
        self.supervisor = live.supervisor
        self.asked = asked
        self.worker: Worker | None = None
        self.waiting_in_hook = False  # a hook may take its time: the next start need not wait for it

    def launch(self) -> None:
        """Set a launcher to work; called by the supervisor when there is room for one more."""
        try:
            worker = self.supervisor.pool.hire(self.asked.options, self.asked.stdio)
        except OSError as error:
            self.supervisor.launch_done()
            self.live.start_failed(StateError(f"no launcher could be set to work: {meaning(error)}"))
            return
        self.asked.let_go()
        self.watch(worker)

    def watch(self, worker: Worker) -> None:
        """Listen to the launcher."""
        self.worker = worker
        self.live.loop.watch(worker.channel.fileno(), lambda _events: self._launcher_speaks())

    def _launcher_speaks(self) -> None:
        assert self.worker is not None
        live, pid = self.live, self.worker.pid
        try:
            message, fds = self.worker.channel.receive()
        except Closed:
            self._launched(reuse=False)
            self._launcher_died(pid)
            return
        if "listener" in message:
            record = (live.lxcpath, live.name)
            answer_calls(self.supervisor, Fd(fds[0]), message["listener"], lambda: state.load(*record))
        elif "waiting" in message:
            if not self.waiting_in_hook:
                self.waiting_in_hook = True
                self.supervisor.launch_done()
        else:
            self._launched(reuse=bool(message.get("again")))
            if "failed" in message:
                live.start_failed(from_dict(message["failed"]))
            else:
                live.started(message, fds)

    def _launched(self, *, reuse: bool) -> None:
        assert self.worker is not None
        self.live.loop.forget(self.worker.channel.fileno())
        if reuse:
            self.supervisor.pool.release(self.worker)
        else:
            self.worker.channel.close()
        self.worker = None
        if not self.waiting_in_hook:
            self.supervisor.launch_done()

    def _launcher_died(self, pid: int) -> None:
        """No word before its end: killed. Its record tells what there is to undo."""
        try:
            os.killpg(pid, signal.SIGKILL)  # a hook that it waited for
        except ProcessLookupError:
            pass
        record = state.load(self.live.lxcpath, self.live.name)
        if record is None:
            self.live.undone()
            return
        self.supervisor.in_child(lambda: bury(record), Ending("undo", self.live))


def bury(record: state.Record) -> bool:
    """In a process of its own: end what runs of a container that nobody looks after any more, and undo it."""
    joins.kill_process(record.get("launcher"))
    joins.kill_process(record.get("init"))
    return teardown_apart(record, failed=record["state"] == "STARTING")


def killed() -> LxcpyError:
    """What who asked for a start hears when its launcher was killed."""
    return StateError("the launcher was killed before the container ran", hint="start it again; nothing is left of it")
