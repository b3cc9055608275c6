"""The groups of a container in this host's own hierarchies: made, entered, limited, frozen, removed."""

from __future__ import annotations

import errno
import mmap
import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from probes import requires

from lxcpy.cgroups import control, devices, files, layout, stats, tree
from lxcpy.cgroups.plan import CgroupPlan, HostFacts, plan
from lxcpy.config.model import Cgroup, CgroupDirs, CgroupEntry
from lxcpy.errors import CgroupError, Origin
from lxcpy.kernel import namespace

pytestmark = requires("root")
Lines = tuple[tuple[int, str, str], ...]


class Container:
    """The groups of a container that runs whatever functions a test gives it."""

    def __init__(self, made: CgroupPlan) -> None:
        self.plan = made
        self.record = tree.create(made)
        self.children: list[int] = []

    def group(self, name: str) -> str:
        """The directory in the hierarchy of a controller; `unified`: v2's."""
        for hierarchy in self.plan.hierarchies:
            if hierarchy.serves(name) or hierarchy.name == name:
                return hierarchy.mount + str(self.record["limit"][hierarchy.mount])
        pytest.skip(f"this host has no {name} hierarchy")

    def run(self, function: Callable[[], object]) -> int:
        """Fork a child into the groups; its pid."""
        with tree.Entry(self.record) as entry:
            pid, pidfd = namespace.clone(0, cgroup_fd=entry.unified)
            if pid == 0:
                status = 111
                try:
                    entry.enter()
                    status = int(function() or 0)  # type: ignore[call-overload]
                finally:
                    os._exit(status)
        os.close(pidfd)
        self.children.append(pid)
        return pid

    def wait(self, pid: int) -> int:
        """The exit status; minus the signal's number."""
        self.children.remove(pid)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def call(self, function: Callable[[], object]) -> int:
        return self.wait(self.run(function))

    def settle(self, pid: int) -> None:
        """Wait until a child stands in all of its groups."""
        expected = {h.name: self.record["payload"][h.mount] for h in self.plan.hierarchies}
        deadline = time.monotonic() + 5
        while cgroups_of(pid) != expected and time.monotonic() < deadline:
            time.sleep(0.001)
        assert cgroups_of(pid) == expected

    def close(self) -> None:
        if self.children:
            control.thaw(self.record)
        for pid in self.children:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        assert tree.remove(self.record) == []


@pytest.fixture
def container(name: str) -> Iterator[Callable[..., Container]]:
    made: list[Container] = []

    def make(*lines: tuple[int, str, str], limited: bool = True, suffix: str = "", **settings: Any) -> Container:
        entries = tuple(CgroupEntry(*line, Origin("config", at)) for at, line in enumerate(lines, 1))
        cgroup = Cgroup(entries=entries, **settings)
        found = Container(plan(cgroup, name=f"lxcpy-test-{name}{suffix}", layout=layout.detect()))
        made.append(found)
        if limited:
            tree.limit(found.plan, found.record)
            tree.limit_devices(found.plan, found.record)
        return found

    yield make
    for item in made:
        item.close()


def cgroups_of(pid: int | str) -> dict[str, str]:
    """The group of a process in each hierarchy, by the hierarchy's name."""
    found = {}
    with open(f"/proc/{pid}/cgroup") as file:
        for line in file:
            _, name, path = line.rstrip("\n").split(":", 2)
            found[name or "unified"] = path
    return found


def sleep() -> None:
    time.sleep(60)


def test_made_entered_and_removed(container: Callable[..., Container]) -> None:
    it = container()
    pid = it.run(sleep)
    it.settle(pid)
    assert control.processes(it.record) == [pid]
    assert tree.remove(it.record, timeout=0.0) == [h.mount + it.record["limit"][h.mount] for h in it.plan.hierarchies]
    os.kill(pid, signal.SIGKILL)
    it.wait(pid)
    assert tree.remove(it.record) == []
    assert not any(os.path.exists(h.mount + it.record["limit"][h.mount]) for h in it.plan.hierarchies)


def test_another_process_is_moved_in(container: Callable[..., Container]) -> None:
    it = container()
    pid = os.fork()
    if pid == 0:
        sleep()
    it.children.append(pid)
    tree.enter(it.record, pid)
    assert set(cgroups_of(pid).values()) == set(it.record["payload"].values())


def test_a_process_that_is_gone(container: Callable[..., Container]) -> None:
    it = container()
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    with pytest.raises(CgroupError, match=f"cannot move process {pid} into the cgroup .*: No such process"):
        tree.enter(it.record, pid)


def test_a_cpuset_is_filled_for_the_container_and_what_it_makes(container: Callable[..., Container]) -> None:
    it = container(dirs=CgroupDirs(dir=f"lxcpy-test-{os.getpid()}/deep"))
    group = it.group("cpuset")
    above = os.path.dirname(os.path.dirname(os.path.dirname(group)))
    os.mkdir(f"{group}/inner")
    for name in ("cpuset.cpus", "cpuset.mems"):
        with open(f"{above}/{name}") as root, open(f"{group}/{name}") as mine, open(f"{group}/inner/{name}") as inner:
            assert root.read() == mine.read() == inner.read()


def test_inner_is_the_namespace_root_and_limits_stay_outside(container: Callable[..., Container], name: str) -> None:
    base = f"lxcpy-test-{name}"
    dirs = CgroupDirs(container=f"{base}/c", container_inner="i", monitor=f"{base}/m")
    it = container((1, "pids.max", "50"), dirs=dirs)
    group = it.group("pids")
    assert group.endswith(f"/{base}/c")
    assert (files.read(f"{group}/pids.max"), files.read(f"{group}/i/pids.max")) == ("50\n", "max\n")
    assert it.call(lambda: cgroups_of("self")["pids"] != f"/{base}/c/i") == 0


def test_a_leftover_group_moves_the_name(container: Callable[..., Container]) -> None:
    first, second = container(), container()
    assert set(second.record["payload"].values()) == {f"{path}-1" for path in first.record["payload"].values()}


# What is read back after each line, whatever the version of the host's controllers: (line, item, text).
READ_BACK = [
    ((2, "memory.max", "64M"), "memory.limit_in_bytes", "67108864"),
    ((1, "memory.limit_in_bytes", "64M"), "memory.max", "67108864"),
    ((2, "memory.high", "64M"), "memory.soft_limit_in_bytes", "67108864"),
    ((2, "cpu.max", "50000 200000"), "cpu.cfs_quota_us", "50000"),
    ((2, "cpu.max", "50000 200000"), "cpu.cfs_period_us", "200000"),
    ((1, "cpu.cfs_quota_us", "50000"), "cpu.max", "50000 100000"),
    ((2, "cpu.weight", "200"), "cpu.shares", "2048"),
    ((1, "cpu.shares", "512"), "cpu.weight", "50"),
    ((2, "cpu.weight.nice", "5"), "cpu.shares", "335"),
    ((2, "cpu.idle", "1"), "cpu.idle", "1"),
    ((2, "cpuset.cpus", "0"), "cpuset.cpus", "0"),
    ((1, "cpuset.mems", "0"), "cpuset.mems", "0"),
    ((2, "pids.max", "100"), "pids.max", "100"),
    ((1, "blkio.weight", "250"), "io.weight", "default 50"),
    ((2, "io.weight", "default 200"), "io.weight", "default 200"),
    ((2, "io.bfq.weight", "300"), "blkio.bfq.weight", "300"),
    ((2, "cgroup.max.depth", "7"), "cgroup.max.depth", "7"),
]


@pytest.mark.parametrize("line, item, text", READ_BACK, ids=lambda value: str(value))
def test_a_limit_in_either_dialect_takes_effect(
    container: Callable[..., Container], line: tuple[int, str, str], item: str, text: str
) -> None:
    assert control.read(container(line).record, item) == text + "\n"


def test_swap_and_memory_add_up(container: Callable[..., Container]) -> None:
    it = container((2, "memory.swap.max", "32M"), (2, "memory.max", "64M"))
    assert control.read(it.record, "memory.memsw.limit_in_bytes") == f"{96 << 20}\n"
    assert control.read(it.record, "memory.swap.max") == f"{32 << 20}\n"
    control.write(it.record, "memory.max", "128M")  # in v2's words swap stays what it is
    assert control.read(it.record, "memory.memsw.limit_in_bytes") == f"{160 << 20}\n"
    control.write(it.record, "memory.max", "16M")
    assert control.read(it.record, "memory.swap.max") == f"{32 << 20}\n"
    control.write(it.record, "memory.max", "max")
    assert control.read(it.record, "memory.memsw.limit_in_bytes") == "9223372036854771712\n"


def _disk() -> str:
    """A whole disk as MAJOR:MINOR."""
    for name in sorted(os.listdir("/sys/block")):
        if not name.startswith(("loop", "ram", "zram", "sr", "nbd")):
            with open(f"/sys/block/{name}/dev") as file:
                return file.read().strip()
    pytest.skip("this host has no disk")


def test_throttles_of_one_disk_from_one_line(container: Callable[..., Container]) -> None:
    disk = _disk()
    it = container((2, "io.max", f"{disk} rbps=1M wiops=120"))
    assert control.read(it.record, "blkio.throttle.read_bps_device") == f"{disk} 1048576\n"
    assert control.read(it.record, "blkio.throttle.write_iops_device") == f"{disk} 120\n"
    control.write(it.record, "io.max", f"{disk} rbps=max")
    assert control.read(it.record, "io.max").strip().split() == [disk, "wiops=120"] or "rbps=max" in control.read(
        it.record, "io.max")  # fmt: skip


def test_a_v1_suffix_that_the_kernel_would_forget(container: Callable[..., Container]) -> None:
    """The kernel takes the 1 of "1M" here: one byte a second."""
    disk = _disk()
    it = container((1, "blkio.throttle.write_bps_device", f"{disk} 1M"))
    assert control.read(it.record, "blkio.throttle.write_bps_device") == f"{disk} 1048576\n"


def test_huge_pages_through_v2_on_a_hybrid_host(container: Callable[..., Container]) -> None:
    unified = layout.detect().unified
    if not unified or "hugetlb" not in unified.controllers or layout.detect().kind != "hybrid":
        pytest.skip("this host's v2 hierarchy has no hugetlb controller beside v1")
    control_file = f"{unified.mount}/cgroup.subtree_control"
    before = files.read(control_file).split()
    try:
        it = container((1, "hugetlb.2MB.limit_in_bytes", "4M"))
        assert control.read(it.record, "hugetlb.2MB.max") == "4194304\n"
        assert control.read(it.record, "hugetlb.2MB.limit_in_bytes") == "4194304\n"
        it.close()
        it.record["limit"].clear()
        it.record["payload"].clear()
        it.record["hierarchies"].clear()
        it.close = lambda: None  # type: ignore[method-assign]
    finally:
        if "hugetlb" not in before:
            with open(control_file, "w") as file:
                file.write("-hugetlb")


def test_memory_is_limited(container: Callable[..., Container]) -> None:
    it = container((2, "memory.max", "16M"), (2, "memory.swap.max", "0"))

    def use() -> None:
        with mmap.mmap(-1, 64 << 20) as area:
            for at in range(0, len(area), 4096):
                area[at] = 1

    assert it.call(use) == -signal.SIGKILL


def test_processes_are_limited(container: Callable[..., Container]) -> None:
    it = container((1, "pids.max", "1"))

    def fork() -> int:
        try:
            pid = os.fork()
        except OSError as error:
            return error.errno or 0
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)
        return 0

    assert it.call(fork) == errno.EAGAIN


def test_cpus_are_limited(container: Callable[..., Container]) -> None:
    it = container((2, "cpuset.cpus", "0"))
    assert it.call(lambda: os.sched_getaffinity(0) != {0}) == 0


def test_cpu_time_is_limited(container: Callable[..., Container]) -> None:
    it = container((2, "cpu.max", "2000 20000"))

    def burn() -> int:
        end = time.monotonic() + 0.3
        while time.monotonic() < end:
            pass
        return round(time.process_time() * 1000) if time.process_time() < 0.25 else 250

    assert it.call(burn) < 120  # 0.3 s at a tenth, and a slice
    text = control.read(it.record, "cpu.stat")
    assert int(dict(line.split() for line in text.splitlines())["nr_throttled"]) > 0


REFUSED = [
    ((2, "cpuset.cpus", "4000"), 'cannot write "4000" to {cpuset}/cpuset.cpus: Numerical result out of range',
     "the group above has CPUs {cpus}"),
    ((1, "cpuset.mems", "900"), 'cannot write "900" to {cpuset}/cpuset.mems: ',
     "the group above has memory nodes {mems}"),
    ((1, "memory.qqqqqqqq", "1"), 'cannot write "1" to {memory}/memory.qqqqqqqq: No such file or directory',
     "this kernel has no file memory.qqqqqqqq (or it is not to be written)"),
    ((1, "memory.swapiness", "1"), 'cannot write "1" to {memory}/memory.swapiness: No such file or directory',
     "did you mean memory.swappiness?"),
    ((2, "io.max", "4094:0 rbps=1"),
     'cannot write "4094:0 1" to {blkio}/blkio.throttle.read_bps_device: No such device',
     "a whole disk as MAJOR:MINOR (lsblk -d), not one of its partitions"),
    ((1, "memory.use_hierarchy", "0"), 'cannot write "0" to {memory}/memory.use_hierarchy: Invalid argument', None),
]  # fmt: skip


@pytest.mark.parametrize("line, what, hint", REFUSED, ids=lambda value: str(value)[:40])
def test_the_kernels_refusal_is_explained(
    container: Callable[..., Container], line: tuple[int, str, str], what: str, hint: str | None
) -> None:
    it = container(line, limited=False)
    names = {"cpuset": it.group("cpuset"), "memory": it.group("memory"), "blkio": it.group("blkio")}
    for name in ("cpus", "mems"):
        with open(f"{os.path.dirname(names['cpuset'])}/cpuset.{name}") as file:
            names[name] = file.read().strip()
    with pytest.raises(CgroupError) as caught:
        tree.limit(it.plan, it.record)
    key = f"lxc.cgroup{'' if line[0] == 1 else '2'}.{line[1]}"
    assert caught.value.what.startswith(f"{key}: {what.format(**names)}")
    assert caught.value.at == Origin("config", 1)
    assert caught.value.hint == (hint and hint.format(**names))


def test_the_order_of_memory_and_memsw_on_a_running_container(container: Callable[..., Container]) -> None:
    it = container((1, "memory.limit_in_bytes", "32M"), (1, "memory.memsw.limit_in_bytes", "32M"))
    with pytest.raises(CgroupError) as caught:
        control.write(it.record, "memory.limit_in_bytes", "64M")
    assert caught.value.lines() == [
        f'memory.limit_in_bytes: cannot write "67108864" to {it.group("memory")}/memory.limit_in_bytes: '
        "Invalid argument",
        "  hint: it cannot exceed memory.memsw.limit_in_bytes: raise that one first",
    ]  # fmt: skip


def test_memory_in_use_cannot_be_limited_away(container: Callable[..., Container]) -> None:
    it = container((2, "memory.swap.max", "0"), (2, "memory.max", "64M"))
    reader, writer = os.pipe()

    def hold() -> None:
        with mmap.mmap(-1, 32 << 20) as area:
            for at in range(0, len(area), 4096):
                area[at] = 1
            os.write(writer, b"x")
            sleep()

    it.run(hold)
    os.read(reader, 1)
    os.close(reader)
    os.close(writer)
    with pytest.raises(CgroupError) as caught:
        control.write(it.record, "memory.limit_in_bytes", "4M")
    assert "Device or resource busy" in caught.value.what
    assert caught.value.hint == (
        "the processes use more than this already and it cannot be reclaimed: choose a higher limit or stop some"
    )


def test_a_value_that_the_kernel_forgets_is_a_warning(container: Callable[..., Container]) -> None:
    it = container((1, "memory.kmem.limit_in_bytes", "32M"), limited=False)
    try:
        warnings = tree.limit(it.plan, it.record)
    except CgroupError as error:  # Linux 5.16 to 6.1 refuse it
        assert error.hint == "Linux 5.16 and later have no limit of kernel memory alone: remove the line"
        return
    kept = control.read(it.record, "memory.kmem.limit_in_bytes").strip()
    assert kept == str(32 << 20) or warnings == [
        "lxc.cgroup.memory.kmem.limit_in_bytes: this kernel ignores memory.kmem.limit_in_bytes: "
        f'it reads "{kept}" after "33554432" was written'
    ]


# -- devices -------------------------------------------------------------------------------------------------------

PROBED = ("null", "zero", "full", "random", "urandom", "tty")
POLICIES = [
    ("deny a",),
    ("deny a", "allow c 1:3 rwm"),
    ("deny a", "allow c 1:* r"),
    ("deny a", "allow c *:* rwm"),
    ("deny a", "allow c 1:3 r", "allow c 1:3 w"),
    ("deny a", "allow c 1:3 rw", "allow c 1:5 rw", "deny c 1:3 w"),
    ("deny c 1:3 w", "deny c 1:5 rwm"),
    ("deny a", "allow c 1:3 rw", "allow a", "deny c 1:7 r"),
    ("deny a", "allow c *:* m", "allow c 1:5 rm"),
    ("allow a",),
]


def verdicts() -> int:
    """A bit for each way of opening each device, and for making it, that is allowed."""
    found, bit = 0, 1
    for name in PROBED:
        info = os.stat(f"/dev/{name}")
        for flags in (os.O_RDONLY, os.O_WRONLY, os.O_RDWR):
            try:
                os.close(os.open(f"/dev/{name}", flags | os.O_NOCTTY))
                found |= bit
            except OSError as error:
                found |= 0 if error.errno == errno.EPERM else bit  # /dev/tty: ENXIO, after the check
            bit <<= 1
        try:
            os.mknod(f"/tmp/lxcpy-test-node-{os.getpid()}", info.st_mode, info.st_rdev)
            os.unlink(f"/tmp/lxcpy-test-node-{os.getpid()}")
            found |= bit
        except OSError as error:
            assert error.errno == errno.EPERM
        bit <<= 1
    return found


def _probe(it: Container) -> int:
    reader, writer = os.pipe()
    try:
        assert it.call(lambda: os.write(writer, str(verdicts()).encode()) and 0) == 0
        return int(os.read(reader, 100))
    finally:
        os.close(reader)
        os.close(writer)


@pytest.mark.parametrize("policy", POLICIES, ids=str)
def test_the_v2_program_and_the_v1_controller_agree(
    container: Callable[..., Container], policy: tuple[str, ...]
) -> None:
    lines = [(1, f"devices.{line.partition(' ')[0]}", line.partition(" ")[2]) for line in policy]
    v1 = container(*lines)
    it = container(suffix="-bpf")
    unified = it.group("unified")
    rules = [devices.parse(key, text) for _, key, text in lines]
    try:
        devices.install(unified, rules)
    except CgroupError as error:
        pytest.skip(error.what)
    everything = (1 << 4 * len(PROBED)) - 1
    expected = _probe(v1)
    assert _probe(it) == expected
    assert (expected == everything) == (policy[-1] in ("allow a", "allow c *:* rwm"))
    devices.install(unified, [])
    assert _probe(it) == everything


def test_the_program_is_exchanged_when_a_rule_is_added(container: Callable[..., Container]) -> None:
    """A record without v1 is what a v2 host would have."""
    it = container()
    it.group("unified")
    record = {**it.record, "devices": ["deny a"]}
    for tree_name in ("hierarchies", "payload", "limit"):
        record[tree_name] = {m: v for m, v in it.record[tree_name].items() if it.record["hierarchies"][m][0] == 2}
    control.write(record, "devices.allow", "c 1:3 rwm")
    control.write(record, "devices.allow", "/dev/zero r")
    assert record["devices"] == ["deny a", "allow c 1:3 rwm", "allow c 1:5 r"]
    assert control.read(record, "devices.list") == "deny a\nallow c 1:3 rwm\nallow c 1:5 r\n"
    assert _probe(it) == 0b0001_1111
    control.write(record, "devices.deny", "c 1:3 w")
    assert _probe(it) == 0b0001_1001


def test_wrong_device_rules(container: Callable[..., Container]) -> None:
    with pytest.raises(CgroupError, match='"c 1:3" is no device rule'):
        control.write(container().record, "devices.allow", "c 1:3")


# -- freezer, kill ---------------------------------------------------------------------------------------------------


def only(record: dict[str, Any], version: int) -> dict[str, Any]:
    """The record as a host with one version of cgroups would have it."""
    kept = {mount for mount, (at, *_) in record["hierarchies"].items() if at == version}
    trees = {key: {m: v for m, v in record[key].items() if m in kept} for key in ("hierarchies", "payload", "limit")}
    return {**record, **trees}


def count(counter: mmap.mmap) -> None:
    number = 0
    while True:
        number = (number + 1) % 256
        counter[0] = number
        time.sleep(0.0005)


@pytest.mark.parametrize("version", [1, 2])
def test_frozen_processes_stand_still(container: Callable[..., Container], version: int) -> None:
    it = container()
    record = only(it.record, version)
    with mmap.mmap(-1, 4096) as counter:
        it.run(lambda: count(counter))
        time.sleep(0.02)
        assert not control.frozen(record)
        control.freeze(record)
        assert control.frozen(record)
        seen = counter[0]
        time.sleep(0.02)
        assert counter[0] == seen
        control.freeze(record)  # again is no error
        control.thaw(record)
        assert not control.frozen(record)
        deadline = time.monotonic() + 5
        while counter[0] == seen and time.monotonic() < deadline:
            time.sleep(0.001)
        assert counter[0] != seen
        control.thaw(record)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("frozen", [False, True])
def test_kill_ends_all_even_frozen_ones(container: Callable[..., Container], version: int, frozen: bool) -> None:
    it = container()
    pids = [it.run(sleep) for _ in range(3)]
    record = only(it.record, version)
    for pid in pids:
        it.settle(pid)
    for mount in record["payload"]:
        os.mkdir(f"{mount}{record['payload'][mount]}/inner")
        if "cpuset" not in record["hierarchies"][mount]:
            with open(f"{mount}{record['payload'][mount]}/inner/cgroup.procs", "w") as file:
                file.write(str(pids[0]))
    if frozen:
        control.freeze(record)
    assert control.processes(record) == sorted(pids)
    assert control.kill(record) == []
    assert [it.wait(pid) for pid in pids] == [-signal.SIGKILL] * 3
    assert control.kill(record) == []


def test_no_freezer_at_all(container: Callable[..., Container]) -> None:
    record = {"hierarchies": {}, "payload": {}, "limit": {}}
    assert not control.frozen(record)
    with pytest.raises(CgroupError, match="cannot freeze: the container has no freezer"):
        control.freeze(record)


# -- delegation, removal, figures -----------------------------------------------------------------------------------


def test_delegated_to_the_containers_root(container: Callable[..., Container]) -> None:
    it = container()
    tree.delegate(it.record, 100000, 100000)
    for hierarchy in it.plan.hierarchies:
        group = hierarchy.mount + it.record["payload"][hierarchy.mount]
        info = os.stat(group)
        assert (info.st_uid, info.st_gid, info.st_mode & 0o777) == (0, 100000, 0o775)
        for name in ("cgroup.procs", "cgroup.subtree_control") if hierarchy.version == 2 else ("cgroup.procs", "tasks"):
            info = os.stat(f"{group}/{name}")
            assert (info.st_uid, info.st_gid, info.st_mode & 0o777) == (0, 100000, 0o664)

    def make_a_group_of_its_own() -> None:
        os.setgroups([])
        os.setresgid(100000, 100000, 100000)
        os.setresuid(100000, 100000, 100000)
        for mount, path in it.record["payload"].items():
            os.mkdir(f"{mount}{path}/own")
            with open(f"{mount}{path}/own/cgroup.procs", "w") as file:
                file.write(str(os.getpid()))

    assert it.call(make_a_group_of_its_own) == 0


def test_delegated_to_a_user_without_a_group(container: Callable[..., Container]) -> None:
    it = container()
    tree.delegate(it.record, 100000, -1)
    info = os.stat(it.group("pids"))
    assert (info.st_uid, info.st_gid) == (100000, 0)


def test_groups_made_inside_are_removed_while_the_last_process_dies(container: Callable[..., Container]) -> None:
    it = container()
    group = it.group("pids")
    path = group
    for _ in range(60):
        path += "/" + "n" * 50
        os.mkdir(path)
    pid = it.run(lambda: time.sleep(0.15))
    reaper = os.fork()
    if reaper == 0:
        os._exit(0)
    os.waitpid(reaper, 0)
    start = time.monotonic()
    assert tree.remove(it.record) == []  # a dead process, reaped or not, no longer holds a group
    assert 0.05 < time.monotonic() - start < 1.5
    it.wait(pid)


def test_statistics(container: Callable[..., Container]) -> None:
    it = container((2, "memory.max", "64M"))
    before = stats.read(it.record)
    assert before.processes == 0 and before.memory_limit == 64 << 20
    reader, writer = os.pipe()

    def use() -> None:
        end = time.process_time() + 0.05
        while time.process_time() < end:
            pass
        with mmap.mmap(-1, 8 << 20) as area:
            for at in range(0, len(area), 4096):
                area[at] = 1
            os.write(writer, b"x")
            sleep()

    it.run(use)
    os.read(reader, 1)
    os.close(reader)
    os.close(writer)
    after = stats.read(it.record)
    assert after.processes == 1
    assert after.cpu is not None and after.cpu > 50_000_000
    assert after.cpu_user is not None and after.cpu_system is not None
    assert after.cpu_user + after.cpu_system >= 20_000_000  # counted by the tick
    assert after.memory is not None and 8 << 20 <= after.memory <= 64 << 20
    assert after.blkio_total is not None


def test_it_is_fast(container: Callable[..., Container], name: str) -> None:
    """Plan, make, open, limit and remove in all hierarchies: 1.2 ms on a quiet machine; the bound is for a busy one."""
    host = HostFacts.read(layout.detect())
    times = []
    for _ in range(20):
        start = time.perf_counter()
        made = plan(Cgroup(), name=f"lxcpy-test-{name}-fast", layout=layout.detect(), host=host)
        record = tree.create(made)
        with tree.Entry(record):
            pass
        tree.limit(made, record)
        assert tree.remove(record) == []
        times.append(time.perf_counter() - start)
    assert sorted(times)[10] < 0.010


def test_the_light_commands_pay_little_for_it(container: Callable[..., Container]) -> None:
    import subprocess
    import sys

    script = (
        "import sys; from lxcpy.cgroups import control, stats; "
        "print([m for m in ('dataclasses', 'typing', 're', 'lxcpy.config.model', 'ctypes') if m in sys.modules])"
    )
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    done = subprocess.run([sys.executable, "-S", "-c", script], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
