"""The command socket's server: what it answers, and what hostile clients cannot do to it."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import socket
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from lxctoy import Served, Toy
from probes import requires

from lxcpy.errors import StateError
from lxcpy.runtime import lxcmonitor, lxcserver
from lxcpy.runtime import lxcprotocol as wire
from lxcpy.runtime.lxcclient import Gone, command, running
from lxcpy.runtime.lxctarget import Group, find_group, layout

V1 = (
    Group("/sys/fs/cgroup/memory", 1, ("memory",), "/p", "/p"),
    Group("/sys/fs/cgroup/cpu", 1, ("cpu", "cpuacct"), "/p", "/l"),
)
V2 = (Group("/sys/fs/cgroup", 2, ("memory", "pids"), "/p", "/l"),)
HYBRID = (*V1, Group("/sys/fs/cgroup/unified", 2, (), "/p", "/p"))


@pytest.fixture
def served(lxcpath: str, name: str) -> Iterator[Served]:
    with Served(Toy(lxcpath, name, os.getpid(), V1)) as served:
        yield served


def connect(served: Served) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.connect(wire.socket_name(served.toy.lxcpath, served.toy.name))  # blocking: a full backlog is waited for
    sock.settimeout(5)
    return sock


def client(served: Served):  # type: ignore[no-untyped-def]
    return command(served.toy.lxcpath, served.toy.name)


def wait_for(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < end, "it does not come"
        time.sleep(0.01)


def test_questions(served: Served) -> None:
    asked = client(served)
    assert asked.state() == "RUNNING"
    assert asked.init_pid() == os.getpid()
    assert asked.clone_flags() == 0x6E020000
    assert asked.name_of() == served.toy.name
    assert asked.lxcpath() == served.toy.lxcpath
    assert asked.config_item("lxc.net.0.type") == "empty"
    assert asked.config_item("lxc.nosuch") is None
    pidfd = asked.init_pidfd()
    assert os.stat(pidfd).st_ino
    os.close(pidfd)
    assert asked.devpts_fd() == -1


def test_groups(served: Served) -> None:
    asked = client(served)
    assert asked.cgroup("memory") == "/p"
    assert asked.cgroup("cpuacct") == "/p"
    assert asked.cgroup("cpuacct", limit=True) == "/l"
    assert asked.cgroup("nosuch") is None
    assert asked.cgroup(None) is None
    assert asked.cgroup2_fd() == -1


def test_group_of_a_controller() -> None:
    assert (layout(V1), layout(HYBRID), layout(V2)) == (0, 1, 2)
    assert find_group(HYBRID, None) is HYBRID[2]
    assert find_group(V2, "devices") is V2[0]
    assert find_group(HYBRID, "devices") is None
    assert find_group(V2, "cpu") is None


def test_a_taken_name_says_so(served: Served) -> None:
    with pytest.raises(StateError, match="is already running"):
        lxcserver.Server(served.toy.lxcpath, served.toy.name, served.toy)


def test_long_paths_are_hashed(name: str, lxcpath: str) -> None:
    lxcpath = f"{lxcpath}/{'p' * 100}"
    with Served(Toy(lxcpath, name, os.getpid())):
        assert command(lxcpath, name).name_of() == name
        assert running(lxcpath) == [name]
        assert running(lxcpath + "x") == []


def test_running_asks_the_kernel(served: Served) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(connect(served))
        assert running(served.toy.lxcpath) == [served.toy.name]
    assert running(f"{served.toy.lxcpath}/none") == []


def test_nobody_listens(lxcpath: str) -> None:
    asked = command(lxcpath, "nobody")
    assert asked.state() == "STOPPED"
    assert asked.wait(("STOPPED", "FROZEN")) == "STOPPED"
    assert asked.wait(("RUNNING",), timeout=0.2) is None
    asked.stop()
    with pytest.raises(Gone, match='container "nobody" is not running'):
        asked.init_pid()


def test_terminals_are_lent_until_the_client_goes(served: Served) -> None:
    asked = client(served)
    first = asked.console()
    second = asked.console(2)
    assert (first.tty, second.tty) == (1, 2)
    with pytest.raises(StateError, match="no tty is free"):
        asked.console()
    with pytest.raises(StateError, match="tty 2 is busy or missing"):
        asked.console(2)
    with pytest.raises(StateError, match="tty 9 is busy or missing"):
        asked.console(9)
    os.write(second.master, b"hello\n")
    assert os.read(served.toy.terminals[2][1], 100) == b"hello\n"
    for terminal in (first, second):
        os.close(terminal.master)
        os.close(terminal.hold)
    wait_for(lambda: not served.toy.lent)
    console = asked.console(0)
    assert console.tty == 0
    os.close(console.master)
    os.close(console.hold)
    wait_for(lambda: ("release", 0) in served.toy.calls)


def test_state_clients(served: Served) -> None:
    asked = client(served)
    assert asked.wait(("RUNNING", "STOPPED")) == "RUNNING"
    assert asked.wait(("FROZEN",), timeout=0.1) is None
    with connect(served) as sock:
        sock.sendall(wire.request(wire.ADD_STATE_CLIENT, bytes(32)) + wire.STATE_MASK.pack(1, 0, 2, 0, 0, 0, 1, 0))
        assert wire.HEADER.unpack(sock.recv(16))[:2] == (wire.MAX_STATE, 0)  # 2: not the state as it is
        served.change("FREEZING")
        served.change("FROZEN")
        assert wire.parse_message(sock.recv(264)) == wire.Message(0, served.toy.name, 6)
        assert sock.recv(1) == b""  # told once


def test_stop_is_answered_by_the_end(served: Served) -> None:
    with connect(served) as sock:
        sock.sendall(wire.request(wire.STOP))
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            sock.recv(16)
        assert served.toy.calls == ["stop"]
        sock.settimeout(5)
        served.change("STOPPED", stop=True)
        assert sock.recv(16) == b""
    assert client(served).state() == "STOPPED"


def test_clients_freeze_by_themselves_on_v1(served: Served) -> None:
    client(served).notify("FREEZING")
    client(served).notify("THAWED")
    assert served.toy.calls == ["FREEZING", "THAWED"]
    with connect(served) as sock:
        sock.sendall(wire.request(wire.SERVE_STATE_CLIENTS, value=0))
        assert wire.HEADER.unpack(sock.recv(16))[0] == -errno.EINVAL  # not for a client to say STOPPED
    with connect(served) as sock:
        sock.sendall(wire.request(wire.FREEZE))
        assert wire.HEADER.unpack(sock.recv(16))[0] == -errno.ENOENT


def test_freeze_and_devices_on_v2(lxcpath: str, name: str) -> None:
    with Served(Toy(lxcpath, name, os.getpid(), V2)) as served:
        rule = wire.DeviceRule("c", 10, 200, "rw", True)
        for request, expected in (
            (wire.request(wire.FREEZE, value=-1), ("freeze", -1)),
            (wire.request(wire.UNFREEZE, value=7), ("unfreeze", 7)),
            (wire.request(wire.ADD_BPF_DEVICE_CGROUP, bytes(40)) + wire.device_item(rule), rule),
        ):
            with connect(served) as sock:
                sock.sendall(request)
                assert wire.HEADER.unpack(sock.recv(16))[0] == 0
            assert served.toy.calls.pop() == expected


def test_console_log_of_any_size(served: Served) -> None:
    asked = client(served)
    assert asked.console_log() == b""
    served.toy.log = b"hello"
    assert asked.console_log() == b"hello"
    served.toy.log = os.urandom(1 << 22).replace(b"\0", b"0")
    assert asked.console_log() == served.toy.log


# -- hostile clients -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"\x03",  # half a header
        wire.HEADER.pack(wire.GET_CONFIG_ITEM, 100, 0) + b"half",
        wire.HEADER.pack(wire.GET_CONFIG_ITEM, 4, 0) + b"abcd",  # no NUL
        wire.HEADER.pack(wire.GET_CONFIG_ITEM, 4, 0) + b"a\0b\0",
        wire.HEADER.pack(wire.GET_CONFIG_ITEM, 0, 0),
        wire.HEADER.pack(wire.GET_CONFIG_ITEM, -1, 0),
        wire.HEADER.pack(wire.GET_CONFIG_ITEM, 0x7FFFFFFF, 0) + b"x" * 100,
        wire.HEADER.pack(wire.CONSOLE_LOG, 0x7FFFFFFF, 0) + b"x" * 100,
        wire.HEADER.pack(wire.CONSOLE_LOG, 3, 0) + b"abc",
        wire.HEADER.pack(wire.ADD_STATE_CLIENT, 31, 0) + bytes(31),
        wire.HEADER.pack(wire.ADD_BPF_DEVICE_CGROUP, 40, 0) + bytes(40),
        wire.HEADER.pack(wire.GET_CGROUP_FD, 3, 0) + b"abc",
        wire.HEADER.pack(wire.GET_CGROUP_CTX, 8000, 0) + bytes(8000),
        wire.HEADER.pack(wire.GET_TTY_FD, 0, 0x7FFFFFFF),
        wire.HEADER.pack(wire.SERVE_STATE_CLIENTS, 0, 0xFFFFFFFFFFFFFFFF),
        wire.HEADER.pack(wire.SECCOMP_NOTIFY_ADD_LISTENER, 0, 0),
        wire.HEADER.pack(-5, 0, 0),
        wire.HEADER.pack(0x7FFFFFFF, 8192, 1) + bytes(8192),
        wire.HEADER.pack(wire.TERMINAL_WINCH, 0, 0),
        os.urandom(1000),
    ],
    ids=lambda data: data[:12].hex(),
)
def test_nonsense_does_no_harm(served: Served, data: bytes) -> None:
    with connect(served) as sock:
        sock.sendall(data)
        sock.settimeout(0.1)
        with contextlib.suppress(TimeoutError, ConnectionResetError):
            sock.recv(1 << 16)
        assert client(served).state() == "RUNNING"


def test_unknown_commands_are_answered(served: Served) -> None:
    with connect(served) as sock:
        sock.sendall(wire.HEADER.pack(99, 0, 0))
        assert wire.HEADER.unpack(sock.recv(16))[0] == -errno.ENOSYS


def test_slow_data_is_waited_for_without_blocking(served: Served) -> None:
    with connect(served) as sock:
        sock.sendall(wire.HEADER.pack(wire.GET_CONFIG_ITEM, 13, 0))
        for byte in b"lxc.uts.name\0":
            assert client(served).state() == "RUNNING"
            sock.send(bytes([byte]))
        assert wire.HEADER.unpack(sock.recv(16))[0] == 0


def test_descriptors_that_come_along_are_not_kept(served: Served) -> None:
    assert client(served).state() == "RUNNING"  # the thread has what it needs
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with connect(served) as sock:
            socket.send_fds(sock, [wire.request(wire.GET_STATE)], [0, 0, 0])
            sock.recv(16)
        with connect(served) as sock:
            sock.sendall(wire.request(wire.SECCOMP_NOTIFY_ADD_LISTENER))
            socket.send_fds(sock, [b"\0"], [0])
            assert wire.HEADER.unpack(sock.recv(16))[0] == 0
    assert len(served.toy.calls) == 20  # the one that was asked for
    wait_for(lambda: len(os.listdir("/proc/self/fd")) <= before)


def test_a_client_that_does_not_read_keeps_nobody_waiting(served: Served) -> None:
    served.toy.log = b"x" * (1 << 24)
    with contextlib.ExitStack() as stack:
        for _ in range(5):
            sock = stack.enter_context(connect(served))
            data = wire.CONSOLE_LOG_REQUEST.pack(False, True, 0, False)
            sock.sendall(wire.request(wire.CONSOLE_LOG, data) + data)
        started = time.monotonic()
        assert client(served).state() == "RUNNING"
        assert time.monotonic() - started < 2


def test_thousands_of_idle_connections(served: Served) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(8192, hard), hard))
    try:
        with contextlib.ExitStack() as stack:
            for _ in range(3000):
                stack.enter_context(connect(served))
            assert client(served).state() == "RUNNING"
            assert len(served.server._clients) <= lxcserver.MAX_CLIENTS
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_held_connections_are_not_given_up_for_idle_ones(served: Served) -> None:
    terminal = client(served).console(1)
    with contextlib.ExitStack() as stack:
        for _ in range(2 * lxcserver.MAX_CLIENTS):
            stack.enter_context(connect(served))
        assert served.toy.lent == {1}
    os.close(terminal.master)
    os.close(terminal.hold)


def test_no_descriptor_left(served: Served) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    waiting = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(20)]
    address = wire.socket_name(served.toy.lxcpath, served.toy.name)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))), hard))
    try:
        for sock in waiting:
            sock.connect(address)
        before = time.process_time()
        time.sleep(0.3)
        assert time.process_time() - before < 0.1, "the loop spins"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for sock in waiting:
            sock.close()
    assert client(served).state() == "RUNNING"


@requires("root")
def test_other_users_are_refused_as_lxc_does(served: Served) -> None:
    address = wire.socket_name(served.toy.lxcpath, served.toy.name)
    script = (
        "import os, socket, struct, sys\n"
        "os.setgroups([]); os.setgid(1234); os.setuid(1234)\n"
        f"address = {address!r}\n"
        "first = []\n"
        "for _ in range(200):\n"
        "    s = socket.socket(socket.AF_UNIX); s.connect(address); first.append(s)\n"
        "s = socket.socket(socket.AF_UNIX); s.connect(address)\n"
        "s.sendall(struct.pack('=iiQ', 2, 0, 0))\n"
        "sys.exit(-struct.unpack('=iiQ', s.recv(16))[0])\n"
    )
    done = subprocess.run(["/usr/bin/python3", "-c", script], check=False)
    assert done.returncode == errno.EPERM
    assert served.toy.calls == []
    assert client(served).state() == "RUNNING"


def test_abandon_frees_the_name_only_when_all_copies_are_closed(lxcpath: str, name: str) -> None:
    toy = Toy(lxcpath, name, os.getpid())
    server = lxcserver.Server(lxcpath, name, toy)
    pid = os.fork()
    if pid == 0:
        server.abandon()
        time.sleep(20)
        os._exit(0)
    try:
        server.close()
        wait_for(lambda: name not in running(lxcpath))
        lxcserver.Server(lxcpath, name, toy).close()
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        toy.close()


# -- lxc-monitord's fifo ---------------------------------------------------------------------------------------------


@requires("root")
def test_monitors_hear_of_changes(lxcpath: str) -> None:
    lxcmonitor.announce(lxcpath, "web", "RUNNING")  # nobody listens
    first = lxcmonitor.Monitor(lxcpath)
    with contextlib.closing(lxcmonitor.Monitor(lxcpath)) as second:
        first.on_readable()  # takes the second in
        lxcmonitor.announce(lxcpath, "web", "STARTING")
        lxcmonitor.announce_exit(lxcpath, "web", 0x8900)
        expected = [wire.Message(0, "web", 1), wire.Message(2, "web", 0x8900)]
        assert read(first, 2) == expected
        assert read(second, 2) == expected
        first.close()
        assert second.on_readable() == []  # it takes over
        lxcmonitor.announce(lxcpath, "web", "STOPPED")
        assert read(second, 1) == [wire.Message(0, "web", 0)]
    os.removedirs(os.path.dirname(wire.monitor_fifo(lxcpath)))


def read(monitor: lxcmonitor.Monitor, count: int) -> list[wire.Message]:
    messages: list[wire.Message] = []
    wait_for(lambda: messages.extend(monitor.on_readable()) or len(messages) >= count)
    return messages
