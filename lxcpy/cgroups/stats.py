"""What a container uses: CPU time, memory, swap, block I/O, processes, from the files of its groups.

Imported by light commands; a few small files are read, each once. Nested groups count: cgroup v1's blkio counters are
taken from the recursive files.
"""

from __future__ import annotations

import os

from lxcpy.cgroups import files
from lxcpy.kernel.record import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]

NO_LIMIT = 1 << 62  # v1 prints "no limit" as the largest multiple of a page


class Stats(NamedTuple):
    """None: this host cannot tell (no controller, no file). Times in nanoseconds, sizes in bytes."""

    cpu: int | None = None
    cpu_user: int | None = None
    cpu_system: int | None = None
    blkio_read: int | None = None
    blkio_write: int | None = None
    blkio_total: int | None = None
    blkio_operations: int | None = None
    memory: int | None = None
    memory_limit: int | None = None  # None: also "no limit"
    swap: int | None = None
    memsw: int | None = None  # memory and swap
    kmem: int | None = None
    processes: int | None = None

    def to_dict(self) -> dict[str, int | None]:
        """For --json, under the names that lxcpy-json(7) lists."""
        found = dict(self._asdict())
        for old, new in (("blkio_total", "blkio"), ("memsw", "memory_swap"), ("kmem", "kernel_memory")):
            found[new] = found.pop(old)
        return found


def read(record: Record) -> Stats:
    """The numbers of a container from its record; never raises."""
    v1: dict[str, str] = {}
    v2 = ""
    for mount, (version, *controllers) in record["hierarchies"].items():
        path = record["limit"].get(mount)
        if path is not None and version == 1:
            v1.update(dict.fromkeys(controllers, mount + path))
        elif path is not None:
            v2 = mount + path
    found: dict[str, int | None] = {}
    _cpu(found, v1, v2)
    _memory(found, v1, v2)
    _blkio(found, v1, v2)
    pids = v1.get("pids") or v2
    found["processes"] = _number(f"{pids}/pids.current") if pids else None
    return Stats(**found)


def _text(path: str) -> str:
    try:
        return files.read(path)
    except OSError:
        return ""


def _number(path: str) -> int | None:
    text = _text(path).strip()
    return int(text) if text.isdecimal() else None


def _pairs(path: str) -> dict[str, int]:
    """A file of `NAME NUMBER` lines."""
    pairs = (line.split(" ") for line in _text(path).splitlines())
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdecimal()}


def _cpu(found: dict[str, int | None], v1: dict[str, str], v2: str) -> None:
    if "cpuacct" in v1:
        found["cpu"] = _number(f"{v1['cpuacct']}/cpuacct.usage")
        ticks = _pairs(f"{v1['cpuacct']}/cpuacct.stat")
        tick = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
        if ticks:
            found["cpu_user"], found["cpu_system"] = ticks.get("user", 0) * tick, ticks.get("system", 0) * tick
    elif v2:
        times = _pairs(f"{v2}/cpu.stat")
        for name, word in (("cpu", "usage_usec"), ("cpu_user", "user_usec"), ("cpu_system", "system_usec")):
            if word in times:
                found[name] = times[word] * 1000


def _memory(found: dict[str, int | None], v1: dict[str, str], v2: str) -> None:
    if "memory" in v1:
        group = v1["memory"]
        found["memory"] = used = _number(f"{group}/memory.usage_in_bytes")
        limit = _number(f"{group}/memory.limit_in_bytes")
        found["memory_limit"] = limit if limit is not None and limit < NO_LIMIT else None
        found["memsw"] = both = _number(f"{group}/memory.memsw.usage_in_bytes")
        if both is not None and used is not None:
            found["swap"] = max(both - used, 0)
        found["kmem"] = _number(f"{group}/memory.kmem.usage_in_bytes")
    elif v2:
        parts = _pairs(f"{v2}/memory.stat")
        if not parts:
            return
        found["memory"] = parts.get("anon", 0) + parts.get("file", 0)
        found["memory_limit"] = _number(f"{v2}/memory.max")
        found["swap"] = swap = _number(f"{v2}/memory.swap.current")
        found["memsw"] = None if swap is None else (found["memory"] or 0) + swap
        found["kmem"] = sum(parts.get(name, 0) for name in ("kernel_stack", "pagetables", "sock", "slab"))


def _blkio(found: dict[str, int | None], v1: dict[str, str], v2: str) -> None:
    if "blkio" in v1:
        found["blkio_read"], found["blkio_write"], found["blkio_total"] = _operations(v1["blkio"], "io_service_bytes")
        found["blkio_operations"] = _operations(v1["blkio"], "io_serviced")[2]
    elif v2:
        devices = [line.split(" ")[1:] for line in _text(f"{v2}/io.stat").splitlines()]
        if not devices and not os.path.exists(f"{v2}/io.stat"):
            return
        sums: dict[str, int] = {}
        for words in devices:
            for word in words:
                name, _, number = word.partition("=")
                if number.isdecimal():
                    sums[name] = sums.get(name, 0) + int(number)
        found["blkio_read"], found["blkio_write"] = sums.get("rbytes", 0), sums.get("wbytes", 0)
        found["blkio_total"] = sums.get("rbytes", 0) + sums.get("wbytes", 0)
        found["blkio_operations"] = sums.get("rios", 0) + sums.get("wios", 0)


def _operations(group: str, what: str) -> tuple[int | None, int | None, int | None]:
    """(read, written, total) over all devices, of lines `MAJOR:MINOR Read NUMBER` and a last line `Total NUMBER`."""
    text = _text(f"{group}/blkio.throttle.{what}_recursive") or _text(f"{group}/blkio.throttle.{what}")
    if not text:
        return None, None, None
    read = written = total = 0
    for line in text.splitlines():
        words = line.split(" ")
        if len(words) == 3 and words[2].isdecimal():
            read += int(words[2]) if words[1] == "Read" else 0
            written += int(words[2]) if words[1] == "Write" else 0
        elif len(words) == 2 and words[0] == "Total" and words[1].isdecimal():
            total = int(words[1])
    return read, written, total
