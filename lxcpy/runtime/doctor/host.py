"""What a container takes from the machine: control groups, ids, labels, the supervisor."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator

from lxcpy import paths
from lxcpy.cgroups import layout as cgroup_layout
from lxcpy.cgroups import plan as cgroup_plan
from lxcpy.config.model import Config, IdMap
from lxcpy.errors import CgroupError, ConfigError, LxcpyError, Origin, SecurityError
from lxcpy.kernel import idmap
from lxcpy.runtime import client, joins
from lxcpy.runtime.doctor.finding import ERROR, WARNING, Finding, failed, ok
from lxcpy.security import apparmor
from lxcpy.security import seccomp as filters


def supervisor() -> Iterator[Finding]:
    """Whether commands reach it. None at all is fine: the first start brings one up."""
    try:
        found = client.connect_if_any()
        if found is None:
            yield ok("supervisor", "none runs; the first container to start brings one up")
            return
        with found:
            status = found.ask("status", timeout=5)
        yield ok("supervisor", f"it answers (pid {status['pid']})")
    except TimeoutError:
        yield Finding(ERROR, "supervisor", "it does not answer", "containers can be neither started nor stopped",
                      "kill it: containers live on, and the next command starts another")  # fmt: skip
    except (LxcpyError, OSError) as error:
        what = error.what if isinstance(error, LxcpyError) else str(error)
        yield Finding(ERROR, "supervisor", what, "containers can be neither started nor stopped",
                      f"see {paths.run_dir()}/supervisor.log")  # fmt: skip


def cgroups(config: Config, name: str, owner: tuple[int, int]) -> Iterator[Finding]:
    """The groups that a start makes, and the controllers that the limits need."""
    try:
        layout = cgroup_layout.detect()
        plan = cgroup_plan.plan(
            config.cgroup, name=name, layout=layout, pattern=joins.system_value("lxc.cgroup.pattern"),
            use=joins.cgroup_use(), owner=owner,
        )  # fmt: skip
    except CgroupError as error:
        if error.at is None:  # else it is among the config's
            yield failed("cgroups", error, why="the container does not start")
        return
    limits = {write.mount: write for write in (*plan.device_writes, *plan.writes)}
    clean = True
    for hierarchy in plan.hierarchies:
        base = f"{hierarchy.mount}/{plan.bases.get(hierarchy.mount, '')}".rstrip("/")
        trouble = _unusable(base)
        if trouble:
            clean = False
            write = limits.get(hierarchy.mount)
            yield Finding(ERROR, "cgroups", f"no group can be made in {base}: {trouble[0]}",
                          "the container does not start", trouble[1], write.origin if write else None)  # fmt: skip
        elif hierarchy.version == 2:
            for lost in _lost(base, plan):
                clean = False
                yield lost
    if clean:
        held = ", every limit has its controller" if limits else ""
        yield ok("cgroups", f"groups can be made ({layout.kind}){held}")


def _unusable(base: str) -> tuple[str, str] | None:
    """(what, cure) where mkdir would fail."""
    if not os.path.isdir(base):
        return "it is not there", "mount the hierarchy, or correct lxc.cgroup.relative"
    if os.statvfs(base).f_flag & os.ST_RDONLY:
        return "it is mounted read-only", f"mount -o remount,rw,bind {base}; in a container: lxc.mount.auto = cgroup:rw"
    if not os.access(base, os.W_OK):
        return "this user may not write there", "run as root, or by systemd-run --user --scope -p Delegate=yes"
    return None


def _lost(base: str, plan: cgroup_plan.CgroupPlan) -> Iterator[Finding]:
    """Controllers that a limit needs and that the base group of v2 was not given."""
    try:
        with open(f"{base}/cgroup.controllers") as file:
            given = file.read().split()
    except OSError:
        return
    for name, write in plan.required.items():
        if name not in given:
            above = os.path.dirname(base)
            yield Finding(ERROR, "cgroups", f"{write.item}: the controller {name} was not handed down to {base}",
                          "the limit cannot be set, the container does not start",
                          f"echo +{name} > {above}/cgroup.subtree_control; for a user: Delegate=yes of a unit",
                          write.origin)  # fmt: skip


def ids(config: Config) -> Iterator[Finding]:
    """lxc.idmap against /etc/subuid and /etc/subgid. Root may map any id; others' ranges should not be among them."""
    if not config.idmap:
        return
    user = os.geteuid()
    granted = idmap.subids(user)
    others = _others(user)
    clean = True
    for item, entry in enumerate(config.idmap):
        at = config.at("lxc.idmap", item)
        for finding in _entry(entry, granted[0 if entry.kind == "u" else 1], others[entry.kind], user, at):
            clean = False
            yield finding
    if clean:
        yield ok("ids", "lxc.idmap is covered by /etc/subuid and /etc/subgid")


def _entry(entry: IdMap, granted: list[idmap.IdRange], others: list[tuple[str, int, int]], user: int,
           at: Origin | None) -> Iterator[Finding]:  # fmt: skip
    file = "/etc/subuid" if entry.kind == "u" else "/etc/subgid"
    low, high = entry.hostid, entry.hostid + entry.count
    shown = f"lxc.idmap: {entry.kind} {entry.nsid} {entry.hostid} {entry.count}"
    whose = next((name for name, first, last in others if low < last and first < high), None)
    if _covered(low, high, granted) or (entry.count == 1 and low == user):
        return
    option = "--add-subuids" if entry.kind == "u" else "--add-subgids"
    name = _name(user)
    cure = f"usermod {option} {low}-{high - 1} {name}"
    if whose is not None:
        yield Finding(WARNING if user == 0 else ERROR, "ids", f"{shown}: {file} grants some of that to {whose}",
                      f"{whose} and the container could write each other's files",
                      f"choose a range that {file} grants to {name}", at)  # fmt: skip
    elif user:
        yield Finding(ERROR, "ids", f"{shown}: {file} does not grant that to {name}", "the kernel refuses the id map",
                      cure, at)  # fmt: skip
    else:
        yield Finding(WARNING, "ids", f"{shown}: {file} does not reserve that for root",
                      "useradd may give the same ids to a new user, who could then write the container's files",
                      cure, at)  # fmt: skip


def _covered(low: int, high: int, granted: list[idmap.IdRange]) -> bool:
    for entry in sorted(granted, key=lambda entry: entry.hostid):
        if entry.hostid <= low < entry.hostid + entry.count:
            low = entry.hostid + entry.count
    return low >= high


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


def _others(user: int) -> dict[str, list[tuple[str, int, int]]]:
    """By kind: (user, first, last + 1) of what everybody else was granted."""
    own = {str(user), _name(user)}
    found: dict[str, list[tuple[str, int, int]]] = {"u": [], "g": []}
    for kind, path in (("u", "/etc/subuid"), ("g", "/etc/subgid")):
        try:
            with open(path, errors="replace") as file:
                rows = [line.strip().split(":") for line in file]
        except OSError:
            continue
        for row in rows:
            if len(row) == 3 and row[0] not in own and row[1].isdigit() and row[2].isdigit():
                found[kind].append((row[0], int(row[1]), int(row[1]) + int(row[2])))
    return found


def labels(config: Config, name: str, lxcpath: str) -> Iterator[Finding]:
    """The AppArmor profile and the system call filter."""
    host = apparmor.machine()
    at = config.at("lxc.apparmor.profile")
    wanted = config.apparmor.profile
    if wanted not in (None, "unchanged", "unconfined") and not host.enabled:
        yield Finding(WARNING, "apparmor", f"lxc.apparmor.profile = {wanted}: this kernel has no AppArmor",
                      "the container runs without that confinement",
                      "boot with apparmor=1 security=apparmor, or remove the line", at)  # fmt: skip
    else:
        try:
            userns = bool(config.idmap)
            apparmor.plan(config.apparmor, name=name, lxcpath=lxcpath, userns=userns, host=host, at=config.at)
            if wanted is not None:
                yield ok("apparmor", f"lxc.apparmor.profile = {wanted} can be had")
        except SecurityError as error:
            yield failed("apparmor", error, why="the container does not start")
    if config.seccomp.profile:
        try:
            filters.prepare(config.seccomp, at=config.at)
        except (SecurityError, ConfigError) as error:
            yield failed("seccomp", error, why="the container does not start")
