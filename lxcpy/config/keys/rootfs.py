"""The root filesystem, what is mounted in it, and /dev."""

from __future__ import annotations

from lxcpy import paths
from lxcpy.config.keys.row import FOLD, LIST, ONE, REMOVED, Row
from lxcpy.config.values import AUTO_MOUNT, FSTAB_LINE, INT, PATH, ROOTFS_OPTIONS, ROOTFS_PATH, SWITCH, TEXT

ROWS = (
    Row("lxc.rootfs.path", "rootfs.path", ROOTFS_PATH, ONE, "2.1",
        "Where the root filesystem is.", old=("lxc.rootfs",)),
    Row("lxc.rootfs.mount", "rootfs.mount", PATH, ONE, "0.7",
        "Directory of the host on which the root filesystem is mounted.", unset=paths.ROOTFS_MOUNT),
    Row("lxc.rootfs.options", "rootfs.options", ROOTFS_OPTIONS, ONE, "1.0",
        "Mount options of the root filesystem."),
    Row("lxc.rootfs.managed", "rootfs.managed", SWITCH, ONE, "3.1",
        "Whether lxcpy may change, copy and remove the root filesystem."),
    Row("lxc.rootfs.backend", "rootfs.backend", TEXT, REMOVED, "2.0",
        "Type of the root filesystem; now the part of lxc.rootfs.path before the colon."),
    Row("lxc.pivotdir", "", TEXT, REMOVED, "0.6.5",
        "Where the old root was put while starting; gone since LXC 2.1."),
    Row("lxc.mount.fstab", "mount.fstab", PATH, ONE, "2.1",
        "File of mounts in the format of fstab.", old=("lxc.mount",)),
    Row("lxc.mount.entry", "mount.entry", FSTAB_LINE, LIST, "0.6.4",
        "One mount in the format of fstab."),
    Row("lxc.mount.auto", "mount.auto", AUTO_MOUNT, FOLD, "1.0",
        "Kernel filesystems to mount.", joint=" "),
    Row("lxc.autodev", "autodev.enabled", SWITCH, ONE, "0.9",
        "Whether /dev is a small tmpfs that lxcpy fills.", empty=False),
    Row("lxc.autodev.tmpfs.size", "autodev.tmpfs_size", INT, ONE, "4.0",
        "Size of that tmpfs in bytes."),
)  # fmt: skip
