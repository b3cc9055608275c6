"""Take, list, restore or delete snapshots of a container."""

from __future__ import annotations

from lxcpy.cli.options import Args as CommonArgs
from lxcpy.cli.options import Command, Option
from lxcpy.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxcpy.container import Container

ALL = "ALL"


class Args(CommonArgs):
    listed: bool
    restore: str | None
    newname: str | None
    destroy: str | None
    comment: str | None
    showcomments: bool
    json: bool


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
        Option("", "json", None, "With -L: an array of objects, one a snapshot.", ours=True),
    ),
    {0: "done", 1: "it could not be done"},
    words="Without an option a snapshot is taken; the container must be stopped.",
    args=Args,
)


def run(args: Args) -> int:
    from lxcpy.container import Container

    container = Container(args.name, args.lxcpath)
    if sum(bool(way) for way in (args.listed, args.restore, args.destroy)) > 1:
        raise UsageError("of -L, -r and -d only one can be given")
    if args.json and not args.listed:
        raise UsageError("--json goes with -L")
    if args.listed:
        _list(container, args)
    elif args.restore is not None:
        if len(args.rest) > (0 if args.newname else 1):
            raise UsageError("Too many arguments")
        container.restore(args.restore, args.newname or (args.rest[0] if args.rest else None))
    elif args.destroy is not None:
        container.delete_snapshot(None if args.destroy == ALL else args.destroy)
    else:
        from lxcpy.commands.copy import warn_of_mounts

        warn_of_mounts(args)
        container.snapshot(args.comment, rcfile=args.rcfile)
    return 0


def _list(container: Container, args: Args) -> None:
    import sys

    found = container.snapshots()
    if args.json:
        from lxcpy.cli import output

        rows = [{"name": args.name, "lxcpath": args.lxcpath, **snapshot.to_dict()} for snapshot in found]
        sys.stdout.write(output.json(rows))
        return
    if not found:
        sys.stdout.write("No snapshots\n")
    for snapshot in found:
        sys.stdout.write(f"{snapshot.name} ({snapshot.path}) {snapshot.timestamp}\n")
        if args.showcomments and snapshot.comment is not None:
            sys.stdout.write(snapshot.comment)
