"""Control groups: limits and where the groups are."""

from __future__ import annotations

from lxcpy.config.keys.row import CGROUP, ONE, Row
from lxcpy.config.values import CGROUP_NAME, CGROUP_PATH, SWITCH, TEXT

ROWS = (
    Row("lxc.cgroup.*", "cgroup.entries", TEXT, CGROUP, "0.6.2",
        "Limit in the words of cgroup version 1.", sub=CGROUP_NAME),
    Row("lxc.cgroup2.*", "cgroup.entries", TEXT, CGROUP, "3.0",
        "Limit in the words of cgroup version 2.", sub=CGROUP_NAME),
    Row("lxc.cgroup.dir", "cgroup.dirs.dir", CGROUP_PATH, ONE, "2.1",
        "Parent of the container's and the monitor's groups."),
    Row("lxc.cgroup.dir.container", "cgroup.dirs.container", CGROUP_PATH, ONE, "5.0",
        "The container's group, exactly."),
    Row("lxc.cgroup.dir.container.inner", "cgroup.dirs.container_inner", CGROUP_NAME, ONE, "5.0",
        "Group below it in which the cgroup namespace begins."),
    Row("lxc.cgroup.dir.monitor", "cgroup.dirs.monitor", CGROUP_PATH, ONE, "5.0",
        "The monitor's group, exactly."),
    Row("lxc.cgroup.dir.monitor.pivot", "cgroup.dirs.monitor_pivot", CGROUP_PATH, ONE, "5.0",
        "Group the monitor leaves for when the container ends."),
    Row("lxc.cgroup.relative", "cgroup.relative", SWITCH, ONE, "3.1",
        "Whether groups are made below the caller's own group."),
)  # fmt: skip
