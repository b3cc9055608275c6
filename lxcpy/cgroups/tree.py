"""Make, enter, limit, delegate and remove a container's groups.

The record that `create` returns is plain data: every other function here works from it alone, in any process.

Entering is done best by the process itself (`Entry`): writing another's pid into cgroup.procs makes the kernel take
cgroup_threadgroup_rwsem for writing, which waits for an RCU grace period (4 to 16 ms here), while a single-threaded
process that writes 0 into a v1 `tasks` file skips that lock (kernel/cgroup/cgroup.c, cgroup_procs_write_start), and
clone3 with CLONE_INTO_CGROUP takes it for reading.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from lxcpy.cgroups import devices, files, limits
from lxcpy.cgroups.plan import CgroupPlan
from lxcpy.cgroups.refusals import failed, refused
from lxcpy.cgroups.translate import Write
from lxcpy.cgroups.values import numbers
from lxcpy.errors import CgroupError
from lxcpy.log import Log

LOG = Log("cgroups")
Record = dict[str, Any]
LONGEST = 30.0  # seconds spent on the groups that a container made, however many


def create(plan: CgroupPlan) -> Record:
    """Make the groups of the plan; taken names move on to the next suffix. Nothing is left behind by a failure.

    Raises CgroupError.
    """
    while True:
        record = plan.record()
        made: Record = {**record, "payload": {}, "limit": {}, "monitor": {}, "parents": {}}
        with ExitStack() as undo:
            undo.callback(remove, made, timeout=0.0)
            if _make_all(plan, record, made):
                undo.pop_all()
                return made
        plan = plan.next()


def _make_all(plan: CgroupPlan, record: Record, made: Record) -> bool:
    """Make every group; False if a name is taken. `made` grows with each, so that it can be undone."""
    for hierarchy in plan.hierarchies:
        mount = hierarchy.mount
        limit, payload = record["limit"][mount], record["payload"][mount]
        parents = made["parents"].setdefault(mount, [])
        if not make_group(mount, limit, parents):
            return False
        made["limit"][mount] = limit
        if "cpuset" in hierarchy.controllers and hierarchy.version == 1:
            for path in (*parents, limit):
                fill_cpuset(mount, path)
        elif "memory" in hierarchy.controllers and hierarchy.version == 1:
            _use_hierarchy(mount, limit)
        if hierarchy.version == 2 and plan.enable:
            _hand_down(plan, mount, record)
        if payload != limit:
            if not make_group(mount, payload, []):
                return False
            if "cpuset" in hierarchy.controllers and hierarchy.version == 1:
                fill_cpuset(mount, payload)
        made["payload"][mount] = payload
        monitor = record["monitor"].get(mount)
        if monitor and make_group(mount, monitor, parents):  # one that exists serves as well, but is not ours
            made["monitor"][mount] = monitor
        if not parents:
            del made["parents"][mount]
    return True


def make_group(mount: str, path: str, parents: list[str]) -> bool:
    """mkdir, with the groups above it (appended to `parents` if made here); False if the last one exists.

    Raises CgroupError.
    """
    try:
        os.mkdir(mount + path, 0o755)
        return True
    except FileExistsError:
        return False
    except FileNotFoundError:
        above = path.rpartition("/")[0]
        if not above:
            raise CgroupError(f"the cgroup hierarchy {mount} is gone") from None
        if make_group(mount, above, parents):
            parents.append(above)
        return make_group(mount, path, parents)
    except OSError as error:
        raise failed(f"cannot make the cgroup {mount}{path}", error) from error


def fill_cpuset(mount: str, path: str) -> None:
    """A new v1 cpuset has no CPU and no memory node and lets no process in: give it its parent's."""
    group = mount + path
    above = group.rpartition("/")[0]
    try:
        for name in ("cpuset.cpus", "cpuset.mems"):
            if not files.read(f"{group}/{name}").strip():  # filled already where the parent has clone_children
                given = files.read(f"{above}/{name}").strip()
                files.write(f"{group}/{name}", _without_isolated(given) if name == "cpuset.cpus" else given)
        files.write(f"{group}/cgroup.clone_children", "1")  # for the groups that the container makes
    except OSError as error:
        raise failed(f"cannot give the cgroup {group} its CPUs and memory nodes", error) from error


_isolated: list[str] = []  # read once a process: isolcpus= is of the kernel's command line


def _without_isolated(cpus: str) -> str:
    """The CPUs without those that isolcpus= keeps for their owner, unless none would be left; as LXC."""
    if not _isolated:
        try:
            _isolated.append(files.read("/sys/devices/system/cpu/isolated").strip())
        except OSError:
            _isolated.append("")
    if not _isolated[0]:
        return cpus
    left = [str(cpu) for cpu in numbers(cpus) if cpu not in numbers(_isolated[0])]
    return ",".join(left) or cpus


def _use_hierarchy(mount: str, path: str) -> None:
    """Before Linux 5.11 a child's memory counted for its parent only with use_hierarchy."""
    file = f"{mount}{path}/memory.use_hierarchy"
    try:
        if files.read(file).strip() == "0":
            files.write(file, "1")
    except OSError as error:
        LOG.debug(f"{file}: {os.strerror(error.errno or 0)}")


def _hand_down(plan: CgroupPlan, mount: str, record: Record) -> None:
    """Enable the plan's v2 controllers from the base down to the group above the payload."""
    group = "" if record["bases"][mount] == "/" else record["bases"][mount]
    inside = [part for part in record["payload"][mount][len(group) :].split("/") if part][:-1]
    steps = [group]
    for part in inside:
        steps.append(f"{steps[-1]}/{part}")
    for step in steps:
        file = f"{mount}{step}/cgroup.subtree_control"
        try:
            enabled = files.read(file).split()
            missing = [controller for controller in plan.enable if controller not in enabled]
            if missing:
                offered = files.read(f"{mount}{step}/cgroup.controllers").split()
                missing = [controller for controller in missing if controller in offered]
            if missing:
                _enable(file, missing, plan)
        except OSError as error:
            for controller, write in plan.required.items():
                raise refused(_switch(write), f"cannot enable the {controller} controller in {file}", error) from error
            LOG.warn(f"{file}: {os.strerror(error.errno or 0)}")


def _switch(write: Write) -> Write:
    return write._replace(file="cgroup.subtree_control")


def _enable(file: str, controllers: list[str], plan: CgroupPlan) -> None:
    try:
        files.write(file, " ".join(f"+{controller}" for controller in controllers))
        return
    except OSError:
        pass  # one that cannot be enabled must not keep the others back
    for controller in controllers:
        try:
            files.write(file, f"+{controller}")
        except OSError as error:
            if controller in plan.required:
                what = f"cannot enable the {controller} controller in {file}"
                raise refused(_switch(plan.required[controller]), what, error) from error
            LOG.warn(f"cannot enable {controller} in {file}: {os.strerror(error.errno or 0)}")


class Entry:
    """The way into the payload groups, opened beforehand: the process that is to live there calls `enter` itself.

    unified: a descriptor of the v2 payload group for clone3's CLONE_INTO_CGROUP, -1 without v2. A process cloned
             into it is in the v2 group already and enters the v1 ones with `enter()`.
    """

    def __init__(self, record: Record) -> None:
        self.tasks: list[int] = []
        self.unified = -1
        try:
            for mount, path in record["payload"].items():
                if record["hierarchies"][mount][0] == 2:
                    self.unified = os.open(mount + path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                else:
                    self.tasks.append(os.open(f"{mount}{path}/tasks", os.O_WRONLY | os.O_CLOEXEC))
        except OSError as error:
            self.close()
            raise failed("cannot open the container's cgroups", error) from error

    def enter(self) -> None:
        """Move the calling, single-threaded process into the v1 groups. Raises OSError."""
        for number in self.tasks:
            os.write(number, b"0")

    def close(self) -> None:
        """Close every descriptor; after that the entry is spent."""
        for number in (*self.tasks, self.unified):
            if number >= 0:
                os.close(number)
        self.tasks, self.unified = [], -1

    def __enter__(self) -> Entry:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def enter(record: Record, pid: int) -> None:
    """Move process `pid` into the payload group of every hierarchy. Raises CgroupError.

    The slow way in (see above), for processes that cannot do it themselves.
    """
    for mount, path in record["payload"].items():
        try:
            files.write(f"{mount}{path}/cgroup.procs", str(pid))
        except OSError as error:
            raise failed(f"cannot move process {pid} into the cgroup {mount}{path}", error) from error


def limit(plan: CgroupPlan, record: Record) -> list[str]:
    """Write the limits, except the device rules; returns warnings.

    Raises CgroupError with the line that asked for the refused one.
    """
    warnings = []
    for write in plan.writes:
        group = write.mount + record["limit"][write.mount]
        limits.put(write, group)
        warnings += limits.check(write, group)
    return warnings


def limit_devices(plan: CgroupPlan, record: Record) -> None:
    """Put the device rules in force; called when the container's /dev is filled, because mknod obeys them too."""
    try:
        if plan.device_writes:
            _write_devices(plan.device_writes, record)
        for hierarchy in plan.hierarchies:
            if plan.devices and hierarchy.version == 2:
                devices.install(hierarchy.mount + record["limit"][hierarchy.mount], plan.devices)
    except CgroupError as error:
        if os.geteuid() == 0 or not isinstance(error.__cause__, PermissionError):
            raise
        # as LXC: the kernel takes them from root alone, and lets a user namespace make and use no device of its own
        LOG.warn(error.what)


def _write_devices(writes: Sequence[Write], record: Record) -> None:
    """v1's rules one by one, their order kept, each file opened once."""
    group = writes[0].mount + record["limit"][writes[0].mount]
    opened: dict[str, int] = {}
    try:
        for write in writes:
            try:
                if write.file not in opened:
                    opened[write.file] = os.open(f"{group}/{write.file}", os.O_WRONLY | os.O_CLOEXEC)
                os.write(opened[write.file], write.value.encode())
            except OSError as error:
                what = f'cannot write "{write.value}" to {group}/{write.file}'
                raise refused(write, what, error, group=group) from error
    finally:
        for number in opened.values():
            os.close(number)


def delegate(record: Record, uid: int, gid: int) -> None:
    """Let the container's root (host `uid`, `gid`) make groups below the payload.

    As LXC: the group of the directory and of the files that move processes becomes `gid`, with write permission;
    the owner stays. `uid` owns them where the gid is not mapped (gid < 0).
    """
    owner, group = (-1, gid) if gid >= 0 else (uid, -1)
    for mount, path in record["payload"].items():
        names = _V2_FILES if record["hierarchies"][mount][0] == 2 else ("tasks", "cgroup.procs")
        _give(mount + path, owner, group, 0o775)
        for name in names:
            _give(f"{mount}{path}/{name}", owner, group, 0o664)


_V2_FILES = ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control", "memory.oom.group", "memory.reclaim")


def _give(path: str, uid: int, gid: int, mode: int) -> None:
    try:
        os.chown(path, uid, gid)
        os.chmod(path, mode)
    except FileNotFoundError:
        pass  # this kernel has no such file
    except OSError as error:
        raise failed(f"cannot delegate the cgroup file {path}", error) from error


def remove(record: Record, *, timeout: float = 2.0) -> list[str]:
    """Remove the groups of a record with all that was made inside; those that are gone already are no error.

    Kills nothing. A group whose processes are still dying is tried again until `timeout` seconds have passed. Returns
    the paths that remain.
    """
    deadline = time.monotonic() + timeout
    left = []
    for mount in {**record["limit"], **record["monitor"]}:
        paths = [tree[mount] for tree in (record["limit"], record["monitor"]) if mount in tree]
        left += [mount + path for path in paths if not _remove_tree(mount + path, deadline)]
        for parent in reversed(record.get("parents", {}).get(mount, ())):
            _rmdir(mount + parent)
    return left


def _rmdir(path: str, dir_fd: int | None = None) -> bool:
    """Whether the group is gone now."""
    try:
        os.rmdir(path, dir_fd=dir_fd)
    except OSError as error:
        return error.errno == errno.ENOENT
    return True


def _remove_tree(path: str, deadline: float) -> bool:
    pause = 0.0005
    while not _rmdir(path):
        try:
            top = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        _remove_children(top)
        if _rmdir(path):
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 2, 0.02)
    return True


def _children(group: int) -> list[str]:
    with os.scandir(group) as entries:
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]


def _remove_children(group: int) -> None:
    """Remove all groups below `group` (closed here), deepest first, as many as LONGEST allows.

    One descriptor and no paths: a container may nest deeper than PATH_MAX, the descriptor limit and the stack allow.
    """
    end = time.monotonic() + LONGEST
    stack: list[tuple[str, list[str]]] = [("", _children(group))]
    try:
        while time.monotonic() < end:
            name, children = stack[-1]
            while children and _rmdir(children[-1], dir_fd=group):
                children.pop()
            if children:
                group, below = _step(group, children[-1])
                stack.append((children[-1], _children(group))) if below else children.pop()
            elif len(stack) > 1:
                stack.pop()
                group, _ = _step(group, "..")
                _rmdir(name, dir_fd=group)
                stack[-1][1].pop()
            else:
                return
    except OSError as error:
        LOG.debug(f"removing groups: {os.strerror(error.errno or 0)}")
    finally:
        os.close(group)


def _step(group: int, name: str) -> tuple[int, bool]:
    """Exchange the descriptor for that of `name`; the old one and False if it is gone."""
    try:
        following = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW, dir_fd=group)
    except FileNotFoundError:
        if name == "..":
            raise
        return group, False
    os.close(group)
    return following, True
