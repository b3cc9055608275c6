"""The table of limits that both cgroup versions know: which file, which grammar, which setting behind it. Pure.

A `Setting` is a limit without its dialect, `("memory.limit",)` or `("io", "8:0", "rbps")`, and its value a plain number
(None: no limit). Each row says how one file of one dialect is read into settings; `writers` says how settings become
files. Several v1 lines can thus meet in one v2 value, and the reverse.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lxcpy.cgroups import values
from lxcpy.cgroups.values import Bad
from lxcpy.kernel.record import NamedTuple

Setting = tuple[str, ...]
Settings = Mapping[Setting, Any]
PIDS_HIGH = 4_194_304  # PID_MAX_LIMIT

# The controllers that do one thing under both versions: family → (v1 name, v2 name)
FAMILIES = {
    "memory": ("memory", "memory"),
    "cpu": ("cpu", "cpu"),
    "cpuset": ("cpuset", "cpuset"),
    "pids": ("pids", "pids"),
    "io": ("blkio", "io"),
    "hugetlb": ("hugetlb", "hugetlb"),
    "rdma": ("rdma", "rdma"),
    "misc": ("misc", "misc"),
    "freezer": ("freezer", "cgroup"),
}


class Row(NamedTuple):
    """One file of one dialect. `*` in the name stands for a page size (hugetlb.2MB.max)."""

    family: str
    dialect: int
    file: str
    read: Callable[[str, str], dict[Setting, Any]]  # (value, what `*` stood for) → settings


class Out(NamedTuple):
    """One value to write. others: further files for the same value in other scales; all that the kernel has are
    written (`every`), or the first of them that it has."""

    file: str
    value: str
    settings: tuple[Setting, ...]
    others: tuple[tuple[str, str], ...] = ()
    every: bool = False
    note: str = ""


def _one(setting: str, read: Callable[[str], Any]) -> Callable[[str, str], dict[Setting, Any]]:
    return lambda text, _: {(setting,): read(text)}


def _memory(setting: str, dialect: int) -> Callable[[str, str], dict[Setting, Any]]:
    return _one(setting, lambda text: values.size(text, dialect))


def _hugetlb(kind: str, dialect: int) -> Callable[[str, str], dict[Setting, Any]]:
    return lambda text, page: {("hugetlb", page, kind): values.size(text, dialect)}


def _cpu_max(text: str, _: str) -> dict[Setting, Any]:
    quota, period = values.cpu_max(text)
    return {("cpu.quota",): quota, ("cpu.period",): period}


def _throttle(word: str) -> Callable[[str, str], dict[Setting, Any]]:
    """blkio.throttle.*: `MAJOR:MINOR NUMBER`, 0 lifts the limit."""

    def read(text: str, _: str) -> dict[Setting, Any]:
        words = text.split()
        if len(words) != 2:
            unit = "BYTES" if "bps" in word else "OPERATIONS"
            raise Bad(f'"{text}" is no throttle', f"MAJOR:MINOR {unit} a second, such as 8:0 1048576")
        return {("io", values.device(words[0]), word): values.amount(words[1], no_limit="0")}

    return read


RATES = ("rbps", "wbps", "riops", "wiops")


def _io_max(text: str, _: str) -> dict[Setting, Any]:
    words = text.split()
    if len(words) < 2:
        raise Bad(f'"{text}" is no limit', "MAJOR:MINOR and some of rbps= wbps= riops= wiops=: 8:0 rbps=1048576")
    number = values.device(words[0])
    found: dict[Setting, Any] = {}
    for word in words[1:]:
        name, equals, amount = word.partition("=")
        if name not in RATES or not equals:
            raise Bad(f'"{word}" is no rate', "rbps=, wbps=, riops= or wiops= with a number or max")
        found["io", number, name] = values.amount(amount, no_limit="max")
        if found["io", number, name] == 0:
            raise Bad(f'"{word}" allows nothing', "a number above 0, or max")
    return found


def _weight(scale: str, *, per_device: bool = False) -> Callable[[str, str], dict[Setting, Any]]:
    """Weights: `NUMBER`, `default NUMBER` or `MAJOR:MINOR NUMBER`; the value keeps its scale: (scale, number)."""
    low, high, _default = values.WEIGHTS[scale]

    def read(text: str, _: str) -> dict[Setting, Any]:
        words = text.split()
        where = "default"
        if len(words) == 2:
            where = words.pop(0)
        if where != "default":
            values.device(where)
        elif per_device:
            raise Bad(f'"{text}" names no device', f"MAJOR:MINOR and a weight from {low} to {high}")
        if len(words) != 1:
            raise Bad(f'"{text}" is no weight', f"a number from {low} to {high}, or MAJOR:MINOR and one")
        if words[0] == "default":
            return {("io.weight", where): (scale, None)}
        return {("io.weight", where): (scale, values.integer(words[0], low, high))}

    return read


def _freezer_state(text: str, _: str) -> dict[Setting, Any]:
    if text not in ("FROZEN", "THAWED"):
        raise Bad(f'"{text}" is no state', "FROZEN or THAWED")
    return {("freezer",): text == "FROZEN"}


def _soft(dialect: int) -> Callable[[str, str], dict[Setting, Any]]:
    return lambda text, _: {("memory.low",): ("soft" if dialect == 1 else "low", values.size(text, dialect))}


def _same(family: str, *files: str, read: Callable[[str], Any] = str) -> list[Row]:
    """Rows of files that are the same in both versions."""
    return [Row(family, dialect, file, _one(file, read)) for file in files for dialect in (1, 2)]


def _lines(file: str) -> Callable[[str, str], dict[Setting, Any]]:
    """A file that takes a line for each device or resource, named by the first word."""
    return lambda text, _: {(file, text.partition(" ")[0]): text}


def _pids(text: str) -> int | None:
    return values.integer(text, 0, PIDS_HIGH, no_limit="max")


_M, _C, _I, _H = "memory", "cpu", "io", "hugetlb"
ROWS: tuple[Row, ...] = (
    Row(_M, 1, "memory.limit_in_bytes", _memory("memory.limit", 1)),
    Row(_M, 2, "memory.max", _memory("memory.limit", 2)),
    Row(_M, 1, "memory.memsw.limit_in_bytes", lambda text, _: {("memory.swap",): ("total", values.size(text, 1))}),
    Row(_M, 2, "memory.swap.max", lambda text, _: {("memory.swap",): ("swap", values.size(text, 2))}),
    Row(_M, 1, "memory.soft_limit_in_bytes", _soft(1)),
    Row(_M, 2, "memory.low", _soft(2)),
    Row(_M, 2, "memory.high", _memory("memory.high", 2)),
    Row(_M, 1, "memory.kmem.limit_in_bytes", _memory("memory.kmem", 1)),
    Row(_M, 1, "memory.kmem.tcp.limit_in_bytes", _memory("memory.kmem.tcp", 1)),
    Row(_C, 1, "cpu.shares", lambda text, _: {("cpu.weight",): ("shares", values.integer(text, 0, 1 << 63))}),
    Row(_C, 2, "cpu.weight", lambda text, _: {
        ("cpu.weight",): ("weight", values.integer(text, values.WEIGHT_LOW, values.WEIGHT_HIGH))}),
    Row(_C, 2, "cpu.weight.nice", lambda text, _: {("cpu.weight",): ("nice", values.integer(text, -20, 19))}),
    Row(_C, 1, "cpu.cfs_period_us", _one("cpu.period", values.period)),
    Row(_C, 1, "cpu.cfs_quota_us", _one("cpu.quota", values.quota)),
    Row(_C, 2, "cpu.max", _cpu_max),
    Row(_C, 1, "cpu.cfs_burst_us", _one("cpu.burst", lambda text: values.integer(text, 0, values.QUOTA_HIGH))),
    Row(_C, 2, "cpu.max.burst", _one("cpu.burst", lambda text: values.integer(text, 0, values.QUOTA_HIGH))),
    *_same(_C, "cpu.idle", read=values.flag),
    *_same(_C, "cpu.uclamp.min", "cpu.uclamp.max"),
    *_same("cpuset", "cpuset.cpus", "cpuset.mems", read=values.cpu_list),
    *_same("pids", "pids.max", read=_pids),
    Row(_I, 1, "blkio.weight", _weight("blkio")),
    Row(_I, 1, "blkio.weight_device", _weight("blkio", per_device=True)),
    Row(_I, 1, "blkio.bfq.weight", _weight("bfq")),
    Row(_I, 1, "blkio.bfq.weight_device", _weight("bfq", per_device=True)),
    Row(_I, 2, "io.weight", _weight("io")),
    Row(_I, 2, "io.bfq.weight", _weight("bfq")),
    Row(_I, 1, "blkio.throttle.read_bps_device", _throttle("rbps")),
    Row(_I, 1, "blkio.throttle.write_bps_device", _throttle("wbps")),
    Row(_I, 1, "blkio.throttle.read_iops_device", _throttle("riops")),
    Row(_I, 1, "blkio.throttle.write_iops_device", _throttle("wiops")),
    Row(_I, 2, "io.max", _io_max),
    Row(_I, 1, "blkio.prio.class", _one("io.prio.class", str)),
    Row(_I, 2, "io.prio.class", _one("io.prio.class", str)),
    Row(_H, 1, "hugetlb.*.limit_in_bytes", _hugetlb("max", 1)),
    Row(_H, 2, "hugetlb.*.max", _hugetlb("max", 2)),
    Row(_H, 1, "hugetlb.*.rsvd.limit_in_bytes", _hugetlb("rsvd.max", 1)),
    Row(_H, 2, "hugetlb.*.rsvd.max", _hugetlb("rsvd.max", 2)),
    *(Row(kind, dialect, f"{kind}.max", _lines(f"{kind}.max")) for kind in ("rdma", "misc") for dialect in (1, 2)),
    Row("freezer", 1, "freezer.state", _freezer_state),
    Row("freezer", 2, "cgroup.freeze", _one("freezer", lambda text: bool(values.flag(text)))),
)  # fmt: skip

_BY_NAME = {(row.dialect, row.file): row for row in ROWS}


def row_of(dialect: int, file: str) -> tuple[Row, str] | None:
    """The row of a file, and what its `*` stands for."""
    row = _BY_NAME.get((dialect, file))
    if row:
        return row, ""
    if file.startswith("hugetlb."):
        page, _, rest = file[len("hugetlb.") :].partition(".")
        row = _BY_NAME.get((dialect, f"hugetlb.*.{rest}"))
        if row:
            return row, page
    return None


# What asks for the way the other version always is: nothing to write. None: whatever the value.
NO_EFFECT: dict[tuple[int, str], tuple[str, ...] | None] = {
    (1, "memory.use_hierarchy"): ("1",),
    (1, "memory.oom_control"): ("0",),
    (1, "memory.move_charge_at_immigrate"): ("0",),
    (1, "cpuset.memory_migrate"): ("1",),
    (1, "cpuset.cpu_exclusive"): ("0",),
    (1, "cpuset.mem_exclusive"): ("0",),
    (1, "cpuset.mem_hardwall"): ("0",),
    (1, "cpuset.memory_spread_page"): ("0",),
    (1, "cpuset.memory_spread_slab"): ("0",),
    (1, "cpuset.sched_load_balance"): ("1",),
    (1, "cpuset.sched_relax_domain_level"): ("-1",),
    (1, "cpu.rt_runtime_us"): ("0",),
    (1, "cgroup.clone_children"): None,
    (1, "notify_on_release"): ("0",),
    (2, "memory.min"): ("0",),
    (2, "memory.oom.group"): ("0",),
    (2, "memory.zswap.max"): ("max",),
    (2, "cpuset.cpus.partition"): ("member",),
    (2, "cgroup.max.depth"): ("max",),
    (2, "cgroup.max.descendants"): ("max",),
}

# What the other version cannot do, and what comes near.
NO_EQUIVALENT: dict[tuple[int, str], str] = {
    (1, "memory.swappiness"): "v2 has no swappiness of a group; lxc.cgroup2.memory.swap.max = 0 forbids swapping",
    (1, "memory.oom_control"): "v2 always lets the OOM killer work; lxc.cgroup2.memory.high slows down instead",
    (1, "memory.use_hierarchy"): "v2 always counts a group's memory for its parents too",
    (1, "memory.kmem.limit_in_bytes"): "v2 counts kernel memory in memory.max: set lxc.cgroup2.memory.max",
    (1, "memory.kmem.tcp.limit_in_bytes"): "v2 counts socket memory in memory.max: set lxc.cgroup2.memory.max",
    (1, "memory.force_empty"): "v2 has lxcpy-cgroup NAME memory.reclaim BYTES on the running container",
    (1, "cpu.rt_runtime_us"): "v2 has no realtime groups; lxc.cgroup2.cpu.max and lxc.prlimit.rtprio come near",
    (1, "cpu.rt_period_us"): "v2 has no realtime groups; lxc.cgroup2.cpu.max and lxc.prlimit.rtprio come near",
    (1, "cpuset.cpu_exclusive"): "v2 has lxc.cgroup2.cpuset.cpus.partition = root",
    (1, "cpuset.sched_load_balance"): "v2 has lxc.cgroup2.cpuset.cpus.partition = isolated",
    (1, "net_cls.classid"): "match the container's cgroup with nft (socket cgroupv2) or give its link a qdisc",
    (1, "net_prio.ifpriomap"): "match the container's cgroup with nft (meta priority set) instead",
    (2, "memory.min"): "v1 has no hard protection; lxc.cgroup2.memory.low becomes its soft limit",
    (2, "memory.oom.group"): "v1 kills one process at a time",
    (2, "cpuset.cpus.partition"): "v1 has lxc.cgroup.cpuset.cpu_exclusive = 1",
    (2, "io.latency"): "v1 has no latency targets; lxc.cgroup2.io.max and io.weight are translated",
}
