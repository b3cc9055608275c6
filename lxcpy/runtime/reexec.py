"""A supervisor goes on with other code, in the same process: an upgrade that containers and clients do not notice.

First the new code tries, in a child with copies of every descriptor, to take over a copy of what the supervisor knows;
the supervisor serves on meanwhile. If that works, it executes the new code with the real thing. If that fails after
all, the new code begins once more with nothing, and adopts the containers as after a crash.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

from lxcpy import __version__, log
from lxcpy.errors import LxcpyError, StateError, meaning
from lxcpy.kernel import process, sealed
from lxcpy.kernel.fd import Fd, write_all
from lxcpy.runtime import handover
from lxcpy.runtime import supervisor as supervisors

if TYPE_CHECKING:
    from lxcpy.runtime.requests import Connection
    from lxcpy.runtime.supervisor import Supervisor

LOG = log.Log("reexec")
TRIAL = 30.0  # seconds that the new code may take to take over in the trial
ADOPT = -1  # in place of a record's descriptor


class Reexec:
    """One re-exec, from the request to the exec."""

    def __init__(
        self, supervisor: Supervisor, connection: Connection, number: Any, *, python: str, path: list[str]
    ) -> None:
        self.supervisor = supervisor
        self.loop = supervisor.loop
        self.asked_by = (connection, number)
        self.python = python
        self.path = path
        self.said = b""
        self.child = 0

    def begin(self) -> None:
        """Start the trial; the rest follows. Raises OSError."""
        reader, writer = os.pipe2(os.O_CLOEXEC)
        self.reader = Fd(reader)
        with Fd(writer):
            record, fds = self._pack()
            with record:
                pid, pidfd = self.supervisor.fork()
                if pid == 0:
                    self._try(record.number, [*fds, record.number, writer], writer)
        self.child = pid
        self.supervisor.children.watch(pid, Fd(pidfd))
        self.loop.watch(reader, self._tried)
        self.loop.after(TRIAL, self._too_late)

    def _pack(self) -> tuple[Fd, list[int]]:
        """Everything in a memory file, and the descriptors that it names."""
        packer = handover.Packer(self.supervisor)
        data = json.dumps(packer.pack(self.asked_by)).encode()
        record = Fd(os.memfd_create("handover", os.MFD_CLOEXEC))
        write_all(record.number, data)
        return record, sorted(packer.parcel.fds)

    def _try(self, record: int, fds: list[int], writer: int) -> NoReturn:
        try:
            self.supervisor.shed(fds)
            _execute(self.python, self.path, fds, f"resume({record}, {self._locks()}, trial={writer})")
        except OSError as error:
            os.write(writer, f'cannot run "{self.python}": {meaning(error)}'.encode())
        finally:
            os._exit(1)

    def _locks(self) -> str:
        return f"{self.supervisor.lock}, {self.supervisor.listener.fileno()}"

    def _tried(self, _events: int) -> None:
        data = os.read(self.reader.number, 4096)
        self.said += data
        if data:
            return
        self.loop.forget(self.reader.number)
        self.reader.close()
        lines = self.said.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        if lines[-1] == "ready":
            self._go()
        else:
            self._give_up(lines[-1])

    def _too_late(self) -> None:
        if self.supervisor.reexec is self and not self.reader.closed:
            self.said = b"it took too long"
            process.pidfd_send_signal(self.supervisor.children.known[self.child][0], signal.SIGKILL)

    def _give_up(self, why: str) -> None:
        self.supervisor.reexec = None
        error = StateError(
            f"the new code cannot take over: {why}",
            hint="the supervisor goes on with the old code; --adopt replaces it and closes open consoles",
        )
        self.asked_by[0].send({"id": self.asked_by[1], "error": error.to_dict()})

    def _go(self) -> None:
        record, fds = self._pack()
        with record:
            try:
                call = f"resume({record.number}, {self._locks()})"
                _execute(self.python, self.path, [*fds, record.number], call)
            except OSError as error:
                for fd in fds:
                    os.set_inheritable(fd, False)
                self._give_up(f'cannot run "{self.python}": {meaning(error)}')


def _execute(python: str, path: list[str], fds: list[int], call: str) -> None:
    """Become `python`, calling a function of this module, with the descriptors 0 to 2 and `fds`. Raises OSError."""
    for fd in fds:
        os.set_inheritable(fd, True)
    code = f"import sys; sys.path[:] = {path!r}; from lxcpy.runtime import reexec; reexec.{call}"
    sealed.execute(python, [python, "-IS", "-c", code], os.environ)


def resume(record: int, lock: int, listener: int, trial: int = -1) -> NoReturn:
    """The new code's side of it; trial: a pipe that gets `ready`, or what is wrong. Never returns."""
    process.close_range(3, 0x7FFFFFFF, process.CLOSE_RANGE_CLOEXEC)
    status = 1
    try:
        supervisor = supervisors.Supervisor()
        if record == ADOPT:
            supervisor.adopt_all(listener, lock)
        else:
            _take_over(supervisor, record, trial)
        status = supervisor.run()
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        if trial >= 0:
            what = error.what if isinstance(error, LxcpyError) else f"{type(error).__name__}: {error}"
            os.write(trial, what.splitlines()[0].encode(errors="replace"))
        elif record != ADOPT:
            # with nothing of what is half taken over: only the lock and the socket go on
            _execute(sys.executable, sys.path, [lock, listener], f"resume({ADOPT}, {lock}, {listener})")
    finally:
        os._exit(status)


def _take_over(supervisor: Supervisor, record: int, trial: int) -> None:
    with os.fdopen(record, "rb") as file:
        file.seek(0)
        unpacker = handover.Unpacker(supervisor, json.loads(file.read()))
    connection, number = unpacker.unpack()
    if trial >= 0:
        os.write(trial, b"ready\n")
        os._exit(0)
    supervisors.settle()
    unpacker.resume()
    LOG.info(f"version {__version__} goes on")
    if connection is not None:
        connection.send({"id": number, **supervisor.status()})
