"""What the supervisor does for many clients at once: starts in turn, waiters, children that nobody asked for."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lxcpy.errors import LxcpyError
from lxcpy.kernel import process
from lxcpy.runtime import client, foreign

if TYPE_CHECKING:
    from conftest import Define

pytestmark = pytest.mark.requires("root", "busybox")


def until(true: Callable[[], object], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """What each call returned or raised, in order."""
    results: list[Any] = [None] * len(calls)

    def run(index: int, call: Callable[[], Any]) -> None:
        try:
            results[index] = call()
        except LxcpyError as error:
            results[index] = error

    threads = [threading.Thread(target=run, args=pair) for pair in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return results


def test_of_many_starts_one_starts_it_and_the_others_hear_so(box: Define) -> None:
    one = box("lxc.hook.pre-start = sh -c 'sleep 0.3'\n")
    started = at_once(*[one.start] * 8)
    assert sorted(answer.already for answer in started) == [False] + [True] * 7
    assert {answer.pid for answer in started} == {one.init_pid}
    assert one.kill(10)


def test_a_start_behind_one_that_fails_has_its_own_turn(box: Define) -> None:
    """The second brings another configuration: what became of the first says nothing about it."""
    one = box()
    answers = at_once(
        lambda: one.start(define=["lxc.hook.pre-start=sh -c 'sleep 0.5; exit 1'"]),
        lambda: (time.sleep(0.2), one.start())[1],
    )
    assert isinstance(answers[0], LxcpyError)
    assert "pre-start" in answers[0].what
    assert answers[1].already is False
    assert one.kill(10)


def test_who_waits_for_running_hears_of_the_start_after_a_stop(box: Define) -> None:
    one = box()
    one.start()
    heard: list[str | None] = []
    waiter = threading.Thread(target=lambda: heard.append(one.wait(["RUNNING"], 20, change=True)))
    waiter.start()
    time.sleep(0.2)
    assert one.kill(10)
    assert heard == []
    one.start()
    waiter.join(20)
    assert heard == ["RUNNING"]
    assert one.kill(10)


def test_a_foreground_start_whose_client_dies_ends_the_container(box: Define, tmp_path: Path) -> None:
    one = box(f"lxc.hook.start-host = sh -c 'touch {tmp_path}/begun; sleep 1'\n")
    pid = os.fork()
    if pid == 0:
        os.setsid()
        try:
            one.start(foreground=True)
        finally:
            os._exit(0)
    until((tmp_path / "begun").exists)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    until(lambda: one.state == "STOPPED")


def zombies(parent: int) -> list[int]:
    found = []
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        try:
            state = Path(f"/proc/{child}/stat").read_text().rpartition(") ")[2].split()[0]
        except OSError:
            continue
        if state == "Z":
            found.append(int(child))
    return found


def test_what_a_hook_left_running_is_waited_for(box: Define) -> None:
    one = box("lxc.hook.pre-start = sh -c 'sleep 0.7 </dev/null >/dev/null 2>&1 &'\n")
    one.start()
    with client.connect() as supervisor:
        pid = supervisor.ask("status")["pid"]
    time.sleep(1)
    until(lambda: not zombies(pid), 5)
    assert one.kill(10)
    until(lambda: not zombies(pid), 5)


def test_a_hanging_post_stop_hook_of_a_dead_container_holds_up_no_new_supervisor(box: Define, tmp_path: Path) -> None:
    hanging, other = box(f"lxc.hook.post-stop = sh -c 'touch {tmp_path}/begun; sleep 4'\n"), box()
    hanging.start()
    with client.connect() as supervisor:
        pid = supervisor.ask("status")["pid"]
    init = hanging.init_pid
    with process.pidfd_open(pid) as pidfd:
        os.kill(pid, signal.SIGKILL)
        os.kill(init, signal.SIGKILL)
        assert select.select([pidfd], [], [], 10)[0]
    begin = time.monotonic()
    other.start()
    assert hanging.state == "STOPPING"
    assert other.kill(10)
    assert time.monotonic() - begin < 3
    assert (tmp_path / "begun").exists()
    assert hanging.wait(["STOPPED"], 10) == "STOPPED"
    hanging.start()
    assert hanging.kill(10)


def test_at_its_end_its_own_groups_go(box: Define) -> None:
    box().start()
    with client.connect() as supervisor:
        pid = supervisor.ask("status")["pid"]
    with process.pidfd_open(pid) as pidfd:
        os.kill(pid, signal.SIGTERM)
        assert select.select([pidfd], [], [], 30)[0]
    # os.walk does not mind that other sessions' groups go meanwhile
    found = os.walk("/sys/fs/cgroup")
    groups = [Path(top, "lxcpy.supervisor") for top, names, _ in found if "lxcpy.supervisor" in names]
    mine = os.environ["LXCPY_RUN_DIR"].encode()

    def gone(group: Path) -> bool:
        """Removed, or another session's supervisor is in it."""
        try:
            pids = (group / "cgroup.procs").read_text().split()
            return bool(pids) and not any(mine in Path(f"/proc/{pid}/environ").read_bytes() for pid in pids)
        except OSError:  # it, or a process in it, goes just now
            return not group.exists()

    for group in groups:
        until(lambda group=group: gone(group), 30)


def test_a_shutdown_asked_for_during_the_start_comes_after_it(box: Define, tmp_path: Path) -> None:
    script = f"touch {tmp_path}/begun; while ! test -e {tmp_path}/go; do sleep 0.05; done"
    one = box(f"lxc.hook.start-host = sh -c '{script}'\nlxc.signal.halt = SIGKILL\n")
    started: list[Any] = []
    starter = threading.Thread(target=lambda: started.extend(at_once(one.start)))
    starter.start()
    until((tmp_path / "begun").exists)
    place = {"lxcpath": one.lxcpath, "name": one.name}
    with client.connect() as supervisor:
        stopped = supervisor.send("wait", states=["STOPPED"], change=True, **place)
        supervisor.ask("signal", signal="halt", **place)
        assert one.state == "STARTING"
        (tmp_path / "go").touch()
        supervisor.answer(stopped, 60)
    starter.join(60)
    assert started[0].already is False


@pytest.mark.parametrize("hook", ["pre-start", "start-host", "mount"])
def test_a_start_that_hangs_can_be_aborted(box: Define, tmp_path: Path, hook: str) -> None:
    one = box(f"lxc.hook.{hook} = sh -c 'touch {tmp_path}/begun; sleep 1000'\n")
    answers: list[Any] = []
    starter = threading.Thread(target=lambda: answers.extend(at_once(one.start)))
    starter.start()
    until((tmp_path / "begun").exists)
    with pytest.raises(LxcpyError, match="does not run yet"):
        one.reboot(5)
    assert one.shutdown(0.2) is False  # it does not abort it
    with pytest.raises(LxcpyError, match="is not running"):  # process 0 would be this process's group
        foreign.signal(one.lxcpath, one.name, "halt")
    begin = time.monotonic()
    assert one.kill(10)
    assert time.monotonic() - begin < 3
    starter.join(10)
    assert answers[0].what == "the start was aborted: another command has stopped the container"
    assert one.state == "STOPPED"
