"""Runs inside a virtual machine with cgroup v2 alone: every check's result is one line of JSON."""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from lxcpy.cgroups import control, files, layout, stats, tree
from lxcpy.cgroups.plan import plan
from lxcpy.config.model import Cgroup, CgroupDirs, CgroupEntry
from lxcpy.errors import CgroupError, Origin

ROOT = "/sys/fs/cgroup"
CHECKS: dict[str, Callable[[], Any]] = {}


def check(function: Callable[[], Any]) -> Callable[[], Any]:
    CHECKS[function.__name__] = function
    return function


class Container:
    """Groups, and children in them."""

    def __init__(self, lines: tuple[tuple[int, str, str], ...], settings: dict[str, Any], limited: bool) -> None:
        entries = tuple(CgroupEntry(*line, Origin("config", at)) for at, line in enumerate(lines, 1))
        self.plan = plan(Cgroup(entries=entries, **settings), name="web", layout=layout.detect())
        self.record = tree.create(self.plan)
        self.group = ROOT + self.record["limit"][ROOT]
        self.payload = ROOT + self.record["payload"][ROOT]
        self.children: list[int] = []
        if limited:
            self.warnings = tree.limit(self.plan, self.record)
            tree.limit_devices(self.plan, self.record)

    def run(self, function: Callable[[], Any]) -> int:
        from lxcpy.kernel import namespace

        with tree.Entry(self.record) as entry:
            pid, pidfd = namespace.clone(0, cgroup_fd=entry.unified)
            if pid == 0:
                status = 111
                try:
                    entry.enter()
                    status = int(function() or 0)
                finally:
                    os._exit(status)
        os.close(pidfd)
        self.children.append(pid)
        return pid

    def call(self, function: Callable[[], Any]) -> int:
        pid = self.run(function)
        self.children.remove(pid)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def read(self, file: str) -> str:
        return files.read(f"{self.group}/{file}").strip()


@contextlib.contextmanager
def container(*lines: tuple[int, str, str], limited: bool = True, **settings: Any) -> Iterator[Container]:
    it = Container(lines, settings, limited)
    try:
        yield it
    finally:
        left = control.kill(it.record)
        for pid in it.children:
            os.waitpid(pid, 0)
        left_groups = tree.remove(it.record)
    assert not left and not left_groups, (left, left_groups)
    assert not os.path.exists(it.group)


def sleep() -> None:
    time.sleep(100)


@check
def layout_is_pure_v2() -> None:
    found = layout.detect()
    assert found.kind == "v2" and len(found.hierarchies) == 1, found
    assert {"cpu", "memory", "io", "pids", "cpuset"} <= set(found.hierarchies[0].controllers), found


@check
def groups_are_made_entered_and_removed() -> None:
    with container() as it:
        assert it.group == f"{ROOT}/lxc.payload.web"
        pid = it.run(sleep)
        assert files.read(f"/proc/{pid}/cgroup") == "0::/lxc.payload.web\n"
        assert control.processes(it.record) == [pid]
        assert set(it.read("cgroup.controllers").split()) == set(layout.detect().hierarchies[0].controllers)
        assert tree.remove(it.record, timeout=0.0) == [it.group]
        with container() as other:
            assert other.group == f"{ROOT}/lxc.payload.web-1"
    assert not [name for name in os.listdir(ROOT) if name.startswith("lxc")]


@check
def deep_paths_hand_controllers_down() -> None:
    dirs = CgroupDirs(container="a/b/c", container_inner="inner", monitor="a/m")
    with container((2, "pids.max", "9"), dirs=dirs) as it:
        assert (it.group, it.payload) == (f"{ROOT}/a/b/c", f"{ROOT}/a/b/c/inner")
        assert it.read("pids.max") == "9" and files.read(f"{it.payload}/pids.max") == "max\n"
        assert it.call(lambda: files.read("/proc/self/cgroup") != "0::/a/b/c/inner\n") == 0
        assert os.path.isdir(f"{ROOT}/a/m")
    assert not os.path.exists(f"{ROOT}/a")


READ_BACK = [
    ((1, "memory.limit_in_bytes", "64M"), "memory.max", "67108864"),
    ((2, "memory.max", "64m"), "memory.max", "67108864"),
    ((1, "memory.soft_limit_in_bytes", "32M"), "memory.low", "33554432"),
    ((2, "memory.high", "32M"), "memory.high", "33554432"),
    ((1, "cpu.shares", "512"), "cpu.weight", "50"),
    ((2, "cpu.weight", "200"), "cpu.weight", "200"),
    ((2, "cpu.weight.nice", "0"), "cpu.weight", "100"),
    ((1, "cpu.cfs_quota_us", "50000"), "cpu.max", "50000 100000"),
    ((1, "cpu.cfs_period_us", "50000"), "cpu.max", "max 50000"),
    ((2, "cpu.max", "20000 50000"), "cpu.max", "20000 50000"),
    ((1, "cpuset.cpus", "0"), "cpuset.cpus", "0"),
    ((1, "cpuset.mems", "0"), "cpuset.mems", "0"),
    ((1, "pids.max", "77"), "pids.max", "77"),
    ((1, "hugetlb.2MB.limit_in_bytes", "4M"), "hugetlb.2MB.max", "4194304"),
    ((1, "hugetlb.2MB.rsvd.limit_in_bytes", "4M"), "hugetlb.2MB.rsvd.max", "4194304"),
    ((1, "blkio.weight", "250"), "io.weight", "default 50"),
    ((1, "blkio.weight", "250"), "io.bfq.weight", "default 50"),
    ((2, "io.weight", "300"), "io.weight", "default 300"),
    ((2, "cgroup.max.depth", "5"), "cgroup.max.depth", "5"),
]


@check
def limits_of_either_dialect_are_read_back() -> None:
    wrong = []
    for line, file, expected in READ_BACK:
        with container(line) as it:
            found = it.read(file)
            if found != expected:
                wrong.append((line, file, found))
    assert not wrong, wrong


@check
def memory_and_swap_are_taken_apart() -> None:
    with container((1, "memory.memsw.limit_in_bytes", "96M"), (1, "memory.limit_in_bytes", "64M")) as it:
        assert (it.read("memory.max"), it.read("memory.swap.max")) == ("67108864", "33554432")
        assert control.read(it.record, "memory.memsw.limit_in_bytes") == f"{96 << 20}\n"
        control.write(it.record, "memory.limit_in_bytes", "32M")  # in v1's words the sum stays what it is
        assert it.read("memory.swap.max") == str(64 << 20)


@check
def throttles_of_a_disk_meet_in_one_line() -> None:
    disk = files.read("/sys/block/loop0/dev").strip()
    with container(
        (1, "blkio.throttle.read_bps_device", f"{disk} 1M"), (1, "blkio.throttle.write_iops_device", f"{disk} 120")
    ) as it:
        assert it.read("io.max") == f"{disk} rbps=1048576 wbps=max riops=max wiops=120"
        assert control.read(it.record, "blkio.throttle.write_iops_device") == f"{disk} 120\n"
        control.write(it.record, "blkio.throttle.read_bps_device", f"{disk} 0")
        assert it.read("io.max") == f"{disk} rbps=max wbps=max riops=max wiops=120"


@check
def memory_is_limited() -> None:
    def use() -> None:
        with mmap.mmap(-1, 64 << 20) as area:
            for at in range(0, len(area), 4096):
                area[at] = 1

    with container((1, "memory.limit_in_bytes", "16M"), (1, "memory.memsw.limit_in_bytes", "16M")) as it:
        assert it.call(use) == -signal.SIGKILL
        assert "oom_kill 1" in it.read("memory.events")
        assert int(control.read(it.record, "memory.failcnt")) > 0


@check
def processes_are_limited() -> None:
    def fork() -> int:
        try:
            pid = os.fork()
        except OSError as error:
            return error.errno or 0
        if pid == 0:
            os._exit(0)
        return 0

    with container((2, "pids.max", "1")) as it:
        assert it.call(fork) == errno.EAGAIN


@check
def cpus_are_limited() -> None:
    with container((1, "cpuset.cpus", "1")) as it:
        assert it.call(lambda: os.sched_getaffinity(0) != {1}) == 0


@check
def a_cpu_that_is_not_there_is_an_error() -> None:
    """v2 itself takes it and uses the parent's CPUs."""
    with container((1, "cpuset.cpus", "7"), limited=False) as it:
        try:
            tree.limit(it.plan, it.record)
        except CgroupError as error:
            assert error.lines()[1:] == ["  at config:1", "  hint: the group above has CPUs 0-1"], error.lines()
        else:
            raise AssertionError(it.read("cpuset.cpus.effective"))


@check
def cpu_time_is_limited() -> None:
    def burn() -> None:
        end = time.monotonic() + 0.5
        while time.monotonic() < end:
            pass

    with container((1, "cpu.cfs_quota_us", "2000"), (1, "cpu.cfs_period_us", "20000")) as it:
        assert it.call(burn) == 0
        numbers = dict(line.split() for line in it.read("cpu.stat").splitlines())
        assert int(numbers["nr_throttled"]) > 0 and int(numbers["usage_usec"]) < 300_000, numbers


@check
def devices_are_refused_by_a_program() -> None:
    def opens() -> int:
        found = 0
        for bit, (name, flags) in enumerate((("null", os.O_RDWR), ("zero", os.O_RDONLY), ("zero", os.O_WRONLY),
                                             ("full", os.O_RDONLY))):  # fmt: skip
            try:
                os.close(os.open(f"/dev/{name}", flags))
                found |= 1 << bit
            except PermissionError:
                pass
        try:
            os.mknod("/tmp/node", 0o20600, os.makedev(1, 9))
            os.unlink("/tmp/node")
            found |= 16
        except PermissionError:
            pass
        return found

    rules = ((1, "devices.deny", "a"), (1, "devices.allow", "c *:* m"), (2, "devices.allow", "c 1:3 rwm"),
             (1, "devices.allow", "/dev/zero r"))  # fmt: skip
    with container() as it:
        assert it.call(opens) == 31
    with container(*rules) as it:
        assert it.record["devices"] == ["deny a", "allow c *:* m", "allow c 1:3 rwm", "allow c 1:5 r"]
        assert it.call(opens) == 0b10011
        control.write(it.record, "devices.allow", "c 1:7 rwm")
        control.write(it.record, "devices.deny", "c *:* m")
        assert it.call(opens) == 0b01011
        control.write(it.record, "devices.allow", "a")
        assert it.call(opens) == 31
    with container((2, "devices.deny", "c 1:5 w")) as it:
        assert it.call(opens) == 0b11011


@check
def presets_of_both_dialects_have_one_policy() -> None:
    from lxcpy.config.load import load_text

    text = "".join(
        f"lxc.{family}.devices.{line}\n"
        for family in ("cgroup", "cgroup2")
        for line in ("deny = a", "allow = c 1:3 rwm")
    )
    entries = load_text(text + "lxc.cgroup.devices.allow = c 10:200 rwm\n", "config").cgroup.entries
    made = plan(Cgroup(entries=entries), name="web", layout=layout.detect())
    assert [str(rule) for rule in made.devices] == ["deny a", "allow c 1:3 rwm", "allow c 10:200 rwm"]


@check
def frozen_processes_stand_still() -> None:
    with container() as it, mmap.mmap(-1, 4096) as counter:

        def count() -> None:
            while True:
                counter[0] = (counter[0] + 1) % 256
                time.sleep(0.001)

        it.run(count)
        while not counter[0]:
            time.sleep(0.001)
        control.freeze(it.record)
        assert control.frozen(it.record) and control.read(it.record, "freezer.state") == "FROZEN\n"
        seen = counter[0]
        time.sleep(0.05)
        assert counter[0] == seen
        control.thaw(it.record)
        assert not control.frozen(it.record)
        deadline = time.monotonic() + 5
        while counter[0] == seen:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        control.write(it.record, "freezer.state", "FROZEN")
        assert it.read("cgroup.freeze") == "1"


@check
def kill_ends_frozen_and_nested_processes() -> None:
    with container() as it:
        pids = [it.run(sleep) for _ in range(3)]
        os.mkdir(f"{it.payload}/inner")
        files.write(f"{it.payload}/inner/cgroup.procs", str(pids[0]))
        control.freeze(it.record)
        assert control.processes(it.record) == sorted(pids)
        assert control.kill(it.record) == []


@check
def delegated_root_makes_groups_with_controllers() -> None:
    """What systemd does in a container with a user namespace."""

    def use() -> None:
        os.setgroups([])
        os.setresgid(100000, 100000, 100000)
        os.setresuid(100000, 100000, 100000)
        os.mkdir(f"{payload}/init.scope")
        files.write(f"{payload}/init.scope/cgroup.procs", str(os.getpid()))
        files.write(f"{payload}/cgroup.subtree_control", "+memory +pids")
        os.mkdir(f"{payload}/work")
        files.write(f"{payload}/work/memory.max", "1M")

    with container((2, "memory.max", "64M")) as it:
        payload = it.payload
        tree.delegate(it.record, 100000, 100000)
        assert it.call(use) == 0
        assert files.read(f"{payload}/work/memory.max") == "1048576\n"
        assert os.stat(f"{payload}/memory.max").st_gid == 0  # the limits themselves stay the host's


@check
def attach_goes_to_a_leaf() -> None:
    from lxcpy.runtime.attach_inside import enter_cgroup

    with container() as it:
        init = it.run(sleep)
        os.mkdir(f"{it.payload}/init.scope")
        files.write(f"{it.payload}/init.scope/cgroup.procs", str(init))
        files.write(f"{it.payload}/cgroup.subtree_control", "+memory")

        def attach() -> int:
            group = os.open(it.payload, os.O_RDONLY | os.O_DIRECTORY)
            enter_cgroup(group)
            return int(not files.read("/proc/self/cgroup").startswith("0::/lxc.payload.web/.lxc"))

        pid = os.fork()
        if pid == 0:
            status = 111
            try:
                status = attach()
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@check
def refusals_are_explained() -> None:
    with container((1, "blkio.throttle.read_bps_device", "240:9 5"), limited=False) as it:
        try:
            tree.limit(it.plan, it.record)
        except CgroupError as error:
            assert error.lines() == [
                f'lxc.cgroup.blkio.throttle.read_bps_device: cannot write "240:9 rbps=5" to {it.group}/io.max: '
                "No such device",
                "  at config:1",
                "  hint: a whole disk as MAJOR:MINOR (lsblk -d), not one of its partitions",
            ], error.lines()
        else:
            raise AssertionError("taken")
    for line, what in (
        ((1, "memory.swappiness", "10"), "knows nothing like"),
        ((1, "net_cls.classid", "1"), "knows nothing like"),
        ((1, "memory.limit_in_bytes", "256MB"), "is no size"),
    ):
        try:
            container(line).__enter__()
        except CgroupError as error:
            assert what in error.what and error.hint, error.lines()
        else:
            raise AssertionError(line)


@check
def statistics_of_a_container() -> None:
    with container((2, "memory.max", "64M")) as it:

        def use() -> None:
            with mmap.mmap(-1, 8 << 20) as area:
                for at in range(0, len(area), 4096):
                    area[at] = 1
                time.sleep(100)

        it.run(use)
        deadline = time.monotonic() + 20
        while (stats.read(it.record).memory or 0) < 8 << 20:
            assert time.monotonic() < deadline, stats.read(it.record)
            time.sleep(0.01)
        found = stats.read(it.record)
        assert found.cpu and found.memory_limit == 64 << 20 and found.processes == 1 and found.kmem, found
        assert found.blkio_total == 0, found
        assert int(control.read(it.record, "cpuacct.usage")) > 0
        assert int(control.read(it.record, "memory.usage_in_bytes")) >= 8 << 20


@check
def hostile_groups_are_removed() -> None:
    with container() as it:
        path = it.payload
        for number in range(12):
            path += f"/{'x' * 200}{number}"
            os.mkdir(path)
        for number in range(40):
            os.mkdir(f"{it.payload}/{number}")
        os.mkdir(os.fsencode(it.payload) + b"/\xff -rf")


@check
def making_and_removing_is_fast() -> float:
    def once() -> float:
        start = time.perf_counter()
        made = plan(Cgroup(), name="fast", layout=layout.detect())
        record = tree.create(made)
        tree.limit(made, record)
        assert tree.remove(record) == []
        return time.perf_counter() - start

    return sorted(once() for _ in range(9))[4]


def main() -> int:
    names = sys.argv[1:] or list(CHECKS)
    with open("/tmp/disk", "wb") as disk:
        disk.truncate(1 << 20)
    os.system("losetup /dev/loop0 /tmp/disk")
    failed = 0
    for name in names:
        try:
            answer = {"check": name, "ok": True, "value": CHECKS[name]()}
        except BaseException:
            failed += 1
            answer = {"check": name, "ok": False, "value": traceback.format_exc()}
        print(json.dumps(answer), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
