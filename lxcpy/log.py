"""The log: LXC's levels and LXC's line, with a gate that costs one comparison when the level is off.

A line reads `PROG NAME YYYYMMDDHHMMSS.mmm LEVEL    CATEGORY - FILE:FUNC:LINE - MSG`, UTC, so that scripts which read
LXC's logs read ours. Without a file nothing is written (LXC's habit: only with -o, -l or lxc.log.file), but that
lxc.log.syslog sends the same records to syslog.
"""

from __future__ import annotations

import os
import sys
import time

LEVELS = ("TRACE", "DEBUG", "INFO", "NOTICE", "WARN", "ERROR", "CRIT", "ALERT", "FATAL")
TRACE, DEBUG, INFO, NOTICE, WARN, ERROR, CRIT, ALERT, FATAL = range(9)
_OFF = FATAL + 1
_SYSLOG = "/dev/log"
_PRIORITIES = (7, 7, 6, 5, 4, 3, 2, 1, 0)  # of syslog(3), by level
_FACILITIES = {"daemon": 3, **{f"local{number}": 16 + number for number in range(8)}}

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket


class _Sink:
    fd = -1
    syslog: socket | None = None
    facility = 0
    level = _OFF
    program = "lxcpy"
    name = ""


def open_log(
    path: str | None, level: int = ERROR, *, program: str = "lxcpy", name: str = "", syslog: str | None = None
) -> None:
    """Send records of `level` and above to `path` (appended, mode 0640); None closes the log. Raises OSError.

    syslog: a facility, `daemon` or `local0` to `local7`; they go to syslog too, if there is one.
    """
    close()
    _Sink.program, _Sink.name = program, name
    if path and path != "none":
        _Sink.fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        _Sink.level = level
    if syslog:
        _open_syslog(syslog)
        _Sink.level = level


def _open_syslog(facility: str) -> None:
    import _socket  # the C half: the whole module costs a light command 6 ms

    _Sink.facility = _FACILITIES[facility]
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC)
    try:
        # connected now, for inside a container the path leads elsewhere; a full queue must not hold a start up
        sock.connect(_SYSLOG)
        sock.setblocking(False)
        _Sink.syslog = sock
    except OSError:
        sock.close()  # as with syslog(3), the records go nowhere without a daemon


def close() -> None:
    """Stop writing."""
    _Sink.level = _OFF
    if _Sink.fd >= 0:
        os.close(_Sink.fd)
        _Sink.fd = -1
    if _Sink.syslog is not None:
        _Sink.syslog.close()
        _Sink.syslog = None


def parse_level(text: str) -> int:
    """A level's number from its name in any case, or from 0 to 8. Raises ValueError."""
    if text.isdigit() and int(text) < len(LEVELS):
        return int(text)
    if text.upper() not in LEVELS:
        raise ValueError(f'"{text}" is not a log level')
    return LEVELS.index(text.upper())


def write(level: int, category: str, message: str) -> None:
    """Write one record if its level passes."""
    if level < _Sink.level:
        return
    frame = sys._getframe(2)
    now = time.time()
    stamp = time.strftime("%Y%m%d%H%M%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}"
    place = f"{os.path.basename(frame.f_code.co_filename)}:{frame.f_code.co_name}:{frame.f_lineno}"
    words = f"{category} - {place} - {message}"
    try:
        if _Sink.fd >= 0:
            line = f"{_Sink.program} {_Sink.name} {stamp} {LEVELS[level]:<8} {words}\n"
            os.write(_Sink.fd, line.encode(errors="backslashreplace"))
        if _Sink.syslog is not None:
            priority = _Sink.facility << 3 | _PRIORITIES[level]
            local = time.strftime("%b %e %H:%M:%S", time.localtime(now))
            line = f"<{priority}>{local} {_Sink.program}[{os.getpid()}]: {_Sink.name}: {words}"
            _Sink.syslog.send(line.encode(errors="backslashreplace"))
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
