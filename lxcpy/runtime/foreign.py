"""Verbs on a container that a real LXC's monitor runs, where its command socket has no command of its own."""

from __future__ import annotations

import os
import signal as signals

from lxcpy.errors import StateError, meaning
from lxcpy.runtime import lxcclient


def signal(lxcpath: str, name: str, kind: str) -> None:
    """Send init the signal for halt, reboot or stop, as the monitor's config has it. Raises StateError."""
    monitor = lxcclient.command(lxcpath, name)
    if not monitor.running():
        raise StateError(f"{name} is not running")
    if kind == "stop":
        monitor.stop()
        return
    pid = monitor.init_pid()
    if not pid:  # not yet, or not any more; to kill(2) it is the caller's own process group
        raise StateError(f"{name} is not running")
    number = int(monitor.config_item(f"lxc.signal.{kind}") or 0)
    try:
        os.kill(pid, number or _default(kind, pid))
    except (FileNotFoundError, ProcessLookupError):
        raise StateError(f"{name} is not running") from None
    except OSError as error:
        raise StateError(f"cannot signal init of {name} (pid {pid}): {meaning(error)}") from error


def _default(kind: str, pid: int) -> int:
    from lxcpy.kernel import process

    if kind == "reboot":
        return signals.SIGINT
    systemd = signals.SIGRTMIN + 3
    return systemd if process.blocked_signals(pid) >> (systemd - 1) & 1 else signals.SIGPWR
