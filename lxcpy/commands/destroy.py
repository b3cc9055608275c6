"""Delete a container."""

from __future__ import annotations

from lxcpy.cli.options import Args as CommonArgs
from lxcpy.cli.options import Command, Option


class Args(CommonArgs):
    force: bool
    snapshots: bool


COMMAND = Command(
    "destroy",
    "Delete a container.",
    "--name=NAME [-f] [-s]",
    (
        Option("f", "force", None, "Kill it first where it runs."),
        Option("s", "snapshots", None, "Delete its snapshots and clones too."),
    ),
    {0: "the container is gone", 1: "it runs, has snapshots or clones, or is not defined"},
    args=Args,
)


def run(args: Args) -> int:
    from lxcpy.container import Container

    Container(args.name, args.lxcpath).destroy(force=args.force, snapshots=args.snapshots)
    return 0
