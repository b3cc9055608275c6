"""Where lxcpy keeps things: one place for every fixed path.

The run directory and the caches can be moved with LXCPY_RUN_DIR and LXCPY_CACHE_DIR, so that tests and a second
installation do not meet the machine's own containers.
"""

from __future__ import annotations

import os

LXCPATH = "/var/lib/lxc"
ETC = "/etc/lxc"
SYSTEM_CONFIG = f"{ETC}/lxc.conf"
DEFAULT_CONFIG = f"{ETC}/default.conf"
LXC_CONFIG_DIR = "/usr/share/lxc/config"  # LXC's presets; an include of one that is missing is served from ours
LXC_LOCKS = "/run/lxc/lock"  # where liblxc, run by root, keeps a lock for each container
ROOTFS_MOUNT = "/usr/lib/lxcpy/rootfs"  # the default of lxc.rootfs.mount; made by the installer, else on first use


def run_dir() -> str:
    """The directory of run state (/run/lxcpy)."""
    return os.environ.get("LXCPY_RUN_DIR") or "/run/lxcpy"


def cache_dir() -> str:
    """The directory of the package and rootfs caches (/var/cache/lxcpy)."""
    return os.environ.get("LXCPY_CACHE_DIR") or "/var/cache/lxcpy"


def containers(lxcpath: str) -> list[str]:
    """The names that have a config file in an lxcpath, sorted by byte; none where the directory is missing."""
    try:
        names = os.listdir(lxcpath)
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted((name for name in names if os.path.isfile(f"{lxcpath}/{name}/config")), key=os.fsencode)


def data_dir(kind: str) -> str:
    """The directory of the data files of `kind`: config, templates or man.

    In a checkout they stand beside the package; installed, under share/lxcpy of the environment's prefix
    (setup.cfg, data_files).
    """
    package = os.path.dirname(os.path.abspath(__file__))
    beside = os.path.join(os.path.dirname(package), kind)
    if os.path.isdir(beside):
        return beside
    # PREFIX/lib/python3.N/site-packages/lxcpy
    prefix = os.path.dirname(os.path.dirname(os.path.dirname(os.path.dirname(package))))
    return os.path.join(prefix, "share", "lxcpy", kind)


def lxcpath(path: str) -> str:
    """A directory of containers as it is named everywhere: absolute, for the supervisor's own directory is another."""
    if not path.startswith("/"):
        path = os.path.abspath(path)
    return path.rstrip("/") or "/"
