"""The errors a user may see: what was tried, at which line, and what to do next.

Floor 0 raises OSError only. The floors above turn it into one of the families here, `raise RootfsError(...) from e`,
so that every message says what was meant and not which call failed. Imports nothing heavy: the light commands load it.
"""

from __future__ import annotations

import os

from lxcpy.kernel.record import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:  # typing itself costs a light command 9 ms
    from typing import Any


class Origin(NamedTuple):
    """Where a setting was written: a line of a file, and the includes that led there (innermost first)."""

    file: str
    line: int
    via: tuple[tuple[str, int], ...] = ()

    def __str__(self) -> str:
        text = f"{self.file}:{self.line}"
        for file, line in self.via:
            text += f", included from {file}:{line}"
        return text

    def to_dict(self) -> dict[str, Any]:
        """For --json."""
        via = [{"file": file, "line": line} for file, line in self.via]
        return {"file": self.file, "line": self.line, "via": via}


class LxcpyError(Exception):
    """A failure with a cause: printed as `what`, then `at FILE:LINE`, then `hint: ...`.

    what: one sentence; names the object and, for a failed system call, the errno's meaning.
    at:   the config line that asked for it, where one did.
    hint: what to do next, where we know.
    """

    code = 1  # the command's exit status; LXC's is 1 but for a few commands, which set their own

    def __init__(self, what: str, *, at: Origin | None = None, hint: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.at = at
        self.hint = hint

    def lines(self) -> list[str]:
        """The message as the lines a user sees, without the program's name."""
        lines = [self.what]
        if self.at is not None:
            lines.append(f"  at {self.at}")
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return lines

    def to_dict(self) -> dict[str, Any]:
        """The error as plain data, to cross a process border; `from_dict` raises it again with its class."""
        at = None if self.at is None else tuple(self.at)  # a plain one: marshal carries no other
        return {"class": type(self).__name__, "what": self.what, "at": at, "hint": self.hint}


class ConfigError(LxcpyError):
    """A config file that cannot be used."""


class ConfigErrors(ConfigError):
    """Every problem of a config at once; `problems` are ConfigError."""

    def __init__(self, problems: list[ConfigError]) -> None:
        super().__init__(problems[0].what, at=problems[0].at, hint=problems[0].hint)
        self.problems = problems

    def lines(self) -> list[str]:
        return [line for problem in self.problems for line in problem.lines()]

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "problems": [problem.to_dict() for problem in self.problems]}


class RootfsError(LxcpyError):
    """A mount, a device node or a path of the root filesystem."""


class StorageError(LxcpyError):
    """A backing store."""


class NetworkError(LxcpyError):
    """A link, an address, a bridge or the network service."""


class CgroupError(LxcpyError):
    """A control group or a limit."""


class SecurityError(LxcpyError):
    """A capability, a system call filter or a label."""


class BootstrapError(LxcpyError):
    """A root filesystem could not be made."""


class StateError(LxcpyError):
    """The container is not in a state that allows the verb."""


class HookError(LxcpyError):
    """A hook failed."""


class UsageError(LxcpyError):
    """The command line is wrong."""


FAMILIES: dict[str, type[LxcpyError]] = {
    family.__name__: family
    for family in (
        LxcpyError, ConfigError, RootfsError, StorageError, NetworkError, CgroupError, SecurityError,
        BootstrapError, StateError, HookError, UsageError,
    )
}  # fmt: skip


def from_dict(data: dict[str, Any]) -> LxcpyError:
    """The error that `to_dict` turned into data."""
    if data.get("problems"):
        return ConfigErrors([from_dict(problem) for problem in data["problems"]])  # type: ignore[misc]
    at = data.get("at")
    origin = Origin(at[0], at[1], tuple((file, line) for file, line in at[2])) if at else None
    return FAMILIES.get(data["class"], LxcpyError)(data["what"], at=origin, hint=data.get("hint"))


def meaning(error: OSError) -> str:
    """The errno's meaning as words: `No such file or directory`; the text itself where there is no errno."""
    return os.strerror(error.errno) if error.errno else str(error)


def visible(text: str) -> str:
    """The text as a terminal may get it: what is no character to look at stands there as its escape, `\\x1b`.

    Mirrors, packages and containers choose names and words that end in messages; a terminal obeys some of them.
    """
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one in "\n\t" else one.encode("unicode_escape").decode() for one in text
    )
