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
ROOTFS_MOUNT = "/usr/lib/lxcpy/rootfs"  # the default of lxc.rootfs.mount; made by the installer, else on first use


def run_dir() -> str:
    """The directory of run state (/run/lxcpy); an ordinary user's is below `runtime_dir`."""
    return os.environ.get("LXCPY_RUN_DIR") or f"{runtime_dir()}/lxcpy"


def runtime_dir() -> str:
    """Where the calling user's run state belongs: /run, or XDG_RUNTIME_DIR, or what LXC takes where that is not set.

    A shell of su(1) or cron(8) lacks the variable, though the directory is there: both are to find the same containers.
    """
    if os.geteuid() == 0:
        return "/run"
    usual = f"/run/user/{os.geteuid()}"
    if given := os.environ.get("XDG_RUNTIME_DIR"):
        return given.rstrip("/")
    return usual if os.path.isdir(usual) else f"{home()}/.cache/lxc/run"


def cache_dir() -> str:
    """The directory of the package and rootfs caches (/var/cache/lxcpy; ~/.cache/lxcpy)."""
    if given := os.environ.get("LXCPY_CACHE_DIR"):
        return given
    if os.geteuid() == 0:
        return "/var/cache/lxcpy"
    return f"{os.environ.get('XDG_CACHE_HOME') or f'{home()}/.cache'}/lxcpy"


def home() -> str:
    """The calling user's home directory, as LXC finds it."""
    return os.environ.get("HOME") or "/"


def lxc_locks() -> str:
    """Where liblxc, run by the calling user, keeps a lock for each container."""
    return f"{lxc_run_dir()}/lxc/lock"


def lxc_run_dir() -> str:
    """Where liblxc, run by the calling user, keeps its run state."""
    if os.getuid() == 0:
        return "/run"
    return os.environ.get("XDG_RUNTIME_DIR") or f"{home()}/.cache/lxc/run"


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
