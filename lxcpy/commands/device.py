"""Add a device to a running container or remove one."""

from __future__ import annotations

from lxcpy.cli.options import Command

COMMAND = Command(
    "device",
    "Add a device to a running container or remove one.",
    "--name=NAME -- {add | del} DEVICE [NAME-INSIDE]",
    exit_status={0: "added, or removed", 1: "the container does not run, or there is no such device"},
    words="DEVICE is a network interface, which is moved, or the path of a device node, which is made and allowed.",
)
