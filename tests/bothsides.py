"""A container that real LXC or lxcpy runs, and the commands of both on it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator

from reallxc import CONFIG, make_rootfs

ADDRESS = "10.98.7.6"
EXTRA = f"""\
lxc.net.0.flags = up
lxc.net.0.ipv4.address = {ADDRESS}/24
lxc.start.auto = 1
lxc.group = verbs
"""
Done = subprocess.CompletedProcess[str]


class Box:
    """A container that one side runs and the other works on; run, work: the prefixes of their commands, `lxc-` say."""

    def __init__(self, lxcpath: str, name: str, run: str, work: str) -> None:
        self.lxcpath, self.name = lxcpath, name
        self.run, self.work = run, work
        self.rootfs = f"{lxcpath}/{name}/rootfs"
        make_rootfs(self.rootfs)

    def start(self) -> Box:
        with open(f"{self.lxcpath}/{self.name}/config", "w") as file:
            file.write(CONFIG.replace("empty", "veth").format(name=self.name, rootfs=self.rootfs) + EXTRA)
        done = self.own("start", "-d")
        assert done.returncode == 0, done.stderr
        wait_for(lambda: int(self.status("SigCgt"), 16) >> (signal.SIGPWR - 1) & 1)  # the traps are set
        return self

    def own(self, verb: str, *words: str, **options: object) -> Done:
        """The command of the side that runs the container."""
        return self._call(self.run, verb, *words, **options)

    def tool(self, verb: str, *words: str, **options: object) -> Done:
        """The other side's."""
        return self._call(self.work, verb, *words, **options)

    def ok(self, verb: str, *words: str, **options: object) -> str:
        """The other side's, which must succeed; what it prints."""
        done = self.tool(verb, *words, **options)
        assert done.returncode == 0, f"{done.stdout}{done.stderr}"
        return done.stdout

    def argv(self, verb: str, *words: str) -> list[str]:
        return [f"{self.work}{verb}", "-P", self.lxcpath, "-n", self.name, *words]

    def _call(self, prefix: str, verb: str, *words: str, named: bool = True, **options: object) -> Done:
        name = ["-n", self.name] if named else []
        settings: dict[str, object] = {
            "stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": 60, **options,
        }  # fmt: skip
        argv = [f"{prefix}{verb}", "-P", self.lxcpath, *name, *words]
        return subprocess.run(argv, check=False, **settings)  # type: ignore[call-overload,no-any-return]

    @property
    def state(self) -> str:
        return self.own("info", "-sH").stdout.strip()

    @property
    def pid(self) -> int:
        return int(self.own("info", "-pH").stdout)

    def status(self, word: str) -> str:
        with open(f"/proc/{self.pid}/status") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith(word + ":"))


@contextlib.contextmanager
def background(argv: list[str], **options: object) -> Iterator[subprocess.Popen[bytes]]:
    """A command that runs meanwhile; killed at the end."""
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL, **options) as process:  # type: ignore[call-overload]
        try:
            yield process
        finally:
            process.kill()


def wait_for(condition: Callable[[], object], seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.01)


@contextlib.contextmanager
def on_terminal(argv: list[str]) -> Iterator[tuple[int, int]]:
    """(master, pid) of a command on a terminal of its own; killed at the end."""
    pid, master = pty.fork()
    if pid == 0:
        fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("4H", 24, 120, 0, 0))
        os.execvp(argv[0], argv)
    try:
        yield master, pid
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        os.close(master)


def read_until(master: int, word: bytes, seconds: float = 10) -> bytes:
    """What comes until it holds `word`."""
    data, end = b"", time.monotonic() + seconds
    while word not in data:
        ready, _, _ = select.select([master], [], [], max(end - time.monotonic(), 0))
        assert ready, f"{word!r} does not come: {data!r}"
        try:
            data += os.read(master, 4096)
        except OSError:
            raise AssertionError(f"{word!r} does not come: {data!r}") from None
    return data


def ends(pid: int, seconds: float = 10) -> int:
    """The exit status of a child that is to end."""
    end = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        assert time.monotonic() < end, "it does not end"
        time.sleep(0.01)
