"""The supervisor's own protocol: one JSON object a line over a Unix stream socket, descriptors beside a line.

A request has `id` and `do`; its answer repeats the `id`. Requests on one connection do not wait for each other, so a
client may send a hundred starts and read a hundred answers. Only root and the supervisor's own user may speak.

    list      lxcpath?, detail                     → containers: what Live.describe says of each that is not STOPPED
    get       lxcpath, name, detail                → container or null
    start     options (launcher.Options), fds      → pid | already | error
    signal    lxcpath, name, signal: halt|reboot|stop; halt and stop call off a restart that is due
    expect    lxcpath, name, end                   its end is wanted, or is not any more: lxcpy.restart
    wait      lxcpath, name, states                → state; STOPPED at once for one that does not run
    console   lxcpath, name, tty (-1 any, 0 console) → tty, and its master; held until the connection closes
    winsize   lxcpath, name, rows, columns         of the console
    subscribe                                      → an object for each change of a state
    status
    quit
    reexec    python, path                         → the code found there goes on in this process, with all of this
"""

from __future__ import annotations

import array
import json
import os
import select
import socket
import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from lxcpy import log
from lxcpy.errors import LxcpyError, StateError
from lxcpy.runtime import packing
from lxcpy.runtime.launcher import Options
from lxcpy.runtime.packing import Parcel
from lxcpy.runtime.starting import Asked, Starting

if TYPE_CHECKING:
    from lxcpy.runtime.live import Live
    from lxcpy.runtime.supervisor import Supervisor

LOG = log.Log("requests")
LINE_LIMIT = 1 << 22  # bytes of one request: an environment may be 2 MiB
OUTPUT_LIMIT = 1 << 26  # bytes a client may leave unread before it is cut off


class StartReply:
    """The answer to a start."""

    def __init__(self, connection: Connection, number: Any, live: Live, *, foreground: bool, piped: bool) -> None:
        self.connection = connection
        self.number = number
        self.live = live
        self.foreground = foreground  # the container ends with its client
        self.piped = piped  # the client's descriptors are init's standard ones

    def __call__(self, answer: Mapping[str, Any]) -> None:
        master = None
        if self.foreground and "pid" in answer and not answer.get("already"):
            if self.connection.closed:
                self.live.signal("stop")
                return
            still = [live for live in self.connection.foreground if live.pidfd is not None]
            self.connection.foreground = [*still, self.live]
            # attached before the first byte of it is read
            if self.live.console is not None and not self.piped:
                master = self.live.console.attach()
        self.connection.send({"id": self.number, **answer}, [master.number] if master else [])
        if master:
            master.close()


class Waiter(NamedTuple):
    """A client that waits for one of some states."""

    states: frozenset[str]
    connection: Connection
    number: Any

    def reached(self, live: Live, state: str) -> None:
        """Tell it."""
        self.connection.send({"id": self.number, "status": live.status, "state": state})


class Subscription(NamedTuple):
    """A client that wants to know of every change of a state."""

    connection: Connection
    number: Any

    def tell(self, event: Mapping[str, Any]) -> None:
        self.connection.send({"id": self.number, **event})


class Connection:
    """One client."""

    def __init__(self, supervisor: Supervisor, sock: socket.socket, packed: Mapping[str, Any] | None = None) -> None:
        """packed: what `pack` said of it, for the one that goes on with it."""
        self.supervisor = supervisor
        self.loop = supervisor.loop
        self.socket = sock
        self.number = sock.fileno()
        self.input = bytearray()
        self.output: list[tuple[bytes, list[int]]] = []
        self.unsent = 0
        self.fds: list[int] = []
        self.closed = False
        self.held: set[tuple[str, str]] = set()  # lxcpath and name: it has a tty of that one, or waits for it
        self.foreground: list[Live] = []  # containers that end with this client
        sock.setblocking(False)
        self.loop.watch(self.number, self._ready)
        _pid, uid, _gid = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        if uid not in (0, os.geteuid()):
            self.close()
        if packed:
            self.input = bytearray(packing.data(packed["input"]))
            self.output = [(packing.data(line), fds) for line, fds in packed["output"]]
            self.unsent = sum(len(line) for line, _fds in self.output)
            self.fds = packed["fds"]
            if self.output:
                self.loop.change(self.number, select.EPOLLIN | select.EPOLLOUT)

    def pack(self, parcel: Parcel) -> dict[str, Any]:
        """It as data, but for the containers that it has to do with."""
        return {
            "socket": parcel.keep(self.number),
            "input": packing.text(self.input),
            "output": [[packing.text(line), parcel.keep_all(fds)] for line, fds in self.output],
            "fds": parcel.keep_all(self.fds),
        }

    # -- transport -------------------------------------------------------------------------------------------------

    def _ready(self, events: int) -> None:
        if events & select.EPOLLOUT:
            self._flush()
        if events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR) and not self.closed:
            self._read()

    def _read(self) -> None:
        try:
            data, ancillary, _flags, _address = self.socket.recvmsg(
                1 << 18, socket.CMSG_SPACE(16 * 4), socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            data, ancillary = b"", []
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds = array.array("i")
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
                self.fds += fds
        if not data or len(self.input) + len(data) > LINE_LIMIT or len(self.fds) > 64:
            self.close()
            return
        self.input += data
        while not self.closed:
            line, newline, rest = self.input.partition(b"\n")
            if not newline:
                return
            self.input = bytearray(rest)
            self._request(bytes(line))

    def send(self, message: dict[str, Any], fds: list[int] | None = None) -> None:
        """Queue one line; `fds` are copied for the wait and closed once sent."""
        if self.closed:
            return
        line = json.dumps(message).encode() + b"\n"
        self.output.append((line, [os.dup(fd) for fd in fds or []]))
        self.unsent += len(line)
        if self.unsent > OUTPUT_LIMIT:
            self.close()
            return
        self._flush()

    def _flush(self) -> None:
        while self.output:
            line, fds = self.output[0]
            ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
            try:
                sent = self.socket.sendmsg([line], ancillary, socket.MSG_NOSIGNAL)
            except BlockingIOError:
                self.loop.change(self.number, select.EPOLLIN | select.EPOLLOUT)
                return
            except OSError:
                self.close()
                return
            for fd in fds:
                os.close(fd)
            self.unsent -= sent
            if sent < len(line):
                self.output[0] = (line[sent:], [])
            else:
                self.output.pop(0)
        if not self.closed:
            self.loop.change(self.number, select.EPOLLIN)

    def close(self) -> None:
        """The client has gone, or has to."""
        if self.closed:
            return
        self.closed = True
        self.loop.forget(self.number)
        self.socket.close()
        for _line, fds in self.output:
            for fd in fds:
                os.close(fd)
        for fd in self.fds:
            os.close(fd)
        self.supervisor.connections.discard(self)
        self.supervisor.subscribers = [other for other in self.supervisor.subscribers if other.connection is not self]
        self.supervisor.touch()
        for lxcpath, name in self.held:
            live = self.supervisor.live(lxcpath, name)
            if live is not None:
                live.forget(self)
        # lxc-start -F killed takes its container along
        for live in self.foreground:
            if live.pidfd is not None:
                live.signal("stop")
        for live in list(self.supervisor.containers.values()):
            if live.starting is not None and self._awaits(live.starting):
                live.starting.abort()

    def _awaits(self, starting: Starting) -> bool:
        """Is it the client of that start, and in its foreground?"""
        reply = starting.asked.reply
        return isinstance(reply, StartReply) and reply.connection is self and reply.foreground

    # -- requests --------------------------------------------------------------------------------------------------

    def _request(self, line: bytes) -> None:
        number: Any = None
        try:
            request = json.loads(line)
            number = request.get("id")
            verb = getattr(self, "_do_" + str(request["do"]), None)
            if verb is None:
                raise StateError(f'unknown request "{request["do"]}"', hint="the supervisor is older than this command")
            verb(number, request)
        except LxcpyError as error:
            self.send({"id": number, "error": error.to_dict()})
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self.send({"id": number, "error": StateError(f"malformed request: {error!r}").to_dict()})
        except OSError as error:
            self.send({"id": number, "error": StateError(str(error)).to_dict()})

    def _running(self, request: dict[str, Any]) -> Live:
        live = self.supervisor.live(request["lxcpath"], request["name"])
        if live is None or live.pidfd is None:
            raise StateError(f"{request['name']} is not running")
        return live

    def _do_list(self, number: Any, request: dict[str, Any]) -> None:
        lxcpath = request.get("lxcpath")
        found = [
            {**live.describe(request.get("detail") or {}), "lxcpath": live.lxcpath}
            for live in list(self.supervisor.containers.values())
            if lxcpath is None or live.lxcpath == lxcpath
        ]
        self.send({"id": number, "containers": found})

    def _do_get(self, number: Any, request: dict[str, Any]) -> None:
        live = self.supervisor.live(request["lxcpath"], request["name"])
        found = live.describe(request.get("detail") or {}) if live else None
        self.send({"id": number, "container": found})

    def _do_start(self, number: Any, request: dict[str, Any]) -> None:
        options = Options(**request["options"])
        count = int(request.get("fds") or 0)
        stdio, self.fds = self.fds[:count], self.fds[count:]
        live = self.supervisor.obtain(options.lxcpath, options.name)

        foreground = bool(request.get("foreground"))
        if foreground:
            options = options._replace(restart=False)
        reply = StartReply(self, number, live, foreground=foreground, piped=count > 0)
        live.start(Asked(options, stdio, reply))

    def _do_signal(self, number: Any, request: dict[str, Any]) -> None:
        live = self.supervisor.live(request["lxcpath"], request["name"])
        if live is None:
            raise StateError(f"{request['name']} is not running")
        kind = request["signal"]
        called_off = kind != "reboot" and live.pidfd is None and live.restarts.cancel()
        if not called_off or (kind == "stop" and live.state != "STOPPED"):
            live.signal(kind)
        self.send({"id": number, "ok": True})

    def _do_expect(self, number: Any, request: dict[str, Any]) -> None:
        """Somebody else is about to end it, and that is wanted; or is not any more."""
        self._running(request).restarts.asked("stop" if request["end"] else "reboot")
        self.send({"id": number, "ok": True})

    def _do_wait(self, number: Any, request: dict[str, Any]) -> None:
        states = frozenset(request["states"])
        change = bool(request.get("change"))
        live = self.supervisor.live(request["lxcpath"], request["name"])
        if live is None:
            if "STOPPED" in states and not change:
                self.send({"id": number, "state": "STOPPED"})
                return
            # it may be started later: wait beside it
            live = self.supervisor.obtain(request["lxcpath"], request["name"])
        self.held.add((live.lxcpath, live.name))
        live.wait(Waiter(states, self, number), change=change)

    def _do_console(self, number: Any, request: dict[str, Any]) -> None:
        live = self._running(request)
        tty = int(request["tty"])
        if tty == 0:
            if live.console is None:
                raise StateError(f"{live.name} has no console", hint="lxc.console.path = none switches it off")
            master = live.console.attach()
            if master is None:
                raise StateError(f"the console of {live.name} is in use", hint="one client at a time")
            with master:
                self.send({"id": number, "tty": 0}, [master.number])
            return
        taken = live.ttys.take(tty, self)
        if not taken:
            raise _no_tty(live, tty)
        self.held.add((live.lxcpath, live.name))
        self.send({"id": number, "tty": taken}, [live.ttys.master(taken).number])

    def _do_winsize(self, number: Any, request: dict[str, Any]) -> None:
        live = self._running(request)
        if live.console:
            live.console.resize(int(request["rows"]), int(request["columns"]))
        self.send({"id": number, "ok": True})

    def _do_subscribe(self, number: Any, _request: dict[str, Any]) -> None:
        self.supervisor.subscribers.append(Subscription(self, number))
        self.send({"id": number, "ok": True})

    def _do_status(self, number: Any, _request: dict[str, Any]) -> None:
        self.send({"id": number, **self.supervisor.status()})

    def _do_reexec(self, number: Any, request: dict[str, Any]) -> None:
        from lxcpy.runtime.reexec import Reexec

        if self.supervisor.reexec is not None:
            raise StateError("a re-exec is under way", hint="lxcpy-supervisor status tells when it is over")
        reexec = Reexec(self.supervisor, self, number, python=str(request["python"]), path=list(request["path"]))
        reexec.begin()
        self.supervisor.reexec = reexec

    def _do_quit(self, number: Any, _request: dict[str, Any]) -> None:
        """Leave; containers go on and the next command brings a new supervisor."""
        self.send({"id": number, "ok": True})
        self.supervisor.leave()


class _Gone(Connection):
    """In place of a client that has gone."""

    def __init__(self) -> None:
        self.closed = True


GONE = _Gone()


def _no_tty(live: Live, tty: int) -> StateError:
    count = len(live.ttys.masters)
    if count == 0:
        return StateError(f"{live.name} has no ttys", hint="set lxc.tty.max in its config")
    if tty > count:
        return StateError(f"tty {tty} denied: {live.name} has ttys 1 to {count}", hint="lxc.tty.max sets the number")
    busy = "every tty" if tty < 0 else f"tty {tty}"
    return StateError(f"{busy} of {live.name} is in use", hint="another console is attached")
