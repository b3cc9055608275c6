"""Pseudo terminals."""

from __future__ import annotations

import os
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from probes import requires

from lxcpy.kernel import fd, mount, pty

Isolated = Callable[..., Any]


def test_what_is_written_arrives_raw() -> None:
    master, slave, index = pty.open_pty()
    with master, slave:
        assert os.ttyname(slave.number) == f"/dev/pts/{index}"
        assert not os.get_inheritable(master.number) and not os.get_inheritable(slave.number)
        saved = pty.make_raw(slave.number)
        os.write(slave.number, b"a\nb")
        assert os.read(master.number, 10) == b"a\nb"
        os.write(master.number, b"\x03")
        assert os.read(slave.number, 10) == b"\x03"
        pty.restore(slave.number, saved)
        assert termios.tcgetattr(slave.number) == saved
        os.write(slave.number, b"a\n")
        assert os.read(master.number, 10) == b"a\r\n"


def test_window_size() -> None:
    master, slave, _ = pty.open_pty()
    with master, slave:
        pty.set_window_size(master.number, 132, 43)
        assert pty.window_size(slave.number) == (132, 43)
        other, end, _ = pty.open_pty()
        with other, end:
            pty.copy_window_size(slave.number, other.number)
            assert pty.window_size(end.number) == (132, 43)
    reader, writer = os.pipe()
    with fd.Fd(reader), fd.Fd(writer):
        pty.copy_window_size(reader, writer)
        with pytest.raises(OSError):
            pty.window_size(reader)
        with pytest.raises(OSError, match="tcgetattr"):
            pty.make_raw(reader)


@requires("root", "namespaces")
def test_another_devpts(isolated: Isolated, tmp_path: Path) -> None:
    def inside() -> tuple[int, int]:
        mount.mount("devpts", str(tmp_path), "devpts", 0, "newinstance,ptmxmode=0666,mode=0620")
        with fd.Fd(os.open(tmp_path / "ptmx", os.O_PATH)) as ptmx:
            first = pty.open_pty(ptmx.number)
            second = pty.open_pty(str(tmp_path / "ptmx"))
        assert sorted(os.listdir(tmp_path)) == ["0", "1", "ptmx"]
        assert os.path.samestat(os.fstat(second[1].number), os.stat(tmp_path / "1"))
        return first[2], second[2]

    assert isolated(inside, "mnt") == (0, 1)


def test_controlling_terminal(isolated: Isolated) -> None:
    def inside() -> int:
        master, slave, _ = pty.open_pty()
        pid = os.fork()
        if pid == 0:
            os.setsid()
            pty.set_controlling(slave.number)
            os._exit(os.tcgetpgrp(os.open("/dev/tty", os.O_RDWR)) == os.getpid())
        with master:
            return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert isolated(inside) == 1
