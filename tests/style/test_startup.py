"""What a command costs before it does anything: the modules it loads, and the time."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lxcpy.cli.registry import COMMANDS

ROOT = Path(__file__).parent.parent.parent
LIGHT = ("autostart", "cgroup", "config", "freeze", "info", "ls", "monitor", "stop", "unfreeze", "wait")
# Each of these costs a light command more than all that it does itself.
FORBIDDEN = {
    "argparse", "configobj", "dataclasses", "email", "enum", "inspect", "jinja2", "json", "logging", "pathlib",
    "pyroute2", "re", "shutil", "socket", "subprocess", "tempfile", "textwrap", "threading", "typing",
}  # fmt: skip
PROBE = """
import sys
sys.path += {packages!r}
sys.argv = {argv!r}
from lxcpy.cli.main import main
main()
import json
sys.stderr.write("\\n" + json.dumps(sorted(loaded)))
""".replace("import json", "loaded = set(sys.modules)\nimport json")


def loaded(argv: list[str]) -> set[str]:
    """The top-level modules that a command has loaded when it ends."""
    code = PROBE.format(packages=[str(ROOT)], argv=argv)
    done = subprocess.run([sys.executable, "-IS", "-c", code], capture_output=True, text=True, check=True)
    return {name.split(".")[0] for name in json.loads(done.stderr.splitlines()[-1])}


@pytest.mark.parametrize("name", COMMANDS)
def test_help_loads_nothing_heavy(name: str) -> None:
    assert loaded([f"lxcpy-{name}", "--help"]) & FORBIDDEN == set()


@pytest.mark.parametrize(
    "argv",
    [
        ["lxcpy-ls", "-P", "{lxcpath}"],
        ["lxcpy-ls", "-1", "-P", "{lxcpath}"],
        ["lxcpy-ls", "-f", "-P", "{lxcpath}"],
        ["lxcpy-info", "-P", "{lxcpath}", "one"],
        ["lxcpy-stop", "-P", "{lxcpath}", "one"],
        ["lxcpy-wait", "-P", "{lxcpath}", "one", "-s", "STOPPED"],
        ["lxcpy-freeze", "-P", "{lxcpath}", "one"],
        ["lxcpy-cgroup", "-P", "{lxcpath}", "one", "memory.max"],
        ["lxcpy-autostart", "-P", "{lxcpath}", "-L"],
        ["lxcpy-config", "-l"],
        ["lxcpy-ls", "--json", "-P", "{lxcpath}"],
        ["lxcpy-info", "--json", "-P", "{lxcpath}", "one"],
        ["lxcpy-autostart", "-P", "{lxcpath}", "-L", "--json"],
        ["lxcpy-config", "-l", "--json"],
    ],
    ids=lambda argv: " ".join(argv),
)
def test_light_commands_load_nothing_heavy(argv: list[str], tmp_path: Path) -> None:
    container = tmp_path / "one"
    container.mkdir()
    (container / "config").write_text("lxc.uts.name = one\nlxc.start.auto = 1\n")
    found = loaded([word.format(lxcpath=tmp_path) for word in argv])
    assert found & FORBIDDEN == set()


def test_light_commands_start_within_15_ms(bin: str, tmp_path: Path) -> None:
    """Over the bare interpreter; loose, for machines that are busy: the median of the differences of pairs."""
    bare, ours = [sys.executable, "-I", "-c", "pass"], [f"{bin}/lxcpy-ls", "-1", "-P", str(tmp_path)]

    def took(argv: list[str]) -> float:
        begin = time.perf_counter()
        subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=True, env={"PATH": os.defpath})
        return time.perf_counter() - begin

    took(ours)  # writes the compiled files
    differences = [took(ours) - took(bare) for _ in range(15)]
    assert statistics.median(differences) < 0.015
