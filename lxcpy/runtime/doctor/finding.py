"""What a check found: plain data, and for some a mend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from lxcpy.errors import LxcpyError, Origin

OK, WARNING, ERROR = "ok", "warning", "error"
LEVELS = (OK, WARNING, ERROR)


class Fix(NamedTuple):
    """A mend that harms nobody. The same `does` of two findings is done once. run raises LxcpyError or OSError."""

    does: str
    run: Callable[[], object]


class Finding(NamedTuple):
    """One thing that was looked at.

    level: `error`: a start fails, or the container lacks what its config asks for. `warning`: it may surprise.
    why:   what it means for the container. cure: what to do, a command where there is one.
    """

    level: str
    check: str  # config, network, rootfs, …
    what: str
    why: str = ""
    cure: str = ""
    at: Origin | None = None
    fix: Fix | None = None

    def lines(self) -> list[str]:
        """As a user sees it."""
        lines = [f"{self.level:<8} {self.check + ':':<12} {self.what}"]
        rows = (("at ", self.at), ("why: ", self.why), ("cure: ", self.cure))
        return lines + [f"{'':<22}{label}{text}" for label, text in rows if text]

    def to_dict(self) -> dict[str, Any]:
        """As plain data."""
        at = self.at and self.at.to_dict()
        return {
            "severity": self.level, "check": self.check, "what": self.what, "why": self.why or None,
            "cure": self.cure or None, "at": at, "fixable": self.fix is not None,
        }  # fmt: skip


def ok(check: str, what: str) -> Finding:
    """Nothing to do."""
    return Finding(OK, check, what)


def failed(check: str, error: LxcpyError, *, why: str = "", level: str = ERROR) -> Finding:
    """An error that a start would raise."""
    return Finding(level, check, error.what, why, error.hint or "", error.at)


def worst(found: list[Finding]) -> str:
    """The gravest level."""
    return max((finding.level for finding in found), key=LEVELS.index, default=OK)
