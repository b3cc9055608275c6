"""lxcpy-monitor on many containers: of two lxcpaths, of lxcpy and of real LXC, while supervisors and watchers die.

LXCPY_MANY=N makes the first N containers a path instead of 20.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonpages
import pytest
from probes import requires
from reallxc import CONFIG, make_rootfs

from lxcpy.container import Container
from lxcpy.errors import LxcpyError
from lxcpy.runtime import client, lxcmonitor
from lxcpy.runtime import lxcprotocol as wire

pytestmark = requires("root", "busybox", "lxc>=5.0")
MANY = int(os.environ.get("LXCPY_MANY", "20"))
REAL = 3
STARTED = ("STARTING", "RUNNING")
ENDED = ("exit", "STOPPED")  # STOPPING stands before or after the exit
Run = Callable[..., "subprocess.CompletedProcess[str]"]


class Fleet:
    """Two lxcpaths with containers of lxcpy, and a few of real LXC in the second; one rootfs serves all."""

    def __init__(self, lxcpath: str, names: Callable[[], str], run: Run) -> None:
        self.paths = [f"{lxcpath}/one", f"{lxcpath}/two"]
        self.run = run
        make_rootfs(f"{lxcpath}/rootfs")
        self.ours = {path: [names() for _ in range(MANY)] for path in self.paths}
        self.real = [names() for _ in range(REAL)]
        for path, found in self.ours.items():
            for name in (*found, *(self.real if path == self.paths[1] else ())):
                os.makedirs(f"{path}/{name}")
                text = CONFIG.format(name=name, rootfs=f"{lxcpath}/rootfs").replace("lxc.tty.max = 2\n", "")
                Path(path, name, "config").write_text(text + ("lxc.group = mine\n" if name in found else ""))

    def all(self, *words: str) -> None:
        for path in self.paths:
            done = self.run("autostart", "-P", path, "-A", "-g", "mine", *words)
            assert done.returncode == 0, done.stderr

    def lxc(self, verb: str, *words: str) -> None:
        for name in self.real:
            argv = [f"lxc-{verb}", "-P", self.paths[1], "-n", name, *words]
            assert subprocess.run(argv, stdin=subprocess.DEVNULL).returncode == 0

    def clear(self) -> None:
        for path in self.paths:
            for name in (*self.ours[path], *self.real):
                with contextlib.suppress(LxcpyError):
                    Container(name, path).kill(30)


@pytest.fixture
def fleet(lxcpath: str, names: Callable[[], str], run: Run) -> Iterator[Fleet]:
    made = Fleet(lxcpath, names, run)
    yield made
    made.clear()


class Watch:
    """A monitor that runs, and what it has printed."""

    def __init__(self, *argv: str) -> None:
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self.process.stdout
        self.fd, self.text = self.process.stdout.fileno(), b""

    @property
    def rows(self) -> list[dict[str, Any]]:
        return jsonpages.read("lxcpy-monitor --json", self.text[: self.text.rfind(b"\n") + 1].decode())  # type: ignore[no-any-return]

    def seen(self, name: str) -> list[str]:
        return [row["state"] or "exit" for row in self.rows if row["name"] == name]

    def until(self, condition: Callable[[], object], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.text.decode()[-2000:]
            if select.select([self.fd], [], [], 1)[0]:
                data = os.read(self.fd, 1 << 20)
                assert data, "it has ended"
                self.text += data

    def forget(self) -> None:
        self.text = b""


@pytest.fixture
def watch(bin: str) -> Iterator[Callable[..., Watch]]:
    """`watch("lxcpy-monitor", "-P", lxcpath)`: killed after the test."""
    made: list[Watch] = []

    def begin(command: str, *words: str) -> Watch:
        made.append(Watch(f"{bin}/{command}" if command.startswith("lxcpy") else command, *words))
        return made[-1]

    yield begin
    for one in made:
        one.process.kill()
        one.process.communicate()


def listening(one: Watch, *paths: str) -> None:
    """Until a word said to each lxcpath has come out."""
    for path in paths:
        def heard(path: str = path) -> bool:
            lxcmonitor.announce(path, "probe", "ABORTING")
            return b"probe" in one.text and path.encode() in one.text

        one.until(heard)
    time.sleep(0.1)
    while select.select([one.fd], [], [], 0.2)[0]:
        os.read(one.fd, 1 << 20)
    one.forget()


def both(fleet: Fleet) -> list[str]:
    words = []
    for path in fleet.paths:
        words += ["-P", path]
    return words


def test_many_containers(fleet: Fleet, watch: Callable[..., Watch]) -> None:
    """Nothing is lost and each container's words stand in order, whatever becomes of the supervisor."""
    first, second = fleet.paths
    everything = watch("lxcpy-monitor", *both(fleet), "--json")
    listening(everything, first, second)
    chosen = fleet.ours[second][:5]
    some = watch("lxcpy-monitor", *both(fleet), "--json", "-n", f"({'|'.join(chosen)}|probe)")  # through the first
    listening(some, first, second)
    everything.until(lambda: b"probe" in everything.text)
    names = [name for path in fleet.paths for name in fleet.ours[path]]

    def complete(*states: str, of: list[str], by: Watch = everything) -> Callable[[], bool]:
        return lambda: all(set(states) <= set(by.seen(name)) for name in of)

    fleet.all()
    fleet.lxc("start")
    everything.until(complete(*STARTED, of=[*names, *fleet.real]))
    assert all(tuple(everything.seen(name)) == STARTED for name in names)
    paths = {row["name"]: row["lxcpath"] for row in everything.rows if row["name"] != "probe"}
    assert paths == {**{name: first for name in fleet.ours[first]},
                     **{name: second for name in (*fleet.ours[second], *fleet.real)}}  # fmt: skip
    some.until(complete(*STARTED, of=chosen, by=some))
    everything.forget()

    supervisor = client.connect_if_any()
    assert supervisor
    with supervisor:
        os.kill(supervisor.ask("status")["pid"], signal.SIGKILL)
    assert fleet.run("freeze", "-P", first, "-n", names[0]).returncode == 0  # brings up another
    everything.until(complete("FROZEN", of=names[:1]))
    assert fleet.run("unfreeze", "-P", first, "-n", names[0]).returncode == 0
    assert fleet.run("supervisor", "reexec").returncode == 0
    fleet.all("-k")
    fleet.lxc("stop", "-k")
    everything.until(complete(*ENDED, of=[*names, *fleet.real]))
    for name in names[1:]:
        seen = everything.seen(name)
        assert sorted(seen) == ["STOPPED", "STOPPING", "exit"] and seen[-1] == "STOPPED", (name, seen)
    killed = {(row["exit_status"], row["signal"]) for row in everything.rows if row["event"] == "exit"}
    assert killed == {(None, signal.SIGKILL)}
    some.until(complete(*ENDED, of=chosen, by=some))
    assert {row["name"] for row in some.rows} - {"probe"} == set(chosen)


def test_what_ends_while_there_is_no_supervisor(fleet: Fleet, watch: Callable[..., Watch]) -> None:
    path = fleet.paths[0]
    names = fleet.ours[path][:5]
    one = watch("lxcpy-monitor", "-P", path, "--json")
    listening(one, path)
    for name in names:
        Container(name, path).start()
    pids = [Container(name, path).init_pid for name in names]
    supervisor = client.connect_if_any()
    assert supervisor
    with supervisor:
        os.kill(supervisor.ask("status")["pid"], signal.SIGKILL)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert fleet.run("wait", "-P", path, "-n", names[0], "-s", "STOPPED", "-t", "30").returncode == 0
    one.until(lambda: all(one.seen(name)[-1:] == ["STOPPED"] for name in names))


def test_watchers_of_both_sides_come_and_go(fleet: Fleet, watch: Callable[..., Watch]) -> None:
    """Whoever passes the words on may be killed: another of ours takes that over."""
    path = fleet.paths[0]
    first = watch("lxcpy-monitor", "-P", path, "--json")
    listening(first, path)
    second = watch("lxcpy-monitor", "-P", path, "--json")
    listening(second, path)
    real = watch("lxc-monitor", "-P", path)
    real.until(lambda: lxcmonitor.announce(path, "probe", "ABORTING") or b"probe" in real.text)
    name = fleet.ours[path][0]
    Container(name, path).start()
    for one in (first, second):
        one.until(lambda one=one: tuple(one.seen(name)) == STARTED)  # type: ignore[misc]
    real.until(lambda: f"'{name}' changed state to [RUNNING]\n".encode() in real.text)
    first.process.kill()
    second.until(lambda: not lxcmonitor.announce(path, "again", "ABORTING") and second.seen("again"))
    Container(name, path).kill(30)
    second.until(lambda: second.seen(name)[-1:] == ["STOPPED"])


def test_a_flood_while_nobody_reads(lxcpath: str, watch: Callable[..., Watch]) -> None:
    """3,000 words said while the monitor is stopped, as on a busy machine, and one that watches through it."""
    first = watch("lxcpy-monitor", "-P", lxcpath, "--json")
    listening(first, lxcpath)
    second = watch("lxcpy-monitor", "-P", lxcpath, "--json")
    listening(second, lxcpath)
    first.process.send_signal(signal.SIGSTOP)
    second.process.send_signal(signal.SIGSTOP)
    try:
        for number in range(3000):
            lxcmonitor.announce(lxcpath, f"c{number}", wire.STATES[number % len(wire.STATES)])
    finally:
        first.process.send_signal(signal.SIGCONT)
    first.until(lambda: first.text.count(b'"c2999"'))
    second.process.send_signal(signal.SIGCONT)
    second.until(lambda: second.text.count(b'"c2999"'))
    for one in (first, second):
        found = [row["name"] for row in one.rows if row["name"] != "probe"]
        assert found == [f"c{number}" for number in range(3000)]
