"""Stop or reboot a container."""

from __future__ import annotations

from lxcpy.cli.options import Args as CommonArgs
from lxcpy.cli.options import Command, Option, seconds
from lxcpy.errors import StateError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxcpy.container import Container


class Args(CommonArgs):
    reboot: bool
    nowait: bool
    timeout: int | None
    kill: bool
    nolock: bool
    nokill: bool


COMMAND = Command(
    "stop",
    "Stop or reboot a container.",
    "--name=NAME",
    (
        Option("r", "reboot", None, "Reboot it and wait until it runs again."),
        Option("W", "nowait", None, "Send the request and return at once."),
        Option(
            "t", "timeout", "SECONDS",
            "How long to wait for a clean shutdown before it is killed (default 60; -1: for ever).",
            convert=seconds,
        ),
        Option("k", "kill", None, "Kill it; ask for no clean shutdown."),
        Option("", "nokill", None, "Do not kill it when the time is over."),
        Option("", "nolock", None, "With -k: do not wait for another command that works on it."),
    ),
    {
        0: "the container is stopped; with -r: rebooted; with -W: asked to",
        1: "it did not stop in time, or the request failed",
        2: "it was not running, or there is no such container",
    },
    args=Args,
)  # fmt: skip


def checked(args: Args) -> int:
    """The timeout in seconds, -1 for ever. Raises UsageError for options that do not go together."""
    timeout = args.timeout
    if timeout is None:
        timeout = 0 if args.kill else 60
    if args.nowait:
        timeout = 0
    if args.kill and args.nokill:
        raise UsageError("-k can't be used with --nokill")
    if args.kill and args.reboot:
        raise UsageError("-k can't be used with -r")
    if args.kill and timeout:
        raise UsageError("-k doesn't allow timeouts")
    if args.nolock and not args.kill:
        raise UsageError("--nolock may only be used with -k")
    return timeout


def run(args: Args) -> int:
    timeout = checked(args)
    from lxcpy.container import Container

    container = Container(args.name, args.lxcpath)
    found = container.describe()
    due = found is not None and found.get("restart") and not args.reboot  # then a stop calls the restart off
    if (found is None or found["state"] == "STOPPED") and not due:
        raise not_running(args.name)
    try:
        return end(args, container, timeout)
    except StateError as error:
        if error.what.endswith("is not running"):  # another command was faster
            raise not_running(args.name) from None
        raise


def not_running(name: str) -> StateError:
    """What there is to say of a stopped container, with LXC's exit status."""
    error = StateError(f"{name} is not running")
    error.code = 2
    return error


def end(args: Args, container: Container, timeout: int) -> int:
    """Do it; the exit status. Raises StateError."""
    wait = None if timeout < 0 else float(timeout)
    if args.kill:
        return 0 if container.kill() else 1
    if args.reboot:
        if container.reboot(wait):
            return 0
        raise StateError(f"{args.name} did not reboot within {timeout} seconds", hint="-t SECONDS waits longer")
    if container.shutdown(wait) or timeout == 0:
        return 0
    if not args.nokill:
        return 0 if container.kill() else 1
    raise StateError(f"{args.name} did not stop within {timeout} seconds", hint="without --nokill it is killed then")
