"""One container in the supervisor: its state machine, its descriptors, who waits for it.

    STOPPED → STARTING → RUNNING ⇄ FROZEN          a launcher process makes it run
                  ↓          ↓
              ABORTING → STOPPING → STOPPED         teardown, here or in a process of its own
"""

from __future__ import annotations

import os
import signal
import socket
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lxcpy import log
from lxcpy.cgroups import control as cgroup_control
from lxcpy.config.load import load_text
from lxcpy.config.model import Config
from lxcpy.errors import LxcpyError, StateError, meaning
from lxcpy.kernel import namespace, process
from lxcpy.kernel.fd import Fd
from lxcpy.runtime import adoption, joins, launcher, lxcmonitor, starting, state
from lxcpy.runtime.children import NOTHING, Ending
from lxcpy.runtime.consoles import Console, Ttys
from lxcpy.runtime.lxcserver import Server, Taken
from lxcpy.runtime.restart import Restarts
from lxcpy.runtime.starting import Asked, Starting
from lxcpy.runtime.target import LiveTarget
from lxcpy.runtime.teardown import needs_process, teardown, teardown_apart

if TYPE_CHECKING:
    from lxcpy.runtime.requests import Connection, Waiter
    from lxcpy.runtime.supervisor import Supervisor

LOG = log.Log("supervisor")
GRACE = 3.0  # seconds that hooks of a stop have left when it is stopped again


class Live:
    """A container that is not STOPPED, or is about to be."""

    def __init__(self, supervisor: Supervisor, lxcpath: str, name: str) -> None:
        self.supervisor = supervisor
        self.loop = supervisor.loop
        self.lxcpath = lxcpath
        self.name = name
        self.state = "STOPPED"
        self.record: state.Record = {}
        self._config: Config | None = None
        self.pid = 0
        self.pidfd: Fd | None = None
        self.netlink: socket.socket | None = None
        self.console: Console | None = None
        self.ttys = Ttys([])
        self.namespaces: dict[str, int] = {}
        self.server: Server | None = None
        self.waiters: list[Waiter] = []
        self.starting: Starting | None = None
        self.asked: deque[Asked] = deque()  # starts whose turn comes when this one, or a stop, is over
        self.status: int | None = None
        self.restarts = Restarts(self)
        self.remaking = False  # its terminals are being made anew
        self.stop_asked = ""  # halt or stop, while it was stopping

    @property
    def config(self) -> Config:
        """The config it was started with; read from the record when it is first asked for."""
        if self._config is None:
            text = self.record.get("text")
            if text is None:
                return Config()
            self._config = load_text(text, self.record["config"])
        return self._config

    # -- state -----------------------------------------------------------------------------------------------------

    def open_server(self, packed: Mapping[str, Any] | None = None) -> LiveTarget:
        """Listen on liblxc's command socket: it holds the name against any other monitor. Raises StateError."""
        target = LiveTarget(self)
        self.server = Server(self.lxcpath, self.name, target, packed)
        self.loop.watch(self.server.fileno(), lambda _events: self._serve())
        return target

    def _serve(self) -> None:
        if self.server is not None:
            self.server.on_readable()

    def set_state(self, new: str, *, announced: bool = False) -> None:
        """Change the state and tell everyone who asked; `announced`: a client of LXC did its part of the telling."""
        if new == self.state:
            return
        self.state = new
        LOG.info(f"{self.name}: {new}")
        self.record["state"] = new
        if not announced:
            lxcmonitor.announce(self.lxcpath, self.name, new)
            if self.server:
                self.server.state_changed(new)
        waiting, self.waiters = self.waiters, []
        for waiter in waiting:
            if new in waiter.states:
                waiter.reached(self, new)
            elif not waiter.connection.closed:
                self.waiters.append(waiter)
        self.supervisor.publish(self, new)

    def current_state(self) -> str:
        """The state as of now: a freeze made through the cgroup file counts too."""
        if self.state in ("RUNNING", "FROZEN"):
            frozen = cgroup_control.frozen(self.record["cgroups"])
            if frozen != (self.state == "FROZEN"):
                self.set_state("FROZEN" if frozen else "RUNNING")
        return self.state

    # -- start -----------------------------------------------------------------------------------------------------

    def start(self, asked: Asked) -> None:
        """Start it once whatever is under way with it is over; the reply comes when it runs or has failed."""
        self.asked.append(asked)
        self._next()

    def _next(self) -> None:
        """One start after the other: those that find it running are told so."""
        while self.asked and self.state not in ("STARTING", "ABORTING", "STOPPING"):
            asked = self.asked.popleft()
            if self.state == "STOPPED":
                self.begin(asked)
            else:
                asked.answer({"already": True, "pid": self.pid})

    def begin(self, asked: Asked) -> None:
        """Start it; it is STOPPED."""
        self.restarts.begins(asked.options)
        self.record = {"name": self.name, "lxcpath": self.lxcpath, "options": asked.options._asdict()}
        if self.server is None:
            try:
                self.open_server()
            except LxcpyError as error:
                # a real LXC's monitor runs it, whose business its pid is
                taken = isinstance(error, Taken)
                asked.answer({"already": True, "pid": 0} if taken else {"error": error.to_dict()})
                self._not_begun(error, taken=taken)
                return
        self.stop_asked = ""
        self.starting = Starting(self, asked)
        self.set_state("STARTING")
        self.supervisor.queue_launch(self.starting)

    def _not_begun(self, error: LxcpyError, *, taken: bool) -> None:
        if taken:
            self.restarts.cancel()
        else:
            self.restarts.failed(error)
            self.restarts.resume()
        self.drop_if_done()

    def started(self, message: Mapping[str, Any], fds: list[int]) -> None:
        """Its launcher says that init runs; fds: what the launcher made, in Launch._report's order."""
        record = state.load(self.lxcpath, self.name)
        assert record is not None
        self.take(record, Fd(fds.pop(0)))
        if message["netlink"]:
            self.netlink = socket.socket(fileno=fds.pop(0))
        if message["console"]:
            self.console = Console(self.loop, Fd(fds.pop(0)), self.config)
        self.ttys = Ttys([Fd(fds.pop(0)) for _ in range(message["ttys"])])
        self.namespaces = {name: fds.pop(0) for name in message["namespaces"]}
        self.set_state("RUNNING")
        asked = "" if self.restarts.runs() else "stop"
        if self.starting is not None:
            asked = self.starting.signalled or asked
        # after the console: who starts in the foreground gets it with the answer
        self._start_over({"pid": self.pid, "warnings": message["warnings"]})
        if asked:
            self.signal(asked)
        self._next()

    def start_failed(self, error: LxcpyError) -> None:
        """Its launcher could not make it run, and has undone everything."""
        self.set_state("ABORTING")
        self.set_state("STOPPING")
        self.restarts.failed(error)
        self._start_over({"error": error.to_dict()})
        self.stopped()

    def undone(self, ending: Ending, status: int | None) -> None:
        """What a killed launcher left is cleared away."""
        if not self._cut_short(ending, status):
            self.start_failed(starting.killed(aborted=self.starting is not None and self.starting.signalled == "stop"))

    def _start_over(self, answer: Mapping[str, Any]) -> None:
        over, self.starting = self.starting, None
        if over is not None:
            over.asked.answer(answer)

    def take(self, record: state.Record, pidfd: Fd) -> None:
        """A running init is ours to watch: after a start, and when a new supervisor adopts."""
        self.record = record
        self._config = None
        self.pid = record["init"][0]
        self.pidfd = pidfd
        # a copy for the loop: ours must stay valid for signals until the teardown
        self.supervisor.children.watch(self.pid, Fd(os.dup(pidfd.number)), Ending("init", self))

    def adopt(self, record: state.Record, pidfd: Fd) -> None:
        """A container that an earlier supervisor started, found running."""
        self.open_server()
        self.take(record, pidfd)
        self.state = "RUNNING"
        spaces = joins.namespaces(self.config, record["options"]["share"])
        if "net" in spaces.new or "net" in spaces.share:
            try:
                with namespace.open_namespace(self.pid, "net") as netns:
                    self.netlink = joins.netlink_in(netns)
            except OSError as error:  # it has just ended: its pidfd says so next
                LOG.warn(f"{self.name}: no view of its network: {meaning(error)}")
        self.current_state()
        adoption.restore_terminals(self)

    def bury(self, record: state.Record) -> None:
        """What an earlier supervisor left of it, dead or half made, is cleared away by a child."""
        try:
            self.open_server()
        except LxcpyError as error:
            LOG.warn(error.what)  # a real LXC's monitor runs one of that name by now
        self.record = record
        self.state = "STOPPING"
        self.supervisor.in_child(lambda: starting.bury(record), Ending("teardown", self))

    # -- stop ------------------------------------------------------------------------------------------------------

    def signal(self, kind: str) -> None:
        """Send halt, reboot or stop, as the config defines them. Raises StateError, OSError.

        Where it does not run yet, halt is for when it does, and stop aborts the start.
        """
        if self.starting is not None:
            self.starting.signal(kind)
            return
        if self.pidfd is None and self.state == "STOPPING" and kind != "reboot":
            self.stop_asked = kind
            self.hurry()
            return
        if self.pidfd is None:
            raise StateError(f"{self.name} is not running")
        self.restarts.asked(kind)
        try:
            self._send(kind, self.pidfd)
        except (FileNotFoundError, ProcessLookupError):
            if kind == "reboot":
                raise StateError(f"{self.name} is not running") from None
            # it has just ended, which the loop sees next

    def _send(self, kind: str, pidfd: Fd) -> None:
        number = joins.signal_for(self.config, kind, self.pid)
        if kind == "stop" and self.current_state() in ("FROZEN", "FREEZING"):
            # a frozen process does not die of SIGKILL on cgroup v1
            process.pidfd_send_signal(pidfd.number, number)
            cgroup_control.thaw(self.record["cgroups"])
            return
        if self.current_state() in ("FROZEN", "FREEZING"):
            cgroup_control.thaw(self.record["cgroups"])
        process.pidfd_send_signal(pidfd.number, number)

    def hurry(self) -> None:
        """Is it to be stopped while it stops? Then its hooks may not take longer than GRACE from now."""
        if self.stop_asked != "stop":
            return
        for pid, entry in self.supervisor.children.known.items():
            if entry[1].live is self and entry[1].what in ("teardown", "undo"):
                self.loop.after(GRACE, lambda pid=pid, entry=entry: self._end_hooks(pid, entry))  # type: ignore[misc]

    def _end_hooks(self, pid: int, entry: tuple[int, Ending]) -> None:
        if self.supervisor.children.known.get(pid) is entry:
            LOG.warn(f"{self.name}: its hooks take too long, they are killed")
            starting.kill_group(pid)  # `_cut_short` does the rest

    def _cut_short(self, ending: Ending, status: int | None) -> bool:
        """Was the process killed that cleared away? Then another does the rest, without hooks."""
        if ending.bare or status is None or not os.WIFSIGNALED(status):
            return False
        record = state.load(self.lxcpath, self.name)
        if record is None:
            return False
        namespaces, failed = self.namespaces, record["state"] == "STARTING"
        self.supervisor.in_child(
            lambda: starting.bury(record, failed=failed, namespaces=namespaces, with_hooks=False),
            ending._replace(bare=True),
            keep=list(namespaces.values()),
        )
        return True

    def ended(self, status: int | None) -> None:
        """Init has ended: by reboot(2) the kernel says SIGHUP for a reboot and SIGINT for a halt."""
        self.status = status
        reboot = status is not None and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGHUP
        lxcmonitor.announce_exit(self.lxcpath, self.name, status or 0)
        self.supervisor.publish(self, "EXITED", status=status)
        self.restarts.ended(status, reboot=reboot)
        self.set_state("STOPPING")
        if self.netlink is not None:
            self.netlink.close()  # it keeps the network namespace alive
            self.netlink = None
        if self.console:
            self.console.close()
            self.console = None
        self.ttys.close()
        self.ttys = Ttys([])
        if self.pidfd:
            self.pidfd.close()
            self.pidfd = None
        target = "reboot" if reboot else "stop"
        if needs_process(self.record) or reboot:
            namespaces = self.namespaces
            self.supervisor.in_child(
                lambda: teardown_apart(self.record, target=target, namespaces=namespaces),
                Ending("teardown", self, reboot),
                keep=list(namespaces.values()),
            )
        else:
            teardown(self.record, quick=True)
            self.torn_down(NOTHING, 0)

    def torn_down(self, ending: Ending, status: int | None) -> None:
        """What it left on the host is removed; it starts again if it rebooted, unless its post-stop hook failed."""
        if self._cut_short(ending, status):
            return
        for fd in self.namespaces.values():
            os.close(fd)
        self.namespaces = {}
        options = self.record["options"]
        if ending.reboot and status == 0 and not self.stop_asked:
            self.state = "STOPPED"
            self.begin(Asked(launcher.Options(**options), [], None))
            return
        self.stopped()

    def stopped(self) -> None:
        """Nothing of it is left: STOPPED, and the turn of the next start."""
        self.pid = 0
        if self.server is not None and not self.asked:
            self.set_state_last()
        else:
            self.set_state("STOPPED")
        self._next()
        self.restarts.resume()
        self.drop_if_done()

    def drop_if_done(self) -> None:
        """Forget it, if it is STOPPED, nobody waits for it and it will not be started again."""
        if self.state == "STOPPED" and not self.asked and not self.waiters and not self.restarts.pending:
            self.supervisor.drop(self)

    def set_state_last(self) -> None:
        """STOPPED: the clients hear it, then the name is free for anyone."""
        assert self.server is not None
        server = self.server
        self.server = None
        server.state_changed("STOPPED")
        self.loop.forget(server.fileno())
        server.close()
        self.set_state("STOPPED")

    # -- questions -------------------------------------------------------------------------------------------------

    def wait(self, waiter: Waiter, *, change: bool = False) -> None:
        """Tell it when one of its states is reached; at once when it is already, unless a `change` is waited for."""
        current = self.current_state()
        if current in waiter.states and not change:
            waiter.reached(self, current)
        else:
            self.waiters.append(waiter)

    def forget(self, client: Connection) -> None:
        """A client has gone: it waits no more and holds no tty."""
        self.waiters = [waiter for waiter in self.waiters if waiter.connection is not client]
        self.ttys.release(client)
        self.drop_if_done()

    def describe(self, detail: Mapping[str, Any]) -> dict[str, Any]:
        """What the light commands show of a running container."""
        found: dict[str, Any] = {
            "name": self.name,
            "state": self.current_state(),
            "pid": self.pid,
            "config": self.record.get("config"),
        }
        if detail.get("addresses") and self.netlink is not None:
            found["addresses"] = joins.addresses(self.netlink)
        if detail.get("cgroups"):
            found["cgroups"] = self.record.get("cgroups")
        if self.restarts.pending or detail.get("restart"):
            found["restart"] = self.restarts.describe()
        if detail.get("network"):
            found["network"] = self.record.get("network")
        return found
