"""Report the changes of state of containers as they happen."""

from __future__ import annotations

import select
import sys
import time

from lxcpy.cli import output
from lxcpy.cli.options import Args as CommonArgs
from lxcpy.cli.options import Command, Option
from lxcpy.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxcpy.runtime.lxcprotocol import Message


class Args(CommonArgs):
    quit: bool
    json: bool


COMMAND = Command(
    "monitor",
    "Report the changes of state of containers as they happen.",
    "[--name=REGEX]",
    (
        Option("Q", "quit", None, "End the process that passes LXC's reports on, and leave."),
        Option("", "json", None, "One object a line.", ours=True),
    ),
    {0: "-Q: done", 1: "the name is no expression; -Q: there is no such process"},
    default_name=".*",
    many_paths=True,
    words="The name is a POSIX extended regular expression that must match the whole name. -P may be repeated.",
    args=Args,
)


def run(args: Args) -> int:
    from lxcpy.runtime import lxcmonitor

    if args.quit:
        ended = [lxcmonitor.quit_monitord(lxcpath) for lxcpath in args.lxcpaths]
        return 0 if all(ended) else 1
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
                monitor = by_fd[fd]
                found = [message for message in monitor.on_readable() if pattern.matches(message.name)]
                shown = [as_json(message, monitor.lxcpath) if args.json else line(message) for message in found]
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


def as_json(message: Message, lxcpath: str) -> str:
    """The same as a line of JSON."""
    from lxcpy.runtime import lxcprotocol as wire

    if not line(message):
        return ""
    ended = message.kind == wire.MESSAGE_EXIT_CODE
    return output.json({
        "time": time.time(),
        "name": message.name,
        "lxcpath": lxcpath,
        "event": "exit" if ended else "state",
        "state": None if ended else wire.STATES[message.value],
        "exit_status": message.value >> 8 & 0xFF if ended and not message.value & 0x7F else None,
        "signal": message.value & 0x7F or None if ended else None,
    })  # fmt: skip
