"""Settings to files: the second half of the table in `dialects`. Pure.

Each writer gets all settings and yields what is to be written in the words of one version; `Bad` where the other
version cannot hold the combination.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lxcpy.cgroups import values
from lxcpy.cgroups.dialects import RATES, Out, Setting, Settings
from lxcpy.cgroups.values import Bad


class Conflict(Bad):
    """A combination that cannot be held; `setting` is the one to blame."""

    def __init__(self, setting: Setting, what: str, hint: str) -> None:
        super().__init__(what, hint)
        self.setting = setting


def _limit(value: int | None, version: int) -> str:
    return values.NO_LIMIT[version] if value is None else str(value)


LIMIT, SWAP, LOW, HIGH = ("memory.limit",), ("memory.swap",), ("memory.low",), ("memory.high",)


def memory_v1(settings: Settings) -> Iterator[Out]:
    """limit before memsw: from "no limit" on, memsw must never be the lower one."""
    if LIMIT in settings:
        yield Out("memory.limit_in_bytes", _limit(settings[LIMIT], 1), (LIMIT,))
    if SWAP in settings:
        kind, value = settings[SWAP]
        limit = settings.get(LIMIT)
        if kind == "swap" and value is not None:
            if limit is None:
                raise Conflict(
                    SWAP,
                    "cgroup v1 limits memory and swap together, and there is no memory limit to add the swap to",
                    "set lxc.cgroup2.memory.max as well: memory.memsw.limit_in_bytes becomes their sum",
                )
            value += limit
        elif value is not None and (limit is None or value < limit):
            raise _memsw_below(value, limit)
        yield Out("memory.memsw.limit_in_bytes", _limit(value, 1), (SWAP,))
    if LOW in settings or HIGH in settings:
        yield _soft_limit(settings)
    for name in ("kmem", "kmem.tcp"):
        setting = (f"memory.{name}",)
        if setting in settings:
            yield Out(f"memory.{name}.limit_in_bytes", _limit(settings[setting], 1), (setting,))


def _memsw_below(total: int, limit: int | None) -> Conflict:
    if limit is None:
        return Conflict(
            SWAP,
            "a limit of memory and swap together needs a limit of memory",
            "set lxc.cgroup.memory.limit_in_bytes as well, to at most the same value",
        )
    return Conflict(
        SWAP,
        f"memory and swap together ({total}) cannot be less than memory alone ({limit})",
        "memsw is the sum: the same value as limit_in_bytes means no swap",
    )


def _soft_limit(settings: Settings) -> Out:
    low = settings[LOW][1] if LOW in settings else None
    if LOW in settings and settings[LOW][0] == "low" and low == 0:
        low = None  # nothing protected: v1's default
    high = settings.get(HIGH)
    if LOW in settings and HIGH in settings and low != high:
        raise Conflict(HIGH, "cgroup v1 has one soft limit for memory.low and memory.high", "keep one of the two")
    if LOW in settings:
        return Out("memory.soft_limit_in_bytes", _limit(low, 1), (LOW, HIGH))
    note = "v1 keeps a soft limit when the host's memory is short only; memory.max holds always"
    return Out("memory.soft_limit_in_bytes", _limit(high, 1), (HIGH,), note=note)


def memory_v2(settings: Settings) -> Iterator[Out]:
    """Swap stands beside memory here, and kernel memory is part of it."""
    limit = settings.get(LIMIT)
    if LIMIT in settings:
        yield Out("memory.max", _limit(limit, 2), (LIMIT,))
    if SWAP in settings:
        kind, value = settings[SWAP]
        if kind == "total" and value is not None:
            if limit is None or value < limit:
                raise _memsw_below(value, limit)
            value -= limit
        yield Out("memory.swap.max", _limit(value, 2), (SWAP,))
    if LOW in settings:
        kind, value = settings[LOW]
        yield Out("memory.low", "0" if kind == "soft" and value is None else _limit(value, 2), (LOW,))
    if HIGH in settings:
        yield Out("memory.high", _limit(settings[HIGH], 2), (HIGH,))
    for name in ("kmem", "kmem.tcp"):
        setting = (f"memory.{name}",)
        if setting not in settings:
            continue
        if settings[setting] is None:
            yield Out("", "", (setting,))
            continue
        if limit is None:
            raise Conflict(setting, "cgroup v2 has no limit of kernel memory alone", "set lxc.cgroup2.memory.max: it "
                           "counts kernel memory too")  # fmt: skip
        yield Out("", "", (setting,), note="v2 counts kernel memory in memory.max, which is set")


QUOTA, PERIOD, BURST, WEIGHT = ("cpu.quota",), ("cpu.period",), ("cpu.burst",), ("cpu.weight",)


def _shares(kind: str, value: int) -> int:
    if kind == "nice":
        return values.NICE_SHARES[value + 20]
    return value if kind == "shares" else values.shares_of_weight(value)


def cpu_v1(settings: Settings) -> Iterator[Out]:
    """The period before the quota: from "no limit" on, no pair is refused on the way."""
    if WEIGHT in settings:
        yield Out("cpu.shares", str(_shares(*settings[WEIGHT])), (WEIGHT,))
    if PERIOD in settings:
        yield Out("cpu.cfs_period_us", str(settings[PERIOD]), (PERIOD,))
    if QUOTA in settings:
        yield Out("cpu.cfs_quota_us", _limit(settings[QUOTA], 1), (QUOTA,))
    if BURST in settings:
        yield Out("cpu.cfs_burst_us", str(settings[BURST]), (BURST,))
    yield from _same(settings, "cpu.idle", "cpu.uclamp.min", "cpu.uclamp.max")


def cpu_v2(settings: Settings) -> Iterator[Out]:
    """Quota and period meet in one value."""
    if WEIGHT in settings:
        kind, value = settings[WEIGHT]
        if kind == "nice":
            yield Out("cpu.weight.nice", str(value), (WEIGHT,))
        else:
            yield Out("cpu.weight", str(value if kind == "weight" else values.weight_of_shares(value)), (WEIGHT,))
    if QUOTA in settings or PERIOD in settings:
        value = f"{_limit(settings.get(QUOTA), 2)} {settings.get(PERIOD, values.PERIOD)}"
        yield Out("cpu.max", value, (QUOTA, PERIOD))
    if BURST in settings:
        yield Out("cpu.max.burst", str(settings[BURST]), (BURST,))
    yield from _same(settings, "cpu.idle", "cpu.uclamp.min", "cpu.uclamp.max")


def _same(settings: Settings, *files: str) -> Iterator[Out]:
    for file in files:
        if (file,) in settings:
            value = settings[(file,)]
            yield Out(file, "max" if value is None else str(value), ((file,),))


def cpuset(settings: Settings) -> Iterator[Out]:
    """The same in both versions."""
    yield from _same(settings, "cpuset.cpus", "cpuset.mems")


def pids(settings: Settings) -> Iterator[Out]:
    """The same in both versions."""
    yield from _same(settings, "pids.max")


def lines(settings: Settings) -> Iterator[Out]:
    """rdma.max and misc.max: the same lines in both versions, one a device or resource."""
    for setting, value in settings.items():
        if setting[0] in ("rdma.max", "misc.max"):
            yield Out(setting[0], value, (setting,))


THROTTLE = {
    "rbps": "blkio.throttle.read_bps_device",
    "wbps": "blkio.throttle.write_bps_device",
    "riops": "blkio.throttle.read_iops_device",
    "wiops": "blkio.throttle.write_iops_device",
}


def io_v1(settings: Settings) -> Iterator[Out]:
    """A line for each rate of each device, in a file for each rate."""
    for setting, value in settings.items():
        if setting[0] == "io.weight":
            yield _weight_v1(setting, *value)
        elif setting[0] == "io":
            yield Out(THROTTLE[setting[2]], f"{setting[1]} {value or 0}", (setting,))
    if ("io.prio.class",) in settings:
        yield Out("blkio.prio.class", settings[("io.prio.class",)], (("io.prio.class",),))


def _weight_v1(setting: Setting, scale: str, value: int | None) -> Out:
    """blkio.weight went with the CFQ scheduler in Linux 5.0, blkio.bfq.weight is BFQ's: the one there is written."""
    where = setting[1]
    tail, prefix = ("", "") if where == "default" else ("_device", f"{where} ")

    def text(target: str) -> str:
        if value is None:  # back to the default
            return f"{prefix}{'default' if tail else values.WEIGHTS[target][2]}"
        return f"{prefix}{values.io_weight(value, scale, target)}"

    names = [("blkio.bfq.weight" + tail, text("bfq")), ("blkio.weight" + tail, text("blkio"))]
    if scale == "blkio":
        names.reverse()
    return Out(*names[0], (setting,), others=(names[1],))


def io_v2(settings: Settings) -> Iterator[Out]:
    """A line for each device with all its rates."""
    rates: dict[str, list[Setting]] = {}
    for setting, value in settings.items():
        if setting[0] == "io.weight":
            yield _weight_v2(setting, *value)
        elif setting[0] == "io":
            rates.setdefault(setting[1], []).append(setting)
    for number, found in rates.items():
        found.sort(key=lambda setting: RATES.index(setting[2]))
        words = [f"{setting[2]}={_limit(settings[setting] or None, 2)}" for setting in found]
        yield Out("io.max", f"{number} {' '.join(words)}", tuple(found))
    if ("io.prio.class",) in settings:
        yield Out("io.prio.class", settings[("io.prio.class",)], (("io.prio.class",),))


def _weight_v2(setting: Setting, scale: str, value: int | None) -> Out:
    """io.weight works with the iocost controller, io.bfq.weight with the BFQ scheduler, each for its devices: a weight
    in v1 words goes to both, one in v2 words to the file it names, or to the other where the kernel lacks that."""
    where = setting[1]

    def text(target: str) -> str:
        return f"{where} {'default' if value is None else values.io_weight(value, scale, target)}"

    names = [("io.weight", text("io")), ("io.bfq.weight", text("bfq"))]
    if scale == "bfq":
        names.reverse()
    return Out(*names[0], (setting,), others=(names[1],), every=scale == "blkio")


def hugetlb_v1(settings: Settings) -> Iterator[Out]:
    """Limits of huge pages and of their reservation, by page size."""
    for setting, value in settings.items():
        if setting[0] == "hugetlb":
            kind = "rsvd.limit_in_bytes" if setting[2] == "rsvd.max" else "limit_in_bytes"
            yield Out(f"hugetlb.{setting[1]}.{kind}", _limit(value, 1), (setting,))


def hugetlb_v2(settings: Settings) -> Iterator[Out]:
    """The same."""
    for setting, value in settings.items():
        if setting[0] == "hugetlb":
            yield Out(f"hugetlb.{setting[1]}.{setting[2]}", _limit(value, 2), (setting,))


FREEZER = ("freezer",)


def freezer_v1(settings: Settings) -> Iterator[Out]:
    """A word."""
    if FREEZER in settings:
        yield Out("freezer.state", "FROZEN" if settings[FREEZER] else "THAWED", (FREEZER,))


def freezer_v2(settings: Settings) -> Iterator[Out]:
    """A switch; part of the core, there without any controller."""
    if FREEZER in settings:
        yield Out("cgroup.freeze", str(int(settings[FREEZER])), (FREEZER,))


WRITERS: dict[tuple[str, int], Any] = {
    ("memory", 1): memory_v1, ("memory", 2): memory_v2,
    ("cpu", 1): cpu_v1, ("cpu", 2): cpu_v2,
    ("cpuset", 1): cpuset, ("cpuset", 2): cpuset,
    ("pids", 1): pids, ("pids", 2): pids,
    ("io", 1): io_v1, ("io", 2): io_v2,
    ("hugetlb", 1): hugetlb_v1, ("hugetlb", 2): hugetlb_v2,
    ("rdma", 1): lines, ("rdma", 2): lines,
    ("misc", 1): lines, ("misc", 2): lines,
    ("freezer", 1): freezer_v1, ("freezer", 2): freezer_v2,
}  # fmt: skip
