"""What our own keys do, one test a key (tests/effects.py)."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import effects
import pytest

from lxcpy.commands.info import Wanted, gather

if TYPE_CHECKING:
    from conftest import Box, Define

pytestmark = pytest.mark.requires("root", "busybox")
EVERYTHING = Wanted(True, True, False, False, name=True)
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def test_start_requires(box: Define) -> None:
    db = box()
    web = box(f"lxcpy.start.requires = {db.name}\n")
    web.start()
    assert (db.state, web.state) == ("RUNNING", "RUNNING")


def test_start_after(box: Define, run: Run, lxcpath: str, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    note = f"lxc.start.auto = 1\nlxc.hook.pre-start = sh -c 'echo {{name}} >> {diary}'\n"
    late = box(note + "lxc.start.order = 2\n")
    early = box(note + f"lxc.start.order = 1\nlxcpy.start.after = {late.name}\n")
    assert run("autostart", "-P", lxcpath).returncode == 0
    assert diary.read_text().split() == [late.name, early.name]


PATIENCE = 4 if os.environ.get(effects.WITHOUT) else 30  # seconds; each of these waits in vain without its key


def starts(one: Box, script: str, count: int) -> list[float]:
    """When the container began its first `count` runs, in which init does what the script says."""
    Path(one.rootfs, "init").write_text(f"cat /proc/uptime >> /runs\n{script}\n")
    one.start()
    deadline = time.monotonic() + PATIENCE
    file = Path(one.rootfs, "runs")
    while len(found := file.read_text().splitlines() if file.exists() else []) < count:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)
    return [float(line.split()[0]) for line in found[:count]]


def given_up(one: Box) -> dict[str, Any] | None:
    return gather(one.lxcpath, one.name, EVERYTHING).restart


def test_restart(box: Define) -> None:
    starts(box("lxcpy.restart = on-failure\nlxcpy.restart.delay = 0.1\n"), "sleep 0.1; exit 3", 2)


def test_restart_delay(box: Define) -> None:
    one, two = starts(box("lxcpy.restart = always\nlxcpy.restart.delay = 2\n"), "exit 0", 2)
    assert two - one >= 2, "not the default of a second"


def test_restart_delay_max(box: Define) -> None:
    keys = "lxcpy.restart = on-failure\nlxcpy.restart.delay = 0.5\nlxcpy.restart.delay.max = 0.6\n"
    times = starts(box(keys), "exit 1", 6)
    assert times[5] - times[1] < 10, "four waits, which would be 1, 2, 4 and 8 seconds"


def test_restart_limit(box: Define) -> None:
    one = box("lxcpy.restart = on-failure\nlxcpy.restart.delay = 0.1\nlxcpy.restart.limit = 2\n")
    starts(one, "exit 1", 3)
    deadline = time.monotonic() + PATIENCE
    while given_up(one) != {"gave-up": 2}:
        assert time.monotonic() < deadline, given_up(one)
        time.sleep(0.05)
    assert len(Path(one.rootfs, "runs").read_text().splitlines()) == 3


def test_restart_period(box: Define) -> None:
    keys = "lxcpy.restart = on-failure\nlxcpy.restart.delay = 0.1\nlxcpy.restart.limit = 1\n"
    starts(box(keys + "lxcpy.restart.period = 0.4\n"), "sleep 0.5; exit 1", 4)
