"""python3-lxc's Container on a container of lxcpy's: each method answers as it does on one of real LXC's."""

from __future__ import annotations

import ast
import shutil
import subprocess
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from bothsides import ADDRESS, Box
from probes import requires

pytestmark = requires("root", "lxc>=5.0", "python3-lxc", "busybox", "veth")

PROGRAM = """\
import os, sys, lxc
c = lxc.Container(sys.argv[2], sys.argv[1])
def sh(script):
    return c.attach_wait(lxc.attach_run_command, ["sh", "-c", script])
def captured(script):
    reader, writer = os.pipe()
    status = c.attach_wait(lxc.attach_run_command, ["sh", "-c", script], stdout=writer)
    os.close(writer)
    return status, os.read(reader, 1000).decode()
def tried(call, *words):
    try:
        return call(*words)
    except Exception as error:
        return type(error).__name__
print(repr(eval(sys.argv[3])))
"""


class Row(NamedTuple):
    """An expression, and the state that the container is in afterwards."""

    expression: str
    state: str = "RUNNING"
    answer: object = ...  # known; otherwise what the expression gives on real LXC's is right


ROWS = (
    Row("c.state", answer="RUNNING"),
    Row("c.running, c.defined, c.controllable", answer=(True, True, True)),
    Row("c.init_pid == int(open(f'/proc/{c.init_pid}/status').read().split('Pid:')[1].split()[0])", answer=True),
    Row("c.get_config_item('lxc.uts.name')"),
    Row("c.get_running_config_item('lxc.uts.name')"),
    Row("c.get_running_config_item('lxc.mount.auto')", answer="proc:mixed sys:ro"),
    Row("c.get_running_config_item('lxc.net.0.veth.pair')[:4]", answer="veth"),
    Row("c.get_running_config_item('lxc.environment')"),
    Row("tried(c.get_running_config_item, 'lxc.seccomp.profile')"),
    Row("tried(c.get_running_config_item, 'lxc.nosuch')"),
    Row("c.get_cgroup_item('cpu.shares'), c.get_cgroup_item('memory.limit_in_bytes')"),
    Row("c.set_cgroup_item('memory.limit_in_bytes', '64M'), c.get_cgroup_item('memory.limit_in_bytes')",
        answer=(True, str(64 << 20))),
    Row("tried(c.get_cgroup_item, 'memory.nosuch'), tried(c.set_cgroup_item, 'memory.nosuch', '1')"),
    Row("c.get_ips()", answer=(ADDRESS,)),
    Row("c.get_ips(family='inet6')"),
    Row("sorted(c.get_interfaces())", answer=["eth0", "lo"]),
    Row("sh('exit 7')"),
    Row("sh('kill -9 $$')"),
    Row("captured('cat /proc/sys/kernel/hostname')"),
    Row("captured('id -u; pwd; echo $A')"),
    Row("c.attach_wait(lambda: os.getpid() and 3)"),
    Row("os.waitpid(c.attach(lxc.attach_run_command, ['true']), 0)[1]"),
    Row("os.isatty(c.console_getfd(2)), tried(c.console_getfd, 2)", answer=(True, "ValueError")),
    Row("os.isatty(c.console_getfd()), os.isatty(c.console_getfd(-1)), tried(c.console_getfd, -1)",
        answer=(True, True, "ValueError")),
    Row("tried(c.console_getfd, 9)"),
    Row("os.isatty(c.console_getfd(0))", answer=True),
    Row("c.freeze(), c.state, c.freeze()", state="FROZEN"),
    Row("c.freeze(), c.unfreeze(), c.state, c.unfreeze()"),
    Row("c.wait('RUNNING', 5), c.wait('STOPPED', 1)", answer=(True, False)),
    Row("c.stop(), c.state, c.running, c.init_pid", state="STOPPED", answer=(True, "STOPPED", False, -1)),
    Row("c.freeze(), c.stop(), c.state", state="STOPPED"),
    Row("c.shutdown(20), c.state", state="STOPPED", answer=(True, "STOPPED")),
    Row("c.shutdown(0), c.wait('STOPPED', 20)", state="STOPPED"),
    Row("[c.init_pid, c.reboot(), __import__('time').sleep(2), c.init_pid, c.wait('RUNNING', 10)][1::3]"),
    Row("c.stop(), tried(c.stop), tried(c.freeze), tried(c.reboot)", state="STOPPED"),
    Row("tried(c.start), c.state"),
    Row("c.rename('else')", answer=False),
    Row("c.clone('else', config_path=sys.argv[1])", answer=False),
    Row("tried(c.snapshot)"),
    Row("tried(c.destroy), c.defined", answer=(False, True)),
    Row("c.add_device_node('/dev/loop-control'), sh('test -c /dev/loop-control')", answer=(True, 0)),
    Row("c.add_device_node('/dev/loop-control'), c.remove_device_node('/dev/loop-control'), "
        "sh('test -e /dev/loop-control')", answer=(True, True, 256)),
    Row("sys.argv[2] in lxc.list_containers(active=True, defined=False, config_path=sys.argv[1])", answer=True),
    Row("sys.argv[2] in lxc.list_containers(active=False, defined=True, config_path=sys.argv[1])", answer=True),
    Row("sorted(c.get_keys())[:3], sorted(c.get_keys('lxc.net.0'))[:3]"),
    Row("c.config_file_name == sys.argv[1] + '/' + sys.argv[2] + '/config', c.get_config_path() == sys.argv[1]",
        answer=(True, True)),
)  # fmt: skip


@pytest.fixture
def boxes(bin: str, lxcpath: str, names: Callable[[], str]) -> Iterator[tuple[Box, Box]]:
    """A container of real LXC's, and one of lxcpy's."""
    made = Box(lxcpath, names(), "lxc-", "lxc-"), Box(lxcpath, names(), f"{bin}/lxcpy-", "lxc-")
    for box in made:
        box.start()
    yield made
    for box in made:
        box.own("stop", "-k")
        assert box.state == "STOPPED"
        shutil.rmtree(f"{lxcpath}/{box.name}")


def ask(box: Box, expression: str) -> object:
    """What python3-lxc says."""
    argv = ["/usr/bin/python3", "-c", PROGRAM, box.lxcpath, box.name, expression]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()[-1].replace(box.name, "NAME")
    return ast.literal_eval(said)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.expression[:50])
def test_method(row: Row, boxes: tuple[Box, Box]) -> None:
    theirs, ours = boxes
    right, said = ask(theirs, row.expression), ask(ours, row.expression)
    assert said == right
    assert (theirs.state, ours.state) == (row.state, row.state)
    if row.answer is not ...:
        assert said == row.answer
