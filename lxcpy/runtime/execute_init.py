"""The init of lxc-execute: process 1 of a container that runs a single command, process 2.

It runs on in the process that set the container up, so that nothing of the host's is needed inside: no program, no
library. Everything is imported before the change of root. It reaps what is left to it, hands signals on to the command,
ends everybody on SIGTERM or SIGPWR, and leaves when no process is left, with the command's status.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NoReturn

from lxcpy.kernel import process, pty
from lxcpy.runtime.execpath import exec_in_path

GRACE = 1.0  # seconds between SIGTERM and SIGKILL, counted anew whenever a process ends
EXEC_FAILED = 255  # LXC's exit status when there is no such command
_SI_USER = 0
# These say that the program itself is broken.
_FATAL = frozenset((signal.SIGILL, signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGTRAP))


class Identity(NamedTuple):
    """The ids of the command; None: those of init. groups: its further ones where it has ids of its own."""

    uid: int | None = None
    gid: int | None = None
    groups: tuple[int, ...] = ()


def run(argv: Sequence[str], environment: Mapping[str, str], who: Identity) -> NoReturn:
    """Run `argv` with this environment and these ids and be its init until nobody is left. Never returns."""
    status = EXEC_FAILED
    try:
        status = _run(argv, environment, who)
    finally:
        os._exit(status)


def _run(argv: Sequence[str], environment: Mapping[str, str], who: Identity) -> int:
    waited = {number for number in signal.valid_signals() if number not in _FATAL}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    pid = os.fork()
    if pid == 0:
        _become(argv, environment, who, before)
    process.close_range(3, 0x7FFFFFFF)
    process.set_name("init")
    try:
        process.set_title("init")
    except OSError:
        pass  # no procfs inside
    return _Init(pid, waited).serve()


def _become(
    argv: Sequence[str],
    environment: Mapping[str, str],
    who: Identity,
    mask: set[signal.Signals | int],
) -> NoReturn:
    """The command's process. Never returns."""
    try:
        for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
            if signal.getsignal(number) is not signal.SIG_DFL:
                signal.signal(number, signal.SIG_DFL)
        os.setsid()
        try:
            pty.set_controlling(0)
        except OSError:
            pass  # no terminal
        if who != Identity():
            _set_groups(who.groups)
        if who.gid is not None:
            os.setresgid(who.gid, who.gid, who.gid)
        if who.uid is not None:
            os.setresuid(who.uid, who.uid, who.uid)
        process.close_range(3, 0x7FFFFFFF, process.CLOSE_RANGE_CLOEXEC)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        exec_in_path(argv, environment)
    except OSError as error:
        os.write(2, f'lxcpy-init: cannot run "{argv[0]}": {os.strerror(error.errno or 0)}\n'.encode())
    finally:
        os._exit(EXEC_FAILED)


def _set_groups(groups: Sequence[int]) -> None:
    try:
        os.setgroups(groups)
    except PermissionError:
        if groups:
            raise
        # a user namespace that denies it (user_namespaces(7)) has none to drop


class _Init:
    """The loop of process 1."""

    def __init__(self, command: int, signals: set[signal.Signals]) -> None:
        self.command: int | None = command
        self.signals = signals
        self.status = EXEC_FAILED
        self.deadline: float | None = None  # when SIGKILL follows

    def serve(self) -> int:
        """Until no child is left: the command's status."""
        while self._reap():
            info = self._next_signal()
            if info is None:
                self._signal_all(signal.SIGKILL)
                self.deadline = time.monotonic() + GRACE
            elif info.si_signo != signal.SIGCHLD and not self._from_inside(info):
                self._received(info.si_signo)
        return self.status

    def _next_signal(self) -> signal.struct_siginfo | None:
        if self.deadline is None:
            return signal.sigwaitinfo(self.signals)
        return signal.sigtimedwait(self.signals, max(0.0, self.deadline - time.monotonic()))

    def _from_inside(self, info: signal.struct_siginfo) -> bool:
        # A process outside has no number here: 0. Without a pid namespace of our own everybody has one.
        return os.getpid() == 1 and info.si_code == _SI_USER and info.si_pid > 1

    def _received(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGPWR):
            if self.deadline is None:
                self._signal_all(signal.SIGTERM)
                self.deadline = time.monotonic() + GRACE
        elif self.command is not None:
            _kill(self.command, number)

    def _reap(self) -> bool:
        """Collect who has ended; False when nobody is left."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            if self.deadline is not None:
                self.deadline = time.monotonic() + GRACE
            if pid == self.command:
                code = os.waitstatus_to_exitcode(status)
                self.status = code if code >= 0 else 128 - code
                self.command = None

    def _signal_all(self, number: int) -> None:
        if os.getpid() == 1:
            _kill(-1, number)
        else:
            for pid in _descendants(os.getpid()):
                _kill(pid, number)


def _kill(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except OSError:
        pass  # it has gone


def _descendants(pid: int) -> list[int]:
    """Everyone below a process, the youngest generation first."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", "rb") as file:
            children = [int(word) for word in file.read().split()]
    except OSError:
        return []
    return [each for child in children for each in [*_descendants(child), child]]
