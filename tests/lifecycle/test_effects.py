"""The tests of tests/effects.py prove something: each fails where its key is not set."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.requires("root", "busybox")
TESTS = Path(__file__).parent.parent


def test_each_test_fails_without_its_key() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LXCPY_", "PYTEST_"))}
    argv = [sys.executable, str(TESTS / "effects.py")]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
