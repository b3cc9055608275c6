"""Templates that take ready images, ours and LXC's own of the same name: one tree, one config."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import images
from imageserver import Images, TlsServer, certificate
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


def plain_system(tmp_path: Path) -> Path:
    """Without extended attributes, which LXC 5.0.2 loses."""
    source = images.system(tmp_path / "source")
    os.removexattr(source / "bin/busybox", "security.capability")
    os.removexattr(source / "usr/bin/special", "user.note")
    return source


@requires("wget", "openssl")
def test_download_is_lxcs(run: Run, lxcpath: str, names: Callable[[], str], tmp_path: Path) -> None:
    store = Images(tmp_path / "server")
    files = {"fstab": "tmpfs LXC_ROOTFS/mnt tmpfs size=4k 0 0\n", "excludes": "./fifo\n", "config.7": images.CONFIG}
    meta = images.meta(tmp_path / "meta.tar.xz", files)
    store.add({"meta.tar.xz": meta, "rootfs.tar.xz": images.pack(plain_system(tmp_path), tmp_path / "rootfs.tar.xz")})
    store.publish()
    cert, key = certificate(tmp_path)
    (tmp_path / "wgetrc").write_text(f"ca_certificate = {cert}\n")
    config = tmp_path / "begin.conf"
    config.write_text("lxc.net.0.type = empty\nlxc.environment = A=1\n")
    env = {
        **os.environ, "WGETRC": str(tmp_path / "wgetrc"), "SSL_CERT_FILE": str(cert),
        "LXC_CACHE_PATH": str(tmp_path / "theirs"), "LXCPY_CACHE_DIR": str(tmp_path / "ours"),
    }  # fmt: skip
    server = TlsServer(store.root, cert, key)
    try:
        words = ["-d", "busybox", "-r", "1.0", "-a", "amd64", "--server", server.url.removeprefix("https://")]
        ours, theirs, one, two = both(run, lxcpath, names, "download", config, words, env)
    finally:
        server.stop()
    same(ours, theirs, one, two)
    for name in (one, two):
        assert run("destroy", "-P", lxcpath, "-n", name).returncode == 0


def same(ours: Path, theirs: Path, one: str, two: str) -> None:
    """One tree, one config, one fstab."""
    mine, other = images.tree(ours / "rootfs"), images.tree(theirs / "rootfs")
    for changed in ("etc/greeting", "etc/hostname", "etc", "dev"):  # names inside; times of what was touched
        mine.pop(changed)
        other.pop(changed)
    assert mine == other
    assert settings(ours / "config", one) == settings(theirs / "config", two)
    assert (ours / "fstab").read_text().replace(one, two) == (theirs / "fstab").read_text()


def test_local_is_lxcs(run: Run, lxcpath: str, names: Callable[[], str], tmp_path: Path) -> None:
    source = plain_system(tmp_path)
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
    same(ours, theirs, one, two)
    for name in (one, two):
        assert run("destroy", "-P", lxcpath, "-n", name).returncode == 0
