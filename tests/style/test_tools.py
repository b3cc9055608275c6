"""The linters: a finding is a failure."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from probes import requires

ROOT = Path(__file__).parent.parent.parent
PYTHON = Path(sys.executable).parent


def run(*argv: str, **environment: str) -> None:
    done = subprocess.run(
        argv, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, **environment}
    )
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"


def test_ruff() -> None:
    run(str(PYTHON / "ruff"), "check", "lxcpy", "tests", "setup.py")


def test_mypy(tmp_path: Path) -> None:
    run(str(PYTHON / "mypy"), f"--cache-dir={tmp_path}")


@requires("shellcheck")
def test_shellcheck() -> None:
    scripts = ["tools/quickstart", "tools/uninstall", "tools/test", "tools/common.sh", ".ci/run"]
    run("shellcheck", "-x", *scripts)


def test_scripts_explain_themselves_without_root() -> None:
    for script in ("quickstart", "uninstall", "test"):
        done = subprocess.run([f"tools/{script}", "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
        assert done.stdout.startswith(f"Usage: sudo tools/{script}")


@requires("systemd-analyze")
def test_units_are_sound(tmp_path: Path) -> None:
    """Without our commands installed the programs are missing; everything else must be in order."""
    units = sorted((ROOT / "tools/systemd").glob("*.service"))
    for unit in units:
        text = unit.read_text()
        for line in text.splitlines():
            if line.startswith("Exec"):
                text = text.replace(line.split("=", 1)[1].split()[0], "/bin/true")
        (tmp_path / unit.name.replace("@", "@x")).write_text(text)
    paths = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", *paths], capture_output=True, text=True, check=False
    )
    complaints = [line for line in done.stderr.splitlines() if str(tmp_path) in line]
    assert complaints == []
