"""cgroup v1 words on a v2 host and the reverse: pure, driven by one table."""

from __future__ import annotations

from collections.abc import Sequence

from lxcpy.cgroups.layout import Layout
from lxcpy.config.model import CgroupEntry
from lxcpy.errors import CgroupError, Origin
from lxcpy.kernel.record import NamedTuple


class Write(NamedTuple):
    """One value for one file of the limit group."""

    mount: str
    file: str
    value: str
    controller: str
    item: str  # the key that asked for it, as written
    origin: Origin | None = None

    def __str__(self) -> str:
        return f"write {self.value} to {self.mount}/{self.file} ({self.item})"


class DeviceRule(NamedTuple):
    """One line of devices.allow or devices.deny."""

    allow: bool
    type: str  # a b c
    major: int | None  # None: any
    minor: int | None
    access: str  # of r w m
    origin: Origin | None = None

    def __str__(self) -> str:
        if self.type == "a":
            return f"{'allow' if self.allow else 'deny'} a"
        numbers = ":".join("*" if n is None else str(n) for n in (self.major, self.minor))
        return f"{'allow' if self.allow else 'deny'} {self.type} {numbers} {self.access}"


class Translation(NamedTuple):
    """What the entries become on one host."""

    writes: tuple[Write, ...] = ()
    device_writes: tuple[Write, ...] = ()
    devices: tuple[DeviceRule, ...] = ()
    warnings: tuple[str, ...] = ()
    problems: tuple[CgroupError, ...] = ()


def translate(entries: Sequence[CgroupEntry], layout: Layout) -> Translation:
    writes: list[Write] = []
    device_writes: list[Write] = []
    for entry in entries:
        controller = entry.key.partition(".")[0]
        hierarchy = layout.v1(controller) if entry.dialect == 1 else layout.unified
        if hierarchy is None or (entry.dialect == 2 and controller not in ("cgroup", *hierarchy.controllers)):
            continue
        prefix = "lxc.cgroup." if entry.dialect == 1 else "lxc.cgroup2."
        write = Write(hierarchy.mount, entry.key, entry.value, controller, prefix + entry.key, entry.origin)
        (device_writes if controller == "devices" else writes).append(write)
    return Translation(tuple(writes), tuple(device_writes))
