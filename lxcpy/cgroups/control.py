"""Steering a running container's groups, from its record alone: values, freezer, processes.

Imported by light commands: nothing here needs the config model or the plan.
"""

from __future__ import annotations

import errno
import os
import select
import signal
import time

from lxcpy.cgroups import files
from lxcpy.cgroups.refusals import failed
from lxcpy.errors import CgroupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Record = dict[str, Any]


def _hierarchy(record: Record, controller: str) -> tuple[str, str] | None:
    """(mount, payload path) of the v1 hierarchy with the controller, where the container has a group in it."""
    for mount, (version, *controllers) in record["hierarchies"].items():
        if version == 1 and controller in controllers and mount in record["payload"]:
            return mount, record["payload"][mount]
    return None


def _unified(record: Record) -> tuple[str, str] | None:
    for mount, (version, *_) in record["hierarchies"].items():
        if version == 2 and mount in record["payload"]:
            return mount, record["payload"][mount]
    return None


# -- values --------------------------------------------------------------------------------------------------------


def _place(record: Record, item: str) -> str:
    """The file of the limit group that is called `item`."""
    controller = item.partition(".")[0]
    for mount, (version, *controllers) in record["hierarchies"].items():
        path = f"{mount}{record['limit'].get(mount)}/{item}"
        if (version == 2 or controller in controllers) and mount in record["limit"] and os.path.exists(path):
            return path
    raise CgroupError(f'the container has no cgroup file "{item}"')


def read(record: Record, item: str) -> str:
    """The text of a file of the container's limit group, as the kernel wrote it. Raises CgroupError."""
    path = _place(record, item)
    try:
        return files.read(path)
    except OSError as error:
        raise failed(f"cannot read {path}", error) from error


def write(record: Record, item: str, value: str) -> None:
    """Write a file of the container's limit group. Raises CgroupError."""
    path = _place(record, item)
    try:
        files.write(path, value)
    except OSError as error:
        raise failed(f'cannot write "{value}" to {path}', error) from error


# -- freezer -------------------------------------------------------------------------------------------------------


def _freezer(record: Record) -> tuple[int, str]:
    """(version, group) of the freezer: v1's where it is mounted, as LXC does."""
    found = _hierarchy(record, "freezer")
    if found:
        return 1, "".join(found)
    found = _unified(record)
    if found:
        return 2, "".join(found)
    raise CgroupError(
        "cannot freeze: the container has no freezer",
        hint="mount the v1 freezer or the unified hierarchy, and let lxc.cgroup.use name it",
    )


def freeze(record: Record, timeout: float = 10.0) -> None:
    """Stop every process; returns when all stand still. Raises CgroupError, all processes running again."""
    _set_frozen(record, True, timeout)


def thaw(record: Record, timeout: float = 10.0) -> None:
    """Let every process run again; returns when they do. Raises CgroupError."""
    _set_frozen(record, False, timeout)


def frozen(record: Record) -> bool:
    """Whether every process stands still; False where there is no freezer or no group any more."""
    try:
        version, group = _freezer(record)
        return _is_frozen(version, group)
    except (CgroupError, OSError):
        return False


def _is_frozen(version: int, group: str) -> bool:
    if version == 1:
        return files.read(f"{group}/freezer.state").strip() == "FROZEN"
    return "frozen 1" in files.read(f"{group}/cgroup.events")


def _set_frozen(record: Record, wanted: bool, timeout: float) -> None:
    verb = "freeze" if wanted else "thaw"
    version, group = _freezer(record)
    try:
        reached = (_set_v1 if version == 1 else _set_v2)(group, wanted, timeout)
        if reached:
            return
        if wanted:
            files.write(*((f"{group}/freezer.state", "THAWED") if version == 1 else (f"{group}/cgroup.freeze", "0")))
    except OSError as error:
        raise failed(f"cannot {verb} the cgroup {group}", error) from error
    raise CgroupError(
        f"cannot {verb} the cgroup {group}: not all of its processes did so within {timeout:g} s",
        hint="a process in uninterruptible sleep (state D) cannot be frozen; see ps -eo pid,stat,wchan:30,cmd",
    )


def _set_v1(group: str, wanted: bool, timeout: float) -> bool:
    word = "FROZEN" if wanted else "THAWED"
    deadline, pause = time.monotonic() + timeout, 0.0002
    while True:
        # Written again each time round: a process that is moved or forked while the state is FREEZING may be missed
        # (Documentation/admin-guide/cgroup-v1/freezer-subsystem.rst).
        files.write(f"{group}/freezer.state", word)
        if files.read(f"{group}/freezer.state").strip() == word:
            return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 2, 0.02)


def _set_v2(group: str, wanted: bool, timeout: float) -> bool:
    word = f"frozen {int(wanted)}"
    deadline = time.monotonic() + timeout
    events = os.open(f"{group}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
    try:
        files.write(f"{group}/cgroup.freeze", str(int(wanted)))
        poller = select.poll()
        poller.register(events, select.POLLPRI)
        while word not in os.pread(events, 4096, 0).decode():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            poller.poll(min(left, 0.1) * 1000)
        return True
    finally:
        os.close(events)


# -- processes -----------------------------------------------------------------------------------------------------


def processes(record: Record) -> list[int]:
    """Every process in the container's groups and in those below, of all hierarchies; sorted."""
    found: set[int] = set()
    for mount, path in {**record["payload"], **record["limit"]}.items():
        _collect(mount + path, found)
    return sorted(found)


def _collect(group: str, found: set[int]) -> None:
    waiting = [group]
    while waiting:
        path = waiting.pop()
        try:
            found.update(int(pid) for pid in files.read(f"{path}/cgroup.procs").split())
            if os.stat(path).st_nlink > 2:  # a cgroup counts its children as links
                with os.scandir(path) as entries:
                    waiting += [entry.path for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            continue  # gone meanwhile, or a v2 group in threaded mode


def kill(record: Record, timeout: float = 5.0) -> list[int]:
    """End every process of the container with SIGKILL and wait until their groups are empty.

    Returns those that are left after `timeout` seconds. Frozen processes are thawed: v1 lets none die before.
    """
    deadline, pause = time.monotonic() + timeout, 0.0005
    while True:
        found = _unified(record)
        if found:
            try:
                files.write(f"{found[0]}{found[1]}/cgroup.kill", "1")
            except OSError:
                pass  # before Linux 5.14
        left = processes(record)
        if not left:
            return []
        _kill_all(record, left)
        if time.monotonic() >= deadline:
            return processes(record)
        time.sleep(pause)
        pause = min(pause * 2, 0.02)


def _kill_all(record: Record, pids: list[int]) -> None:
    """SIGKILL to each, with the v1 freezer holding them meanwhile: a frozen process's number is not given anew."""
    found = _hierarchy(record, "freezer")
    state = f"{found[0]}{found[1]}/freezer.state" if found else ""
    try:
        if state:
            files.write(state, "FROZEN")
            pids = processes(record)
    except OSError:
        pass
    try:
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
    finally:
        try:
            if state:
                files.write(state, "THAWED")
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise failed(f"cannot thaw {state}", error) from error
