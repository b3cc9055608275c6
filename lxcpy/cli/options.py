"""Options of every command: one table drives the parsing, the help text, the man page and the completion.

The parser follows getopt_long, which LXC's tools use: options and positional arguments mix, `--` ends the options,
long names may be abbreviated while they stay unambiguous, an optional argument must be attached. It replaces argparse
because importing that costs 6.5 ms, more than all the rest of `lxcpy-info`.
"""

from __future__ import annotations

import os

from lxcpy import __version__, log, paths
from lxcpy.errors import UsageError
from lxcpy.kernel.record import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself costs a light command 9 ms
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn


class Option(NamedTuple):
    """One row of a command's option table."""

    short: str  # one character, or "" where there is no short form
    long: str
    arg: str | None  # None: a flag; "X": needs an argument, shown as X; "[X]": takes an attached one
    help: str
    key: str = ""  # attribute of Args; by default the long name with "-" turned into "_"
    value: Any = True  # what a flag sets, and what an optional argument is when it is left out
    default: Any = None  # the attribute when the option is not given; a flag's is False
    many: bool = False  # repeatable: the attribute is a list
    convert: Callable[[str], Any] | None = None  # raises ValueError with a reason
    choices: tuple[str, ...] = ()  # for completion and the man page; `convert` decides
    section: str = ""  # heading in the help text
    ours: bool = False  # LXC does not have it

    @property
    def attribute(self) -> str:
        """The name under which Args holds the value."""
        return self.key or self.long.replace("-", "_")

    @property
    def optional(self) -> bool:
        """Whether the argument may be left out."""
        return self.arg is not None and self.arg.startswith("[")


class Args:
    """The parsed command line; a command's own class adds annotations for its options (a test compares them)."""

    prog: str  # the command's name as it was called: lxcpy-start
    name: str  # the container's; "" where a command takes none
    lxcpath: str
    lxcpaths: list[str]
    rcfile: str | None
    quiet: bool
    logfile: str | None
    logpriority: int | None
    rest: list[str]  # the positional arguments after the name, and everything after `--`

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


class Answer(Exception):
    """Parsing ended in a text to print: help, usage or version."""

    def __init__(self, text: str, *, code: int = 0, stdout: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.code = code
        self.stdout = stdout


NAME = Option("n", "name", "NAME", "Name of the container.")
HELP = Option("h", "help", None, "Print this help.")
QUESTION = Option("?", "help", None, "Print this help, with exit status 1.")
USAGE = Option("", "usage", None, "Print the options in brief.")
VERSION = Option("", "version", None, "Print the version number.")
RCFILE = Option("", "rcfile", "FILE", "Read the container's configuration from FILE.")
# LXC_COMMON_OPTIONS of lxc/src/lxc/tools/arguments.h, in that order
COMMON: tuple[Option, ...] = (
    NAME,
    HELP,
    QUESTION,
    USAGE,
    VERSION,
    Option("q", "quiet", None, "Print no messages on standard error."),
    Option("o", "logfile", "FILE", "Write the log to FILE."),
    Option("l", "logpriority", "LEVEL", "Log records of LEVEL and above.", convert=log.parse_level, choices=log.LEVELS),
    Option("P", "lxcpath", "PATH", "Directory that holds the containers.", key="lxcpaths", many=True),
    RCFILE,
)
PLAIN = (HELP, USAGE, VERSION)  # of the commands that take no container


class Command(NamedTuple):
    """A command: its name, its option table and what its exit statuses mean."""

    name: str  # without the program's prefix: "start"
    summary: str  # one sentence: the module's docstring, the man page's NAME line, the registry's text
    synopsis: str  # what follows the program's name on the usage line
    options: tuple[Option, ...] = ()
    exit_status: dict[int | str, str] = {}
    named: bool = True  # takes a container's name; the first positional argument where -n is not given
    default_name: str | None = None  # the name where -n is not given; then positional arguments stay as they are
    many_paths: bool = False  # -P may be repeated
    common: tuple[Option, ...] = COMMON
    stdout_help: bool = False  # help goes to standard output, as the shell scripts among LXC's commands do it
    words: str = ""  # help on the positional arguments, shown below the options
    args: type[Args] = Args
    more_help: Callable[[dict[str, Any]], str] | None = None  # text below the help, from the options seen so far

    @property
    def reads_config(self) -> bool:
        """Whether --rcfile means anything to it."""
        return self.common is COMMON and self.named and self.default_name is None and self.name != "create"

    @property
    def table(self) -> tuple[Option, ...]:
        """All rows that may be given, the command's own first; a long name counts once."""
        rows: list[Option] = []
        for option in self.options + self.common:
            if not any(row.long == option.long and row.short == option.short for row in rows):
                rows.append(option)
        return tuple(rows)


def number(text: str) -> int:
    """A whole number, as strtol reads it in base 10. Raises ValueError."""
    try:
        return int(text, 10)
    except ValueError:
        raise ValueError(f'"{text}" is not a whole number') from None


def natural(text: str) -> int:
    """A whole number that is not negative. Raises ValueError."""
    value = number(text)
    if value < 0:
        raise ValueError(f'"{text}" is negative')
    return value


def seconds(text: str) -> int:
    """A time in seconds; -1 stands for ever. Raises ValueError."""
    value = number(text)
    if value < -1:
        raise ValueError(f'"{text}" is not a time in seconds, nor -1 for ever')
    return value


def definition(text: str) -> str:
    """A `KEY=VALUE` pair. Raises ValueError."""
    if "=" not in text:
        raise ValueError(f'"{text}" has no "=": write KEY=VALUE')
    return text


def default_lxcpath() -> str:
    """The directory of containers where -P is not given: system key lxc.lxcpath, else LXC's own default."""
    if os.geteuid() == 0 and not os.path.exists(paths.SYSTEM_CONFIG):
        return paths.LXCPATH
    from lxcpy.config.system import system_value

    return system_value("lxc.lxcpath") or paths.LXCPATH


def parse(command: Command, prog: str, words: Sequence[str]) -> Args:
    """The command line `words` (without the program) as Args. Raises Answer and UsageError."""
    values, rest = _Parser(command, prog).run(list(words))
    if not command.many_paths and len(values["lxcpaths"]) > 1:
        raise UsageError("This command only accepts 1 -P,--lxcpath arguments")
    if command.common is COMMON:
        values["lxcpaths"] = [paths.lxcpath(path) for path in values["lxcpaths"]] or [default_lxcpath()]
        values["lxcpath"] = values["lxcpaths"][0]
    if command.named and values.get("name") is None:
        values["name"] = command.default_name
        if command.default_name is None:
            if not rest:
                raise UsageError(
                    "No container name specified", hint=f"{prog} -n NAME, or the name as the first argument"
                )
            values["name"] = rest.pop(0)
    values["name"] = values.get("name") or ""
    return command.args(prog=prog, rest=rest, **values)


class _Parser:
    """One run over a command line."""

    def __init__(self, command: Command, prog: str) -> None:
        self.command = command
        self.prog = prog
        self.values: dict[str, Any] = {"lxcpaths": []}
        for option in command.table:
            default = [] if option.many else False if option.arg is None and option.default is None else option.default
            self.values.setdefault(option.attribute, default)
        for option in (HELP, USAGE, VERSION):
            self.values.pop(option.attribute, None)

    def run(self, words: list[str]) -> tuple[dict[str, Any], list[str]]:
        rest: list[str] = []
        while words:
            word = words.pop(0)
            if word == "--":
                rest += words
                break
            if word.startswith("--"):
                self._long(word[2:], words)
            elif word.startswith("-") and word != "-":
                self._short(word[1:], words)
            else:
                rest.append(word)
                if "POSIXLY_CORRECT" in os.environ:  # getopt's rule: the first positional argument ends the options
                    rest += words
                    break
        return self.values, rest

    def _long(self, word: str, words: list[str]) -> None:
        name, equals, value = word.partition("=")
        option = self._find(name)
        if option.arg is None:
            if equals:
                self._refuse(f"option '--{option.long}' doesn't allow an argument")
            self._set(option, None)
        elif equals:
            self._set(option, value)
        elif option.optional:
            self._set(option, None)
        elif words:
            self._set(option, words.pop(0))
        else:
            self._refuse(f"option '--{option.long}' requires an argument")

    def _find(self, name: str) -> Option:
        found: dict[str, Option] = {}
        for option in self.command.table:
            if option.long == name:
                return option
            if option.long.startswith(name):
                found.setdefault(option.long, option)
        if not found:
            self._refuse(f"unrecognized option '--{name}'")
        if len(found) > 1:
            possible = " ".join(f"'--{long}'" for long in found)
            self._refuse(f"option '--{name}' is ambiguous; possibilities: {possible}")
        return next(iter(found.values()))

    def _short(self, letters: str, words: list[str]) -> None:
        while letters:
            letter, letters = letters[0], letters[1:]
            option = next((option for option in self.command.table if option.short == letter), None)
            if option is None:
                self._refuse(f"invalid option -- '{letter}'")
            if option.arg is None:
                self._set(option, None)
                continue
            if letters or option.optional:
                self._set(option, letters or None)
            elif words:
                self._set(option, words.pop(0))
            else:
                self._refuse(f"option requires an argument -- '{letter}'")
            return

    def _set(self, option: Option, text: str | None) -> None:
        if option in (HELP, QUESTION):
            text = help_text(self.command, self.prog)
            if self.command.more_help is not None:
                text += self.command.more_help(self.values)
            raise Answer(text, code=int(option == QUESTION), stdout=self.command.stdout_help)
        if option is USAGE:
            raise Answer(usage_text(self.command, self.prog), stdout=self.command.stdout_help)
        if option is VERSION:
            raise Answer(f"{__version__}\n", stdout=True)
        value = option.value if text is None else text
        if text is not None and option.convert is not None:
            try:
                value = option.convert(text)
            except ValueError as error:
                spelling = f"-{option.short}/--{option.long}" if option.short else f"--{option.long}"
                raise UsageError(f"could not parse command line: {spelling}: {error}") from None
        if option.many:
            self.values[option.attribute].append(value)
        else:
            self.values[option.attribute] = value

    def _refuse(self, reason: str) -> NoReturn:
        raise Answer(f"{self.prog}: {reason}\n{help_text(self.command, self.prog)}", code=1)


# -- texts -----------------------------------------------------------------------------------------------------------


def usage_text(command: Command, prog: str) -> str:
    """The options in brief, four a line, as LXC's --usage prints them (a tab begins each further line)."""
    text = f"Usage: {prog} "
    for count, option in enumerate(command.options + command.common, 1):
        text += "[" + (f"-{option.short}|" if option.short else "") + f"--{option.long}"
        if option.arg is not None:
            text += f"[={option.long.upper()}]" if option.optional else f"={option.long.upper()}"
        text += "] " + ("\n\t" if count % 4 == 0 else "")
    return text + "\n"


def help_text(command: Command, prog: str) -> str:
    """The help of a command, in the layout of LXC's."""
    own = [option for option in command.options if option not in command.common]
    if command.common is COMMON:
        own = [*([NAME] if command.named and command.default_name != "" else []), *own]
        if command.reads_config and not any(option.long == "rcfile" for option in own):
            own.insert(1, RCFILE)
        shared = [option for option in COMMON if option not in (NAME, QUESTION, RCFILE)]
    else:
        shared = [option for option in command.common if option not in command.options]
    width = max([len(label(option)) for option in own if len(label(option)) <= _LABEL_LIMIT] + [0])
    lines = [f"Usage: {prog} {command.synopsis}", "", f"{prog}: {command.summary}", ""]
    if own:
        lines.append("Options :")
    section = ""
    for option in own:
        if option.section != section:
            section = option.section
            lines += ["", f"  {section}:"]
        lines += _row(option, width)
    if command.words:
        lines += ["", *command.words.splitlines()]
    lines += ["", "Common options :"]
    shared_width = max(len(label(option)) for option in shared)
    for option in shared:
        lines += _row(option, shared_width)
    lines += [
        "",
        "An argument that a long option needs, its short form needs too.",
        "",
        f"See the {prog} man page for further information.",
        "",
        "",
    ]
    return "\n".join(lines)


_LABEL_LIMIT = 28
_LINE = 79


def label(option: Option) -> str:
    """`-n, --name=NAME`, padded where there is no short form so that long forms stand in one column."""
    text = f"-{option.short}, --{option.long}" if option.short else f"    --{option.long}"
    if option.optional and option.arg:
        return f"{text}[={option.arg[1:-1]}]"
    return text if option.arg is None else f"{text}={option.arg}"


def _row(option: Option, width: int) -> list[str]:
    """The lines of one option; a label that is too long stands alone."""
    left = label(option)
    lines = [f"  {left}"] if len(left) > width else []
    margin = f"  {left:<{width}} " if not lines else " " * (width + 3)
    for text in wrap(option.help, _LINE - width - 3):
        lines.append(margin + text)
        margin = " " * (width + 3)
    return lines


def wrap(text: str, width: int) -> list[str]:
    """`text` cut between words into lines of at most `width` characters (textwrap would cost an import of re)."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".lstrip()
    return lines
