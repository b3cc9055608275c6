"""Templates that take ready images, ours and LXC's own of the same name: one tree, one config."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import images
import pytest
from imageserver import Images, TlsServer, certificate
from probes import requires

pytestmark = requires("root", "busybox", "lxc")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def settings(config: Path, name: str) -> list[str]:
    """The config's lines without comments, the container's name left out."""
    lines = re.sub(rf"(?<![\w-]){name}(?![\w-])", "NAME", config.read_text()).splitlines()
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


@requires("skopeo", "umoci", "jq", "zstd")
@pytest.mark.parametrize("mapped", [False, True], ids=["", "idmapped"])
def test_oci_is_lxcs(run: Run, lxcpath: str, names: Callable[[], str], tmp_path: Path, mapped: bool) -> None:
    """A layout that umoci has made of two layers and a config, and one of ours."""
    layout = tmp_path / "layout"
    source = plain_system(tmp_path)
    for words in (
        ["init", "--layout", str(layout)],
        ["new", "--image", f"{layout}:app"],
        ["insert", "--image", f"{layout}:app", str(source), "/"],
        ["insert", "--image", f"{layout}:app", "--opaque", str(source / "etc"), "/usr"],
        ["insert", "--image", f"{layout}:app", "--whiteout", "/sticky"],
        ["insert", "--image", f"{layout}:app", "--whiteout", "/dev/null"],
        ["config", "--image", f"{layout}:app", "--config.entrypoint", "/bin/sh", "--config.cmd", "-c", "--config.cmd",
         "sleep 9", "--config.env", "A=b c", "--config.user", "0:7", "--config.workingdir", "/root"],
    ):  # fmt: skip
        subprocess.run(["umoci", *words], check=True, capture_output=True)
    config = tmp_path / "begin.conf"
    config.write_text("lxc.net.0.type = empty\n" + (images.MAPPED if mapped else ""))
    env = {**os.environ, "HOME": str(tmp_path), "LXCPY_CACHE_DIR": str(tmp_path / "cache")}
    (tmp_path / ".config/containers").mkdir(parents=True)
    (tmp_path / ".config/containers/policy.json").write_text('{"default": [{"type": "insecureAcceptAnything"}]}')
    if mapped:
        for path in (tmp_path, *list(tmp_path.parents)[:2]):
            path.chmod(0o755)
    words = ["--url", f"oci:{layout}:app", "--no-cache"]
    ours, theirs, one, two = both(run, lxcpath, names, "oci", config, words, env)
    mine, other = images.tree(ours / "rootfs"), images.tree(theirs / "rootfs")
    # names inside; times of directories that something was taken away from
    changed = ["etc/hosts", "etc/hostname", "etc", "dev", "."]
    if mapped:  # umoci makes all files root's there, ours keep their owners
        changed += ["etc/secret", "usr/secret"]
        assert mine["etc/secret"][1:3] == (700007, 700008)
    for path in changed:
        mine.pop(path, None)
        other.pop(path, None)
    assert mine == other
    # ours alone: lxcpy-start runs the image's command too, and programs are found
    added = ("lxc.init.cmd", "lxc.signal.halt", "lxc.environment = PATH=")
    mine_lines = [line for line in settings(ours / "config", one) if not line.startswith(added)]
    their_lines = settings(theirs / "config", two)
    quoted = next(line for line in mine_lines if line.startswith("lxc.execute.cmd"))
    assert quoted == "lxc.execute.cmd = \"'/bin/sh' '-c' 'sleep 9'\""
    assert [line for line in mine_lines if line != quoted] == [
        line for line in their_lines if "lxc.execute.cmd" not in line
    ]
    # Real LXC reads our line as we do.
    argv = ["lxc-info", "-P", lxcpath, "-n", one, "-c", "lxc.execute.cmd"]
    assert subprocess.run(argv, capture_output=True, text=True).stdout == "lxc.execute.cmd = '/bin/sh' '-c' 'sleep 9'\n"
    for name in (one, two):
        assert run("destroy", "-P", lxcpath, "-n", name).returncode == 0
