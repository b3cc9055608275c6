"""The supervisor's code is replaced in place: containers, consoles and waiting clients do not notice."""

from __future__ import annotations

import os
import pty
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lxcpy.errors import StateError
from lxcpy.runtime import client, lxcclient
from lxcpy.runtime import lxcprotocol as wire

if TYPE_CHECKING:
    from conftest import Box, Define

pytestmark = pytest.mark.requires("root", "busybox")
ROOT = Path(__file__).parent.parent.parent
Run = Callable[..., "subprocess.CompletedProcess[str]"]

ECHO = """\
trap 'exit 7' TERM
echo ready >/dev/console
while read line </dev/tty1; do echo "got $line" >/dev/tty1; done &
while read line; do echo "heard $line"; done </dev/console >/dev/console &
while :; do sleep 1000 & wait $!; done
"""


def status() -> dict[str, Any]:
    with client.connect() as supervisor:
        return supervisor.ask("status")


def reexec(python: str = sys.executable, path: list[str] | None = None) -> dict[str, Any]:
    with client.connect() as supervisor:
        return supervisor.ask("reexec", timeout=60, python=python, path=path or [str(ROOT), *sys.path])


def until(true: Callable[[], object], seconds: float = 15) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Session:
    """A command on a terminal of its own."""

    def __init__(self, *argv: str) -> None:
        self.seen = b""
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.execv(argv[0], argv)

    def until(self, word: str) -> None:
        deadline = time.monotonic() + 15
        while word.encode() not in self.seen:
            assert select.select([self.master], [], [], deadline - time.monotonic())[0], self.seen
            self.seen += os.read(self.master, 4096)

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def end(self) -> int:
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        os.close(self.master)
        return code


@pytest.fixture
def echo(box: Define) -> Box:
    one = box("lxc.tty.max = 2\nlxc.console.buffer.size = auto\nlxc.console.logfile = {rootfs}/console.log\n")
    Path(one.rootfs, "init").write_text(ECHO)
    return one


def test_open_consoles_go_on(echo: Box, bin: str) -> None:
    echo.start()
    words = ("-P", echo.lxcpath, "-n", echo.name)
    sessions = [Session(f"{bin}/lxcpy-console", *words, "-t", "1"), Session(f"{bin}/lxcpy-console", *words, "-t", "0")]
    if shutil.which("lxc-console"):
        sessions.append(Session(shutil.which("lxc-console") or "", *words, "-t", "2"))
    for session in sessions:
        session.until("to exit the console")
    sessions[0].type("one\n")
    sessions[0].until("got one")
    before = status()
    for count in range(3):
        assert reexec()["pid"] == before["pid"]
        sessions[0].type(f"again{count}\n")
        sessions[0].until(f"got again{count}")
        sessions[1].type(f"console{count}\n")
        sessions[1].until(f"heard console{count}")
    log = lxcclient.command(echo.lxcpath, echo.name).console_log(clear=False, read=True, read_max=0)
    assert log.startswith(b"ready")
    assert b"heard console2" in log
    assert "heard console2" in Path(echo.rootfs, "console.log").read_text()
    with pytest.raises(StateError, match="in use"), client.connect() as supervisor:
        supervisor.ask("console", lxcpath=echo.lxcpath, name=echo.name, tty=1)
    for session in sessions:
        session.type("\x01q")
        assert session.end() == 0
    until(lambda: status()["descriptors"] <= before["descriptors"])
    with client.connect() as supervisor:
        supervisor.ask("console", lxcpath=echo.lxcpath, name=echo.name, tty=1)
    assert echo.kill(10)


def test_waiting_clients_hear_what_comes(echo: Box, box: Define, bin: str) -> None:
    other = box()
    words = ["-P", echo.lxcpath, "-n"]
    foreground = Session(f"{bin}/lxcpy-start", *words, echo.name, "-F")
    foreground.until("ready")
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "text": True}
    monitor = subprocess.Popen([f"{bin}/lxcpy-monitor", "-P", echo.lxcpath, "-n", ".*"], **pipes)
    waiting = [
        subprocess.Popen([f"{bin}/lxcpy-wait", *words, echo.name, "-s", "STOPPED"]),
        subprocess.Popen([f"{bin}/lxcpy-wait", *words, other.name, "-s", "RUNNING"]),
    ]
    if shutil.which("lxc-wait"):
        waiting.append(subprocess.Popen(["lxc-wait", *words, echo.name, "-s", "STOPPED"]))
    with client.connect() as subscriber:
        subscriber.ask("subscribe")
        time.sleep(0.5)
        reexec()
        other.start()
        event = subscriber.receive(10)
        assert (event["name"], event["state"]) == (other.name, "STARTING")
    foreground.type("typed\n")
    foreground.until("heard typed")
    os.kill(echo.init_pid, signal.SIGTERM)
    assert foreground.end() == 0
    assert [process.wait(15) for process in waiting] == [0] * len(waiting)
    assert other.kill(10)
    monitor.terminate()
    said = monitor.communicate()[0]
    assert f"'{other.name}' changed state to [RUNNING]" in said
    assert f"'{echo.name}' changed state to [STOPPED]" in said


def test_an_exit_status_survives(box: Define, run: Run, bin: str) -> None:
    one = box()
    words = ["-P", one.lxcpath, "-n", one.name, "--", "/bin/sh", "-c", "sleep 1.5; exit 5"]
    process = subprocess.Popen([f"{bin}/lxcpy-execute", *words])
    until(lambda: one.state == "RUNNING")
    reexec()
    assert process.wait(15) == 5


def test_starts_and_stops_under_way_go_on(box: Define, bin: str, tmp_path: Path) -> None:
    slow = box(f"lxc.hook.pre-start = sh -c 'touch {tmp_path}/slow; sleep 2'\n")
    failing = box(f"lxc.hook.pre-start = sh -c 'touch {tmp_path}/failing; sleep 2; exit 1'\n")
    stopping = box(f"lxc.hook.post-stop = sh -c 'touch {tmp_path}/stopping; sleep 2'\n")
    rebooting = box(f"lxc.hook.post-stop = sh -c 'touch {tmp_path}/rebooting; sleep 2'\n")
    for one in (stopping, rebooting):
        one.start()
        one.await_traps()
    pid = rebooting.init_pid
    commands = []

    def begin_to(verb: str, one: Box, *more: str) -> None:
        argv = [f"{bin}/lxcpy-{verb}", "-P", one.lxcpath, "-n", one.name, *more]
        commands.append(subprocess.Popen(argv, stderr=subprocess.DEVNULL))

    begin_to("start", slow)
    begin_to("start", slow)
    begin_to("start", failing)
    begin_to("stop", stopping, "-k")
    begin_to("stop", rebooting, "-r")
    until(lambda: all((tmp_path / word).exists() for word in ("slow", "failing", "stopping", "rebooting")))
    begin_to("start", stopping)
    time.sleep(0.3)
    begin = time.monotonic()
    reexec()
    assert time.monotonic() - begin < 2
    assert [command.wait(20) for command in commands] == [0, 0, 1, 0, 0, 0]
    assert [one.state for one in (slow, failing, stopping, rebooting)] == ["RUNNING", "STOPPED", "RUNNING", "RUNNING"]
    assert rebooting.init_pid != pid
    for one in (slow, stopping, rebooting):
        assert one.kill(15)


def test_half_a_request_is_completed_afterwards(box: Define) -> None:
    one = box()
    one.start()
    request = wire.HEADER.pack(wire.GET_CONFIG_ITEM, 13, 0) + b"lxc.uts.name\0"
    theirs = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    theirs.connect(wire.socket_name(one.lxcpath, one.name))
    theirs.send(request[: wire.HEADER.size + 4])
    ours = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.connect(client.socket_path())
    ours.send(b'{"id": 7, "do": "st')
    time.sleep(0.2)
    reexec()
    theirs.send(request[wire.HEADER.size + 4 :])
    ours.send(b'atus"}\n')
    for end in (theirs, ours):
        end.settimeout(10)
    assert theirs.recv(4096).endswith(one.name.encode() + b"\0")
    assert ours.recv(4096).startswith(b'{"id": 7, "pid": ')
    theirs.close()
    ours.close()
    assert one.kill(10)


def test_a_client_that_reads_late_gets_everything(box: Define) -> None:
    one = box()
    one.start()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(client.socket_path())
    count = 3000
    for number in range(count):
        sock.send(b'{"id": %d, "do": "list", "detail": {"cgroups": true}}\n' % number)
    time.sleep(0.5)
    reexec()
    data = b""
    sock.settimeout(10)
    while data.count(b"\n") < count:
        data += sock.recv(1 << 16)
    assert [line.split(b",")[0] for line in data.splitlines()] == [b'{"id": %d' % number for number in range(count)]
    sock.close()
    assert one.kill(10)


@pytest.fixture
def other_code(tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(ROOT / "lxcpy", tmp_path / "code/lxcpy", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "code/config").symlink_to(ROOT / "config")
    yield tmp_path / "code"


def alter(code: Path, file: str, old: str, new: str) -> None:
    path = code / "lxcpy" / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def path_of(code: Path) -> list[str]:
    return [str(code), *(place for place in sys.path if place != str(ROOT))]


def test_other_code_goes_on(echo: Box, other_code: Path) -> None:
    echo.start()
    alter(other_code, "__init__.py", '__version__ = "', '__version__ = "9.')
    assert reexec(path=path_of(other_code))["version"].startswith("9.")
    assert echo.state == "RUNNING"
    assert not reexec()["version"].startswith("9.")
    assert echo.kill(10)


@pytest.mark.parametrize(
    ("file", "old", "new", "why"),
    [
        ("runtime/handover.py", "VERSION = 2", "VERSION = 99", "the hand-over has version 2, not 99"),
        ("runtime/ring.py", "import os", "import nothing_of_that_name", "it said nothing"),
        ("runtime/handover.py", "live.ttys = ", "live.ttys = 1 / 0 or ", "{name} could not be taken over"),
        ("", "", "", "cannot run"),
    ],
)
def test_where_the_new_code_cannot_the_old_goes_on(
    echo: Box, bin: str, other_code: Path, file: str, old: str, new: str, why: str
) -> None:
    echo.start()
    session = Session(f"{bin}/lxcpy-console", "-P", echo.lxcpath, "-n", echo.name, "-t", "1")
    session.until("to exit the console")
    before = status()
    if file:
        alter(other_code, file, old, new)
    python = sys.executable if file else "/no/such/python"
    with pytest.raises(StateError) as raised:
        reexec(python, path_of(other_code))
    assert raised.value.what.startswith("the new code cannot take over: " + why.format(name=echo.name))
    session.type("still\n")
    session.until("got still")
    after = status()
    assert (after["pid"], after["started"]) == (before["pid"], before["started"])
    until(lambda: status()["descriptors"] <= before["descriptors"])
    session.type("\x01q")
    assert session.end() == 0
    assert echo.kill(10)


def test_code_that_fails_after_its_trial_adopts(box: Define, other_code: Path) -> None:
    one, slow = box(), box("lxc.hook.pre-start = sh -c 'sleep 5'\n")
    one.start()
    alter(other_code, "runtime/reexec.py", "    supervisors.settle()\n", "    assert trial >= 0\n")
    pid = one.init_pid
    supervisor = status()["pid"]
    with client.connect() as connection:
        connection.send("start", options=slow.options(), foreground=False)
        time.sleep(0.3)
        with pytest.raises(StateError, match="ended before it answered"):
            reexec(path=path_of(other_code))
    assert status()["pid"] == supervisor
    assert (one.state, one.init_pid) == ("RUNNING", pid)
    until(lambda: slow.state == "STOPPED")
    assert one.kill(10)
    slow.start(define=["lxc.hook.pre-start="])
    assert slow.kill(10)


def test_again_and_again(box: Define) -> None:
    """What a re-exec costs does not add up."""
    boxes = [box("lxc.tty.max = 1\n") for _ in range(3)]
    for one in boxes:
        one.start()
    reexec()
    before = status()
    for _ in range(10):
        reexec()
    after = status()
    assert after["descriptors"] == before["descriptors"]
    assert after["resident"] < before["resident"] + (4 << 20)
    assert len(Path(f"/proc/{after['pid']}/task/{after['pid']}/children").read_text().split()) <= len(boxes) + 1
    for one in boxes:
        assert one.kill(10)


def test_the_command(box: Define, run: Run) -> None:
    one = box()
    one.start()
    stop = run("supervisor", "stop")
    assert (stop.returncode, stop.stdout) == (1, "")
    assert stop.stderr.startswith("lxcpy-supervisor: it looks after 1 container\n")
    done = run("supervisor", "reexec")
    assert (done.returncode, done.stderr) == (0, "")
    assert "goes on as process" in done.stdout
    rows = dict(line.split(":", 1) for line in run("supervisor", "status").stdout.splitlines())
    assert rows["Containers"].strip() == "1"
    pid = rows["PID"].strip()
    assert "has adopted the containers as process" in run("supervisor", "reexec", "--adopt").stdout
    assert str(status()["pid"]) != pid
    assert one.state == "RUNNING"
    assert run("supervisor", "stop", "--force").returncode == 0
    none = run("supervisor", "status", "--json")
    assert (none.returncode, none.stdout) == (3, "null\n")
    assert run("supervisor", "stop").returncode == 0
    assert "has adopted" in run("supervisor", "reexec").stdout
    assert one.kill(10)
    assert run("supervisor", "restart").returncode == 1
