"""Settings into the frozen model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from lxcpy.config import model, schema
from lxcpy.config.keys.row import CGROUP, FOLD, GROUP, LIST, MAP, ONE, WORDS
from lxcpy.config.settings import Settings
from lxcpy.errors import Origin

# Where a group of fields lives: parent → class. Longest first, so that inner groups are made before outer ones.
CLASSES: dict[str, Any] = {
    "cgroup.dirs": model.CgroupDirs, "uts": model.Uts, "init": model.Init, "execute": model.Execute,
    "rootfs": model.Rootfs, "mount": model.Mount, "autodev": model.Autodev, "cgroup": model.Cgroup, "cap": model.Cap,
    "seccomp": model.Seccomp, "apparmor": model.Apparmor, "selinux": model.Selinux, "namespace": model.Namespaces,
    "time": model.Time, "console": model.Console, "tty": model.Tty, "pty": model.Pty, "hook": model.Hooks,
    "environment": model.Environment, "signal": model.Signals, "monitor": model.Monitor, "start": model.Start,
    "restart": model.Restart, "log": model.LogKeys,
}  # fmt: skip
_SPLIT = {row.into: row.into.rpartition(".")[::2] for row in schema.ROWS if row.into}
_ROW = {row.into: row for row in schema.ROWS if row.into and row.shape is not GROUP and row.shape is not CGROUP}
BACKENDS = frozenset(
    ["dir", "overlay", "overlayfs", "btrfs", "zfs", "lvm", "loop", "nbd", "rbd", "aufs", "best", "unknown"]
)


def build(settings: Settings, warnings: tuple[tuple[Origin, str], ...] = ()) -> model.Config:
    """The Config that the settings amount to."""
    groups: dict[str, dict[str, Any]] = {}
    for into, value in settings.values.items():
        parent, name = _SPLIT[into]
        groups.setdefault(parent, {})[name] = _final(into, value)
    if limits := settings.limits:
        groups.setdefault("cgroup", {})["entries"] = tuple(model.CgroupEntry(*entry) for entry in limits)
    _settle_rootfs(groups)
    top = groups.pop("", {})
    for parent, made in CLASSES.items():
        if parent in groups:
            outer, _, name = parent.rpartition(".")
            fields = made(**groups.pop(parent))
            if outer:
                groups.setdefault(outer, {})[name] = fields
            else:
                top[parent] = fields
    if settings.nets:
        top["net"] = tuple(_nic(index, settings.nets[index]) for index in sorted(settings.nets))
    return model.Config(**top, warnings=warnings, origins=_origins(settings))


def _final(into: str, value: Any) -> Any:
    """A setting in the form that the model keeps."""
    if into == "idmap":
        return tuple(model.IdMap(*entry) for entry in value)
    if into == "prlimit":
        return tuple(model.Limit(name, soft, hard) for name, (soft, hard) in value.items())
    if into == "sysctl" or into == "proc":
        return tuple(value.items())
    if value == 0 and value is not False and (into.startswith("signal.") or into == "monitor.signal_pdeath"):
        return None
    return tuple(value) if isinstance(value, list) else value


def _settle_rootfs(groups: dict[str, dict[str, Any]]) -> None:
    """Fold lxc.rootfs.backend of LXC 2.0 into the path."""
    rootfs = groups.get("rootfs", {})
    backend = rootfs.pop("backend", None)
    path = rootfs.get("path")
    if backend and path and path.partition(":")[0] not in BACKENDS:
        rootfs["path"] = f"{backend}:{path}"


def _nic(index: int, values: dict[str, Any]) -> model.Nic:
    fields: dict[str, Any] = {}
    veth: dict[str, Any] = {}
    for into, value in values.items():
        parent, name = _SPLIT[into]
        if isinstance(value, list):
            value = tuple(value)
        if parent == "net.veth":
            veth[name] = value
        else:
            fields[name] = value
    if veth:
        fields["veth"] = model.Veth(**veth)
    return model.Nic(index, **fields)


def _origins(settings: Settings) -> dict[str, Origin]:
    found: dict[str, Origin] = {}
    for into, where in settings.where.items():
        _spread(found, into, _ROW[into].name, where)
    for index, wheres in settings.nets_where.items():
        for into, where in wheres.items():
            _spread(found, into, _ROW[into].name.replace("[i]", str(index)), where)
    for dialect, sub, _, at in settings.limits:
        if at is not None:
            found[f"lxc.cgroup{'' if dialect == 1 else '2'}.{sub}"] = at
    return found


def _spread(found: dict[str, Origin], into: str, name: str, where: Any) -> None:
    shape = _ROW[into].shape
    if shape is ONE:
        if where is not None:
            found[name] = where
    elif shape is MAP:
        found.update((name[:-1] + sub, at) for sub, at in where.items() if at is not None)
    elif shape in (LIST, WORDS) or isinstance(where, list):
        _number(found, name, where)
    elif shape is FOLD and where is not None:
        found[name] = where


def _number(found: dict[str, Origin], name: str, where: Iterable[Origin | None]) -> None:
    for item, at in enumerate(where):
        if at is not None:
            found[f"{name}#{item}"] = found[name] = at
