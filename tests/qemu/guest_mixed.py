"""Runs inside a virtual machine whose memory controller is v2's and whose others are v1's, some mounted together."""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lxcpy.cgroups import control, files, layout, stats, tree
from lxcpy.cgroups.plan import plan
from lxcpy.config.model import Cgroup, CgroupEntry
from lxcpy.errors import CgroupError, Origin
from lxcpy.kernel import namespace

CHECKS: dict[str, Callable[[], Any]] = {}
MOUNTS = """\
mount -t tmpfs cgroup /sys/fs/cgroup
for set in cpu,cpuacct cpuset blkio devices freezer pids net_cls,net_prio hugetlb name=systemd; do
    mkdir /sys/fs/cgroup/${set#name=}
    case $set in name=*) options=none,$set;; *) options=$set;; esac
    mount -t cgroup -o $options cgroup /sys/fs/cgroup/${set#name=}
done
mkdir /sys/fs/cgroup/unified
mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
"""


def check(function: Callable[[], Any]) -> Callable[[], Any]:
    CHECKS[function.__name__] = function
    return function


@contextmanager
def container(*lines: tuple[int, str, str]) -> Iterator[dict[str, Any]]:
    entries = tuple(CgroupEntry(*line, Origin("config", at)) for at, line in enumerate(lines, 1))
    made = plan(Cgroup(entries=entries), name="web", layout=layout.detect())
    record = tree.create(made)
    try:
        tree.limit(made, record)
        tree.limit_devices(made, record)
        yield record
    finally:
        control.kill(record)
        assert tree.remove(record) == []


@check
def controllers_mounted_together_are_found() -> None:
    found = layout.detect()
    assert found.kind == "hybrid"
    assert [h.name for h in found.hierarchies] == [
        "cpu,cpuacct", "cpuset", "blkio", "devices", "freezer", "pids", "net_cls,net_prio", "hugetlb", "name=systemd",
        "unified",
    ], found  # fmt: skip
    assert found.v1("cpuacct") == found.v1("cpu") and not found.v1("memory") and found.v2("memory")


@check
def a_process_enters_them_all() -> None:
    with container() as record, tree.Entry(record) as entry:
        pid, pidfd = namespace.clone(0, cgroup_fd=entry.unified)
        if pid == 0:
            entry.enter()
            time.sleep(100)
        os.close(pidfd)
        deadline = time.monotonic() + 5
        lines: list[str] = []
        while time.monotonic() < deadline and not all(line.endswith(":/lxc.payload.web") for line in lines or ["-"]):
            lines = files.read(f"/proc/{pid}/cgroup").splitlines()
            time.sleep(0.01)
        assert len(lines) == 10 and all(line.endswith(":/lxc.payload.web") for line in lines), lines
        found = stats.read(record)
        assert found.cpu is not None and found.memory is not None and found.blkio_total is not None, found
        control.freeze(record)
        assert control.frozen(record)
        assert control.kill(record) == []
        os.waitpid(pid, 0)


@check
def each_limit_goes_to_the_version_of_its_controller() -> None:
    lines = (
        (1, "memory.limit_in_bytes", "64M"), (1, "memory.memsw.limit_in_bytes", "96M"), (2, "cpu.max", "20000 50000"),
        (2, "cpu.weight", "50"), (1, "net_cls.classid", "0x100001"), (2, "hugetlb.2MB.max", "4M"), (2, "pids.max", "9"),
        (2, "devices.deny", "a"), (2, "devices.allow", "c 1:3 rwm"),
    )  # fmt: skip
    expected = {
        "memory.max": "67108864", "memory.swap.max": "33554432", "cpu.cfs_quota_us": "20000",
        "cpu.cfs_period_us": "50000", "cpu.shares": "512", "net_cls.classid": str(0x100001),
        "hugetlb.2MB.limit_in_bytes": "4194304", "pids.max": "9", "devices.list": "c 1:3 rwm",
        "memory.memsw.limit_in_bytes": str(96 << 20), "cpu.max": "20000 50000", "hugetlb.2MB.max": "4194304",
    }  # fmt: skip
    with container(*lines) as record:
        found = {item: control.read(record, item).strip() for item in expected}
        assert found == expected, found


@check
def what_v2s_memory_lacks_is_an_error_here_too() -> None:
    try:
        with container((1, "memory.swappiness", "1")):
            raise AssertionError("taken")
    except CgroupError as error:
        assert error.hint == "v2 has no swappiness of a group; lxc.cgroup2.memory.swap.max = 0 forbids swapping"


def main() -> int:
    failed = 0
    for name, function in CHECKS.items():
        try:
            answer = {"check": name, "ok": True, "value": function()}
        except BaseException:
            failed += 1
            answer = {"check": name, "ok": False, "value": traceback.format_exc()}
        print(json.dumps(answer), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
