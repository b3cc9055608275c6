"""Waiting for a container's state, whoever runs it, and whatever becomes of the supervisor meanwhile. Import-light."""

from __future__ import annotations

import time

from lxcpy.runtime import client, lxcclient, state

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

LOOK = 0.5  # seconds between two looks for another supervisor


def wait(lxcpath: str, name: str, states: Sequence[str], timeout: float | None, *, change: bool) -> str | None:
    """Container.wait."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        try:
            return _wait(lxcpath, name, states, left(deadline), change=change)
        except client.Lost:
            _outlive(lxcpath, name, deadline)


def left(deadline: float | None) -> float | None:
    """Seconds until then (time.monotonic()), never below 0; None: for ever."""
    return None if deadline is None else max(deadline - time.monotonic(), 0.0)


def _wait(lxcpath: str, name: str, states: Sequence[str], timeout: float | None, *, change: bool) -> str | None:
    supervisor = client.connect_if_any()
    if supervisor is not None:
        with supervisor:
            known = supervisor.ask("get", lxcpath=lxcpath, name=name)["container"]
            if known or not lxcclient.command(lxcpath, name).running():
                now = str(known["state"]) if known else "STOPPED"
                if now in states and not change:
                    return now
                if timeout is not None and timeout <= 0:
                    return None
                try:
                    answer = supervisor.ask(
                        "wait", timeout=timeout, lxcpath=lxcpath, name=name, states=list(states), change=change
                    )
                    return str(answer["state"])
                except TimeoutError:
                    return None
    return lxcclient.command(lxcpath, name).wait(tuple(states), timeout, change=change)


def _outlive(lxcpath: str, name: str, deadline: float | None) -> None:
    """Until another supervisor answers, or one has to be brought up, since the container has ended.

    As long as it runs none is: one that was stopped on purpose would be back at once, and not as the service it was.
    """
    while True:
        successor = client.connect_running()
        if successor is not None:
            successor.close()
            return
        record = state.load(lxcpath, name)
        if record is None or not state.process_lives(record.get("init")) or left(deadline) == 0.0:
            return
        time.sleep(LOOK)
