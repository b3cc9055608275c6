"""The names of LXC before 2.1 rewritten as today's, as lxc-update-config does it: also in lines that are commented out.

lxcpy reads the old names as they are; this is for configs that a newer LXC shall read too. Unlike LXC's script, which
edits by patterns, a rewritten config always means what it meant: `lxc.network.0.ipv4` gets its `.address`,
`lxc.limit.NAME` becomes `lxc.prlimit.NAME`, and a root filesystem that names its type already keeps it.
"""

from __future__ import annotations

import os

from lxcpy.config import schema
from lxcpy.config.build import BACKENDS
from lxcpy.config.file import save_text
from lxcpy.config.keys.row import REMOVED
from lxcpy.config.lines import read
from lxcpy.config.schema import LAST, Found
from lxcpy.config.text import value_of
from lxcpy.errors import ConfigError, meaning


def convert(text: str) -> str:
    """A config's text with today's names; all else stays byte for byte."""
    lines = text.split("\n")
    backend = _backend(lines)
    index = highest = -1  # of the interface that the unnumbered names mean; of those that are numbered
    begun = False  # whether there is such an interface
    converted = []
    for line in lines:
        found = _old_key(line)
        highest = max(highest, _number(line))
        if _forgets(line):
            begun = False
        if found is None:
            converted.append(line)
        elif found.row.shape is REMOVED:
            continue
        else:
            if found.net == LAST and found.row.into == "net.type":
                index, begun = max(index, highest) + 1, True
            converted.append(_rewritten(line, found, index if begun else -1, backend))
    return "\n".join(converted)


def _split(line: str) -> tuple[str, str, str]:
    """What stands before the key, the key, and the rest from the blanks before `=` on; no key: ("", "", line)."""
    body = line.lstrip("# \t")
    head = line[: len(line) - len(body)]
    if not body.startswith("lxc.") or "=" not in body:
        return "", "", line
    name = body.partition("=")[0].rstrip(" \t")
    return head, name, body[len(name) :]


def _old_key(line: str) -> Found | None:
    """What a line sets under an old name; None: it does not."""
    found = schema.lookup(_split(line)[1])
    return found if found is not None and (found.old or found.row.shape is REMOVED) else None


def _number(line: str) -> int:
    """The interface that a line numbers itself; -1: none."""
    head, name, _ = _split(line)
    found = schema.lookup(name) if name and "#" not in head else None
    return found.net if found is not None and found.net is not None else -1


def _forgets(line: str) -> bool:
    """Whether a line forgets all interfaces."""
    head, name, rest = _split(line)
    return name in ("lxc.net", "lxc.network") and "#" not in head and not value_of(rest.partition("=")[2])


def _backend(lines: list[str]) -> str:
    """The type of the root filesystem that LXC 2.0 kept in a key of its own."""
    backend = "dir"
    for line in lines:
        head, name, rest = _split(line)
        if name == "lxc.rootfs.backend" and "#" not in head:
            backend = value_of(rest.partition("=")[2]) or "dir"
    return backend


def _rewritten(line: str, found: Found, index: int, backend: str) -> str:
    head, _, rest = _split(line)
    if found.net == LAST:
        if index < 0:
            return line  # no interface has begun: wrong before, and wrong still
        found = found._replace(net=index)
    if found.row.into == "rootfs.path":
        blanks, _, value = rest.partition("=")
        path = value.lstrip(" \t")
        if value_of(path) and value_of(path).partition(":")[0] not in BACKENDS:
            quote = path[0] if path[0] in "'\"" else ""
            rest = f"{blanks}={value[: len(value) - len(path)]}{quote}{backend}:{path[len(quote) :]}"
    return f"{head}{found.key}{rest}"


def update(path: str) -> None:
    """Rewrite a config file; the original stays as PATH.backup. Raises ConfigError."""
    try:
        text = read(path)
    except OSError as error:
        raise ConfigError(f'cannot read the config "{path}": {meaning(error)}') from error
    backup = f"{path}.backup"
    try:
        save_text(backup, text)
        os.chmod(backup, os.stat(path).st_mode & 0o7777)
        save_text(path, convert(text))
    except OSError as error:
        raise ConfigError(f'cannot write "{error.filename or path}": {meaning(error)}') from error
