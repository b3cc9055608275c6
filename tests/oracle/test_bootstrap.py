"""Our bootstrap and debootstrap's of one suite, from the host's own mirror: one tree but for a written list."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from pathlib import Path

import pytest
from probes import requires

from lxcpy.bootstrap import hostapt, install, keyring, machine, plan, release, template
from lxcpy.bootstrap.cache import Store
from lxcpy.bootstrap.download import Client, Mirrors
from lxcpy.bootstrap.progress import Silent
from lxcpy.bootstrap.workers import Worker

# What differs, and why.
DIFFERENCES = {
    "etc/apt/sources.list": "the template's",
    "etc/fstab": "the template's",
    "etc/hostname": "the host's name does not belong into a container",
    "etc/resolv.conf": "the template's",
    "run/mount": "left by a mount of debootstrap's",
    "var/cache/ldconfig/aux-cache": "holds inode numbers",
    "var/lib/dpkg/available": "dselect's",
    "var/lib/dpkg/cmethopt": "dselect's",
    "var/lib/dpkg/status-old": "dpkg's backup of the moment before",
    "var/log/alternatives.log": "dates",
    "var/log/bootstrap.log": "debootstrap's own",
    "var/log/dpkg.log": "dates",
}
PREFIXES = ("var/cache/apt/archives/", "var/lib/apt/lists/")  # debootstrap keeps what it downloaded


def host_suite() -> tuple[str, str]:
    """(mirror, code name) of the first source of the host that is Debian's."""
    known = template.find("debian").pairs("suites")
    for source in hostapt.sources():
        codename = known.get(source.suite, source.suite)
        if codename in known.values():
            return source.uri, codename
    pytest.skip("the host has no source of Debian")


def ours(mirror: str, suite: str, target: Path, cache: Path) -> None:
    store = Store(str(cache))
    workers = [Worker(f"{cache}/objects") for _ in range(2)]
    client = Client()
    mask = os.umask(0o022)
    try:
        mirrors = Mirrors(client, [mirror])
        debian = template.find("debian")
        trust = release.Trust(tuple(keyring.find(debian.words("keyrings"))))
        found = plan.Repository(mirrors, suite, release.fetch(mirrors, suite, trust), ("main",))
        arch = machine.host_arch()
        wish = plan.Wish(arch, packages=("apt",), exclude=tuple(debian.words("exclude")))
        made = plan.make([found], wish, store, Silent())
        target.mkdir()
        settings = install.Install(log=f"{cache}/log")
        install.install(made, [found], str(target), settings, store=store, workers=workers, progress=Silent())
    finally:
        os.umask(mask)
        client.close()
        for worker in workers:
            worker.close()


def tree(root: Path) -> dict[str, tuple[object, ...]]:
    """path: (mode, owner, group, content, extended attributes, number of names)."""
    found: dict[str, tuple[object, ...]] = {}
    for directory, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(directory, name)
            inside = os.path.relpath(path, root)
            status = os.lstat(path)
            content: object = "folder"
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                content = hashlib.sha256(Path(path).read_bytes()).hexdigest()
            elif stat.S_ISCHR(status.st_mode):
                content = status.st_rdev
            attributes = {
                key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)
            }
            names = status.st_nlink if stat.S_ISREG(status.st_mode) else 1
            found[inside] = (status.st_mode, status.st_uid, status.st_gid, content, str(attributes), names)
    return found


@requires("root", "debootstrap", "gpgv", "dpkg")
@pytest.mark.timeout(900)
def test_minbase_is_debootstraps(tmp_path: Path) -> None:
    mirror, suite = host_suite()
    argv = ["nice", "debootstrap", "--variant=minbase", suite, str(tmp_path / "theirs"), mirror]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"debootstrap does not get through here: {done.stdout[-300:]}")
    root = tmp_path / "ours"
    ours(mirror, suite, root, tmp_path / "cache")
    mine, other = tree(root), tree(tmp_path / "theirs")
    differing = {
        path: (mine.get(path), other.get(path))
        for path in mine.keys() | other.keys()
        if mine.get(path) != other.get(path) and path not in DIFFERENCES and not path.startswith(PREFIXES)
    }
    assert differing == {}
    for check in (["dpkg", "--audit"], ["dpkg", "-V"]):
        told = subprocess.run(["chroot", str(root), *check], capture_output=True, text=True)
        assert (told.returncode, told.stdout) == (0, "")
