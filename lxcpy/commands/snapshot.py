"""Take, list, restore or delete snapshots of a container."""

from __future__ import annotations

from lxcpy.cli.options import Args as CommonArgs
from lxcpy.cli.options import Command, Option


class Args(CommonArgs):
    listed: bool
    restore: str | None
    newname: str | None
    destroy: str | None
    comment: str | None
    showcomments: bool


COMMAND = Command(
    "snapshot",
    "Take, list, restore or delete snapshots of a container.",
    "--name=NAME [-c FILE | -L [-C] | -r SNAPSHOT [-N NEWNAME] | -d SNAPSHOT]",
    (
        Option("L", "list", None, "List the snapshots.", key="listed"),
        Option("r", "restore", "SNAPSHOT", "Restore SNAPSHOT, such as snap0."),
        Option("N", "newname", "NEWNAME", "With -r: restore it as a new container."),
        Option("d", "destroy", "SNAPSHOT", "Delete SNAPSHOT; ALL deletes every one."),
        Option("c", "comment", "FILE", "Keep FILE as the comment of the snapshot taken."),
        Option("C", "showcomments", None, "With -L: show the comments."),
    ),
    {0: "done", 1: "it could not be done"},
    words="Without an option a snapshot is taken; the container must be stopped.",
    args=Args,
)
