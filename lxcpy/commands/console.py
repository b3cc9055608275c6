"""Connect the terminal to a container's tty or console."""

from __future__ import annotations

from lxcpy.cli.options import Args as CommonArgs
from lxcpy.cli.options import Command, Option, natural


class Args(CommonArgs):
    tty: int
    escape: int


def escape(text: str) -> int:
    """Code of the control character that `^a` or `a` stands for: 1 for Ctrl-a. Raises ValueError."""
    letter = text.removeprefix("^").lower()
    if len(letter) != 1 or not "a" <= letter <= "z":
        raise ValueError(f'"{text}" is not a letter, nor ^ and a letter')
    return ord(letter) - ord("a") + 1


COMMAND = Command(
    "console",
    "Connect the terminal to a container's tty or console.",
    "--name=NAME [--tty=NUMBER]",
    (
        Option(
            "t", "tty", "NUMBER", "The tty; 0 is the console (default: the next free tty).",
            convert=natural, default=-1,
        ),
        Option("e", "escape", "CHAR", "Ctrl-CHAR begins an escape: ^a or a (default).", convert=escape, default=1),
    ),
    {0: "the session ended", 1: "the container does not run, or the tty is taken or does not exist"},
    words="Ctrl-a q leaves the console, Ctrl-a Ctrl-a sends Ctrl-a itself.",
    args=Args,
)  # fmt: skip


def run(args: Args) -> int:
    import os
    import sys

    from lxcpy.errors import StateError
    from lxcpy.runtime import lxcclient, terminal

    try:
        lent = lxcclient.command(args.lxcpath, args.name).console(args.tty)
    except lxcclient.Gone:
        raise StateError(
            f'container "{args.name}" is not running', hint=f"start it: lxcpy-start -n {args.name}"
        ) from None
    key = chr(ord("a") + args.escape - 1)
    sys.stderr.write(
        f"\nConnected to tty {lent.tty}\n"
        f"Type <Ctrl+{key} q> to exit the console, <Ctrl+{key} Ctrl+{key}> to enter Ctrl+{key} itself\n"
    )
    sys.stderr.flush()
    try:
        terminal.proxy(lent.master, escape=args.escape)
    finally:
        os.close(lent.master)
        os.close(lent.hold)  # gives the terminal back
    return 0
