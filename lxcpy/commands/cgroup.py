"""Read or set a control group value of a running container."""

from __future__ import annotations

from lxcpy.cli.options import Command

COMMAND = Command(
    "cgroup",
    "Read or set a control group value of a running container.",
    "--name=NAME STATE-OBJECT [VALUE]",
    exit_status={0: "printed, or set", 1: "the container does not run, or the kernel refused the object or the value"},
    words="STATE-OBJECT is a file of the container's control group, such as memory.max or cpuset.cpus.",
)
