"""The supervisor: one process a user that holds all of that user's containers.

It starts on demand (client.py), is warm, forks a launcher for each start, and leaves when it has been idle. It may die
at any moment: its knowledge stands in the run directory, containers live on, and the next one adopts them.
"""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import resource
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NoReturn

from lxcpy import __version__, log, paths, storage
from lxcpy.cgroups import own as own_cgroup
from lxcpy.config import load as config_load
from lxcpy.config.model import Seccomp
from lxcpy.errors import LxcpyError
from lxcpy.kernel import namespace, process
from lxcpy.kernel.fd import Fd
from lxcpy.runtime import children, lxcmonitor, mapped, restart, state
from lxcpy.runtime.children import NOTHING, Children, Ending
from lxcpy.runtime.live import Live
from lxcpy.runtime.loop import Loop
from lxcpy.runtime.pool import Pool
from lxcpy.runtime.requests import Connection, Subscription
from lxcpy.runtime.starting import Starting
from lxcpy.runtime.teardown import needs_process, teardown
from lxcpy.security import seccomp

if TYPE_CHECKING:
    from lxcpy.runtime.reexec import Reexec

LOG = log.Log("supervisor")
IDLE = 30.0  # seconds without a container or a client before it leaves
PARALLEL = (os.cpu_count() or 1) + 2  # launchers at work at once; one that waits for a hook does not count


class Supervisor:
    """All containers of one user."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.containers: dict[tuple[str, str], Live] = {}
        self.connections: set[Connection] = set()
        self.subscribers: list[Subscription] = []
        self.children = Children(self)
        self.launching = 0
        self.pool = Pool(self)
        self.queue: deque[Starting] = deque()  # starts that wait for a processor
        self.remaking: deque[Live] = deque()  # adopted ones that are to get terminals again
        self.reexec: Reexec | None = None  # one that is under way
        self.started = time.time()
        self.idle_since = time.monotonic()
        self.idle = float(os.environ.get("LXCPY_IDLE") or IDLE)

    # -- life ------------------------------------------------------------------------------------------------------

    def begin(self, listener: socket.socket, lock: int) -> None:
        """Listen to clients; they are answered by `run`. lock: the descriptor that keeps other supervisors out."""
        self.listener, self.lock = listener, lock
        self.loop.watch(listener.fileno(), lambda _events: self._accept())

    def run(self) -> int:
        """Answer until idle, or told to leave: the exit status."""
        self._warm()
        self.loop.after(self.idle, self._leave_if_idle)
        self.loop.run()
        self.pool.close()
        own_cgroup.leave()
        return 0

    def _warm(self) -> None:
        """What every start needs, once; then keep the collector away from it, so that forks share its pages."""
        for preset in ("debian.common.conf", "ubuntu.common.conf"):
            try:
                config_load.load(os.path.join(paths.data_dir("config"), preset))
            except Exception as error:
                LOG.debug(f"preset {preset} not read ahead: {error}")
        storage.backend("dir")
        try:
            seccomp.prepare(Seccomp(profile=os.path.join(paths.data_dir("config"), "common.seccomp")))
        except LxcpyError as error:
            LOG.debug(f"the usual filter is not compiled ahead: {error}")
        mapped.prepare()
        gc.collect()
        gc.freeze()
        self.pool.prepare()

    def _leave_if_idle(self) -> None:
        if self.containers or self.connections:
            self.idle_since = time.monotonic()
        left = self.idle - (time.monotonic() - self.idle_since)
        if left > 0:
            self.loop.after(left, self._leave_if_idle)
            return
        self.leave()

    def leave(self) -> None:
        """End the loop; containers live on. Out of the way first: who connects from now on starts the next one."""
        try:
            os.unlink(socket_path())
        except FileNotFoundError:
            pass  # somebody emptied the run directory
        self.listener.close()
        self.loop.running = False

    def touch(self) -> None:
        """Something happened: not idle."""
        self.idle_since = time.monotonic()

    def _accept(self) -> None:
        while True:
            try:
                sock, _address = self.listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    LOG.error("no descriptor left for another client")
                return
            self.connections.add(Connection(self, sock))

    # -- children --------------------------------------------------------------------------------------------------

    def fork(self) -> tuple[int, int]:
        """(pid, pidfd); (0, -1) in the child, which has to `shed` and to leave with os._exit."""
        pid, pidfd = namespace.clone(0)
        if pid == 0:
            gc.disable()  # a collected socket would close a number that is in use again
            children.at_rest()
        return pid, pidfd

    def shed(self, keep: Iterable[int]) -> None:
        """In a child: close every descriptor but 0 to 2 and `keep`, so that it holds nobody's socket open."""
        log.close()
        first = 3
        for fd in [*sorted({*keep, *mapped.kept()}), 0x7FFFFFFF]:
            if first < fd:
                process.close_range(first, fd - 1)
            first = max(first, fd + 1)

    def in_child(self, work: Callable[[], object], ending: Ending = NOTHING, keep: Iterable[int] = ()) -> None:
        """Run work() in a child of its own, then do what `ending` says; status 1 if work() returned False or raised."""
        pid, pidfd = self.fork()
        if pid == 0:
            code = 1
            try:
                self.shed(keep)
                code = 1 if work() is False else 0
            finally:
                os._exit(code)
        self.children.watch(pid, Fd(pidfd), ending)

    # -- containers ------------------------------------------------------------------------------------------------

    def live(self, lxcpath: str, name: str) -> Live | None:
        """The container, if it is not STOPPED."""
        return self.containers.get((lxcpath, name))

    def obtain(self, lxcpath: str, name: str) -> Live:
        """The container, made known if it was not."""
        return self.containers.setdefault((lxcpath, name), Live(self, lxcpath, name))

    def drop(self, live: Live) -> None:
        """It is STOPPED: forget it."""
        if self.containers.get((live.lxcpath, live.name)) is live:
            del self.containers[(live.lxcpath, live.name)]
        self.touch()

    def queue_launch(self, starting: Starting) -> None:
        """Launch now, or when a launcher is done."""
        self.queue.append(starting)
        self.launch_next()

    def launch_done(self) -> None:
        """A launcher needs no processor any more."""
        self.launching -= 1
        self.launch_next()

    def launch_next(self) -> None:
        """Set launchers to work, as many as may be."""
        while self.queue and self.launching < PARALLEL:
            self.launching += 1
            self.queue.popleft().launch()

    def publish(self, live: Live, new: str, status: int | None = None) -> None:
        """Tell the subscribers."""
        for subscription in list(self.subscribers):
            subscription.tell({"name": live.name, "lxcpath": live.lxcpath, "state": new, "status": status})

    def status(self) -> dict[str, Any]:
        """What it is and what it costs."""
        return {
            "pid": os.getpid(),
            "version": __version__,
            "started": self.started,
            "containers": sum(live.state != "STOPPED" for live in self.containers.values()),
            "clients": len(self.connections),
            "launching": self.launching,
            "queued": len(self.queue),
            "restarting": [
                {"name": live.name, "lxcpath": live.lxcpath, **live.restarts.pending.describe()}
                for live in self.containers.values() if live.restarts.pending
            ],
            **process.memory(),
            "descriptors": len(os.listdir("/proc/self/fd")) - 1,
            "descriptor_limit": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        }

    # -- adoption --------------------------------------------------------------------------------------------------

    def adopt_all(self, listener: int, lock: int) -> None:
        """`begin` and `adopt`, with nothing of an earlier supervisor in this process but two descriptors."""
        settle()
        self.begin(socket.socket(fileno=listener), lock)
        self.adopt()
        self.children.reap_strangers()

    def adopt(self) -> None:
        """Take over what an earlier supervisor left: running containers, and half-made or dead ones to undo."""
        for record in state.load_all():
            if record["state"] in ("RUNNING", "FROZEN", "FREEZING", "THAWED") and self._adopt_running(record):
                continue
            restart.after_death(record)
            self._bury(record)
        for pending in restart.load_all():
            self.obtain(*pending.key).restarts.adopt(pending)

    def _adopt_running(self, record: state.Record) -> bool:
        if not state.process_lives(record.get("init")):
            return False
        try:
            pidfd = process.pidfd_open(record["init"][0])
        except OSError:
            return False
        if not state.process_lives(record["init"]):
            return False  # the pid was given to another in between
        live = self.obtain(record["lxcpath"], record["name"])
        live.adopt(record, pidfd)
        LOG.info(f"adopted {record['name']}")
        return True

    def _bury(self, record: state.Record) -> None:
        """It died, or was half made, when nobody looked. Its hooks may take their time: others need not wait for it."""
        # a launcher that was killed may have left a hook running
        if not needs_process(record) and not record.get("launcher") and not state.process_lives(record.get("init")):
            teardown(record, quick=True)
            lxcmonitor.announce(record["lxcpath"], record["name"], "STOPPED")
        else:
            live = self.obtain(record["lxcpath"], record["name"])
            live.bury(record)
        LOG.info(f"cleaned up after {record['name']}")


def socket_path() -> str:
    """The supervisor's socket."""
    return os.path.join(paths.run_dir(), "supervisor.sock")


def main(ready: int) -> NoReturn:
    """The supervisor's process: `ready` is a pipe that gets `ready`, or what went wrong. Never returns."""
    status = 1
    try:
        status = _serve(ready)
    except OSError as error:
        os.write(ready, f"{error}\n".encode())
    except Exception as error:
        import traceback

        traceback.print_exc(file=sys.stderr)
        os.write(ready, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(status)


def _serve(ready: int) -> int:
    directory = paths.run_dir()
    os.makedirs(directory, 0o711, exist_ok=True)
    lock = os.open(os.path.join(directory, "supervisor.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    deadline = time.monotonic() + 10
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            # another one serves or is just leaving
            if _answers():
                os.write(ready, b"ready\n")
                notify()
                return 0
            if time.monotonic() > deadline:
                os.write(ready, b"another supervisor holds the lock and does not answer\n")
                return 1
            time.sleep(0.02)
    os.ftruncate(lock, 0)
    os.write(lock, f"{os.getpid()}\n".encode())
    settle()
    try:
        os.unlink(socket_path())
    except FileNotFoundError:
        pass
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    old = os.umask(0o177)
    listener.bind(socket_path())
    os.umask(old)
    listener.listen(512)
    supervisor = Supervisor()
    supervisor.adopt()
    supervisor.begin(listener, lock)
    os.write(ready, b"ready\n")
    os.close(ready)
    notify()
    return supervisor.run()


def notify() -> None:
    """Tell systemd, where it wants to know, that commands are answered from now on (sd_notify(3))."""
    address = os.environ.pop("NOTIFY_SOCKET", "")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        try:
            sock.sendto(b"READY=1", "\0" + address[1:] if address[0] == "@" else address)
        except OSError as error:
            LOG.error(f"systemd cannot be told: {error}")


def settle() -> None:
    """What makes a process a supervisor's."""
    process.set_title("lxcpy-supervisor")
    process.set_name("lxcpy-superv")
    process.set_child_subreaper()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise_file_limit()
    own_cgroup.enter()


def _answers() -> bool:
    probe = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.connect(socket_path())
        return True
    except OSError:
        return False
    finally:
        probe.close()


def raise_file_limit() -> None:
    """A container costs up to a dozen descriptors; the usual soft limit of 1024 would end at a hundred of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 65536), max(hard, 65536)))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
