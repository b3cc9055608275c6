"""The keys of config/keys/cgroup.py, by what they do."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lxcpy.cgroups import layout
from lxcpy.cgroups.tree import fill_cpuset
from lxcpy.kernel import proc

pytestmark = pytest.mark.requires("root", "busybox")

if TYPE_CHECKING:
    from conftest import Box, Define


def parse(text: str) -> dict[str, str]:
    """Hierarchy → group, from the text of /proc/PID/cgroup; v2 is the empty name."""
    return {",".join(line.controllers): line.path for line in proc.cgroup(text)}


def groups(pid: int | str) -> dict[str, str]:
    return parse(Path(f"/proc/{pid}/cgroup").read_text())


def limit(one: Box, file: str) -> str:
    """A file of the payload group, in whichever hierarchy has it."""
    record = one.describe(cgroups=True)["cgroups"]  # type: ignore[index]
    for mount, path in record["limit"].items():
        if os.path.exists(f"{mount}{path}/{file}"):
            return Path(f"{mount}{path}/{file}").read_text().strip()
    raise AssertionError(f"no hierarchy has {file}")


@pytest.mark.requires("cgroup1")
def test_cgroup(box: Define) -> None:
    one = box(
        "lxc.cgroup.memory.limit_in_bytes = 64M\nlxc.cgroup.cpuset.cpus = 0\nlxc.cgroup.cpu.shares = 512\n"
        "lxc.cgroup.devices.deny = a\nlxc.cgroup.devices.allow = c 1:3 rwm\nlxc.cgroup.devices.allow = c 136:* rwm\n"
        "lxc.cgroup.devices.allow = c 5:* rwm\n"
    )
    one.start()
    assert limit(one, "memory.limit_in_bytes") == str(64 << 20)
    assert limit(one, "cpu.shares") == "512"
    assert one.status("Cpus_allowed_list") == "0"
    assert "Operation not permitted" in one.sh("echo x > /dev/null; ! { echo x > /dev/zero; } 2>&1")


def test_cgroup2(box: Define) -> None:
    """Its words count on every host: here the kernel refuses the process beyond the limit."""
    one = box("lxc.cgroup2.pids.max = 12\nlxc.cgroup2.memory.max = 64M\nlxc.cgroup2.cpu.weight = 50\n")
    one.start()
    assert limit(one, "pids.max") == "12"
    said = one.sh("(i=0; while [ $i -lt 20 ]; do sleep 0.1 & i=$((i+1)); done) 2>&1 || true")
    assert "can't fork" in said
    file = "memory.limit_in_bytes" if layout.detect().v1("memory") else "memory.max"
    assert limit(one, file) == str(64 << 20)


def test_cgroup_dir(box: Define) -> None:
    one = box("lxc.cgroup.dir = {name}.parent/below\n")
    one.start()
    assert set(groups(one.init_pid).values()) == {f"/{one.name}.parent/below/lxc.payload.{one.name}"}


DIRS = "lxc.cgroup.dir.container = {name}.exact/c\nlxc.cgroup.dir.monitor = {name}.exact/m\n"


def test_cgroup_dir_container(box: Define) -> None:
    one = box(DIRS)
    one.start()
    assert set(groups(one.init_pid).values()) == {f"/{one.name}.exact/c"}


def test_cgroup_dir_container_inner(box: Define) -> None:
    """The namespace's root is one below the group that has the limits."""
    one = box(f"{DIRS}lxc.cgroup.dir.container.inner = inside\nlxc.cgroup2.pids.max = 50\n")
    one.start()
    assert set(groups(one.init_pid).values()) == {f"/{one.name}.exact/c/inside"}
    assert set(parse(one.sh("cat /proc/1/cgroup")).values()) == {"/"}
    record = one.describe(cgroups=True)["cgroups"]  # type: ignore[index]
    mount = next(mount for mount, (_version, *names) in record["hierarchies"].items() if "pids" in names)
    assert Path(f"{mount}/{one.name}.exact/c/pids.max").read_text() == "50\n"
    assert Path(f"{mount}/{one.name}.exact/c/inside/pids.max").read_text() == "max\n"


def test_cgroup_dir_monitor(box: Define, tmp_path: Path) -> None:
    """The hooks of the host are in it, at the start and at the end; with the container it goes."""
    hooks = "".join(
        f"lxc.hook.{hook} = sh -c 'cat /proc/self/cgroup > {tmp_path}/{hook}'\n" for hook in ("start-host", "stop")
    )
    one = box(DIRS + hooks)
    one.start()
    assert one.kill(10)
    for hook in ("start-host", "stop"):
        assert set(parse((tmp_path / hook).read_text()).values()) == {f"/{one.name}.exact/m"}
    for hierarchy in layout.detect().hierarchies:
        assert not os.path.exists(f"{hierarchy.mount}/{one.name}.exact")


def test_cgroup_dir_monitor_pivot(box: Define, tmp_path: Path) -> None:
    """There the hooks run that come after the removal of the groups."""
    hook = f"lxc.hook.post-stop = sh -c 'cat /proc/self/cgroup > {tmp_path}/seen'\n"
    one = box(f"{DIRS}lxc.cgroup.dir.monitor.pivot = {{name}}.last\n{hook}")
    one.start()
    assert one.kill(10)
    assert set(parse((tmp_path / "seen").read_text()).values()) == {f"/{one.name}.last/lxc.pivot"}
    for hierarchy in layout.detect().hierarchies:
        assert not os.path.exists(f"{hierarchy.mount}/{one.name}.last")


@pytest.fixture
def moved(name: str) -> Iterator[str]:
    """This process is in a group of its own, whose name this is."""
    found, group = groups("self"), f"{name}.caller"
    before = {h.mount: found["" if h.version == 2 else h.name] for h in layout.detect().hierarchies}
    for mount in before:
        os.mkdir(f"{mount}/{group}")
        if os.path.exists(f"{mount}/{group}/cpuset.cpus"):
            fill_cpuset(mount, f"/{group}")
        Path(mount, group, "cgroup.procs").write_text(str(os.getpid()))
    yield group
    for mount, path in before.items():
        Path(mount + path, "cgroup.procs").write_text(str(os.getpid()))
        os.rmdir(f"{mount}/{group}")


def test_cgroup_relative(moved: str, box: Define) -> None:
    one, other = box("lxc.cgroup.relative = 1\n"), box()
    one.start()
    other.start()
    assert set(groups(one.init_pid).values()) == {f"/{moved}/lxc.payload.{one.name}"}
    assert set(groups(other.init_pid).values()) == {f"/lxc.payload.{other.name}"}
