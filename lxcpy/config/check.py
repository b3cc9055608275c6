"""Rules that no single line can break: keys that need or exclude each other, and files that must be there.

`check` reports everything at once; `load` does not apply these rules, since most of them only matter once a container
starts, and the parts that act on a key say what is wrong with it then.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lxcpy import paths
from lxcpy.config import schema
from lxcpy.config.build import build
from lxcpy.config.keys.row import ONE
from lxcpy.config.lines import run
from lxcpy.config.model import Config, IdMap, Nic
from lxcpy.config.presets import preset
from lxcpy.errors import Origin


class Finding(NamedTuple):
    """One thing to tell the user."""

    error: bool  # the container cannot start; else something will surprise
    what: str
    at: Origin | None = None
    hint: str | None = None

    def lines(self) -> list[str]:
        """As a user sees it."""
        lines = [f"{'error' if self.error else 'warning'}: {self.what}"]
        if self.at is not None:
            lines.append(f"  at {self.at}")
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return lines

    def to_dict(self) -> dict[str, object]:
        """As plain data."""
        severity = "error" if self.error else "warning"
        return {"severity": severity, "what": self.what, "cure": self.hint, "at": self.at and self.at.to_dict()}


def check(path: str, *, defines: Sequence[str] = (), files: bool = True) -> list[Finding]:
    """Everything that is wrong with a config file, and everything that will surprise, errors first.

    files: also look whether the files it names are there. Raises ConfigError where the file cannot be read.
    """
    loader = run(path, defines, note_lines=True)
    found = [Finding(True, it.what, it.at, it.hint) for it in loader.problems]
    found += [Finding(False, what, at) for at, what in loader.warnings]
    if not loader.problems:
        config = build(loader.settings)
        found += rules(config)
        if files:
            found += missing(config)
            found += strangers(path, config)
    found += overruled(path, loader.lines)
    return sorted(found, key=lambda finding: not finding.error)


def rules(config: Config) -> Iterator[Finding]:
    """The rules between keys. Pure."""
    for nic in config.net:
        yield from _interface(config, nic)
    yield from _cgroup_dirs(config)
    yield from _id_maps(config)
    yield from _others(config)
    yield from _restart(config)


def _interface(config: Config, nic: Nic) -> Iterator[Finding]:
    name = f"lxc.net.{nic.index}"
    at = next((origin for key, origin in config.origins.items() if key.startswith(f"{name}.")), None)
    if nic.type is None:
        hint = f"write {name}.type = veth, or another kind, before its other keys"
        yield Finding(True, f"{name} has no type", at, hint)
        return
    type_at = config.at(f"{name}.type")
    if nic.type in ("vlan", "macvlan", "ipvlan", "phys") and nic.link is None:
        yield Finding(True, f"{name}.type = {nic.type} needs {name}.link", type_at, "name the device of the host")
    if nic.type == "vlan" and nic.vlan_id is None:
        yield Finding(True, f"{name}.type = vlan needs {name}.vlan.id", type_at)
    for version, gateway, addresses in (
        (4, nic.ipv4_gateway, nic.ipv4_address),
        (6, nic.ipv6_gateway, nic.ipv6_address),
    ):
        key = f"{name}.ipv{version}.gateway"
        if gateway is not None and gateway != "dev" and not addresses:
            yield Finding(True, f"{key} needs {name}.ipv{version}.address", config.at(key))
        if gateway is not None and nic.flags != "up":
            yield Finding(True, f"{key} needs {name}.flags = up", config.at(key))
        if gateway == "auto" and nic.link is None:
            yield Finding(True, f"{key} = auto needs {name}.link, whose address it takes", config.at(key))
    if nic.type == "veth" and nic.link is None and nic.veth.mode == "bridge":
        yield Finding(False, f"{name} has no link: the host's end of the pair is connected to nothing", type_at,
                      f"{name}.link = lxcbr0")  # fmt: skip
    if nic.type == "veth" and nic.flags is None:
        yield Finding(False, f"{name} stays down", type_at, f"{name}.flags = up")


def _cgroup_dirs(config: Config) -> Iterator[Finding]:
    dirs = config.cgroup.dirs
    for field, key in (("container", "container"), ("monitor", "monitor"), ("container_inner", "container.inner")):
        if dirs.dir is not None and getattr(dirs, field) is not None:
            yield Finding(True, f"lxc.cgroup.dir and lxc.cgroup.dir.{key} exclude each other",
                          config.at(f"lxc.cgroup.dir.{key}"))  # fmt: skip
    if (dirs.container is None) != (dirs.monitor is None):
        lone, other = ("container", "monitor") if dirs.container else ("monitor", "container")
        yield Finding(True, f"lxc.cgroup.dir.{lone} needs lxc.cgroup.dir.{other}", config.at(f"lxc.cgroup.dir.{lone}"))


def _overlap(first: IdMap, second: IdMap) -> str | None:
    if first.nsid < second.nsid + second.count and second.nsid < first.nsid + first.count:
        return "inside"
    if first.hostid < second.hostid + second.count and second.hostid < first.hostid + first.count:
        return "on the host"
    return None


def _id_maps(config: Config) -> Iterator[Finding]:
    for kind, what in (("u", "user"), ("g", "group")):
        maps = [(item, entry) for item, entry in enumerate(config.idmap) if entry.kind == kind]
        for at, (item, entry) in enumerate(maps):
            for _, other in maps[:at]:
                where = _overlap(entry, other)
                if where:
                    yield Finding(True, f'lxc.idmap: "{kind} {entry.nsid} {entry.hostid} {entry.count}" and "{kind} '
                                  f'{other.nsid} {other.hostid} {other.count}" overlap {where}',
                                  config.at("lxc.idmap", item))  # fmt: skip
        if config.idmap and not any(entry.nsid == 0 for _, entry in maps):
            yield Finding(True, f"lxc.idmap maps no {what} 0: the container would have no root", config.at("lxc.idmap"),
                          f"lxc.idmap = {kind} 0 100000 65536")  # fmt: skip


def _others(config: Config) -> Iterator[Finding]:
    space = config.namespace
    for name in space.share:
        if space.keep is not None and name in space.keep:
            at = config.at(f"lxc.namespace.share.{name}")
            yield Finding(True, f"the {name} namespace is both shared and kept", at)
    if config.rootfs.path is None:
        yield Finding(False, "there is no lxc.rootfs.path: the container would see the host's files")
    if config.rootfs.options and config.rootfs.path is None:
        yield Finding(False, "lxc.rootfs.options does nothing without lxc.rootfs.path", config.at("lxc.rootfs.options"))
    if config.hook.autodev and not config.autodev.enabled:
        yield Finding(False, "lxc.hook.autodev does not run while lxc.autodev is 0", config.at("lxc.hook.autodev"))
    if config.seccomp.notify_proxy and not config.seccomp.profile:
        yield Finding(False, "lxc.seccomp.notify.proxy does nothing without lxc.seccomp.profile",
                      config.at("lxc.seccomp.notify.proxy"))  # fmt: skip
    if config.tty.dir is not None and config.tty.max == 0 and config.console.path == "none":
        yield Finding(False, "lxc.tty.dir does nothing without ttys and console", config.at("lxc.tty.dir"))
    for item, entry in enumerate(config.mount.entry):
        if len(entry.split()) < 3:
            yield Finding(True, f'lxc.mount.entry: "{entry}" has fewer than three fields',
                          config.at("lxc.mount.entry", item), "SOURCE TARGET TYPE OPTIONS 0 0")  # fmt: skip


def _restart(config: Config) -> Iterator[Finding]:
    restart, at = config.restart, config.at("lxcpy.restart")
    if restart.policy != "no" and config.ephemeral:
        yield Finding(False, "lxcpy.restart does nothing with lxc.ephemeral: nothing is left to start again", at)
    for key in ("delay", "delay.max", "limit", "period"):
        where = config.at(f"lxcpy.restart.{key}")
        if where and restart.policy == "no":
            yield Finding(False, f"lxcpy.restart.{key} does nothing without lxcpy.restart", where,
                          "lxcpy.restart = on-failure")  # fmt: skip
    if restart.delay_max < restart.delay and restart.policy != "no":
        yield Finding(False, f"lxcpy.restart.delay.max is less than lxcpy.restart.delay ({restart.delay:g} s), which "
                      "counts", config.at("lxcpy.restart.delay.max"))  # fmt: skip


def strangers(path: str, config: Config) -> Iterator[Finding]:
    """Containers that the config at LXCPATH/NAME/config names and that are not there."""
    directory, file = os.path.split(os.path.abspath(path))
    if file != "config":
        return  # who knows whose it will be
    lxcpath = os.path.dirname(directory)
    known = paths.containers(lxcpath)
    for key, names in (("requires", config.start.requires), ("after", config.start.after)):
        for item, name in enumerate(names):
            if name not in known:
                near = difflib.get_close_matches(name, known, 1)
                hint = f'did you mean "{near[0]}"?' if near else None
                what = f'lxcpy.start.{key}: there is no container "{name}" in {lxcpath}'
                yield Finding(key == "requires", what, config.at(f"lxcpy.start.{key}", item), hint)


def missing(config: Config) -> Iterator[Finding]:
    """The files that the config names and that are not there."""
    for path, key in (
        (config.seccomp.profile and preset(config.seccomp.profile), "lxc.seccomp.profile"),
        (config.mount.fstab, "lxc.mount.fstab"),
        (_directory(config.rootfs.path), "lxc.rootfs.path"),
    ):
        if path and not os.path.exists(path):
            yield Finding(True, f'{key}: "{path}" does not exist', config.at(key))
    for name in ("pre_start", "pre_mount", "mount", "autodev", "start_host", "stop", "post_stop", "clone", "destroy"):
        key = f"lxc.hook.{name.replace('_', '-')}"
        for item, command in enumerate(getattr(config.hook, name)):
            program = command.split()[0] if command.split() else ""
            if program.startswith("/") and not os.access(program, os.X_OK):
                yield Finding(True, f'{key}: "{program}" does not exist or is not executable', config.at(key, item))
    mount = config.rootfs.mount
    if mount is not None and mount != paths.ROOTFS_MOUNT and config.rootfs.path and not os.path.isdir(mount):
        yield Finding(True, f'lxc.rootfs.mount: "{mount}" is no directory', config.at("lxc.rootfs.mount"))


def _directory(path: str | None) -> str | None:
    """The directory of a root filesystem of type dir."""
    kind, colon, source = (path or "").partition(":")
    if not colon:
        return path
    return source if kind == "dir" else None


def overruled(file: str, lines: Sequence[tuple[int, str, str]]) -> Iterator[Finding]:
    """Lines of one file that a later line of it undoes: lines are (number, key, value)."""
    last: dict[str, tuple[int, str]] = {}
    for number, key, value in lines:
        head, _, name = key.rpartition(".")
        if name == "type" and key.startswith("lxc.net."):
            lost = [other for other in last if other.startswith(f"{head}.")]
            for other in lost:
                yield Finding(False, f"{other} is lost: {key} begins the interface anew",
                              Origin(file, last.pop(other)[0]), f"write it below line {number}")  # fmt: skip
        found = schema.lookup(key)
        if found is None or found.row.shape is not ONE or not value:
            continue
        before = last.get(key)
        if before is not None and before[1] != value:
            yield Finding(False, f'{key} = "{before[1]}" has no effect: line {number} sets it to "{value}"',
                          Origin(file, before[0]))  # fmt: skip
        last[key] = (number, value)
