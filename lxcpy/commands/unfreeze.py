"""Thaw a frozen container."""

from __future__ import annotations

from lxcpy.cli.options import Args, Command

COMMAND = Command(
    "unfreeze",
    "Thaw a frozen container.",
    "--name=NAME",
    exit_status={0: "the container runs, or did so already", 1: "it does not run"},
)


def run(args: Args) -> int:
    from lxcpy.container import Container

    Container(args.name, args.lxcpath).thaw()
    return 0
