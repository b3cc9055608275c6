"""Report the changes of state of containers as they happen."""

from __future__ import annotations

import select
import sys

from lxcpy.cli.options import Args as CommonArgs
from lxcpy.cli.options import Command, Option
from lxcpy.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxcpy.runtime.lxcprotocol import Message


class Args(CommonArgs):
    quit: bool


COMMAND = Command(
    "monitor",
    "Report the changes of state of containers as they happen.",
    "[--name=REGEX]",
    (Option("Q", "quit", None, "End the process that passes LXC's reports on, and leave."),),
    {0: "-Q: done", 1: "there is nothing to listen to"},
    default_name=".*",
    many_paths=True,
    words="The name is a POSIX extended regular expression that must match the whole name. -P may be repeated.",
    args=Args,
)


def run(args: Args) -> int:
    from lxcpy.runtime import lxcmonitor

    if args.quit:
        for lxcpath in args.lxcpaths:
            lxcmonitor.quit_monitord(lxcpath)
        return 0
    from lxcpy.kernel.ere import Pattern

    try:
        pattern = Pattern(f"^{args.name}$")
    except ValueError as error:
        raise UsageError(str(error)) from None
    monitors = [lxcmonitor.Monitor(lxcpath) for lxcpath in args.lxcpaths]
    try:
        while True:
            by_fd = {monitor.fileno(): monitor for monitor in monitors}  # they change
            ready, _, _ = select.select(list(by_fd), [], [])
            for fd in ready:
                shown = [line(message) for message in by_fd[fd].on_readable() if pattern.matches(message.name)]
                sys.stdout.write("".join(shown))
            sys.stdout.flush()
    finally:
        for monitor in monitors:
            monitor.close()


def line(message: Message) -> str:
    """A message as lxc-monitor prints it; "" for one that it does not know."""
    from lxcpy.runtime import lxcprotocol as wire

    if message.kind == wire.MESSAGE_EXIT_CODE:
        return f"'{message.name}' exited with status [{message.value >> 8 & 0xFF}]\n"
    if message.kind == wire.MESSAGE_STATE and 0 <= message.value < wire.MAX_STATE:
        return f"'{message.name}' changed state to [{wire.STATES[message.value]}]\n"
    return ""
