"""Start a container."""

from __future__ import annotations

from lxcpy.cli.options import Args as CommonArgs
from lxcpy.cli.options import Command, Option, definition


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
        Option("p", "pidfile", "FILE", "Write the process id of the container's monitor to FILE."),
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
