"""Attach, console and real LXC's tools at containers that our supervisor runs."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from typing import Any

import pytest
from probes import requires

from lxcpy.errors import StateError
from lxcpy.runtime import attach
from lxcpy.runtime.attach import Request
from lxcpy.runtime.lxcclient import command, running

pytestmark = requires("root", "busybox")
CONFIG = """\
lxc.tty.max = 2
lxc.console.buffer.size = 4096
lxc.environment = FROM_CONFIG=yes
lxc.cap.drop = sys_time
lxc.prlimit.nofile = 1000:2000
"""


@pytest.fixture
def live(box: Callable[..., Any]) -> Any:
    one = box(CONFIG)
    one.start()
    return one


def lxc(tool: str, live: Any, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [f"lxc-{tool}", "-P", live.lxcpath, "-n", live.name, *words],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=20, check=False,
    )  # fmt: skip


def test_a_command_inside(run: Callable[..., Any], live: Any) -> None:
    script = "id -u; echo $FROM_CONFIG $container $$; ulimit -n; grep CapBnd /proc/self/status; exit 5"
    done = run("attach", "-P", live.lxcpath, "-n", live.name, "--clear-env", "--", "sh", "-c", script)
    lines = done.stdout.splitlines()
    assert done.returncode == 5, done.stderr
    assert lines[0] == "0"
    assert lines[1].startswith("yes lxc ")
    assert lines[2] == "1000"
    assert not int(lines[3].split()[1], 16) >> 25 & 1


@requires("lxc>=4.0")
def test_lxc_attach_sees_what_ours_sees(run: Callable[..., Any], live: Any) -> None:
    script = "id; cat /proc/self/cgroup; grep -E 'Cap|NoNew|Secc' /proc/self/status; "
    script += "for n in /proc/self/ns/*; do readlink $n; done"
    ours = run("attach", "-P", live.lxcpath, "-n", live.name, "--", "sh", "-c", script)
    theirs = lxc("attach", live, "--", "sh", "-c", script)
    assert ours.returncode == theirs.returncode == 0, theirs.stderr
    assert ours.stdout == theirs.stdout


@requires("lxc>=4.0")
def test_lxc_s_tools(live: Any) -> None:
    assert lxc("info", live, "-sH").stdout == "RUNNING\n"
    assert lxc("info", live, "-pH").stdout == f"{live.init_pid}\n"
    assert lxc("wait", live, "-s", "RUNNING").returncode == 0
    assert lxc("freeze", live).returncode == 0
    assert live.state == "FROZEN"
    assert lxc("unfreeze", live).returncode == 0
    assert live.state == "RUNNING"
    assert running(live.lxcpath) == [live.name]
    stopped = subprocess.Popen(["lxc-wait", "-P", live.lxcpath, "-n", live.name, "-s", "STOPPED"])
    assert lxc("stop", live, "-k").returncode == 0
    assert stopped.wait(10) == 0
    assert lxc("info", live, "-sH").stdout == "STOPPED\n"


@requires("lxc>=4.0")
def test_lxc_start_is_told_that_it_runs(live: Any) -> None:
    assert "already running" in lxc("start", live).stderr
    assert live.state == "RUNNING"


def test_ttys_are_lent_and_given_back(live: Any) -> None:
    client = command(live.lxcpath, live.name)
    for _ in range(3):
        lent = [client.console(), client.console()]
        assert [terminal.tty for terminal in lent] == [1, 2]
        with pytest.raises(StateError, match="no tty is free"):
            client.console()
        with open(f"/proc/{live.init_pid}/root/dev/tty1", "wb", buffering=0) as inside:
            inside.write(b"hello\n")
            assert os.read(lent[0].master, 100) == b"hello\r\n"
        for terminal in lent:
            os.close(terminal.master)
            os.close(terminal.hold)
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                last = client.console(2)
                break
            except StateError:
                time.sleep(0.01)
        os.close(last.master)
        os.close(last.hold)
        time.sleep(0.05)


def test_the_console_is_shared_with_its_log(live: Any) -> None:
    client = command(live.lxcpath, live.name)
    console = client.console(0)
    with open(f"/proc/{live.init_pid}/root/dev/console", "wb", buffering=0) as inside:
        inside.write(b"said\n")
    assert os.read(console.master, 100).endswith(b"said\r\n")
    with pytest.raises(StateError, match="the console is busy or missing"):
        client.console(0)
    os.close(console.master)
    os.close(console.hold)
    assert client.console_log().endswith(b"said\r\n")
    assert client.console_log() == b""


def test_devpts(live: Any) -> None:
    fd = command(live.lxcpath, live.name).devpts_fd()
    try:
        assert os.major(os.stat("ptmx", dir_fd=fd).st_rdev) == 5
    finally:
        os.close(fd)


def test_a_function_inside_has_the_capabilities_of_the_container(box: Any) -> None:
    one = box("lxc.cap.drop = sys_module sys_ptrace setuid\n")
    one.start()

    def inside() -> int:
        with open("/proc/self/status") as file:
            sets = dict(line.split(":\t") for line in file if line.startswith("Cap"))
        bounding = int(sets["CapBnd"], 16)
        return sum(bool(int(sets[name], 16) & ~bounding) for name in ("CapEff", "CapPrm", "CapInh"))

    started = attach.start(one.lxcpath, one.name, attach.Request(terminal=False), inside)
    os.close(started.pidfd)
    assert os.waitstatus_to_exitcode(os.waitpid(started.pid, 0)[1]) == 0


def test_a_function_inside(live: Any) -> None:
    """What python3-lxc's attach does: code of the caller's runs there."""
    namespace = os.readlink(f"/proc/{live.init_pid}/ns/net")
    reader, writer = os.pipe()

    def inside() -> int:
        os.write(writer, os.readlink("/proc/self/ns/net").encode())
        os.close(writer)
        return 7

    started = attach.start(live.lxcpath, live.name, Request(terminal=False), inside)
    os.close(writer)
    assert os.read(reader, 100).decode() == namespace
    os.close(reader)
    os.close(started.pidfd)
    assert os.waitstatus_to_exitcode(os.waitpid(started.pid, 0)[1]) == 7
    # the caller's next children are its own again
    assert os.readlink("/proc/self/ns/pid_for_children") == os.readlink("/proc/self/ns/pid")


def test_a_container_that_is_ending(live: Any) -> None:
    live.kill(20)
    with pytest.raises(StateError, match="is not running"):
        attach.attach(live.lxcpath, live.name, Request(argv=("true",), terminal=False))


def test_a_hostile_devpts_is_not_used(live: Any) -> None:
    """Someone inside puts something else where the terminals are: the command gets one of the host's."""
    script = "umount -l /dev/ptmx; umount -l /dev/pts; rm -rf /dev/pts; mkdir /x; echo no > /x/ptmx; ln -s /x /dev/pts"
    request = Request(argv=("/bin/busybox", "sh", "-c", script), elevated=("CAP",), terminal=False)
    attach.attach(live.lxcpath, live.name, request)
    assert os.path.islink(f"/proc/{live.init_pid}/root/dev/pts")
    assert command(live.lxcpath, live.name).devpts_fd() == -1
    started = attach.start(live.lxcpath, live.name, Request(argv=("cat",), terminal=True))
    assert started.master is not None
    with started.master as master:
        assert os.stat(master.number).st_dev == os.stat("/dev/ptmx").st_dev
    os.close(started.pidfd)
    os.waitpid(started.pid, 0)
