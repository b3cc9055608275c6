"""Hosts of every kind, as the cgroup tests see them."""

from __future__ import annotations

from lxcpy.cgroups.layout import Hierarchy, Layout

V2_CONTROLLERS = ("cpuset", "cpu", "io", "memory", "hugetlb", "pids", "rdma", "misc")
V1_CONTROLLERS = (
    "cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "hugetlb", "rdma", "misc",
    "name=systemd",
)  # fmt: skip


def v1_hierarchy(*controllers: str) -> Hierarchy:
    name = ",".join(controllers)
    return Hierarchy(name, f"/sys/fs/cgroup/{name.removeprefix('name=')}", 1, controllers)


def unified(*controllers: str, mount: str = "/sys/fs/cgroup/unified") -> Hierarchy:
    return Hierarchy("unified", mount, 2, controllers)


V1 = Layout("v1", tuple(v1_hierarchy(name) for name in V1_CONTROLLERS))
V2 = Layout("v2", (unified(*V2_CONTROLLERS, mount="/sys/fs/cgroup"),))
HYBRID = Layout("hybrid", (*V1.hierarchies, unified()))
ALL = {"v1": V1, "v2": V2, "hybrid": HYBRID}
