"""The init of lxc-execute, as process 1 of a pid namespace."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from probes import requires

ROOT = str(Path(__file__).parent.parent.parent)
CODE = (
    "import sys; sys.path.insert(0, {root!r}); from lxcpy.runtime import execute_init; "
    "execute_init.run(sys.argv[1:], {environment!r}, execute_init.Identity({uid}, {gid}))"
)
pytestmark = requires("root", "namespaces")


def start(*words: str, uid: int | None = None, path: str = "/bin:/usr/bin", own: bool = True) -> subprocess.Popen[str]:
    code = CODE.format(root=ROOT, environment={"PATH": path, "container": "lxc"}, uid=uid, gid=uid)
    unshare = ["unshare", "--pid", "--fork", "--mount-proc"] if own else []
    return subprocess.Popen(
        [*unshare, sys.executable, "-IS", "-c", code, *words],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=20)
    return process.returncode, out, err


def init_of(process: subprocess.Popen[str]) -> int:
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
        return int(file.read())


def say(process: subprocess.Popen[str], word: str) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == f"{word}\n"


@pytest.mark.parametrize(
    ("words", "status"),
    [(("true",), 0), (("sh", "-c", "exit 7"), 7), (("sh", "-c", "kill -9 $$"), 137), (("sh", "-c", "kill $$"), 143)],
)
def test_status(words: tuple[str, ...], status: int) -> None:
    assert finish(start(*words)) == (status, "", "")


def test_no_such_command() -> None:
    status, _out, err = finish(start("nosuch"))
    assert status == 255
    assert err == 'lxcpy-init: cannot run "nosuch": No such file or directory\n'


def test_the_command_is_process_2_in_a_session_of_its_own() -> None:
    status, out, _err = finish(start("sh", "-c", "echo $$ $(cut -d' ' -f6 /proc/self/stat); env; cat /proc/1/comm"))
    assert status == 0
    first, *rest = out.splitlines()
    pid, session = first.split()
    assert pid == session != "1"
    assert set(rest) - {"_=/usr/bin/env", "PWD=" + os.getcwd(), "SHLVL=1"} >= {"container=lxc", "PATH=/bin:/usr/bin"}
    assert rest[-1] == "init"


def test_ids_are_the_command_s() -> None:
    status, out, _err = finish(start("id", uid=1234))
    assert (status, out) == (0, "uid=1234 gid=1234 groups=1234\n")


def test_orphans_are_waited_for() -> None:
    started = time.monotonic()
    assert finish(start("sh", "-c", "(sleep 0.5; echo late) & exit 3")) == (3, "late\n", "")
    assert time.monotonic() - started >= 0.5


def test_signals_from_outside_reach_the_command() -> None:
    process = start("sh", "-c", "trap 'echo usr1; exit 5' USR1; echo ready; while :; do sleep 0.05; done")
    say(process, "ready")
    os.kill(init_of(process), signal.SIGUSR1)
    assert finish(process) == (5, "usr1\n", "")


def test_signals_from_inside_do_not() -> None:
    script = "trap 'echo usr1' USR1; (kill -USR1 1; kill -TERM 1); sleep 0.3; echo done"
    assert finish(start("sh", "-c", script)) == (0, "done\n", "")


def test_term_ends_everybody() -> None:
    process = start("sh", "-c", "trap 'echo term; exit 9' TERM; echo ready; while :; do sleep 0.05; done")
    say(process, "ready")
    os.kill(init_of(process), signal.SIGTERM)
    assert finish(process)[:2] == (9, "term\n")  # the shell says on standard error that its sleep was ended


@pytest.mark.parametrize("own", [True, False])
def test_who_does_not_listen_is_killed(own: bool) -> None:
    process = start("sh", "-c", "trap '' TERM PWR; echo ready; while :; do sleep 0.05; done", own=own)
    say(process, "ready")
    started = time.monotonic()
    os.kill(init_of(process) if own else process.pid, signal.SIGPWR)
    assert finish(process)[0] == 137
    assert 0.8 < time.monotonic() - started < 5


def test_a_file_that_is_no_program_is_a_script(tmp_path: Path) -> None:
    script = tmp_path / "script"
    script.write_text("echo $1\n")
    script.chmod(0o755)
    assert finish(start(str(script), "x")) == (0, "x\n", "")
    assert finish(start("script", "y", path=f"{tmp_path}:/bin")) == (0, "y\n", "")
    script.chmod(0o644)
    assert finish(start("script", path=f"/none:{tmp_path}"))[2].endswith("Permission denied\n")
