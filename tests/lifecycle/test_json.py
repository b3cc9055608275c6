"""Every --json on a machine with running, frozen, stopped and broken containers, against lxcpy-json(7)."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import images
import jsonpages
import pytest
from containers import config_of
from lifecycle.conftest import Box, Define, make_rootfs
from probes import requires

Run = Callable[..., "subprocess.CompletedProcess[str]"]
pytestmark = requires("root", "busybox")
NUMBERS = (
    "cpu", "cpu_user", "cpu_system", "blkio", "blkio_read", "blkio_write", "blkio_operations", "memory", "memory_limit",
    "memory_swap", "swap", "kernel_memory", "processes",
)  # fmt: skip


class Machine(NamedTuple):
    running: Box
    frozen: Box
    stopped: Box
    broken: Box

    @property
    def lxcpath(self) -> str:
        return self.running.lxcpath


@pytest.fixture
def machine(box: Define) -> Machine:
    veth = "lxc.net.0.type = veth\nlxc.net.0.flags = up\nlxc.net.0.ipv4.address = 10.98.7.6/24\n"
    veth += "lxc.net.0.ipv6.address = fd00:98::6/64\n"
    auto = "lxc.start.auto = 1\nlxc.start.delay = 3\nlxc.group = web\nlxc.group = db\n"
    four = Machine(box(veth + auto), box("lxc.start.auto = 1\n"), box(auto), box("lxc.start.auto = 1\nlxc.nonsense\n"))
    for one in four[:2]:
        one.start()
        one.await_traps()
    four.frozen.freeze()
    return four


@pytest.fixture
def read(run: Run, lxcpath: str) -> Callable[..., Any]:
    """`read("lxcpy-ls --json", "ls", "--json")`: run a command that must succeed, and check what it prints."""

    def call(document: str, command: str, *words: str, status: int = 0, path: bool = True) -> Any:
        done = run(command, *(("-P", lxcpath) if path else ()), *words)
        assert (done.returncode, done.stderr) == (status, "")
        return jsonpages.read(document, done.stdout)

    return call


def test_ls(machine: Machine, read: Callable[..., Any]) -> None:
    nested = f"{machine.stopped.rootfs}{machine.lxcpath}/inner"  # LXC looks at the same lxcpath in there
    make_rootfs(f"{nested}/rootfs")
    Path(nested, "config").write_text("lxc.idmap = u 0 100000 65536\n")
    os.makedirs(os.fsencode(f"{machine.lxcpath}/") + b"\xff\xfe")
    Path(os.fsdecode(os.fsencode(f"{machine.lxcpath}/") + b"\xff\xfe"), "config").touch()
    listed = read("lxcpy-ls --json", "ls", "--json", "--nesting")
    rows = {row["name"]: row for row in listed}
    assert len(rows) == len(listed) == 6 and "\udcff\udcfe" in rows
    inner, running = rows["inner"], rows[machine.running.name]
    assert (inner["parent"], inner["level"], inner["state"]) == (machine.stopped.name, 1, "STOPPED")
    assert inner["unprivileged"] and inner["lxcpath"] == machine.lxcpath
    assert (running["ipv4"], running["ipv6"], running["groups"]) == (["10.98.7.6"], ["fd00:98::6"], ["web", "db"])
    assert running["interfaces"] == ["eth0", "lo"] and running["pid"] == machine.running.init_pid
    states = dict.fromkeys(rows, "STOPPED") | {running["name"]: "RUNNING", machine.frozen.name: "FROZEN"}
    for name, row in rows.items():
        stopped = row["state"] == "STOPPED"
        assert row["state"] == states[name]
        assert [row[key] is None for key in ("pid", "memory")] == [stopped] * 2
        assert not stopped or [row[key] for key in ("swap", "interfaces", "ipv4", "ipv6")] == [None, [], [], []]
        assert name == "inner" or (row["parent"], row["level"], row["lxcpath"]) == (None, 0, machine.lxcpath)
    assert read("lxcpy-ls --json", "ls", "--json", "--frozen", "--filter", "nobody") == []


def test_info(machine: Machine, read: Callable[..., Any], run: Run) -> None:
    words = ("--json", "-c", "lxc.group", "-c", "lxc.uts.name")
    for one in machine:
        asked = words if one is not machine.broken else words[:1]
        facts = read("lxcpy-info --json", "info", *asked, one.name)
        stopped = one in machine[2:]
        assert (facts["name"], facts["lxcpath"]) == (one.name, machine.lxcpath)
        assert facts["pid"] == (None if stopped else one.init_pid)
        assert [facts[key] is None for key in ("cpu", "memory", "processes")] == [stopped] * 3
        assert not stopped or {facts[key] for key in NUMBERS} == {None}
        if one is machine.running:
            assert (facts["ipv4"], facts["ipv6"]) == (["10.98.7.6"], ["fd00:98::6"])
            [link] = facts["links"]
            assert link["interface"].startswith("veth") and link["sent"] > 0
            expected = [{"key": "lxc.group", "value": "web\ndb\n"}, {"key": "lxc.uts.name", "value": one.name}]
            assert facts["config"] == expected
        else:
            assert facts["links"] == facts["ipv4"] == facts["ipv6"] == []
    done = run("info", "-P", machine.lxcpath, machine.stopped.name, "--json", "-c", "lxc.nothing")
    assert (done.returncode, done.stderr) == (0, "lxc.nothing invalid\n")
    assert jsonpages.read("lxcpy-info --json", done.stdout)["config"] == []


def test_autostart(machine: Machine, read: Callable[..., Any], run: Run) -> None:
    def planned(*words: str) -> list[tuple[Any, ...]]:
        found = read("lxcpy-autostart -L --json", "autostart", "-L", "--json", *words)
        assert {row["lxcpath"] for row in found} <= {machine.lxcpath}
        return [(row["name"], row["action"], row["delay"], row["groups"]) for row in found]

    groups = ["web", "db"]
    alive = sorted([(machine.running.name, 3, groups), (machine.frozen.name, 0, [])], reverse=True)
    assert planned("-g", "web") == [(machine.stopped.name, "start", 3, groups)]
    assert planned("-g", "nobody") == []
    for letter, action in (("-s", "shutdown"), ("-k", "kill")):
        assert planned("-a", letter) == [(name, action, None, group) for name, _, group in alive]
    assert planned("-a", "-r") == [(name, "reboot", delay, group) for name, delay, group in reversed(alive)]
    done, plain = (run("autostart", "-P", machine.lxcpath, "-a", "-L", *words) for words in (["--json"], []))
    assert (done.returncode, done.stderr) == (plain.returncode, plain.stderr)
    found = jsonpages.read("lxcpy-autostart -L --json", done.stdout)
    assert [(row["name"], row["delay"]) for row in found] == [
        (name, int(delay)) for name, delay in (line.split() for line in plain.stdout.splitlines())
    ]
    assert found[0]["batch"] == 0
    assert run("autostart", "-P", machine.lxcpath, "--json").returncode == 1
    assert machine.stopped.state == "STOPPED"


def test_snapshots(machine: Machine, read: Callable[..., Any], tmp_path: Path) -> None:
    one = machine.stopped
    words = ("snapshot", "-n", one.name, "-L", "--json")
    assert read("lxcpy-snapshot -L --json", *words) == []
    begin = int(time.time())
    one.snapshot()
    (tmp_path / "notes").write_text("before\n")
    one.snapshot(str(tmp_path / "notes"))
    first, second = read("lxcpy-snapshot -L --json", *words)
    assert (first["name"], first["snapshot"], first["comment"]) == (one.name, "snap0", None)
    assert begin <= first["time"] <= time.time() and second["comment"] == "before\n"
    assert config_of(Box(second["snapshot"], os.path.dirname(second["directory"])))
    Path(first["directory"], "ts").write_text("yesterday")
    assert read("lxcpy-snapshot -L --json", *words)[0]["time"] is None


def test_config(machine: Machine, read: Callable[..., Any]) -> None:
    settings = read("lxcpy-config -l --json", "config", "-l", "--json", path=False)
    assert "lxc.lxcpath" in {row["key"] for row in settings}
    assert read("lxcpy-config KEY --json", "config", "lxc.lxcp", "--json", path=False)["key"] == "lxc.lxcpath"
    broken = read("lxcpy-config check --json", "config", "check", machine.broken.name, "--json", status=1)
    assert broken[0]["severity"] == "error" and broken[0]["at"]["file"] == machine.broken.config_file
    more = Path(machine.lxcpath, "more.conf")
    more.write_text("lxc.group = more\n")
    with open(machine.stopped.config_file, "a") as config:
        config.write(f"lxc.include = {more}\nlxc.utsname = twice\n")
    read("lxcpy-config check --json", "config", "check", machine.stopped.name, "--json")
    explained = read("lxcpy-config explain --json", "config", "explain", machine.stopped.name, "--json")
    [included] = [row for row in explained if row["value"] == "more"]
    assert included["at"]["file"] == str(more) and included["at"]["via"][0]["file"] == machine.stopped.config_file


def test_checkconfig(read: Callable[..., Any], run: Run, tmp_path: Path) -> None:
    found = read("lxcpy-checkconfig --json", "checkconfig", "--json", path=False)
    assert found["features"][0] == {
        "part": "namespaces", "option": "CONFIG_NAMESPACES", "enabled": True, "required": True, "module": None,
        "loaded": None,
    }  # fmt: skip
    (tmp_path / "empty").touch()
    poor = run("checkconfig", "--json", env={**os.environ, "CONFIG": str(tmp_path / "empty")})
    findings = jsonpages.read("lxcpy-checkconfig --json", poor.stdout)["findings"]
    assert len(findings) > 20 and findings[0]["why"] == "no container starts"


def test_supervisor(machine: Machine, read: Callable[..., Any]) -> None:
    words = ("lxcpy-supervisor status --json", "supervisor", "status", "--json")
    assert read(*words, path=False)["active"] == 2


def test_create(run: Run, lxcpath: str, name: str, tmp_path: Path) -> None:
    system = images.pack(images.system(tmp_path / "source"), tmp_path / "rootfs.tar.xz")
    meta = images.meta(tmp_path / "meta.tar.xz", {"create-message": "Welcome.\n"})
    template = ("-t", "local", "--", "--metadata", str(meta), "--fstree", str(system))
    done = run("create", "-P", lxcpath, "-n", name, "--json", *template)
    assert done.returncode == 0, done.stderr
    rows = jsonpages.read("lxcpy-create --json", done.stdout)
    assert {row["event"] for row in rows} >= {"start", "finish", "message"}
    assert "Welcome." in [row.get("text") for row in rows]


class Stream:
    """A command that goes on, and the lines that it prints."""

    def __init__(self, argv: list[str]) -> None:
        self.process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        assert self.process.stdout
        self.fd = self.process.stdout.fileno()
        self.read = b""

    def line(self, seconds: float = 30) -> str:
        """The next one; "" where none comes within that time."""
        deadline = time.monotonic() + seconds
        while b"\n" not in self.read:
            if not select.select([self.fd], [], [], max(deadline - time.monotonic(), 0))[0]:
                return ""
            data = os.read(self.fd, 1 << 16)
            assert data, "it has ended"
            self.read += data
        line, _, self.read = self.read.partition(b"\n")
        return f"{line.decode()}\n"


@pytest.fixture
def stream(bin: str, lxcpath: str) -> Iterator[Callable[..., Stream]]:
    """Killed after the test."""
    started: list[Stream] = []

    def call(command: str, *words: str) -> Stream:
        started.append(Stream([f"{bin}/lxcpy-{command}", "-P", lxcpath, *words]))
        return started[-1]

    yield call
    for one in started:
        one.process.kill()
        one.process.communicate()


def test_top(machine: Machine, stream: Callable[..., Stream], run: Run) -> None:
    top = stream("top", "-b", "-d", "0.2", "-s", "n", "--json")
    rows = jsonpages.read("lxcpy-top -b --json", "".join(top.line() for _ in range(4)))
    assert [row["name"] for row in rows] == [machine.running.name, machine.frozen.name] * 2
    assert rows[0]["time"] == rows[1]["time"] < rows[2]["time"]
    assert all(row["lxcpath"] == machine.lxcpath and row["cpu"] > 0 and row["memory"] > 0 for row in rows)
    assert run("top", "--json").returncode == 1


def test_monitor(machine: Machine, stream: Callable[..., Stream]) -> None:
    monitor = stream("monitor", "--json")
    deadline = time.monotonic() + 30
    while not monitor.line(0.5):  # until it listens
        assert time.monotonic() < deadline
        machine.frozen.thaw()
        machine.frozen.freeze()
    assert machine.running.shutdown(30)
    rows: list[dict[str, Any]] = []
    while not rows or (rows[-1]["name"], rows[-1]["state"]) != (machine.running.name, "STOPPED"):
        line = monitor.line()
        assert line, rows
        rows += jsonpages.read("lxcpy-monitor --json", line)
    assert {row["lxcpath"] for row in rows} == {machine.lxcpath}
    own = [row for row in rows if row["name"] == machine.running.name]
    ended = [row for row in own if row["event"] == "exit"]
    assert [(row["exit_status"], row["signal"]) for row in ended] == [(0, None)]
    assert abs(own[-1]["time"] - time.time()) < 60


def test_errors_are_no_json(run: Run, lxcpath: str, box: Define) -> None:
    """Standard output is empty or JSON; what went wrong, and the status, are as without --json."""
    name = box("lxc.nonsense\n").name
    shutil.rmtree(f"{lxcpath}/{name}/rootfs")
    for command, *words in (
        ("info", "nobody"), ("snapshot", "-L", "nobody"), ("config", "lxc.nothing"), ("config", "explain", name),
        ("config", "check", "nobody"), ("autostart", "-L", "-a"), ("supervisor", "nonsense"), ("cache", "nonsense"),
        ("net", "nonsense"), ("info", "--nonsense"), ("top",), ("monitor", "-n", "("),
    ):  # fmt: skip
        path = [] if command in ("supervisor", "cache", "net") or words == ["lxc.nothing"] else ["-P", lxcpath]
        plain, done = (run(command, *path, *words, *more) for more in ((), ("--json",)))
        assert done.returncode == plain.returncode, (command, *words)
        if command == "top":
            continue  # each says what it lacks
        assert done.stderr == (plain.stderr or plain.stdout), (command, *words)
        assert done.stdout == ("[]\n" if command == "autostart" else "")
