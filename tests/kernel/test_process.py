"""Processes, read back from procfs."""

from __future__ import annotations

import os
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
from probes import requires

from lxcpy.kernel import fd, namespace, proc, process

Isolated = Callable[..., Any]


def _status(pid: int | str = "self") -> dict[str, str]:
    with open(f"/proc/{pid}/status") as file:
        return proc.status(file.read())


def test_pidfd() -> None:
    child = subprocess.Popen(["sleep", "60"])
    with process.pidfd_open(child.pid) as pidfd:
        process.pidfd_send_signal(pidfd.number, signal.SIGTERM)
        assert child.wait() == -signal.SIGTERM
        with pytest.raises(ProcessLookupError, match=r"pidfd_send_signal\("):
            process.pidfd_send_signal(pidfd.number, signal.SIGTERM)
    with pytest.raises(OSError, match="pidfd_open"):
        process.pidfd_open(child.pid)


def test_exit_status_that_another_has_reaped() -> None:
    pid, pidfd = namespace.clone(0)
    if pid == 0:
        os._exit(9)
    with fd.Fd(pidfd):
        assert process.exit_status_of(pidfd) in (None, 9 << 8)
        os.waitpid(pid, 0)
        release = tuple(int(part) for part in os.uname().release.split(".")[:2])
        assert process.exit_status_of(pidfd) == (9 << 8 if release >= (6, 15) else None)


def test_pidfd_getfd() -> None:
    reader, writer = os.pipe()
    with process.pidfd_open(os.getpid()) as me, process.pidfd_getfd(me.number, writer) as copy:
        os.write(copy.number, b"x")
        assert os.read(reader, 1) == b"x"
    os.close(reader)
    os.close(writer)


def test_start_time_and_blocked_signals() -> None:
    with open("/proc/self/stat") as file:
        assert process.start_time(os.getpid()) == proc.stat(file.read()).start_time
    old = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGRTMIN})
    try:
        assert process.blocked_signals(os.getpid()) & 1 << signal.SIGHUP - 1
        assert process.blocked_signals(os.getpid()) & 1 << signal.SIGRTMIN - 1
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, old)


@pytest.mark.parametrize("title", ["[lxcpy monitor] /var/lib/lxc web", "x", "y" * 5000])
def test_title(isolated: Isolated, title: str) -> None:
    def inside() -> tuple[bytes, str]:
        process.set_title(title)
        with open("/proc/self/cmdline", "rb") as file:
            shown = file.read()
        listed = subprocess.run(["ps", "-ww", "-o", "args=", str(os.getpid())], capture_output=True, text=True)
        assert os.fork() or os._exit(0)  # the memory layout is whole
        os.wait()
        return shown, listed.stdout.rstrip("\n")

    shown, listed = isolated(inside)
    assert shown == title.encode() + b"\0"
    assert listed[:100] == title[:100]


def test_name_and_prctls(isolated: Isolated) -> None:
    def inside() -> dict[str, str]:
        process.set_name("a-name-of-more-than-15-bytes")
        process.set_no_new_privs()
        process.set_child_subreaper()
        process.set_dumpable(False)
        process.set_keepcaps(True)
        process.set_pdeathsig(signal.SIGTERM)
        return _status()

    status = isolated(inside)
    assert status["Name"] == "a-name-of-more-"
    assert status["NoNewPrivs"] == "1"


def test_pdeathsig(isolated: Isolated) -> None:
    def inside() -> int:
        process.set_child_subreaper()
        reader, writer = os.pipe()
        middle = os.fork()
        if middle == 0:
            child = os.fork()
            if child == 0:
                process.set_pdeathsig(signal.SIGUSR2)
                os.write(writer, b"ready")
                signal.pause()
            os.read(reader, 5)
            os._exit(0)
        os.waitpid(middle, 0)
        return os.wait()[1]

    assert os.WTERMSIG(isolated(inside)) == signal.SIGUSR2


def test_limits() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        process.prlimit(child.pid, "nofile", 100, 200)
        process.prlimit(child.pid, "core", -1, -1) if os.geteuid() == 0 else None
        assert resource.prlimit(child.pid, resource.RLIMIT_NOFILE) == (100, 200)
    finally:
        child.kill()
        child.wait()
    with pytest.raises(OSError, match='unknown limit "nofiles"'):
        process.prlimit(0, "nofiles", 1, 1)
    with pytest.raises(OSError, match=r"prlimit64\(0, RLIMIT_NOFILE, \{2, 1\}"):
        process.prlimit(0, "nofile", 2, 1)


def test_every_limit_of_the_standard_library_has_our_number() -> None:
    for name, number in process.LIMITS.items():
        known = getattr(resource, f"RLIMIT_{name.upper()}", number)
        assert known == number, name


def test_personality(isolated: Isolated) -> None:
    def inside() -> tuple[int, str]:
        before = process.personality(process.personality_of("i686"))
        return before, os.uname().machine

    before, machine = isolated(inside)
    assert before == process.PER_LINUX
    if os.uname().machine == "x86_64":
        assert machine == "i686"
    with pytest.raises(OSError, match='"z80" is not an architecture'):
        process.personality_of("z80")


def test_close_range(isolated: Isolated) -> None:
    def inside() -> list[bool]:
        high = [os.dup2(0, number) for number in (200, 201, 202)]
        process.close_range(200, 201)
        process.close_range(202, 1 << 32, process.CLOSE_RANGE_CLOEXEC)
        open_ = [os.path.exists(f"/proc/self/fd/{number}") for number in high]
        return [*open_, os.get_inheritable(202)]

    assert isolated(inside) == [False, False, True, False]


@requires("root")
def test_core_scheduling() -> None:
    child = subprocess.Popen(["sleep", "60"])
    try:
        process.core_sched_create(child.pid)
    except OSError as error:
        if error.errno in (19, 22):  # no SMT, or a kernel without it
            pytest.skip(f"no core scheduling here: {error}")
        raise
    finally:
        child.kill()
        child.wait()


def test_the_modules_of_attach_load_little() -> None:
    program = (
        "import sys; sys.path[:0] = sys.argv[1:]\nfrom lxcpy.kernel import fd, namespace, process, pty, capability\n"
    )
    program += "print(*sorted(sys.modules))"
    argv = [sys.executable, "-I", "-S", "-c", program, *sys.path]
    loaded = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.split()
    heavy = {"typing", "re", "enum", "dataclasses", "contextlib", "collections", "logging", "subprocess", "pathlib"}
    assert heavy & set(loaded) == set()


def test_the_status_of_somebody_elses_zombie() -> None:
    """Its parent has not come to wait for it yet."""
    reader, writer = os.pipe()
    parent = os.fork()
    if parent == 0:
        child = os.fork()
        if child == 0:
            os._exit(9)
        os.write(writer, b"%d" % child)
        signal.pause()
    try:
        with process.pidfd_open(int(os.read(reader, 16))) as pidfd:
            assert select.select([pidfd], [], [], 30)[0]
            assert process.exit_status_of(pidfd.number) == 9 << 8
    finally:
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        os.close(reader)
        os.close(writer)
