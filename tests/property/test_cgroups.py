"""Laws of the cgroup dialects."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from lxcpy.cgroups import devices, values
from lxcpy.cgroups.devices import DeviceRule
from lxcpy.cgroups.layout import Hierarchy, Layout
from lxcpy.cgroups.translate import translate
from lxcpy.config.model import CgroupEntry

V2 = Layout("v2", (Hierarchy("unified", "/c", 2, ("cpuset", "cpu", "io", "memory", "hugetlb", "pids")),))
V1_NAMES = ("cpuset", "cpu", "blkio", "memory", "hugetlb", "pids", "freezer")
V1 = Layout("v1", tuple(Hierarchy(name, f"/c/{name}", 1, (name,)) for name in V1_NAMES))
HOSTS = {1: V1, 2: V2}


def become(version: int, entries: list[CgroupEntry]) -> list[CgroupEntry]:
    """What the entries are on a host of `version`, as entries in its words."""
    result = translate(entries, HOSTS[version])
    assert not result.problems, result.problems[0].lines()
    return [CgroupEntry(version, write.file, write.value) for write in result.writes]


def test_a_weight_survives_the_way_through_shares() -> None:
    for weight in range(1, 10001):
        assert values.weight_of_shares(values.shares_of_weight(weight)) == weight


def test_shares_keep_their_order_and_their_range() -> None:
    found = [values.weight_of_shares(shares) for shares in range(0, 262145)]
    assert found == sorted(found) and found[0] == 1 and found[-1] == 10000 and found[1024] == 100
    # DIV_ROUND_CLOSEST(shares * 100, 1024) within 1 to 10000
    assert all(found[n] == min(max(int(n * 100 / 1024 + 0.5), 1), 10000) for n in range(0, 262145, 7))


def test_nice_levels_are_shares_in_steps_of_a_quarter() -> None:
    steps = [high / low for high, low in zip(values.NICE_SHARES, values.NICE_SHARES[1:], strict=False)]
    assert len(values.NICE_SHARES) == 40 and values.NICE_SHARES[20] == 1024
    assert all(1.18 < step < 1.31 for step in steps)


@given(st.integers(0, 1 << 40), st.sampled_from(["", *"kmgtpeKMGTPE"]), st.sampled_from([1, 2]))
def test_sizes_are_powers_of_1024(number: int, suffix: str, dialect: int) -> None:
    power = " kmgtpe".find(suffix.lower()) if suffix else 0
    assert values.size(f"{number}{suffix}", dialect) == number * 1024**power
    assert values.size(hex(number), dialect) == number


FUZZED = (
    "memory.limit_in_bytes", "memory.max", "memory.memsw.limit_in_bytes", "memory.swap.max", "cpu.max", "cpu.shares",
    "cpu.cfs_quota_us", "cpuset.cpus", "pids.max", "io.max", "io.weight", "io.bfq.weight", "blkio.weight_device",
    "blkio.throttle.read_bps_device", "devices.allow", "devices.deny", "freezer.state", "cgroup.freeze",
    "hugetlb.2MB.max", "rdma.max", "nothing",
)  # fmt: skip


@given(st.text(max_size=20), st.sampled_from([1, 2]))
def test_no_text_breaks_the_parsers(text: str, dialect: int) -> None:
    result = translate([CgroupEntry(dialect, key, text) for key in FUZZED], V2)
    assert all(problem.hint for problem in result.problems)


SIZE = st.one_of(st.none(), st.integers(0, 1 << 50))


@given(st.integers(1 << 12, 1 << 50), SIZE)
def test_memory_and_swap_survive_both_ways(limit: int, swap: int | None) -> None:
    entries = [CgroupEntry(2, "memory.max", str(limit))]
    entries.append(CgroupEntry(2, "memory.swap.max", "max" if swap is None else str(swap)))
    assert become(2, become(1, entries)) == entries
    v1 = become(1, entries)
    assert become(1, become(2, v1)) == v1


@given(st.one_of(st.just(-1), st.integers(1000, 1 << 40)), st.integers(1000, 1000000))
def test_bandwidth_survives_both_ways(quota: int, period: int) -> None:
    entries = [CgroupEntry(1, "cpu.cfs_period_us", str(period)), CgroupEntry(1, "cpu.cfs_quota_us", str(quota))]
    assert become(1, become(2, entries)) == entries


RATES = st.dictionaries(
    st.tuples(st.sampled_from(["8:0", "8:16", "259:1"]), st.sampled_from(["rbps", "wbps", "riops", "wiops"])),
    st.integers(1, 1 << 60), min_size=1,
)  # fmt: skip


@given(RATES)
def test_throttles_survive_both_ways(rates: dict[tuple[str, str], int]) -> None:
    entries = [CgroupEntry(2, "io.max", f"{device} {rate}={number}") for (device, rate), number in rates.items()]
    v1 = become(1, entries)
    assert set(become(1, become(2, v1))) == set(v1)
    assert len(v1) == len(rates)
    assert len(become(2, entries)) == len({device for device, _ in rates})


@given(st.integers(1, 1000), st.sampled_from(["default", "8:0"]))
def test_weights_of_devices_survive(weight: int, where: str) -> None:
    entries = [CgroupEntry(2, "io.weight", f"{where} {weight}")]
    (back,) = become(2, become(1, entries))
    assert (back.key, back.value) == ("io.bfq.weight", f"{where} {weight}")  # the same scale, by BFQ's name


# Devices: the kernel's v1 controller (security/device_cgroup.c) as a model to compare with. Its exceptions are matched
# by their exact numbers when taken back, so the keys here do not overlap.
KEYS = [("c", 1, 3), ("c", 1, 5), ("b", 8, None), ("c", None, 7)]
RULES = st.lists(
    st.one_of(
        st.builds(lambda allow: DeviceRule(allow, "a", None, None, "rwm"), st.booleans()),
        st.builds(
            lambda allow, key, access: DeviceRule(allow, *key, "".join(c for c in "rwm" if c in access)),
            st.booleans(), st.sampled_from(KEYS), st.sets(st.sampled_from("rwm"), min_size=1),
        ),
    ),
    max_size=12,
)  # fmt: skip
ASKED = [("c", 1, 3), ("c", 1, 5), ("c", 1, 7), ("c", 9, 7), ("b", 8, 0), ("b", 9, 0)]
ACCESS = ["r", "w", "m", "rw", "rwm"]


def kernel(rules: list[DeviceRule], device: tuple[str, int, int], asked: str) -> bool:
    default, exceptions = True, {}
    for rule in rules:
        key = rule[1:4]
        if rule.type == "a":
            default, exceptions = rule.allow, {}
        elif rule.allow != default:
            exceptions[key] = exceptions.get(key, set()) | set(rule.access)
        elif key in exceptions:
            exceptions[key] -= set(rule.access)
    fits = [
        access for (kind, major, minor), access in exceptions.items()
        if kind == device[0] and major in (None, device[1]) and minor in (None, device[2])
    ]  # fmt: skip
    return not any(set(asked) & access for access in fits) if default else any(set(asked) <= access for access in fits)


def ours(rules: list[DeviceRule], device: tuple[str, int, int], asked: str) -> bool:
    """The last exception that matches decides, as in the program."""
    default, exceptions = devices.policy(rules)
    for rule in reversed(exceptions):
        fits = rule.type == device[0] and rule.major in (None, device[1]) and rule.minor in (None, device[2])
        letters = set(asked) <= set(rule.access) if rule.allow else bool(set(asked) & set(rule.access))
        if fits and letters:
            return rule.allow
    return default


@given(RULES)
def test_policies_agree_with_the_v1_controller(rules: list[DeviceRule]) -> None:
    for device, asked in product(ASKED, ACCESS):
        assert ours(rules, device, asked) == kernel(rules, device, asked), (device, asked)
    devices.program(rules)
