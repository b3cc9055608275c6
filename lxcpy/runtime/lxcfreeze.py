"""Freezing a container that a real LXC monitor runs: the client writes to the freezer and tells everyone."""

from __future__ import annotations

import os
import select
import time

from lxcpy.errors import StateError, meaning
from lxcpy.runtime import lxcmonitor
from lxcpy.runtime.lxcclient import Command

POLL = 0.01  # seconds between two looks at freezer.state, which wakes nobody


def freeze(client: Command, timeout: float | None = None) -> None:
    """Stop every process. timeout: seconds, None for ever. Raises StateError."""
    if client.state() != "FROZEN":
        _change(client, timeout, frozen=True)


def thaw(client: Command, timeout: float | None = None) -> None:
    """Let every process go on. Raises StateError."""
    if client.state() in ("FROZEN", "FREEZING"):
        _change(client, timeout, frozen=False)


def _change(client: Command, timeout: float | None, *, frozen: bool) -> None:
    lxcpath = client.lxcpath()
    before, after, back = ("FREEZING", "FROZEN", "RUNNING") if frozen else ("THAWED", "RUNNING", "FROZEN")
    _tell(client, lxcpath, before)
    try:
        _write(client, timeout, frozen=frozen)
    except OSError as error:
        _tell(client, lxcpath, back)
        verb = "frozen" if frozen else "thawed"
        raise StateError(f'container "{client.name}" cannot be {verb}: {meaning(error)}') from error
    _tell(client, lxcpath, after)


def _tell(client: Command, lxcpath: str, state: str) -> None:
    client.notify(state)
    lxcmonitor.announce(lxcpath, client.name, state)


def _write(client: Command, timeout: float | None, *, frozen: bool) -> None:
    """Write to the freezer and wait for it. Raises OSError."""
    end = None if timeout is None else time.monotonic() + timeout
    directory = client.cgroup2_fd()
    if directory >= 0:
        try:
            _write_v2(directory, end, frozen=frozen)
        finally:
            os.close(directory)
        return
    path = client.cgroup("freezer", limit=True)
    if path is None:
        raise FileNotFoundError(2, "no freezer")
    _write_v1(_freezer_mount() + path, end, frozen=frozen)


def _write_v2(directory: int, end: float | None, *, frozen: bool) -> None:
    events = os.open("cgroup.events", os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        poll = select.poll()
        poll.register(events, select.POLLPRI)
        control = os.open("cgroup.freeze", os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)
        try:
            os.write(control, b"1" if frozen else b"0")
        finally:
            os.close(control)
        while f"frozen {int(frozen)}".encode() not in os.pread(events, 4096, 0):
            poll.poll(None if end is None else _left(end) * 1000)
    finally:
        os.close(events)


def _write_v1(directory: str, end: float | None, *, frozen: bool) -> None:
    word = b"FROZEN" if frozen else b"THAWED"
    fd = os.open(f"{directory}/freezer.state", os.O_RDWR | os.O_CLOEXEC)
    try:
        while True:
            # Written again each time: a group that forks stays FREEZING until it is told once more.
            os.pwrite(fd, word, 0)
            if os.pread(fd, 64, 0).strip() == word:
                return
            time.sleep(POLL if end is None else min(_left(end), POLL))
    finally:
        os.close(fd)


def _left(end: float) -> float:
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError(110, os.strerror(110))
    return left


def _freezer_mount() -> str:
    """Where the freezer's hierarchy is mounted. Raises OSError."""
    with open("/proc/self/mountinfo", "rb") as file:
        for line in file:
            fields, _, rest = line.partition(b" - ")
            kind, _source, options = (rest.split() + [b"", b"", b""])[:3]
            if kind == b"cgroup" and b"freezer" in options.split(b","):
                return fields.split()[4].decode(errors="surrogateescape")
    raise FileNotFoundError(2, "no freezer")
