"""From the config's cgroup keys to the groups to make and the values to write: decided before anything is touched.

Names are LXC's: `lxc.payload.NAME` below the base of each hierarchy, with a suffix `-1`, `-2`... shared by all
hierarchies when the name is taken; the keys lxc.cgroup.dir* and the system key lxc.cgroup.pattern move it. No monitor
group is made by default: one supervisor serves all containers and stays where it was started.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from lxcpy.cgroups.devices import DeviceRule
from lxcpy.cgroups.layout import Hierarchy, Layout
from lxcpy.cgroups.translate import Write, translate
from lxcpy.config.model import Cgroup
from lxcpy.errors import CgroupError

LAST_SUFFIX = 999
SUPERVISOR = "lxcpy.supervisor"  # the group of the supervisor itself
COUNTED = ("cpu", "io", "memory", "pids")  # controllers whose counters `stats` reads


@dataclass(frozen=True)
class HostFacts:
    """What the plan has to know of the running host.

    bases: the group of each hierarchy (by mount) below which containers are made.
    taken: whether a directory exists.
    usable: whether groups can be made in a directory; root's always, an ordinary user's where it was delegated.
    """

    bases: Mapping[str, str] = field(default_factory=dict)
    taken: Callable[[str], bool] = os.path.isdir
    usable: Callable[[str], bool] = lambda path: True

    @classmethod
    def read(cls, layout: Layout, *, relative: bool = False, caller: int | None = None) -> HostFacts:
        """The facts of this host. Root's containers are made below init's groups, unless `relative`
        (lxc.cgroup.relative); a user's below the caller's own, or this process's where the caller's is not the user's.

        caller: the process whose groups are meant; None: this one. A gone one counts as init, for an ordinary user as
        this one.
        """
        if os.geteuid() == 0:
            own = relative and os.path.exists(f"/proc/{caller or 'self'}/cgroup")
            return cls(bases(_groups_of(str(caller or "self") if own else "1"), layout, own=own))
        found = {}
        for pid in ("self", str(caller)) if caller else ("self",):
            try:
                groups = bases(_groups_of(pid), layout, own=True)
            except OSError:  # it has ended
                continue
            for mount, path in groups.items():
                path = path.removesuffix(SUPERVISOR).rstrip("/")  # the supervisor's is beside the containers'
                if mount not in found or usable(f"{mount}/{path}"):
                    found[mount] = path
        return cls(found, usable=usable)


def _groups_of(pid: str) -> str:
    with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def usable(group: str) -> bool:
    """Whether this user may make groups in `group` and move processes there, as LXC asks it (cgfsng.c)."""
    files = ("cgroup.procs", "cgroup.subtree_control") if os.path.exists(f"{group}/cgroup.controllers") else ()
    return os.access(group, os.W_OK) and all(os.access(f"{group}/{name}", os.W_OK) for name in files)


def bases(text: str, layout: Layout, *, own: bool) -> dict[str, str]:
    """The base of each hierarchy from the text of /proc/PID/cgroup; `init.scope` is no base for others."""
    by_name: dict[str, str] = {}
    for line in text.splitlines():
        _number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        by_name[controllers or "unified"] = path
    found = {}
    for hierarchy in layout.hierarchies:
        path = by_name.get(hierarchy.name, "")
        if not path:  # the two files may name co-mounted controllers in different orders
            wanted = set(hierarchy.controllers)
            path = next((p for name, p in by_name.items() if set(name.split(",")) == wanted), "/")
        if not own and path.endswith("/init.scope"):
            path = path[: -len("/init.scope")]
        if hierarchy.root != "/" and f"{path}/".startswith(f"{hierarchy.root}/"):
            path = path[len(hierarchy.root) :]  # the mount shows a part of the hierarchy
        found[hierarchy.mount] = path.strip("/")
    return found


@dataclass(frozen=True)
class CgroupPlan:
    """The groups of one container and what is written into them.

    payload, limit: paths below the bases; they differ with lxc.cgroup.dir.container.inner alone.
    monitor:        the group to make for lxc.cgroup.dir.monitor, else None.
    pivot:          where the monitor goes at the end, for lxc.cgroup.dir.monitor.pivot, else None.
    suffix:         0, or the number that is added to the name; None where the path is exact.
    enable:         v2 controllers that the groups above the payload hand down.
    required:       those of them without which a limit of the config cannot be had.
    """

    name: str
    hierarchies: tuple[Hierarchy, ...]
    bases: Mapping[str, str]
    payload: str
    limit: str
    monitor: str | None
    suffix: int | None
    writes: tuple[Write, ...]
    device_writes: tuple[Write, ...]
    devices: tuple[DeviceRule, ...]
    enable: tuple[str, ...]
    required: Mapping[str, Write]
    warnings: tuple[str, ...] = ()
    owner: tuple[int, int] | None = None
    pivot: str | None = None
    left_out: tuple[str, ...] = ()  # groups in which an ordinary user may make none

    def path(self, mount: str, kind: str) -> str:
        """The path of the `payload`, `limit`, `monitor` or `pivot` group below the mount, with a leading slash."""
        tail = f"-{self.suffix}" if self.suffix else ""
        groups = {"payload": self.payload, "limit": self.limit, "monitor": self.monitor, "pivot": self.pivot}
        relative = groups[kind] or ""
        if kind == "payload" and self.payload != self.limit:
            tail = ""
        base = self.bases.get(mount, "")
        return f"/{base}/{relative}{tail}" if base else f"/{relative}{tail}"

    def next(self) -> CgroupPlan:
        """The same plan under the next suffix. Raises CgroupError after -999 and where the path is exact."""
        if self.suffix is None:
            raise CgroupError(
                f'the cgroup "{self.limit}" exists already',
                hint="lxc.cgroup.dir.container names an exact path: choose another or remove the group",
            )
        if self.suffix >= LAST_SUFFIX:
            raise CgroupError(
                f'no free cgroup name for "{self.limit}": suffixes -1 to -{LAST_SUFFIX} are all taken',
                hint="remove the leftover groups with rmdir",
            )
        return replace(self, suffix=self.suffix + 1)

    def record(self) -> dict[str, object]:
        """The record that tree.create returns, before it: written first, it lets anyone clean up after a crash."""
        mounts = [hierarchy.mount for hierarchy in self.hierarchies]
        monitor = {mount: self.path(mount, "monitor") for mount in mounts} if self.monitor else {}
        pivot = {mount: self.path(mount, "pivot") for mount in mounts} if self.pivot else {}
        return {
            "name": self.name,
            "hierarchies": {h.mount: [h.version, *h.controllers] for h in self.hierarchies},
            "bases": {mount: "/" + self.bases.get(mount, "") for mount in mounts},
            "payload": {mount: self.path(mount, "payload") for mount in mounts},
            "limit": {mount: self.path(mount, "limit") for mount in mounts},
            "monitor": monitor,
            "serving": monitor,
            "pivot": pivot,
            "devices": [str(rule) for rule in self.devices],
        }

    def describe(self) -> list[str]:
        """Every step as one line, in the order in which it is done."""
        lines = [f"make cgroup {h.mount}{self.path(h.mount, 'payload')}" for h in self.hierarchies]
        if self.monitor:
            lines += [f"make cgroup {h.mount}{self.path(h.mount, 'monitor')}" for h in self.hierarchies]
        if self.enable:
            lines.append(f"enable {' '.join(self.enable)} in the groups above the payload")
        lines += [str(write) for write in self.writes]
        if self.owner:
            lines.append(f"delegate the payload group to group {self.owner[1]}")
        lines += [str(write) for write in self.device_writes]
        if self.devices:
            lines.append("attach a device program: " + "; ".join(str(rule) for rule in self.devices))
        return lines


def plan(
    cgroup: Cgroup,
    *,
    name: str,
    layout: Layout,
    pattern: str | None = None,
    use: tuple[str, ...] | None = None,
    owner: tuple[int, int] | None = None,
    host: HostFacts | None = None,
) -> CgroupPlan:
    """The plan for one container.

    pattern, use: the system keys lxc.cgroup.pattern and lxc.cgroup.use.
    owner:        host uid and gid of the container's root where it has a user namespace.
    Raises CgroupError: contradicting keys, a limit that this host cannot hold, no free name.
    """
    host = host or HostFacts.read(layout, relative=cgroup.relative)
    used = _used(layout, use)
    hierarchies, left_out = _usable(used, host)
    translation = translate(cgroup.entries, Layout(layout.kind, hierarchies))
    if translation.problems:
        problem = translation.problems[0]
        if left_out and not translate(cgroup.entries, Layout(layout.kind, used)).problems:
            problem.hint = f"you may not make control groups in {', '.join(left_out)}: have root give you one there"
        raise problem
    limit, payload, monitor, exact = _names(cgroup, name, pattern)
    enable, required = _handed_down(layout.kind, hierarchies, translation.writes)
    pivot = cgroup.dirs.monitor_pivot
    result = CgroupPlan(
        name=name,
        hierarchies=hierarchies,
        bases=host.bases,
        payload=payload,
        limit=limit,
        monitor=monitor,
        suffix=None if exact else 0,
        writes=translation.writes, device_writes=translation.device_writes, devices=translation.devices,
        enable=enable,
        required=required,
        warnings=translation.warnings,
        owner=owner,
        pivot=_checked("lxc.cgroup.dir.monitor.pivot", pivot) if pivot else None,
        left_out=left_out,
    )  # fmt: skip
    while not exact and any(host.taken(h.mount + result.path(h.mount, "limit")) for h in hierarchies):
        result = result.next()
    return result


def _handed_down(
    kind: str, hierarchies: tuple[Hierarchy, ...], writes: tuple[Write, ...]
) -> tuple[tuple[str, ...], dict[str, Write]]:
    """(v2 controllers to enable above the payload, those of them that a limit cannot do without).

    A pure v2 host hands every controller down, so that the container's own init can use them. On a hybrid host the
    root's subtree_control is switched for what a limit or the statistics need and no more.
    """
    unified = hierarchies[-1] if hierarchies and hierarchies[-1].version == 2 else None
    if unified is None:
        return (), {}
    required = {
        write.controller: write
        for write in writes
        if write.mount == unified.mount and write.controller in unified.controllers
    }
    if kind == "v2":
        return unified.controllers, required
    return tuple(name for name in unified.controllers if name in COUNTED or name in required), required


def _names(cgroup: Cgroup, name: str, pattern: str | None) -> tuple[str, str, str | None, bool]:
    """(limit, payload, monitor, exact) as paths below the base."""
    dirs = cgroup.dirs
    if dirs.container or dirs.monitor or dirs.container_inner:
        if dirs.dir:
            raise CgroupError(
                "lxc.cgroup.dir cannot stand beside lxc.cgroup.dir.container or lxc.cgroup.dir.monitor",
                hint="keep lxc.cgroup.dir alone, or the two exact paths",
            )
        if not dirs.container or not dirs.monitor:
            have = "lxc.cgroup.dir.container" if dirs.container else "lxc.cgroup.dir.monitor"
            lack = "lxc.cgroup.dir.monitor" if dirs.container else "lxc.cgroup.dir.container"
            if not dirs.container and not dirs.monitor:
                have, lack = "lxc.cgroup.dir.container.inner", "lxc.cgroup.dir.container and lxc.cgroup.dir.monitor"
            raise CgroupError(f"{have} is set without {lack}", hint="LXC takes them together only: set both")
        limit = _checked("lxc.cgroup.dir.container", dirs.container)
        payload = limit
        if dirs.container_inner:
            payload = f"{limit}/{_checked('lxc.cgroup.dir.container.inner', dirs.container_inner)}"
        return limit, payload, _checked("lxc.cgroup.dir.monitor", dirs.monitor), True
    if dirs.dir:
        limit = f"{_checked('lxc.cgroup.dir', dirs.dir)}/lxc.payload.{name}"
    elif pattern:
        limit = f"{_checked('lxc.cgroup.pattern', pattern.replace('%n', name))}/payload"
    else:
        limit = f"lxc.payload.{name}"
    return limit, limit, None, False


def _checked(key: str, path: str) -> str:
    """The path without slashes around it. Raises CgroupError where it climbs out of the base."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts or ".." in parts:
        raise CgroupError(f'{key}: "{path}" is no path below the base cgroup', hint="a relative path without ..")
    return "/".join(parts)


def _usable(hierarchies: tuple[Hierarchy, ...], host: HostFacts) -> tuple[tuple[Hierarchy, ...], tuple[str, ...]]:
    """The hierarchies in which groups can be made, and the groups in which not. Raises CgroupError: there is none."""
    places = {hierarchy: f"{hierarchy.mount}/{host.bases.get(hierarchy.mount, '')}" for hierarchy in hierarchies}
    left_out = tuple(place for place in places.values() if not host.usable(place))
    if left_out and len(left_out) == len(places):
        raise CgroupError(
            f"you may not make control groups in any of {', '.join(left_out)}",
            hint="systemd-run --user --scope -p Delegate=yes COMMAND gives it a group of its own",
        )
    return tuple(hierarchy for hierarchy, place in places.items() if place not in left_out), left_out


def _used(layout: Layout, use: tuple[str, ...] | None) -> tuple[Hierarchy, ...]:
    """The hierarchies that lxc.cgroup.use picks; None and @all: every one. The unified one always stays."""
    if use is None or "@all" in use or not use:
        return layout.hierarchies
    for controller in use:
        if not layout.v1(controller) and not layout.v2(controller):
            raise CgroupError(
                f'lxc.cgroup.use: no hierarchy of this host has the controller "{controller}"',
                hint="it has " + ", ".join(sorted({c for h in layout.hierarchies for c in h.controllers})),
            )
    return tuple(h for h in layout.hierarchies if h.version == 2 or any(h.serves(c) for c in use))
