"""Read or set a control group value of a running container."""

from __future__ import annotations

import sys

from lxcpy.cli.options import Args, Command
from lxcpy.errors import StateError, UsageError

COMMAND = Command(
    "cgroup",
    "Read or set a control group value of a running container.",
    "--name=NAME STATE-OBJECT [VALUE]",
    exit_status={0: "printed, or set", 1: "the container does not run, or the kernel refused the object or the value"},
    words="STATE-OBJECT is a file of the container's control group, such as memory.max or cpuset.cpus.",
)


def run(args: Args) -> int:
    if not args.rest:
        raise UsageError("could not parse command line: Missing state object", hint=f"{args.prog} NAME memory.max")
    from lxcpy.cgroups import control
    from lxcpy.container import Container
    from lxcpy.runtime import usage

    item, *values = args.rest
    found = Container(args.name, args.lxcpath).describe(cgroups=True)
    record = usage.cgroups(args.lxcpath, found) if found else None
    if not found or not record:
        raise StateError(f"{args.name} is not running")
    if values:
        usage.write_cgroup(args.lxcpath, found, record, item, values[0])
    else:
        sys.stdout.write(control.read(record, item) + "\n")  # LXC adds an empty line to the kernel's text
    return 0
