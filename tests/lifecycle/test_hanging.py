"""A container whose hook hangs: it delays nobody else, and `lxcpy-stop -k` ends it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lxcpy.errors import LxcpyError
from lxcpy.kernel import process
from lxcpy.runtime import client

if TYPE_CHECKING:
    from conftest import Box, Define

pytestmark = pytest.mark.requires("root", "busybox")
Run = Callable[..., "subprocess.CompletedProcess[str]"]
STARTS = ("pre-start", "pre-mount", "mount", "autodev", "start-host")
STOPS = ("stop", "post-stop")
MANY = (os.cpu_count() or 1) + 4  # more than launchers work at once
PATIENCE = 60.0  # seconds; the machine may be busy


class Hanging:
    """Containers that hang in a hook, and what the commands that wait for them say."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.threads: list[threading.Thread] = []
        self.answers: list[Any] = []

    def hook(self, hook: str) -> str:
        """The config of one: a hook that hangs until the test is over, wherever it runs."""
        return f"lxc.hook.{hook} = sh -c 'touch {self.folder}/$LXC_NAME.{hook}; exec sleep 100000'\n"

    def begin(self, act: Callable[[], Any], one: Box, hook: str) -> None:
        """Start or stop it elsewhere, until the hook hangs."""

        def work() -> None:
            try:
                self.answers.append(act())
            except LxcpyError as error:
                self.answers.append(error)

        self.threads.append(threading.Thread(target=work))
        self.threads[-1].start()
        until((self.folder / f"{one.name}.{hook}").exists)

    def over(self) -> list[Any]:
        """What the commands said in the end."""
        for thread in self.threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
        return self.answers


def until(true: Callable[[], object], seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def hanging(tmp_path: Path) -> Iterator[Hanging]:
    os.chmod(tmp_path, 0o777)
    one = Hanging(tmp_path)
    yield one
    one.over()


def sleepers(one: Box) -> list[int]:
    """Hooks of it that still run."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if f"LXC_NAME={one.name}".encode() in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
                found.append(int(pid))
        except OSError:
            continue
    return found


@pytest.mark.parametrize("hook", [*STARTS, *STOPS])
def test_others_go_on_while_hooks_hang(box: Define, hanging: Hanging, run: Run, lxcpath: str, hook: str) -> None:
    stuck = [box(hanging.hook(hook)) for _ in range(MANY)]
    if hook in STOPS:
        for one in stuck:
            one.start()
    for one in stuck:
        hanging.begin(one.kill if hook in STOPS else one.start, one, hook)
    go_on([box() for _ in range(3)], run, lxcpath)
    assert {one.state for one in stuck} == {"STOPPING" if hook in STOPS else "STARTING"}
    killers = [subprocess.Popen(kill_of(run, one), stderr=subprocess.PIPE) for one in stuck]
    assert [(killer.communicate(timeout=PATIENCE)[1], killer.returncode) for killer in killers] == [(b"", 0)] * MANY
    answers = hanging.over()
    if hook in STARTS:
        aborted = "the start was aborted: another command has stopped the container"
        assert [answer.what for answer in answers] == [aborted] * MANY
    else:
        assert answers == [True] * MANY
    for one in stuck:
        assert one.state == "STOPPED"
        until(lambda one=one: not sleepers(one))


def kill_of(run: Run, one: Box) -> list[str]:
    words: list[str] = run("stop", "--version").args
    return [words[0], "-k", "-P", one.lxcpath, "-n", one.name]


def go_on(others: list[Box], run: Run, lxcpath: str) -> None:
    """With hooks that hang for ever, whatever waits for one of them never comes back."""
    for one in others:
        assert run("start", "-P", lxcpath, "-n", one.name, timeout=PATIENCE).returncode == 0
        assert run("info", "-P", lxcpath, "-n", one.name, "-s").stdout == "State:          RUNNING\n"
        assert one.sh("echo hi") == "hi\n"
    assert {one.name for one in others} <= set(run("ls", "-P", lxcpath, "-1", "--running").stdout.split())
    for one in others:
        assert one.kill(PATIENCE)


def test_a_network_script_that_hangs_is_a_hook_too(box: Define, hanging: Hanging, tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text(f"#!/bin/sh\ntouch {tmp_path}/$LXC_NAME.down\nexec sleep 100000\n")
    script.chmod(0o755)
    one = box(f"lxc.net.1.type = veth\nlxc.net.1.script.down = {script}\n")
    one.start()
    hanging.begin(one.kill, one, "down")
    assert one.kill(PATIENCE)
    assert hanging.over() == [True]
    until(lambda: not sleepers(one))


def test_a_stop_hook_that_hangs_keeps_no_reboot_alive(box: Define, hanging: Hanging) -> None:
    """It would start again after its hook: not when it was stopped meanwhile."""
    one = box(hanging.hook("stop"))
    one.start()
    one.await_traps()
    hanging.begin(lambda: one.reboot(PATIENCE), one, "stop")
    assert one.kill(PATIENCE)
    assert hanging.over() == [False]
    assert one.state == "STOPPED"
    text = Path(one.config_file).read_text()
    Path(one.config_file).write_text(text.replace(hanging.hook("stop"), ""))
    one.start()  # as if nothing had been
    assert one.await_traps().reboot(PATIENCE)


def test_hooks_that_take_their_time_are_left_alone(box: Define, tmp_path: Path) -> None:
    """Two clients that kill at once: a hook of the stop has GRACE, and ends by itself."""
    one = box(f"lxc.hook.post-stop = sh -c 'sleep 1; touch {tmp_path}/done'\n")
    one.start()
    threads = [threading.Thread(target=one.kill) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert (tmp_path / "done").exists()


@pytest.mark.parametrize("hook", ["pre-start", "post-stop"])
def test_its_hook_goes_when_supervisor_and_worker_are_killed(box: Define, hanging: Hanging, hook: str) -> None:
    """Nobody is left who knows of the hook; the next supervisor finds it by the container's record."""
    one, other = box(hanging.hook(hook)), box()
    other.start()
    if hook == "post-stop":
        one.start()
    hanging.begin(one.kill if hook == "post-stop" else one.start, one, hook)
    with client.connect() as supervisor:
        pid = supervisor.ask("status")["pid"]
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    worker = next(child for child in children if one.name.encode() in Path(f"/proc/{child}/cmdline").read_bytes())
    hook_pids = sleepers(one)
    with process.pidfd_open(pid) as pidfd:
        os.kill(pid, signal.SIGKILL)
        os.kill(int(worker), signal.SIGKILL)
        assert select.select([pidfd], [], [], PATIENCE)[0]
    assert other.state == "RUNNING"
    until(lambda: not set(hook_pids) & set(sleepers(one)))
    if hook == "post-stop":  # it is run again, for the stop was not over
        until(lambda: sleepers(one))
        assert one.kill(PATIENCE)
    assert one.wait(["STOPPED"], PATIENCE)
    until(lambda: not sleepers(one))
