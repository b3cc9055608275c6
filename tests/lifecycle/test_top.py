"""lxcpy-top on real terminals: in tmux and on a pty."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from probes import requires

pytestmark = requires("root", "busybox")


class Tmux:
    """A real terminal: one window that runs a shell command, and what is to be seen in it."""

    def __init__(self, name: str, command: str, *, lines: int = 10) -> None:
        self.server = ["tmux", "-L", name, "-f", "/dev/null"]
        size = ["-x", "140", "-y", str(lines)]
        subprocess.run([*self.server, "new-session", "-d", *size, f"{command}; sleep 600"], check=True)

    def __enter__(self) -> Tmux:
        return self

    def __exit__(self, *_error: object) -> None:
        subprocess.run([*self.server, "kill-server"], check=True)

    def __call__(self, *words: str) -> str:
        return subprocess.run([*self.server, *words], capture_output=True, text=True, check=True).stdout

    def until(self, seen: Callable[[list[str]], bool]) -> list[str]:
        """The lines of the screen once they are as wanted."""
        deadline = time.monotonic() + 30
        while not seen(lines := self("capture-pane", "-p").splitlines()):
            assert time.monotonic() < deadline, lines
            time.sleep(0.05)
        return lines


@pytest.fixture
def small_and_large(box: Any) -> tuple[Any, Any]:
    """Two running containers, the second with more in memory, in a tmpfs."""
    small, large = box(), box("lxc.mount.entry = tmpfs tmp tmpfs rw 0 0\n")
    small.start()
    large.start()
    large.sh(f"cat {'/bin/busybox ' * 15} > /tmp/large")
    return small, large


@requires("tmux")
def test_top_on_a_terminal(bin: str, small_and_large: tuple[Any, Any], tmp_path: Path) -> None:
    small, large = small_and_large
    command = f"stty -g > {tmp_path}/before; {bin}/lxcpy-top -P {small.lxcpath} -d 0.2; echo left $?; "

    def order(*expected: Any) -> Callable[[list[str]], bool]:
        return lambda lines: [line.split()[0] for line in lines[2:4]] == [one.name for one in expected]

    keys = (("m", (large, small)), ("m", (small, large)), ("r", (large, small)), ("n", (small, large)),
            ("n", (large, small)), ("x", (large, small)))  # fmt: skip
    with Tmux(small.name, f"{command} stty -g > {tmp_path}/after; echo done") as terminal:
        lines = terminal.until(lambda lines: any(line.startswith("TOTAL 2 of 2") for line in lines))
        assert lines[0].startswith("Container                   CPU          CPU          CPU")
        terminal.until(order(small, large))
        for key, expected in keys:
            terminal("send-keys", key)
            terminal.until(order(*expected))
        terminal("resize-window", "-y", "4")
        lines = terminal.until(lambda lines: "TOTAL 1 of 2" in lines[-1])
        assert len(lines) == 4
        terminal("resize-window", "-x", "60", "-y", "8")
        lines = terminal.until(lambda lines: any("TOTAL 2 of 2" in line for line in lines))
        assert [line.split()[0] for line in lines if line.strip()] == [
            "Container", "Name", large.name[:18], small.name[:18], "TOTAL",
        ]  # fmt: skip
        terminal("send-keys", "q")
        terminal.until(lambda lines: "done" in lines)
        assert "left 0" in terminal("capture-pane", "-p").splitlines()
    assert (tmp_path / "before").read_text() == (tmp_path / "after").read_text()


@requires("tmux")
@pytest.mark.parametrize("how", ["C-c", "C-\\", "SIGTERM"])
def test_top_gives_the_terminal_back(
    bin: str, lxcpath: str, names: Callable[[], str], tmp_path: Path, how: str
) -> None:
    top = f"{bin}/lxcpy-top -P {lxcpath} -d 600"
    command = f"stty -g > {tmp_path}/before; {top}; echo left $?; stty -g > {tmp_path}/after; echo done"
    with Tmux(names(), command) as terminal:
        terminal.until(lambda lines: "TOTAL 0 of 0" in lines[2])
        if how == "SIGTERM":
            pid = terminal("display-message", "-p", "#{pane_pid}").strip()
            with open(f"/proc/{pid}/task/{pid}/children") as file:
                os.kill(int(file.read().split()[0]), signal.SIGTERM)
        else:
            terminal("send-keys", how)
        assert "left 0" in terminal.until(lambda lines: "done" in lines)
    assert (tmp_path / "before").read_text() == (tmp_path / "after").read_text()


def test_top_when_stopped_continued_and_hung_up(bin: str, lxcpath: str) -> None:
    """Ctrl-Z gives the terminal back for the time; a terminal that goes away ends it."""
    pid, master = os.forkpty()
    if pid == 0:
        os.execv(f"{bin}/lxcpy-top", ["lxcpy-top", "-P", lxcpath, "-d", "600"])
    before = termios.tcgetattr(master)[3]

    def until(done: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not done():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    try:
        seen = b""

        def shown() -> bool:
            nonlocal seen
            if select.select([master], [], [], 0)[0]:
                seen += os.read(master, 4096)
            return b"TOTAL" in seen

        until(shown)
        assert not termios.tcgetattr(master)[3] & termios.ICANON
        os.write(master, b"\x1a")
        assert os.WIFSTOPPED(os.waitpid(pid, os.WUNTRACED)[1])
        assert termios.tcgetattr(master)[3] == before
        os.kill(pid, signal.SIGCONT)
        until(lambda: not termios.tcgetattr(master)[3] & termios.ICANON)
    finally:
        os.close(master)
    until(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid)


def test_top_shows_no_name_that_a_terminal_obeys(bin: str, box: Any) -> None:
    one = box()
    rootfs = f"{one.directory}.rootfs"
    os.rename(one.rootfs, rootfs)
    name = f"{one.name}\033[31m"
    os.rename(one.directory, os.path.join(one.lxcpath, name))
    one.name = name
    master, slave = os.openpty()
    try:
        one.start(define=[f"lxc.rootfs.path=dir:{rootfs}"])
        words = [f"{bin}/lxcpy-top", "-P", one.lxcpath, "-b", "-d", "600"]
        with subprocess.Popen(words, stdin=slave, stdout=subprocess.PIPE) as top:
            assert top.stdout
            top.stdout.readline()
            line = top.stdout.readline()
            os.write(master, b"q")
        assert b"?[31m," in line
        assert b"\033" not in line
    finally:
        os.close(master)
        os.close(slave)
