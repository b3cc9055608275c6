"""The peek agrees with the whole load, and imports next to nothing."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
from corpus_files import FOLDER, NAMES, lay_out

from lxcpy.config import light
from lxcpy.config.load import load


@pytest.mark.parametrize("name", NAMES)
def test_the_peek_sees_what_the_load_sees(tmp_path: Path, name: str) -> None:
    file = str(lay_out(tmp_path) / f"{name}.conf")
    seen, config = light.peek(file), load(file)
    assert seen.auto == config.start.auto and seen.order == config.start.order and seen.delay == config.start.delay
    assert seen.groups == config.group and seen.ephemeral == config.ephemeral
    assert seen.unprivileged == bool(config.idmap)
    # the backend of LXC 2.0 stands in another key
    assert seen.rootfs == (config.rootfs.path or "") or "lxc.rootfs.backend" in Path(file).read_text(errors="replace")


def test_values_that_make_no_sense_are_passed_over() -> None:
    seen = light.peek_text("lxc.start.order = first\nlxc.start.delay = -5\nlxc.start.auto = 2\nlxc.group = a\tb  c\n"
                           "lxc.include = /nowhere\nlxc.idmap = x\nlxc.idmap =\nlxc.rootfs = 'a b'\n")  # fmt: skip
    assert seen == light.Peek(False, 0, 0, ("a", "b", "c"), False, "a b", False)
    assert light.peek_text("lxc.start.order = 0x10\nlxc.group = a\nlxc.group =\nlxc.group = b").groups == ("b",)
    with pytest.raises(FileNotFoundError):
        light.peek("/nowhere")


def test_loops_end(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("lxc.include = b\nlxc.include = b\nlxc.start.auto = 1\n")
    (tmp_path / "b").write_text("lxc.include = a\nlxc.include = b\nlxc.start.order = 4\n")
    assert light.peek(str(tmp_path / "a")) == light.Peek(auto=True, order=4)


def test_it_is_quick(tmp_path: Path) -> None:
    file = str(FOLDER / "5.0-debian-bookworm.conf")
    found = 1.0
    for _ in range(50):
        begun = time.perf_counter()
        light.peek(file)
        found = min(found, time.perf_counter() - begun)
    assert found < 0.0003


def modules(code: str) -> set[str]:
    """The modules of a fresh interpreter after some code."""
    code = f"import sys; sys.path.insert(0, {str(FOLDER.parent.parent)!r}); {code}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_it_imports_next_to_nothing() -> None:
    heavy = {"argparse", "logging", "dataclasses", "pathlib", "subprocess", "enum", "socket", "lxcpy.config.model",
             "lxcpy.config.schema", "configobj", "tempfile", "random"}  # fmt: skip
    seen = modules("import lxcpy.config.light, lxcpy.config.system")
    assert not (heavy & seen) - modules("import typing")
