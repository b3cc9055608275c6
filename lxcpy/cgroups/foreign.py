"""A running container's files under their names in the other cgroup version: read and written through this host's own.

What can be set goes through the table of `dialects` in either direction; counters have a small table of their own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from lxcpy.cgroups.dialects import ROWS, Out, Row, Setting, row_of
from lxcpy.cgroups.writers import LIMIT, PERIOD, QUOTA, SWAP, WRITERS, Conflict

Get = Callable[[str], str]  # the text of one of the host's own files; raises OSError
V1_UNLIMITED = 9223372036854771712  # as v1 prints it: the largest multiple of a page
_HUGE = 1 << 62


def outs(row: Row, star: str, value: str, version: int, get: Get) -> list[Out]:
    """What to write into files of `version` for a value in the words of the row's dialect.

    Where the new value is half of a file, or counts together with another, the other half is read first.
    Raises Bad (and OSError from `get`).
    """
    new = row.read(value, star)
    settings = dict(new)
    if SWAP in new:
        settings = {**_settings(get, row.family, version, only=LIMIT), **settings}
    if LIMIT in new and row.dialect != version:
        return _memory_with_swap(row.dialect, new, version, get)
    if version == 2 and (QUOTA in new) != (PERIOD in new):
        settings = {**_settings(get, row.family, version, only=QUOTA), **settings}
    return [out for out in WRITERS[row.family, version](settings) if set(out.settings) & set(new)]


def _memory_with_swap(dialect: int, new: dict[Setting, Any], version: int, get: Get) -> list[Out]:
    """A new memory limit in foreign words keeps what those words mean by the swap limit: v2's swap limit stands beside
    memory's, v1's is the sum of both."""
    now = _settings(get, "memory", version)
    limit, (_kind, value) = now.get(LIMIT), now.get(SWAP, ("", None))
    settings = dict(new)
    if limit is not None and value is not None:
        if dialect == 2:
            settings[SWAP] = ("swap", value - limit) if new[LIMIT] is not None else ("total", None)
        else:
            settings[SWAP] = ("total", value + limit)
    made = list(WRITERS["memory", version](settings))
    grows = new[LIMIT] is None or (limit is not None and new[LIMIT] > limit)
    # v1 never lets the sum be the lower one, not even between two writes
    return made[::-1] if grows and version == 1 else made


def _settings(
    get: Get, family: str, version: int, *, only: Setting | None = None, star: str = ""
) -> dict[Setting, Any]:
    """The settings that the host's own files of a family hold now."""
    found: dict[Setting, Any] = {}
    for row in ROWS:
        if row.family != family or row.dialect != version or row.file == "cpu.weight.nice":
            continue
        try:
            text = get(row.file.replace("*", star))
        except OSError:
            continue
        for line in text.splitlines():
            try:
                read = row.read(line.strip(), star)
            except ValueError:
                continue
            for setting, value in read.items():
                if only is None or setting == only or (only == QUOTA and setting == PERIOD):
                    found.setdefault(setting, _plain(value))
    return found


def _plain(value: object) -> object:
    """v1 prints "no limit" as a huge number."""
    if isinstance(value, int) and value >= _HUGE:
        return None
    if isinstance(value, tuple) and isinstance(value[1], int) and value[1] >= _HUGE:
        return (value[0], None)
    return value


def text(item: str, get: Get, version_of: Callable[[str], int]) -> str | None:
    """The text of `item` made from the host's own files; None where there is nothing like it. Raises OSError.

    version_of: family → the version under which the host has it (0: not at all).
    """
    for dialect in (1, 2):
        found = row_of(dialect, item)
        version = version_of(found[0].family) if found else 0
        if found and version:
            return _setting_text(item, *found, version, get)
    counter = _counter(item, get)
    return None if counter is None else counter.rstrip("\n") + "\n"


def _setting_text(item: str, row: Row, star: str, version: int, get: Get) -> str | None:
    settings = _settings(get, row.family, version, star=star)
    try:
        made = list(WRITERS[row.family, row.dialect](settings))
    except Conflict:  # swap is limited and memory is not: together they are not
        settings[SWAP] = ("total", None)
        made = list(WRITERS[row.family, row.dialect](settings))
    lines = []
    for out in made:
        for file, value in ((out.file, out.value), *out.others):
            if file == item and not value.endswith(" 0"):
                unlimited = row.family in ("memory", "hugetlb") and row.dialect == 1 and value == "-1"
                lines.append(str(V1_UNLIMITED) if unlimited else value)
    if not lines and row.family == "io":
        return ""  # no device is limited
    return "\n".join(lines) + "\n" if lines else None


# -- counters --------------------------------------------------------------------------------------------------------


def _pairs(text: str) -> dict[str, int]:
    pairs = (line.split() for line in text.splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _sum(*names: str) -> Callable[[Get], str]:
    return lambda get: str(sum(int(get(name)) for name in names))


def _from(file: str, word: str, *, times: int = 1) -> Callable[[Get], str]:
    return lambda get: str(_pairs(get(file))[word] * times)


def _cpuacct_stat(get: Get) -> str:
    times, tick = _pairs(get("cpu.stat")), 1_000_000 // os.sysconf("SC_CLK_TCK")
    return f"user {times['user_usec'] // tick}\nsystem {times['system_usec'] // tick}"


def _kmem(get: Get) -> str:
    parts = _pairs(get("memory.stat"))
    return str(sum(parts.get(name, 0) for name in ("kernel_stack", "pagetables", "sock", "slab")))


def _throttle_counter(read: str, written: str) -> Callable[[Get], str]:
    """blkio.throttle.io_service_bytes and io_serviced of io.stat."""

    def make(get: Get) -> str:
        lines, total = [], 0
        for line in get("io.stat").splitlines():
            device, *words = line.split()
            numbers = {name: int(value) for name, _, value in (word.partition("=") for word in words)}
            both = numbers.get(read, 0) + numbers.get(written, 0)
            lines += [f"{device} Read {numbers.get(read, 0)}", f"{device} Write {numbers.get(written, 0)}"]
            lines.append(f"{device} Total {both}")
            total += both
        return "\n".join([*lines, f"Total {total}"])

    return make


def _io_stat(get: Get) -> str:
    devices: dict[str, dict[str, int]] = {}
    for what, names in (("io_service_bytes", ("rbytes", "wbytes")), ("io_serviced", ("rios", "wios"))):
        for line in get(f"blkio.throttle.{what}_recursive").splitlines():
            words = line.split()
            if len(words) == 3 and words[1] in ("Read", "Write"):
                devices.setdefault(words[0], {})[names[words[1] == "Write"]] = int(words[2])
    return "\n".join(
        " ".join([number, *(f"{name}={found.get(name, 0)}" for name in ("rbytes", "wbytes", "rios", "wios"))])
        for number, found in devices.items()
    )


def _swap_current(get: Get) -> str:
    return str(max(int(get("memory.memsw.usage_in_bytes")) - int(get("memory.usage_in_bytes")), 0))


def _cpu_stat(get: Get) -> str:
    ticks, tick = _pairs(get("cpuacct.stat")), 1_000_000 // os.sysconf("SC_CLK_TCK")
    used = int(get("cpuacct.usage")) // 1000
    return f"usage_usec {used}\nuser_usec {ticks['user'] * tick}\nsystem_usec {ticks['system'] * tick}"


_SERVICE, _SERVICED = _throttle_counter("rbytes", "wbytes"), _throttle_counter("rios", "wios")
_COUNTERS: dict[str, Callable[[Get], str]] = {
    "memory.usage_in_bytes": _sum("memory.current"),
    "memory.max_usage_in_bytes": _sum("memory.peak"),
    "memory.memsw.usage_in_bytes": _sum("memory.current", "memory.swap.current"),
    "memory.kmem.usage_in_bytes": _kmem,
    "memory.failcnt": _from("memory.events", "max"),
    "cpuacct.usage": _from("cpu.stat", "usage_usec", times=1000),
    "cpuacct.usage_user": _from("cpu.stat", "user_usec", times=1000),
    "cpuacct.usage_sys": _from("cpu.stat", "system_usec", times=1000),
    "cpuacct.stat": _cpuacct_stat,
    "blkio.throttle.io_service_bytes": _SERVICE,
    "blkio.throttle.io_service_bytes_recursive": _SERVICE,
    "blkio.throttle.io_serviced": _SERVICED,
    "blkio.throttle.io_serviced_recursive": _SERVICED,
    "memory.current": _sum("memory.usage_in_bytes"),
    "memory.peak": _sum("memory.max_usage_in_bytes"),
    "memory.swap.current": _swap_current,
    "io.stat": _io_stat,
    "cpu.stat": _cpu_stat,
}


def _counter(item: str, get: Get) -> str | None:
    make = _COUNTERS.get(item)
    if make is None and item.startswith("hugetlb."):
        page, _, rest = item[len("hugetlb.") :].partition(".")
        other = {"usage_in_bytes": "current", "current": "usage_in_bytes"}.get(rest)
        make = _sum(f"hugetlb.{page}.{other}") if other else None
    if make is None:
        return None
    try:
        return make(get)
    except KeyError:
        return None
