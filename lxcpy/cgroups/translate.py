"""The limits of a config in the words of this host: cgroup v1 words on a v2 host, v2 words on a v1 host, or both. Pure.

A controller is v1's or v2's on a host, never both. A limit in the host's own words is written as it stands; one in the
other version's words is translated (tables: `dialects`, `writers`). Where a config says one thing in both, the host's
own words count and the others are set aside. What cannot be said in the host's words is a problem, never silence.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from lxcpy import paths
from lxcpy.cgroups import devices, dialects
from lxcpy.cgroups.devices import DeviceRule
from lxcpy.cgroups.dialects import FAMILIES, Out, Row, Setting
from lxcpy.cgroups.layout import Hierarchy, Layout
from lxcpy.cgroups.values import Bad
from lxcpy.cgroups.writers import HIGH, LOW, PERIOD, QUOTA, WRITERS, Conflict
from lxcpy.errors import CgroupError, Origin
from lxcpy.kernel.record import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxcpy.config.model import CgroupEntry

V1_NAMES = {v2: v1 for v1, v2 in FAMILIES.values()}


class Write(NamedTuple):
    """One value for one file of the limit group.

    item:   the key that asked for it, as in the config; origin: its line.
    others: (file, value) of other files for the same: every one that this kernel has is written, or (not `every`) the
            first that it has. None at all is an error.
    """

    mount: str
    file: str
    value: str
    controller: str
    item: str
    origin: Origin | None = None
    others: tuple[tuple[str, str], ...] = ()
    every: bool = False

    def __str__(self) -> str:
        return f"write {self.value} to {self.mount}/{self.file} ({self.item})"


class Translation(NamedTuple):
    """What the entries become on one host.

    device_writes: the device rules for v1's controller; devices: those for a v2 program. One of them is empty.
    outcomes:      for each entry, in order, what became of it, in words.
    """

    writes: tuple[Write, ...] = ()
    device_writes: tuple[Write, ...] = ()
    devices: tuple[DeviceRule, ...] = ()
    warnings: tuple[str, ...] = ()
    problems: tuple[CgroupError, ...] = ()
    outcomes: tuple[str, ...] = ()


def translate(
    entries: Sequence[CgroupEntry], layout: Layout, *, stats: Callable[[str], os.stat_result] = os.stat
) -> Translation:
    """Every limit for the hierarchies of `layout`; the problems are collected, not raised.

    stats: looks up a device of the form `lxc.cgroup.devices.allow = /dev/PATH rwm`.
    """
    work = _Work(layout, stats)
    for at, entry in enumerate(entries):
        try:
            work.take(at, entry)
        except Bad as bad:
            work.problem(at, entry, str(bad), bad.hint)
    work.finish_devices()
    for family in FAMILIES:
        work.finish(family)
    return Translation(
        tuple(work.writes + work.raws), tuple(work.device_writes), tuple(work.devices), tuple(work.warnings),
        tuple(work.problems), tuple("; ".join(work.outcomes.get(at, ())) for at in range(len(entries))),
    )  # fmt: skip


def version_of(family: str, layout: Layout) -> int:
    """Under which version this host has the controller of a family: 1, 2 or 0."""
    v1, v2 = FAMILIES[family]
    if layout.v1(v1):
        return 1
    return 2 if layout.v2(v2) or (v2 == "cgroup" and layout.unified) else 0


def item_of(entry: CgroupEntry) -> str:
    """The config key of an entry."""
    return f"lxc.cgroup{'' if entry.dialect == 1 else '2'}.{entry.key}"


def _is_preset(origin: Origin | None) -> bool:
    """Whether the line is a default of LXC's presets, and not the wish of the one who wrote the config."""
    return origin is not None and os.path.dirname(origin.file).startswith(
        (paths.LXC_CONFIG_DIR, paths.data_dir("config"))
    )


Found = dict[Setting, tuple[object, int, "CgroupEntry"]]  # value, index and entry of each setting


def _said_twice(own: Found, foreign: Found, version: int) -> dict[Setting, Setting]:
    """Which foreign settings are set aside, and for which of the host's own."""
    said = {setting: setting for setting in foreign if setting in own}
    if version == 1 and HIGH in foreign and LOW in own:
        said[HIGH] = LOW  # both would be v1's soft limit
    if PERIOD in foreign and QUOTA in own:
        said[PERIOD] = QUOTA  # a quota means nothing in another's period
    return said


class _Work:
    """One translation in progress."""

    def __init__(self, layout: Layout, stats: Callable[[str], os.stat_result]) -> None:
        self.layout = layout
        self.stats = stats
        self.found: dict[str, dict[int, Found]] = {}
        self.rules: list[tuple[DeviceRule, int, CgroupEntry]] = []
        self.writes: list[Write] = []
        self.raws: list[Write] = []
        self.device_writes: list[Write] = []
        self.devices: list[DeviceRule] = []
        self.warnings: list[str] = []
        self.problems: list[CgroupError] = []
        self.outcomes: dict[int, list[str]] = {}

    def say(self, at: int, text: str) -> None:
        """What became of entry `at`."""
        said = self.outcomes.setdefault(at, [])
        if text not in said:
            said.append(text)

    def problem(self, at: int, entry: CgroupEntry, what: str, hint: str, *, optional: bool = False) -> None:
        """An entry that cannot be in force: an error, or (optional) a warning where a preset wrote it."""
        if optional and _is_preset(entry.origin):
            self.warnings.append(f"{item_of(entry)}: {what}")
            self.say(at, f"not in force: {what}")
            return
        self.problems.append(CgroupError(f"{item_of(entry)}: {what}", at=entry.origin, hint=hint))
        self.say(at, f"refused: {what}")

    # -- reading ---------------------------------------------------------------------------------------------------

    def take(self, at: int, entry: CgroupEntry) -> None:
        """Read one entry into settings, a device rule or a value that is written as it is."""
        value = entry.value.strip()
        if entry.key.startswith("devices."):
            rule = devices.parse(
                entry.key, value, origin=entry.origin, dialect=entry.dialect, stats=self.stats
            )
            self.rules.append((rule, at, entry))
            return
        found = dialects.row_of(entry.dialect, entry.key)
        if found is None:
            self.take_unknown(at, entry, value)
            return
        row, star = found
        settings = row.read(value, star)  # a wrong value is wrong on every host
        if not version_of(row.family, self.layout):
            self.absent(at, entry, row)
            return
        into = self.found.setdefault(row.family, {}).setdefault(entry.dialect, {})
        for setting, number in settings.items():
            before = into.pop(setting, None)
            if before:
                self.say(before[1], f"overridden by a later {entry.key}")
            into[setting] = (number, at, entry)

    def take_unknown(self, at: int, entry: CgroupEntry, value: str) -> None:
        """A file that is not in the table: written as it is where the host speaks its dialect."""
        other = 3 - entry.dialect
        if dialects.row_of(other, entry.key):
            key = f"lxc.cgroup{'' if other == 1 else '2'}.{entry.key}"
            raise Bad(f'"{entry.key}" is a word of cgroup v{other}', f"write {key}")
        controller = entry.key.partition(".")[0]
        home = self.home(entry, controller)
        if home:
            write = Write(home.mount, entry.key, value, controller, item_of(entry), entry.origin)
            self.raws.append(write)
            self.say(at, "written as it is")
            return
        nothing = dialects.NO_EFFECT.get((entry.dialect, entry.key), ())
        if nothing is None or value in nothing:
            self.say(at, f"nothing to do: always so on cgroup v{other}")
            return
        hint = dialects.NO_EQUIVALENT.get((entry.dialect, entry.key))
        if self.elsewhere(entry.dialect, controller) or (hint and self.layout.kind == f"v{other}"):
            what = f'cgroup v{other}, which this host has, knows nothing like "{entry.key} = {value}"'
            self.problem(at, entry, what, hint or f"remove the line, or boot with cgroup v{entry.dialect}")
        else:
            self.absent(at, entry, None)

    def home(self, entry: CgroupEntry, controller: str) -> Hierarchy | None:
        """The hierarchy whose files the entry names in its own words."""
        if entry.dialect == 1:
            return self.layout.v1("cpuset" if controller in ("cgroup", "notify_on_release") else controller)
        unified = self.layout.unified
        if unified and (controller == "cgroup" or entry.key.endswith(".pressure")):
            return unified
        return self.layout.v2(controller)

    def elsewhere(self, dialect: int, controller: str) -> bool:
        """Whether the host has the controller under the other version."""
        if dialect == 1:
            names = {**{v1: v2 for v1, v2 in FAMILIES.values()}, "cpuacct": "cpu"}
            return self.layout.v2(names.get(controller, controller)) is not None
        if controller == "cgroup":
            return self.layout.unified is None
        return bool(self.layout.v1(V1_NAMES.get(controller, controller)))

    def absent(self, at: int, entry: CgroupEntry, row: Row | None) -> None:
        """The host has the entry's controller under neither version."""
        names = FAMILIES[row.family] if row else (entry.key.partition(".")[0],) * 2
        name = names[entry.dialect - 1]
        have = sorted({c for h in self.layout.hierarchies for c in h.controllers if not c.startswith("name=")})
        hint = f"it has {', '.join(have) or 'none'}"
        if any(h.version == 1 for h in self.layout.hierarchies):
            hint += f"; if the kernel has {names[0]} (/proc/cgroups), mount it: "
            hint += f"mount -t cgroup -o {names[0]} {names[0]} {self.new_mount(names[0])}"
        else:
            hint += "; enable it in the cgroup.subtree_control of the groups above"
        self.problem(at, entry, f'this host has no cgroup controller "{name}"', hint, optional=True)

    def new_mount(self, controller: str) -> str:
        """Where a v1 controller would be mounted, beside the others."""
        v1 = next(h for h in self.layout.hierarchies if h.version == 1)
        return f"{os.path.dirname(v1.mount)}/{controller}"

    # -- writing ---------------------------------------------------------------------------------------------------

    def finish(self, family: str) -> None:
        """The writes of one family's settings."""
        spoken = self.found.get(family)
        if not spoken:
            return
        version = version_of(family, self.layout)
        own, foreign = spoken.get(version, {}), dict(spoken.get(3 - version, {}))
        for setting, by in _said_twice(own, foreign, version).items():
            at = foreign.pop(setting)[1]
            self.say(at, f"set aside: {item_of(own[by][2])} says it in this host's words")
        final = {**foreign, **own}
        hierarchy = self.layout.v1(FAMILIES[family][0]) if version == 1 else self.layout.unified
        assert hierarchy is not None
        try:
            outs: list[Out] = list(WRITERS[family, version]({s: value[0] for s, value in final.items()}))
        except Conflict as conflict:
            _value, at, entry = final[conflict.setting]
            self.problem(at, entry, str(conflict), conflict.hint)
            return
        for out in outs:
            self.emit(out, family, version, hierarchy, [final[s] for s in out.settings if s in final])

    def emit(
        self, out: Out, family: str, version: int, hierarchy: Hierarchy, sources: list[tuple[object, int, CgroupEntry]]
    ) -> None:
        """One value of a writer, for the first of the entries that it comes from."""
        _value, _at, entry = sources[0]
        if out.note:
            self.warnings.append(f"{item_of(entry)}: {out.note}")
        for _value, at, source in sources:
            if not out.file:
                self.say(at, f"nothing to do: {out.note or f'always so on cgroup v{version}'}")
            elif source.dialect == version and source.key == out.file:
                self.say(at, "written as it is")
            else:
                self.say(at, f"becomes {out.file} = {out.value} (cgroup v{version})")
        if out.file:
            self.writes.append(
                Write(hierarchy.mount, out.file, out.value, FAMILIES[family][version - 1], item_of(entry), entry.origin,
                      out.others, out.every)
            )  # fmt: skip

    def finish_devices(self) -> None:
        """The device rules, for v1's controller or for a program."""
        if not self.rules:
            return
        v1, unified = self.layout.v1("devices"), self.layout.unified
        if not v1 and not unified:
            for _rule, at, entry in self.rules:
                self.absent(at, entry, None)
            return
        used, aside = devices.joined([rule for rule, _, _ in self.rules], 1 if v1 else 2)
        for rule, at, entry in self.rules:
            if any(rule is other for other in aside):
                self.say(at, "set aside: the config has the same policy in this host's words")
            elif v1:
                write = Write(v1.mount, rule.file, rule.text, "devices", item_of(entry), entry.origin)
                self.device_writes.append(write)
                native = entry.dialect == 1
                self.say(at, "written as it is" if native else f"becomes {rule.file} = {rule.text} (cgroup v1)")
            else:
                self.say(at, "part of the device program (cgroup v2)")
        if not v1:
            self.devices = used
