"""Copy, clone or rename a container, or start a temporary clone."""

from __future__ import annotations

from lxcpy.cli.options import Args as CommonArgs
from lxcpy.cli.options import Command, Option
from lxcpy.commands.create import BACKENDS, UNITS, size


class Args(CommonArgs):
    newname: str | None
    newpath: str | None
    rename: bool
    snapshot: bool
    allowrunning: bool
    foreground: bool
    ephemeral: bool
    mount: list[str]
    backingstorage: str | None
    fssize: int | None
    keepdata: bool
    keepname: bool
    keepmac: bool
    tmpfs: bool


COMMAND = Command(
    "copy",
    "Copy, clone or rename a container, or start a temporary clone.",
    "--name=NAME {-N NEWNAME [-s] | -R -N NEWNAME | -e} [OPTION...] [-- ARGUMENT...]",
    (
        Option("N", "newname", "NEWNAME", "Name of the copy (default with -e: NAME and six random characters)."),
        Option("p", "newpath", "PATH", "Directory of containers for the copy (default: the original's)."),
        Option("R", "rename", None, "Rename the container instead."),
        Option("s", "snapshot", None, "Make a snapshot clone, which stores the differences alone."),
        Option("a", "allowrunning", None, "Copy a container that runs."),
        Option("F", "foreground", None, "With -e: connect its console to this terminal and stay until it ends."),
        Option("d", "daemon", None, "With -e: leave it running (default).", key="foreground", value=False),
        Option("e", "ephemeral", None, "Start a snapshot clone that is deleted when it stops."),
        Option(
            "m", "mount", "MOUNT", "With -e: mount {bind,overlay}=SRC[:DST][:ro|rw] in it; repeatable.", many=True,
        ),
        Option("B", "backingstorage", "TYPE", "Backing store of the copy.", choices=BACKENDS),
        Option(
            "L", "fssize", "SIZE", f"Size of a block device, with a unit of {' '.join(UNITS)} (default 1G).",
            convert=size,
        ),
        Option("D", "keepdata", None, "With -e: keep it when it stops."),
        Option("K", "keepname", None, "Keep the original's host name."),
        Option("M", "keepmac", None, "Keep the original's hardware addresses."),
        Option("t", "tmpfs", None, "With -e: keep the changes in memory."),
    ),
    {0: "done", 1: "it could not be copied or renamed; nothing of the copy is left"},
    words="ARGUMENT: with -e, the command to run in the clone; otherwise arguments of the clone hooks.",
    args=Args,
)  # fmt: skip
