"""Images that the tests make: a small bootable tree, its tarball, LXC's metadata of it."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import subprocess
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

from lxcpy.bootstrap import busybox, template

Run = Callable[..., "subprocess.CompletedProcess[str]"]
MAPPED = "lxc.idmap = u 0 700000 65536\nlxc.idmap = g 0 700000 65536\n"


def system(root: Path) -> Path:
    """A tree that boots to busybox's init, with a file of every kind that a root filesystem may hold."""
    root.mkdir(parents=True)
    busybox.make(template.find("busybox"), str(root), "image")
    (root / "etc/greeting").write_text("LXC_NAME at LXC_PATH\n")
    (root / "etc/secret").write_text("s\n")
    os.chmod(root / "etc/secret", 0o640)
    os.chown(root / "etc/secret", 7, 8)
    (root / "usr/bin/special").write_bytes(b"#!/bin/sh\n")
    os.chmod(root / "usr/bin/special", 0o6755)
    os.link(root / "usr/bin/special", root / "usr/bin/same")
    os.symlink("/etc/greeting", root / "absolute")
    os.mkfifo(root / "fifo", 0o622)
    os.mkdir(root / ("long-" * 30))
    (root / ("long-" * 30) / ("name-" * 25)).write_text("long\n")
    with open(root / "sparse", "wb") as file:
        file.seek(3 << 20)
        file.write(b"end")
        file.truncate(5 << 20)
    os.mkdir(root / "sticky")
    os.chmod(root / "sticky", 0o3777)
    os.utime(root / "sticky", (1_500_000_000, 1_500_000_000))
    if os.geteuid() == 0:
        os.mknod(root / "dev/null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.chmod(root / "dev/null", 0o666)
        os.setxattr(root / "usr/bin/special", "user.note", b"kept")
        # cap_net_raw=ep: include/uapi/linux/capability.h, revision 2, effective
        os.setxattr(root / "bin/busybox", "security.capability", bytes.fromhex("01000002" + "00200000" + "0" * 24))
    return root


CONFIG = """\
lxc.include = LXC_TEMPLATE_CONFIG/common.conf
lxc.signal.halt = SIGUSR1
lxc.signal.reboot = SIGTERM
lxc.arch = x86_64
"""


def meta(path: Path, files: Mapping[str, str] | None = None, *, kind: str = "J") -> Path:
    """A meta archive as LXC's images have it."""
    content = {"config": CONFIG, "templates": "etc/hostname\netc/greeting\nmissing\n", **(files or {})}
    with tarfile.open(path, f"w:{'xz' if kind == 'J' else 'gz'}") as archive:
        for name, text in content.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(text.encode())
            archive.addfile(info, io.BytesIO(text.encode()))
    return path


def pack(root: Path, path: Path, *words: str) -> Path:
    """The tarball of a tree, by GNU tar; compressed by its suffix."""
    xattrs = [] if "--format=gnu" in words else ["--xattrs", "--xattrs-include=*"]
    argv = ["tar", "--numeric-owner", *xattrs, *words, "-C", str(root), "-caf", str(path), "."]
    subprocess.run(argv, check=True, env={**os.environ, "XZ_OPT": "-0", "GZIP": "-1"}, stderr=subprocess.DEVNULL)
    return path


def tree(root: Path) -> dict[str, tuple[object, ...]]:
    """path: (mode, owner, group, what is in it, extended attributes, number of names, time)."""
    found: dict[str, tuple[object, ...]] = {}
    for directory, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            content: object = ""
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                content = hashlib.sha256(Path(path).read_bytes()).hexdigest()
            elif not stat.S_ISDIR(status.st_mode):
                content = status.st_rdev
            attributes = {
                key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)
            }
            names = status.st_nlink if stat.S_ISREG(status.st_mode) else 1
            found[os.path.relpath(path, root)] = (
                oct(status.st_mode), status.st_uid, status.st_gid, content, str(attributes), names,
                int(status.st_mtime),
            )  # fmt: skip
    return found


def boots(run: Run, words: tuple[str, ...]) -> None:
    """Start, look inside, stop, destroy."""
    started = run("start", *words)
    assert (started.returncode, started.stderr) == (0, "")
    assert run("attach", *words, "--", "cat", "/etc/hostname").stdout == f"{words[-1]}\n"
    assert run("stop", *words, "-t", "20").returncode == 0
    assert run("destroy", *words).returncode == 0
