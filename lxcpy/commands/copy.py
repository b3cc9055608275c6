"""Copy, clone or rename a container, or start a temporary clone."""

from __future__ import annotations

from lxcpy import paths
from lxcpy.cli.options import Args as CommonArgs
from lxcpy.cli.options import Command, Option
from lxcpy.commands.create import BACKENDS, UNITS, size
from lxcpy.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lxcpy.container import Container


class Args(CommonArgs):
    newname: str | None
    newpath: str | None
    task: str  # copy, rename, snapshot or ephemeral: of the options that say it, the last one counts
    allowrunning: bool
    foreground: bool
    mount: list[tuple[Any, ...]]
    backingstorage: str | None
    fssize: int | None
    keepdata: bool
    keepname: bool
    keepmac: bool
    tmpfs: bool


def mounts(text: str) -> tuple[Any, ...]:
    """The mounts of one -m. Raises ValueError."""
    from lxcpy.runtime.ephemeral import parse_mounts

    return parse_mounts(text)


COMMAND = Command(
    "copy",
    "Copy, clone or rename a container, or start a temporary clone.",
    "--name=NAME {-N NEWNAME [-s] | -R -N NEWNAME | -e} [OPTION...] [-- ARGUMENT...]",
    (
        Option("N", "newname", "NEWNAME", "Name of the copy (default with -e: NAME and six random characters)."),
        Option("p", "newpath", "PATH", "Directory of containers for the copy (default: the original's)."),
        Option("R", "rename", None, "Rename the container instead.", key="task", value="rename", default="copy"),
        Option(
            "s", "snapshot", None, "Make a snapshot clone, which stores the differences alone.",
            key="task", value="snapshot",
        ),
        Option("a", "allowrunning", None, "Copy a container that runs."),
        Option("F", "foreground", None, "With -e: connect its console to this terminal and stay until it ends."),
        Option("d", "daemon", None, "With -e: leave it running (default).", key="foreground", value=False),
        Option(
            "e", "ephemeral", None, "Start a snapshot clone that is deleted when it stops.",
            key="task", value="ephemeral",
        ),
        Option(
            "m", "mount", "MOUNT", "With -e: mount {bind,overlay}=SRC[:DST][:ro|rw] in it; repeatable.",
            many=True, convert=mounts,
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


def run(args: Args) -> int:
    from lxcpy.container import Container

    container = Container(args.name, args.lxcpath)
    if not args.newname and args.task != "ephemeral":
        raise UsageError("You must provide a NEWNAME for the clone", hint="-N NEWNAME")
    new_path = paths.lxcpath(args.newpath or args.lxcpath)
    if args.fssize is not None and not args.quiet:
        import sys

        sys.stderr.write(f"{args.prog}: {args.name}: warning: -L has no effect: a directory has no size of its own\n")
    if args.task == "rename":
        if new_path != args.lxcpath:
            raise UsageError("-R renames a container where it is", hint="leave out -p, or copy it and destroy it")
        container.rename(args.newname or "", args.rest, keep_name=args.keepname)
    elif args.task == "ephemeral":
        _temporary(container, args, new_path)
    else:
        if args.task == "copy":
            warn_of_mounts(args)
        container.copy(
            args.newname or "", new_path, snapshot=args.task == "snapshot", allow_running=args.allowrunning,
            backing=args.backingstorage, keep_name=args.keepname, keep_macs=args.keepmac, arguments=args.rest,
            rcfile=args.rcfile,
        )  # fmt: skip
    return 0


def warn_of_mounts(args: CommonArgs) -> None:
    """Say what of the original's root filesystem a full copy leaves out."""
    from lxcpy.cli.report import Reporter
    from lxcpy.errors import LxcpyError
    from lxcpy.runtime import copy

    try:
        found = copy.mounted_in(copy.load_source(args.lxcpath, args.name, args.rcfile))
    except LxcpyError:
        return  # the copy says it
    reporter = Reporter(args.prog, args.name, quiet=args.quiet)
    for place in found:
        reporter.warning(LxcpyError(f"what is mounted on {place} is not copied"))


def _temporary(container: Container, args: Args, new_path: str) -> None:
    """Make a temporary clone, start it, run the command in it if there is one."""
    import sys

    from lxcpy.container import Container
    from lxcpy.errors import LxcpyError
    from lxcpy.runtime import copy, ephemeral

    plan = copy.Request(
        container.name, container.lxcpath, Container(args.newname, new_path).name if args.newname else "", new_path,
        allow_running=args.allowrunning, backing=args.backingstorage, keep_name=args.keepname,
        keep_macs=args.keepmac, config=args.rcfile,
    )  # fmt: skip
    wanted = [mount for given in args.mount for mount in given]
    clone = Container(ephemeral.make(ephemeral.Request(plan, wanted, args.tmpfs, args.keepdata)), new_path)
    if not args.quiet:
        sys.stdout.write(f"Created {clone.name} as clone of {container.name}\n")
        if args.tmpfs:
            sys.stdout.write("Container is placed on tmpfs.\n")
            sys.stdout.write("Rebooting will cause all changes made to it to be lost!\n")
        sys.stdout.flush()
    foreground = args.foreground and not args.rest
    try:
        started = clone.start(foreground=foreground, log_file=args.logfile, log_level=args.logpriority)
    except LxcpyError:
        if not args.keepdata:
            clone.destroy()
        raise
    if not args.quiet:
        for warning in started.warnings:
            sys.stderr.write(f"{args.prog}: {clone.name}: warning: {warning}\n")
    if foreground:
        from lxcpy.runtime.foreground import stay

        stay(started)
    elif args.rest:
        _command(clone, args.rest)


def _command(clone: Container, words: list[str]) -> None:
    """Run a command in the clone, then stop it; what the command's own exit status was does not count."""
    from lxcpy.errors import StateError
    from lxcpy.runtime import attach

    try:
        attach.attach(clone.lxcpath, clone.name, attach.Request(argv=tuple(words), clear_env=True))
    except attach.CommandError as error:
        error.code = 0  # as with lxc-copy
        raise
    finally:
        try:
            # again and again: the kernel drops a signal that a young init has not asked for yet
            if not any(clone.shutdown(seconds) for seconds in (1, 4, 15, 40)):
                clone.kill(30)
        except StateError:
            pass  # the command has stopped it
