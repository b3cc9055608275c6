"""Check what this kernel offers to containers."""

from __future__ import annotations

from lxcpy.cli.options import PLAIN, Command

COMMAND = Command(
    "checkconfig",
    "Check what this kernel offers to containers.",
    "",
    exit_status={0: "the configuration of the kernel was found and shown", 1: "it was not found"},
    named=False,
    common=PLAIN,
    stdout_help=True,
    words="The environment variable CONFIG names another configuration than the running kernel's.",
)
