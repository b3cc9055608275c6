"""lxcpy-config check and explain: words, data and exit statuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lxcpy.cli.options import parse
from lxcpy.commands import config
from lxcpy.errors import ConfigError, ConfigErrors, UsageError


def run(*words: str) -> int:
    return config.run(parse(config.COMMAND, "lxcpy-config", words))  # type: ignore[arg-type]


@pytest.fixture
def web(tmp_path: Path) -> Path:
    (tmp_path / "web").mkdir()
    file = tmp_path / "web/config"
    file.write_text(f"lxc.rootfs.path = dir:{tmp_path}\nlxc.uts.name = web\n")
    return file


def test_a_sound_config(web: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("check", str(web)) == 0
    assert capsys.readouterr().out == f"{web}: nothing is wrong\n"


def test_errors_and_warnings(web: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with web.open("a") as file:
        file.write("lxc.kmsg = 0\nlxc.cgroup.memory.limit_in_bytes = 256MB\nlxc.seccomp.profile = /nowhere\n")
    assert run("check", "web", "-P", str(web.parent.parent)) == 1
    lines = capsys.readouterr().out.splitlines()
    assert 'error: lxc.seccomp.profile: "/nowhere" does not exist' in lines
    assert any(line.startswith("error: ") and "256MB" in line for line in lines)
    assert any(line.startswith("warning: lxc.kmsg is left out") for line in lines)
    assert lines.count(f"  at {web}:4") == 1
    assert run("check", str(web), "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert [finding["severity"] for finding in found] == ["error", "error", "warning"]


def test_wrong_lines(web: Path, capsys: pytest.CaptureFixture[str]) -> None:
    web.write_text("lxc.tty.max = x\nlxc.rootfs.pth = y\n")
    assert run("check", str(web)) == 1
    assert capsys.readouterr().out == (
        f'error: lxc.tty.max: "x" is not a number\n  at {web}:1\n  hint: a number from 0 to 4294967295\n'
        f'error: unknown key "lxc.rootfs.pth"\n  at {web}:2\n  hint: the nearest key is lxc.rootfs.path\n'
    )
    with pytest.raises(ConfigErrors):
        run("explain", str(web))


def test_an_explanation(web: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with web.open("a") as file:
        file.write("lxc.cgroup2.memory.max = 64M\n")
    assert run("explain", str(web)) == 0
    assert f"# {web}:2" in capsys.readouterr().out
    assert run("explain", "web", "-P", str(web.parent.parent), "--json") == 0
    rows = {row["key"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["lxc.uts.name"] == {"key": "lxc.uts.name", "value": "web", "note": None,
                                    "at": {"file": str(web), "line": 2, "via": []}}  # fmt: skip
    assert rows["lxc.cgroup2.memory.max"]["note"]


def test_wrong_words(web: Path) -> None:
    with pytest.raises(UsageError):
        run("check")
    with pytest.raises(ConfigError, match="cannot read the config"):
        run("explain", "none", "-P", str(web.parent))
