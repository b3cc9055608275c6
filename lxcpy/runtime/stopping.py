"""Stopping and rebooting a container, whoever runs it: the signal, and the wait for what follows. Import-light.

The wait is asked for before the signal, on the same connection: else the container might stop, and be started again by
another command, before anybody listens.
"""

from __future__ import annotations

import time

from lxcpy.runtime import client, lookup, lxcclient, waiting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def signal(lxcpath: str, name: str, kind: str) -> None:
    """Send init the signal for halt, reboot or stop. Raises StateError when it does not run."""
    supervisor = client.connect_if_any()
    if supervisor is not None:
        with supervisor:
            if _known(supervisor, lxcpath, name):
                supervisor.ask("signal", lxcpath=lxcpath, name=name, signal=kind)
                return
    from lxcpy.runtime import foreign

    foreign.signal(lxcpath, name, kind)


def stop(lxcpath: str, name: str, kind: str, timeout: float | None) -> bool:
    """`signal`, then wait: is it STOPPED within `timeout` seconds (None: for ever)?"""
    deadline = None if timeout is None else time.monotonic() + timeout
    supervisor = client.connect_if_any()
    known = None
    if supervisor is not None:
        with supervisor:
            known = _known(supervisor, lxcpath, name)
            number = _listen(supervisor, lxcpath, name, "STOPPED") if known and known["state"] != "STOPPED" else 0
            if known:
                supervisor.ask("signal", lxcpath=lxcpath, name=name, signal=kind)
            try:
                if number:
                    return _heard(supervisor, number, timeout) is not None
            except client.Lost:
                pass  # who follows it is asked
    if not known:
        from lxcpy.runtime import foreign

        foreign.signal(lxcpath, name, kind)
    return waiting.wait(lxcpath, name, ["STOPPED"], waiting.left(deadline), change=False) is not None


def reboot(lxcpath: str, name: str, timeout: float | None) -> bool:
    """Ask init to reboot and wait: does another init run within `timeout` seconds?"""
    deadline = None if timeout is None else time.monotonic() + timeout
    supervisor = client.connect_if_any()
    if supervisor is not None:
        with supervisor:
            before = _running(supervisor, lxcpath, name)
            if before:
                number = _listen(supervisor, lxcpath, name, "RUNNING", "STOPPED")
                supervisor.ask("signal", lxcpath=lxcpath, name=name, signal="reboot")
                return _rebooted(supervisor, number, before, deadline)
    from lxcpy.runtime import foreign

    theirs = lxcclient.command(lxcpath, name)
    pid = theirs.init_pid()
    foreign.signal(lxcpath, name, "reboot")
    while True:
        left = 1.0 if deadline is None else deadline - time.monotonic()
        # looked at now and then: it may have rebooted between the question for its pid and the wait
        now = lookup.init_pid(lxcpath, name)
        reached = theirs.wait(("RUNNING", "STOPPED"), min(left, 1.0), change=now == pid)
        if lookup.init_pid(lxcpath, name) not in (0, pid):
            return True
        if reached == "STOPPED" or left <= 0:
            return False


def _rebooted(supervisor: client.Client, number: int, before: dict[str, Any], deadline: float | None) -> bool:
    lxcpath, name = before["lxcpath"], before["name"]
    while True:
        left = None if deadline is None else max(deadline - time.monotonic(), 0.001)
        state = _heard(supervisor, number, left)
        if state in (None, "STOPPED"):
            return False
        # a thaw is a RUNNING too: listen again first, then look
        number = _listen(supervisor, lxcpath, name, "RUNNING", "STOPPED")
        now = _running(supervisor, lxcpath, name)
        if now is None or now["pid"] != before["pid"]:
            return now is not None


def _known(supervisor: client.Client, lxcpath: str, name: str) -> dict[str, Any] | None:
    """What the supervisor knows of it, if it is not STOPPED, or is due to start again."""
    found: dict[str, Any] | None = supervisor.ask("get", lxcpath=lxcpath, name=name)["container"]
    if not found or (found["state"] == "STOPPED" and not found.get("restart")):
        return None
    if found["state"] == "STOPPED" and lxcclient.command(lxcpath, name).running():
        return None  # a real LXC's monitor has come first
    return {**found, "lxcpath": lxcpath}


def _running(supervisor: client.Client, lxcpath: str, name: str) -> dict[str, Any] | None:
    """The same, if it is not STOPPED."""
    found = _known(supervisor, lxcpath, name)
    return found if found and found["state"] != "STOPPED" else None


def _listen(supervisor: client.Client, lxcpath: str, name: str, *states: str) -> int:
    return supervisor.send("wait", lxcpath=lxcpath, name=name, states=list(states), change=True)


def _heard(supervisor: client.Client, number: int, timeout: float | None) -> str | None:
    try:
        return str(supervisor.answer(number, timeout)["state"])
    except TimeoutError:
        return None
