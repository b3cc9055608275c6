"""Entry of every command: find it, parse its options, open the log, run it, and print what went wrong.

The only place that prints an error and picks an exit status.
"""

from __future__ import annotations

import os
import sys

from lxcpy import __version__, log, paths
from lxcpy.cli.registry import COMMANDS
from lxcpy.cli.report import Reporter
from lxcpy.errors import LxcpyError, meaning

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself costs a light command 9 ms
    from typing import Any, NoReturn

PREFIXES = ("lxcpy-", "lxc-")  # a link named lxc-start works too: LXC's own test scripts call those names


def main() -> int:
    """Run the command that the program's name says, else the first word: `lxcpy-start web`, `lxcpy start web`."""
    base = os.path.basename(sys.argv[0])
    for prefix in PREFIXES:
        if base.startswith(prefix):
            return run(base[len(prefix) :], base, sys.argv[1:])
    words = sys.argv[1:]
    if not words or words[0].startswith("-"):
        return _overview(words)
    return run(words[0], f"lxcpy-{words[0]}", words[1:])


def leave(status: int) -> NoReturn:
    """End the process with `status`; where nothing waits for the interpreter's end, without that (1.4 ms)."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:
        status = 141
    except OSError:
        pass  # said already
    if "threading" not in sys.modules and "atexit" not in sys.modules:
        os._exit(status)
    sys.exit(status)


def run(command: str, prog: str, words: list[str]) -> int:
    """Run one command with its arguments; the exit status is returned, errors are printed."""
    reporter = Reporter(prog)
    sys.stdout.reconfigure(errors="surrogateescape")  # type: ignore[union-attr]  # names of files are bytes
    try:
        status = _run(command, reporter, words)
        sys.stdout.flush()
        return status
    except LxcpyError as error:
        reporter.error(error)
        return error.code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone; the interpreter's own flush at exit must not complain about it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        place = f"{error.filename}: " if isinstance(error.filename, str) else ""
        hint = "run it as root" if isinstance(error, PermissionError) and os.geteuid() else reporter.keep_traceback()
        reporter.error(LxcpyError(f"{place}{meaning(error)}", hint=hint))
        return 1
    except Exception as error:
        what = f"internal error: {type(error).__name__}: {error}".splitlines()[0]
        reporter.error(LxcpyError(what, hint=reporter.keep_traceback()))
        return 1


def _run(command: str, reporter: Reporter, words: list[str]) -> int:
    if command not in COMMANDS:
        from difflib import get_close_matches

        near = get_close_matches(command, COMMANDS, 1)
        raise LxcpyError(
            f'"{command}" is not a command', hint=f"did you mean {near[0]}?" if near else "lxcpy --help lists them"
        )
    module: Any = __import__(f"lxcpy.commands.{COMMANDS[command][0]}", fromlist=["run"])
    from lxcpy.cli.options import Answer, parse

    try:
        args = parse(module.COMMAND, reporter.prog, words)
    except Answer as answer:
        (sys.stdout if answer.stdout else sys.stderr).write(answer.text)
        return answer.code
    reporter.name, reporter.quiet = args.name, getattr(args, "quiet", False)
    _open_log(args)
    status: int = module.run(args)
    return status


def _open_log(args: Any) -> None:
    """-o FILE and -l LEVEL; -l alone logs to the container's file of LXC's log directory."""
    path, level = getattr(args, "logfile", None), getattr(args, "logpriority", None)
    if path is None and level is None:
        return
    if path is None:
        if not args.name:
            return
        machine = args.lxcpath == paths.LXCPATH and os.geteuid() == 0
        folder = "/var/log/lxc" if machine else f"{args.lxcpath}/{args.name}"
        path = f"{folder}/{args.name}.log"
    try:
        log.open_log(path, log.ERROR if level is None else level, program=args.prog, name=args.name)
    except OSError as error:
        raise LxcpyError(f'cannot write the log to "{path}": {meaning(error)}', hint="-o FILE names another") from error


def _overview(words: list[str]) -> int:
    """`lxcpy`, `lxcpy --help`, `lxcpy --version`."""
    if words[:1] == ["--version"]:
        sys.stdout.write(f"{__version__}\n")
        return 0
    wanted = words[:1] in (["-h"], ["--help"])
    width = max(map(len, COMMANDS))
    lines = ["Usage: lxcpy COMMAND [ARGUMENT...]", "       lxcpy-COMMAND [ARGUMENT...]", "", "Commands :"]
    lines += [f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items()]
    lines += ["", "lxcpy COMMAND --help explains one.", ""]
    (sys.stdout if wanted else sys.stderr).write("\n".join(lines))
    return 0 if wanted else 1
