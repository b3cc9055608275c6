"""Stop every process of a container until it is thawed."""

from __future__ import annotations

from lxcpy.cli.options import Args, Command

COMMAND = Command(
    "freeze",
    "Stop every process of a container until it is thawed.",
    "--name=NAME",
    exit_status={0: "the container is frozen, or was so already", 1: "it does not run"},
)


def run(args: Args) -> int:
    from lxcpy.container import Container

    Container(args.name, args.lxcpath).freeze()
    return 0
