"""What a test could leave behind on the machine, as sets that are compared before and after.

The scope is "session" by default: other work on the same machine comes and goes, so only what carries this session's
token or stands in its directories counts. With LXCPY_LEAKS=machine (CI) everything that is new counts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

Snapshot = dict[str, set[str]]

# Left by the machine itself, or by real LXC for good (its monitors park themselves in lxc.pivot).
IGNORED_CGROUPS = ("/system.slice", "/user.slice", "/init.scope")
PIVOT = "/lxc.pivot"
LINGERING = ("lxc-monitord",)  # leaves some 30 s after its last client
LIBRARIES = ("/usr/lib/lxcpy", "/var/lib/lxc", "/usr/local/bin", "/etc/lxc")


class Watch:
    """Compares the machine with itself."""

    def __init__(self, *, token: str, folders: tuple[str, ...], machine: bool) -> None:
        self.token = token
        self.folders = folders  # the session's run and cache directories
        self.machine = machine

    def mine(self, text: str) -> bool:
        return self.token in text or any(folder in text for folder in self.folders)

    def snapshot(self) -> Snapshot:
        """The machine now."""
        found = {
            "mounts": _mounts(),
            "links": set(os.listdir("/sys/class/net")),
            "cgroups": _cgroups(),
            "loop devices": _loops(),
            "processes": self._processes(),
            "files": {path for folder in self.folders[:1] + LIBRARIES for path in _files(folder, 3)},
        }
        if not self.machine:
            found = {kind: {item for item in items if self.mine(item)} for kind, items in found.items()}
        return found

    def _processes(self) -> set[str]:
        """Processes that were started by this session, or that stand in a container's control group."""
        found = set()
        for pid in filter(str.isdigit, os.listdir("/proc")):
            if int(pid) == os.getpid():
                continue
            environ, command, cgroup = (_read(f"/proc/{pid}/{name}") for name in ("environ", "cmdline", "cgroup"))
            text = command.replace("\0", " ").strip()
            if any(name in command for name in LINGERING) or not text:
                continue
            if any(folder in environ for folder in self.folders) or self.token in cgroup or self.mine(text):
                found.add(f"{pid} {text} [{self.token}]")
        return found


def new(before: Snapshot, watch: Watch, *, ignore: Callable[[str, str], bool], patience: float = 10.0) -> Snapshot:
    """What is there now and was not before, once things have settled for at most `patience` seconds."""
    deadline = time.monotonic() + patience
    while True:
        after = watch.snapshot()
        extra = {kind: {item for item in after[kind] - before[kind] if not ignore(kind, item)} for kind in after}
        extra = {kind: items for kind, items in extra.items() if items}
        if not extra or time.monotonic() > deadline:
            return extra
        time.sleep(0.05)


def describe(extra: Snapshot) -> str:
    """The leak as text."""
    return "\n".join(f"left behind: {kind}: {item}" for kind, items in extra.items() for item in sorted(items))


def _read(path: str) -> str:
    try:
        with open(path, "rb") as file:
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def _mounts() -> set[str]:
    found = set()
    for line in _read("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        fields = left.split()
        found.add(f"{fields[4]} ({fields[3]} of {right})")
    return found


def _cgroups() -> set[str]:
    found = set()
    for line in _read("/proc/self/mountinfo").splitlines():
        left, _, right = line.partition(" - ")
        if right.split()[0] not in ("cgroup", "cgroup2"):
            continue
        place = left.split()[4]
        for folder, below, _ in os.walk(place):
            inner = folder[len(place) :]
            if inner.startswith(IGNORED_CGROUPS) or inner.endswith(PIVOT):
                below.clear()
            elif inner:
                found.add(folder)
    return found


def _loops() -> set[str]:
    devices = [name for name in os.listdir("/sys/block") if name.startswith("loop")]
    backing = {name: _read(f"/sys/block/{name}/loop/backing_file").strip() for name in devices}
    return {f"{name} {file}" for name, file in backing.items() if file}


def _files(folder: str, depth: int) -> set[str]:
    """Paths below `folder`, not deeper than `depth` levels (a rootfs has too many)."""
    found = set()
    for place, below, names in os.walk(folder):
        found.update(os.path.join(place, name) for name in [*below, *names])
        if place[len(folder) :].count("/") >= depth - 1:
            below.clear()
    return found
