"""What completion offers for each command and option, whatever the shell."""

from __future__ import annotations

from lxcpy.cli.options import Command, Option
from lxcpy.cli.registry import COMMANDS
from lxcpy.config.system import SYSTEM_KEYS

# What an option's argument stands for, by the word that the help shows
KINDS = {
    "FILE": "file",
    "PATH": "directory",
    "DIR": "directory",
    "TEMPLATE": "template",
    "NAME": "container",
    "USER": "user",
}
RUNS_COMMANDS = ("attach", "execute", "unshare", "usernsexec")  # of the user's, behind --
NOT_CONTAINERS = ("lvname", "rbdname", "ifname", "rbduser")


def kind(option: Option) -> str:
    """file, directory, container, template, user, choice (see Option.choices) or "" where there is nothing to offer."""
    if option.choices:
        return "choice"
    return "" if option.long in NOT_CONTAINERS or not option.arg else KINDS.get(option.arg.strip("[]"), "")


def words(table: Command) -> list[str]:
    """Every option as it is typed."""
    found: list[str] = []
    for option in table.table:
        if option.short and option.short != "?":
            found.append(f"-{option.short}")
        if f"--{option.long}" not in found:
            found.append(f"--{option.long}")
    return found


def spellings(option: Option) -> list[str]:
    """-n and --name, or --name alone."""
    return [f"-{option.short}", f"--{option.long}"] if option.short else [f"--{option.long}"]


def positional(name: str, table: Command) -> str:
    module = __import__(f"lxcpy.commands.{COMMANDS[name][0]}", fromlist=["VERBS"])
    words = list(getattr(module, "VERBS", ()))
    if name == "config":
        words += [key.name for key in SYSTEM_KEYS if key.listed]
    if words:
        return f'"{" ".join(words)}"'
    return "container" if table.named and name not in ("create", "top", "ls", "monitor") else '""'


def once(table: Command) -> list[Option]:
    """The table without the second spelling of --help and without a long name that was there already."""
    seen: set[str] = set()
    found = []
    for option in table.table:
        if option.long not in seen:
            seen.add(option.long)
            found.append(option)
    return found


def filled(text: str, parts: dict[str, str]) -> str:
    """A file with each @NAME@ replaced."""
    for name, part in parts.items():
        text = text.replace(f"@{name}@", part)
    return text
