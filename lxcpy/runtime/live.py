"""One container in the supervisor: its state machine, its descriptors, who waits for it.

    STOPPED → STARTING → RUNNING ⇄ FROZEN          a launcher process makes it run
                  ↓          ↓
              ABORTING → STOPPING → STOPPED         teardown, here or in a process of its own
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from lxcpy import log
from lxcpy.cgroups import control as cgroup_control
from lxcpy.config.load import load_text
from lxcpy.config.model import Config
from lxcpy.errors import LxcpyError, StateError, from_dict
from lxcpy.kernel import namespace, process
from lxcpy.kernel.fd import Fd
from lxcpy.runtime import adoption, joins, launcher, lxcmonitor, state
from lxcpy.runtime.channel import Closed
from lxcpy.runtime.consoles import Console, Ttys
from lxcpy.runtime.lxcserver import Server
from lxcpy.runtime.monitor import answer_calls
from lxcpy.runtime.target import LiveTarget
from lxcpy.runtime.teardown import needs_process, teardown, teardown_apart

if TYPE_CHECKING:
    from lxcpy.runtime.supervisor import Supervisor

LOG = log.Log("supervisor")
Reply = Callable[[dict[str, Any]], None]


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
        self.waiters: list[tuple[frozenset[str], Reply, object]] = []
        self.starters: list[Reply] = []
        self.next_start: launcher.Options | None = None
        self.stdio: list[int] = []
        self.status: int | None = None
        self.failure: dict[str, Any] | None = None

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

    def open_server(self) -> None:
        """Listen on liblxc's command socket: it holds the name against any other monitor. Raises StateError."""
        self.server = Server(self.lxcpath, self.name, LiveTarget(self))
        self.loop.watch(self.server.fileno(), lambda _events: self._serve())

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
            if new in waiter[0]:
                waiter[1]({"state": new})
            else:
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

    def start(self, options: launcher.Options, stdio: list[int], reply: Reply) -> None:
        """Start it, or join a start under way; reply once it runs or has failed."""
        if self.state in ("RUNNING", "FROZEN", "FREEZING", "THAWED"):
            reply({"already": True, "pid": self.pid})
            return
        self.starters.append(reply)
        if self.state == "STARTING":
            return
        if self.state != "STOPPED":
            self.next_start, self.stdio = options, stdio
            return
        self._begin(options, stdio)

    def _begin(self, options: launcher.Options, stdio: list[int]) -> None:
        self.stdio = stdio
        self.failure = None
        self.record = {"name": self.name, "lxcpath": self.lxcpath, "options": options._asdict()}
        if self.server is None:
            try:
                self.open_server()
            except LxcpyError as error:
                self._answer_start(error)
                self.supervisor.drop(self)
                return
        self.set_state("STARTING")
        self.supervisor.queue_launch(self, options)

    def launch(self, options: launcher.Options) -> None:
        """Set a launcher to work; called by the supervisor when there is room for one more."""
        self.worker = self.supervisor.pool.hire(options, self.stdio)
        for fd in self.stdio:
            os.close(fd)
        self.stdio = []
        self.waiting_in_hook = False
        self.loop.watch(self.worker.channel.fileno(), lambda _events: self._launcher_speaks())

    def _launcher_speaks(self) -> None:
        try:
            message, fds = self.worker.channel.receive()
        except Closed:
            self._launched(reuse=False)
            self._launcher_died()
            return
        if "listener" in message:
            words = message["listener"]
            answer_calls(self.supervisor, Fd(fds[0]), words, lambda: state.load(self.lxcpath, self.name))
            return
        if "waiting" in message:
            # a hook may take its time: the next start need not wait for it
            if not self.waiting_in_hook:
                self.waiting_in_hook = True
                self.supervisor.launch_done()
            return
        self._launched(reuse=bool(message.get("again")))
        if "failed" in message:
            self.failure = message["failed"]
            self._start_failed(from_dict(message["failed"]))
        else:
            self._started(message, fds)

    def _launched(self, *, reuse: bool) -> None:
        self.loop.forget(self.worker.channel.fileno())
        if reuse:
            self.supervisor.pool.release(self.worker)
        else:
            self.worker.channel.close()
        if not self.waiting_in_hook:
            self.supervisor.launch_done()

    def _started(self, message: dict[str, Any], fds: list[int]) -> None:
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
        # after the console: who starts in the foreground gets it with the answer
        self._answer_start(None, message["warnings"])

    def take(self, record: state.Record, pidfd: Fd) -> None:
        """A running init is ours to watch: after a start, and when a new supervisor adopts."""
        self.record = record
        self._config = None
        self.pid = record["init"][0]
        self.pidfd = pidfd
        # a copy for the loop: ours must stay valid for signals until the teardown
        self.loop.watch_process(Fd(os.dup(pidfd.number)), self.pid, self._ended)

    def adopt(self, record: state.Record, pidfd: Fd) -> None:
        """A container that an earlier supervisor started, found running."""
        self.open_server()
        self.take(record, pidfd)
        self.state = "RUNNING"
        spaces = joins.namespaces(self.config, record["options"]["share"])
        if "net" in spaces.new or "net" in spaces.share:
            with namespace.open_namespace(self.pid, "net") as netns:
                self.netlink = joins.netlink_in(netns)
        self.current_state()
        adoption.restore_terminals(self)

    def _launcher_died(self) -> None:
        """No word before its end: killed. Its record tells what there is to undo."""
        try:
            os.killpg(self.worker.pid, signal.SIGKILL)  # a hook that it waited for
        except ProcessLookupError:
            pass
        record = state.load(self.lxcpath, self.name)
        if record is not None:
            if record.get("init"):
                joins.kill_process(record["init"])
            self.supervisor.in_child(
                lambda: teardown_apart(record, failed=True),
                lambda _status: self._start_failed(_killed()),
            )
        else:
            self._start_failed(_killed())

    def _start_failed(self, error: LxcpyError) -> None:
        self.set_state("ABORTING")
        self.set_state("STOPPING")
        self._stopped()
        self._answer_start(error)

    def _answer_start(self, error: LxcpyError | None, warnings: Sequence[str] = ()) -> None:
        starters, self.starters = self.starters, []
        for reply in starters:
            reply({"error": error.to_dict()} if error else {"pid": self.pid, "warnings": list(warnings)})

    # -- stop ------------------------------------------------------------------------------------------------------

    def signal(self, kind: str) -> None:
        """Send halt, reboot or stop, as the config defines them. Raises StateError, OSError."""
        if self.pidfd is None:
            raise StateError(f"{self.name} is not running")
        number = joins.signal_for(self.config, kind, self.pid)
        if kind == "stop" and self.current_state() in ("FROZEN", "FREEZING"):
            # a frozen process does not die of SIGKILL on cgroup v1
            process.pidfd_send_signal(self.pidfd.number, number)
            cgroup_control.thaw(self.record["cgroups"])
            return
        if self.current_state() in ("FROZEN", "FREEZING"):
            cgroup_control.thaw(self.record["cgroups"])
        process.pidfd_send_signal(self.pidfd.number, number)

    def _ended(self, status: int | None) -> None:
        """Init has ended: by reboot(2) the kernel says SIGHUP for a reboot and SIGINT for a halt."""
        self.status = status
        reboot = status is not None and os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGHUP
        lxcmonitor.announce_exit(self.lxcpath, self.name, status or 0)
        self.supervisor.publish(self, "EXITED", status=status)
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
                lambda code: self._torn_down(reboot and code == 0),
                keep=list(namespaces.values()),
            )
        else:
            teardown(self.record, quick=True)
            self._torn_down(False)

    def _torn_down(self, reboot: bool) -> None:
        for fd in self.namespaces.values():
            os.close(fd)
        self.namespaces = {}
        options = self.record["options"]
        if reboot:
            self.state = "STOPPED"
            self._begin(launcher.Options(**options), [])
            return
        self._stopped()

    def _stopped(self) -> None:
        self.pid = 0
        if self.server is not None and self.next_start is None:
            self.set_state_last()
        else:
            self.set_state("STOPPED")
        if self.next_start is not None:
            options, self.next_start = self.next_start, None
            self._begin(options, self.stdio)
            return
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

    def wait(self, states: frozenset[str], reply: Reply, owner: object, *, change: bool = False) -> None:
        """Reply when one of `states` is reached; at once when it is already, unless a `change` is waited for."""
        current = self.current_state()
        if current in states and not change:
            reply({"state": current})
        else:
            self.waiters.append((states, reply, owner))

    def forget(self, owner: object) -> None:
        """A client has gone: it waits no more and holds no tty."""
        self.waiters = [waiter for waiter in self.waiters if waiter[2] is not owner]
        self.ttys.release(owner)
        if self.state == "STOPPED" and not self.waiters:
            self.supervisor.drop(self)

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
        if detail.get("network"):
            found["network"] = self.record.get("network")
        return found


def _killed() -> LxcpyError:
    return StateError("the launcher was killed before the container ran", hint="start it again; nothing is left of it")
