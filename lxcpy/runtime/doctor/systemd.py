"""The systemd inside against the host's control groups.

Facts: systemd before 232 knows cgroup v1 alone (NEWS 232: the unified hierarchy is complete); 258 has dropped v1 (NEWS
258). systemd 256 and 257 refuse v1 on a machine, but follow the host in a container (NEWS 256). How the root filesystem
is given its groups is in rootfs/auto.py: with a cgroup namespace init mounts them itself, unless :force, or v2 alone.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import islice

from lxcpy.cgroups.layout import Layout, detect
from lxcpy.config.model import Config
from lxcpy.errors import CgroupError
from lxcpy.kernel.fd import Fd, open_in_root, read_in_root
from lxcpy.rootfs import auto
from lxcpy.runtime.doctor.finding import ERROR, Finding, ok

CHECK = "systemd"
V2_COMPLETE = 232
V1_GONE = 258
_LIBRARY = re.compile(r"libsystemd-shared-(\d{1,9})")
_FOLDERS = ("usr/lib/systemd", "lib/systemd", "usr/lib64/systemd")
_ENTRIES = 100_000  # of a directory that are looked at
_STATUS_LIMIT = 64 << 20  # bytes of dpkg's status file


def check(root: Fd, config: Config) -> Iterator[Finding]:
    """Nothing where init is something else."""
    if not _is_init(root, config.init.cmd or "/sbin/init"):
        return
    found = version(root)
    if found is None:
        return
    try:
        yield judge(found, detect(), config)
    except CgroupError:
        return  # reported with the control groups


def _is_init(root: Fd, command: str) -> bool:
    path = command.split()[0]
    for _ in range(8):
        if path.rpartition("/")[2] == "systemd":
            return True
        try:
            with open_in_root(root.number, path, os.O_PATH | os.O_NOFOLLOW) as link:
                target = os.readlink("", dir_fd=link.number)
        except OSError:
            return False
        path = target if target.startswith("/") else f"{path.rpartition('/')[0]}/{target}"
    return False


def version(root: Fd) -> int | None:
    """Of the library that it is linked with (since 231), else of dpkg's list."""
    for folder in _FOLDERS:
        for place in (folder, *_multiarch(root, folder)):
            for name in _names(root, place):
                if match := _LIBRARY.match(name):
                    return int(match[1])
    try:
        text = b"\n" + read_in_root(root.number, "var/lib/dpkg/status", _STATUS_LIMIT)
    except OSError:
        return None
    # cut out first: a pattern over the whole would take a hostile file's size squared
    paragraph = text.partition(b"\nPackage: systemd\n")[2].partition(b"\n\n")[0]
    found = re.search(rb"^Version: (?:\d+:)?(\d{1,9})", paragraph, re.MULTILINE)
    return int(found[1]) if found else None


def _multiarch(root: Fd, folder: str) -> list[str]:
    """usr/lib/x86_64-linux-gnu/systemd, where Debian puts it since 252."""
    above = os.path.dirname(folder)
    return [f"{above}/{name}/systemd" for name in _names(root, above) if "-linux-gnu" in name]


def _names(root: Fd, folder: str) -> list[str]:
    try:
        directory = open_in_root(root.number, folder, os.O_RDONLY | os.O_DIRECTORY)
        with directory, os.scandir(directory.number) as entries:
            return [entry.name for entry in islice(entries, _ENTRIES)]
    except OSError:
        return []


def judge(number: int, layout: Layout, config: Config) -> Finding:
    """Whether a systemd of this version can live with these hierarchies. Pure."""
    if number < V2_COMPLETE and layout.v1("systemd") is None:
        place = "/sys/fs/cgroup/systemd"
        return Finding(ERROR, CHECK, f"systemd {number} inside needs a v1 hierarchy, and this host has none for it",
                       f"systemd before {V2_COMPLETE} does not boot on cgroup v2 alone",
                       f"mkdir -p {place} && mount -t cgroup -o none,name=systemd cgroup {place}")  # fmt: skip
    if number >= V1_GONE:
        at = config.at("lxc.mount.auto")
        if layout.unified is None:
            place = "/sys/fs/cgroup/unified"
            return Finding(ERROR, CHECK, f"systemd {number} inside needs cgroup v2, and this host has v1 alone",
                           f"systemd of {V1_GONE} and later does not boot on cgroup v1",
                           f"mkdir -p {place} && mount -t cgroup2 cgroup2 {place}")  # fmt: skip
        given = auto.parse(config.mount.auto)
        if layout.kind == "hybrid" and given.cgroup in ("cgroup", "cgroup-full") and given.cgroup_force:
            return Finding(ERROR, CHECK, f"systemd {number} inside needs cgroup v2, and lxc.mount.auto mounts v1",
                           f"systemd of {V1_GONE} and later does not boot on cgroup v1",
                           "lxc.mount.auto = proc:mixed sys:mixed cgroup2", at)  # fmt: skip
    return ok(CHECK, f"systemd {number} inside can live with this host's control groups ({layout.kind})")
