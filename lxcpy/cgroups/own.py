"""The supervisor's own control groups."""

from __future__ import annotations

import os
import time

from lxcpy import paths
from lxcpy.cgroups import layout, plan, tree
from lxcpy.errors import CgroupError, meaning
from lxcpy.log import Log

LOG = Log("cgroup")
PATIENCE = 5.0  # seconds for which systemd is waited for


def is_service() -> bool:
    """Did systemd start this process as a service (systemd.exec(5))? A command hands nothing of that on."""
    return "INVOCATION_ID" in os.environ


def enter() -> None:
    """The supervisor leaves the session that happened to start it, as LXC's monitor does.

    As a systemd service it stays: the journal and systemctl know it by the group of its unit.
    """
    if is_service():
        return
    layout_now = layout.detect()
    if os.geteuid() and layout_now.unified and not plan.usable(os.path.dirname(_group(layout_now.unified, layout_now))):
        ask_systemd("supervisor")
    for hierarchy in layout_now.hierarchies:
        for _ in range(3):  # another supervisor that ends may remove the group just made
            try:
                cpuset = hierarchy.version == 1 and "cpuset" in hierarchy.controllers
                _move(_group(hierarchy, layout_now), cpuset=cpuset)
            except FileNotFoundError:
                continue
            except OSError as error:
                LOG.debug(f"stays in its caller's group of {hierarchy.mount}: {meaning(error)}")
            break


def _group(hierarchy: layout.Hierarchy, whole: layout.Layout) -> str:
    """Root's is in the hierarchy's root, an ordinary user's in the group that the process is in."""
    base = plan.HostFacts.read(whole).bases[hierarchy.mount] if os.geteuid() else ""
    return os.path.join(hierarchy.mount, base, plan.SUPERVISOR)


def ask_systemd(what: str) -> bool:
    """Have the user's own systemd put this process into a scope that is the user's: lxcpy-WHAT-PID; whether it did so.

    A session's group is not to be written in, and a process leaves it for another only where both are the user's.
    """
    bus, unit = f"{paths.runtime_dir()}/bus", f"lxcpy-{what}-{os.getpid()}.scope"
    if not os.path.exists(bus):
        return False
    import subprocess

    manager = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
    call = ("call", *manager, "StartTransientUnit", "ssa(sv)a(sa(sv))")
    scope = (unit, "fail", "3", "PIDs", "au", "1", str(os.getpid()), "Delegate", "b", "true", "CollectMode", "s",
             "inactive-or-failed", "0")  # fmt: skip
    command = ["busctl", f"--address=unix:path={bus}", *call, *scope]
    try:
        subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=True, timeout=PATIENCE)
    except (OSError, subprocess.SubprocessError) as error:
        LOG.warn(f"no control group of its own from the user's systemd: {error}")
        return False
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with open("/proc/self/cgroup") as file:
            if unit in file.read():
                return True
        time.sleep(0.01)
    return False


def make_room(record: tree.Record, caller: int) -> dict[str, str]:
    """Move an ordinary user's command beside the containers: in cgroup v2 a group with processes hands no controller
    down. Others than our own commands stay, and keep the group from it. Returns what was made: mount → group.

    record: of the container's groups, which are not made yet.
    """
    made = {}
    for mount, (version, *_controllers) in record["hierarchies"].items():
        base = record["bases"][mount].rstrip("/")
        group = f"{base}/{plan.SUPERVISOR}"
        try:
            with open(f"/proc/{caller}/cgroup") as file:
                if version != 2 or f"0::{base}\n" not in file.read():
                    continue
            if tree.make_group(mount, group, []):
                made[mount] = group
            with open(f"{mount}{group}/cgroup.procs", "w") as procs:
                procs.write(str(caller))
        except (OSError, CgroupError) as error:
            LOG.debug(f"{mount}{base}: {error}")
    return made


def _move(group: str, *, cpuset: bool) -> None:
    os.makedirs(group, exist_ok=True)
    if cpuset:
        tree.fill_cpuset(os.path.dirname(group), f"/{plan.SUPERVISOR}")
    with open(os.path.join(group, "cgroup.procs"), "w") as procs:
        procs.write(str(os.getpid()))


def leave() -> None:
    """At the supervisor's end: out of the groups that `enter` made, and remove those nobody else is in."""
    if is_service():
        return
    layout_now = layout.detect()
    for hierarchy in layout_now.hierarchies:
        group = _group(hierarchy, layout_now)
        if not os.path.isdir(group):
            continue
        # 0 into `tasks`: a single thread that moves itself waits for no RCU grace period
        file = "tasks" if hierarchy.version == 1 else "cgroup.procs"
        try:
            with open(os.path.join(os.path.dirname(group), file), "w") as procs:
                procs.write("0")
            os.rmdir(group)
        except OSError as error:
            LOG.debug(f'the group "{group}" stays: {meaning(error)}')
