"""lxcpy.restart: which ends are failures, how long the waits are, and what is wrong with its keys."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from lxcpy.config.check import check
from lxcpy.config.model import Restart
from lxcpy.runtime.launcher import Options
from lxcpy.runtime.restart import Pending, decide, wanted

OPTIONS = Options("web", "/lxc", "/lxc/web/config", [], {})


def exited(status: int) -> int:
    return status << 8


@pytest.mark.parametrize(
    ("status", "on_failure"),
    [
        (exited(0), False), (exited(1), True), (exited(255), True), (signal.SIGKILL, True),
        (signal.SIGSEGV | 0x80, True),
        (signal.SIGINT, False),  # reboot(2) with LINUX_REBOOT_CMD_HALT or _POWER_OFF
        (None, True),
    ],
)  # fmt: skip
def test_ends(status: int | None, on_failure: bool) -> None:
    assert status is None or os.WIFEXITED(status) or os.WIFSIGNALED(status)
    assert wanted("on-failure", status, asked=False) is on_failure
    assert wanted("always", status, asked=False)
    for policy in ("no", "on-failure", "always"):
        assert not wanted(policy, status, asked=True)
    assert not wanted("no", status, asked=False)


def waits(keys: Restart, count: int) -> list[float]:
    """The waits of a container that ends at once, again and again."""
    options, found = OPTIONS, []
    for _ in range(count):
        pending = decide(keys, options, ran=0, now=100)
        if pending is None:
            break
        found.append(pending.due - 100)
        options = Options(**pending.options)
    return found


def test_waits_double_up_to_the_longest() -> None:
    assert waits(Restart(), 9) == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert waits(Restart(delay=90.0), 3) == [90, 90, 90]
    assert len(waits(Restart(), 3000)) == 3000


def test_the_limit() -> None:
    assert waits(Restart(limit=3), 9) == [1, 2, 4]
    tired = OPTIONS._replace(tries=3)
    well = decide(Restart(limit=3, period=20), tired, ran=20, now=0)
    assert well and (well.due, well.options["tries"]) == (1, 1)
    assert decide(Restart(limit=3, period=20), tired, ran=19.9, now=0) is None


def test_a_restart_that_fails_counts_as_a_run_that_ends() -> None:
    first: Pending | None = decide(Restart(limit=3), OPTIONS, ran=0, now=0)
    found = []
    while first:
        found.append((first.due, first.options["tries"]))
        first = first.after_failure(0)
    assert found == [(1, 1), (2, 2), (4, 3)]


def test_what_is_wrong_with_the_keys_names_the_line(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("lxc.rootfs.path = /\nlxcpy.restart = often\nlxcpy.restart.delay = 0\nlxcpy.restart.limit = -1\n")
    found = [(one.error, str(one.at), one.what, one.hint) for one in check(str(config))]
    assert [one[:2] for one in found] == [(True, f"{config}:{line}") for line in (2, 3, 4)]
    assert 'lxcpy.restart: "often" is unknown' in found[0][2] and found[0][3] == "one of no, on-failure, always"
    config.write_text("lxc.rootfs.path = /\nlxcpy.restart.delay = 2.5\n")
    assert [(one.error, one.what) for one in check(str(config))] == [
        (False, "lxcpy.restart.delay does nothing without lxcpy.restart")
    ]
    config.write_text("lxc.rootfs.path = /\nlxc.ephemeral = 1\nlxcpy.restart = always\nlxcpy.restart.delay = 61\n"
                      "lxcpy.restart.delay.max = 3\n")  # fmt: skip
    assert [(one.error, one.at and one.at.line) for one in check(str(config))] == [(False, 3), (False, 5)]
