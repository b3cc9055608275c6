"""The groups of a container's monitor: lxc.cgroup.dir.monitor and lxc.cgroup.dir.monitor.pivot.

One supervisor serves all containers and is in none of them. Who works for one container alone for a while, its launcher
and the process of its teardown, with the hooks that they run, is in its monitor's group.
"""

from __future__ import annotations

import os
from typing import Any

from lxcpy.cgroups import files
from lxcpy.cgroups.tree import fill_cpuset, make_group
from lxcpy.errors import meaning
from lxcpy.log import Log

LOG = Log("cgroups")
PIVOT = "lxc.pivot"


def enter(record: dict[str, Any]) -> None:
    """The calling, single-threaded process goes into the monitor's groups, if there are any. Raises nothing."""
    _enter(record, record.get("serving", {}))


def leave(record: dict[str, Any]) -> list[str]:
    """It goes on to the pivot groups, so that the monitor's can be removed; those that were made, for `remove`."""
    made = []
    pivots = {mount: f"{path}/{PIVOT}" for mount, path in record.get("pivot", {}).items()}
    for mount, path in pivots.items():
        parents: list[str] = []
        make_group(mount, path, parents)  # another container's teardown may be in it too
        made += [mount + above for above in parents] + [mount + path]
        controllers = record["hierarchies"][mount][1:]
        if "cpuset" in controllers and record["hierarchies"][mount][0] == 1:
            for group in (*parents, path):
                fill_cpuset(mount, group)
    _enter(record, pivots)
    return made


def remove(made: list[str]) -> None:
    """Remove the groups that `leave` made, unless somebody else is in them; the caller is elsewhere by now."""
    for group in reversed(made):
        try:
            os.rmdir(group)
        except OSError as error:
            LOG.debug(f"{group} stays: {meaning(error)}")


def _enter(record: dict[str, Any], groups: dict[str, str]) -> None:
    for mount, path in groups.items():
        # writing 0 into `tasks` skips a lock, see tree.py
        name = "cgroup.procs" if record["hierarchies"][mount][0] == 2 else "tasks"
        try:
            files.write(f"{mount}{path}/{name}", "0")
        except OSError as error:
            LOG.warn(f"the monitor cannot enter its group {mount}{path}: {meaning(error)}")
