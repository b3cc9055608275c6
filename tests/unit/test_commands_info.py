"""lxcpy-info prints what lxc-info prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from lxcpy.cgroups.stats import Stats
from lxcpy.cli import output
from lxcpy.cli.options import parse
from lxcpy.commands import info
from lxcpy.commands.info import Facts

RUNNING = Facts(
    "web", "RUNNING", 4711, ("10.0.3.5", "fd00::5"),
    Stats(cpu=12_345_678, blkio_total=4096, memory=3 << 20, kmem=1 << 19), (("vethAbC123", 1500, 700),),
)  # fmt: skip


def listing(facts: Facts, *words: str) -> list[str]:
    args = parse(info.COMMAND, "lxcpy-info", ["web", *words])
    assert isinstance(args, info.Args)
    return info.lines(facts, info.wanted(args))


def test_everything() -> None:
    assert listing(RUNNING) == [
        "Name:           web",
        "State:          RUNNING",
        "PID:            4711",
        "IP:             10.0.3.5",
        "IP:             fd00::5",
        "CPU use:        0.01 seconds",
        "BlkIO use:      4.00 KiB",
        "Memory use:     3.00 MiB",
        "KMem use:       512.00 KiB",
        "Link:           vethAbC123",
        " TX bytes:      1.46 KiB",
        " RX bytes:      700 bytes",
        " Total bytes:   2.15 KiB",
    ]


def test_stopped() -> None:
    assert listing(Facts("web", "STOPPED")) == ["Name:           web", "State:          STOPPED"]


def test_raw_numbers() -> None:
    assert listing(RUNNING, "-SH") == [
        "CPU use:        12345678",
        "BlkIO use:      4096",
        "Memory use:     3145728",
        "KMem use:       524288",
        "Link:           vethAbC123",
        " TX bytes:      1500",
        " RX bytes:      700",
        " Total bytes:   2200",
    ]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["-sH"], ["RUNNING"]),
        (["-pH"], ["4711"]),
        (["-iH"], ["10.0.3.5", "fd00::5"]),
        (["-spH"], ["State:          RUNNING", "PID:            4711"]),
        (["-s"], ["State:          RUNNING"]),
        (["-c", "lxc.arch"], []),
    ],
)
def test_a_single_value_without_its_label(words: list[str], expected: list[str]) -> None:
    assert listing(RUNNING, *words) == expected


def test_unknown_numbers_have_no_line() -> None:
    facts = Facts("web", "RUNNING", 1, links=(("br0", -1, -1),))
    assert listing(facts, "-S") == ["Link:           br0"]


def test_values_of_keys(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text("lxc.uts.name = web\nlxc.mount.entry = a b none bind\nlxc.mount.entry = c d none bind\n")
    keys = ["lxc.uts.name", "lxc.mount.entry", "lxc.group", "lxc.nonsense"]
    assert info.values(str(config), keys, bare=False) == (
        "lxc.uts.name = web\nlxc.mount.entry = a b none bind\nc d none bind\n\nlxc.group =\n",
        "lxc.nonsense invalid\n",
    )
    assert info.values(str(config), ["lxc.uts.name"], bare=True) == ("web\n", "")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 bytes"),
        (1024, "1024 bytes"),
        (1025, "1.00 KiB"),
        (1536, "1.50 KiB"),
        (1 << 20, "1024.00 KiB"),
        ((1 << 20) + 1, "1.00 MiB"),
        (5 << 29, "2.49 GiB"),
        ((4 << 30) - 1, "3.99 GiB"),
    ],
)
def test_sizes(value: int, text: str) -> None:
    assert output.size(value) == text
