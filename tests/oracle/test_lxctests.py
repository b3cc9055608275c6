"""LXC's own tests, run as installed: what real LXC passes on this machine, lxcpy passes too.

The table of both is in pytest's summary (conftest.py).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import probes
import pytest
from lxctests import runner
from probes import requires

ROOT = Path(__file__).parent.parent.parent
pytestmark = requires("root", "lxc-tests", "busybox", "overlay", "bridge", "veth", "dnsmasq")


@pytest.fixture(scope="module")
def links(bin: str) -> str:
    """A directory with lxc-X for each lxcpy-X."""
    directory = f"{os.path.dirname(bin)}/links"
    runner.make_links(directory, bin)
    return directory


@pytest.mark.parametrize("name", sorted(runner.MIXED))
def test_lxc(name: str, links: str, names: Callable[[], str]) -> None:
    if name not in runner.installed():
        pytest.skip(f"{runner.PREFIX}{name} is not installed")
    keep = [str(ROOT), os.path.dirname(links), sys.prefix, sys.base_prefix]
    results = runner.TABLE.setdefault(name, [])
    for place in (None, links):
        results.append(runner.run(name, links=place, keep=keep, group=names()))
    theirs, ours = results
    if theirs.status:
        reason = f"real LXC does not pass it here ({theirs.status}): {theirs.output.strip()[-200:]}"
        if probes.must_run("lxc-tests") and name not in runner.NOT_HERE:
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
    assert ours.status == 0, ours.output


def test_every_test_has_its_place() -> None:
    """A newer package may have more of them; who calls no command is told by the program itself."""
    assert runner.installed() <= set(runner.MIXED) | runner.LIBLXC_ALONE
    assert not set(runner.MIXED) & runner.LIBLXC_ALONE
    for name in runner.installed():
        assert runner.calls_commands(name) == (name in runner.MIXED), name
