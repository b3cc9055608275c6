"""Floor 2: where a root filesystem is kept. One file a backend, found by name and imported when it is used."""

from __future__ import annotations

import importlib
import os
import stat

from lxcpy.errors import StorageError
from lxcpy.storage.base import Backend
from lxcpy.storage.tree import spread

__all__ = ["BACKENDS", "KNOWN", "Backend", "backend", "detect", "parse", "spread"]

# LXC's order and names; the value is the module. `overlayfs` is the old name of overlay.
BACKENDS = {
    "dir": "lxcpy.storage.dir",
    "overlay": "lxcpy.storage.overlay",
    "overlayfs": "lxcpy.storage.overlay",
}
# types that LXC has; a config with one is understood, and answered with what is missing
KNOWN = ("dir", "zfs", "lvm", "rbd", "btrfs", "overlay", "overlayfs", "loop", "nbd")

_loaded: dict[str, Backend] = {}


def parse(path: str) -> tuple[str, str]:
    """(type, source) of an lxc.rootfs.path `[TYPE:]SOURCE`. A bare path's type is found by looking at it.

    A path that is not there counts as `dir`, so that the failure to mount it speaks of a directory. Raises StorageError
    for a type that LXC does not have.
    """
    kind, colon, source = path.partition(":")
    if colon and "/" not in kind:
        if kind not in KNOWN:
            known = ", ".join(KNOWN)
            raise StorageError(f'lxc.rootfs.path: unknown storage type "{kind}"', hint=f"one of {known}")
        return kind, source
    return detect(path), path


def detect(path: str) -> str:
    """The type of a path without one: `overlay` for LOWER:UPPER, else what the kind of file says."""
    if ":/" in path:
        return "overlay"
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return "dir"
    if stat.S_ISBLK(mode):
        return "rbd" if path.startswith("/dev/rbd") else "lvm"
    return "loop" if stat.S_ISREG(mode) else "dir"


def backend(kind: str) -> Backend:
    """The backend of a type. Raises StorageError if there is none."""
    module = BACKENDS.get(kind)
    if module is None:
        known = ", ".join(name for name in BACKENDS if name != "overlayfs")
        raise StorageError(f'storage of type "{kind}" is not supported', hint=f"types at hand: {known}")
    if kind not in _loaded:
        made: Backend = importlib.import_module(module).BACKEND
        _loaded[kind] = made
    return _loaded[kind]
