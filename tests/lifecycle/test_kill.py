"""`kill -9` of the supervisor and of launchers at any moment: the next command works and nothing is left."""

from __future__ import annotations

import os
import random
import select
import signal
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lxcpy.errors import LxcpyError
from lxcpy.kernel import process
from lxcpy.runtime import client, state

if TYPE_CHECKING:
    from conftest import Define

pytestmark = pytest.mark.requires("root", "busybox")


def supervisor_pid() -> int:
    with client.connect() as supervisor:
        return int(supervisor.ask("status")["pid"])


def kill(pid: int) -> None:
    with process.pidfd_open(pid) as pidfd:  # its end is seen before the machine's init has waited for it
        os.kill(pid, signal.SIGKILL)
        assert select.select([pidfd], [], [], 10)[0]


def try_to(call: object) -> None:
    """A command that may lose its supervisor in the middle: then it says so, and is no worse than that."""
    try:
        call()  # type: ignore[operator]
    except LxcpyError:
        pass


def test_a_launcher_whose_supervisor_has_died_leaves_what_runs(box: Define) -> None:
    """It has written that the container runs; the next supervisor would find that true, and undo nothing."""
    one = box("lxc.hook.start-host = sh -c 'kill -9 $(cat $LXCPY_RUN_DIR/supervisor.lock)'\n")
    try_to(one.start)
    deadline = time.monotonic() + 30
    while (record := state.load(one.lxcpath, one.name)) is None or record["state"] != "RUNNING":
        assert time.monotonic() < deadline, record
        time.sleep(0.02)
    time.sleep(0.3)  # to report it takes no time
    assert (one.state, one.init_pid) == ("RUNNING", record["init"][0])
    assert one.sh("echo hello") == "hello\n"


@pytest.mark.parametrize("hook", ["pre-start", "mount", "start-host"])
def test_the_supervisor_dies_while_a_container_starts(box: Define, tmp_path: Path, hook: str) -> None:
    begun = tmp_path / "begun"
    one = box(f"lxc.hook.{hook} = sh -c 'touch {begun}; sleep 2'\n")
    pid = supervisor_pid()
    start = threading.Thread(target=try_to, args=(one.start,))
    start.start()
    deadline = time.monotonic() + 10
    while not begun.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert begun.exists()
    kill(pid)
    start.join()
    assert one.wait(["STOPPED", "RUNNING"], 20)
    Path(one.config_file).write_text(Path(one.config_file).read_text().replace(f"lxc.hook.{hook}", f"#lxc.hook.{hook}"))
    one.start()
    assert one.state == "RUNNING"
    assert one.kill(10)


def test_a_launcher_dies_while_a_container_starts(box: Define, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    one = box(f"lxc.hook.start-host = sh -c 'touch {begun}; sleep 30'\n")
    errors: list[LxcpyError] = []

    def start() -> None:
        try:
            one.start()
        except LxcpyError as error:
            errors.append(error)

    thread = threading.Thread(target=start)
    thread.start()
    deadline = time.monotonic() + 10
    while not begun.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    from lxcpy.runtime import state

    record = state.load(one.lxcpath, one.name)
    assert record is not None
    kill(record["launcher"][0])
    thread.join(20)
    assert [error.what for error in errors] == ["the launcher was killed before the container ran"]
    assert one.state == "STOPPED"


def test_the_supervisor_dies_while_a_container_stops(box: Define, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    one = box(f"lxc.hook.stop = sh -c 'touch {begun}; sleep 1'\n")
    one.start()
    pid = supervisor_pid()
    stop = threading.Thread(target=try_to, args=(one.kill,))
    stop.start()
    deadline = time.monotonic() + 10
    while not begun.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    kill(pid)
    stop.join()
    deadline = time.monotonic() + 20
    while one.state != "STOPPED" and time.monotonic() < deadline:
        time.sleep(0.05)
    assert one.state == "STOPPED"
    one.start()
    assert one.kill(10)


def test_at_random_moments(box: Define) -> None:
    """Moments of starts and stops of several containers; whatever happens, the truth can be asked for."""
    boxes = [box() for _ in range(4)]
    chance = random.Random(7)
    for _ in range(10):
        pid = supervisor_pid()
        threads = [
            threading.Thread(target=try_to, args=(one.start if chance.random() < 0.6 else lambda one=one: one.kill(5),))
            for one in boxes
        ]
        for thread in threads:
            thread.start()
        time.sleep(chance.random() * 0.06)
        kill(pid)
        for thread in threads:
            thread.join(30)
            assert not thread.is_alive()
        for one in boxes:
            state = one.wait(["RUNNING", "STOPPED"], 20)
            running = one.init_pid
            assert bool(running) == (state == "RUNNING")
    for one in boxes:
        if one.state == "RUNNING":
            assert one.kill(10)
        one.start()
        assert one.kill(10)


def test_an_adopted_container_has_terminals_again(box: Define) -> None:
    one = box("lxc.tty.max = 2\nlxc.console.buffer.size = auto\n")
    Path(one.rootfs, "init").write_text(
        "while :; do read line </dev/tty1 && echo got $line >/dev/tty1; echo here >/dev/console; sleep 0.1; done\n"
    )
    one.start()
    kill(supervisor_pid())
    assert one.state == "RUNNING"
    deadline = time.monotonic() + 10
    while True:
        with client.connect() as supervisor:
            try:
                supervisor.ask("console", lxcpath=one.lxcpath, name=one.name, tty=1)
            except LxcpyError:
                assert time.monotonic() < deadline
                time.sleep(0.05)
                continue
            master = supervisor.fds.pop()
            seen = b""
            while b"got word" not in seen:
                assert time.monotonic() < deadline, seen
                os.write(master, b"word\n")
                time.sleep(0.1)
                seen += os.read(master, 4096)
            os.close(master)
            break
    assert one.kill(10)
