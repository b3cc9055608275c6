"""The commonest failures of a start, word for word: what, where, what to do next. Each leaves nothing behind.

Those of a creation stand in test_create.py and test_bootstrap.py.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Define

pytestmark = pytest.mark.requires("root", "busybox")
Run = Callable[..., "subprocess.CompletedProcess[str]"]
# {n}: the line after the base's config, which is where the test's own begins
FAILURES = {
    "bridge missing": (
        "lxc.net.1.type = veth\nlxc.net.1.link = br-none\n",
        'lxc.net.1: the bridge "br-none" does not exist',
        2,
        "ip link add br-none type bridge",
    ),
    "init missing": (
        "lxc.init.cmd = /sbin/none\n",
        'cannot run init "/sbin/none": No such file or directory',
        1,
        "lxc.init.cmd names the program; the template may have failed to install one",
    ),
    "init not executable": (
        "lxc.init.cmd = /etc/passwd\n",
        'cannot run init "/etc/passwd": Permission denied',
        1,
        "it must be executable, on a mount without noexec",
    ),
    "rootfs missing": (
        "lxc.rootfs.path = dir:/nowhere\n",
        'the root filesystem "/nowhere" is missing',
        1,
        "lxcpy-create makes one; or correct lxc.rootfs.path",
    ),
    "unknown key": (
        "lxc.net.0.tpye = veth\n",
        'unknown key "lxc.net.0.tpye"',
        1,
        "the nearest key is lxc.net.0.type",
    ),
    "bad value": (
        "lxc.net.0.type = vethx\n",
        'lxc.net.0.type: "vethx" is unknown',
        1,
        "one of empty, veth, vlan, macvlan, ipvlan, phys, none",
    ),
    "bad include": (
        "lxc.include = /nowhere/x.conf\n",
        'lxc.include: cannot read "/nowhere/x.conf": No such file or directory',
        1,
        "is the name mistyped?",
    ),
    "id map without groups": (
        "lxc.idmap = u 0 100000 65536\n",
        "lxc.idmap: the container's group 0 has no group of the host",
        1,
        "add lxc.idmap = g 0 FIRST COUNT; /etc/subgid lists the ranges of each user",
    ),
}


@pytest.mark.parametrize("case", FAILURES)
def test_what_where_and_what_to_do(run: Run, box: Define, case: str) -> None:
    extra, what, line, hint = FAILURES[case]
    one = box(extra)
    first = len(Path(one.config_file).read_text().splitlines()) - len(extra.splitlines())
    done = run("start", "-P", one.lxcpath, "-n", one.name)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"lxcpy-start: {one.name}: {what}\n  at {one.config_file}:{first + line}\n  hint: {hint}\n"
    )
    assert one.state == "STOPPED"


def test_all_problems_at_once(run: Run, box: Define) -> None:
    one = box("lxc.tty.max = many\nlxc.nonsense = 1\n")
    said = run("start", "-P", one.lxcpath, "-n", one.name).stderr
    assert 'lxc.tty.max: "many" is not a number' in said
    assert 'unknown key "lxc.nonsense"' in said


def test_a_limit_that_the_kernel_refuses(run: Run, box: Define) -> None:
    one = box("lxc.cgroup.cpuset.cpus = 4000\n")
    done = run("start", "-P", one.lxcpath, "-n", one.name)
    assert done.returncode == 1
    assert done.stderr.startswith(f'lxcpy-start: {one.name}: lxc.cgroup.cpuset.cpus: cannot write "4000" to ')
    assert f"\n  at {one.config_file}:" in done.stderr
    assert "\n  hint: the group above has CPUs 0" in done.stderr


def test_a_controller_that_is_absent(run: Run, box: Define) -> None:
    from lxcpy.cgroups import layout

    if any(hierarchy.serves("net_cls") for hierarchy in layout.detect().hierarchies):
        pytest.skip("the controller net_cls is mounted here")
    one = box("lxc.cgroup.net_cls.classid = 1\n")
    done = run("start", "-P", one.lxcpath, "-n", one.name)
    assert done.returncode == 1
    assert "net_cls" in done.stderr
    assert f"\n  at {one.config_file}:" in done.stderr
    assert "\n  hint: " in done.stderr


def test_no_such_container(run: Run, box: Define) -> None:
    one = box()
    done = run("start", "-P", one.lxcpath, "-n", one.name + "x")
    assert done.returncode == 1
    assert done.stderr == (
        f'lxcpy-start: {one.name}x: there is no container "{one.name}x" in {one.lxcpath}\n'
        f'  hint: did you mean "{one.name}"?\n'
    )


def test_running_already(run: Run, box: Define) -> None:
    one = box()
    one.start()
    done = run("start", "-P", one.lxcpath, "-n", one.name)
    assert done.returncode == 0  # as LXC's
    assert "already running" in done.stderr


def test_not_root(bin: str, box: Define) -> None:
    one = box()
    environment = {**os.environ, "HOME": "/nonexistent"}
    wanted = {("start", "-n", one.name): "is another user's", ("create", "-n", "new", "-t", "busybox"): "an id map"}
    for words, expected in wanted.items():
        argv = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", f"{bin}/lxcpy-{words[0]}"]
        done = subprocess.run(
            [*argv, "-P", one.lxcpath, *words[1:]], env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 1
        assert expected in done.stderr, done.stderr
        assert "\n  hint: " in done.stderr


def test_an_unwritable_lxcpath(run: Run, name: str) -> None:
    done = run("create", "-P", "/proc/nowhere", "-n", name, "-t", "busybox")
    assert done.returncode == 1
    assert done.stderr.startswith(f'lxcpy-create: {name}: cannot make "/proc/nowhere/{name}": ')
    assert "\n  hint: check that the file system is writable\n" in done.stderr


def test_a_limit_with_less_effect_than_it_says_is_warned_of(run: Run, box: Define) -> None:
    from lxcpy.cgroups import layout

    if layout.detect().v1("memory") is None:
        pytest.skip("memory.high is the host's own word here")
    one = box("lxc.cgroup2.memory.high = 64M\n")
    done = run("start", "-P", one.lxcpath, "-n", one.name)
    assert done.returncode == 0
    assert done.stderr.startswith(f"lxcpy-start: {one.name}: warning: ")
    assert "memory.high" in done.stderr
