"""Every verb both ways: real LXC's command on a container that lxcpy runs, lxcpy's on one that real LXC runs.

A row a verb. What the command said is compared with a second opinion: what the side that runs the container says of it,
or the kernel. Another LXC than the distribution's is put first in PATH and LD_LIBRARY_PATH: 6.0.6 agrees both ways,
7.0.0 on containers of ours (it starts none where control groups are hybrid).
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
from bothsides import ADDRESS, Box, background, ends, on_terminal, read_until, wait_for
from probes import requires

pytestmark = requires("root", "lxc>=5.0", "busybox", "veth")

# -- the rows --------------------------------------------------------------------------------------------------------


def ls_fancy(box: Box) -> None:
    line = box.ok("ls", "-f", "-F", "NAME,STATE,PID,AUTOSTART,GROUPS,IPV4,INTERFACE,UNPRIVILEGED", named=False)
    head, row = line.splitlines()
    assert head.split()[:2] == ["NAME", "STATE"]
    cells = row.replace(", ", ",").split()
    assert cells[:6] == [box.name, "RUNNING", str(box.pid), "1", "verbs", ADDRESS]
    assert sorted(cells[6].split(",")) == ["eth0", "lo"]
    assert cells[7] == "false"


def ls_memory(box: Box) -> None:
    row = box.ok("ls", "-f", "-F", "RAM", named=False).splitlines()[1].split()[0]
    assert 0.1 < float(row.removesuffix("MB")) < 50


def ls_filters(box: Box) -> None:
    def listed(word: str) -> bool:
        return box.ok("ls", "-1", word, named=False).splitlines() == [box.name]

    assert [listed(word) for word in ("--running", "--active", "--frozen", "--stopped")] == [True, True, False, False]
    box.own("freeze")
    assert [listed(word) for word in ("--running", "--active", "--frozen", "--stopped")] == [True, True, True, False]


def info(box: Box) -> None:
    said = dict(line.split(":", 1) for line in box.ok("info").splitlines())
    assert said["Name"].strip() == box.name
    assert said["State"].strip() == "RUNNING"
    assert int(said["PID"]) == box.pid
    assert said["IP"].strip() == ADDRESS
    assert re.fullmatch(r" *\d+\.\d\d seconds", said["CPU use"])
    assert re.fullmatch(r" *\d+(\.\d+ [KM]iB| bytes)", said["Memory use"])
    host_end = said["Link"].strip()
    assert os.path.exists(f"/sys/class/net/{host_end}")
    with open(f"/sys/class/net/{host_end}/statistics/rx_packets") as file:
        assert file.read().strip().isdigit()
    assert {" TX bytes", " RX bytes", " Total bytes"} <= set(said)


def info_keys(box: Box) -> None:
    said = box.ok("info", "-c", "lxc.uts.name", "-c", "lxc.net.0.type", "-c", "lxc.tty.max")
    assert said == f"lxc.uts.name = {box.name}\nlxc.net.0.type = veth\nlxc.tty.max = 2\n"


def info_ips(box: Box) -> None:
    assert box.ok("info", "-iH") == f"{ADDRESS}\n"


def attach(box: Box) -> None:
    script = "cat /proc/sys/kernel/hostname; echo oops >&2; exit 7"
    done = box.tool("attach", "--", "/bin/sh", "-c", script)
    assert (done.returncode, done.stdout, done.stderr) == (7, f"{box.name}\n", "oops\n")


def attach_is_inside(box: Box) -> None:
    said = box.ok("attach", "--", "/bin/cat", "/proc/self/cgroup", "/proc/1/cmdline").replace("\0", " ")
    assert "/bin/sh /init" in said
    names = [line.split(":")[2] for line in said.splitlines() if line.count(":") == 2]
    assert names and all(name in ("/", "/.lxc") for name in names), said  # seen from its own cgroup namespace


def attach_with_input(box: Box) -> None:
    done = subprocess.run(box.argv("attach", "--", "/bin/cat"), input="hello", capture_output=True, text=True)
    assert done.stdout == "hello"


def attach_as_somebody(box: Box) -> None:
    words = ("--clear-env", "-v", "A=b", "-u", "1000", "-g", "1000")
    done = box.ok("attach", *words, "--", "/bin/sh", "-c", "id -u; id -g; echo $A-$HOME").splitlines()
    assert done[:2] == ["1000", "1000"] and done[2].startswith("b-")


def console_tty(box: Box) -> None:
    with subprocess.Popen(
        [f"{box.run}attach", "-P", box.lxcpath, "-n", box.name, "--", "/bin/sh", "-c",
         "read line </dev/tty1; echo got $line >/dev/tty1; sleep 100"], stdin=subprocess.DEVNULL,
    ) as inside:  # fmt: skip
        with on_terminal(box.argv("console", "-t", "1")) as (master, pid):
            read_until(master, b"Connected to tty 1")
            busy = box.tool("console", "-t", "1")
            assert busy.returncode == 1
            os.write(master, b"hello\r")
            read_until(master, b"got hello")
            os.write(master, b"\x01q")
            assert ends(pid) == 0
        inside.kill()
    with on_terminal(box.argv("console", "-t", "1")) as (master, _pid):  # given back
        read_until(master, b"Connected to tty 1")


def console_of_init(box: Box) -> None:
    with on_terminal(box.argv("console", "-t", "0", "-e", "b")) as (master, pid):
        read_until(master, b"Connected to tty 0")
        said = box.tool("attach", "--", "/bin/sh", "-c", "echo from the console >/dev/console")
        assert said.returncode == 0, said.stderr
        read_until(master, b"from the console")
        os.write(master, b"\x02q")
        assert ends(pid) == 0


def stop_clean(box: Box) -> None:
    pid = box.pid
    box.ok("stop", "-t", "20")
    assert box.state == "STOPPED"
    assert not os.path.exists(f"/proc/{pid}")


def stop_kill(box: Box) -> None:
    pid = box.pid
    box.ok("stop", "-k")
    assert not os.path.exists(f"/proc/{pid}")
    assert box.state == "STOPPED"
    assert box.tool("stop", "-k").returncode == 2


def stop_of_a_frozen_one(box: Box) -> None:
    box.own("freeze")
    box.ok("stop", "-k", timeout=20)
    assert box.state == "STOPPED"


def stop_that_has_to_kill(box: Box) -> None:
    box.own("attach", "--", "/bin/sh", "-c", "kill -STOP 1")
    os.kill(box.pid, signal.SIGSTOP)
    started = time.monotonic()
    box.ok("stop", "-t", "1")
    assert 0.9 < time.monotonic() - started < 10
    assert box.state == "STOPPED"


def stop_that_does_not_wait(box: Box) -> None:
    box.ok("stop", "-W")
    wait_for(lambda: box.state == "STOPPED")


def stop_reboot(box: Box) -> None:
    pid = box.pid
    box.ok("stop", "-r", "-t", "20")
    assert box.state == "RUNNING"
    assert box.pid != pid


def freeze(box: Box) -> None:
    box.ok("freeze")
    assert box.state == "FROZEN"
    assert box.ok("info", "-sH") == "FROZEN\n"
    box.ok("freeze")
    frozen_files = [
        path for path in (f"/sys/fs/cgroup/freezer/lxc.payload.{box.name}/freezer.state",) if os.path.exists(path)
    ]
    for path in frozen_files:
        with open(path) as file:
            assert file.read() == "FROZEN\n"
    box.ok("unfreeze")
    assert box.state == "RUNNING"
    box.ok("unfreeze")


def wait_now(box: Box) -> None:
    box.ok("wait", "-s", "STOPPED|RUNNING")
    assert box.tool("wait", "-s", "STOPPED", "-t", "1").returncode == 1


def wait_for_what_comes(box: Box) -> None:
    with (
        background(box.argv("wait", "-s", "STOPPED")) as stopped,
        background(box.argv("wait", "-s", "FROZEN")) as frozen,
    ):
        time.sleep(0.5)
        assert stopped.poll() is None and frozen.poll() is None
        box.own("freeze")
        assert frozen.wait(10) == 0
        assert stopped.poll() is None
        box.own("unfreeze")
        box.own("stop", "-k")
        assert stopped.wait(10) == 0


def wait_over_a_reboot(box: Box) -> None:
    with background(box.argv("wait", "-s", "STARTING")) as starting:
        time.sleep(0.5)
        box.own("stop", "-r", "-t", "20")
        assert starting.wait(10) == 0
    box.ok("wait", "-s", "RUNNING", "-t", "10")


def monitor(box: Box) -> None:
    with background(box.argv("monitor"), stdout=subprocess.PIPE) as watching:
        time.sleep(1)  # the monitord that it starts has to listen
        box.own("freeze")
        box.own("unfreeze")
        box.own("stop", "-r", "-t", "20")
        box.own("stop", "-k")
        assert watching.stdout is not None
        said = read_until(watching.stdout.fileno(), b"[STOPPED]").decode()
    subprocess.run(["lxc-monitor", "-P", box.lxcpath, "-Q"], check=False, timeout=10)
    lines = [line.removeprefix(f"'{box.name}' ") for line in said.splitlines()]
    changes = [re.sub(r"changed state to \[(.*)\]", r"\1", line) for line in lines]
    seen = iter(changes)
    order = ("FROZEN", "RUNNING", "STOPPING", "STARTING", "RUNNING", "exited with status [0]", "STOPPING", "STOPPED")
    assert all(word in seen for word in order), changes


def cgroup(box: Box) -> None:
    limit = f"/sys/fs/cgroup/memory/lxc.payload.{box.name}/memory.limit_in_bytes"
    if not os.path.exists(limit):
        pytest.skip("no memory controller of cgroup v1 here")
    assert box.ok("cgroup", "memory.limit_in_bytes", "64M") == ""
    with open(limit) as file:
        assert file.read() == f"{64 << 20}\n"
    assert box.ok("cgroup", "memory.limit_in_bytes").strip() == str(64 << 20)
    assert box.tool("cgroup", "memory.no_such_file").returncode == 1


def device_node(box: Box) -> None:
    box.ok("device", "add", "/dev/loop-control")
    found = os.stat(f"/proc/{box.pid}/root/dev/loop-control")
    assert found.st_rdev == os.stat("/dev/loop-control").st_rdev
    box.ok("device", "del", "/dev/loop-control")
    assert not os.path.exists(f"/proc/{box.pid}/root/dev/loop-control")


def device_interface(box: Box) -> None:
    if box.work == "lxc-" and not os.access("/proc/1/ns/net", os.R_OK):
        pytest.skip("lxc-device wants the network namespace of the machine's first process, which nobody may open here")
    link = f"d{os.getpid() % 100000}"
    subprocess.run(["ip", "link", "add", link, "type", "veth", "peer", "name", f"{link}p"], check=True)
    try:
        box.ok("device", "add", link, "given0")
        names = subprocess.run(
            ["nsenter", f"--net=/proc/{box.pid}/ns/net", "ip", "-o", "link"], capture_output=True, text=True, check=True
        ).stdout
        assert " given0@" in names
        box.ok("device", "del", "given0", link)
        assert os.path.exists(f"/sys/class/net/{link}")
    finally:
        subprocess.run(["ip", "link", "del", f"{link}p"], check=False)


def autostart(box: Box) -> None:
    assert box.ok("autostart", "-L", "-k", "-g", "verbs", named=False) == f"{box.name}\n"
    assert box.ok("autostart", "-L", "-g", "verbs", named=False) == ""
    assert box.ok("autostart", "-g", "verbs", named=False) == ""  # it runs already
    pid = box.pid
    box.ok("autostart", "-r", "-g", "verbs", "-t", "20", named=False)
    wait_for(lambda: box.state == "RUNNING" and box.pid != pid)
    wait_for(lambda: int(box.status("SigCgt"), 16) >> (signal.SIGPWR - 1) & 1)
    box.ok("autostart", "-s", "-g", "verbs", "-t", "20", named=False)
    assert box.state == "STOPPED"


def autostart_kill(box: Box) -> None:
    box.ok("autostart", "-k", "-g", "verbs", named=False)
    assert box.state == "STOPPED"


def top(box: Box) -> None:
    argv = [f"{box.work}top", "-P", box.lxcpath, "-b", "-d", "1"]
    with on_terminal(argv) as (master, _pid):
        text = read_until(master, b",%s," % box.name.encode()).decode()
        text += read_until(master, b"\n").decode()
    numbers = text[text.index(box.name) :].split("\n")[0].split(",")[1:]
    assert int(numbers[0]) > 0


def start_again(box: Box) -> None:
    pid = box.pid
    done = box.tool("start")
    assert done.returncode == 0
    assert "already running" in done.stderr
    assert box.pid == pid


def destroy(box: Box) -> None:
    done = box.tool("destroy")
    assert done.returncode == 1
    assert f"{box.name} is running" in done.stdout + done.stderr
    assert box.state == "RUNNING"
    box.ok("destroy", "-f")
    assert not os.path.exists(f"{box.lxcpath}/{box.name}")


def copies_are_refused(box: Box) -> None:
    for words in (("copy", "-N", f"{box.name}-2"), ("copy", "-R", "-N", f"{box.name}-2"), ("snapshot",)):
        done = box.tool(*words)
        assert done.returncode != 0, words
        assert box.work == "lxc-" or "running" in done.stderr  # real LXC says nothing
        assert not os.path.exists(f"{box.lxcpath}/{box.name}-2")
        assert box.state == "RUNNING"


def execute_in_a_running_one(box: Box) -> None:
    pid = box.pid
    assert box.tool("execute", "--", "/bin/true").returncode != 0
    assert (box.state, box.pid) == ("RUNNING", pid)


ROWS: tuple[Callable[[Box], None], ...] = (
    ls_fancy, ls_memory, ls_filters, info, info_keys, info_ips, attach, attach_is_inside, attach_with_input,
    attach_as_somebody, console_tty, console_of_init, stop_clean, stop_kill, stop_of_a_frozen_one,
    stop_that_has_to_kill, stop_that_does_not_wait, stop_reboot, freeze, wait_now, wait_for_what_comes,
    wait_over_a_reboot, monitor, cgroup, device_node, device_interface, autostart, autostart_kill, top, start_again,
    destroy, copies_are_refused, execute_in_a_running_one,
)  # fmt: skip


@pytest.fixture(params=["lxc-X on lxcpy's", "lxcpy-X on LXC's"])
def box(request: pytest.FixtureRequest, bin: str, lxcpath: str, name: str) -> Iterator[Box]:
    ours, theirs = f"{bin}/lxcpy-", "lxc-"
    box = Box(lxcpath, name, *((ours, theirs) if request.param.startswith("lxc-X") else (theirs, ours)))
    box.start()
    yield box
    if os.path.exists(f"{lxcpath}/{name}/config"):
        box.own("stop", "-k")
        assert box.state == "STOPPED"
    shutil.rmtree(f"{lxcpath}/{name}", ignore_errors=True)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.__name__)
def test_verb(row: Callable[[Box], None], box: Box) -> None:
    row(box)
