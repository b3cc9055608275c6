"""Which cgroup hierarchies this host has mounted: v1, v2 or both side by side (hybrid).

Read once from /proc/self/mountinfo; no directory is listed. Only the unified hierarchy needs a second file, its
cgroup.controllers, because a mount line does not say which controllers v2 was given.
"""

from __future__ import annotations

from lxcpy.errors import CgroupError
from lxcpy.kernel.record import NamedTuple

# Words of a v1 mount that name a controller; every other word (xattr, release_agent=, noprefix...) is an option.
V1_CONTROLLERS = frozenset((
    "blkio", "cpu", "cpuacct", "cpuset", "debug", "devices", "dmem", "freezer", "hugetlb", "memory", "misc", "net_cls",
    "net_prio", "perf_event", "pids", "rdma",
))  # fmt: skip
STANDARD_PLACE = "/sys/fs/cgroup"


class Hierarchy(NamedTuple):
    """One tree of groups.

    name:        `cpu,cpuacct`, `name=systemd`; `unified` for v2.
    mount:       where it is mounted.
    version:     1 or 2.
    controllers: v1: what is mounted here (a named hierarchy has its name as its only controller, `name=systemd`);
                 v2: what the root group can enable.
    root:        which group of the hierarchy the mount shows (`/`, but for binds and containers without a cgroup
                 namespace).
    """

    name: str
    mount: str
    version: int
    controllers: tuple[str, ...]
    root: str = "/"

    def serves(self, controller: str) -> bool:
        """Whether this hierarchy has the controller; `systemd` finds `name=systemd`."""
        return controller in self.controllers or f"name={controller}" in self.controllers


class Layout(NamedTuple):
    """Every hierarchy, v1 ones in the order of their mounts, the unified one last."""

    kind: str  # v1, v2, hybrid
    hierarchies: tuple[Hierarchy, ...]

    @property
    def unified(self) -> Hierarchy | None:
        """The v2 hierarchy."""
        last = self.hierarchies[-1]
        return last if last.version == 2 else None

    def v1(self, controller: str) -> Hierarchy | None:
        """The v1 hierarchy that has the controller."""
        for hierarchy in self.hierarchies:
            if hierarchy.version == 1 and hierarchy.serves(controller):
                return hierarchy
        return None

    def v2(self, controller: str) -> Hierarchy | None:
        """The unified hierarchy if it has the controller."""
        unified = self.unified
        return unified if unified is not None and controller in unified.controllers else None


_detected: list[Layout] = []


def detect(mountinfo: str | None = None, root: str | None = None) -> Layout:
    """The layout of this host; read once a process when called without arguments.

    mountinfo: the text to read in place of /proc/self/mountinfo.
    root:      a directory that stands for `/`: mount points are taken below it (tests).
    Raises CgroupError where no hierarchy is mounted.
    """
    if mountinfo is None and root is None:
        if not _detected:
            _detected.append(_detect(_read("/proc/self/mountinfo"), ""))
        return _detected[0]
    prefix = (root or "").rstrip("/")
    return _detect(_read(f"{prefix}/proc/self/mountinfo") if mountinfo is None else mountinfo, prefix)


def forget() -> None:
    """Detect anew at the next call (a hierarchy was mounted)."""
    _detected.clear()


def _detect(mountinfo: str, prefix: str) -> Layout:
    mounts: dict[str, Hierarchy] = {}  # by mount point: a later mount hides an earlier one at the same place
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        fields, tail = before.split(" "), after.split(" ")
        if not separator or len(fields) < 6 or len(tail) < 3:
            continue
        mount = _unescape(fields[4])
        mounts.pop(mount, None)
        if tail[0] == "cgroup2":
            mounts[mount] = Hierarchy("unified", mount, 2, (), _unescape(fields[3]))
        elif tail[0] == "cgroup":
            controllers = tuple(w for w in tail[2].split(",") if w in V1_CONTROLLERS or w.startswith("name="))
            if controllers:
                mounts[mount] = Hierarchy(",".join(controllers), mount, 1, controllers, _unescape(fields[3]))
    found: dict[str, Hierarchy] = {}
    # A hierarchy may be mounted again elsewhere (a container's rootfs, a bind): the standard place counts, else the
    # first.
    for hierarchy in sorted(mounts.values(), key=lambda h: not f"{h.mount}/".startswith(f"{STANDARD_PLACE}/")):
        found.setdefault(hierarchy.name, hierarchy)
    unified = found.pop("unified", None)
    hierarchies = [hierarchy._replace(mount=prefix + hierarchy.mount) for hierarchy in found.values()]
    kind = "v1" if unified is None else "hybrid" if hierarchies else "v2"
    if unified is not None:
        mount = prefix + unified.mount
        hierarchies.append(unified._replace(mount=mount, controllers=_controllers(mount)))
    if not hierarchies:
        raise CgroupError(
            "no cgroup hierarchy is mounted on this host",
            hint=f"mount one: mount -t cgroup2 cgroup2 {STANDARD_PLACE}",
        )
    return Layout(kind, tuple(hierarchies))


def _controllers(mount: str) -> tuple[str, ...]:
    try:
        return tuple(_read(f"{mount}/cgroup.controllers").split())
    except OSError:
        return ()


def _read(path: str) -> str:
    with open(path, encoding="utf-8", errors="surrogateescape") as file:
        return file.read()


def _unescape(text: str) -> str:
    r"""A path of mountinfo: the kernel writes space, tab, newline and backslash as \040 and so on."""
    if "\\" not in text:
        return text
    head, *rest = text.split("\\")
    return head + "".join(chr(int(part[:3], 8)) + part[3:] for part in rest)
