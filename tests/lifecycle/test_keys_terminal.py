"""The keys of config/keys/terminal.py, by what they do."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import netns
import pytest

from lxcpy.errors import StateError
from lxcpy.runtime import client
from lxcpy.runtime.lxcclient import command

pytestmark = pytest.mark.requires("root", "busybox")

if TYPE_CHECKING:
    from conftest import Box, Define


def until(what: Callable[[], bool], seconds: float = 10) -> bool:
    """Whether something comes true in time."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True


def say(one: Box, text: str) -> None:
    one.sh(f"echo {text} > /dev/console")


def test_console_path(box: Define, tmp_path: Path) -> None:
    file = tmp_path / "console"
    one = box(f"lxc.console.path = {file}\n")
    one.start()
    say(one, "hello")
    assert until(lambda: content(file) == b"hello\r\n")


def test_console_path_none(box: Define) -> None:
    one = box("lxc.console.path = none\n")
    one.start()
    assert os.readlink(f"/proc/{one.init_pid}/fd/0") == "/dev/null"
    assert not os.path.exists(f"/proc/{one.init_pid}/root/dev/console")
    with pytest.raises(StateError):
        command(one.lxcpath, one.name).console(0)


def test_console_logfile(box: Define, tmp_path: Path) -> None:
    file = tmp_path / "log"
    one = box(f"lxc.console.logfile = {file}\n")
    one.start()
    for text in ("one", "two"):
        say(one, text)
    assert until(lambda: content(file) == b"one\r\ntwo\r\n")


def test_console_buffer_size(box: Define) -> None:
    """The ring holds as much and no more."""
    one, without = box("lxc.console.buffer.size = 4096\n"), box()
    for each in (one, without):
        each.start()
        each.sh("i=0; while [ $i -lt 500 ]; do echo 0123456789abc; i=$((i+1)); done > /dev/console")
    held = b""

    def complete() -> bool:
        nonlocal held
        held = held or command(one.lxcpath, one.name).console_log()
        return bool(held)

    assert until(complete)
    assert len(held) == 4096 and held.endswith(b"0123456789abc\r\n")
    assert command(without.lxcpath, without.name).console_log() == b""


def filled(box: Define, tmp_path: Path, extra: str) -> Path:
    """The log of a console on which 500 lines of 15 bytes were written, when the last is in it."""
    file = tmp_path / "log"
    one = box(f"lxc.console.logfile = {file}\n{extra}")
    one.start()
    one.sh("{ i=0; while [ $i -lt 500 ]; do echo 0123456789abc; i=$((i+1)); done; echo end; } > /dev/console")
    assert until(lambda: content(file).endswith(b"end\r\n"))
    return file


def content(file: Path) -> bytes:
    """Nothing while the file is not there, as for a moment when a full one gives way to the next."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""


def test_console_size(box: Define, tmp_path: Path) -> None:
    """At the limit the file begins anew."""
    file = filled(box, tmp_path, "lxc.console.size = 4096\n")
    assert file.stat().st_size == (500 * 15 + 5) % 4096
    assert not (tmp_path / "log.1").exists()


def test_console_rotate(box: Define, tmp_path: Path) -> None:
    """And what was in it is kept."""
    file = filled(box, tmp_path, "lxc.console.size = 4096\nlxc.console.rotate = 1\n")
    assert file.stat().st_size == (500 * 15 + 5) % 4096
    assert (tmp_path / "log.1").stat().st_size == 4096


def test_tty_max(box: Define) -> None:
    one = box("lxc.tty.max = 3\n")
    one.start()
    dev = f"/proc/{one.init_pid}/root/dev"
    assert sorted(name for name in os.listdir(dev) if name.startswith("tty")) == ["tty", "tty1", "tty2", "tty3"]
    lent = [command(one.lxcpath, one.name).console() for _ in range(3)]
    assert [each.tty for each in lent] == [1, 2, 3]
    with pytest.raises(StateError):
        command(one.lxcpath, one.name).console()
    for each in lent:
        os.close(each.master)
        os.close(each.hold)


def test_tty_dir(box: Define) -> None:
    one = box("lxc.tty.max = 2\nlxc.tty.dir = lxc\n")
    one.start()
    dev = f"/proc/{one.init_pid}/root/dev"
    assert os.readlink(f"{dev}/tty2") == "lxc/tty2"
    assert sorted(os.listdir(f"{dev}/lxc")) == ["console", "tty1", "tty2"]


def test_pty_max(box: Define) -> None:
    """A devpts of its own, with room for no more."""
    one = box("lxc.pty.max = 4\n")
    one.start()
    with open(f"/proc/{one.init_pid}/mountinfo") as file:
        (options,) = (line.split()[-1] for line in file if line.split()[4] == "/dev/pts")
    assert "max=4" in options.split(",")
    assert os.stat(f"/proc/{one.init_pid}/root/dev/pts").st_dev != os.stat("/dev/pts").st_dev
    opened = []
    with pytest.raises(OSError, match="No space left"):
        for _ in range(5):
            opened.append(os.open(f"/proc/{one.init_pid}/root/dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY))
    assert len(opened) == 3  # the console has one
    for fd in opened:
        os.close(fd)


# -- the monitor -----------------------------------------------------------------------------------------------------


def supervisor_pid() -> int:
    with client.connect() as supervisor:
        return int(supervisor.ask("status")["pid"])


@pytest.mark.parametrize("extra", ["", "lxc.init.uid = 7\n"])
def test_monitor_signal_pdeath(own_host: str, box: Define, extra: str) -> None:
    """Init does not outlive the supervisor."""
    one, other = box(f"lxc.monitor.signal.pdeath = SIGKILL\n{extra}"), box()
    pid, lives = one.start().pid, other.start().pid
    os.kill(supervisor_pid(), signal.SIGKILL)
    assert until(lambda: not os.path.exists(f"/proc/{pid}"), 3)
    assert os.path.exists(f"/proc/{lives}")
    assert (one.state, other.state) == ("STOPPED", "RUNNING")


def test_monitor_unshare(own_host: str, box: Define, tmp_path: Path) -> None:
    """What a pre-start hook mounts is the container's and not the host's; post-stop hooks find it."""
    place = tmp_path / "place"
    place.mkdir()
    one = box(
        f"lxc.hook.pre-start = sh -c 'mount -t tmpfs hooked {place}; echo mine > {place}/file'\n"
        f"lxc.hook.post-stop = sh -c 'cat {place}/file > {tmp_path}/seen; umount {place}'\n"
        f"lxc.mount.entry = {place} srv none bind,create=dir 0 0\n"
        "lxc.monitor.unshare = 1\n"
    )
    one.start()
    assert one.sh("cat /srv/file") == "mine\n"
    assert "hooked" not in netns.sh("cat /proc/self/mounts")
    assert one.kill(10)
    assert (tmp_path / "seen").read_text() == "mine\n"
