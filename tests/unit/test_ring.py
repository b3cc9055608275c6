"""The console's ring buffer and log file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lxcpy.errors import StateError
from lxcpy.runtime.ring import ConsoleLog, Ring


def test_the_ring_keeps_the_newest_bytes() -> None:
    ring = Ring(8)
    ring.write(b"abc")
    ring.write(b"defgh")
    assert ring.used == 8
    ring.write(b"ij")
    assert ring.read(3) == b"cde"
    assert ring.read() == b"fghij"
    assert ring.read() == b""
    ring.write(b"0123456789abcdef")
    assert ring.read() == b"89abcdef"
    ring.write(b"x")
    ring.clear()
    assert ring.read() == b""
    assert ring  # `if ring:` asks whether there is one


def test_a_ring_of_nothing() -> None:
    ring = Ring(0)
    ring.write(b"abc")
    assert ring.read() == b""


def test_a_log_without_limit_is_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"old\n")
    log = ConsoleLog(str(path))
    log.write(b"new\n")
    log.close()
    log.write(b"late\n")
    assert path.read_bytes() == b"old\nnew\n"


def test_a_limited_log_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = ConsoleLog(str(path), limit=10)
    log.write(b"0123456")
    log.write(b"789abc")
    assert path.read_bytes() == b"abc"
    log.write(b"x" * 25)
    assert path.stat().st_size <= 10
    log.close()


def test_rotation_keeps_one_older_file(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = ConsoleLog(str(path), limit=4, rotate=True)
    log.write(b"aaaabbbbcc")
    assert path.read_bytes() == b"cc"
    assert (tmp_path / "log.1").read_bytes() == b"bbbb"
    assert sorted(os.listdir(tmp_path)) == ["log", "log.1"]
    log.close()


def test_a_fifo_stops_nobody(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    log = ConsoleLog(str(path))
    for _ in range(100):
        log.write(b"x" * 4096)
    log.close()
    limited = ConsoleLog(str(path), limit=10, rotate=True)
    limited.write(b"x" * 100)
    limited.close()
    assert os.listdir(tmp_path) == ["fifo"]


def test_a_log_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"lxc.console.logfile: cannot open .*: No such file or directory"):
        ConsoleLog(str(tmp_path / "none" / "log"))
