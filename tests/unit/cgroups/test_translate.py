"""Both dialects on hosts of every kind: what each limit becomes, what is refused, and in which words."""

from __future__ import annotations

import pytest

from lxcpy import paths
from lxcpy.cgroups import dialects
from lxcpy.cgroups.layout import Layout
from lxcpy.cgroups.translate import Translation, translate
from lxcpy.config.model import CgroupEntry
from lxcpy.errors import Origin

from .layouts import ALL, HYBRID, V1, V2, unified, v1_hierarchy

G = 1 << 30
Lines = list[tuple[int, str, str]]  # dialect, key, value


def translated(layout: Layout, *lines: tuple[int, str, str], file: str = "c") -> Translation:
    entries = [CgroupEntry(*line, Origin(file, number)) for number, line in enumerate(lines, 1)]
    return translate(entries, layout)


def written(layout: Layout, *lines: tuple[int, str, str]) -> list[tuple[str, str]]:
    result = translated(layout, *lines)
    assert not result.problems, result.problems[0].lines()
    assert all(result.outcomes), "each line has an outcome"
    return [(write.file, write.value) for write in result.writes]


def problem(layout: Layout, *lines: tuple[int, str, str]) -> list[str]:
    result = translated(layout, *lines)
    assert len(result.problems) == 1
    assert result.problems[0].at is not None
    return result.problems[0].lines()


# (what the config says, what a v1 or hybrid host gets, what a v2 host gets)
CASES: list[tuple[Lines, list[tuple[str, str]], list[tuple[str, str]]]] = [
    # memory
    ([(1, "memory.limit_in_bytes", "512M")], [("memory.limit_in_bytes", "536870912")], [("memory.max", "536870912")]),
    ([(2, "memory.max", "512m")], [("memory.limit_in_bytes", "536870912")], [("memory.max", "536870912")]),
    ([(1, "memory.limit_in_bytes", "-1")], [("memory.limit_in_bytes", "-1")], [("memory.max", "max")]),
    ([(2, "memory.max", "max")], [("memory.limit_in_bytes", "-1")], [("memory.max", "max")]),
    ([(1, "memory.memsw.limit_in_bytes", "3G"), (1, "memory.limit_in_bytes", "2048M")],
     [("memory.limit_in_bytes", str(2 * G)), ("memory.memsw.limit_in_bytes", str(3 * G))],
     [("memory.max", str(2 * G)), ("memory.swap.max", str(G))]),
    ([(1, "memory.limit_in_bytes", "1G"), (1, "memory.memsw.limit_in_bytes", "1G")],
     [("memory.limit_in_bytes", str(G)), ("memory.memsw.limit_in_bytes", str(G))],
     [("memory.max", str(G)), ("memory.swap.max", "0")]),
    ([(1, "memory.limit_in_bytes", "1G"), (1, "memory.memsw.limit_in_bytes", "-1")],
     [("memory.limit_in_bytes", str(G)), ("memory.memsw.limit_in_bytes", "-1")],
     [("memory.max", str(G)), ("memory.swap.max", "max")]),
    ([(2, "memory.swap.max", "1G"), (2, "memory.max", "2G")],
     [("memory.limit_in_bytes", str(2 * G)), ("memory.memsw.limit_in_bytes", str(3 * G))],
     [("memory.max", str(2 * G)), ("memory.swap.max", str(G))]),
    ([(2, "memory.swap.max", "0"), (2, "memory.max", "2G")],
     [("memory.limit_in_bytes", str(2 * G)), ("memory.memsw.limit_in_bytes", str(2 * G))],
     [("memory.max", str(2 * G)), ("memory.swap.max", "0")]),
    ([(2, "memory.swap.max", "max")], [("memory.memsw.limit_in_bytes", "-1")], [("memory.swap.max", "max")]),
    ([(1, "memory.limit_in_bytes", "2G"), (2, "memory.swap.max", "1G")],
     [("memory.limit_in_bytes", str(2 * G)), ("memory.memsw.limit_in_bytes", str(3 * G))],
     [("memory.max", str(2 * G)), ("memory.swap.max", str(G))]),
    ([(1, "memory.soft_limit_in_bytes", "1G")],
     [("memory.soft_limit_in_bytes", str(G))], [("memory.low", str(G))]),
    ([(1, "memory.soft_limit_in_bytes", "-1")], [("memory.soft_limit_in_bytes", "-1")], [("memory.low", "0")]),
    ([(2, "memory.low", "1G")], [("memory.soft_limit_in_bytes", str(G))], [("memory.low", str(G))]),
    ([(2, "memory.low", "0")], [("memory.soft_limit_in_bytes", "-1")], [("memory.low", "0")]),
    ([(2, "memory.low", "max")], [("memory.soft_limit_in_bytes", "-1")], [("memory.low", "max")]),
    ([(2, "memory.high", "1G")], [("memory.soft_limit_in_bytes", str(G))], [("memory.high", str(G))]),
    ([(2, "memory.high", "1G"), (2, "memory.low", "1G")], [("memory.soft_limit_in_bytes", str(G))],
     [("memory.low", str(G)), ("memory.high", str(G))]),
    ([(1, "memory.kmem.limit_in_bytes", "1G"), (1, "memory.limit_in_bytes", "2G")],
     [("memory.limit_in_bytes", str(2 * G)), ("memory.kmem.limit_in_bytes", str(G))], [("memory.max", str(2 * G))]),
    ([(1, "memory.kmem.limit_in_bytes", "-1")], [("memory.kmem.limit_in_bytes", "-1")], []),
    ([(1, "memory.kmem.tcp.limit_in_bytes", "1G"), (1, "memory.limit_in_bytes", "2G")],
     [("memory.limit_in_bytes", str(2 * G)), ("memory.kmem.tcp.limit_in_bytes", str(G))],
     [("memory.max", str(2 * G))]),
    ([(1, "memory.use_hierarchy", "1")], [("memory.use_hierarchy", "1")], []),
    ([(1, "memory.oom_control", "0")], [("memory.oom_control", "0")], []),
    ([(2, "memory.min", "0")], [], [("memory.min", "0")]),
    ([(2, "memory.oom.group", "0")], [], [("memory.oom.group", "0")]),
    # cpu
    ([(1, "cpu.shares", "1024")], [("cpu.shares", "1024")], [("cpu.weight", "100")]),
    ([(1, "cpu.shares", "512")], [("cpu.shares", "512")], [("cpu.weight", "50")]),
    ([(1, "cpu.shares", "2")], [("cpu.shares", "2")], [("cpu.weight", "1")]),
    ([(1, "cpu.shares", "262144")], [("cpu.shares", "262144")], [("cpu.weight", "10000")]),
    ([(2, "cpu.weight", "100")], [("cpu.shares", "1024")], [("cpu.weight", "100")]),
    ([(2, "cpu.weight", "1")], [("cpu.shares", "10")], [("cpu.weight", "1")]),
    ([(2, "cpu.weight", "10000")], [("cpu.shares", "102400")], [("cpu.weight", "10000")]),
    ([(2, "cpu.weight.nice", "0")], [("cpu.shares", "1024")], [("cpu.weight.nice", "0")]),
    ([(2, "cpu.weight.nice", "-20")], [("cpu.shares", "88761")], [("cpu.weight.nice", "-20")]),
    ([(2, "cpu.weight.nice", "19")], [("cpu.shares", "15")], [("cpu.weight.nice", "19")]),
    ([(1, "cpu.cfs_quota_us", "50000")], [("cpu.cfs_quota_us", "50000")], [("cpu.max", "50000 100000")]),
    ([(1, "cpu.cfs_quota_us", "20000"), (1, "cpu.cfs_period_us", "50000")],
     [("cpu.cfs_period_us", "50000"), ("cpu.cfs_quota_us", "20000")], [("cpu.max", "20000 50000")]),
    ([(1, "cpu.cfs_quota_us", "-1")], [("cpu.cfs_quota_us", "-1")], [("cpu.max", "max 100000")]),
    ([(1, "cpu.cfs_period_us", "50000")], [("cpu.cfs_period_us", "50000")], [("cpu.max", "max 50000")]),
    ([(2, "cpu.max", "50000 200000")],
     [("cpu.cfs_period_us", "200000"), ("cpu.cfs_quota_us", "50000")], [("cpu.max", "50000 200000")]),
    ([(2, "cpu.max", "50000")],
     [("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "50000")], [("cpu.max", "50000 100000")]),
    ([(2, "cpu.max", "max")],
     [("cpu.cfs_period_us", "100000"), ("cpu.cfs_quota_us", "-1")], [("cpu.max", "max 100000")]),
    ([(1, "cpu.cfs_burst_us", "1000")], [("cpu.cfs_burst_us", "1000")], [("cpu.max.burst", "1000")]),
    ([(2, "cpu.max.burst", "1000")], [("cpu.cfs_burst_us", "1000")], [("cpu.max.burst", "1000")]),
    ([(2, "cpu.idle", "1")], [("cpu.idle", "1")], [("cpu.idle", "1")]),
    ([(1, "cpu.idle", "1")], [("cpu.idle", "1")], [("cpu.idle", "1")]),
    *(([(dialect, f"cpu.uclamp.{end}", "10.5")], [(f"cpu.uclamp.{end}", "10.5")], [(f"cpu.uclamp.{end}", "10.5")])
      for dialect in (1, 2) for end in ("min", "max")),
    ([(1, "cpu.rt_runtime_us", "0")], [("cpu.rt_runtime_us", "0")], []),
    # cpuset, pids
    ([(1, "cpuset.cpus", "0-1,3")], [("cpuset.cpus", "0-1,3")], [("cpuset.cpus", "0-1,3")]),
    ([(2, "cpuset.cpus", "0, 1")], [("cpuset.cpus", "0,1")], [("cpuset.cpus", "0,1")]),
    ([(1, "cpuset.mems", "0")], [("cpuset.mems", "0")], [("cpuset.mems", "0")]),
    ([(2, "cpuset.mems", "0")], [("cpuset.mems", "0")], [("cpuset.mems", "0")]),
    ([(1, "cpuset.memory_migrate", "1")], [("cpuset.memory_migrate", "1")], []),
    ([(2, "cpuset.cpus.partition", "member")], [], [("cpuset.cpus.partition", "member")]),
    ([(1, "pids.max", "100")], [("pids.max", "100")], [("pids.max", "100")]),
    ([(2, "pids.max", "max")], [("pids.max", "max")], [("pids.max", "max")]),
    # block devices
    ([(1, "blkio.weight", "500")], [("blkio.weight", "500")], [("io.weight", "default 100")]),
    ([(1, "blkio.weight", "1000")], [("blkio.weight", "1000")], [("io.weight", "default 200")]),
    ([(1, "blkio.weight_device", "8:0 250")], [("blkio.weight_device", "8:0 250")], [("io.weight", "8:0 50")]),
    ([(1, "blkio.bfq.weight", "300")], [("blkio.bfq.weight", "300")], [("io.bfq.weight", "default 300")]),
    ([(1, "blkio.bfq.weight_device", "8:0 300")],
     [("blkio.bfq.weight_device", "8:0 300")], [("io.bfq.weight", "8:0 300")]),
    ([(2, "io.weight", "300")], [("blkio.bfq.weight", "300")], [("io.weight", "default 300")]),
    ([(2, "io.weight", "default 5000")], [("blkio.bfq.weight", "1000")], [("io.weight", "default 5000")]),
    ([(2, "io.weight", "8:16 50")], [("blkio.bfq.weight_device", "8:16 50")], [("io.weight", "8:16 50")]),
    ([(2, "io.weight", "8:16 default")],
     [("blkio.bfq.weight_device", "8:16 default")], [("io.weight", "8:16 default")]),
    ([(2, "io.bfq.weight", "default 200")], [("blkio.bfq.weight", "200")], [("io.bfq.weight", "default 200")]),
    ([(1, "blkio.throttle.read_bps_device", "8:0 1M")],
     [("blkio.throttle.read_bps_device", "8:0 1048576")], [("io.max", "8:0 rbps=1048576")]),
    ([(1, "blkio.throttle.write_iops_device", "8:0 120"), (1, "blkio.throttle.read_bps_device", "8:0 1048576"),
      (1, "blkio.throttle.write_bps_device", "8:16 0"), (1, "blkio.throttle.read_iops_device", "8:0 9")],
     [("blkio.throttle.write_iops_device", "8:0 120"), ("blkio.throttle.read_bps_device", "8:0 1048576"),
      ("blkio.throttle.write_bps_device", "8:16 0"), ("blkio.throttle.read_iops_device", "8:0 9")],
     [("io.max", "8:0 rbps=1048576 riops=9 wiops=120"), ("io.max", "8:16 wbps=max")]),
    ([(2, "io.max", "8:0 wbps=2M riops=max")],
     [("blkio.throttle.write_bps_device", "8:0 2097152"), ("blkio.throttle.read_iops_device", "8:0 0")],
     [("io.max", "8:0 wbps=2097152 riops=max")]),
    ([(2, "io.max", "8:0 rbps=1"), (2, "io.max", "8:0 wbps=2"), (2, "io.max", "8:16 rbps=3")],
     [("blkio.throttle.read_bps_device", "8:0 1"), ("blkio.throttle.write_bps_device", "8:0 2"),
      ("blkio.throttle.read_bps_device", "8:16 3")],
     [("io.max", "8:0 rbps=1 wbps=2"), ("io.max", "8:16 rbps=3")]),
    ([(1, "blkio.prio.class", "idle")], [("blkio.prio.class", "idle")], [("io.prio.class", "idle")]),
    ([(2, "io.prio.class", "idle")], [("blkio.prio.class", "idle")], [("io.prio.class", "idle")]),
    # huge pages, rdma, misc
    ([(1, "hugetlb.2MB.limit_in_bytes", "4M")],
     [("hugetlb.2MB.limit_in_bytes", "4194304")], [("hugetlb.2MB.max", "4194304")]),
    ([(2, "hugetlb.1GB.max", "max")], [("hugetlb.1GB.limit_in_bytes", "-1")], [("hugetlb.1GB.max", "max")]),
    ([(1, "hugetlb.2MB.rsvd.limit_in_bytes", "2M")],
     [("hugetlb.2MB.rsvd.limit_in_bytes", "2097152")], [("hugetlb.2MB.rsvd.max", "2097152")]),
    ([(2, "hugetlb.2MB.rsvd.max", "2M")],
     [("hugetlb.2MB.rsvd.limit_in_bytes", "2097152")], [("hugetlb.2MB.rsvd.max", "2097152")]),
    ([(1, "rdma.max", "mlx4_0 hca_handle=2"), (2, "rdma.max", "ocrdma1 hca_handle=3")],
     [("rdma.max", "ocrdma1 hca_handle=3"), ("rdma.max", "mlx4_0 hca_handle=2")],
     [("rdma.max", "mlx4_0 hca_handle=2"), ("rdma.max", "ocrdma1 hca_handle=3")]),
    ([(2, "misc.max", "sev 5")], [("misc.max", "sev 5")], [("misc.max", "sev 5")]),
    ([(1, "misc.max", "sev 5")], [("misc.max", "sev 5")], [("misc.max", "sev 5")]),
    # freezer
    ([(1, "freezer.state", "FROZEN")], [("freezer.state", "FROZEN")], [("cgroup.freeze", "1")]),
    ([(2, "cgroup.freeze", "0")], [("freezer.state", "THAWED")], [("cgroup.freeze", "0")]),
    # one thing in both words: the host's own
    ([(1, "memory.limit_in_bytes", "1G"), (2, "memory.max", "2G")],
     [("memory.limit_in_bytes", str(G))], [("memory.max", str(2 * G))]),
    ([(2, "memory.max", "2G"), (1, "memory.limit_in_bytes", "1G")],
     [("memory.limit_in_bytes", str(G))], [("memory.max", str(2 * G))]),
    ([(1, "cpu.cfs_quota_us", "20000"), (2, "cpu.max", "30000 50000")],
     [("cpu.cfs_quota_us", "20000")], [("cpu.max", "30000 50000")]),
    ([(1, "memory.soft_limit_in_bytes", "1G"), (2, "memory.high", "2G")],
     [("memory.soft_limit_in_bytes", str(G))], [("memory.low", str(G)), ("memory.high", str(2 * G))]),
    ([(1, "memory.memsw.limit_in_bytes", "4G"), (1, "memory.limit_in_bytes", "1G"), (2, "memory.swap.max", "1G")],
     [("memory.limit_in_bytes", str(G)), ("memory.memsw.limit_in_bytes", str(4 * G))],
     [("memory.max", str(G)), ("memory.swap.max", str(G))]),
    # the last of several lines
    ([(1, "memory.limit_in_bytes", "1G"), (1, "memory.limit_in_bytes", "2G")],
     [("memory.limit_in_bytes", str(2 * G))], [("memory.max", str(2 * G))]),
    ([(2, "cpu.weight", "5"), (2, "cpu.weight.nice", "0")], [("cpu.shares", "1024")], [("cpu.weight.nice", "0")]),
]  # fmt: skip


@pytest.mark.parametrize("lines, on_v1, on_v2", CASES, ids=lambda value: str(value)[:60])
def test_translation(lines: Lines, on_v1: list[tuple[str, str]], on_v2: list[tuple[str, str]]) -> None:
    only_here = [line for line in lines if line[1] in ("memory.min", "memory.oom.group", "cpuset.cpus.partition")]
    assert written(V2, *lines) == on_v2
    assert written(V1, *lines) == on_v1 == written(HYBRID, *lines)
    assert not only_here or on_v1 == []


def test_every_row_of_the_table_is_among_the_cases() -> None:
    seen = {(dialect, key) for lines, _, _ in CASES for dialect, key, _ in lines}
    for row in dialects.ROWS:
        names = {row.file.replace("*", page) for page in ("2MB", "1GB")}
        assert any((row.dialect, name) in seen for name in names), row.file


def test_a_weight_in_v1_words_goes_to_both_mechanisms_of_v2() -> None:
    (write,) = translated(V2, (1, "blkio.weight", "500")).writes
    assert write.every and write.others == (("io.bfq.weight", "default 100"),)


def test_a_weight_in_the_hosts_words_has_a_substitute() -> None:
    (write,) = translated(HYBRID, (1, "blkio.weight", "250")).writes
    assert not write.every and write.others == (("blkio.bfq.weight", "50"),)
    (write,) = translated(V2, (2, "io.weight", "250")).writes
    assert not write.every and write.others == (("io.bfq.weight", "default 250"),)


def test_each_write_goes_to_the_hierarchy_of_its_controller() -> None:
    writes = translated(HYBRID, (2, "memory.max", "1G"), (2, "io.weight", "5"), (2, "cgroup.freeze", "1")).writes
    assert [write.mount for write in writes] == [f"/sys/fs/cgroup/{name}" for name in ("memory", "blkio", "freezer")]
    layout = Layout("hybrid", (v1_hierarchy("cpu", "cpuacct"), unified("memory")))
    writes = translated(layout, (1, "memory.limit_in_bytes", "1G"), (2, "cpu.weight", "5")).writes
    assert [(write.mount, write.file) for write in writes] == [
        ("/sys/fs/cgroup/unified", "memory.max"), ("/sys/fs/cgroup/cpu,cpuacct", "cpu.shares"),
    ]  # fmt: skip


def test_a_write_keeps_its_key_and_line() -> None:
    (write,) = translated(V2, (1, "cpu.cfs_quota_us", "50000")).writes
    assert (write.item, str(write.origin)) == ("lxc.cgroup.cpu.cfs_quota_us", "c:1")
    assert str(write) == "write 50000 100000 to /sys/fs/cgroup/cpu.max (lxc.cgroup.cpu.cfs_quota_us)"


def test_files_that_are_not_in_the_table_are_written_as_they_are() -> None:
    assert written(V1, (1, "memory.swappiness", "10")) == [("memory.swappiness", "10")]
    assert written(V2, (2, "memory.zswap.max", "1G")) == [("memory.zswap.max", "1G")]
    assert written(V2, (2, "cgroup.max.depth", "3")) == written(HYBRID, (2, "cgroup.max.depth", "3"))
    assert written(HYBRID, (2, "memory.pressure", "some 150000 1000000")) == [
        ("memory.pressure", "some 150000 1000000")
    ]
    assert [w.mount for w in translated(HYBRID, (1, "cgroup.clone_children", "1")).writes] == ["/sys/fs/cgroup/cpuset"]


def test_outcomes_tell_what_became_of_each_line() -> None:
    result = translated(
        V2, (1, "memory.limit_in_bytes", "1G"), (2, "cpu.weight", "5"), (1, "cpu.shares", "99"),
        (1, "memory.use_hierarchy", "1"), (1, "devices.deny", "a"), (1, "memory.swappiness", "1"),
    )  # fmt: skip
    assert result.outcomes == (
        "becomes memory.max = 1073741824 (cgroup v2)",
        "written as it is",
        "set aside: lxc.cgroup2.cpu.weight says it in this host's words",
        "nothing to do: always so on cgroup v2",
        "part of the device program (cgroup v2)",
        'refused: cgroup v2, which this host has, knows nothing like "memory.swappiness = 1"',
    )
    assert translated(V1, (1, "pids.max", "1"), (1, "pids.max", "2")).outcomes[0] == "overridden by a later pids.max"


def test_a_soft_limit_for_high_is_a_warning() -> None:
    assert translated(V1, (2, "memory.high", "1G")).warnings == (
        "lxc.cgroup2.memory.high: v1 keeps a soft limit when the host's memory is short only; memory.max holds always",
    )


# (host, lines, the error's lines without its place)
PROBLEMS: list[tuple[str, Lines, str, str]] = [
    ("v1", [(1, "memory.limit_in_bytes", "256MB")], '"256MB" is no size', "write 256M"),
    ("v2", [(1, "memory.limit_in_bytes", "256 MiB")], '"256 MiB" is no size', "write 256M"),
    ("v2", [(2, "memory.max", "1.5g")], '"1.5g" is no size', "write 1536M"),
    ("v2", [(2, "memory.max", "-1")], '"-1" is no size here', "no limit is written max"),
    ("v1", [(1, "memory.limit_in_bytes", "unlimited")], '"unlimited" is no size here', "no limit is written -1"),
    ("v1", [(1, "memory.limit_in_bytes", "half")], '"half" is no size',
     "a number of bytes, or one with K, M, G or T: 512M"),
    ("v2", [(1, "memory.limit_in_bytes", "2G"), (1, "memory.memsw.limit_in_bytes", "1G")],
     "memory and swap together (1073741824) cannot be less than memory alone (2147483648)",
     "memsw is the sum: the same value as limit_in_bytes means no swap"),
    ("v1", [(1, "memory.memsw.limit_in_bytes", "1G")], "a limit of memory and swap together needs a limit of memory",
     "set lxc.cgroup.memory.limit_in_bytes as well, to at most the same value"),
    ("v1", [(2, "memory.swap.max", "1G")],
     "cgroup v1 limits memory and swap together, and there is no memory limit to add the swap to",
     "set lxc.cgroup2.memory.max as well: memory.memsw.limit_in_bytes becomes their sum"),
    ("v1", [(2, "memory.low", "1G"), (2, "memory.high", "2G")],
     "cgroup v1 has one soft limit for memory.low and memory.high", "keep one of the two"),
    ("v2", [(1, "memory.kmem.limit_in_bytes", "1G")], "cgroup v2 has no limit of kernel memory alone",
     "set lxc.cgroup2.memory.max: it counts kernel memory too"),
    ("v2", [(1, "memory.swappiness", "10")],
     'cgroup v2, which this host has, knows nothing like "memory.swappiness = 10"',
     "v2 has no swappiness of a group; lxc.cgroup2.memory.swap.max = 0 forbids swapping"),
    ("v2", [(1, "cpuset.mem_hardwall", "1")],
     'cgroup v2, which this host has, knows nothing like "cpuset.mem_hardwall = 1"',
     "remove the line, or boot with cgroup v1"),
    ("v1", [(2, "memory.min", "1G")], 'cgroup v1, which this host has, knows nothing like "memory.min = 1G"',
     "v1 has no hard protection; lxc.cgroup2.memory.low becomes its soft limit"),
    ("v2", [(1, "net_cls.classid", "0x10001")],
     'cgroup v2, which this host has, knows nothing like "net_cls.classid = 0x10001"',
     "match the container's cgroup with nft (socket cgroupv2) or give its link a qdisc"),
    ("v1", [(2, "cgroup.max.depth", "4")], 'cgroup v1, which this host has, knows nothing like "cgroup.max.depth = 4"',
     "remove the line, or boot with cgroup v2"),
    ("v1", [(1, "memory.max", "1G")], '"memory.max" is a word of cgroup v2', "write lxc.cgroup2.memory.max"),
    ("v2", [(2, "memory.limit_in_bytes", "1G")], '"memory.limit_in_bytes" is a word of cgroup v1',
     "write lxc.cgroup.memory.limit_in_bytes"),
    ("v2", [(2, "cpu.weight", "0")], "0 is out of range", "a whole number from 1 to 10000"),
    ("v2", [(2, "cpu.weight", "10001")], "10001 is out of range", "a whole number from 1 to 10000"),
    ("v2", [(2, "cpu.weight.nice", "20")], "20 is out of range", "a whole number from -20 to 19"),
    ("v1", [(1, "cpu.cfs_quota_us", "500")], "500 is out of range",
     "a whole number of µs, at least 1000; -1: no limit"),
    ("v2", [(1, "cpu.cfs_period_us", "999")], "999 is out of range", "a whole number from 1000 to 1000000"),
    ("v2", [(2, "cpu.max", "50%")], '"50%" is no time',
     "half of one CPU is a quota of 50000 in a period of 100000 µs"),
    ("v1", [(2, "cpu.max", "1 2 3")], '"1 2 3" is no QUOTA PERIOD', "two numbers of µs, such as 50000 100000, or max"),
    ("v1", [(1, "cpuset.cpus", "0..3")], '"0..3" is no number or range',
     "numbers and ranges with commas between: 0-3,6"),
    ("v1", [(1, "cpuset.cpus", "3-0")], 'the range "3-0" runs backwards', "write 0-3"),
    ("v1", [(1, "pids.max", "10k")], '"10k" is no whole number', "a whole number from 0 to 4194304, or max"),
    ("v2", [(1, "blkio.weight", "5")], "5 is out of range", "a whole number from 10 to 1000"),
    ("v1", [(2, "io.weight", "1 2 3")], '"1 2 3" is no weight', "a number from 1 to 10000, or MAJOR:MINOR and one"),
    ("v1", [(1, "blkio.throttle.read_bps_device", "/dev/sda 1M")], '"/dev/sda" is no device number',
     "MAJOR:MINOR as lsblk prints it, such as 8:0"),
    ("v1", [(1, "blkio.throttle.read_bps_device", "8:0")], '"8:0" is no throttle',
     "MAJOR:MINOR BYTES a second, such as 8:0 1048576"),
    ("v2", [(2, "io.max", "8:0 rbps")], '"rbps" is no rate', "rbps=, wbps=, riops= or wiops= with a number or max"),
    ("v2", [(2, "io.max", "8:0 rbps=0")], '"rbps=0" allows nothing', "a number above 0, or max"),
    ("v2", [(2, "io.max", "8:0 rbps=1MB")], '"1MB" is no rate', "write 1M"),
    ("v1", [(1, "freezer.state", "frozen")], '"frozen" is no state', "FROZEN or THAWED"),
    ("v2", [(2, "cgroup.freeze", "yes")], '"yes" is no switch', "0 or 1"),
    ("v1", [(1, "devices.allow", "c 1:3 rwx")], '"rwx" is no access', "some of r (read), w (write), m (mknod)"),
    ("v2", [(2, "devices.allow", "x 1:3 rwm")], '"x 1:3 rwm" is no device rule',
     "`a`, or TYPE MAJOR:MINOR ACCESS such as c 10:200 rwm or b *:* m, or /dev/PATH ACCESS"),
    ("v2", [(2, "devices.list", "a")], '"devices.list" takes no rules', "devices.allow or devices.deny"),
]  # fmt: skip


@pytest.mark.parametrize("host, lines, what, hint", PROBLEMS, ids=[str(case[1])[:60] for case in PROBLEMS])
def test_problems(host: str, lines: Lines, what: str, hint: str) -> None:
    dialect, key, _ = lines[-1]
    said = problem(ALL[host], *lines)
    assert said == [f"lxc.cgroup{'' if dialect == 1 else '2'}.{key}: {what}", f"  at c:{len(lines)}", f"  hint: {hint}"]


def test_an_absent_controller_says_what_there_is() -> None:
    layout = Layout("hybrid", (v1_hierarchy("memory"), v1_hierarchy("cpu"), unified()))
    assert problem(layout, (1, "pids.max", "5")) == [
        'lxc.cgroup.pids.max: this host has no cgroup controller "pids"', "  at c:1",
        "  hint: it has cpu, memory; if the kernel has pids (/proc/cgroups), mount it: "
        "mount -t cgroup -o pids pids /sys/fs/cgroup/pids",
    ]  # fmt: skip
    assert problem(layout, (1, "net_cls.classid", "1"))[0] == (
        'lxc.cgroup.net_cls.classid: this host has no cgroup controller "net_cls"')  # fmt: skip
    v2 = Layout("v2", (unified("memory"),))
    assert problem(v2, (1, "cpu.shares", "5")) == [
        'lxc.cgroup.cpu.shares: this host has no cgroup controller "cpu"', "  at c:1",
        "  hint: it has memory; enable it in the cgroup.subtree_control of the groups above",
    ]  # fmt: skip


def test_a_wrong_value_is_wrong_on_a_host_without_the_controller_too() -> None:
    layout = Layout("v1", (v1_hierarchy("memory"),))
    assert "is no whole number" in problem(layout, (1, "pids.max", "many"))[0]


def test_a_presets_line_without_its_controller_is_a_warning() -> None:
    layout = Layout("v1", (v1_hierarchy("memory"),))
    for folder in (paths.LXC_CONFIG_DIR, paths.data_dir("config")):
        result = translated(layout, (1, "devices.deny", "a"), (1, "pids.max", "9"), file=f"{folder}/common.conf")
        assert not result.problems
        assert sorted(result.warnings) == [
            'lxc.cgroup.devices.deny: this host has no cgroup controller "devices"',
            'lxc.cgroup.pids.max: this host has no cgroup controller "pids"',
        ]


def test_all_problems_are_found_at_once() -> None:
    result = translated(V2, (1, "memory.limit_in_bytes", "x"), (2, "pids.max", "y"), (1, "memory.swappiness", "1"))
    assert [problem.at.line for problem in result.problems if problem.at] == [1, 2, 3]
