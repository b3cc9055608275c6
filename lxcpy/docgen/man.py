"""One man page a command: from its option table, its exit statuses and the prose in man/commands/NAME.md."""

from __future__ import annotations

import os

from lxcpy import paths
from lxcpy.cli.options import COMMON, NAME, QUESTION, RCFILE, Command, Option
from lxcpy.cli.registry import COMMANDS
from lxcpy.docgen import roff

SEE_ALSO = {"lxcpy.container.conf": 5, "lxcpy.system.conf": 5, "lxcpy-differences": 7}


def command(name: str) -> Command:
    """The table of one command."""
    module = __import__(f"lxcpy.commands.{COMMANDS[name][0]}", fromlist=["COMMAND"])
    found: Command = module.COMMAND
    return found


def prose(name: str) -> str:
    """The Markdown of one command; "" where nobody wrote any."""
    try:
        with open(os.path.join(paths.data_dir("man"), "commands", f"{name}.md"), encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def page(name: str) -> str:
    """The page lxcpy-NAME(1)."""
    table = command(name)
    (_, description), *further = roff.sections(prose(name))
    lines = roff.header(f"lxcpy-{name}", 1, table.summary.rstrip("."))
    lines += [roff.section("synopsis"), f"\\fBlxcpy\\-{roff.escape(name)}\\fR {roff.escape(table.synopsis)}"]
    lines.append(roff.section("description"))
    lines += roff.markdown(description or table.summary) + roff.markdown(table.words)
    own = [option for option in table.options if option not in table.common]
    if table.common is COMMON and table.named and table.default_name != "":
        own.insert(0, NAME)
    if table.reads_config and not any(option.long == "rcfile" for option in own):
        own.insert(1, RCFILE)
    if own:
        lines.append(roff.section("options"))
        lines += [row for option in own for row in _option(option)]
    lines.append(roff.section("common options"))
    shared = [option for option in table.common if option not in (NAME, QUESTION, RCFILE)]
    lines += [row for option in shared for row in _option(option)]
    lines.append(roff.section("exit status"))
    for status, meaning in table.exit_status.items():
        sentence = f"{meaning[0].upper()}{meaning[1:]}."
        lines += roff.definition(f"\\fB{roff.escape(str(status))}\\fR", [roff.line(sentence)])
    lines += [".PP", "A wrong command line gives 1. What holds for every command is in \\fBlxcpy\\fR(1)."]
    for heading, text in further:
        lines += [roff.section(heading), *roff.markdown(text)]
    return roff.finish([*lines, *_see_also(table)])


def overview() -> str:
    """The page lxcpy(1)."""
    (_, description), *further = roff.sections(prose("lxcpy"))
    lines = roff.header("lxcpy", 1, "system containers in Python, compatible with LXC")
    lines += [
        roff.section("synopsis"),
        "\\fBlxcpy\\-\\fICOMMAND\\fR [\\fIARGUMENT\\fR...]",
        ".br",
        "\\fBlxcpy\\fR \\fICOMMAND\\fR [\\fIARGUMENT\\fR...]",
        roff.section("description"),
        *roff.markdown(description),
        roff.section("commands"),
    ]
    for name, (_, summary) in COMMANDS.items():
        lines += roff.definition(f"\\fBlxcpy\\-{roff.escape(name)}\\fR(1)", [roff.line(summary)])
    for heading, text in further:
        lines += [roff.section(heading), *roff.markdown(text)]
    pages = [f"\\fB{roff.escape(title)}\\fR({section})" for title, section in SEE_ALSO.items()]
    return roff.finish([*lines, roff.section("see also"), ", ".join(pages)])


def _option(option: Option) -> list[str]:
    """A tagged paragraph: -n, --name=NAME."""
    term = f"\\fB\\-{roff.escape(option.short)}\\fR, " if option.short else ""
    term += f"\\fB\\-\\-{roff.escape(option.long)}\\fR"
    if option.optional and option.arg:
        term += f"[=\\fI{roff.escape(option.arg[1:-1])}\\fR]"
    elif option.arg:
        term += f"=\\fI{roff.escape(option.arg)}\\fR"
    return roff.definition(term, [roff.line(option.help)])


def _see_also(table: Command) -> list[str]:
    others = [other for other in _RELATED.get(table.name, ()) if other in COMMANDS]
    pages = ["\\fBlxcpy\\fR(1)", *(f"\\fBlxcpy\\-{roff.escape(other)}\\fR(1)" for other in others)]
    more = {"lxcpy-json": 7} if any(option.long == "json" for option in table.options) else {}
    pages += [f"\\fB{roff.escape(title)}\\fR({section})" for title, section in {**SEE_ALSO, **more}.items()]
    return [roff.section("see also"), ", ".join(pages)]


_RELATED = {
    "attach": ("console", "execute"),
    "autostart": ("start", "stop"),
    "cache": ("create",),
    "cgroup": ("info", "top"),
    "checkconfig": ("config", "doctor"),
    "checkpoint": ("start", "stop", "snapshot"),
    "config": ("checkconfig", "update-config"),
    "console": ("attach", "start"),
    "copy": ("create", "snapshot", "destroy"),
    "create": ("start", "destroy", "copy", "cache"),
    "destroy": ("create", "stop"),
    "device": ("cgroup",),
    "doctor": ("checkconfig", "config", "net", "start"),
    "execute": ("start", "attach"),
    "freeze": ("unfreeze",),
    "info": ("ls", "top"),
    "ls": ("info",),
    "monitor": ("wait",),
    "net": ("create",),
    "snapshot": ("copy",),
    "start": ("stop", "console", "attach", "autostart", "doctor"),
    "stop": ("start", "wait"),
    "supervisor": ("ls", "monitor"),
    "top": ("info", "ls"),
    "unfreeze": ("freeze",),
    "unshare": ("usernsexec",),
    "update-config": ("config",),
    "usernsexec": ("unshare",),
    "wait": ("monitor", "stop"),
}
