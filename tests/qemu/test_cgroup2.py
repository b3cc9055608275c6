"""A container's groups on a host with cgroup v2 alone: a virtual machine, in which guest_cgroup2.py runs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from qemu.guest_cgroup2 import CHECKS
from qemu.machine import Machine


@pytest.fixture(scope="module")
def answers() -> dict[str, Any]:
    """What each check said; one boot serves all."""
    done = Machine(modules=("bfq", "loop")).run("guest_cgroup2.py")
    found = {}
    for line in done.output.splitlines():
        if line.startswith('{"check"'):
            answer = json.loads(line)
            found[answer["check"]] = answer
    assert done.status >= 0 and found, done.output + done.console
    return found


@pytest.mark.parametrize("name", CHECKS)
def test_on_pure_v2(answers: dict[str, Any], name: str) -> None:
    assert answers[name]["ok"], answers[name]["value"]
