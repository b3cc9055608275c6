"""Each exit status of EXIT STATUS in the man pages is really returned, and no other; and LXC's commands agree."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from bothsides import ends, on_terminal, read_until, wait_for
from probes import requires
from reallxc import CONFIG, make_rootfs

from lxcpy import paths
from lxcpy.cli.registry import COMMANDS
from lxcpy.container import Container
from lxcpy.docgen.man import command as table
from lxcpy.errors import LxcpyError
from lxcpy.runtime import lxcprotocol as wire

pytestmark = requires("root", "busybox", "lxc>=5.0")
OURS = {"cache", "doctor", "net", "supervisor"}


class Case(NamedTuple):
    """A command line, and its exit status; {runs} and the like are the names of containers."""

    status: int
    words: str  # split at blanks; the last word may be a script behind " :: "
    path: bool = True  # takes -P
    lxc: int | None = None  # real LXC's where it is another; -1: not to be tried
    differs: str = ""  # how lxcpy-differences(7) calls that
    env: str = ""  # NAME=VALUE; NAME= alone is unset


CASES: dict[str, tuple[Case, ...]] = {
    "attach": (
        Case(0, "{runs} -- /bin/true"), Case(7, "{runs} -- /bin/sh -c :: exit 7"),
        Case(137, "{runs} -- /bin/sh -c :: kill -9 $$"), Case(126, "{runs} -- /etc/passwd"),
        Case(127, "{runs} -- /no/such"), Case(1, "{stopped} -- /bin/true"), Case(1, "{nobody} -- /bin/true"),
    ),
    "cache": (Case(0, "list", path=False), Case(1, "nonsense", path=False)),
    "cgroup": (
        Case(0, "{runs} memory.limit_in_bytes"), Case(1, "{runs} no.such"), Case(1, "{stopped} memory.limit_in_bytes"),
        Case(1, "{nobody} memory.limit_in_bytes"),
    ),
    "checkconfig": (Case(0, "", path=False),),
    "checkpoint": (
        Case(1, "-n {runs}"), Case(1, "-n {stopped} -s -D /no/such/place"), Case(1, "-n {nobody} -s -D /no/such/place"),
    ),
    "config": (
        Case(0, "lxc.lxcpath", path=False), Case(0, "lxc.cgroup.use", path=False), Case(1, "lxc.nothing", path=False),
        Case(0, "check {stopped}", lxc=-1), Case(1, "check {nobody}", lxc=-1), Case(1, "explain {nobody}", lxc=-1),
    ),
    "console": (Case(1, "{runs} -t 99"), Case(1, "{stopped}"), Case(1, "{nobody}")),
    "copy": (
        Case(0, "-n {stopped} -N {stopped}-2"), Case(1, "-n {runs} -N {runs}-2"), Case(1, "-n {nobody} -N {runs}-2"),
        Case(1, "-n {stopped} -N {runs}"),
    ),
    "create": (Case(0, "-n {stopped}-3 -t none -f /dev/null"), Case(1, "-n {stopped} -t none -f /dev/null"),
               Case(1, "-n {nobody} -t no-such-template -f /dev/null")),
    "destroy": (Case(0, "{stopped}-2"), Case(0, "{stopped}-3"), Case(1, "{runs}"), Case(1, "{nobody}")),
    "device": (
        Case(0, "-n {runs} add /dev/loop-control /dev/lc", lxc=1, differs="second name"),
        Case(1, "-n {stopped} add /dev/full"), Case(1, "-n {nobody} add /dev/full"),
        Case(1, "-n {runs} add /dev/no-such"),
    ),
    "doctor": (Case(0, "{stopped}"), Case(1, "{nobody}")),
    "execute": (
        Case(0, "-n {stopped} -- /bin/true"), Case(3, "-n {stopped} -- /bin/sh -c :: exit 3"),
        Case(137, "-n {stopped} -- /bin/sh -c :: kill -9 $$"), Case(255, "-n {stopped} -- /no/such"),
        Case(1, "-n {runs} -- /bin/true"), Case(1, "-n {broken} -- /bin/true"),
    ),
    "freeze": (Case(0, "{runs}"), Case(0, "{runs}"), Case(1, "{stopped}"), Case(1, "{nobody}")),
    "unfreeze": (
        Case(0, "{runs}"), Case(0, "{runs}"), Case(1, "{stopped}", lxc=0, differs="a stopped container"),
        Case(1, "{nobody}"),
    ),
    "info": (Case(0, "{runs}"), Case(0, "{stopped}"), Case(0, "{runs} -c lxc.nothing"), Case(1, "{nobody}")),
    "ls": (Case(0, ""), Case(0, "--filter {nobody}"), Case(1, "-g")),
    "monitor": (Case(1, "-n ("), Case(1, "-Q")),
    "net": (Case(3, "status", path=False), Case(0, "stop", path=False), Case(1, "nonsense", path=False)),
    "snapshot": (
        Case(0, "-n {stopped}"), Case(0, "-n {stopped} -L"), Case(0, "-n {stopped} -d snap0"), Case(1, "-n {runs}"),
        Case(1, "-n {nobody}"), Case(1, "-n {nobody} -L"), Case(1, "-n {stopped} -r snap9"),
    ),
    "start": (Case(0, "{runs}"), Case(0, "-n {stopped}"), Case(1, "{nobody}"), Case(1, "{broken}")),
    "supervisor": (Case(0, "status", path=False), Case(1, "stop", path=False),
                   Case(3, "status", path=False, env="LXCPY_RUN_DIR=/nowhere")),
    "autostart": (
        Case(0, ""), Case(0, "-a -A -L"), Case(1, "-g broken -A", lxc=2, differs="every attempt"),
        Case(2, "-g mixed,broken -A"),
    ),
    "stop": (
        Case(0, "{stopped} -k"), Case(2, "{stopped}"), Case(2, "{nobody}"), Case(1, "{deaf} -t 1 --nokill"),
        Case(0, "{deaf} -W"),
    ),
    "top": (Case(1, ""),),
    "unshare": (
        Case(0, "-s UTSNAME -- /bin/true", path=False), Case(1, "-s UTSNAME -- /bin/sh -c :: exit 5", path=False),
        Case(1, "-s UTSNAME -- /no/such", path=False), Case(1, "-- /bin/true", path=False),
    ),
    "update-config": (Case(0, "-c {config}", path=False), Case(1, "-c /no/such", path=False)),
    "usernsexec": (
        Case(0, "-m u:0:100000:10 -m g:0:100000:10 -- /bin/true", path=False, lxc=-1),
        Case(5, "-m u:0:100000:10 -m g:0:100000:10 -- /bin/sh -c :: exit 5", path=False, lxc=-1),
        Case(137, "-m u:0:100000:10 -m g:0:100000:10 -- /bin/sh -c :: kill -9 $$", path=False, lxc=-1),
        Case(1, "-m nonsense -- /bin/true", path=False), Case(1, "-m u:0:100000:10 -- /no/such", path=False),
    ),
    "wait": (
        Case(0, "{stopped} -s STOPPED"), Case(1, "{stopped} -s RUNNING -t 0"), Case(1, "{stopped} -s NONSENSE"),
        Case(0, "{nobody} -s STOPPED"), Case(1, "{stopped}"),
    ),
}  # fmt: skip


EXTRA = {
    "stopped": "lxc.group = mixed\n",
    "broken": "lxc.group = broken\nlxc.mount.entry = /no/such mnt none bind 0 0\n",
    "deaf": "lxc.signal.halt = SIGWINCH\n",  # which its shell ignores
}


class Side:
    """Containers in every state, and the commands of one side on them."""

    def __init__(self, prefix: str, lxcpath: str, names: Callable[[], str]) -> None:
        self.prefix, self.lxcpath = prefix, lxcpath
        self.names = {"runs": names(), "stopped": names(), "broken": names(), "deaf": names()}
        for what in self.names:
            folder = Path(lxcpath, self.names[what])
            make_rootfs(f"{folder}/rootfs")
            text = CONFIG.format(name=folder.name, rootfs=f"{folder}/rootfs")
            (folder / "config").write_text(text + EXTRA.get(what, ""))
        Path(lxcpath, "old").write_text("lxc.utsname = old\n")
        for what in ("runs", "deaf"):
            assert self.call("start", f"-P {lxcpath} -n {self.names[what]}").returncode == 0
        self.names["nobody"] = "nobody-here"

    def call(self, command: str, words: str, env: str = "") -> subprocess.CompletedProcess[str]:
        plain, _, script = words.format(**self.names, config=f"{self.lxcpath}/old").partition(" :: ")
        name, _, value = env.partition("=")
        argv = [f"{self.prefix}{command}", *plain.split(), *([script] if script else [])]
        settings = {**os.environ, **({name: value} if env else {})}
        return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, env=settings)

    def status(self, command: str, case: Case) -> int:
        done = self.call(command, (f"-P {self.lxcpath} " if case.path else "") + case.words, case.env)
        return done.returncode

    def clear(self) -> None:
        for name in self.names.values():
            with contextlib.suppress(LxcpyError):
                Container(name, self.lxcpath).kill(20)
            # LXC leaves these where a start has failed
            for place in (f"lxc.monitor.{name}", f"lxc.monitor.{name}-*"):
                for group in [*Path("/sys/fs/cgroup").glob(place), *Path("/sys/fs/cgroup").glob(f"*/{place}")]:
                    group.rmdir()
        Path(paths.run_dir(), "network.json.lock").unlink(missing_ok=True)


@pytest.fixture
def sides(bin: str, lxcpath: str, names: Callable[[], str]) -> Iterator[list[Side]]:
    os.makedirs(f"{lxcpath}/ours")
    os.makedirs(f"{lxcpath}/theirs")
    made: list[Side] = []
    try:
        for prefix, folder in ((f"{bin}/lxcpy-", "ours"), ("lxc-", "theirs")):
            made.append(Side(prefix, f"{lxcpath}/{folder}", names))
        yield made
    finally:
        for side in made:
            side.clear()


def test_every_command_is_tested() -> None:
    assert sorted(CASES) == sorted(COMMANDS)


@pytest.mark.parametrize("command", sorted(CASES))
def test_usage_errors(command: str, bin: str) -> None:
    """A wrong command line: 1, as of LXC's commands."""
    programs = [f"{bin}/lxcpy-{command}"]
    if command not in (*OURS, "checkconfig"):  # lxc-checkconfig looks at no argument
        programs.append(f"lxc-{command}")
    for program in programs:
        for words in (["--nonsense"], ["-n"]):
            done = subprocess.run([program, *words], stdin=subprocess.DEVNULL, capture_output=True, text=True)
            assert done.returncode == 1, (program, words)
            assert "lxcpy" not in program or (done.stderr and not done.stdout)


def test_statuses(sides: list[Side]) -> None:
    ours, theirs = sides
    wrong = []
    for command, cases in CASES.items():
        for case in cases:
            found = ours.status(command, case)
            if found != case.status:
                wrong.append(f"lxcpy-{command} {case.words}: {found}, not {case.status}")
            if command in OURS or case.lxc == -1:
                continue
            found = theirs.status(command, case)
            if found != (case.status if case.lxc is None else case.lxc):
                wrong.append(f"lxc-{command} {case.words}: {found}")
    assert wrong == [], "\n".join(wrong)


# What takes more than one command is below
ELSEWHERE = {("checkpoint", 0), ("console", 0), ("top", 0), ("monitor", 0), ("checkconfig", 1)}


@pytest.mark.parametrize("command", sorted(CASES))
def test_what_is_documented_is_returned(command: str) -> None:
    documented = table(command).exit_status
    numbers = {status for status in documented if isinstance(status, int)}
    seen = {case.status for case in CASES[command]}
    assert numbers - seen == {status for name, status in ELSEWHERE if name == command}
    if "STATUS" not in documented:
        assert seen <= numbers
    else:  # any of the command's own
        assert seen - numbers <= {0, 3, 5, 7, 137}


def test_commands_on_a_terminal_end_with_0(sides: list[Side]) -> None:
    for side in sides:
        where = ["-P", side.lxcpath]
        with on_terminal([f"{side.prefix}console", *where, "-n", side.names["runs"], "-t", "1"]) as (master, pid):
            read_until(master, b"Connected to tty 1", 30)
            assert pressed(master, pid, b"\x01q") == 0
        with on_terminal([f"{side.prefix}top", *where]) as (master, pid):
            read_until(master, b"TOTAL", 30)
            assert pressed(master, pid, b"q") == 0


def pressed(master: int, pid: int, keys: bytes) -> int:
    """The exit status after these keys: again and again, for LXC discards what comes before its terminal is raw."""
    for _ in range(60):
        with contextlib.suppress(OSError):
            os.write(master, keys)
        with contextlib.suppress(AssertionError):
            return ends(pid, 0.5)
    raise AssertionError("it does not end")


def test_a_monitor_that_is_there_is_ended(bin: str, lxcpath: str) -> None:
    """By both sides' -Q, and there is none left."""
    for program in (f"{bin}/lxcpy-monitor", "lxc-monitor"):
        with subprocess.Popen(["lxc-monitor", "-P", lxcpath], stdout=subprocess.DEVNULL) as watcher:
            try:
                deadline = 300
                while subprocess.run([program, "-P", lxcpath, "-Q"], stderr=subprocess.DEVNULL).returncode:
                    deadline -= 1
                    assert deadline
            finally:
                watcher.kill()


def test_a_kernel_without_its_configuration(bin: str) -> None:
    release = os.uname().release
    if any(os.path.isfile(place) for place in (f"/boot/config-{release}", f"/lib/modules/{release}/build/.config")):
        pytest.skip("the configuration is found without /proc/config.gz")
    for program in (f"{bin}/lxcpy-checkconfig", "lxc-checkconfig"):
        env = {**os.environ, "CONFIG": "/no/such"}
        assert subprocess.run([program], env=env, capture_output=True).returncode == 1


def test_what_holds_for_every_command(bin: str, lxcpath: str) -> None:
    """lxcpy(1): 141 where nobody reads the output, 130 after Ctrl-C."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([f"{bin}/lxcpy-config", "-l"], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, "")
    with on_terminal([f"{bin}/lxcpy-monitor", "-P", lxcpath]) as (master, pid):
        wait_for(lambda: os.path.exists(wire.monitor_fifo(lxcpath)), 30)  # by then it is at work
        os.write(master, b"\x03")
        assert ends(pid, 30) == 130
