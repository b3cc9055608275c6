"""The log: LXC's levels and LXC's line, with a gate that costs one comparison when the level is off.

A line reads `PROG NAME YYYYMMDDHHMMSS.mmm LEVEL    CATEGORY - FILE:FUNC:LINE - MSG`, UTC, so that scripts which read
LXC's logs read ours. Without a file nothing is written (LXC's habit: only with -o, -l or lxc.log.file).
"""

from __future__ import annotations

import os
import sys
import time

LEVELS = ("TRACE", "DEBUG", "INFO", "NOTICE", "WARN", "ERROR", "CRIT", "ALERT", "FATAL")
TRACE, DEBUG, INFO, NOTICE, WARN, ERROR, CRIT, ALERT, FATAL = range(9)


class _Sink:
    fd = -1
    level = ERROR
    program = "lxcpy"
    name = ""


def open_log(path: str | None, level: int = ERROR, *, program: str = "lxcpy", name: str = "") -> None:
    """Send records of `level` and above to `path` (appended, mode 0640); None closes the log. Raises OSError."""
    close()
    _Sink.level, _Sink.program, _Sink.name = level, program, name
    if path and path != "none":
        _Sink.fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)


def close() -> None:
    """Stop writing."""
    if _Sink.fd >= 0:
        os.close(_Sink.fd)
        _Sink.fd = -1


def parse_level(text: str) -> int:
    """A level's number from its name in any case, or from 0 to 8. Raises ValueError."""
    if text.isdigit() and int(text) < len(LEVELS):
        return int(text)
    if text.upper() not in LEVELS:
        raise ValueError(f'"{text}" is not a log level')
    return LEVELS.index(text.upper())


def write(level: int, category: str, message: str) -> None:
    """Write one record if its level passes."""
    if _Sink.fd < 0 or level < _Sink.level:
        return
    frame = sys._getframe(2)
    now = time.time()
    stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}"
    place = f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_code.co_name}:{frame.f_lineno}"
    line = f"{_Sink.program} {_Sink.name} {stamp} {LEVELS[level]:<8} {category} - {place} - {message}\n"
    try:
        os.write(_Sink.fd, line.encode(errors="backslashreplace"))
    except OSError:
        pass  # a full disk must not end a container


class Log:
    """One category's log: `LOG = Log("network")` at the head of a module."""

    def __init__(self, category: str) -> None:
        self.category = category

    def trace(self, message: str) -> None:
        write(TRACE, self.category, message)

    def debug(self, message: str) -> None:
        write(DEBUG, self.category, message)

    def info(self, message: str) -> None:
        write(INFO, self.category, message)

    def notice(self, message: str) -> None:
        write(NOTICE, self.category, message)

    def warn(self, message: str) -> None:
        write(WARN, self.category, message)

    def error(self, message: str) -> None:
        write(ERROR, self.category, message)
