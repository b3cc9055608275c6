"""What our own keys do, one test a key (tests/effects.py)."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import Define

pytestmark = pytest.mark.requires("root", "busybox")
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
