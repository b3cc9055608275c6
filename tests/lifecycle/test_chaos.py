"""`kill -9` of supervisors, launchers, teardowns and commands, at random, under load: whatever happens, each container
is RUNNING or STOPPED as it should be, can be entered, and nothing of one that is STOPPED is left.

LXCPY_CHAOS_SECONDS sets how long it goes on, LXCPY_CHAOS_SEED what happens; the seed is part of what a failure prints.
"""

from __future__ import annotations

import os
import random
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lxcpy import paths
from lxcpy.errors import LxcpyError
from lxcpy.runtime import client
from lxcpy.runtime import lxcprotocol as wire

if TYPE_CHECKING:
    from conftest import Box, Define

pytestmark = pytest.mark.requires("root", "busybox", "veth")

SECONDS = float(os.environ.get("LXCPY_CHAOS_SECONDS") or 18)
SEED = int(os.environ.get("LXCPY_CHAOS_SEED") or random.randrange(1 << 30))
ROUND = 6.0  # seconds between two looks at everything
WORKERS = 3
EACH = 3  # containers of a worker; nobody else starts or stops those
HANGS = 60.0  # seconds after which a command counts as hanging

KINDS = (
    "",
    "lxc.tty.max = 2\nlxc.console.buffer.size = auto\nlxc.console.logfile = {rootfs}/log\n",
    "lxc.hook.pre-start = sh -c 'sleep 0.05'\nlxc.hook.start-host = sh -c 'sleep 0.02'\n"
    "lxc.hook.stop = sh -c 'sleep 0.02'\nlxc.hook.post-stop = sh -c 'sleep 0.05'\n",
    "lxc.net.1.type = veth\nlxc.net.1.flags = up\nlxc.net.1.veth.pair = v{name}\n",
)


class Commands:
    """The commands that run at the moment, so that they can be killed."""

    def __init__(self, bin: str) -> None:
        self.bin = bin
        self.running: dict[int, subprocess.Popen[bytes]] = {}
        self.lock = threading.Lock()
        self.counts: dict[str, int] = {}

    def run(self, verb: str, one: Box, *words: str) -> tuple[int, str]:
        """Its exit status, -9 if it was killed, and what it said."""
        argv = [f"{self.bin}/lxcpy-{verb}", "-P", one.lxcpath, "-n", one.name, *words]
        # a file: a process that the killed command left in its container would hold a pipe open
        with tempfile.TemporaryFile() as stderr:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr)
            with self.lock:
                self.running[process.pid] = process
                self.counts[verb] = self.counts.get(verb, 0) + 1
            try:
                process.wait(HANGS)
            except subprocess.TimeoutExpired:
                about = processes(one)
                process.kill()
                process.wait()
                raise AssertionError(f"{argv} hangs:\n{about}") from None
            finally:
                with self.lock:
                    del self.running[process.pid]
            stderr.seek(0)
            said = stderr.read().decode(errors="replace")
        assert "Traceback" not in said and "internal error" not in said, said
        return process.returncode, said

    def kill_one(self, chance: random.Random) -> bool:
        with self.lock:
            running = list(self.running.values())
            if not running:
                return False
            chance.choice(running).kill()  # under the lock: nobody has waited for it yet
            return True


class Worker:
    """Starts, stops and enters its own containers; what it knows of them has to be true."""

    def __init__(self, boxes: list[Box], commands: Commands, seed: int) -> None:
        self.boxes = boxes
        self.commands = commands
        self.chance = random.Random(seed)
        self.known: dict[str, str | None] = {one.name: "STOPPED" for one in boxes}
        self.failure: BaseException | None = None

    def work(self, until: float) -> None:
        try:
            while time.monotonic() < until and not self.failure:
                self.step(self.chance.choice(self.boxes))
        except BaseException as error:
            self.failure = error

    def step(self, one: Box) -> None:
        verb = self.chance.choice(["start", "start", "stop", "kill", "attach", "freeze", "info", "reboot"])
        known = self.known[one.name]
        run = self.commands.run
        if verb == "start":
            status, said = run("start", one)
            if not (status == 0 and said):  # else it ran already, and a killed freeze may have frozen it
                self.known[one.name] = None if status else "RUNNING"
        elif verb == "stop":
            self.stopped(one, *run("stop", one, "-t", "1"))
        elif verb == "kill":
            self.stopped(one, *run("stop", one, "-k"))
        elif verb == "reboot" and known == "RUNNING":
            self.known[one.name] = None
            run("stop", one, "-r", "-t", "2")
        elif verb == "attach" and known == "RUNNING":
            run("attach", one, "--", "/bin/true")
        elif verb == "freeze" and known == "RUNNING":
            run("freeze", one)
            self.known[one.name] = None
            if run("unfreeze", one)[0] == 0:
                self.known[one.name] = "RUNNING"
        elif verb == "info":
            run("info", one)

    def stopped(self, one: Box, status: int, _said: str) -> None:
        """2: it was STOPPED already. A command that failed says nothing."""
        self.known[one.name] = "STOPPED" if status in (0, 2) else None


# -- harm --------------------------------------------------------------------------------------------------------------


def supervisor_pid() -> int | None:
    """The one that holds the lock; None where there is none."""
    try:
        pid = int(Path(paths.run_dir(), "supervisor.lock").read_text())
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
    except (OSError, ValueError):
        return None
    return pid if command.startswith(b"lxcpy-supervisor") else None


def helpers(parent: int | None, word: str) -> list[int]:
    """The supervisor's children of one kind."""
    try:
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return [int(pid) for pid in children if word.encode() in Path(f"/proc/{pid}/cmdline").read_bytes()]
    except OSError:
        return []


def harm(commands: Commands, chance: random.Random, until: float, done: dict[str, int]) -> None:
    kinds = ["supervisor", "supervisor", "launcher", "launcher", "teardown", "command", "command", "command", "reexec"]
    while time.monotonic() < until:
        time.sleep(chance.uniform(0.05, 0.7))
        what = chance.choice(kinds)
        pid = supervisor_pid()
        if what == "command":
            done[what] += commands.kill_one(chance)
        elif what == "reexec":
            argv = [f"{commands.bin}/lxcpy-supervisor", "reexec"]
            done[what] += subprocess.run(argv, capture_output=True, timeout=HANGS).returncode == 0
        else:
            found = [pid] if what == "supervisor" else helpers(pid, what)
            if found and found[0]:
                try:
                    os.kill(chance.choice(found), signal.SIGKILL)  # type: ignore[type-var]
                    done[what] += 1
                except ProcessLookupError:
                    pass


# -- looks -------------------------------------------------------------------------------------------------------------


def named(one: Box, text: str) -> bool:
    return re.search(rf"{re.escape(one.name)}(?!\d)", text) is not None


def processes(one: Box) -> str:
    """Every process that has to do with it, a line each: for who looks into a failure."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = {name: Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ", "cgroup")}
            wchan = Path(f"/proc/{pid}/wchan").read_text()
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        command = words["cmdline"].replace(b"\0", b" ").decode(errors="replace")
        in_hook = f"LXC_NAME={one.name}".encode() in words["environ"].split(b"\0")
        if int(pid) != os.getpid() and (named(one, command + words["cgroup"].decode()) or in_hook):
            found.append(f"process {pid} {state} {wchan}: {command}")
    return "\n".join(found)


def settled(one: Box) -> str:
    """Its state, once nothing is under way."""
    for _ in range(5):
        try:
            state = one.wait(["RUNNING", "STOPPED", "FROZEN"], 30)
            if state == "FROZEN":
                one.thaw()
                continue
            assert state, f"{one.name} is {one.state}"
            return state
        except LxcpyError:
            continue  # its supervisor has just gone
    raise AssertionError(f"{one.name} does not settle")


def traces(one: Box) -> list[str]:
    """What a container has on the host."""
    mounts = Path("/proc/self/mountinfo").read_text().splitlines()
    found = [f"mount {line}" for line in mounts if named(one, line)]
    for line in mounts:
        fields = line.split()
        if fields[fields.index("-") + 1] in ("cgroup", "cgroup2"):
            found += [f"group {path}" for path in Path(fields[4]).glob(f"*{one.name}")]
    sockets = Path("/proc/net/unix").read_text().splitlines()
    name = "@" + os.fsdecode(wire.socket_name(one.lxcpath, one.name)[1:])
    found += [line for line in sockets if line.endswith(name)]
    found += map(str, Path(paths.run_dir(), "containers").rglob(f"{one.name}.json*"))
    found += [f"link {link}" for link in os.listdir("/sys/class/net") if link == f"v{one.name}"]
    return found + processes(one).splitlines()


def look(workers: list[Worker], commands: Commands) -> None:
    """Is everything as it should be?"""
    for worker in workers:
        if worker.failure:
            raise worker.failure
        for one in worker.boxes:
            deadline = time.monotonic() + 20
            while True:
                try:
                    worker.known[one.name] = look_at(one, worker.known[one.name], commands)
                    break
                except AssertionError:
                    # a shutdown or reboot that was asked for by a command that was killed may come late
                    if worker.known[one.name] or time.monotonic() > deadline:
                        raise
                    time.sleep(0.2)


def look_at(one: Box, known: str | None, commands: Commands) -> str:
    """Its state, which is `known` if that is anything; it is what it seems to be."""
    state = settled(one)
    assert known in (None, state), f"{one.name} is {state}, and should be {known}"
    pid = one.init_pid
    if state == "RUNNING":
        assert os.path.exists(f"/proc/{pid}/root/init"), f"{one.name} has no init {pid}"
        status, said = commands.run("attach", one, "--", "/bin/true")
        assert status == 0, f"{one.name} cannot be entered: {said}"
        return state
    assert pid == 0
    nothing_of(one)
    return state


def nothing_of(one: Box) -> None:
    """A link goes a little later: the kernel takes down a network namespace in a thread of its own."""
    wait_for(lambda: not traces(one), lambda: traces(one))


def wait_for(true: Any, about: Any, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, about()
        time.sleep(0.05)


@pytest.fixture
def workers(box: Define, bin: str) -> Iterator[tuple[list[Worker], Commands]]:
    commands = Commands(bin)
    kinds = iter(KINDS * 9)
    made = [Worker([box(next(kinds)) for _ in range(EACH)], commands, SEED + number) for number in range(WORKERS)]
    yield made, commands
    for worker in made:
        for one in worker.boxes:
            if settled(one) == "RUNNING":
                assert one.kill(20)


@pytest.mark.timeout(SECONDS + 12 * HANGS)
def test_whatever_is_killed(workers: tuple[list[Worker], Commands]) -> None:
    made, commands = workers
    chance = random.Random(SEED)
    done = {"supervisor": 0, "launcher": 0, "teardown": 0, "command": 0, "reexec": 0}
    end = time.monotonic() + SECONDS
    rounds = 0
    print(f"seed {SEED}")
    try:
        while time.monotonic() < end:
            until = time.monotonic() + ROUND
            threads = [threading.Thread(target=worker.work, args=(until,)) for worker in made]
            threads.append(threading.Thread(target=harm, args=(commands, chance, until, done)))
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(3 * HANGS)
                assert not thread.is_alive(), [process.args for process in commands.running.values()]
            look(made, commands)
            rounds += 1
    finally:
        print(f"{rounds} rounds, {sum(commands.counts.values())} commands {commands.counts}, killed {done}")
    assert done["supervisor"] and done["command"]
    afterwards([one for worker in made for one in worker.boxes])


def afterwards(boxes: list[Box]) -> None:
    """All of them can be started and stopped, and the supervisor holds nothing of them."""
    for one in boxes:
        if one.state != "RUNNING":
            one.start()
    for one in boxes:
        assert settled(one) == "RUNNING"
        assert one.kill(20)
        nothing_of(one)

    def found() -> dict[str, Any]:
        with client.connect() as supervisor:
            return supervisor.ask("status")

    wait_for(lambda: found()["containers"] == 0 and found()["descriptors"] < 30, found)
    pid = found()["pid"]
    wait_for(lambda: len(helpers(pid, "")) <= 1, lambda: helpers(pid, ""))  # the launcher in waiting
