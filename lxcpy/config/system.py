"""The system's settings, lxc.conf: a second table of keys. Light: every command asks it for the lxcpath.

The file is /etc/lxc/lxc.conf, a user's ~/.config/lxc/lxc.conf. Rules, as LXC's: the first line of a key wins, `#`
begins a comment line, unknown keys are ignored, a missing file is an empty one. ConfigObj is not used: it would cost
the light commands 16 ms for files of a few lines.
"""

from __future__ import annotations

import os

from lxcpy import paths
from lxcpy.kernel.record import NamedTuple


class SystemKey(NamedTuple):
    """One key of lxc.conf."""

    name: str
    default: str | None  # root's
    user_default: str | None  # an ordinary user's; ~ stands for the home
    listed: bool  # whether `lxc-config -l` prints it
    since: str
    summary: str


SYSTEM_KEYS = (
    SystemKey("lxc.default_config", paths.DEFAULT_CONFIG, "~/.config/lxc/default.conf", True, "1.0",
              "Config that a new container starts from."),
    SystemKey("lxc.lxcpath", paths.LXCPATH, "~/.local/share/lxc", True, "1.0",
              "Directory of the containers."),
    SystemKey("lxc.bdev.lvm.vg", "lxc", "lxc", True, "1.0",
              "Volume group of new LVM volumes."),
    SystemKey("lxc.bdev.lvm.thin_pool", "lxc", "lxc", True, "1.0",
              "Thin pool of new LVM volumes."),
    SystemKey("lxc.bdev.zfs.root", "lxc", "lxc", True, "1.0",
              "Parent of new ZFS data sets."),
    SystemKey("lxc.cgroup.use", None, None, True, "1.0",
              "Controllers of cgroup version 1 to use, divided by commas; @all: all."),
    SystemKey("lxc.cgroup.pattern", None, None, True, "1.0",
              "Path of a container's groups, with %n for its name."),
    SystemKey("lxc.bdev.rbd.rbdpool", "lxc", "lxc", False, "2.0",
              "Pool of new Ceph images."),
    SystemKey("lxc.bdev.rbd.rbduser", None, None, False, "5.0",
              "Ceph user for images."),
)  # fmt: skip
# Names that LXC before 1.0 used in /etc/lxc/lxc.conf.
OLD_NAMES = {"lxcpath": "lxc.lxcpath"}
_BY_NAME = {key.name: key for key in SYSTEM_KEYS}


def _home(path: str | None) -> str | None:
    return os.path.join(paths.home(), path[2:]) if path and path.startswith("~/") else path


def system_file() -> str:
    """The path of lxc.conf for the calling user."""
    return paths.SYSTEM_CONFIG if os.geteuid() == 0 else _home("~/.config/lxc/lxc.conf") or ""


def parse(text: str) -> dict[str, str]:
    """The keys that a text of lxc.conf sets."""
    found: dict[str, str] = {}
    for line in text.split("\n"):
        name, equals, value = line.partition("=")
        name = OLD_NAMES.get(name.strip(" \t"), name.strip(" \t"))
        value = value.strip(" \t\r")
        if equals and name in _BY_NAME and value and name not in found:
            found[name] = value
    return found


def system_values() -> dict[str, str]:
    """The keys that the calling user's lxc.conf sets; none where there is no file to read."""
    try:
        with open(system_file(), encoding="utf-8", errors="surrogateescape") as file:
            return parse(file.read())
    except OSError:
        return {}


def system_value(key: str) -> str | None:
    """A system setting: from the file, else the default; None: not set. Raises KeyError for an unknown key."""
    row = _BY_NAME[key]
    value = system_values().get(key)
    if value is None:
        value = _home(row.default if os.geteuid() == 0 else row.user_default)
    if value and key == "lxc.lxcpath" and len(value) > 1:
        return value.rstrip("/") or "/"
    return value


def default_config() -> str:
    """The config that a new container starts from: lxc.default_config, or our own preset where that file is missing."""
    configured = system_value("lxc.default_config") or paths.DEFAULT_CONFIG
    ours = os.path.join(paths.data_dir("config"), "default.conf")
    return ours if not os.path.exists(configured) and configured == paths.DEFAULT_CONFIG else configured
