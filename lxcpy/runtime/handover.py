"""Everything that a supervisor knows, as data for the code that goes on in its place.

The process stays the same: its children are still its children, its locks are still held, and descriptors keep their
numbers. So the data names descriptors by number, and containers and clients by their place in a list.
"""

from __future__ import annotations

import socket
import sys
import traceback
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lxcpy import log
from lxcpy.errors import StateError
from lxcpy.kernel.fd import Fd
from lxcpy.runtime import adoption
from lxcpy.runtime.channel import Channel
from lxcpy.runtime.children import NOTHING, Ending
from lxcpy.runtime.consoles import Console, Ttys
from lxcpy.runtime.launcher import Options
from lxcpy.runtime.packing import Parcel
from lxcpy.runtime.pool import Worker
from lxcpy.runtime.requests import GONE, Connection, StartReply, Subscription, Waiter
from lxcpy.runtime.restart import Pending
from lxcpy.runtime.starting import Asked, Starting

if TYPE_CHECKING:
    from lxcpy.runtime.live import Live
    from lxcpy.runtime.supervisor import Supervisor

LOG = log.Log("handover")
VERSION = 2  # of the data; another one is refused, and the old code goes on

Data = Mapping[str, Any]


class Packer:
    """One packing."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor
        self.parcel = Parcel()
        self.connections = list(supervisor.connections)
        self.containers = list(supervisor.containers.values())

    def pack(self, asked_by: tuple[Connection, Any]) -> dict[str, Any]:
        """All of it; asked_by: who asked for the re-exec, and the number of the request."""
        supervisor, keep = self.supervisor, self.parcel.keep
        return {
            "version": VERSION,
            "asked_by": [self._client(asked_by[0]), asked_by[1]],
            "lock": keep(supervisor.lock),
            "listener": keep(supervisor.listener.fileno()),
            "connections": [self._connection(connection) for connection in self.connections],
            "containers": [self._live(live) for live in self.containers],
            "subscribers": [[self._client(one.connection), one.number] for one in supervisor.subscribers],
            "children": [
                [pid, keep(pidfd), ending.what, self._container(ending.live), ending.reboot, ending.bare]
                for pid, (pidfd, ending) in supervisor.children.known.items()
            ],
            "queue": [self._container(starting.live) for starting in supervisor.queue],
        }

    def _client(self, connection: object) -> int:
        """Its place in the list; -1 when it has gone."""
        return self.connections.index(connection) if connection in self.connections else -1

    def _container(self, live: Live | None) -> int:
        return self.containers.index(live) if live in self.containers else -1

    def _connection(self, connection: Connection) -> dict[str, Any]:
        return {
            **connection.pack(self.parcel),
            "held": sorted(connection.held),
            "foreground": sorted({self._container(live) for live in connection.foreground} - {-1}),
        }

    def _live(self, live: Live) -> dict[str, Any]:
        keep = self.parcel.keep
        lent = live.server.target.lent_console if live.server else None  # type: ignore[attr-defined]
        return {
            "lxcpath": live.lxcpath,
            "name": live.name,
            "state": live.state,
            "record": live.record,
            "status": live.status,
            "pid": live.pid,
            "pidfd": keep(live.pidfd.number if live.pidfd else -1),
            "netlink": keep(live.netlink.fileno() if live.netlink else -1),
            "console": live.console.pack(self.parcel) if live.console else None,
            "ttys": live.ttys.pack(self.parcel, self._holder),
            "remaking": live.remaking,
            "stop_asked": live.stop_asked,
            "namespaces": {name: keep(fd) for name, fd in live.namespaces.items()},
            "server": live.server.pack(self.parcel) if live.server else None,
            "lent": keep(lent.number if lent is not None and not lent.closed else -1),
            "waiters": [
                [sorted(waiter.states), self._client(waiter.connection), waiter.number] for waiter in live.waiters
            ],
            "starting": self._starting(live.starting) if live.starting else None,
            "asked": [self._asked(asked) for asked in live.asked],
            "restart": live.restarts.pending._asdict() if live.restarts.pending else None,
            "unwanted": live.restarts.unwanted,
        }

    def _holder(self, holder: object) -> object:
        """A client of ours by its place, one of LXC's as it is."""
        return self._client(holder) if isinstance(holder, Connection) else holder

    def _starting(self, starting: Starting) -> dict[str, Any]:
        worker = starting.worker
        return {
            "asked": self._asked(starting.asked),
            "worker": [worker.pid, self.parcel.keep(worker.channel.fileno())] if worker else None,
            "waiting": starting.waiting,
            "signalled": starting.signalled,
        }

    def _asked(self, asked: Asked) -> dict[str, Any]:
        reply = asked.reply
        return {
            "options": asked.options._asdict(),
            "stdio": self.parcel.keep_all(asked.stdio),
            "reply": None
            if not isinstance(reply, StartReply)
            else [self._client(reply.connection), reply.number, reply.foreground, reply.piped],
        }


class Unpacker:
    """One unpacking, into a supervisor that knows nothing yet. Sends nothing and closes nothing: it may be a trial."""

    def __init__(self, supervisor: Supervisor, data: Data) -> None:
        self.supervisor = supervisor
        self.data = data
        if data.get("version") != VERSION:
            raise StateError(f"the hand-over has version {data.get('version')}, not {VERSION}")

    def unpack(self) -> tuple[Connection | None, Any]:
        """Take everything over; who asked for the re-exec, and the number of the request. Raises for bad data."""
        data, supervisor = self.data, self.supervisor
        supervisor.begin(socket.socket(fileno=data["listener"]), data["lock"])
        self.connections = [
            Connection(supervisor, socket.socket(fileno=one["socket"]), one) for one in data["connections"]
        ]
        supervisor.connections.update(self.connections)
        self.containers = [supervisor.obtain(one["lxcpath"], one["name"]) for one in data["containers"]]
        for live, one in zip(self.containers, data["containers"], strict=True):
            try:
                self._live(live, one)
            except Exception:
                traceback.print_exc(file=sys.stderr)
                raise StateError(f"{live.name} could not be taken over") from None
        for connection, one in zip(self.connections, data["connections"], strict=True):
            connection.held = {(lxcpath, name) for lxcpath, name in one["held"]}
            connection.foreground = [self.containers[index] for index in one["foreground"]]
        for index, number in data["subscribers"]:
            supervisor.subscribers.append(Subscription(self._client(index), number))
        for pid, pidfd, what, index, reboot, bare in data["children"]:
            ending = Ending(what, self._container(index), reboot, bare) if what else NOTHING
            supervisor.children.watch(pid, Fd(pidfd), ending)
        for index in data["queue"]:
            starting = self.containers[index].starting
            if starting is not None:
                supervisor.queue.append(starting)
        index, number = data["asked_by"]
        return self._client(index) if index >= 0 else None, number

    def resume(self) -> None:
        """What only the one that goes on may do: work that was under way."""
        for live, one in zip(self.containers, self.data["containers"], strict=True):
            if one["remaking"]:
                adoption.restore_terminals(live)
            live.restarts.resume()
            live.hurry()
        self.supervisor.launch_next()
        self.supervisor.children.reap_strangers()

    def _client(self, index: int) -> Connection:
        return self.connections[index] if index >= 0 else GONE

    def _container(self, index: int) -> Live | None:
        return self.containers[index] if index >= 0 else None

    def _live(self, live: Live, one: Data) -> None:
        live.state, live.record, live.status, live.pid = one["state"], one["record"], one["status"], one["pid"]
        live.stop_asked = one["stop_asked"]
        if one["pidfd"] >= 0:
            live.pidfd = Fd(one["pidfd"])
        if one["netlink"] >= 0:
            live.netlink = socket.socket(fileno=one["netlink"])
        if one["console"]:
            live.console = Console(live.loop, Fd(one["console"]["master"]), live.config, one["console"])
        live.ttys = Ttys.unpack(one["ttys"], self._holder)
        live.namespaces = dict(one["namespaces"])
        if one["server"]:
            target = live.open_server(one["server"])
            target.lent_console = Fd(one["lent"]) if one["lent"] >= 0 else None
        live.waiters = [Waiter(frozenset(states), self._client(at), number) for states, at, number in one["waiters"]]
        live.asked.extend(self._asked(live, asked) for asked in one["asked"])
        if one.get("restart"):
            live.restarts.pending = Pending(**one["restart"])
        live.restarts.unwanted = bool(one.get("unwanted"))
        if one["starting"]:
            self._starting(live, one["starting"])

    def _holder(self, name: Any) -> object:
        return tuple(name) if isinstance(name, list) else self._client(name)

    def _starting(self, live: Live, one: Data) -> None:
        live.starting = starting = Starting(live, self._asked(live, one["asked"]))
        starting.waiting, starting.signalled = one["waiting"], one["signalled"]
        if one["worker"]:
            pid, channel = one["worker"]
            starting.watch(Worker(pid, Channel(socket.socket(fileno=channel)), outdated=True))
            if not starting.waiting:
                self.supervisor.launching += 1

    def _asked(self, live: Live, one: Data) -> Asked:
        reply = None
        if one["reply"]:
            index, number, foreground, piped = one["reply"]
            reply = StartReply(self._client(index), number, live, foreground=foreground, piped=piped)
        return Asked(Options(**one["options"]), one["stdio"], reply)
