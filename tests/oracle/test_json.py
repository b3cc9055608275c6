"""--json of containers that real LXC runs says what LXC's commands say, in the fields of lxcpy-json(7)."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from typing import Any

import jsonpages
import pytest
from probes import requires
from reallxc import Real

pytestmark = requires("root", "busybox", "lxc>=5.0", "veth")
Run = Callable[..., "subprocess.CompletedProcess[str]"]
VETH = """\
lxc.net.1.type = veth
lxc.net.1.flags = up
lxc.net.1.ipv4.address = 10.98.7.9/24
lxc.group = web
lxc.start.auto = 1
"""


@pytest.fixture
def told(run: Run, reals: Callable[..., Real]) -> Callable[..., Any]:
    """`told("lxcpy-ls --json", "ls")`: on a machine with a running and a frozen container of real LXC."""
    running, frozen = reals(VETH), reals()
    assert frozen.tool("freeze").returncode == 0

    def call(document: str, command: str, *words: str) -> Any:
        done = run(command, "-P", running.lxcpath, "--json", *words)
        assert (done.returncode, done.stderr) == (0, "")
        return jsonpages.read(document, done.stdout)

    call.running, call.frozen = running, frozen  # type: ignore[attr-defined]
    return call


def test_real_lxc_s_containers(told: Any) -> None:
    running, frozen = told.running, told.frozen
    rows = {row["name"]: row for row in told("lxcpy-ls --json", "ls")}
    assert {name: row["state"] for name, row in rows.items()} == {running.name: "RUNNING", frozen.name: "FROZEN"}
    row, facts = rows[running.name], told("lxcpy-info --json", "info", "-n", running.name)
    assert str(row["pid"]) == str(facts["pid"]) == running.tool("info", "-pH").stdout.strip()
    assert row["ipv4"] == facts["ipv4"] == running.tool("info", "-iH").stdout.split() == ["10.98.7.9"]
    assert (row["groups"], row["autostart"], row["interfaces"]) == (["web"], True, ["eth0", "lo"])
    assert facts["cpu"] > 0 and facts["memory"] > 0
    lines = running.tool("info", "-SH").stdout.splitlines()
    linked = [line.split(":")[1].strip() for line in lines if line.startswith("Link")]
    assert [link["interface"] for link in facts["links"]] == linked
    assert told("lxcpy-info --json", "info", "-n", frozen.name)["state"] == "FROZEN"
    planned = told("lxcpy-autostart -L --json", "autostart", "-L", "-k", "-a", "-A")
    assert [one["name"] for one in planned] == sorted((running.name, frozen.name), key=os.fsencode, reverse=True)
