"""Steering a running container's groups, from its record alone: values, freezer, processes.

Imported by light commands: nothing here needs the config model or the plan.
"""

from __future__ import annotations

import errno
import os
import select
import time

from lxcpy.cgroups import files
from lxcpy.cgroups.refusals import failed
from lxcpy.errors import CgroupError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lxcpy.cgroups.devices import DeviceRule

    Record = dict[str, Any]

SIGKILL = 9  # on every architecture; the signal module brings enum, which costs a light command 3 ms


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


def _own(record: Record, item: str) -> str | None:
    """The path of the limit group's file `item`, if this host has one of that name."""
    controller = item.partition(".")[0]
    if "/" in item or item in ("", ".", ".."):
        raise CgroupError(f'"{item}" is not the name of a cgroup file', hint="CONTROLLER.FILE, such as memory.max")
    for mount, (version, *controllers) in record["hierarchies"].items():
        if (version == 2 or controller in controllers) and mount in record["limit"]:
            path = f"{mount}{record['limit'][mount]}/{item}"
            if os.path.exists(path):
                return path
    return None


def _get(record: Record, item: str) -> str:
    """The text of one of the host's own files. Raises OSError."""
    path = _own(record, item)
    if path is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), item)
    return files.read(path)


def _unknown(record: Record, item: str) -> CgroupError:
    controller = item.partition(".")[0]
    have = sorted({name for _version, *names in record["hierarchies"].values() for name in names if "=" not in name})
    return CgroupError(
        f'the container has no cgroup file "{item}", and none that stands for it',
        hint=f'a file of the controller "{controller}", as in {_group_of(record, controller)}'
        if controller in have
        else f"the controllers of its groups are {', '.join(have) or 'none'}",
    )


def _group_of(record: Record, controller: str) -> str:
    """A directory to look into for the files of a controller."""
    found = (mount for mount, (_version, *names) in record["hierarchies"].items() if controller in names)
    return next((mount + record["limit"].get(mount, "") for mount in found), "/sys/fs/cgroup")


def read(record: Record, item: str) -> str:
    """The text of a file of the container's limit group, as the kernel wrote it; a name of the other cgroup version is
    made from this host's own files. Raises CgroupError."""
    try:
        path = _own(record, item)
        if path is not None:
            return files.read(path)
        text = _foreign_text(record, item)
    except OSError as error:
        raise failed(f'cannot read the cgroup file "{item}"', error) from error
    if text is None:
        raise _unknown(record, item)
    return text


def _foreign_text(record: Record, item: str) -> str | None:
    if item == "devices.list" and _hierarchy(record, "devices") is None:
        rules = [str(rule) for rule in record.get("devices") or ["allow a"]]
        return "\n".join(rules) + "\n"
    from lxcpy.cgroups import foreign

    return foreign.text(item, lambda name: _get(record, name), lambda family: _version_of(record, family))


def _version_of(record: Record, family: str) -> int:
    from lxcpy.cgroups.dialects import FAMILIES

    v1, v2 = FAMILIES[family]
    if _hierarchy(record, v1):
        return 1
    return 2 if any(h[0] == 2 and (v2 == "cgroup" or v2 in h[1:]) for h in record["hierarchies"].values()) else 0


def write(record: Record, item: str, value: str) -> None:
    """Write a file of the container's limit group; a name of the other cgroup version goes to the file that stands for
    it. A device rule on cgroup v2 changes the program and is noted in the record. Raises CgroupError."""
    from lxcpy.cgroups import devices, foreign, limits
    from lxcpy.cgroups.dialects import row_of
    from lxcpy.cgroups.translate import Write
    from lxcpy.cgroups.values import Bad

    try:
        path = _own(record, item)
        if item in ("devices.allow", "devices.deny"):
            _write_device(record, path, devices.parse(item, value.strip()))
            return
        for dialect in (1, 2):
            found = row_of(dialect, item)
            version = _version_of(record, found[0].family) if found else 0
            if found and version and (path is None or version == dialect):
                for out in foreign.outs(*found, value.strip(), version, lambda name: _get(record, name)):
                    mount = _mount_of(record, out.file, version)
                    order = Write(mount, out.file, out.value, "", item, None, out.others, out.every)
                    limits.put(order, mount + record["limit"][mount])
                return
        if path is None:
            raise _unknown(record, item)
        group, _, file = path.rpartition("/")
        limits.put(Write("", file, value, "", item), group)
    except Bad as bad:
        raise CgroupError(f"{item}: {bad}", hint=bad.hint) from bad
    except OSError as error:
        raise failed(f'cannot write the cgroup file "{item}"', error) from error


def _mount_of(record: Record, file: str, version: int) -> str:
    controller = file.partition(".")[0]
    for mount, (at, *controllers) in record["hierarchies"].items():
        if at == version and (version == 2 or controller in controllers):
            return str(mount)
    raise _unknown(record, file)


def program_rule(record: Record, item: str, value: str) -> DeviceRule | None:
    """The rule that `write` would add to a program (cgroup v2); None for anything else. Raises CgroupError.

    Who keeps the record has to write it: the program is made of all rules, and only the record has them.
    """
    if item not in ("devices.allow", "devices.deny") or _own(record, item) is not None:
        return None
    from lxcpy.cgroups import devices
    from lxcpy.cgroups.values import Bad

    try:
        return devices.parse(item, value.strip())
    except Bad as bad:
        raise CgroupError(f"{item}: {bad}", hint=bad.hint) from bad


def _write_device(record: Record, path: str | None, rule: DeviceRule) -> None:
    from lxcpy.cgroups import devices
    from lxcpy.cgroups.limits import put
    from lxcpy.cgroups.translate import Write

    if path is not None:
        put(Write("", rule.file, rule.text, "devices", rule.file), path.rpartition("/")[0])
        return
    found = _unified(record)
    if found is None:
        raise _unknown(record, rule.file)
    mount = found[0]
    rules = [*record.get("devices", ()), str(rule)]
    parsed = [devices.parse(f"devices.{line.partition(' ')[0]}", line.partition(" ")[2]) for line in rules]
    devices.install(mount + record["limit"][mount], parsed)
    record["devices"] = rules


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
            # 0 is one that this pid namespace does not see; to kill(2) it would be the caller's own process group
            found.update(int(pid) for pid in files.read(f"{path}/cgroup.procs").split() if pid != "0")
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
                os.kill(pid, SIGKILL)
            except ProcessLookupError:
                pass
    finally:
        try:
            if state:
                files.write(state, "THAWED")
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise failed(f"cannot thaw {state}", error) from error
