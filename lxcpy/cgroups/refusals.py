"""What the kernel means when it refuses a group or a value: errno and file become words and a next step."""

from __future__ import annotations

import errno
import os

from lxcpy.errors import CgroupError, meaning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxcpy.cgroups.translate import Write

# (file or its beginning, errno) → next step. The first that fits; "" fits every file.
_HINTS: tuple[tuple[str, int, str], ...] = (
    ("memory.memsw.limit_in_bytes", errno.EINVAL,
     "memory and swap together cannot be less than memory.limit_in_bytes: raise this first, or lower that first"),
    ("memory.memsw.limit_in_bytes", errno.ENOENT, "this kernel does not count swap: boot it with swapaccount=1"),
    ("memory.limit_in_bytes", errno.EINVAL, "it cannot exceed memory.memsw.limit_in_bytes: raise that one first"),
    ("memory.limit_in_bytes", errno.EBUSY,
     "the processes use more than this already and it cannot be reclaimed: choose a higher limit or stop some"),
    ("memory.memsw.limit_in_bytes", errno.EBUSY,
     "the processes use more than this already and it cannot be reclaimed: choose a higher limit or stop some"),
    ("memory.kmem", errno.EBUSY, "a limit of kernel memory must be set before the first process enters the group"),
    ("memory.kmem", errno.EOPNOTSUPP, "Linux 5.16 and later have no limit of kernel memory alone: remove the line"),
    ("memory.kmem", errno.ENOENT, "this kernel has no limit of kernel memory alone: remove the line"),
    ("cpu.cfs_quota_us", errno.EINVAL, "a group cannot have more CPU time than the groups above it: see their quota"),
    ("cpu.max", errno.EINVAL, "two numbers of µs, QUOTA and PERIOD (1000 to 1000000), or max"),
    ("cpu.rt_runtime_us", errno.EINVAL,
     "it must be less than cpu.rt_period_us, and the groups above need realtime of their own to give"),
    ("cpu.rt_runtime_us", errno.EBUSY, "the realtime processes in the group need more than that"),
    ("cpuset.cpu_exclusive", errno.EINVAL,
     "the CPUs are shared with a sibling group, or the group above is not exclusive"),
    ("blkio.bfq.weight_device", errno.EOPNOTSUPP,
     "the device does not use the BFQ scheduler: see /sys/block/*/queue/scheduler"),
    ("io.bfq.weight", errno.EOPNOTSUPP,
     "the device does not use the BFQ scheduler: see /sys/block/*/queue/scheduler"),
    ("blkio.", errno.ENODEV, "a whole disk as MAJOR:MINOR (lsblk -d), not one of its partitions"),
    ("io.", errno.ENODEV, "a whole disk as MAJOR:MINOR (lsblk -d), not one of its partitions"),
    ("blkio.weight", errno.ENOENT, "this kernel has neither CFQ nor BFQ: weights have no effect here"),
    ("blkio.bfq.weight", errno.ENOENT, "this kernel has no BFQ scheduler: weights have no effect here"),
    ("io.weight", errno.ENOENT, "this kernel has neither iocost nor the BFQ scheduler: weights have no effect here"),
    ("io.bfq.weight", errno.ENOENT, "this kernel has neither iocost nor BFQ: weights have no effect here"),
    ("devices.", errno.EPERM, "the group above does not allow these devices either, so it cannot hand them on"),
    ("cgroup.subtree_control", errno.EBUSY,
     "the group above holds processes itself: cgroup v2 wants them in a group beside the containers'"),
    ("", errno.EROFS, "the cgroup hierarchy is mounted read-only: remount it rw, or run outside of that container"),
    ("", errno.ENOSPC, "the cpuset of the group has no CPUs or memory nodes"),
    ("", errno.ERANGE, "the kernel has a narrower range for this file"),
    ("", errno.ENODEV, "there is no such device on this host"),
    ("", errno.EOPNOTSUPP, "this kernel does not support it"),
)  # fmt: skip


def failed(what: str, error: OSError) -> CgroupError:
    """A step on the groups themselves that failed."""
    hint = _hint("", error.errno or 0)
    if error.errno in (errno.EPERM, errno.EACCES):
        hint = "run as root, or below a cgroup that was delegated to this user (Delegate=yes of a systemd unit)"
    return CgroupError(f"{what}: {meaning(error)}", hint=hint)


def refused(write: Write, what: str, error: OSError, *, group: str = "") -> CgroupError:
    """A value that the kernel did not take. group: the directory written to, to tell what it would take."""
    return CgroupError(
        f"{write.item}: {what}: {meaning(error)}", at=write.origin, hint=_explain(write.file, error.errno or 0, group)
    )


def ignored(write: Write, kept: str) -> str:
    """The warning for a value that the kernel took and did not keep."""
    return f'{write.item}: this kernel ignores {write.file}: it reads "{kept}" after "{write.value}" was written'


def _explain(file: str, number: int, group: str) -> str | None:
    if file in ("cpuset.cpus", "cpuset.mems") and number in (errno.EINVAL, errno.ERANGE, errno.EACCES):
        return _cpuset(file, group)
    hint = _hint(file, number)
    if hint is None and number in (errno.ENOENT, errno.EACCES) and group:
        return _nearest(file, group)
    return hint


def _hint(file: str, number: int) -> str | None:
    return next((hint for name, code, hint in _HINTS if code == number and file.startswith(name)), None)


def _cpuset(file: str, group: str) -> str | None:
    """Which CPUs or memory nodes there are to have."""
    above = os.path.dirname(group)
    for path in (f"{above}/{file}.effective", f"{above}/{file}", f"{above}/{file[:7]}effective_{file[7:]}"):
        try:
            with open(path) as source:
                have = source.read().strip()
        except OSError:
            continue
        if have:
            return f"the group above has {'CPUs' if file.endswith('cpus') else 'memory nodes'} {have}"
    return None


def _nearest(file: str, group: str) -> str:
    import difflib

    controller = file.partition(".")[0]
    try:
        names = [name for name in os.listdir(group) if name.partition(".")[0] == controller]
    except OSError:
        names = []
    close = difflib.get_close_matches(file, names, 1)
    return f"did you mean {close[0]}?" if close else f"this kernel has no file {file} (or it is not to be written)"
