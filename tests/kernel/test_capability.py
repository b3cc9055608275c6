"""Capability sets, read back from procfs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from probes import requires

from lxcpy.kernel import capability, proc

pytestmark = requires("root")
Isolated = Callable[..., Any]


def _masks() -> dict[str, int]:
    with open("/proc/self/status") as file:
        status = proc.status(file.read())
    return {name: int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}


def _mask(numbers: Any) -> int:
    return sum(1 << number for number in numbers)


def test_names_are_the_kernels() -> None:
    with open("/usr/include/linux/capability.h") as file:
        words = [line.split() for line in file if line.startswith("#define CAP_")]
    numbers = {word[1]: int(word[2]) for word in words if len(word) > 2 and word[2].isdigit()}
    for number, name in enumerate(capability.CAPABILITIES):
        assert numbers.get(f"CAP_{name.upper()}", number) == number


def test_last_cap() -> None:
    with open("/proc/sys/kernel/cap_last_cap") as file:
        assert capability.last_cap() == int(file.read())


def test_get_and_bounding() -> None:
    masks, sets = _masks(), capability.get()
    assert _mask(sets.effective) == masks["CapEff"]
    assert _mask(sets.permitted) == masks["CapPrm"]
    assert _mask(sets.inheritable) == masks["CapInh"]
    assert _mask(capability.bounding()) == masks["CapBnd"]


def test_set_drop_and_ambient(isolated: Isolated) -> None:
    def inside() -> dict[str, int]:
        sys_time, sys_module, checkpoint = 25, 16, 40
        capability.drop_bounding({sys_time, sys_module})
        now = capability.get()
        capability.set(now.effective - {checkpoint}, now.permitted, {0, checkpoint})
        capability.raise_ambient({0})
        return _masks()

    before, after = _masks(), isolated(inside)
    assert after["CapBnd"] == before["CapBnd"] & ~(1 << 25 | 1 << 16)
    assert after["CapEff"] == before["CapEff"] & ~(1 << 40)
    assert after["CapInh"] == 1 | 1 << 40
    assert after["CapAmb"] == 1


def test_clear_ambient(isolated: Isolated) -> None:
    def inside() -> dict[str, int]:
        now = capability.get()
        capability.set(now.effective, now.permitted, {0})
        capability.raise_ambient({0})
        capability.clear_ambient()
        return _masks()

    assert isolated(inside)["CapAmb"] == 0


def test_what_was_dropped_is_gone_after_exec(isolated: Isolated) -> None:
    def inside() -> str:
        capability.drop_bounding({capability.SYS_ADMIN})
        return subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout

    assert not int(proc.status(isolated(inside))["CapEff"], 16) >> capability.SYS_ADMIN & 1


def test_errors_name_the_call(isolated: Isolated) -> None:
    def inside() -> None:
        os.setuid(65534)
        capability.drop_bounding({5})

    with pytest.raises(PermissionError, match=r"prctl\(PR_CAPBSET_DROP, 5, 0, 0, 0\)"):
        isolated(inside)
