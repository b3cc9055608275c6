"""How far a bootstrap is, as a user sees it: bars on a terminal, plain lines, JSON; no word of a mirror's is obeyed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import jsonpages
import pytest
from debcreate import TESTS, Creation, tiny_template
from debmirror import Archive, Handler, Key, Server, tiny
from probes import requires

from lxcpy.bootstrap.progress import Json

Run = Callable[..., "subprocess.CompletedProcess[str]"]
pytestmark = [requires("root", "gpg", "gpgv", "busybox"), pytest.mark.usefixtures("cache")]
FIELDS = {
    "start": {"phase", "done", "total", "unit", "seconds"},
    "progress": {"phase", "done", "total", "unit", "seconds"},
    "finish": {"phase", "done", "total", "unit", "seconds"},
    "message": {"text"},
    "warning": {"text"},
    "created": {"name", "rootfs"},
    "error": {"text", "at", "cure"},
}
SCRIPT = """
import os, sys
sys.path[:0] = {paths!r}
os.environ["LXCPY_CACHE_DIR"] = {cache!r}
if {missing!r}:
    sys.modules["rich"] = sys.modules["rich.console"] = sys.modules["rich.progress"] = None
from pathlib import Path
from types import SimpleNamespace as N
import debcreate
from lxcpy.bootstrap import progress
create = debcreate.Creation(
    debcreate.tiny_template(Path({folder!r})), N(url={url!r}), N(ring={ring!r}), Path({base!r})
)
shown = progress.default()
shown.message("a line with \\x1b[31mcolour\\x1b]0;title\\x07")
create(progress=shown)
print("the end is reached")
"""


@pytest.fixture
def create(server: Server, key: Key, tmp_path: Path) -> Creation:
    return Creation(tiny_template(tmp_path / "template"), server, key, tmp_path)


def drips(handler: Handler, data: bytes) -> None:
    """A slow mirror: each tenth of a second a thirtieth of the file."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    part = len(data) // 30 + 1
    for at in range(0, len(data), part):
        handler.wfile.write(data[at : at + part])
        handler.wfile.flush()
        handler.server.stopping.wait(0.1)


def program(create: Creation, tmp_path: Path, *, missing: bool = False) -> list[str]:
    """What bootstraps the tiny system with the default display; its command line."""
    path = tmp_path / "program.py"
    path.write_text(
        textwrap.dedent(SCRIPT).format(
            paths=[str(TESTS), str(TESTS.parent)], cache=os.environ["LXCPY_CACHE_DIR"], missing=missing,
            folder=str(tmp_path / "copy"), url=create.server.url, ring=str(create.key.ring), base=str(tmp_path),
        )
    )  # fmt: skip
    return [sys.executable, str(path)]


class Screen:
    """A terminal of tmux's that runs a program, and what stands on it."""

    def __init__(self, name: str, argv: list[str], *, width: int) -> None:
        self.server = ["tmux", "-L", name, "-f", "/dev/null"]
        shell = " ".join(argv) + "; echo status $?; exec sleep 600"
        subprocess.run([*self.server, "new-session", "-d", "-x", str(width), "-y", "24", shell], check=True)

    def text(self) -> str:
        return subprocess.run(
            [*self.server, "capture-pane", "-p", "-S", "-100"], capture_output=True, text=True, check=True
        ).stdout

    def pictures(self, *words: str) -> Iterator[str]:
        """One after the other, up to the first with all the words. Fails after a minute."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            yield (seen := self.text())
            if all(word in seen for word in words):
                return
            time.sleep(0.05)
        raise AssertionError(f"{words} not on the terminal:\n{seen}")

    def until(self, *words: str) -> str:
        """The first picture with all the words."""
        return list(self.pictures(*words))[-1]

    def close(self) -> None:
        subprocess.run([*self.server, "kill-server"], check=True)


@requires("tmux")
@pytest.mark.parametrize("width", [100, 40])
def test_bars_on_a_terminal(
    archive: Archive, server: Server, create: Creation, name: str, tmp_path: Path, width: int
) -> None:
    tiny(archive)
    archive.publish("tiny", fields={"Suite": "stable"})
    server.faults["shell_1"] = drips
    screen = Screen(name, program(create, tmp_path), width=width)
    try:
        if width == 100:
            seen = screen.until("download ", "/s, 0:0", " left", "unpack ", "/5 packages")
            bar = next(line for line in seen.splitlines() if line.startswith("download "))
            assert " kB of 9" in bar or " MB of 9" in bar or "B of 1." in bar
        else:
            seen = screen.until("download ")
        assert r"a line with \x1b[31mcolour\x1b]0;title\x07" in seen.replace("\n", "")
        pictures = list(screen.pictures("the end is reached", "status 0"))
    finally:
        screen.close()
    bars = [line for seen in pictures for line in seen.splitlines() if "B of " in line]
    assert any(", " in line for line in bars)  # the rate, as far as there is room
    assert all(line.startswith("download  ") for line in bars)
    lines = (end := pictures[-1]).splitlines()
    assert any(line.startswith("download: done in ") for line in lines), end
    assert any(line.startswith("configure: done in ") for line in lines)
    assert not any("━" in line for line in lines), end


@pytest.mark.parametrize("missing", [False, True])
def test_plain_lines_elsewhere(archive: Archive, create: Creation, tmp_path: Path, missing: bool) -> None:
    """In a pipe, and on a terminal where the library is not installed."""
    tiny(archive)
    archive.publish("tiny", fields={"Suite": "stable"})
    argv = program(create, tmp_path, missing=missing)
    if missing:
        ours, theirs = os.openpty()
        done = subprocess.run(argv, stderr=theirs, stdout=theirs, env={**os.environ, "TERM": "xterm"}, timeout=60)
        os.close(theirs)
        said = b""
        try:
            while piece := os.read(ours, 65536):
                said += piece
        except OSError:
            pass  # EIO: the other side is closed
        os.close(ours)
        text = said.decode().replace("\r\n", "\n")
    else:
        done = subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
        text = done.stdout.decode()
    assert done.returncode == 0, text
    assert "\x1b" not in text
    assert text.startswith(r"a line with \x1b[31mcolour\x1b]0;title\x07" + "\n")
    for line in ("release ...\n", "unpack: 5 packages\n", "configure: 5 packages\n", "configure: done in "):
        assert line in text


def test_events_of_a_bootstrap(archive: Archive, create: Creation, capfd: pytest.CaptureFixture[str]) -> None:
    tiny(archive)
    archive.publish("tiny", fields={"Suite": "stable"})
    create(progress=Json())
    events = jsonpages.read("lxcpy-create --json", capfd.readouterr().out)
    for event in events:
        assert FIELDS[event.pop("event")] == event.keys()
    counted = {event["phase"]: event for event in events if "phase" in event}
    assert list(counted) == ["release", "index", "download", "unpack", "configure", "pack", "customize"]
    for phase in ("index", "download"):
        assert (counted[phase]["unit"], counted[phase]["done"]) == ("bytes", counted[phase]["total"])
    for phase in ("unpack", "configure"):
        assert (counted[phase]["unit"], counted[phase]["done"], counted[phase]["total"]) == ("packages", 5, 5)
    assert "debian tiny (amd64) is ready" in [event.get("text") for event in events]


def test_events_of_the_command(run: Run, lxcpath: str, name: str, tmp_path: Path) -> None:
    """Standard output holds nothing but events, and the last one says how it ended."""
    script = tmp_path / "lxc-own"
    script.write_text('#!/bin/sh\necho words of the template\nexit "${4:-0}"\n')
    script.chmod(0o755)
    words = ("create", "-P", lxcpath, "-n", name, "--json", "-f", "/dev/null", "-t", str(script))
    done = run(*words)
    assert done.returncode == 0, done.stderr
    assert "words of the template" in done.stderr
    rootfs = f"{lxcpath}/{name}/rootfs"
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"event": "created", "name": name, "rootfs": rootfs}
    ]
    assert run("destroy", "-P", lxcpath, "-n", name).returncode == 0
    done = run(*words, "--", "3")
    assert done.returncode == 1
    [event] = jsonpages.read("lxcpy-create --json", done.stdout)
    assert event == {
        "event": "error", "text": f'the template "{script}" ended with status 3', "at": None,
        "cure": "its own words are above",
    }  # fmt: skip
    assert event["text"] in done.stderr


def rude(handler: Handler, data: bytes) -> None:
    handler.send_response(500, "\x1b[2J\x1b]0;gotcha\x07")
    handler.send_header("Content-Length", "0")
    handler.end_headers()


def test_a_mirror_s_words_are_not_obeyed(
    archive: Archive, run: Run, server: Server, lxcpath: str, name: str
) -> None:
    archive.publish("bookworm")
    server.faults["dists"] = rude
    words = ("create", "-P", lxcpath, "-n", name, "-f", "/dev/null", "-t", "debian")
    done = run(*words, "--", f"--mirror={server.url}", "-r", "bookworm")
    assert done.returncode == 1
    assert r"answers 500 \x1b[2J\x1b]0;gotcha\x07" in done.stderr
    assert "\x1b" not in done.stderr
