"""Start, look inside, stop: what the config asks for is what the kernel shows."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lxcpy.errors import ConfigError, HookError, LxcpyError, RootfsError, StateError

pytestmark = pytest.mark.requires("root", "busybox")

if TYPE_CHECKING:
    from conftest import Define


def test_runs_and_stops(box: Define) -> None:
    one = box()
    started = one.start()
    assert not started.already
    assert one.state == "RUNNING"
    assert one.init_pid == started.pid
    assert one.inside("proc/1/cmdline") == "/bin/sh\0/init\0"
    command = ["nsenter", "-t", str(started.pid), "-u", "cat", "/proc/sys/kernel/hostname"]
    assert subprocess.check_output(command, text=True).strip() == one.name
    assert one.start().already
    assert one.kill(10)
    assert one.state == "STOPPED"
    assert not os.path.exists(f"/proc/{started.pid}")


def test_halts_through_init(box: Define) -> None:
    one = box()
    one.start()
    assert one.await_traps().shutdown(10)
    assert one.state == "STOPPED"


def test_lxc_signal_halt(box: Define) -> None:
    one = box("lxc.signal.halt = SIGUSR1\n")
    script = "trap 'exit 0' USR1\ntrap '' PWR TERM\nwhile :; do sleep 1000 & wait $!; done\n"
    Path(one.rootfs, "init").write_text(script)
    one.start()
    time.sleep(0.3)  # SIGUSR1 is no signal that await_traps looks for
    assert one.shutdown(10)


def test_reboot_from_outside_and_inside(box: Define) -> None:
    one = box()
    first = one.start().pid
    assert one.await_traps().reboot(10)
    second = one.init_pid
    assert second not in (0, first)
    assert one.state == "RUNNING"
    one.await_traps()
    os.kill(second, signal.SIGINT)  # its trap calls reboot(2)
    deadline = time.monotonic() + 10
    while one.init_pid in (0, second) and time.monotonic() < deadline:
        one.wait(["RUNNING"], 1)
        time.sleep(0.01)
    assert one.init_pid not in (0, second)
    assert one.kill(10)


def test_wait_and_freeze(box: Define) -> None:
    one = box()
    assert one.wait(["STOPPED"], 0.1) == "STOPPED"
    assert one.wait(["RUNNING"], 0.1) is None
    one.start()
    one.freeze()
    assert one.state == "FROZEN"
    one.freeze()
    one.thaw()
    assert one.state == "RUNNING"
    one.freeze()
    assert one.kill(10)


def test_ttys_and_console(box: Define) -> None:
    one = box("lxc.tty.max = 3\nlxc.tty.dir = lxc\n")
    one.start()
    dev = f"/proc/{one.init_pid}/root/dev"
    assert os.readlink(f"{dev}/tty2") == "lxc/tty2"
    assert os.path.exists(f"{dev}/lxc/console")
    assert os.readlink(f"/proc/{one.init_pid}/fd/0").startswith("/dev/pts/")


def test_hooks_run_in_order_with_their_environment(box: Define, tmp_path: Path) -> None:
    log = tmp_path / "log"
    order = ("pre-start", "pre-mount", "mount", "autodev", "start-host")
    script = tmp_path / "hook"
    script.write_text(f'#!/bin/sh\necho "$1 $2 $3 $LXC_NAME $LXC_HOOK_VERSION $LXC_ROOTFS_PATH" >> {log}\n')
    script.chmod(0o755)
    keys = "".join(f"lxc.hook.{hook} = {script}\n" for hook in (*order, "stop", "post-stop"))
    one = box(keys + "lxc.hook.start = /bin/echo hook > /started; true\n")
    one.start()
    assert Path(one.rootfs, "started").read_text().split()[0] == "hook"
    one.kill(10)
    lines = log.read_text().splitlines()
    assert [line.split()[2] for line in lines] == [*order, "stop", "post-stop"]
    assert all(line == f"{one.name} lxc {line.split()[2]} {one.name} 0 dir:{one.rootfs}" for line in lines)


def test_a_failing_hook_stops_the_start_and_says_why(box: Define) -> None:
    one = box("lxc.hook.pre-start = sh -c 'echo no luck; exit 3'\n")
    with pytest.raises(HookError) as caught:
        one.start()
    assert "ended with status 3" in caught.value.what
    assert "| no luck" in caught.value.what
    assert caught.value.at is not None
    assert caught.value.at.file == one.config_file
    assert one.state == "STOPPED"


def test_capabilities_and_limits(box: Define) -> None:
    one = box(
        "lxc.cap.drop = sys_module sys_time\nlxc.prlimit.nofile = 123:456\nlxc.proc.oom_score_adj = 77\n"
        "lxc.no_new_privs = 1\nlxc.sysctl.net.ipv4.ip_forward = 1\n"
    )
    one.start()
    assert int(one.status("CapBnd"), 16) >> 16 & 1 == 0  # CAP_SYS_MODULE
    assert int(one.status("CapBnd"), 16) >> 25 & 1 == 0  # CAP_SYS_TIME
    assert int(one.status("CapBnd"), 16) >> 21 & 1 == 1
    assert one.status("NoNewPrivs") == "1"
    with open(f"/proc/{one.init_pid}/limits") as file:
        assert any(line.split()[3:5] == ["123", "456"] for line in file if line.startswith("Max open files"))
    with open(f"/proc/{one.init_pid}/oom_score_adj") as file:
        assert file.read().strip() == "77"
    assert one.sh("cat /proc/sys/net/ipv4/ip_forward").strip() == "1"


def test_limits_of_both_dialects(box: Define) -> None:
    one = box("lxc.cgroup.memory.limit_in_bytes = 64M\nlxc.cgroup2.pids.max = 50\nlxc.cgroup.cpuset.cpus = 0\n")
    one.start()
    record = one.describe(cgroups=True)["cgroups"]
    memory = next(m for m, (_version, *names) in record["hierarchies"].items() if "memory" in names)
    pids = next(m for m, (_version, *names) in record["hierarchies"].items() if "pids" in names)
    assert Path(memory + record["payload"][memory], "memory.limit_in_bytes").read_text().strip() == str(64 << 20)
    assert Path(pids + record["payload"][pids], "pids.max").read_text().strip() == "50"
    assert one.status("Cpus_allowed_list") == "0"


def test_id_maps(box: Define) -> None:
    one = box("lxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 100000 65536\n")
    subprocess.run(["chown", "-hR", "100000:100000", one.rootfs], check=True)
    one.start()
    assert one.status("Uid").split()[0] == "100000"
    with open(f"/proc/{one.init_pid}/uid_map") as file:
        assert file.read().split() == ["0", "100000", "65536"]
    assert one.kill(10)


def test_shared_and_kept_namespaces(box: Define) -> None:
    one, other = box(), box()
    one.start()
    other.start(share={"net": f"{one.lxcpath}/{one.name}"})
    assert os.readlink(f"/proc/{one.init_pid}/ns/net") == os.readlink(f"/proc/{other.init_pid}/ns/net")
    assert os.readlink(f"/proc/{one.init_pid}/ns/ipc") != os.readlink(f"/proc/{other.init_pid}/ns/ipc")
    third = box("lxc.namespace.keep = uts\n")
    Path(third.config_file).write_text(Path(third.config_file).read_text().replace("lxc.uts.name", "#lxc.uts.name"))
    third.start()
    assert os.readlink(f"/proc/{third.init_pid}/ns/uts") == os.readlink("/proc/self/ns/uts")


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ("lxc.init.cmd = /nowhere\n", RootfsError, 'cannot run init "/nowhere": No such file or directory'),
        ("lxc.init.cmd = /etc/passwd\n", RootfsError, 'cannot run init "/etc/passwd": Permission denied'),
        ("lxc.rootfs.path = dir:/nowhere\n", RootfsError, 'the root filesystem "/nowhere" is missing'),
        ("lxc.mount.entry = /nowhere mnt none bind,create=dir 0 0\n", RootfsError, "No such file or directory"),
        ("lxc.cgroup.memory.limit_in_bytes = 256MB\n", LxcpyError, "256M"),
        ("lxc.namespace.share.net = nobody\n", StateError, 'lxc.namespace.share.net: "nobody" is not running'),
        ("lxc.uts.nmae = x\n", ConfigError, 'unknown key "lxc.uts.nmae"'),
    ],
)
def test_a_failed_start_says_where_and_leaves_nothing(
    box: Define, change: str, kind: type[Exception], words: str
) -> None:
    one = box(change)
    with pytest.raises(kind) as caught:
        one.start()
    assert isinstance(caught.value, LxcpyError)
    text = "\n".join(caught.value.lines())
    assert words in text
    assert caught.value.at is not None
    assert caught.value.at.file == one.config_file
    assert one.state == "STOPPED"


def test_kill_9_of_the_supervisor_leaves_containers_alive(box: Define) -> None:
    from lxcpy.runtime import client

    one = box("lxc.tty.max = 1\n")
    pid = one.start().pid
    with client.connect() as supervisor:
        supervisor_pid = supervisor.ask("status")["pid"]
    os.kill(supervisor_pid, signal.SIGKILL)
    while os.path.exists(f"/proc/{supervisor_pid}"):
        time.sleep(0.01)
    assert os.path.exists(f"/proc/{pid}")
    assert one.state == "RUNNING"  # a new supervisor has adopted it
    with client.connect() as supervisor:
        assert supervisor.ask("status")["pid"] != supervisor_pid
    assert one.init_pid == pid
    assert one.await_traps().shutdown(10)
    assert one.state == "STOPPED"


def test_death_while_nobody_looks(box: Define) -> None:
    from lxcpy.runtime import client

    one = box()
    pid = one.start().pid
    with client.connect() as supervisor:
        supervisor_pid = supervisor.ask("status")["pid"]
    os.kill(supervisor_pid, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    while os.path.exists(f"/proc/{pid}") or os.path.exists(f"/proc/{supervisor_pid}"):
        time.sleep(0.01)
    assert one.state == "STOPPED"
    one.start()
    assert one.kill(10)


def test_the_pid_file_is_there_while_it_runs(box: Define, tmp_path: Path) -> None:
    one = box()
    pidfile = tmp_path / "pid"
    started = one.start(pidfile=str(pidfile))
    assert pidfile.read_text() == str(started.pid)
    assert one.await_traps().reboot(10)
    assert pidfile.read_text() == str(one.init_pid)
    assert one.kill(10)
    deadline = time.monotonic() + 5
    while pidfile.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not pidfile.exists()
