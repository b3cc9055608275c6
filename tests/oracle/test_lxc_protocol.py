"""The command protocol in both directions: our client at real LXC's monitors, real LXC's tools at our server."""

from __future__ import annotations

import array
import contextlib
import errno
import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lxctoy import Served, Toy
from probes import requires
from reallxc import CONFIG, Real, make_rootfs

from lxcpy.errors import StateError
from lxcpy.kernel import seccomp as kernel
from lxcpy.runtime import lxcmonitor
from lxcpy.runtime import lxcprotocol as wire
from lxcpy.runtime.lxcclient import Gone, command, running
from lxcpy.runtime.lxcserver import Server
from lxcpy.runtime.lxctarget import Group

HEADER = 32  # bytes before a notification to lxc.seccomp.notify.proxy
Run = Callable[..., "subprocess.CompletedProcess[str]"]
pytestmark = requires("root", "lxc>=4.0", "busybox")


# -- our client, LXC's monitor ---------------------------------------------------------------------------------------


def test_questions(real: Real) -> None:
    asked = real.client
    assert asked.state() == "RUNNING"
    assert asked.init_pid() == int(real.tool("info", "-pH").stdout)
    assert asked.name_of() == real.name
    assert asked.lxcpath() == real.lxcpath
    assert asked.clone_flags() & 0x7E020000 == 0x6E020000  # net pid ipc uts cgroup mnt
    assert asked.config_item("lxc.mount.auto") == "proc:mixed sys:ro"
    assert asked.config_item("lxc.environment") == "FROM_CONFIG=yes\n"
    assert asked.config_item("lxc.seccomp.profile") is None
    assert asked.config_item("lxc.nosuch") is None


def test_descriptors(real: Real) -> None:
    pidfd, devpts = real.client.init_pidfd(), real.client.devpts_fd()
    assert pidfd >= 0
    assert os.major(os.stat("ptmx", dir_fd=devpts).st_rdev) == 5
    for fd in (pidfd, devpts):
        os.close(fd)


def test_groups(real: Real) -> None:
    fds = real.client.cgroup_fds()
    assert fds
    pid = str(real.client.init_pid())
    for fd in fds:
        with open(os.open("cgroup.procs", os.O_RDONLY, dir_fd=fd)) as file:
            assert pid in file.read().split()
        os.close(fd)
    with open("/proc/self/mountinfo") as file:
        memory = re.search(r" (\S+) \S+ - cgroup2? \S+ \S*memory", file.read())
    if memory:
        path = real.client.cgroup("memory")
        assert path == real.client.cgroup("memory", limit=True)
        assert path and path.endswith(f"lxc.payload.{real.name}")
    assert real.client.cgroup("nosuch") is None


def test_terminals(real: Real) -> None:
    one, two = real.client.console(), real.client.console()
    assert (one.tty, two.tty) == (1, 2)
    with pytest.raises(StateError, match="no tty is free"):
        real.client.console()
    with pytest.raises(StateError, match="tty 5 is busy or missing"):
        real.client.console(5)
    console = real.client.console(0)
    assert console.tty == 0
    for terminal in (one, two, console):
        assert os.isatty(terminal.master)
        os.close(terminal.master)
        os.close(terminal.hold)
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        with contextlib.suppress(StateError):
            again = real.client.console(1)
            break
    os.close(again.master)
    os.close(again.hold)


def test_console_log(real: Real) -> None:
    deadline = time.monotonic() + 5
    while not (said := real.client.console_log()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert said == b"booted\r\n"


def test_wait_and_stop(real: Real) -> None:
    assert real.client.wait(("RUNNING",)) == "RUNNING"
    assert real.client.wait(("STOPPED",), timeout=0.2) is None
    with subprocess.Popen(["lxc-stop", "-P", real.lxcpath, "-n", real.name, "-k"]) as stopping:
        assert real.client.wait(("STOPPED",), timeout=10) == "STOPPED"
        assert stopping.wait(10) == 0


def test_stop(real: Real) -> None:
    real.client.stop()
    assert real.client.state() == "STOPPED"
    with pytest.raises(Gone):
        real.client.init_pid()


def test_freeze_and_thaw(real: Real) -> None:
    real.client.freeze(timeout=10)
    assert real.client.state() == "FROZEN"
    assert real.tool("info", "-sH").stdout == "FROZEN\n"
    real.client.freeze()
    real.client.thaw(timeout=10)
    assert real.client.state() == "RUNNING"
    assert real.tool("info", "-sH").stdout == "RUNNING\n"


def test_running(reals: Callable[..., Real]) -> None:
    made = [reals(), reals()]
    assert running(made[0].lxcpath) == sorted(real.name for real in made)


def test_a_name_that_is_hashed(lxcpath: str, name: str) -> None:
    long = os.path.join(lxcpath, "p" * 60, "q" * 60)
    os.makedirs(long)
    real = Real(long, name)
    real.start()
    try:
        assert wire.socket_name(long, name).startswith(b"\0lxc/")
        assert real.client.state() == "RUNNING"
        assert running(long) == [name]
    finally:
        real.kill()


# -- LXC's tools, our server -----------------------------------------------------------------------------------------


@pytest.fixture
def toy(lxcpath: str, name: str) -> Iterator[Served]:
    """A process that LXC is to take for a container's init, in the groups of our own."""
    init = subprocess.Popen(["sleep", "1000"])
    os.makedirs(f"{lxcpath}/{name}")
    with open(f"{lxcpath}/{name}/config", "w") as file:
        file.write(f"lxc.uts.name = {name}\nlxc.net.0.type = none\n")
    with Served(Toy(lxcpath, name, init.pid, groups())) as served:
        yield served
    init.kill()
    init.wait()


def groups() -> list[Group]:
    """This process's own groups, so that a tool finds files to read."""
    mounts: dict[str, str] = {}
    with open("/proc/self/mountinfo") as file:
        for line in file:
            left, right = line.split(" - ")
            kind, _source, options = right.split()
            if kind == "cgroup2":
                mounts[""] = left.split()[4]
            elif kind == "cgroup":
                mounts.update(dict.fromkeys(options.split(","), left.split()[4]))
    found = []
    with open("/proc/self/cgroup") as file:
        for line in file:
            _number, names, path = line.strip().split(":", 2)
            if names.split(",")[0] in mounts:
                controllers = tuple(names.split(",")) if names else ()
                place = mounts[names.split(",")[0]]
                found.append(Group(place, 1 if names else 2, controllers, path, path))
    return found


def tool(toy: Served, name: str, *words: str, timeout: float = 20) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [f"lxc-{name}", "-P", toy.toy.lxcpath, "-n", toy.toy.name, *words],
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


def test_info(toy: Served) -> None:
    lines = dict(line.split(":", 1) for line in tool(toy, "info").stdout.splitlines())
    assert lines["State"].strip() == "RUNNING"
    assert int(lines["PID"]) == toy.toy.pid
    assert tool(toy, "info", "-c", "lxc.uts.name").stdout == f"lxc.uts.name = {toy.toy.name}\n"


def test_ls(toy: Served) -> None:
    ls = subprocess.run(["lxc-ls", "-P", toy.toy.lxcpath, "-f", "-F", "NAME,STATE,PID"], capture_output=True, text=True)
    assert ls.stdout.splitlines()[1].split() == [toy.toy.name, "RUNNING", str(toy.toy.pid)]
    ls = subprocess.run(["lxc-ls", "-P", toy.toy.lxcpath, "--running", "-1"], capture_output=True, text=True)
    assert ls.stdout == f"{toy.toy.name}\n"


def test_wait(toy: Served) -> None:
    assert tool(toy, "wait", "-s", "RUNNING").returncode == 0
    assert tool(toy, "wait", "-s", "STOPPED", "-t", "1").returncode == 1
    with subprocess.Popen(
        ["lxc-wait", "-P", toy.toy.lxcpath, "-n", toy.toy.name, "-s", "FROZEN|STOPPED"]
    ) as waiting:
        deadline = time.monotonic() + 10
        while not any(client.wanted for client in list(toy.server._clients.values())):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        toy.change("FROZEN")
        assert waiting.wait(10) == 0


def test_stop_is_done_when_the_socket_closes(toy: Served) -> None:
    with subprocess.Popen(["lxc-stop", "-P", toy.toy.lxcpath, "-n", toy.toy.name, "-k"]) as stopping:
        deadline = time.monotonic() + 10
        while "stop" not in toy.toy.calls:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert stopping.poll() is None
        toy.change("STOPPED", stop=True)
        assert stopping.wait(10) == 0
    assert tool(toy, "info", "-sH").stdout == "STOPPED\n"


def test_console(toy: Served) -> None:
    """The client holds the tty until it goes."""
    master, slave = os.openpty()
    console = ["lxc-console", "-P", toy.toy.lxcpath, "-n", toy.toy.name, "-t", "2"]
    with subprocess.Popen(console, stdin=slave, stdout=slave, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        assert process.stderr.readline() == "\n"
        assert process.stderr.readline() == "Connected to tty 2\n"
        assert toy.toy.lent == {2}
        os.write(toy.toy.terminals[2][1], b"hello")
        assert os.read(master, 100) == b"hello"
        os.write(master, b"\x01q")
        assert process.wait(10) == 0
    os.close(master)
    os.close(slave)
    deadline = time.monotonic() + 5
    while toy.toy.lent and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not toy.toy.lent


def test_console_of_a_tty_that_is_not(toy: Served) -> None:
    done = tool(toy, "console", "-t", "9")
    assert done.returncode == 1
    assert "Denied access to tty" in done.stderr or "busy" in done.stderr


def test_cgroup(toy: Served) -> None:
    for group in toy.toy.hierarchies:
        if "memory" in group.controllers and group.version == 1:
            done = tool(toy, "cgroup", "memory.limit_in_bytes")
            with open(f"{group.mount}{group.payload}/memory.limit_in_bytes") as file:
                assert done.stdout == file.read() + "\n"


def test_start_of_a_name_that_we_run(toy: Served) -> None:
    done = tool(toy, "start")
    assert done.returncode in (0, 1)
    assert "already running" in done.stderr
    assert not toy.toy.calls


def test_our_name_is_refused_where_lxc_runs_it(real: Real) -> None:
    toy = Toy(real.lxcpath, real.name, os.getpid())
    with pytest.raises(StateError, match=f'container "{real.name}" is already running'):
        Server(real.lxcpath, real.name, toy)
    toy.close()


def test_may_not_control(toy: Served) -> None:
    """Another user's lxc-info is told what LXC would tell it: STOPPED."""
    os.chmod(toy.toy.lxcpath, 0o755)
    info = ["setpriv", "--reuid=1234", "--regid=1234", "--clear-groups", "lxc-info"]
    done = subprocess.run(
        [*info, "-P", toy.toy.lxcpath, "-n", toy.toy.name, "-sH"], capture_output=True, text=True, check=False
    )
    assert "RUNNING" not in done.stdout


def test_monitor_sees_our_changes(toy: Served) -> None:
    monitor = ["lxc-monitor", "-P", toy.toy.lxcpath, "-n", toy.toy.name]
    with subprocess.Popen(monitor, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        deadline = time.monotonic() + 10
        fifo = wire.monitor_fifo(toy.toy.lxcpath)
        while not os.path.exists(fifo) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.3)  # it connects to the monitord that it has started
        toy.change("STOPPING")
        lxcmonitor.announce_exit(toy.toy.lxcpath, toy.toy.name, 9 << 8)
        lines = {process.stdout.readline(), process.stdout.readline()}
        process.terminate()
    lxcmonitor.quit_monitord(toy.toy.lxcpath)
    assert lines == {
        f"'{toy.toy.name}' changed state to [STOPPING]\n",
        f"'{toy.toy.name}' exited with status [9]\n",
    }


def test_our_monitor_sees_lxc_s_changes(reals: Callable[..., Real]) -> None:
    real = reals()
    monitor = lxcmonitor.Monitor(real.lxcpath)
    try:
        messages: list[wire.Message] = []
        real.tool("freeze")
        real.tool("unfreeze")
        deadline = time.monotonic() + 10
        while len(messages) < 4 and time.monotonic() < deadline:
            messages += monitor.on_readable()
        states = [wire.STATES[message.value] for message in messages if message.name == real.name]
        assert states[0] == "FREEZING"
        assert "FROZEN" in states
        assert "THAWED" in states
    finally:
        monitor.close()


def test_a_command_line_of_ours_at_nobody(lxcpath: str, name: str) -> None:
    assert command(lxcpath, name).state() == "STOPPED"


@requires("libseccomp")
def test_a_process_of_lxc_attach_is_listened_to(run: Run, lxcpath: str, name: str, tmp_path: Path) -> None:
    """lxc-attach hands the listener of its filter to the monitor, whose proxy answers."""
    folder = f"{lxcpath}/{name}"
    make_rootfs(f"{folder}/rootfs")
    policy, path = f"{folder}/policy", f"{folder}/proxy"
    Path(policy).write_text("2\ndenylist\nmkdirat notify\nmkdir notify\n")
    extra = f"lxc.seccomp.profile = {policy}\nlxc.seccomp.notify.proxy = unix:{path}\n"
    Path(f"{folder}/config").write_text(CONFIG.format(name=name, rootfs=f"{folder}/rootfs") + extra)
    words = ("-P", lxcpath, "-n", name)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as proxy:
        proxy.bind(path)
        proxy.listen()
        proxy.settimeout(10)
        assert run("start", *words).returncode == 0
        argv = ["lxc-attach", *words, "--", "/bin/mkdir", "/made"]
        with subprocess.Popen(argv, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as attached:
            connection, _ = proxy.accept()
            with connection:
                connection.settimeout(10)
                message, rights, _, _ = connection.recvmsg(4096, 256)
                for fd in array.array("i", rights[0][2]):
                    os.close(fd)
                answer = bytearray(message)
                number, *_ = kernel.NOTIFICATION.unpack_from(message, HEADER)
                kernel.RESPONSE.pack_into(answer, HEADER + kernel.NOTIFICATION.size, number, 0, -errno.EDOM, 0)
                connection.send(answer)
                said = attached.communicate(timeout=10)[1]
    assert run("stop", *words, "-k").returncode == 0
    assert os.strerror(errno.EDOM) in said or "out of domain" in said
