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

SLOW = 1.0  # seconds after which a start keeps no other from its turn
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
        self.waiting = False  # for a hook, or for something else that is slow: it takes nobody's place
        self.signalled = ""  # halt or stop, meanwhile

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

    def _is_slow(self) -> None:
        """It waits for something, such as a hook, which may take its time: the next start need not wait for it."""
        if not self.waiting:
            self.waiting = True
            self.supervisor.launch_done()

    def signal(self, kind: str) -> None:
        """Someone wants it stopped, before it runs. Raises StateError for a reboot."""
        if kind == "reboot":
            raise StateError(f"{self.live.name} does not run yet", hint="lxcpy-stop -k aborts the start")
        if kind == "stop":
            self.abort()
        elif not self.signalled:
            self.signalled = kind

    def abort(self) -> None:
        """At once, perhaps because a hook hangs."""
        self.signalled = "stop"
        if self in self.supervisor.queue:
            self.supervisor.queue.remove(self)
            self.live.start_failed(killed(aborted=True))
        elif self.worker is not None:
            kill_group(self.worker.pid)  # the end of its channel brings the rest
        else:
            self.live.stop_asked = "stop"
            self.live.hurry()

    def watch(self, worker: Worker) -> None:
        """Listen to the launcher."""
        self.worker = worker
        self.live.loop.after(SLOW, lambda: self._is_slow() if self.worker is worker else None)
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
            self._is_slow()
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
        if not self.waiting:
            self.supervisor.launch_done()

    def _launcher_died(self, pid: int) -> None:
        """No word before its end: killed. Its record tells what there is to undo."""
        kill_group(pid)  # a hook that it waited for
        state.forget_writer(self.live.lxcpath, self.live.name, pid)
        record = state.load(self.live.lxcpath, self.live.name)
        if record is None:
            self.live.start_failed(killed(aborted=self.signalled == "stop"))
            return
        self.supervisor.in_child(lambda: bury(record), Ending("undo", self.live))


def kill_group(pid: int) -> None:
    """End a launcher or teardown and its hooks."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def bury(record: state.Record, **how: Any) -> bool:
    """In a process of its own: end what runs of a container that nobody looks after any more, and undo it.

    how: as in teardown_apart.
    """
    joins.kill_group(record.get("launcher"), record["name"])
    joins.kill_process(record.get("init"))
    return teardown_apart(record, **{"failed": record["state"] == "STARTING", **how})


def killed(*, aborted: bool) -> LxcpyError:
    """What who asked for a start hears when its launcher was killed."""
    if aborted:
        return StateError("the start was aborted: another command has stopped the container")
    return StateError("the launcher was killed before the container ran", hint="start it again; nothing is left of it")
