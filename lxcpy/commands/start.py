"""Start a container."""

from __future__ import annotations

import sys

from lxcpy.cli.options import Args as CommonArgs
from lxcpy.cli.options import Command, Option, definition
from lxcpy.errors import StateError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lxcpy.container import Container


class Args(CommonArgs):
    foreground: bool
    pidfile: str | None
    console: str | None
    console_log: str | None
    close_all_fds: bool
    define: list[str]
    share_net: str | None
    share_ipc: str | None
    share_uts: str | None
    share_pid: str | None
    dry_run: bool


SHARE = tuple(
    Option("", f"share-{kind}", "NAME", f"Use the {what} of the container NAME, or of the process with that id.")
    for kind, what in (
        ("net", "network"),
        ("ipc", "System V IPC and message queues"),
        ("uts", "host name"),
        ("pid", "process ids"),
    )
)
COMMAND = Command(
    "start",
    "Start a container.",
    "--name=NAME [-- COMMAND]",
    (
        Option(
            "d", "daemon", None, "Leave it running and return once it runs (default).", key="foreground", value=False
        ),
        Option("F", "foreground", None, "Connect its console to this terminal and stay until it ends."),
        Option("f", "rcfile", "FILE", "Read the container's configuration from FILE."),
        Option(
            "s", "define", "KEY=VALUE", "Set a configuration key for this start; repeatable.",
            many=True, convert=definition,
        ),
        Option("c", "console", "FILE", 'Use FILE as the console; "none" for no console.'),
        Option("L", "console-log", "FILE", "Write what the console prints to FILE too."),
        Option("C", "close-all-fds", None, "Let the container inherit no open file; -d always does so."),
        Option("p", "pidfile", "FILE", "Keep the process id of the container's init in FILE while it runs."),
        *SHARE,
        Option("", "dry-run", None, "Print every step of the start and do none of them.", ours=True),
    ),
    {
        0: "the container runs, or it ran already; with -F: it has ended",
        1: "it could not be started",
    },
    words="COMMAND replaces lxc.init.cmd (/sbin/init) as the container's first process.",
    args=Args,
)  # fmt: skip


def run(args: Args) -> int:
    from lxcpy.container import Container

    container = Container(args.name, args.lxcpath)
    share = {kind: getattr(args, f"share_{kind}") for kind in ("net", "ipc", "uts", "pid")}
    settings: dict[str, Any] = {
        "rcfile": args.rcfile,
        "define": args.define,
        "init": args.rest or None,
        "share": {kind: name for kind, name in share.items() if name},
        "console": args.console,
        "console_log": args.console_log,
        "log_file": args.logfile,
        "pidfile": args.pidfile,
        "log_level": args.logpriority,
    }
    if args.dry_run:
        from lxcpy.runtime.preview import preview

        container.check_startable(args.rcfile)
        sys.stdout.write("".join(f"{line}\n" for line in preview(container.options(**settings))))
        return 0
    started = container.start(**settings, foreground=args.foreground)
    if started.already:
        raise _running(container, started.pid)
    if not args.quiet:
        for warning in started.warnings:
            sys.stderr.write(f"lxcpy-start: {args.name}: warning: {warning}\n")
    if not args.foreground:
        return 0
    from lxcpy.runtime.foreground import stay

    stay(started)
    return 0


def _running(container: Container, pid: int) -> StateError:
    """What a start of a running container says; LXC ends with 0 then. pid: of its init; 0 where LXC runs it."""
    name = container.name
    error = StateError(f"{name} is already running", hint=f"lxcpy-attach -n {name} enters it")
    error.code = 0 if pid or container.state != "STOPPED" else 1  # LXC's monitor is about to end, and nothing runs then
    return error
