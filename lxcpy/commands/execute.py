"""Run one command in a container of its own."""

from __future__ import annotations

from lxcpy.cli.options import Args as CommonArgs
from lxcpy.cli.options import Command, Option, definition, natural
from lxcpy.commands.start import SHARE


class Args(CommonArgs):
    daemon: bool
    define: list[str]
    uid: int | None
    gid: int | None
    share_net: str | None
    share_ipc: str | None
    share_uts: str | None
    share_pid: str | None


COMMAND = Command(
    "execute",
    "Run one command in a container of its own.",
    "--name=NAME [-- COMMAND]",
    (
        Option("d", "daemon", None, "Leave it running and return once it runs."),
        Option("f", "rcfile", "FILE", "Read the container's configuration from FILE."),
        Option(
            "s", "define", "KEY=VALUE", "Set a configuration key for this run; repeatable.",
            many=True, convert=definition,
        ),
        Option("u", "uid", "UID", "User id of the command.", convert=natural),
        Option("g", "gid", "GID", "Group id of the command.", convert=natural),
        *SHARE,
    ),
    {
        "STATUS": "the command's own exit status; with -d: 0 once it runs",
        "128+N": "the command was ended by signal N",
        1: "the container could not be started",
        255: "the command could not be executed",
    },
    words="Without COMMAND: lxc.execute.cmd of the configuration.",
    args=Args,
)  # fmt: skip
