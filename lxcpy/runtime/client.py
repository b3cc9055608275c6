"""The commands' way to the supervisor: a socket and lines of JSON. Import-light.

`connect` brings a supervisor up when there is none; `connect_if_any` does so only when a record says that there is
something to adopt, so that a question about stopped containers costs no process.
"""

from __future__ import annotations

import _socket as socket  # the C half: the whole module costs a light command 6 ms
import errno
import os
import sys
from struct import Struct

from lxcpy import paths
from lxcpy.errors import LxcpyError, StateError, from_dict
from lxcpy.runtime import fastjson, state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Container
    from typing import Any

_INT = Struct("i")
ATTEMPTS = 3  # supervisors that are asked the same question
USERS = ("HOME", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME")  # what an ordinary user's places depend on
READY_TIMEOUT = 20.0  # seconds a new supervisor may take


def pack_fds(fds: list[int]) -> bytes:
    """Descriptors as the payload of SCM_RIGHTS."""
    return b"".join(_INT.pack(fd) for fd in fds)


def unpack_fds(payload: bytes) -> list[int]:
    """Descriptors out of the payload of SCM_RIGHTS; a cut one is left out."""
    return [_INT.unpack_from(payload, at)[0] for at in range(0, len(payload) - _INT.size + 1, _INT.size)]


class Client:
    """One connection; requests may overlap."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.buffer = b""
        self.fds: list[int] = []
        self.serial = 0
        self.early: dict[int, list[dict[str, Any]]] = {}

    def close(self) -> None:
        self.socket.close()
        for fd in self.fds:
            os.close(fd)
        self.fds = []

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def send(self, do: str, fds: list[int] | None = None, **values: Any) -> int:
        """Send a request; its number, for `answer`."""
        self.serial += 1
        message = {"id": self.serial, "do": do, **values}
        if fds:
            message["fds"] = len(fds)
        line = fastjson.dumps(message).encode() + b"\n"
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, pack_fds(fds))] if fds else []
        try:
            sent = self.socket.sendmsg([line], rights, socket.MSG_NOSIGNAL)
            self.socket.sendall(line[sent:])
        except (BrokenPipeError, ConnectionResetError):
            raise lost() from None
        return self.serial

    def receive(self, timeout: float | None = None) -> dict[str, Any]:
        """The next line. Raises TimeoutError; Lost when the supervisor has gone."""
        self.socket.settimeout(timeout)
        while b"\n" not in self.buffer:
            try:
                data, ancillary, _flags, _address = self.socket.recvmsg(
                    1 << 18, socket.CMSG_SPACE(16 * 4), socket.MSG_CMSG_CLOEXEC
                )
            except ConnectionResetError:
                data, ancillary = b"", []
            if not data:
                raise lost()
            for level, kind, payload in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    self.fds += unpack_fds(payload)
            self.buffer += data
        line, _newline, self.buffer = self.buffer.partition(b"\n")
        message: dict[str, Any] = fastjson.loads(line)
        return message

    def answer(self, number: int, timeout: float | None = None) -> dict[str, Any]:
        """The answer to one request. Raises what the supervisor reports, TimeoutError, StateError."""
        while True:
            waiting = self.early.get(number)
            message = waiting.pop(0) if waiting else self.receive(timeout)
            if message.get("id") != number:
                self.early.setdefault(int(message["id"]), []).append(message)
                continue
            if message.get("error"):
                raise from_dict(message["error"])
            return message

    def first(self, numbers: Container[int]) -> tuple[int, LxcpyError | None]:
        """Which of some requests is answered first, and with which error. Raises Lost when there is no answer."""
        while True:
            message = self.receive()
            number = int(message["id"])
            if number in numbers:
                return number, from_dict(message["error"]) if message.get("error") else None
            self.early.setdefault(number, []).append(message)

    def ask(
        self, do: str, *, timeout: float | None = None, fds: list[int] | None = None, **values: Any
    ) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        return self.answer(self.send(do, fds, **values), timeout)


class Lost(StateError):
    """The supervisor went away in the middle of an answer."""


def lost() -> Lost:
    """The error for that."""
    return Lost(
        "the supervisor ended before it answered",
        hint=f"containers live on; repeat the command, and see {os.path.join(paths.run_dir(), 'supervisor.log')}",
    )


def socket_path() -> str:
    """The supervisor's socket."""
    return os.path.join(paths.run_dir(), "supervisor.sock")


def connect_running() -> Client | None:
    """A connection if a supervisor runs; None is started. Raises StateError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(socket_path())
    except (FileNotFoundError, ConnectionRefusedError):
        sock.close()
        return None
    except PermissionError:
        sock.close()
        raise StateError(
            f'the supervisor of "{paths.run_dir()}" is another user\'s: Permission denied',
            hint="run the command with sudo, or without LXCPY_RUN_DIR and with an XDG_RUNTIME_DIR of your own",
        ) from None
    return Client(sock)


def connect_if_any() -> Client | None:
    """A connection if a supervisor runs, or if one is needed to look after containers; else None."""
    client = connect_running()
    if client is None and state.any_records():
        return connect()
    return client


def ask_if_any(do: str, **values: Any) -> dict[str, Any] | None:
    """The answer to a question, which changes nothing: when the supervisor is killed meanwhile, the next one is asked.

    None where there is no supervisor, and nothing for it to look after.
    """
    for left in reversed(range(ATTEMPTS)):
        client = connect_if_any()
        if client is None:
            return None
        try:
            with client:
                return client.ask(do, **values)
        except Lost:
            if not left:
                raise
    return None


def connect() -> Client:
    """A connection; a supervisor is started when none runs. Raises StateError."""
    client = connect_running()
    for _attempt in range(3):
        if client is not None:
            return client
        spawn()
        client = connect_running()
    if client is None:
        raise StateError("the supervisor does not answer", hint=f"see {paths.run_dir()}/supervisor.log")
    return client


def spawn() -> None:
    """Start a supervisor and wait until it answers. Raises StateError with what it said."""
    try:
        os.makedirs(paths.run_dir(), 0o700 if os.geteuid() else 0o711, exist_ok=True)
        if os.stat(paths.run_dir()).st_uid != os.geteuid():
            raise PermissionError(errno.EPERM, "it belongs to another user")
        logfile = os.open(
            os.path.join(paths.run_dir(), "supervisor.log"),
            os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW,
            0o600,
        )
    except OSError as error:
        raise StateError(
            f'cannot use the run directory "{paths.run_dir()}": {error.strerror}',
            hint="XDG_RUNTIME_DIR must name a directory of your own" if os.geteuid() else None,
        ) from error
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        _become_supervisor(logfile, reader, writer)
    os.close(writer)
    os.close(logfile)
    os.waitpid(pid, 0)
    said = _read_all(reader)
    if said.strip() != "ready":
        what = said.strip().splitlines()[-1] if said.strip() else "it said nothing"
        raise StateError(f"the supervisor did not start: {what}", hint=f"see {paths.run_dir()}/supervisor.log")


def _become_supervisor(logfile: int, reader: int, writer: int) -> None:
    """In the child: a new session, an orphan of its own, nothing of the caller's but the library's path."""
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.chdir("/")
        os.umask(0o022)
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(null, 0)
        os.dup2(null, 1)
        os.dup2(logfile, 2)
        os.set_inheritable(writer, True)
        os.closerange(3, writer)
        os.closerange(writer + 1, 4096)
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            f"from lxcpy.runtime.supervisor import main; main({writer})"
        )
        keep = ("LXCPY_RUN_DIR", "LXCPY_CACHE_DIR", "LXCPY_IDLE", "LANG")
        environment = {name: os.environ[name] for name in keep if name in os.environ}
        if os.geteuid():
            environment.update((name, os.environ[name]) for name in USERS if name in os.environ)
        environment["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        from lxcpy.kernel import sealed  # the first process of a container is a child of this one, without an exec

        sealed.execute(sys.executable, ["lxcpy-supervisor", "-IS", "-c", code], environment)
    finally:
        os._exit(1)


def _read_all(fd: int) -> str:
    import select

    text = b""
    while True:
        ready, _w, _x = select.select([fd], [], [], READY_TIMEOUT)
        data = os.read(fd, 4096) if ready else b""
        if not data:
            os.close(fd)
            return text.decode(errors="replace")
        text += data
