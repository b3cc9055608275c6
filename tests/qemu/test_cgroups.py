"""A container's groups on hosts unlike this one: in virtual machines, in which guest_*.py run."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest

from qemu import guest_cgroup2, guest_container, guest_mixed
from qemu.machine import Machine


def answers_of(machine: Machine, script: str, **options: Any) -> dict[str, Any]:
    """What each check said; one boot serves all."""
    done = machine.run(script, **options)
    found = {}
    for line in done.output.splitlines():
        if line.startswith('{"check"'):
            answer = json.loads(line)
            found[answer["check"]] = answer
    assert done.status >= 0 and found, done.output + done.console
    return found


@pytest.fixture(scope="module")
def cgroup2() -> dict[str, Any]:
    return answers_of(Machine(modules=("bfq", "loop")), "guest_cgroup2.py")


@pytest.fixture(scope="module")
def mixed() -> dict[str, Any]:
    return answers_of(Machine(mounts=guest_mixed.MOUNTS, append="cgroup_no_v1=memory"), "guest_mixed.py")


@pytest.fixture(scope="module")
def container() -> dict[str, Any]:
    machine = Machine(append="cgroup_no_v1=all apparmor=0")
    machine.add_lxcpy()
    for program in filter(None, map(shutil.which, ("newuidmap", "newgidmap"))):
        machine.tree.add_program(program)
    return answers_of(machine, "guest_container.py")


@pytest.mark.parametrize("name", guest_cgroup2.CHECKS)
def test_on_pure_v2(cgroup2: dict[str, Any], name: str) -> None:
    assert cgroup2[name]["ok"], cgroup2[name]["value"]


@pytest.mark.parametrize("name", guest_mixed.CHECKS)
def test_with_memory_on_v2_and_the_rest_on_v1(mixed: dict[str, Any], name: str) -> None:
    assert mixed[name]["ok"], mixed[name]["value"]


@pytest.mark.parametrize("name", guest_container.CHECKS)
def test_a_whole_container_with_v1_words_on_pure_v2(container: dict[str, Any], name: str) -> None:
    assert container[name]["ok"], container[name]["value"]
