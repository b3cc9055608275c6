"""Add a device to a running container or remove one."""

from __future__ import annotations

import os
import stat

from lxcpy.cli.options import Args, Command
from lxcpy.errors import CgroupError, RootfsError, StateError, UsageError, meaning

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

VERBS = ("add", "del")
COMMAND = Command(
    "device",
    "Add a device to a running container or remove one.",
    "--name=NAME -- {add | del} DEVICE [NAME-INSIDE]",
    exit_status={0: "added, or removed", 1: "the container does not run, or there is no such device"},
    words="DEVICE is a network interface, which is moved, or the path of a device node, which is made and allowed.",
)


def run(args: Args) -> int:
    if os.geteuid() != 0:
        raise UsageError(f"{args.prog} must be run as root")
    from lxcpy.container import Container

    found = Container(args.name, args.lxcpath).describe(cgroups=True)
    if not found:
        raise StateError(f"{args.name} is not running", hint=f"lxcpy-start -n {args.name}")
    if len(args.rest) < 2:
        raise UsageError("no command given", hint=f"{args.prog} -n {args.name} -- add /dev/DEVICE")
    verb, device, *inside = args.rest
    name = inside[0] if inside else device
    if verb not in VERBS:
        raise UsageError(f'"{verb}" is neither add nor del')
    from lxcpy.network import moving

    pid = int(found["pid"])
    if device in moving.names(os.getpid() if verb == "add" else pid):
        source, target = (os.getpid(), pid) if verb == "add" else (pid, os.getpid())
        moving.move(device, source=source, target=target, new_name=name)
    else:
        node(args.lxcpath, found, verb, device, name)
    return 0


def node(lxcpath: str, found: dict[str, Any], verb: str, device: str, name: str) -> None:
    """Make the device node `name` inside and allow it, or remove it and forbid it. Raises RootfsError, CgroupError."""
    from lxcpy.runtime import usage

    try:
        facts = os.stat(device)
    except OSError as error:
        raise RootfsError(f'"{device}": {meaning(error)}', hint="name a network interface or a device node") from error
    if not stat.S_ISCHR(facts.st_mode) and not stat.S_ISBLK(facts.st_mode):
        raise RootfsError(f'"{device}" is no device node, and no network interface has that name')
    kind = "c" if stat.S_ISCHR(facts.st_mode) else "b"
    record = usage.cgroups(lxcpath, found)
    if record is None:
        raise CgroupError("the container has no control groups")
    rule = f"{kind} {os.major(facts.st_rdev)}:{os.minor(facts.st_rdev)} rwm"
    if verb == "add":
        _make(int(found["pid"]), name, facts)
        usage.write_cgroup(lxcpath, found, record, "devices.allow", rule)
    else:
        _remove(int(found["pid"]), name)
        usage.write_cgroup(lxcpath, found, record, "devices.deny", rule)


def _make(pid: int, name: str, facts: os.stat_result) -> None:
    from lxcpy.kernel.fd import make_dirs_in_root

    folder, _, last = name.strip("/").rpartition("/")
    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        owner = os.stat(root)  # root of the container, also with an id map
        with make_dirs_in_root(root, folder) as parent:
            try:
                os.unlink(last, dir_fd=parent.number)
            except FileNotFoundError:
                pass
            os.mknod(last, facts.st_mode, facts.st_rdev, dir_fd=parent.number)
            os.chown(last, owner.st_uid, owner.st_gid, dir_fd=parent.number, follow_symlinks=False)
    except OSError as error:
        raise RootfsError(f'cannot make "{name}" in the container: {meaning(error)}') from error
    finally:
        os.close(root)


def _remove(pid: int, name: str) -> None:
    from lxcpy.kernel.fd import unlink_in_root

    root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        unlink_in_root(root, name)
    except OSError as error:
        raise RootfsError(f'cannot remove "{name}" from the container: {meaning(error)}') from error
    finally:
        os.close(root)
