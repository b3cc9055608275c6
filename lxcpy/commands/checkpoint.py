"""Write a running container's state to disk, or restore it from there."""

from __future__ import annotations

from lxcpy.cli.options import Args as CommonArgs
from lxcpy.cli.options import Command, Option
from lxcpy.errors import UsageError


class Args(CommonArgs):
    restore: bool
    checkpoint_dir: str | None
    verbose: bool
    action_script: str | None
    stop: bool
    pre_dump: bool
    predump_dir: str | None
    daemon: bool
    foreground: bool


COMMAND = Command(
    "checkpoint",
    "Write a running container's state to disk, or restore it from there.",
    "--name=NAME -D DIR [OPTION...]",
    (
        Option("D", "checkpoint-dir", "DIR", "The directory of the checkpoint."),
        Option("A", "action-script", "PATH", "A script that criu runs at each of its stages."),
        Option("s", "stop", None, "Stop the container after the checkpoint."),
        Option("v", "verbose", None, "Let criu log all that it does."),
        Option("r", "restore", None, "Restore it."),
        Option("d", "daemon", None, "With -r: restore it in the background (default)."),
        Option(
            "F", "foreground", None, "With -r: connect this terminal to its console, and end it with this command."
        ),
        Option("p", "pre-dump", None, "Dump its memory alone; later checkpoints write what has changed since."),
        Option("", "predump-dir", "DIR", "The images of an earlier dump, relative to -D."),
    ),
    {0: "the checkpoint is written, or the container runs again; with -F: it has ended", 1: "it could not be done"},
    args=Args,
)  # fmt: skip


def check(args: Args) -> str:
    """The directory. Raises UsageError for options that do not go together."""
    if args.restore and args.stop:
        raise UsageError("-s not compatible with -r")
    if not args.restore and (args.daemon or args.foreground):
        raise UsageError("-d/-F need -r")
    if not args.checkpoint_dir:
        raise UsageError("-D is required", hint="-D DIR: where the checkpoint is, or will be")
    if args.pre_dump and args.restore:
        raise UsageError("-p not compatible with -r")
    return args.checkpoint_dir


def run(args: Args) -> int:
    directory = check(args)
    from lxcpy.container import Container

    container = Container(args.name, args.lxcpath)
    if args.rcfile is None:
        container.require_defined()
    from lxcpy.runtime import checkpoint

    request = checkpoint.Request(
        directory, args.verbose, args.action_script, args.stop, args.pre_dump, args.predump_dir, args.rcfile
    )
    if not args.restore:
        container.checkpoint(request)
        return 0
    started = container.resume(request, foreground=args.foreground)
    if args.foreground:
        from lxcpy.runtime.foreground import stay

        stay(started)
    return 0
