"""Namespaces and clone."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from probes import requires

from lxcpy.kernel import fd, namespace, process

pytestmark = requires("root", "namespaces")
Isolated = Callable[..., Any]
NAMES = [name for name in namespace.NAMESPACES if name != "user"]


def _links(pid: int | str = "self") -> dict[str, str]:
    return {name: os.readlink(f"/proc/{pid}/ns/{name}") for name in namespace.NAMESPACES}


def _spoken(flags: int, words: Callable[[], object], **options: Any) -> tuple[str, int]:
    """(what a cloned child says, its wait status)."""
    reader, writer = os.pipe()
    pid, pidfd = namespace.clone(flags, **options)
    if pid == 0:
        try:
            os.write(writer, str(words()).encode())
        finally:
            os._exit(7)
    os.close(writer)
    with fd.Fd(pidfd), os.fdopen(reader) as file:
        said = file.read()
        return said, os.waitpid(pid, 0)[1]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "time"])
def test_clone_makes_each_namespace(name: str) -> None:
    here = os.readlink(f"/proc/self/ns/{name}")
    said, status = _spoken(namespace.NAMESPACES[name], lambda: os.readlink(f"/proc/thread-self/ns/{name}"))
    if name == "pid":  # /proc is that of the namespace outside, where the child is not "self"
        said, status = _spoken(namespace.NAMESPACES[name], os.getpid)
        assert said == "1"
    else:
        assert said.startswith(f"{name}:") and said != here
    assert os.waitstatus_to_exitcode(status) == 7


def test_clone_time_namespace() -> None:
    here = os.readlink("/proc/self/ns/time")
    said, _ = _spoken(namespace.CLONE_NEWTIME, lambda: os.readlink("/proc/self/ns/time"))
    assert said != here


def test_unshare_and_setns(isolated: Isolated) -> None:
    def inside() -> None:
        before = _links()
        with namespace.open_namespace(os.getpid(), "uts") as kept:
            namespace.unshare(namespace.CLONE_NEWUTS)
            assert _links()["uts"] != before["uts"]
            namespace.setns(kept.number, namespace.CLONE_NEWUTS)
        assert _links() == before

    isolated(inside)


def test_setns_by_pidfd(isolated: Isolated) -> None:
    def inside() -> None:
        reader, writer = os.pipe()
        pid, pidfd = namespace.clone(namespace.CLONE_NEWNET | namespace.CLONE_NEWUTS)
        if pid == 0:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
        there = _links(pid)
        namespace.setns(pidfd, namespace.CLONE_NEWNET | namespace.CLONE_NEWUTS)
        assert (_links()["net"], _links()["uts"]) == (there["net"], there["uts"])
        os.close(writer)
        os.waitpid(pid, 0)

    isolated(inside)


def test_the_child_of_clone_is_a_whole_interpreter() -> None:
    """Hooks ran, threads are forgotten, locks and imports work, signals reach it."""
    stop = threading.Event()
    threads = [threading.Thread(target=stop.wait) for _ in range(3)]
    for thread in threads:
        thread.start()
    called: list[str] = []
    os.register_at_fork(before=lambda: called.append("before"), after_in_child=lambda: called.append("child"))

    def words() -> object:
        import colorsys  # takes the import lock  # noqa: F401

        worker = threading.Thread(target=lambda: called.append("thread"))
        worker.start()
        worker.join()
        got: list[int] = []
        signal.signal(signal.SIGUSR1, lambda number, frame: got.append(number))
        os.kill(os.getpid(), signal.SIGUSR1)
        return (
            threading.active_count(),
            called[-3:],
            got == [signal.SIGUSR1],
            threading.get_native_id() == os.getpid(),
        )

    try:
        said, status = _spoken(0, words)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert said == "(1, ['before', 'child', 'thread'], True, True)"
    assert os.waitstatus_to_exitcode(status) == 7
    assert called[-1] == "before"


def _in_a_process_of_its_own(function: str, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"import test_namespace as test; test.{function}()"], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **environment}, cwd=Path(__file__).parent,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")


def test_clone_among_threads_that_hold_malloc() -> None:
    """They inflate without the interpreter's lock, and allocate meanwhile; each child allocates too, and ends.

    With one arena for all threads, which clone alone does not survive: one child of a hundred or so hangs.
    """
    _in_a_process_of_its_own("among_threads", MALLOC_ARENA_MAX="1")
    with pytest.raises(OSError, match="Invalid argument"):
        namespace.clone_among_threads(namespace.CLONE_NEWNS | 0x200)  # CLONE_FS


def among_threads() -> None:
    packed = zlib.compress(bytes(1 << 20))
    _children_end(300, lambda: namespace.clone_among_threads(namespace.CLONE_NEWUTS), lambda: zlib.decompress(packed))


def test_clone_beside_busy_threads() -> None:
    """The interpreter's lock is held across the call: no child waits for a thread that it does not have.

    In a process of its own: a thread of another test, joined but not yet gone, frees its memory and may hold malloc's
    lock at that moment.
    """
    _in_a_process_of_its_own("beside_busy_threads")


def beside_busy_threads() -> None:
    def clone() -> int:
        pid, pidfd = namespace.clone(0)
        if pid:
            os.close(pidfd)
        return pid

    _children_end(20, clone, lambda: sum(range(50)))


def _children_end(count: int, clone: Callable[[], int], busy: Callable[[], object]) -> None:
    """Beside threads that do `busy` over and over, each child allocates and ends."""
    done = threading.Event()

    def go_on() -> None:
        while not done.is_set():
            busy()

    threads = [threading.Thread(target=go_on) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(count):
            pid = clone()
            if pid == 0:
                os._exit(len([bytes(number) for number in range(0, 1000, 100)]))
            pidfd = os.pidfd_open(pid)
            ended = select.select([pidfd], [], [], 60)[0]
            os.close(pidfd)
            if not ended:
                os.kill(pid, signal.SIGKILL)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 10
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_the_pidfd_is_the_childs() -> None:
    pid, pidfd = namespace.clone(0)
    if pid == 0:
        signal.pause()
        os._exit(0)
    assert not os.get_inheritable(pidfd)
    process.pidfd_send_signal(pidfd, signal.SIGKILL)
    assert os.waitid(os.P_PIDFD, pidfd, os.WEXITED).si_status == signal.SIGKILL  # type: ignore[union-attr]
    os.close(pidfd)


def test_clone_parent_makes_a_sibling(isolated: Isolated) -> None:
    def inside() -> tuple[bool, int]:
        reader, writer = os.pipe()
        launcher = os.fork()
        if launcher == 0:
            pid, _ = namespace.clone(namespace.CLONE_NEWPID | namespace.CLONE_NEWNS, parent=True)
            if pid == 0:
                os._exit(9)
            os.write(writer, str(pid).encode())
            os._exit(0)
        os.waitpid(launcher, 0)
        init = int(os.read(reader, 20))
        pid, status = os.waitpid(init, 0)  # only a parent may; and it ended with SIGCHLD, or this would need __WALL
        return pid == init, os.waitstatus_to_exitcode(status)

    assert isolated(inside) == (True, 9)


@requires("cgroup2")
def test_clone_into_a_cgroup() -> None:
    with open("/proc/self/mountinfo") as file:
        place = next(line.split()[4] for line in file if " - cgroup2 " in line)
    group = f"{place}/lxcpy-test-{os.getpid()}"
    os.mkdir(group)
    try:
        with fd.Fd(os.open(group, os.O_RDONLY | os.O_DIRECTORY)) as directory:
            said, _ = _spoken(0, lambda: Path("/proc/self/cgroup").read_text(), cgroup_fd=directory.number)
        assert f"0::/{os.path.basename(group)}" in said.splitlines()
    finally:
        os.rmdir(group)


def test_clone_falls_back_to_the_old_call(isolated: Isolated) -> None:
    """Under a filter that answers clone3 with ENOSYS, as some container managers install."""
    from lxcpy.kernel import seccomp

    if not seccomp.available():
        pytest.skip("libseccomp.so.2 is not installed")

    def inside() -> tuple[str, int]:
        rules = seccomp.Filter(seccomp.ACT_ALLOW)
        rules.add_rule("clone3", seccomp.ACT_ERRNO | 38)
        rules.load()
        said, status = _spoken(namespace.CLONE_NEWPID | namespace.CLONE_NEWNS, os.getpid)
        with pytest.raises(OSError, match="CLONE_NEWTIME") as error:
            namespace.clone(namespace.CLONE_NEWTIME)
        assert error.value.errno == 38
        return said, os.waitstatus_to_exitcode(status)

    assert isolated(inside) == ("1", 7)


def test_a_failing_clone_names_its_flags() -> None:
    with pytest.raises(OSError, match=r"clone3\(\{.*CLONE_INTO_CGROUP, cgroup=999\}\): Bad file descriptor"):
        namespace.clone(0, cgroup_fd=999)
    assert threading.Thread(target=int).start() is None  # the hooks ran in the parent: locks are free
