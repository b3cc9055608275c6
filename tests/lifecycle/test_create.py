"""lxcpy-create: templates, refusals, and creations that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from probes import requires

from lxcpy.container import Container

pytestmark = pytest.mark.requires("root", "busybox")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def test_a_busybox_container_from_creation_to_destruction(run: Run, lxcpath: str, name: str) -> None:
    words = ("-P", lxcpath, "-n", name)
    empty = f"{lxcpath}.conf"
    Path(empty).write_text("lxc.net.0.type = empty\n")
    try:
        made = run("create", *words, "-t", "busybox", "-f", empty)
        assert made.returncode == 0, made.stderr
        assert run("ls", "-P", lxcpath, "-1").stdout == f"{name}\n"
        # as LXC's template: what needs root for a moment is for everybody
        assert os.stat(f"{lxcpath}/{name}/rootfs/bin/busybox").st_mode & 0o7777 == 0o6755
        started = run("start", *words)
        assert (started.returncode, started.stderr) == (0, "")
        assert run("attach", *words, "--", "cat", "/etc/hostname").stdout == f"{name}\n"
        assert "RUNNING" in run("info", *words, "-s").stdout
        assert run("destroy", *words).returncode == 1  # it runs
        assert run("stop", *words, "-t", "20").returncode == 0
        assert run("destroy", *words).returncode == 0
        assert os.listdir(lxcpath) == []
    finally:
        os.unlink(empty)


def test_an_existing_name_is_refused(run: Run, lxcpath: str, name: str) -> None:
    words = ("-P", lxcpath, "-n", name, "-t", "busybox")
    assert run("create", *words).returncode == 0
    again = run("create", *words)
    assert again.returncode == 1
    assert again.stderr == (
        f'lxcpy-create: {name}: Container already exists: "{name}" in {lxcpath}\n'
        f"  hint: choose another name, or remove it with lxcpy-destroy -n {name}\n"
    )
    assert run("destroy", "-P", lxcpath, "-n", name).returncode == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("-t", "debain"), 'there is no template "debain"\n  hint: did you mean "debian"?'),
        (("-t", "/etc/passwd"), "bad template: /etc/passwd\n  hint: it must be an executable file"),
        ((), "A template must be specified."),
        (("-t", "busybox", "--dir", "x"), "--dir should use absolute path"),
        (("-t", "busybox", "-f", "/nowhere"), 'cannot read the config "/nowhere": No such file or directory'),
        (("-t", "busybox", "--", "--busybox-path=/nowhere"), "cannot make the busybox system"),
        (("-t", "debian", "--", "--mirror=http://127.0.0.1:9", "--keyring=/nowhere"), "cannot read the keyring"),
        (("-t", "debian", "--", "--mirror=http://127.0.0.1:9"), "http://127.0.0.1:9/dists/stable/InRelease"),
    ],
)
def test_a_failed_creation_says_why_and_leaves_nothing(
    run: Run, lxcpath: str, name: str, words: tuple[str, ...], said: str
) -> None:
    done = run("create", "-P", lxcpath, "-n", name, *words)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(lxcpath) == []


def test_a_killed_creation_does_not_bar_the_name(bin: str, run: Run, lxcpath: str, name: str, tmp_path: Path) -> None:
    script = tmp_path / "template"
    touch = "for word; do case $word in --rootfs=*) touch ${word#*=}/begun;; esac; done"
    script.write_text(f"#!/bin/sh\n{touch}\nsleep 60\n")
    script.chmod(0o755)
    argv = [f"{bin}/lxcpy-create", "-P", lxcpath, "-n", name, "-t", str(script)]
    creation = subprocess.Popen(argv, start_new_session=True, stdin=subprocess.DEVNULL)
    begun = Path(lxcpath, name, "rootfs/begun")
    deadline = time.monotonic() + 20
    while not begun.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    busy = run("start", "-P", lxcpath, "-n", name)
    assert busy.returncode == 1
    assert "is being created" in busy.stderr
    os.killpg(creation.pid, signal.SIGKILL)
    creation.wait()
    cut = run("start", "-P", lxcpath, "-n", name)
    assert cut.returncode == 1
    assert "was cut short" in cut.stderr
    assert run("create", "-P", lxcpath, "-n", name, "-t", "busybox").returncode == 0
    assert not begun.exists()
    assert run("destroy", "-P", lxcpath, "-n", name).returncode == 0


@requires("bridge", "ssh")
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("network")
def test_a_debian_boots_with_ssh(run: Run, lxcpath: str, name: str, tmp_path: Path) -> None:
    """The main job: a Debian from the host's own mirror reaches `running`, gets an address, lets ssh in, and halts."""
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    config = tmp_path / "config"
    config.write_text("lxc.net.0.type = veth\nlxc.net.0.link = lxcbr0\nlxc.net.0.flags = up\n")
    words = ("-P", lxcpath, "-n", name)
    made = run(
        "create", *words, "-t", "debian", "-f", str(config), "--", "-r", "bookworm", "-S", f"{key}.pub", timeout=600
    )
    assert made.returncode == 0, made.stderr
    with open(f"{lxcpath}/{name}/config", "a") as file:
        file.write("lxc.cgroup.memory.limit_in_bytes = 2048M\nlxc.cgroup.cpuset.cpus = 0-1\n")
    assert run("start", *words).returncode == 0
    deadline = time.monotonic() + 120
    state = ""
    while state not in ("running", "degraded") and time.monotonic() < deadline:
        state = run("attach", *words, "--", "systemctl", "is-system-running").stdout.strip()
        time.sleep(0.3)
    assert state == "running", run("attach", *words, "--", "systemctl", "--failed").stdout
    # what lxcpy-console -t 1 comes upon
    assert run("attach", *words, "--", "systemctl", "is-active", "getty@tty1").stdout.strip() == "active"
    limit = run("cgroup", *words, "memory.limit_in_bytes").stdout.strip()
    assert limit == str(2 << 30)
    assert Container(name, lxcpath).init_pid > 0
    address = run("info", *words, "-iH").stdout.split()[0]
    ssh = ["ssh", "-i", str(key), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    done = subprocess.run([*ssh, f"root@{address}", "hostname"], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == name, done.stderr
    assert run("stop", *words, "-t", "60").returncode == 0
    assert run("destroy", *words).returncode == 0
