"""The keys of config/keys/identity.py, by what they do."""

from __future__ import annotations

import os
import re
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import netns
import pytest

from lxcpy.kernel import process

pytestmark = pytest.mark.requires("root", "busybox")
Run = Callable[..., "subprocess.CompletedProcess[str]"]

if TYPE_CHECKING:
    from conftest import Define


def test_arch(box: Define) -> None:
    one = box("lxc.arch = i686\n")
    one.start()
    with open(f"/proc/{one.init_pid}/personality") as file:
        assert int(file.read(), 16) & 0xFF == process.PER_LINUX32
    assert one.sh("busybox uname -m") in ("i686\n", "i586\n")


def test_uts_name(box: Define) -> None:
    one = box("lxc.uts.name = elsewhere\n")
    one.start()
    assert one.sh("cat /proc/sys/kernel/hostname") == "elsewhere\n"


def test_include(box: Define, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "one.conf").write_text(f"lxc.environment = ONE=1\nlxc.include = {tmp_path}/folder\n")
    (tmp_path / "folder/two.conf").write_text("lxc.environment = TWO=2\n")
    one = box(f"lxc.include = {tmp_path}/one.conf\n")
    one.start()
    assert {"ONE=1", "TWO=2"} <= set(one.environment())


def test_group(box: Define, run: Run, lxcpath: str) -> None:
    web, other = box("lxc.group = db web\nlxc.start.auto = 1\n"), box("lxc.start.auto = 1\n")
    assert run("autostart", "-P", lxcpath, "-g", "web").returncode == 0
    assert (web.state, other.state) == ("RUNNING", "STOPPED")
    assert run("ls", "-P", lxcpath, "-1", "-g", "db").stdout == f"{web.name}\n"


def test_ephemeral(box: Define) -> None:
    one = box("lxc.ephemeral = 1\n")
    first = one.start().pid
    assert one.await_traps().reboot(10)
    assert one.init_pid not in (0, first)  # a reboot keeps it
    assert one.kill(10)
    assert not os.path.exists(one.directory)


def test_start_auto(box: Define, run: Run, lxcpath: str) -> None:
    one, other = box("lxc.start.auto = 1\n"), box()
    assert run("autostart", "-P", lxcpath).returncode == 0
    assert (one.state, other.state) == ("RUNNING", "STOPPED")


def test_start_order(box: Define, run: Run, lxcpath: str, tmp_path: Path) -> None:
    log = tmp_path / "log"
    text = f"lxc.start.auto = 1\nlxc.hook.pre-start = echo {{name}} >> {log}; true\nlxc.start.order = "
    late, middle, early = box(text + "7\n"), box(text + "0\n"), box(text + "-7\n")
    assert run("autostart", "-P", lxcpath).returncode == 0
    assert log.read_text().split() == [early.name, middle.name, late.name]


def test_start_delay(box: Define, run: Run, lxcpath: str) -> None:
    first, second = (box(f"lxc.start.auto = 1\nlxc.start.order = {n}\nlxc.start.delay = {1 - n}\n") for n in (0, 1))
    assert run("autostart", "-P", lxcpath).returncode == 0
    ticks = process.start_time(second.init_pid) - process.start_time(first.init_pid)
    assert 1.0 <= ticks / os.sysconf("SC_CLK_TCK") < 10


def test_log_file(box: Define, tmp_path: Path) -> None:
    log = tmp_path / "log"
    hooks = "lxc.hook.pre-start = true\nlxc.hook.post-stop = true\n"
    one = box(f"lxc.log.file = {log}\nlxc.log.level = INFO\n{hooks}")
    one.start()
    assert one.kill(10)
    words = [line.split(None, 7) for line in log.read_text().splitlines()]
    assert {(line[0], line[1], line[3]) for line in words} == {("lxcpy-start", one.name, "INFO")}
    assert [line[7] for line in words] == ["- running hook pre-start: true", "- running hook post-stop: true"]


def test_log_level(box: Define, tmp_path: Path) -> None:
    quiet, loud = tmp_path / "quiet", tmp_path / "loud"
    hook = "lxc.hook.pre-start = echo heard; true\n"
    box(f"{hook}lxc.log.file = {quiet}\n").start()
    box(f"{hook}lxc.log.file = {loud}\nlxc.log.level = DEBUG\n").start()
    assert quiet.read_text() == ""  # ERROR and above
    assert any(line.endswith("pre-start: heard") and " DEBUG " in line for line in loud.read_text().splitlines())


def test_log_syslog(own_host: str, box: Define, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as daemon:
        over_dev(tmp_path)  # it ends with the mount namespace
        daemon.bind("/dev/log")
        daemon.settimeout(5)
        one = box("lxc.log.level = INFO\nlxc.log.syslog = local3\nlxc.hook.pre-start = true\n")
        one.start()
        said = daemon.recv(4096).decode()
    found = re.fullmatch(rf"<(\d+)>\w+ [ \d]\d [\d:]{{8}} lxcpy-start\[\d+\]: {one.name}: .+", said)
    assert found, said
    facility, priority = divmod(int(found[1]), 8)
    assert (facility, priority) == (19, 6)  # local3, info


def over_dev(folder: Path) -> None:
    """A layer over /dev in this mount namespace, so that what is made in it is not the machine's."""
    netns.sh(
        f"mkdir {folder}/layer", f"mount -t tmpfs tmpfs {folder}/layer", f"cd {folder}/layer", "mkdir upper work pts",
        "mount --bind /dev/pts pts", "mount -t overlay overlay -o lowerdir=/dev,upperdir=upper,workdir=work /dev",
        "mount --move pts /dev/pts",
    )  # fmt: skip
