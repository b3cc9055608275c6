"""The values of cgroup files: grammars as the kernel reads them, and the formulas that join the two versions. Pure.

Every parser returns plain numbers (bytes, microseconds, None for "no limit") and raises `Bad` with the form that would
have been right. The kernel's own parsers are less kind: blkio's take the 1 of "1M" and forget the M.
"""

from __future__ import annotations

import re

NO_LIMIT = {1: "-1", 2: "max"}
_SUFFIX = "kmgtpe"
_SIZE = re.compile(r"(0x[0-9a-f]+|[0-9]+)([kmgtpe]?)", re.IGNORECASE)
_LOOSE_SIZE = re.compile(r"([0-9]+(?:[.,][0-9]+)?)\s*([kmgtpe]?)i?(?:b|byte|bytes)?", re.IGNORECASE)
_CPUS = re.compile(r"(?:all|[0-9]+|N)(?:-(?:[0-9]+|N))?(?::[0-9]+/[0-9]+)?")
_DEVICE = re.compile(r"([0-9]+):([0-9]+)")


class Bad(ValueError):
    """A value that is none; `hint` is the right form."""

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.hint = hint


def size(text: str, dialect: int) -> int | None:
    """Bytes of a memory or hugetlb limit; None: no limit (-1 in v1 words, max in v2 words).

    Suffixes K M G T P E in either case are powers of 1024, as the kernel's memparse has it.
    """
    if text == NO_LIMIT[dialect]:
        return None
    match = _SIZE.fullmatch(text)
    if match:
        number = int(match[1], 16 if match[1][:2].lower() == "0x" else 10)
        return number << 10 * (_SUFFIX.find(match[2].lower() or "?") + 1)
    if text.lower() in ("max", "-1", "unlimited", "infinity", "none"):
        raise Bad(f'"{text}" is no size here', f"no limit is written {NO_LIMIT[dialect]}")
    raise Bad(f'"{text}" is no size', _right_size(text) or "a number of bytes, or one with K, M, G or T: 512M")


def _right_size(text: str) -> str | None:
    """How the kernel wants to read what a person wrote: 256MB → 256M, 1.5G → 1536M."""
    match = _LOOSE_SIZE.fullmatch(text)
    if not match:
        return None
    number, unit = match[1].replace(",", "."), match[2].upper()
    if "." not in number:
        return f"write {number}{unit}"
    amount = round(float(number) * 1024 ** (_SUFFIX.find(unit.lower() or "?") + 1))
    power = 0
    while amount and amount % 1024 == 0 and power < len(_SUFFIX):
        amount, power = amount // 1024, power + 1
    return f"write {amount}{_SUFFIX[power - 1].upper() if power else ''}"


def amount(text: str, *, no_limit: str) -> int | None:
    """Bytes or operations a second; the kernel reads plain digits here, so suffixes are worked out by us."""
    if text == no_limit:
        return None
    match = _SIZE.fullmatch(text)
    if not match:
        raise Bad(f'"{text}" is no rate', _right_size(text) or f"a number such as 1048576 or 1M; {no_limit}: no limit")
    return size(text, 2)


def integer(text: str, low: int, high: int, *, no_limit: str | None = None) -> int | None:
    """A whole number of a range; None for the word that lifts the limit."""
    if text == no_limit:
        return None
    known = f"a whole number from {low} to {high}" + (f", or {no_limit}" if no_limit else "")
    try:
        value = int(text)
    except ValueError:
        raise Bad(f'"{text}" is no whole number', known) from None
    if not low <= value <= high:
        raise Bad(f"{text} is out of range", known)
    return value


def flag(text: str) -> int:
    """0 or 1."""
    if text not in ("0", "1"):
        raise Bad(f'"{text}" is no switch', "0 or 1")
    return int(text)


def cpu_list(text: str) -> str:
    """A list of CPUs or memory nodes as the kernel's bitmap_parselist reads it, without spaces."""
    parts = text.replace(",", " ").split()
    for part in parts:
        if not _CPUS.fullmatch(part):
            raise Bad(f'"{part}" is no number or range', "numbers and ranges with commas between: 0-3,6")
        first, _, last = part.partition(":")[0].partition("-")
        if first.isdigit() and last.isdigit() and int(first) > int(last):
            raise Bad(f'the range "{part}" runs backwards', f"write {last}-{first}")
    if not parts:
        raise Bad("an empty list", "numbers and ranges with commas between: 0-3,6")
    return ",".join(parts)


def numbers(text: str) -> list[int]:
    """The numbers of a list such as 0-3,6, in the plain form in which the kernel prints it; others give none."""
    found: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        if first.isdigit() and (not last or last.isdigit()):
            found += range(int(first), int(last or first) + 1)
    return found


def device(text: str) -> str:
    """A block device as MAJOR:MINOR."""
    if not _DEVICE.fullmatch(text):
        raise Bad(f'"{text}" is no device number', "MAJOR:MINOR as lsblk prints it, such as 8:0")
    return text


# -- CPU -----------------------------------------------------------------------------------------------------------

PERIOD = 100_000  # µs, the kernel's default
PERIOD_LOW, PERIOD_HIGH = 1_000, 1_000_000  # µs; kernel/sched/core.c: max_cfs_quota_period, min_cfs_quota_period
QUOTA_LOW = 1_000
QUOTA_HIGH = (1 << 44) // 1000 * 1000
SHARES_LOW, SHARES_HIGH, SHARES = 2, 262_144, 1024
WEIGHT_LOW, WEIGHT_HIGH, WEIGHT = 1, 10_000, 100

# kernel/sched/core.c, sched_prio_to_weight: nice -20 to 19
NICE_SHARES = (
    88761, 71755, 56483, 46273, 36291, 29154, 23254, 18705, 14949, 11916, 9548, 7620, 6100, 4904, 3906, 3121, 2501,
    1991, 1586, 1277, 1024, 820, 655, 526, 423, 335, 272, 215, 172, 137, 110, 87, 70, 56, 45, 36, 29, 23, 18, 15,
)  # fmt: skip


def quota(text: str) -> int | None:
    """cpu.cfs_quota_us: µs of CPU time a period; None: no limit."""
    if "%" in text:
        raise Bad(f'"{text}" is no time', "half of one CPU is a quota of 50000 in a period of 100000 µs")
    value = integer(text, -1, QUOTA_HIGH)
    if value is None or value == -1:
        return None
    if value < QUOTA_LOW:
        raise Bad(f"{text} is out of range", f"a whole number of µs, at least {QUOTA_LOW}; -1: no limit")
    return value


def period(text: str) -> int:
    """cpu.cfs_period_us."""
    return integer(text, PERIOD_LOW, PERIOD_HIGH) or PERIOD


def cpu_max(text: str) -> tuple[int | None, int]:
    """cpu.max: `QUOTA [PERIOD]` → (quota, period), the period filled in."""
    words = text.split()
    if not 1 <= len(words) <= 2:
        raise Bad(f'"{text}" is no QUOTA PERIOD', "two numbers of µs, such as 50000 100000, or max")
    if words[0] == "-1":
        raise Bad('"-1" is no quota here', "no limit is written max")
    return (None if words[0] == "max" else quota(words[0])), (period(words[1]) if len(words) == 2 else PERIOD)


def _nearest(numerator: int, denominator: int) -> int:
    return (numerator + denominator // 2) // denominator  # DIV_ROUND_CLOSEST


def weight_of_shares(shares: int) -> int:
    """The cpu.weight that the kernel itself shows for these shares (kernel/sched/core.c, sched_weight_to_cgroup).

    Proportional, with 1024 ↔ 100, the defaults: a container of twice the default keeps twice the default. The linear
    map of the two ranges on each other, which older runc uses, makes 39 of 1024 and is not used for that reason.
    """
    return min(max(_nearest(shares * WEIGHT, SHARES), WEIGHT_LOW), WEIGHT_HIGH)


def shares_of_weight(weight: int) -> int:
    """The reverse (sched_weight_from_cgroup)."""
    return min(max(_nearest(weight * SHARES, WEIGHT), SHARES_LOW), SHARES_HIGH)


# -- block devices ---------------------------------------------------------------------------------------------------

BLKIO = (10, 1000)  # blkio.weight, default 500
BFQ = (1, 1000)  # blkio.bfq.weight and io.bfq.weight, default 100
IO = (1, 10_000)  # io.weight, default 100
WEIGHTS = {"blkio": (*BLKIO, 500), "bfq": (*BFQ, 100), "io": (*IO, 100)}  # name → lowest, highest, default


def io_weight(value: int, source: str, target: str) -> int:
    """A weight in another scale: proportional, default to default, kept within the target's range."""
    low, high, default = WEIGHTS[target]
    return min(max(_nearest(value * default, WEIGHTS[source][2]), low), high)
