"""Runs LXC's own tests, each in a sandbox of its own, and keeps the table of what came out.

Run as installed: the scripts and the programs call the commands by name, and find either real LXC's or, by way of
links lxc-X to lxcpy-X that go before all others in PATH, ours.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from lxctests.sandbox import NO_SANDBOX

PLACE = Path("/usr/bin")
PREFIX = "lxc-test-"
TIMEOUT = 120  # seconds; the slowest takes 25
SANDBOX = Path(__file__).parent / "sandbox.py"
NAMESPACES = "unshare --mount --net --pid --cgroup --fork --kill-child=KILL --propagation private"

# Scripts, which call the commands alone, and programs that create or destroy through the commands and do the rest with
# the liblxc they are linked with. The text says what a test does not show here.
MIXED = {
    "apparmor-generated": "it ends before its first command",
    "apparmor-mount": "wants AppArmor",
    "automount": "it ends at once where there are cgroup namespaces",
    "autostart": "",
    "checkpoint-restore": "without criu it ends at once",
    "cloneconfig": "",
    "containertests": "",
    "createconfig": "",
    "cve-2019-5736": "",
    "destroytest": "",
    "exit-code": "",
    "lxc-attach": "",
    "no-new-privs": "",
    "procsys": "",
    "rootfs": "",
    "saveconfig": "",
    "shortlived": "",
    "snapdeps": "",
    "startone": "",
    "symlink": "",
    "unpriv": "",
    "usernic": "",
    "usernsexec": "",
}
NOT_HERE = {"apparmor-mount"}  # what real LXC need not pass where nothing may be skipped
# Programs that call liblxc and no command: with lxcpy first in PATH they would test liblxc once more, and nothing else.
LIBLXC_ALONE = {
    "api-reboot", "apparmor", "arch-parse", "attach", "basic", "capabilities", "cgpath", "clonetest", "concurrent",
    "config-jump-table", "console", "console-log", "createtest", "criu-check-feature", "device-add-remove", "get_item",
    "getkeys", "list", "locktests", "lxcpath", "may-control", "mount-injection", "parse-config-file", "proc-pid",
    "raw-clone", "reboot", "rootfs-options", "share-ns", "shutdowntest", "snapshot", "state-server", "sys-mixed",
    "sysctls", "utils",
}  # fmt: skip
COMMANDS = ("lxc-create", "lxc-destroy", "lxc-start", "lxc-stop", "lxc-attach", "lxc-execute", "lxc-info", "lxc-wait")


class Result(NamedTuple):
    """How a test went."""

    status: int
    seconds: float
    output: str

    def __str__(self) -> str:
        word = {0: "passes", 124: "hangs"}.get(self.status, f"fails ({self.status})")
        return f"{word:<11} {self.seconds:5.1f} s"


TABLE: dict[str, list[Result]] = {}  # a test's name: LXC's result, then ours


def installed() -> set[str]:
    """The names, without what all have in common."""
    return {path.name.removeprefix(PREFIX) for path in PLACE.glob(f"{PREFIX}*")}


def calls_commands(name: str) -> bool:
    """Whether a program of that name holds a command's name as a string of its own."""
    content = (PLACE / f"{PREFIX}{name}").read_bytes()
    return content.startswith(b"#!") or any(b"\0" + word.encode() + b"\0" in content for word in COMMANDS)


def make_links(directory: str, commands: str) -> None:
    """A link for each of real LXC's commands to ours in `commands`; where we have none, a script that says so."""
    os.makedirs(directory)
    for path in sorted(PLACE.glob("lxc-*")):
        if path.name.startswith(PREFIX):
            continue
        ours = f"{commands}/lxcpy-{path.name.removeprefix('lxc-')}"
        link = f"{directory}/{path.name}"
        if os.path.exists(ours):
            os.symlink(ours, link)
        else:
            with open(link, "w") as file:
                file.write(f"#!/bin/sh\necho 'lxcpy has no {os.path.basename(ours)}' >&2\nexit 127\n")
            os.chmod(link, 0o755)


def run(name: str, *, links: str | None, keep: list[str], group: str) -> Result:
    """Run a test in control groups called `group`, with real LXC where links is None."""
    settings = json.dumps({"links": links, "keep": keep, "timeout": TIMEOUT})
    started = time.monotonic()
    with groups(group) as places:
        enter = "".join(f"echo $$ >{place}/cgroup.procs; " for place in places)
        argv = ["sh", "-ec", f'{enter} exec {NAMESPACES} "$@"', "sh", sys.executable, "-B", str(SANDBOX), settings]
        done = subprocess.run(
            [*argv, str(PLACE / f"{PREFIX}{name}")], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=TIMEOUT + 30, check=False,
        )  # fmt: skip
    assert done.returncode != NO_SANDBOX, done.stdout.decode(errors="replace")
    return Result(done.returncode, time.monotonic() - started, done.stdout.decode(errors="replace"))


@contextmanager
def groups(name: str) -> Iterator[list[str]]:
    """A group in each hierarchy, gone afterwards with those that were made below."""
    with open("/proc/self/mountinfo") as file:
        lines = [line.split(" - ") for line in file if " - cgroup" in line]
    places = [f"{left.split()[4]}/{name}" for left, _ in lines]
    try:
        for place in places:
            os.mkdir(place)
            for own in ("cpuset.cpus", "cpuset.mems"):  # empty in a new group of cgroup v1, which lets nobody in
                if os.path.exists(f"{place}/{own}") and not Path(f"{place}/{own}").read_text().strip():
                    Path(f"{place}/{own}").write_text(Path(f"{place}/../{own}").read_text())
        yield places
    finally:
        for place in places:
            for folder, _, _ in os.walk(place, topdown=False):
                _remove(folder)


def _remove(group: str) -> None:
    deadline = time.monotonic() + 10
    while True:
        try:
            return os.rmdir(group)
        except OSError:  # the last processes are on their way out
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def report() -> list[str]:
    """The table as lines."""
    lines = [f"{'test':<20} {'real LXC':<19}  {'lxcpy':<19}  remark"]
    for name, results in sorted(TABLE.items()):
        cells = [f"{result!s:<19}" for result in results] + [" " * 19] * (2 - len(results))
        lines.append(f"{name:<20} {'  '.join(cells)}  {MIXED[name]}".rstrip())
    return [*lines, f"of liblxc alone, not run: {' '.join(sorted(LIBLXC_ALONE & installed()))}"]
