"""What programs of a system that is being made expect to be mounted, but for what reaches the machine."""

from __future__ import annotations

import os
import stat

from lxcpy.kernel import mount

# Of /proc: what tells of the machine, or is the machine's to write, for user id 0 without any capability.
_MASKED = (
    "/proc/kcore", "/proc/kmsg", "/proc/keys", "/proc/key-users", "/proc/acpi", "/proc/asound", "/proc/scsi",
    "/proc/driver", "/proc/latency_stats", "/proc/timer_list", "/proc/sched_debug", "/proc/mtrr", "/proc/slabinfo",
    "/proc/kallsyms", "/proc/vmallocinfo", "/proc/kpagecount", "/proc/kpageflags", "/proc/kpagecgroup",
    "/proc/pressure", "/proc/dynamic_debug", "/proc/tty",
)  # fmt: skip


def show_devices(directory: str) -> None:
    """The host's devices over the files that stand for them, where a user namespace could make none. Raises OSError."""
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        place = f"{directory}/{name}"
        if not os.path.islink(directory) and os.path.exists(place) and stat.S_ISREG(os.lstat(place).st_mode):
            mount.mount(f"/dev/{name}", place, None, mount.MS_BIND)


def mount_system() -> None:
    """/proc without what reaches the machine, and /sys to look at. Raises OSError."""
    quiet = mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC
    mount.mount("proc", "/proc", "proc", quiet)
    for path in ("/proc/sys", "/proc/sysrq-trigger", "/proc/irq", "/proc/bus", "/proc/fs"):
        if os.path.exists(path):
            mount.mount(path, path, None, mount.MS_BIND)
            mount.mount(None, path, None, mount.MS_REMOUNT | mount.MS_BIND | mount.MS_RDONLY | quiet)
    for path in _MASKED:
        if os.path.isdir(path):
            mount.mount("none", path, "tmpfs", quiet | mount.MS_RDONLY, "size=4k,nr_inodes=2")
        elif os.path.exists(path) and os.path.exists("/dev/null"):
            mount.mount("/dev/null", path, None, mount.MS_BIND)
    try:
        mount.mount("sysfs", "/sys", "sysfs", quiet | mount.MS_RDONLY)
    except PermissionError:
        pass  # in a user namespace only with a network of its own
