"""lxcpy-checkpoint: a container is written to disk and goes on from there; what fails leaves nothing half done.

Its words and those of lxc-checkpoint stand beside each other in tests/oracle/test_checkpoint.py.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from lifecycle.conftest import BASE

from lxcpy.runtime import state

if TYPE_CHECKING:
    from conftest import Box, Define

pytestmark = pytest.mark.requires("root", "busybox")
Run = Callable[..., "subprocess.CompletedProcess[str]"]
PLAIN = "lxc.tty.max = 0\nlxc.console.path = none\n"
COUNT = "n=0\nwhile :; do n=$((n+1)); echo $n >> /counted; sleep 0.05; done\n"


@pytest.fixture
def checkpoint(run: Run, lxcpath: str) -> Run:
    return lambda one, *words, **options: run("checkpoint", "-P", lxcpath, "-n", one.name, *words, **options)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "dump"
    shutil.rmtree(tmp_path / "dump", ignore_errors=True)


def until(true: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def counting(one: Box, script: str = COUNT) -> Box:
    Path(one.rootfs, "init").write_text(script)
    return one


def counted(one: Box) -> list[int]:
    file = Path(one.rootfs, "counted")
    return [int(line) for line in file.read_text().split()] if file.exists() else []


def script(path: Path, stage: str, command: str) -> str:
    """An action script that runs a command at one of criu's stages."""
    path.write_text(f'#!/bin/sh\n[ "$CRTOOLS_SCRIPT_ACTION" != {stage} ] || {{ {command}; }}\n')
    path.chmod(0o755)
    return str(path)


@pytest.mark.usefixtures("criu")
@pytest.mark.parametrize("console", [False, True])
def test_it_goes_on_where_it_left_off(box: Define, checkpoint: Run, folder: Path, console: bool) -> None:
    keys = "lxcpy.restart = always\nlxcpy.restart.delay = 0.1\n"
    one = counting(box(keys + ("lxc.tty.max = 0\n" if console else PLAIN)))
    one.start()
    until(lambda: len(counted(one)) > 2)
    done = checkpoint(one, "-D", str(folder), "-s")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert one.state == "STOPPED"
    time.sleep(0.3)
    assert one.describe() is None, "ended on purpose: lxcpy.restart = always does not start it again"
    before = counted(one)
    done = checkpoint(one, "-D", str(folder), "-r")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert one.state == "RUNNING"
    until(lambda: len(counted(one)) > len(before) + 2)
    assert counted(one) == list(range(1, len(counted(one)) + 1)), "no number is missing or twice"
    assert one.sh("echo $((6 * 7))") == "42\n"
    done = checkpoint(one, "-D", str(folder), "-r")
    assert done.returncode == 1 and f"{one.name} is running, not restoring" in done.stderr
    pid = one.init_pid
    os.kill(pid, signal.SIGKILL)
    until(lambda: one.init_pid not in (0, pid))
    until(lambda: counted(one).count(1) == 2)  # it was started, not restored


@pytest.mark.usefixtures("criu")
def test_it_runs_on_after_a_checkpoint(box: Define, checkpoint: Run, folder: Path) -> None:
    one = counting(box(PLAIN))
    one.start()
    pid = one.init_pid
    assert checkpoint(one, "-D", str(folder)).returncode == 0
    seen = len(counted(one))
    until(lambda: len(counted(one)) > seen)
    assert (one.state, one.init_pid) == ("RUNNING", pid)
    again = checkpoint(one, "-D", str(folder))
    assert again.returncode == 1 and "please use a fresh directory for the dump directory" in again.stderr


@pytest.mark.usefixtures("criu")
def test_its_interface_comes_back(box: Define, checkpoint: Run, folder: Path) -> None:
    net = f"lxc.net.0.type = veth\nlxc.net.0.veth.pair = ck{os.getpid()}\nlxc.net.0.ipv4.address = 10.99.1.2/24\n"
    one = counting(box(PLAIN + net, base=BASE.replace("lxc.net.0.type = empty\n", "")))
    one.start()
    assert checkpoint(one, "-D", str(folder), "-s").returncode == 0
    until(lambda: not os.path.exists(f"/sys/class/net/ck{os.getpid()}"))
    done = checkpoint(one, "-D", str(folder), "-r")
    assert done.returncode == 0, done.stderr
    assert os.path.exists(f"/sys/class/net/ck{os.getpid()}")
    found = one.describe(addresses=True)
    assert found and ["eth0", "inet", "10.99.1.2"] in found["addresses"]
    assert one.kill(10)
    until(lambda: not os.path.exists(f"/sys/class/net/ck{os.getpid()}"))


@pytest.mark.usefixtures("criu")
def test_a_restore_in_the_foreground_ends_with_it(box: Define, checkpoint: Run, folder: Path) -> None:
    one = counting(box(PLAIN), "until [ -e /end ]; do sleep 0.05; done\n")
    one.start()
    assert checkpoint(one, "-D", str(folder), "-s").returncode == 0
    Path(one.rootfs, "end").touch()
    done = checkpoint(one, "-D", str(folder), "-r", "-F")
    assert done.returncode == 0, done.stderr
    assert one.state == "STOPPED"


@pytest.mark.usefixtures("criu")
def test_a_dump_that_fails_leaves_it_running(box: Define, checkpoint: Run, folder: Path, tmp_path: Path) -> None:
    one = counting(box(PLAIN + "lxcpy.restart = on-failure\nlxcpy.restart.delay = 0.1\n"))
    one.start()
    done = checkpoint(one, "-D", str(folder), "-s", "-A", script(tmp_path / "act", "pre-dump", "exit 3"))
    assert done.returncode == 1
    assert done.stderr.startswith(f"lxcpy-checkpoint: {one.name}: criu dump failed with 1:"), done.stderr
    assert f"{folder}/dump.log" in done.stderr
    assert os.listdir(folder) == ["dump.log"]
    assert one.state == "RUNNING"
    pid = one.init_pid
    os.kill(pid, signal.SIGKILL)  # its end is not wanted any more
    until(lambda: one.init_pid not in (0, pid))


@pytest.mark.usefixtures("criu")
def test_a_restore_that_fails_leaves_nothing(
    box: Define, checkpoint: Run, folder: Path, tmp_path: Path, bin: str
) -> None:
    one = counting(box(PLAIN))
    one.start()
    assert checkpoint(one, "-D", str(folder), "-s").returncode == 0
    done = checkpoint(one, "-D", str(folder), "-r", "-A", script(tmp_path / "act", "post-restore", "exit 3"))
    assert done.returncode == 1
    assert done.stderr.startswith(f"lxcpy-checkpoint: {one.name}: criu restore failed with 1:"), done.stderr
    assert one.describe() is None and not os.path.exists(state.record_path(one.lxcpath, one.name))
    # and one whose launcher is killed in the middle
    hold = script(tmp_path / "act", "post-restore", f"touch {tmp_path}/there; sleep 300")
    argv = [f"{bin}/lxcpy-checkpoint", "-P", one.lxcpath, "-n", one.name, "-D", str(folder), "-r", "-A", hold]
    waiting = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    until((tmp_path / "there").exists)
    record = state.load(one.lxcpath, one.name)
    assert record
    os.kill(record["launcher"][0], signal.SIGKILL)
    said = waiting.communicate(timeout=60)[1]
    assert waiting.returncode == 1 and "the launcher was killed before the container ran" in said
    until(lambda: one.describe() is None)
    assert checkpoint(one, "-D", str(folder), "-r").returncode == 0
    assert one.state == "RUNNING"
