"""Many containers at once, and many starts and stops: all of them are true, and the supervisor stays as it was.

LXCPY_MANY sets how many containers there are, LXCPY_CYCLES how many starts and stops.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lxcpy.container import Container, states
from lxcpy.kernel import process
from lxcpy.runtime import client

if TYPE_CHECKING:
    from conftest import Define

pytestmark = pytest.mark.requires("root", "busybox")
Run = Callable[..., "subprocess.CompletedProcess[str]"]

MANY = int(os.environ.get("LXCPY_MANY") or 40)
CYCLES = int(os.environ.get("LXCPY_CYCLES") or 64)
WARM = 200  # cycles before the first look: the allocator's arenas and the launchers' pages are there then
GROWTH = (3 << 18) + 512 * CYCLES  # bytes that are no leak: cycles whose records stay would be more
PATIENCE = 120.0  # seconds; the machine may be busy


def status() -> dict[str, Any]:
    with client.connect() as supervisor:
        return supervisor.ask("status")


def settled() -> dict[str, Any]:
    """Its status once it is at rest: spare launchers leave, the kernel has closed what they held."""
    deadline = time.monotonic() + PATIENCE
    before: dict[str, Any] = {}
    while True:
        time.sleep(1.2)
        found = status()
        if found["containers"] == 0 and found["descriptors"] == before.get("descriptors"):
            return found
        assert time.monotonic() < deadline, found
        before = found


@pytest.fixture
def many(box: Define, lxcpath: str) -> Iterator[list[str]]:
    """Names of containers that share one root filesystem and start on their own."""
    first = box()
    config = Path(first.config_file).read_text()
    names = [f"{first.name}-{number}" for number in range(MANY)]
    for name in names:
        os.makedirs(f"{lxcpath}/{name}")
        more = f"lxc.uts.name = {name}\nlxc.start.auto = 1\nlxc.tty.max = 1\n"
        Path(lxcpath, name, "config").write_text(config + more)
    yield names
    for name in names:
        one = Container(name, lxcpath)
        if one.state != "STOPPED":
            one.kill(20)


def all_run(many: list[str], lxcpath: str, run: Run) -> None:
    """Each with an init and a host name of its own, as every command sees it."""
    known = states(lxcpath)
    assert {name: known[name]["state"] for name in many} == dict.fromkeys(many, "RUNNING")
    assert len({known[name]["pid"] for name in many}) == MANY
    assert run("ls", "-P", lxcpath, "-1", "--running").stdout.split() == sorted(many)
    for name in many:
        said = run("attach", "-P", lxcpath, "-n", name, "--", "/bin/cat", "/proc/sys/kernel/hostname")
        assert (said.returncode, said.stdout) == (0, f"{name}\n")
    said = run("info", "-P", lxcpath, "-n", many[-1], "-p", "-H")
    assert said.stdout.split() == [str(known[many[-1]]["pid"])]


def test_many_in_one_go(many: list[str], lxcpath: str, run: Run) -> None:
    begin = time.monotonic()
    done = run("autostart", "-P", lxcpath, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    started = time.monotonic() - begin
    all_run(many, lxcpath, run)
    full = status()
    assert full["containers"] == MANY
    assert full["descriptors"] < 11 * MANY + 30
    begin = time.monotonic()
    done = run("autostart", "-P", lxcpath, "-k", timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    print(
        f"{MANY} started in {started:.2f} s, stopped in {time.monotonic() - begin:.2f} s; "
        f"{full['descriptors']} descriptors, {full['resident'] >> 10} KiB"
    )
    assert states(lxcpath) == {}
    assert settled()["descriptors"] < 30


def test_many_outlive_their_supervisor(many: list[str], lxcpath: str, run: Run) -> None:
    assert run("autostart", "-P", lxcpath, timeout=600).returncode == 0
    before = {name: found["pid"] for name, found in states(lxcpath).items()}
    with process.pidfd_open(status()["pid"]) as pidfd:
        process.pidfd_send_signal(pidfd.number, signal.SIGKILL)
        assert select.select([pidfd], [], [], PATIENCE)[0]
    begin = time.monotonic()
    assert run("ls", "-P", lxcpath, "-1", "--running").stdout.split() == sorted(many)
    took = time.monotonic() - begin
    assert {name: found["pid"] for name, found in states(lxcpath).items()} == before
    all_run(many, lxcpath, run)
    wait_for_terminals(many)
    full = status()
    print(f"{MANY} taken over in {took:.2f} s; {full['descriptors']} descriptors, {full['resident'] >> 10} KiB")
    assert run("autostart", "-P", lxcpath, "-k", timeout=600).returncode == 0
    assert settled()["descriptors"] < 30


def wait_for_terminals(many: list[str]) -> None:
    """Each has a console and a tty again, made by processes that are gone."""
    deadline = time.monotonic() + PATIENCE
    while status()["descriptors"] < 5 * len(many):
        assert time.monotonic() < deadline, status()
        time.sleep(0.1)


def test_many_clients_at_once(many: list[str], lxcpath: str, bin: str, run: Run) -> None:
    """Each start, and each stop, is a process of its own, all of them at the same time."""

    def each(verb: str, *words: str) -> None:
        argv = [f"{bin}/lxcpy-{verb}", "-P", lxcpath, *words]
        commands = [subprocess.Popen([*argv, "-n", name], stderr=subprocess.PIPE) for name in many]
        said = [(command.communicate(timeout=600)[1], command.returncode) for command in commands]
        assert said == [(b"", 0)] * MANY

    each("start")
    all_run(many, lxcpath, run)
    each("stop", "-k")
    assert states(lxcpath) == {}


def test_descriptors_and_memory_stay_flat(box: Define) -> None:
    boxes = [
        box("lxc.tty.max = 2\nlxc.console.buffer.size = auto\nlxc.console.logfile = {rootfs}/log\n"),
        box("lxc.net.1.type = veth\nlxc.net.1.flags = up\n"),
        box("lxc.hook.post-stop = true\n"),
        box(),
    ]

    def cycle(count: int) -> None:
        for _ in range(count // len(boxes)):
            with client.connect() as supervisor:
                asked = [supervisor.send("start", options=one.options(), foreground=False) for one in boxes]
                for number in asked:
                    supervisor.answer(number, PATIENCE)
                waiting = []
                for one in boxes:
                    place = {"lxcpath": one.lxcpath, "name": one.name}
                    waiting.append(supervisor.send("wait", states=["STOPPED"], change=True, **place))
                    supervisor.send("signal", signal="stop", **place)
                for number in waiting:
                    supervisor.answer(number, PATIENCE)

    cycle(WARM)
    before = settled()
    begin = time.monotonic()
    cycle(CYCLES)
    took = time.monotonic() - begin
    after = settled()
    print(
        f"{CYCLES} cycles in {took:.0f} s: {before['descriptors']} → {after['descriptors']} descriptors, "
        f"{before['resident'] >> 10} → {after['resident'] >> 10} KiB"
    )
    assert after["pid"] == before["pid"]
    assert after["descriptors"] == before["descriptors"]
    assert after["resident"] - before["resident"] < GROWTH
