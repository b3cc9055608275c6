"""Templates that take ready images, ours and LXC's own of the same name: one tree, one config."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import images
from probes import requires

pytestmark = requires("root", "busybox", "lxc")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def settings(config: Path, name: str) -> list[str]:
    """The config's lines without comments, the container's name left out."""
    lines = config.read_text().replace(name, "NAME").splitlines()
    return [line.strip() for line in lines if line.strip() and not line.startswith("#")]


def both(
    run: Run, lxcpath: str, names: Callable[[], str], template: str, config: Path, words: list[str], env: dict[str, str]
) -> tuple[Path, Path, str, str]:
    """(our directory, theirs, our name, theirs)."""
    one, two = names(), names()
    made = run("create", "-P", lxcpath, "-n", one, "-t", template, "-f", str(config), "--", *words, env=env)
    assert made.returncode == 0, made.stderr
    argv = ["lxc-create", "-P", lxcpath, "-n", two, "-t", template, "-f", str(config), "--", *words]
    theirs = subprocess.run(argv, capture_output=True, text=True, env=env, stdin=subprocess.DEVNULL)
    assert theirs.returncode == 0, theirs.stdout + theirs.stderr
    return Path(lxcpath, one), Path(lxcpath, two), one, two


def test_local_is_lxcs(run: Run, lxcpath: str, names: Callable[[], str], tmp_path: Path) -> None:
    source = images.system(tmp_path / "source")
    os.removexattr(source / "bin/busybox", "security.capability")  # LXC 5.0.2's loses extended attributes
    os.removexattr(source / "usr/bin/special", "user.note")
    files = {
        "fstab": "tmpfs LXC_ROOTFS/mnt tmpfs size=4k 0 0\n",
        "excludes": "./fifo\n./etc/s*\n",
        "config.5": images.CONFIG + "lxc.tty.max = 3\n",
    }
    meta = images.meta(tmp_path / "meta.tar.xz", files)
    tarball = images.pack(source, tmp_path / "rootfs.tar.xz")
    config = tmp_path / "begin.conf"
    config.write_text("lxc.net.0.type = empty\nlxc.environment = A=1\n")
    words = ["-m", str(meta), "-f", str(tarball)]
    ours, theirs, one, two = both(run, lxcpath, names, "local", config, words, dict(os.environ))
    mine, other = images.tree(ours / "rootfs"), images.tree(theirs / "rootfs")
    for changed in ("etc/greeting", "etc/hostname", "etc", "dev"):  # names inside; times of what was touched
        mine.pop(changed)
        other.pop(changed)
    assert mine == other
    assert settings(ours / "config", one) == settings(theirs / "config", two)
    assert (ours / "fstab").read_text().replace(one, two) == (theirs / "fstab").read_text()
    for name in (one, two):
        assert run("destroy", "-P", lxcpath, "-n", name).returncode == 0
