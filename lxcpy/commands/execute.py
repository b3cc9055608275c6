"""Run one command in a container of its own."""

from __future__ import annotations

from lxcpy.cli.options import Args as CommonArgs
from lxcpy.cli.options import Command, Option, definition, natural
from lxcpy.commands.start import SHARE
from lxcpy.errors import StateError


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


def run(args: Args) -> int:
    from lxcpy.container import Container

    container = Container(args.name, args.lxcpath)
    share = {kind: getattr(args, f"share_{kind}") for kind in ("net", "ipc", "uts", "pid")}
    if not args.rcfile and not container.defined:
        raise StateError(
            "Executing a container with no configuration file may crash the host",
            hint=f"-f FILE names one, or lxcpy-create -n {args.name} -t none makes one",
        )
    started = container.start(
        rcfile=args.rcfile,
        define=args.define,
        command=args.rest,
        share={kind: name for kind, name in share.items() if name},
        uid=args.uid,
        gid=args.gid,
        log_file=args.logfile,
        log_level=args.logpriority,
        stdio=() if args.daemon else (0, 1, 2),
        foreground=not args.daemon,
    )
    if started.already:
        raise StateError(f"{args.name} is already running")
    if args.daemon:
        return 0
    from lxcpy.runtime.foreground import status

    return status(started)
