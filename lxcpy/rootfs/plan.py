"""From a config and facts to the list of steps that make a container's file system. Pure: it needs no rights.

The runtime applies the phases in this order (A2), with the hooks between them:

    isolate   pre-mount hooks   root   mounts   mount and autodev hooks   devices   (terminals)   (pivot)   finish
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from lxcpy import paths
from lxcpy.config.model import Cap, Config
from lxcpy.errors import RootfsError
from lxcpy.kernel import mount
from lxcpy.rootfs import auto, dev, fstab
from lxcpy.rootfs.auto import Hierarchy
from lxcpy.rootfs.ops import Isolate, Mount, MountRoot, Operation, Propagate, RootSource, Sysctl

__all__ = ["Facts", "Hierarchy", "RootfsPlan", "plan"]

CAP_NET_ADMIN, CAP_SYS_ADMIN = 12, 21


@dataclass(frozen=True)
class Facts:
    """What a plan depends on besides the config.

    source:           the rootfs as the backend takes it, without its type; None: the host's root is shared
    backend:          mounts `source`; None without a source
    mount:            where the rootfs is mounted
    userns:           the container has a user namespace of its own
    cgroup_namespace: … and a cgroup namespace
    cgroups:          auto.Hierarchy of each of the host's hierarchies, in the host's order
    drops_sys_admin:  the container will lack CAP_SYS_ADMIN for a reason beyond lxc.cap.*
    fstab:            the text of lxc.mount.fstab; None: read when the plan is made
    """

    name: str
    lxcpath: str = paths.LXCPATH
    source: str | None = None
    backend: RootSource | None = None
    mount: str = paths.ROOTFS_MOUNT
    userns: bool = False
    cgroup_namespace: bool = True
    cgroups: Sequence[tuple[str, int, Sequence[str], str]] = ()
    drops_sys_admin: bool = False
    own_net: bool = True
    own_pid: bool = True
    fstab: str | None = None


@dataclass(frozen=True)
class RootfsPlan:
    """The phases."""

    isolate: list[Operation] = field(default_factory=list)
    root: list[Operation] = field(default_factory=list)
    mounts: list[Operation] = field(default_factory=list)
    devices: list[Operation] = field(default_factory=list)
    finish: list[Operation] = field(default_factory=list)

    def describe(self) -> list[str]:
        """The plan as lines, for --dry-run."""
        lines = []
        for phase in ("isolate", "root", "mounts", "devices", "finish"):
            for operation in getattr(self, phase):
                suffix = " (optional)" if operation.optional else ""
                where = f"  [{operation.origin}]" if operation.origin is not None else ""
                lines.append(f"{phase}: {operation}{suffix}{where}")
        return lines


def drops(cap: Cap, name: str, number: int) -> bool:
    """Whether the container ends up without a capability."""
    words = (name, str(number))
    if cap.keep is not None:
        return not any(word in cap.keep for word in words)
    return any(word in cap.drop for word in words)


def plan(config: Config, facts: Facts) -> RootfsPlan:
    """The steps for a container. Raises RootfsError for a config that contradicts itself or the facts."""
    origin = config.at("lxc.mount.auto")
    try:
        tokens = auto.parse(config.mount.auto)
    except ValueError as error:
        raise RootfsError(f"lxc.mount.auto: {error}", at=origin) from error
    keeps_net_admin = not drops(config.cap, "net_admin", CAP_NET_ADMIN)
    mounts = dev.filesystem(config)
    mounts += auto.proc_and_sys(tokens, keeps_net_admin=keeps_net_admin, origin=origin)
    mounts += _entries(config, facts, tokens)
    keeps_sys_admin = not (facts.drops_sys_admin or drops(config.cap, "sys_admin", CAP_SYS_ADMIN))
    mounts += auto.cgroups(
        tokens,
        tuple(Hierarchy(*item) for item in facts.cgroups),
        cgroup_namespace=facts.cgroup_namespace,
        keeps_sys_admin=keeps_sys_admin,
        origin=origin,
    )
    return RootfsPlan(
        isolate=[Isolate()],
        root=_root(config, facts),
        mounts=mounts,
        devices=dev.devices(config),
        finish=_finish(config, tokens),
    )


def _root(config: Config, facts: Facts) -> list[Operation]:
    operations: list[Operation] = [Isolate()]
    if facts.source is None:
        return operations
    origin = config.at("lxc.rootfs.path")
    if facts.backend is None:
        raise RootfsError(f'no storage backend for the root file system "{facts.source}"', at=origin)
    words = (config.rootfs.options or "").split(",")
    idmap = next((word.partition("=")[2] for word in words if word.startswith("idmap=")), None)
    options = ",".join(word for word in words if word and not word.startswith("idmap="))
    if idmap is not None and facts.backend.type != "dir":
        raise RootfsError(
            f"lxc.rootfs.options: idmap={idmap} works with storage of type dir only, not {facts.backend.type}",
            at=config.at("lxc.rootfs.options"),
        )
    flags = mount.parse_options(options).flags
    operations.append(
        MountRoot(facts.backend, facts.source, facts.mount, options or None, idmap, flags, origin)
    )  # fmt: skip
    return operations


def _entries(config: Config, facts: Facts, tokens: auto.Auto) -> list[Operation]:
    place = fstab.Place(facts.source, facts.lxcpath, facts.name)
    operations: list[Operation] = []
    if config.mount.fstab:
        text = facts.fstab
        if text is None:
            text = fstab.read(config.mount.fstab, config.at("lxc.mount.fstab"))
        operations += fstab.from_text(text, config.mount.fstab, place)
    lines = [(line, config.at("lxc.mount.entry", item)) for item, line in enumerate(config.mount.entry)]
    operations += fstab.from_lines(lines, place)
    shared = auto.shmounts(tokens, config.at("lxc.mount.auto"))
    operations += shared
    if config.apparmor.allow_nesting and (config.mount.entry or shared):
        # an unspoiled proc and sys let a container inside mount its own; only with an entry: LXC's habit (D9)
        origin = config.at("lxc.apparmor.allow_nesting")
        for fstype, name in (("proc", "proc"), ("sysfs", "sys")):
            operations.append(
                Mount(name, f"dev/.lxc/{name}", fstype, create="dir", origin=origin, optional=True)
            )  # fmt: skip
    return operations


def _finish(config: Config, tokens: auto.Auto) -> list[Operation]:
    operations: list[Operation] = []
    if tokens.shmounts is not None:
        path = tokens.shmounts[1].strip("/")
        operations.append(Propagate(path, mount.MS_SLAVE | mount.MS_REC, config.at("lxc.mount.auto")))
    if config.autodev.enabled:
        operations.append(dev.BootId())
    for key, value in config.sysctl:
        operations.append(Sysctl(key, value, config.at(f"lxc.sysctl.{key}")))
    return operations
