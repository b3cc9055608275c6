"""Limits, names and figures of a container beside those that real LXC gives one."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from probes import requires
from reallxc import Real

from lxcpy.cgroups import control, layout, stats, tree
from lxcpy.cgroups.plan import CgroupPlan, plan
from lxcpy.config.load import load_text
from lxcpy.errors import CgroupError

pytestmark = requires("root", "lxc-start")

# v1 words, which LXC 5.0 writes as they are on a host with v1: what stands in the file afterwards must be equal.
LIMITS = """\
lxc.cgroup.memory.memsw.limit_in_bytes = 256M
lxc.cgroup.memory.limit_in_bytes = 128m
lxc.cgroup.memory.soft_limit_in_bytes = 64M
lxc.cgroup.memory.swappiness = 10
lxc.cgroup.cpu.shares = 512
lxc.cgroup.cpu.cfs_period_us = 50000
lxc.cgroup.cpu.cfs_quota_us = 20000
lxc.cgroup.cpuset.cpus = 0
lxc.cgroup.cpuset.mems = 0
lxc.cgroup.pids.max = 100
lxc.cgroup.devices.deny = a
lxc.cgroup.devices.allow = c *:* m
lxc.cgroup.devices.allow = b *:* m
lxc.cgroup.devices.allow = c 1:3 rwm
lxc.cgroup.devices.allow = c 1:5 rwm
lxc.cgroup.devices.allow = c 5:1 rwm
lxc.cgroup.devices.allow = c 136:* rwm
lxc.cgroup.devices.deny = c 1:5 w
"""
# LXC writes memsw first here, which the kernel refuses: it wants the lines the other way round
FOR_LXC = "".join(sorted(LIMITS.splitlines(keepends=True), key=lambda line: "memsw" in line))
FILES = (
    "memory.limit_in_bytes", "memory.memsw.limit_in_bytes", "memory.soft_limit_in_bytes", "memory.swappiness",
    "cpu.shares", "cpu.cfs_period_us", "cpu.cfs_quota_us", "cpuset.cpus", "cpuset.mems", "pids.max", "devices.list",
)  # fmt: skip


def planned(config: str, name: str) -> CgroupPlan:
    return plan(load_text(config, "config").cgroup, name=name, layout=layout.detect())


@pytest.fixture
def ours(names: Callable[[], str]) -> Iterator[Callable[[str], dict[str, Any]]]:
    """Groups made and limited by us; their record."""
    records = []

    def make(config: str) -> dict[str, Any]:
        made = planned(config, f"lxcpy-test-{names()}")
        record = tree.create(made)
        records.append(record)
        tree.limit(made, record)
        tree.limit_devices(made, record)
        return record

    yield make
    for record in records:
        assert tree.remove(record) == []


def record_of(real: Real) -> dict[str, Any]:
    """A record for the groups that LXC made."""
    groups = {h.mount: f"/lxc.payload.{real.name}" for h in layout.detect().hierarchies}
    groups = {mount: path for mount, path in groups.items() if os.path.isdir(mount + path)}
    hierarchies = {h.mount: [h.version, *h.controllers] for h in layout.detect().hierarchies}
    return {"hierarchies": hierarchies, "payload": groups, "limit": groups, "monitor": {}}


def needs_v1() -> None:
    if not layout.detect().v1("memory"):
        pytest.skip("LXC 5.0 takes these words on a host with cgroup v1 alone")


def test_limits_are_what_lxc_makes_of_them(reals: Callable[..., Real], ours: Callable[[str], dict[str, Any]]) -> None:
    needs_v1()
    theirs, mine = record_of(reals(FOR_LXC)), ours(LIMITS)
    assert {file: control.read(mine, file) for file in FILES} == {file: control.read(theirs, file) for file in FILES}


def test_the_same_in_v2_words(reals: Callable[..., Real], ours: Callable[[str], dict[str, Any]]) -> None:
    needs_v1()
    mine = ours(
        "lxc.cgroup2.memory.max = 128M\nlxc.cgroup2.memory.swap.max = 128M\nlxc.cgroup2.memory.low = 64M\n"
        "lxc.cgroup2.cpu.weight = 50\nlxc.cgroup2.cpu.max = 20000 50000\nlxc.cgroup2.cpuset.cpus = 0\n"
        "lxc.cgroup2.cpuset.mems = 0\nlxc.cgroup2.pids.max = 100\n"
        + "".join(line.replace("cgroup", "cgroup2") for line in LIMITS.splitlines(keepends=True) if "devices" in line)
    )
    theirs = record_of(reals(FOR_LXC))
    same = [file for file in FILES if file != "memory.swappiness"]
    assert {file: control.read(mine, file) for file in same} == {file: control.read(theirs, file) for file in same}


def test_groups_stand_where_lxc_puts_them(reals: Callable[..., Real]) -> None:
    real = reals()
    theirs = record_of(real)
    made = planned("", real.name)  # LXC has taken the name: the next suffix, as LXC's own second container gets
    assert set(theirs["payload"]) == {h.mount for h in made.hierarchies}
    assert {made.path(h.mount, "payload") for h in made.hierarchies} == {f"/lxc.payload.{real.name}-1"}
    record = tree.create(made)
    try:
        for mount in theirs["payload"]:
            info = [os.stat(mount + tree_["payload"][mount]) for tree_ in (theirs, record)]
            assert info[0].st_mode == info[1].st_mode
        assert control.read(record, "cpuset.cpus") == control.read(theirs, "cpuset.cpus")
    finally:
        assert tree.remove(record) == []


def test_lxc_cgroup_reads_and_writes_the_same(reals: Callable[..., Real]) -> None:
    needs_v1()
    real = reals(FOR_LXC)
    record = record_of(real)

    def lxc(*words: str) -> str:
        argv = ["lxc-cgroup", "-P", real.lxcpath, "-n", real.name, *words]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    for file in FILES:
        assert lxc(file) == control.read(record, file) + "\n"  # LXC adds a line's end
    lxc("memory.limit_in_bytes", "96M")
    assert control.read(record, "memory.max") == f"{96 << 20}\n"
    control.write(record, "cpu.max", "10000 50000")
    assert lxc("cpu.cfs_quota_us") == "10000\n\n"
    control.write(record, "devices.allow", "c 1:7 rwm")
    assert "c 1:7 rwm" in lxc("devices.list")


def test_frozen_by_one_seen_by_the_other(reals: Callable[..., Real]) -> None:
    real = reals()
    record = record_of(real)

    def lxc(verb: str) -> None:
        subprocess.run([f"lxc-{verb}", "-P", real.lxcpath, "-n", real.name], check=True)

    if layout.detect().v1("freezer"):
        lxc("freeze")
        assert control.frozen(record)
        lxc("unfreeze")
        assert not control.frozen(record)
        control.freeze(record)
        assert control.read(record, "freezer.state") == "FROZEN\n"
        control.thaw(record)


def test_figures_are_those_of_lxc_info(reals: Callable[..., Real]) -> None:
    needs_v1()
    real = reals()
    record = record_of(real)
    control.freeze(record)  # so that nothing changes between the two looks
    try:
        argv = ["lxc-info", "-P", real.lxcpath, "-n", real.name, "-S", "-H"]
        said = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
        mine = stats.read(record)
    finally:
        control.thaw(record)
    theirs = {line.partition(":")[0]: int(line.split()[-1]) for line in said.splitlines() if ":" in line}
    assert theirs["CPU use"] == mine.cpu
    # the kernel counts v1 memory in batches of 64 pages a processor (admin-guide/cgroup-v1/memory.rst, 5.5)
    batch = 64 * os.sysconf("SC_PAGE_SIZE") * (os.cpu_count() or 1)
    assert theirs["Memory use"] == pytest.approx(mine.memory, abs=batch)
    assert theirs.get("KMem use", mine.kmem) == pytest.approx(mine.kmem, abs=batch)
    assert theirs.get("BlkIO use", mine.blkio_total) == mine.blkio_total


REFUSED_BY_BOTH = [
    "lxc.cgroup.memory.limit_in_bytes = 256MB",
    "lxc.cgroup.cpuset.cpus = 4000",
    "lxc.cgroup.cpu.cfs_quota_us = 10",
    "lxc.cgroup.pids.max = lots",
    "lxc.cgroup.devices.allow = c 1:3 x",
    "lxc.cgroup.memory.nosuch = 1",
    "lxc.cgroup.nosuch.file = 1",
    "lxc.cgroup.blkio.throttle.read_bps_device = 4094:0 10",
]


def sweep(real: Real) -> None:
    """LXC's monitor may leave its own groups behind when a start fails."""
    deadline = time.monotonic() + 5
    mounts = [hierarchy.mount for hierarchy in layout.detect().hierarchies]
    groups = [f"{mount}/lxc.{kind}.{real.name}" for mount in mounts for kind in ("monitor", "payload")]
    while time.monotonic() < deadline and any(map(os.path.exists, groups)):
        for group in groups:
            try:
                os.rmdir(group)
            except OSError:
                time.sleep(0.01)


@pytest.mark.parametrize("line", REFUSED_BY_BOTH)
def test_what_lxc_refuses_is_refused_with_a_reason(lxcpath: str, line: str, name: str) -> None:
    needs_v1()
    real = Real(lxcpath, name)
    with pytest.raises(AssertionError):
        real.start(f"{line}\n")
    sweep(real)
    with pytest.raises(CgroupError) as caught:
        made = planned(f"{line}\n", f"lxcpy-test-{name}")
        record = tree.create(made)
        try:
            tree.limit(made, record)
            tree.limit_devices(made, record)
        finally:
            tree.remove(record)
    key = line.partition(" ")[0]
    assert caught.value.what.startswith(f"{key}: ") and str(caught.value.at) == "config:1" and caught.value.hint


def test_a_delegated_group_is_as_lxc_leaves_it(name: str, ours: Callable[[str], dict[str, Any]]) -> None:
    folder = tempfile.mkdtemp(prefix="lxcpy-test-", dir="/var/tmp")  # where another uid may go
    os.chmod(folder, 0o755)
    real = Real(folder, name)
    try:
        subprocess.run(["chown", "-R", "100000:100000", real.rootfs], check=True)
        # Without newuidmap in PATH LXC writes root's maps itself, whatever /etc/subuid says.
        os.mkdir(f"{folder}/bin")
        os.symlink(shutil.which("lxc-start") or "", f"{folder}/bin/lxc-start")
        config = "lxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 100000 65536\n"
        real.start(config, env={**os.environ, "PATH": f"{folder}/bin"})
        _compare_owners(real, ours(""))
    finally:
        real.kill()
        sweep(real)
        shutil.rmtree(folder)


def _compare_owners(real: Real, mine: dict[str, Any]) -> None:
    theirs = record_of(real)
    tree.delegate(mine, 100000, 100000)

    def owners(record: dict[str, Any]) -> dict[str, tuple[int, int, int]]:
        found = {}
        for mount, path in record["payload"].items():
            for file in ("", "/cgroup.procs", "/tasks", "/cgroup.subtree_control", "/cgroup.threads"):
                if os.path.exists(f"{mount}{path}{file}"):
                    info = os.stat(f"{mount}{path}{file}")
                    found[f"{mount}{file}"] = (info.st_uid, info.st_gid, info.st_mode & 0o777)
        return found

    assert owners(mine) == owners(theirs)
