"""lxc.mount.auto: proc, sys, cgroups and the shared mount point (runtime.md, section C)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lxcpy.errors import Origin, RootfsError
from lxcpy.kernel import mount
from lxcpy.rootfs.ops import Bind, MakeDirectory, Mount, Operation, ReadOnly

SAFE = mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC
CGROUPS = "sys/fs/cgroup"
SHMOUNTS = "/dev/.lxc-mounts"


class Hierarchy(NamedTuple):
    """One cgroup hierarchy of the host: its mount point, version (1 or 2), controllers (`cpu`, `name=systemd`), and the
    container's group below the mount point (`/lxc.payload.c1`)."""

    mount: str
    version: int
    controllers: Sequence[str]
    payload: str

    @property
    def name(self) -> str:
        return self.mount.rstrip("/").rpartition("/")[2]


class Auto(NamedTuple):
    """The tokens that count: of each family the last one written."""

    proc: str | None = None  # mixed, rw
    sys: str | None = None  # mixed, ro, rw
    cgroup: str | None = None  # cgroup, cgroup-full, cgroup2
    cgroup_mode: str | None = None  # mixed, ro, rw; None: as the capabilities are
    cgroup_force: bool = False
    shmounts: tuple[str, str] | None = None  # (host, container)


def parse(tokens: tuple[str, ...]) -> Auto:
    """The meaning of the tokens. Raises ValueError for an unknown one."""
    auto = Auto()
    for token in tokens:
        family, _, rest = token.partition(":")
        words = rest.split(":") if ":" in token else []
        if family == "proc" and words in ([], ["mixed"], ["rw"]):
            auto = auto._replace(proc=rest or "mixed")
        elif family == "sys" and words in ([], ["mixed"], ["ro"], ["rw"]):
            auto = auto._replace(sys=rest or "mixed")
        elif family in ("cgroup", "cgroup-full", "cgroup2"):
            auto = _cgroup(auto, family, words, token)
        elif family == "shmounts" and rest:
            host, _, container = rest.partition(":")
            auto = auto._replace(shmounts=(host, container or SHMOUNTS))
        else:
            raise ValueError(f'"{token}" is not an automatic mount')
    return auto


def _cgroup(auto: Auto, family: str, words: list[str], token: str) -> Auto:
    force = words[-1:] == ["force"]
    modes = words[:-1] if force else words
    allowed = ([], ["ro"]) if family == "cgroup2" else ([], ["mixed"], ["ro"], ["rw"])
    if modes not in allowed:
        raise ValueError(f'"{token}" is not an automatic mount')
    mode = modes[0] if modes else ("rw" if family == "cgroup2" else None)
    # cgroup2 is always mounted: LXC 5 and later
    return auto._replace(cgroup=family, cgroup_mode=mode, cgroup_force=force or family == "cgroup2")


def proc_and_sys(auto: Auto, *, keeps_net_admin: bool, origin: Origin | None) -> list[Operation]:
    """The mounts of /proc and /sys.

    Without CAP_NET_ADMIN nothing in /proc/sys/net needs to be writable.
    """
    operations: list[Operation] = []
    if auto.proc is not None:
        operations.append(Mount("proc", "proc", "proc", SAFE, create="own", fresh=True, origin=origin))
    if auto.proc == "mixed":
        operations.append(ReadOnly("proc/sys", "net" if keeps_net_admin else None, origin=origin))
        operations.append(ReadOnly("proc/sysrq-trigger", origin=origin))
    if auto.sys is not None:
        flags = {"rw": 0, "ro": mount.MS_RDONLY, "mixed": SAFE}[auto.sys]
        operations.append(Mount("sysfs", "sys", "sysfs", flags, create="own", fresh=True, origin=origin))
    if auto.sys == "mixed":
        operations.append(ReadOnly("sys", "devices/virtual/net", mounted=True, origin=origin))
    return operations


def shmounts(auto: Auto, origin: Origin | None) -> list[Operation]:
    """The mount point shared with the host."""
    if auto.shmounts is None:
        return []
    host, container = auto.shmounts
    return [Bind(host, container.strip("/"), create="dir", origin=origin)]


def cgroups(
    auto: Auto, hierarchies: tuple[Hierarchy, ...], *, cgroup_namespace: bool, keeps_sys_admin: bool,
    origin: Origin | None,
) -> list[Operation]:  # fmt: skip
    """The cgroup filesystems that the container finds mounted.

    With a cgroup namespace its init mounts them itself, unless it may not, was told not to, or the host is pure
    cgroup v2, where too many an init waits for it in vain. Raises RootfsError if a cgroup2 hierarchy is asked for and
    there is none.
    """
    if auto.cgroup is None or not hierarchies:
        return []
    unified = all(hierarchy.version == 2 for hierarchy in hierarchies)
    force = auto.cgroup_force or not keeps_sys_admin or unified
    if cgroup_namespace and not force:
        return []
    # who may remount gains nothing by a read-only part
    mode = auto.cgroup_mode or ("rw" if keeps_sys_admin else "mixed")
    if unified or auto.cgroup == "cgroup2":
        return _cgroup2(mode, hierarchies, cgroup_namespace, origin)
    data = "size=10240k,mode=755"
    flags = SAFE | mount.MS_RELATIME
    operations: list[Operation] = [Mount("none", CGROUPS, "tmpfs", flags, data, "dir", origin=origin)]
    for hierarchy in hierarchies:
        place = f"{CGROUPS}/{hierarchy.name}"
        operations.append(MakeDirectory(place, origin=origin))
        if cgroup_namespace or auto.cgroup == "cgroup-full":
            operations.append(_filesystem(hierarchy, place, mode, origin))
        else:
            operations.extend(_own_part(hierarchy, place, mode, origin))
    return operations


def _filesystem(hierarchy: Hierarchy, place: str, mode: str, origin: Origin | None) -> Mount:
    flags = SAFE | mount.MS_RELATIME | (mount.MS_RDONLY if mode == "ro" else 0)
    if hierarchy.version == 2:
        return Mount("none", place, "cgroup2", flags, origin=origin)
    return Mount("none", place, "cgroup", flags, ",".join(hierarchy.controllers), origin=origin)


def _own_part(hierarchy: Hierarchy, place: str, mode: str, origin: Origin | None) -> list[Operation]:
    """Nothing of the host's groups but the container's own, at its full path."""
    payload = hierarchy.payload.strip("/")
    operations: list[Operation] = [MakeDirectory(f"{place}/{payload}", origin=origin)]
    if mode in ("ro", "mixed"):
        operations.append(ReadOnly(place, origin=origin))
    flags = mount.MS_RDONLY if mode == "ro" else 0
    operations.append(Bind(f"{hierarchy.mount}/{payload}", f"{place}/{payload}", flags=flags, origin=origin))
    return operations


def _cgroup2(
    mode: str, hierarchies: tuple[Hierarchy, ...], cgroup_namespace: bool, origin: Origin | None
) -> list[Operation]:
    hierarchy = next((hierarchy for hierarchy in hierarchies if hierarchy.version == 2), None)
    if hierarchy is None:
        hint = "use cgroup:rw:force in lxc.mount.auto, or mount cgroup2 on the host"
        raise RootfsError("the host has no cgroup2 hierarchy to mount in the container", at=origin, hint=hint)
    if cgroup_namespace:
        return [_filesystem(hierarchy, CGROUPS, mode, origin)._replace(create="dir")]
    # the host's namespace: all groups are seen, and only the own one can be written to
    payload = hierarchy.payload.strip("/")
    flags = mount.MS_RDONLY if mode == "ro" else 0
    return [
        _filesystem(hierarchy, CGROUPS, "ro", origin)._replace(create="dir"),
        Bind(f"{hierarchy.mount}/{payload}", f"{CGROUPS}/{payload}", flags=flags, origin=origin),
    ]
