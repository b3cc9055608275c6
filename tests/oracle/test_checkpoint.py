"""lxc-checkpoint and ours, side by side: what both refuse, and each restores what the other has dumped."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lifecycle.conftest import make_rootfs
from probes import requires

from lxcpy.container import Container

pytestmark = requires("root", "lxc>=5.0", "busybox")
Run = Callable[..., "subprocess.CompletedProcess[str]"]
CONFIG = """\
lxc.uts.name = {name}
lxc.rootfs.path = dir:{directory}/rootfs
lxc.init.cmd = /bin/sh /init
lxc.net.0.type = empty
lxc.tty.max = 0
lxc.console.path = none
lxc.mount.auto = proc:mixed
"""
INIT = "n=0\nwhile :; do n=$((n+1)); echo $n >> /counted; sleep 0.05; done\n"


@pytest.fixture
def box(lxcpath: str, name: str) -> Iterator[Container]:
    one = Container(name, lxcpath)
    os.makedirs(one.directory)
    make_rootfs(f"{one.directory}/rootfs")
    Path(one.directory, "rootfs/init").write_text(INIT)
    Path(one.config_file).write_text(CONFIG.format(name=name, directory=one.directory))
    yield one
    if one.state != "STOPPED":
        one.kill(20)


@pytest.fixture
def both(run: Run, lxcpath: str) -> Callable[..., tuple[int, str]]:
    """`both("lxc", "-n", …)`: the command of one of the two; the exit status, and what it said on standard error."""

    def call(side: str, *words: str, command: str = "checkpoint", path: str | None = None) -> tuple[int, str]:
        environment = {**os.environ, "PATH": path or os.environ["PATH"]}
        if side == "ours":
            done = run(command, "-P", lxcpath, *words, env=environment)
        else:
            argv = [shutil.which(f"lxc-{command}") or "", "-P", lxcpath, *words]
            # the monitor of a restored container keeps standard error: a pipe would not end
            with tempfile.TemporaryFile("w+") as file:
                code = subprocess.run(argv, stdout=file, stderr=file, check=False, env=environment).returncode
                file.seek(0)
                return code, file.read()
        assert done.stdout == ""
        return done.returncode, done.stderr

    return call


@pytest.mark.parametrize("words", [
    "", "-D x -r -s", "-D x -d", "-D x -F", "-D x -r -p", "-D", "-r", "--predump-dir", "-D x -s -v",
    "-D x -r --nonsense",
])  # fmt: skip
def test_what_both_refuse(box: Container, both: Callable[..., tuple[int, str]], words: str, tmp_path: Path) -> None:
    options = ["-n", box.name, *words.replace("x", str(tmp_path / "x")).split()]
    theirs, ours = both("lxc", *options), both("ours", *options)
    assert theirs[0] == ours[0] == 1
    assert ours[1].startswith("lxcpy-checkpoint: ")
    assert not (tmp_path / "x").exists()


def test_the_words_are_theirs(box: Container, both: Callable[..., tuple[int, str]], tmp_path: Path) -> None:
    dump = str(tmp_path / "dump")
    for options, words in (
        (["-n", f"{box.name}x", "-D", dump], None),
        (["-n", box.name, "-D", dump], f"{box.name} not running, not checkpointing"),
    ):
        for side in ("lxc", "ours"):
            status, said = both(side, *options)
            assert status == 1 and (words is None or words in said), said
    both("lxc", "-n", box.name, command="start")
    for side in ("lxc", "ours"):  # ours on a container of theirs
        status, said = both(side, "-n", box.name, "-D", dump, "-r")
        assert status == 1 and f"{box.name} is running, not restoring" in said
        status, said = both(side, "-n", box.name, "-D", dump, path="/nowhere")
        assert status == 1 and "criu" in said
    assert said == (
        f'lxcpy-checkpoint: {box.name}: cannot execute "criu": No such file or directory\n'
        "  hint: install the package criu; its version has to suit the kernel\n"
    )
    os.makedirs(dump)
    Path(dump, "inventory.img").touch()
    if shutil.which("criu"):
        for side in ("lxc", "ours"):
            status, said = both(side, "-n", box.name, "-D", dump)
            assert status == 1 and "please use a fresh directory for the dump directory" in said


@pytest.mark.parametrize("verb", ["checkpoint", "restore"])
def test_an_ordinary_user_is_told(verb: str) -> None:
    script = (
        "import os\n"
        "from lxcpy.errors import StateError\n"
        "from lxcpy.runtime import checkpoint\n"
        "os.setuid(65534)\n"
        "request = checkpoint.Request('/tmp/nowhere')\n"
        "try:\n"
        f"    checkpoint.{'dump' if verb == 'checkpoint' else 'restore_words'}('/tmp', 'web', request)\n"
        "except StateError as error:\n"
        "    print(error.what)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd="/",
                          env={**os.environ, "PYTHONPATH": ":".join(sys.path)})  # fmt: skip
    assert (done.stdout, done.stderr) == (f"Must be root to {verb}\n", "")  # LXC's words


@pytest.mark.parametrize(("dumps", "restores"), [("ours", "lxc"), ("lxc", "ours")])
def test_each_restores_what_the_other_has_dumped(
    box: Container, both: Callable[..., tuple[int, str]], tmp_path: Path, criu: None, dumps: str, restores: str
) -> None:
    counted = Path(box.directory, "rootfs/counted")
    assert both(dumps, "-n", box.name, command="start")[0] == 0
    wait_until(lambda: counted.exists() and len(counted.read_text().split()) > 2)
    assert both(restores, "-n", box.name, "-D", str(tmp_path / "running"))[0] == 0, "a dump of the other's container"
    assert box.state == "RUNNING"
    assert both(dumps, "-n", box.name, "-D", str(tmp_path / "dump"), "-s")[0] == 0
    wait_until(lambda: box.state == "STOPPED")
    before = len(counted.read_text().split())
    assert both(restores, "-n", box.name, "-D", str(tmp_path / "dump"), "-r") == (0, "")
    wait_until(lambda: len(counted.read_text().split()) > before + 2)
    found = [int(line) for line in counted.read_text().split()]
    assert found == list(range(1, len(found) + 1))


def wait_until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)
