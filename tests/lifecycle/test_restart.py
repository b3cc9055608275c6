"""lxcpy.restart: what starts a container again, what does not, and what a wait for it outlives."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonpages
import pytest

from lxcpy.runtime import client, state

if TYPE_CHECKING:
    from conftest import Box, Define

pytestmark = pytest.mark.requires("root", "busybox")
ROOT = Path(__file__).parent.parent.parent
SOON = "lxcpy.restart.delay = 0.1\nlxcpy.restart.delay.max = 0.5\n"
LATER = "lxcpy.restart.delay = 1.5\nlxcpy.restart.delay.max = 1.5\n"
NEVER = "lxcpy.restart.delay = 900\nlxcpy.restart.delay.max = 900\n"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def quick(run: Run, lxcpath: str) -> Run:
    """A command on the test's lxcpath."""
    return lambda command, *words, **options: run(command, "-P", lxcpath, *words, **options)


def until(true: Callable[[], object], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def due(one: Box) -> dict[str, Any] | None:
    """The restart that it waits for."""
    found = (one.describe(restart=True) or {}).get("restart") or {}
    return found if "in" in found else None


def failing(one: Box, script: str = "exit 1") -> Box:
    Path(one.rootfs, "init").write_text(f"echo run >> /runs\n{script}\n")
    return one


def crash(one: Box, pid: int = 0) -> None:
    pid = pid or one.init_pid
    assert pid  # 0 would be ourselves
    os.kill(pid, signal.SIGKILL)


def runs(one: Box) -> int:
    file = Path(one.rootfs, "runs")
    return file.read_text().count("run") if file.exists() else 0


def supervisor() -> dict[str, Any]:
    with client.connect() as connection:
        return connection.ask("status")


def kill_supervisor() -> None:
    pid = supervisor()["pid"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: not os.path.exists(f"/proc/{pid}"))


def test_a_killed_init_is_a_failure_and_tries_start_anew_with_a_start(box: Define) -> None:
    one = box("lxcpy.restart = on-failure\n" + SOON)
    one.start()
    for _ in range(2):
        pid = one.init_pid
        crash(one)
        until(lambda pid=pid: one.init_pid not in (0, pid))
    found = one.describe(restart=True)
    assert found and found["restart"] == {"policy": "on-failure", "tries": 2, "limit": 0}
    assert one.kill(10)
    one.start()
    found = one.describe(restart=True)
    assert found and found["restart"]["tries"] == 0


@pytest.mark.parametrize("policy", ["on-failure", "always"])
def test_what_lxcpy_stop_ends_stays_ended(box: Define, quick: Run, policy: str) -> None:
    one, two, three = (box(f"lxcpy.restart = {policy}\n" + SOON) for _ in range(3))
    for box_ in (one, two, three):
        box_.start()
        box_.await_traps()
    assert quick("stop", "-n", one.name).returncode == 0
    assert quick("stop", "-k", "-n", two.name).returncode == 0
    assert quick("autostart", "-a", "-A", "-k").returncode == 0
    time.sleep(0.4)
    assert [box_.state for box_ in (one, two, three)] == ["STOPPED"] * 3
    assert not any(due(box_) for box_ in (one, two, three))


def test_a_reboot_takes_the_mark_of_a_stop_away(box: Define) -> None:
    one = box("lxcpy.restart = on-failure\n" + SOON)
    failing(one, "trap '' PWR; trap '/bin/reboot -f' INT\nwhile :; do sleep 1000 & wait $!; done").start()
    until(lambda: int(one.status("SigCgt"), 16) >> (signal.SIGINT - 1) & 1)
    one.signal("halt")  # which it ignores
    pid = one.init_pid
    assert one.reboot(30)
    crash(one)
    until(lambda: runs(one) == 3 and one.state == "RUNNING")
    assert one.init_pid != pid


def test_its_own_poweroff_is_no_failure(box: Define) -> None:
    off, always = box("lxcpy.restart = on-failure\n" + SOON), box("lxcpy.restart = always\n" + SOON)
    for one in (off, always):
        os.symlink("busybox", f"{one.rootfs}/bin/poweroff")
        failing(one, "[ $(grep -c run /runs) = 1 ] && poweroff -f\nwhile :; do sleep 1000 & wait $!; done").start()
    until(lambda: runs(always) == 2)
    until(lambda: off.state == "STOPPED" and due(off) is None)
    time.sleep(0.3)
    assert runs(off) == 1


def test_a_run_in_the_foreground_and_a_command_are_not_restarted(box: Define, quick: Run) -> None:
    one = failing(box("lxcpy.restart = always\n" + SOON))
    assert quick("start", "-F", "-n", one.name).returncode == 0
    assert quick("execute", "-n", one.name, "--", "/bin/sh", "-c", "exit 4").returncode == 4
    assert due(one) is None and runs(one) == 1


def test_lxcpy_stop_calls_a_restart_off(box: Define, quick: Run, run: Run) -> None:
    one = failing(box("lxcpy.restart = on-failure\nlxcpy.restart.limit = 7\n" + NEVER))
    one.start()
    until(lambda: due(one))
    shown = quick("info", "-n", one.name).stdout.splitlines()
    assert [line.split()[0] for line in shown] == ["Name:", "State:", "Restart:"]
    assert shown[1].split() == ["State:", "STOPPED"]
    assert shown[2].startswith("Restart:        in ") and shown[2].endswith(" seconds, try 1 of 7")
    assert quick("info", "-n", one.name, "-s").stdout == f"{'State:':<15} STOPPED\n"
    assert jsonpages.read("lxcpy-info --json", quick("info", "-n", one.name, "--json").stdout)["restart"]["tries"] == 1
    plain = run("supervisor", "status", "--json").stdout
    [waiting] = jsonpages.read("lxcpy-supervisor status --json", plain)["restarting"]
    assert (waiting["name"], waiting["tries"], waiting["limit"]) == (one.name, 1, 7)
    status = run("supervisor", "status").stdout
    assert f"Restarting:     {one.name} in " in status
    refused = run("supervisor", "stop")
    assert refused.returncode == 1 and "1 container" in refused.stderr
    assert quick("stop", "-r", "-n", one.name).returncode == 2
    assert due(one)
    done = quick("stop", "-n", one.name)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert due(one) is None and not os.path.exists(state.restart_path(one.lxcpath, one.name))
    assert quick("stop", "-n", one.name).returncode == 2
    assert "Restart" not in quick("info", "-n", one.name).stdout


def test_autostart_and_destroy_and_rename_call_it_off(box: Define, quick: Run) -> None:
    one, two, three = (failing(box("lxcpy.restart = on-failure\n" + NEVER)) for _ in range(3))
    for box_ in (one, two, three):
        box_.start()
        until(lambda box_=box_: due(box_))
    two.destroy()
    assert not os.path.exists(state.restart_path(two.lxcpath, two.name))
    renamed = three.rename(f"{three.name}-new")
    assert not os.path.exists(state.restart_path(three.lxcpath, three.name))
    assert quick("autostart", "-a", "-A", "-L", "-s").stdout.split()[0] == one.name
    assert quick("autostart", "-a", "-A", "-s").returncode == 0
    assert due(one) is None
    renamed.destroy()


def test_a_stop_while_it_starts_again_ends_it(box: Define, quick: Run, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    one = box(f"lxc.hook.pre-start = sh -c 'touch {gate}.$$; while [ -e {gate} ]; do sleep 0.05; done'\n"
              "lxcpy.restart = on-failure\n" + SOON)  # fmt: skip
    one.start()
    gate.touch()
    crash(one)
    until(lambda: one.state == "STARTING")
    stop = subprocess.Popen([sys.executable, "-c", "import sys; from lxcpy.container import Container\n"
                             f"sys.exit(not Container({one.name!r}, {one.lxcpath!r}).shutdown(60))"])  # fmt: skip
    until(lambda: due(one) is None)
    gate.unlink()
    assert stop.wait(60) == 0
    assert one.state == "STOPPED"


@pytest.mark.requires("lxc")
@pytest.mark.parametrize("again", ["restart", "reboot"])
def test_a_start_that_is_aborted_is_not_tried_again(box: Define, tmp_path: Path, again: str) -> None:
    gate = tmp_path / "gate"
    one = box(f"lxc.hook.pre-start = sh -c 'while [ -e {gate} ]; do sleep 0.05; done'\n"
              "lxcpy.restart = always\n" + SOON)  # fmt: skip
    one.start()
    one.await_traps()
    gate.touch()
    if again == "restart":
        crash(one)
    else:
        one.signal("reboot")
    until(lambda: one.state == "STARTING")
    subprocess.run(["lxc-stop", "-k", "-P", one.lxcpath, "-n", one.name], check=True, timeout=60)
    until(lambda: one.describe() is None)
    gate.unlink()
    time.sleep(0.4)
    assert one.describe() is None


def test_a_restart_that_fails_is_tried_again_and_given_up(box: Define, quick: Run, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    one = box(f"lxc.hook.pre-start = sh -c '! [ -e {broken} ]'\nlxcpy.restart = on-failure\n"
              "lxcpy.restart.limit = 3\n" + SOON)  # fmt: skip
    one.start()
    broken.touch()
    crash(one)
    until(lambda: "given up after 3 tries" in quick("info", "-n", one.name).stdout)
    broken.unlink()
    one.start()
    assert "given up" not in quick("info", "-n", one.name).stdout
    assert one.kill(10)


def test_a_reboot_that_does_not_come_up_is_tried_again(box: Define, tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    one = box(f"lxc.hook.pre-start = sh -c '! [ -e {gone} ]'\nlxcpy.restart = on-failure\n" + SOON)
    one.start()
    one.await_traps()
    gone.touch()
    pid = one.init_pid
    one.signal("reboot")
    until(lambda: due(one))
    gone.unlink()
    until(lambda: one.init_pid not in (0, pid))
    found = one.describe(restart=True)
    assert found and found["restart"]["tries"] >= 1


@pytest.mark.requires("lxc")
def test_real_lxc_may_start_it_meanwhile(box: Define, quick: Run) -> None:
    one = failing(box("lxcpy.restart = on-failure\n" + LATER), "[ $(grep -c run /runs) = 1 ] && exit 1\nsleep 1000")
    one.start()
    until(lambda: due(one))
    subprocess.run(["lxc-start", "-P", one.lxcpath, "-n", one.name], check=True)
    assert one.state == "RUNNING"
    time.sleep(2)  # it was due
    assert one.state == "RUNNING" and runs(one) == 2 and due(one) is None
    assert quick("stop", "-k", "-n", one.name).returncode == 0
    assert one.state == "STOPPED"


@pytest.mark.parametrize("how", ["kill", "reexec"])
def test_the_wait_outlives_the_supervisor(box: Define, how: str) -> None:
    one = failing(box("lxcpy.restart = on-failure\n" + LATER), "[ $(grep -c run /runs) = 1 ] && exit 1\nsleep 1000")
    one.start()
    until(lambda: due(one))
    if how == "kill":
        kill_supervisor()
    else:
        with client.connect() as connection:
            connection.ask("reexec", timeout=60, python=sys.executable, path=[str(ROOT), *sys.path])
    assert due(one) or runs(one) == 2
    until(lambda: one.state == "RUNNING")
    found = one.describe(restart=True)
    assert runs(one) == 2 and found and found["restart"]["tries"] == 1
    pid = one.init_pid
    kill_supervisor()
    crash(one, pid)  # nobody looks
    until(lambda: one.state == "RUNNING" and runs(one) == 3)
    assert one.kill(10)


@pytest.mark.parametrize("successor", [True, False])
def test_a_command_that_waits_outlives_the_supervisor(box: Define, bin: str, successor: bool) -> None:
    one = box()
    one.start()
    pid = one.init_pid
    argv = [f"{bin}/lxcpy-wait", "-P", one.lxcpath, "-n", one.name, "-s", "STOPPED"]
    before = supervisor()["clients"]
    waiting = subprocess.Popen(argv)
    until(lambda: supervisor()["clients"] > before)
    kill_supervisor()
    time.sleep(0.7)
    assert client.connect_running() is None, "the wait brings none up while the container runs"
    if successor:
        assert one.state == "RUNNING"
    os.kill(pid, signal.SIGKILL)
    assert waiting.wait(30) == 0
    assert one.state == "STOPPED"


def test_a_stop_that_was_asked_outlives_the_supervisor(box: Define) -> None:
    one = box("lxcpy.restart = always\n" + SOON)
    failing(one, "trap '' PWR\n> /stay\nwhile :; do sleep 0.1; done").start()
    until(lambda: os.path.exists(f"{one.rootfs}/stay"))
    one.signal("halt")
    pid = one.init_pid
    kill_supervisor()
    crash(one, pid)
    until(lambda: one.state == "STOPPED")
    time.sleep(0.4)
    assert due(one) is None and runs(one) == 1
