"""The supervisor's own control groups."""

from __future__ import annotations

import os

from lxcpy.cgroups import layout, plan, tree
from lxcpy.errors import meaning
from lxcpy.log import Log

LOG = Log("cgroup")


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
