"""Runs programs of the target inside it: in namespaces of their own, the host out of sight.

One agent process is the init of a pid namespace whose root is the target; when it ends, however it ends, the kernel
kills what it started and takes its mounts away. So an interrupted bootstrap leaves nothing behind but files.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from lxcpy.bootstrap import shortcuts, sysmounts
from lxcpy.errors import BootstrapError, meaning
from lxcpy.kernel import capability, mount, namespace, nosync, process
from lxcpy.kernel.fd import write_in_root

ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "LC_ALL": "C",
    "LANG": "C",
    "LANGUAGE": "C",
    "TERM": "dumb",
    "SHELL": "/bin/sh",
    "DEBIAN_FRONTEND": "noninteractive",
    "DEBCONF_NONINTERACTIVE_SEEN": "true",
}
# What maintainer scripts need; without mknod, sys_admin and the like a script cannot reach the host's devices, without
# dac_read_search no file of the host by its handle (open_by_handle_at(2)); dac_override lets them read all the same.
_KEPT = {
    "chown", "dac_override", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
    "net_bind_service", "net_raw", "sys_chroot", "audit_write", "setfcap", "sys_nice", "sys_resource", "ipc_lock",
    "linux_immutable", "lease",
}  # fmt: skip
_NAMESPACES = (
    namespace.CLONE_NEWNS | namespace.CLONE_NEWPID | namespace.CLONE_NEWIPC | namespace.CLONE_NEWUTS
)  # fmt: skip
_NONSENSE = "the work inside the new system answers nonsense"
_MESSAGE = 1 << 18  # bytes of a request at most


class Settings(NamedTuple):
    """How programs run.

    hostname: what they see as the machine's name. network: True leaves them the host's network. sync: False makes
    fsync do nothing. persona: of personality(2). log: a descriptor for their output; status: one more for dpkg's
    --status-fd, number STATUS inside; -1 for none. environment: (name, value) besides ENVIRONMENT.
    """

    hostname: str = "localhost"
    network: bool = False
    sync: bool = False
    persona: int = process.PER_LINUX
    log: int = -1
    status: int = -1
    environment: tuple[tuple[str, str], ...] = ()


_INSIDE = "system"  # the target's name in the agent's root
STATUS = 9  # the number under which a program finds the status descriptor


class Chroot:
    """Programs inside `target`: `run` one, or `start` several and `wait` for each; `close` ends them all."""

    def __init__(self, target: str, settings: Settings) -> None:
        """Raises BootstrapError if the namespaces cannot be made."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        flags = _NAMESPACES | (0 if settings.network else namespace.CLONE_NEWNET)
        self._socket: socket.socket | None = ours
        self._environment = {**ENVIRONMENT, **dict(settings.environment)}
        self._next = 0
        self._ended: dict[int, int] = {}
        self._pid = 0
        try:
            self._pid = namespace.clone_among_threads(flags)
        except OSError as error:
            ours.close()
            theirs.close()
            raise BootstrapError(
                f"cannot make namespaces for the work in the new system: {meaning(error)}", hint="run as root"
            ) from error
        if self._pid == 0:
            _Agent(theirs, target, settings).main()
        theirs.close()
        problem = self._receive()
        if "error" in problem:
            self.close()
            raise BootstrapError(f'cannot prepare "{target}" for work inside it: {problem["error"]}')

    def start(
        self, argv: Sequence[str], *, env: Mapping[str, str] | None = None, stdin: str = "", quiet: bool = False
    ) -> int:
        """Start a program (absolute path, no shell); returns what `wait` takes.

        env is added to that of all. quiet: its output is dropped instead of logged.
        """
        self._next += 1
        environment = {**self._environment, **(env or {})}
        self._send({"id": self._next, "argv": list(argv), "env": environment, "stdin": stdin, "quiet": quiet})
        return self._next

    def wait(self, number: int) -> int:
        """The exit status of a started program, -N if signal N ended it. Raises BootstrapError."""
        while number not in self._ended:
            answer = self._receive()
            try:
                self._ended[answer["id"]] = os.waitstatus_to_exitcode(answer["status"])
            except (KeyError, ValueError):
                raise BootstrapError(_NONSENSE) from None
        return self._ended.pop(number)

    def run(self, argv: Sequence[str], **options: Any) -> int:
        """start and wait."""
        return self.wait(self.start(argv, **options))

    def cover(self, path: str, source: str = "", script: str = "") -> None:
        """Let programs find the target's file `source` in place of `path`, or a script (a mount, gone with the agent).

        script: its text, in which shortcuts.REAL stands for a name of what it covers. Before the first program is
        started. Raises BootstrapError.
        """
        self._send({"cover": path, "source": source, "script": script})
        problem = self._receive()
        if "error" in problem:
            raise BootstrapError(f"cannot cover {path}: {problem['error']}")

    def close(self) -> None:
        """Kill all that runs inside and take the mounts away."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._pid > 0:
            process.kill_child(self._pid)
            self._pid = 0

    def __enter__(self) -> Chroot:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, request: dict[str, Any]) -> None:
        data = json.dumps(request).encode()
        if len(data) > _MESSAGE:
            raise BootstrapError(f"a command of {len(data)} bytes is too long")
        assert self._socket is not None
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise BootstrapError(f"the work inside the new system ended: {meaning(error)}") from error

    def _receive(self) -> dict[str, Any]:
        assert self._socket is not None
        data = self._socket.recv(_MESSAGE)
        if not data:
            raise BootstrapError("the work inside the new system ended unexpectedly")
        try:
            answer: dict[str, Any] = json.loads(data)
            # the other side runs what a package brought
            if not isinstance(answer, dict) or (not {"error", "id"} & answer.keys() and answer):
                raise ValueError
            return {key: str(value) if key == "error" else int(value) for key, value in answer.items()}
        except (ValueError, TypeError):
            raise BootstrapError(_NONSENSE) from None


class _Agent:
    """The other side: process 1 of the pid namespace."""

    def __init__(self, channel: socket.socket, target: str, settings: Settings) -> None:
        self.channel = channel
        self.target = target
        self.settings = settings
        self.jobs: dict[int, int] = {}  # pid: request's id
        self.limited = False
        self.last_cap = capability.last_cap()  # asked here: the agent's own root has no /proc

    def main(self) -> None:
        """The process's whole life; does not return."""
        try:
            process.set_pdeathsig(signal.SIGKILL)
            for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM, signal.SIGPIPE):
                signal.signal(number, signal.SIG_IGN)
            self.keep_descriptors()
            try:
                self.enter()
            except OSError as error:
                self.channel.sendall(json.dumps({"error": str(error)}).encode())
                return
            self.channel.sendall(b"{}")
            self.serve()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(0)

    def keep_descriptors(self) -> None:
        """Move what is needed to known numbers, close all else: nothing of the host's stays open."""
        null = os.open("/dev/null", os.O_RDWR)
        log = self.settings.log if self.settings.log >= 0 else null
        status = self.settings.status if self.settings.status >= 0 else null
        held = [os.dup(number) for number in (self.channel.fileno(), log, status, null)]
        high = [os.dup2(number, 200 + place, inheritable=False) for place, number in enumerate(held)]
        process.close_range(3, 199)
        process.close_range(204, 1 << 31)
        self.channel.detach()
        self.channel = socket.socket(fileno=high[0])
        self.log, self.status, self.null = high[1:]
        # Programs inside may open these by /proc/1/fd: no terminal of the caller's among them.
        for number, source in enumerate((self.null, self.log, self.log)):
            os.dup2(source, number)

    def enter(self) -> None:
        """Leave the host's mounts for an empty root with the target in it; mount what programs expect there.

        The target is a chroot below this process's root and not its root itself: maintainer scripts that ask (ischroot,
        by comparing / with /proc/1/root) must learn that there is no init here to restart. Raises OSError.
        """
        mount.mount(None, "/", None, mount.MS_REC | mount.MS_PRIVATE)
        inner = os.open(self.target, os.O_PATH | os.O_DIRECTORY)
        mount.mount("none", self.target, "tmpfs", mount.MS_NOSUID | mount.MS_NODEV, "mode=700,size=16k,nr_inodes=10")
        os.chdir(self.target)
        os.mkdir(_INSIDE, 0o700)
        mount.mount(f"/proc/self/fd/{inner}", _INSIDE, None, mount.MS_BIND)
        os.close(inner)
        try:
            # A target on a file system mounted with nodev or noexec would be of no use; this mount is only ours.
            mount.mount(None, _INSIDE, None, mount.MS_REMOUNT | mount.MS_BIND)
        except PermissionError:
            pass  # in a user namespace the host's flags stay, and so it is for the container
        sysmounts.show_devices(f"{_INSIDE}/dev")
        old = os.open("/", os.O_PATH | os.O_DIRECTORY)
        mount.pivot_root(".", ".")
        os.chdir("/")
        self.outside = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        socket.sethostname(self.settings.hostname)
        with self.inside():
            sysmounts.mount_system()
        # Not before: in a user namespace the kernel mounts /proc and /sys only where the host's are to be seen as well.
        os.fchdir(old)
        mount.umount(".", mount.MNT_DETACH)
        os.close(old)
        os.chdir("/")
        os.setgroups([])
        os.umask(0o022)
        process.set_dumpable(True)  # or /proc/1/root is closed to programs, once user ids were changed to get here
        if self.settings.persona:
            process.personality(self.settings.persona)
        if not self.settings.sync:
            nosync.install()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Resolve paths as the target's programs do."""
        os.chroot(f"/{_INSIDE}")
        os.chdir("/")
        try:
            yield
        finally:
            os.fchdir(self.outside)
            os.chroot(".")

    def serve(self) -> None:
        """Requests in, ends of programs out, until the other side closes."""
        wake, alarm = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(alarm, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        poller = select.poll()
        poller.register(self.channel, select.POLLIN)
        poller.register(wake, select.POLLIN)
        while True:
            for descriptor, _ in poller.poll():
                if descriptor == wake:
                    os.read(wake, 4096)
                    self.reap()
                    continue
                data = self.channel.recv(_MESSAGE)
                if not data:
                    return
                self.handle(json.loads(data))

    def handle(self, request: dict[str, Any]) -> None:
        if "cover" in request:
            try:
                self.cover(request["cover"], request["source"], request["script"])
                answer = {}
            except OSError as error:
                answer = {"error": str(error)}
            self.channel.sendall(json.dumps(answer).encode())
            return
        if not self.limited:
            self.limit()
        pid = os.fork()
        if pid == 0:
            self.become(request)
        self.jobs[pid] = request["id"]

    def cover(self, path: str, source: str, script: str) -> None:
        """Mount the target's `source` over a file, or else a script of our own root, where it finds the file itself.

        Raises OSError.
        """
        with self.inside():
            if script:
                os.fchdir(self.outside)
                number = len(os.listdir("."))
                real, source = f"real{number}", f"script{number}"
                write_in_root(self.outside, real, b"")
                text = script.replace(shortcuts.REAL, f"/proc/1/root/{real}")
                write_in_root(self.outside, source, text.encode(), 0o755)
                mount.mount(path, real, None, mount.MS_BIND)
            mount.mount(source, path, None, mount.MS_BIND)

    def limit(self) -> None:
        """Give up what the programs do not get, once all is mounted.

        They may look at /proc/1/root, as ischroot does, only if process 1 can do no more than they (ptrace(2)).
        """
        kept = {number for number, name in enumerate(capability.CAPABILITIES) if name in _KEPT}
        capability.drop_bounding(set(range(self.last_cap + 1)) - kept)
        kept &= capability.get().permitted
        capability.set(kept, kept, ())
        self.limited = True

    def reap(self) -> None:
        """Collect every process that ended, orphans of maintainer scripts too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            if pid in self.jobs:
                self.channel.sendall(json.dumps({"id": self.jobs.pop(pid), "status": status}).encode())

    def become(self, request: dict[str, Any]) -> None:
        """In the child: turn into the program; does not return."""
        try:
            signal.set_wakeup_fd(-1)
            for number in (*range(1, 32), *range(34, 65)):
                if number not in (signal.SIGKILL, signal.SIGSTOP):
                    signal.signal(number, signal.SIG_DFL)
            os.setsid()
            os.chroot(f"/{_INSIDE}")
            os.chdir("/")
            stdin = self.null
            if request["stdin"]:
                stdin = os.memfd_create("stdin")
                os.write(stdin, request["stdin"].encode())
                os.lseek(stdin, 0, os.SEEK_SET)
            output = self.null if request["quiet"] else self.log
            os.dup2(stdin, 0)
            os.dup2(output, 1)
            os.dup2(output, 2)
            os.dup2(self.status, STATUS)
            os.execve(request["argv"][0], request["argv"], request["env"])
        except OSError as error:
            os.write(2, f"{request['argv'][0]}: {meaning(error)}\n".encode())
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(127)
