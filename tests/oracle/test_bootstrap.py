"""Our bootstrap and debootstrap's of one suite, from the host's own mirror: one tree but for a written list."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
from pathlib import Path

import pytest
from debmirror import Archive, Key, Server
from probes import requires

from lxcpy.bootstrap import hostapt, install, keyring, machine, plan, release, template
from lxcpy.bootstrap.cache import Store
from lxcpy.bootstrap.download import Client, Mirrors
from lxcpy.bootstrap.progress import Silent
from lxcpy.bootstrap.workers import Worker
from lxcpy.errors import BootstrapError

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


def ours(mirror: str, suite: str, target: Path, cache: Path, *, more: tuple[plan.Repository, ...] = ()) -> None:
    """Bootstrap minbase, and the packages `broken` and `later` of further repositories if there are any."""
    store = Store(str(cache))
    workers = [Worker(f"{cache}/objects") for _ in range(2)]
    client = Client()
    mask = os.umask(0o022)
    try:
        mirrors = Mirrors(client, [mirror])
        debian = template.find("debian")
        trust = release.Trust(tuple(keyring.find(debian.words("keyrings"))))
        found = plan.Repository(mirrors, suite, release.fetch(mirrors, suite, trust), ("main",))
        repositories = [found, *more]
        packages = ("apt", "broken", "later") if more else ("apt",)
        arch = machine.host_arch()
        wish = plan.Wish(arch, packages=packages, exclude=tuple(debian.words("exclude")))
        made = plan.make(repositories, wish, store, Silent())
        target.mkdir()
        settings = install.Install(log=f"{cache}/log")
        install.install(made, repositories, str(target), settings, store=store, workers=workers, progress=Silent())
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


@requires("root", "gpg", "gpgv")
@pytest.mark.timeout(300)
def test_a_failing_script_among_real_packages(archive: Archive, server: Server, key: Key, tmp_path: Path) -> None:
    """Real dpkg runs it: its last 20 lines are shown, no other package's and none of dpkg's own."""
    mirror, suite = host_suite()
    script = b"#!/bin/sh\nfor i in $(seq 25); do echo line $i; done\nexit 3\n"
    archive.add({"Package": "broken", "Depends": "later-no-more | base-files"}, {}, info={"postinst": script})
    archive.add({"Package": "later", "Depends": "apt"}, {}, info={"postinst": b"#!/bin/sh\nseq 1000 1100\n"})
    archive.publish()
    client = Client()
    try:
        mirrors = Mirrors(client, [server.url])
        trust = release.Trust((keyring.load(str(key.ring)),))
        own = plan.Repository(mirrors, "tiny", release.fetch(mirrors, "tiny", trust), ("main",))
        with pytest.raises(BootstrapError) as caught:
            ours(mirror, suite, tmp_path / "ours", tmp_path / "cache", more=(own,))
    finally:
        client.close()
    said = "\n".join(caught.value.lines()).split("\n")
    assert said[0] == (
        "broken: dpkg --configure -a failed (exit status 1): installed broken package post-installation script "
        "subprocess returned error exit status 3"
    )
    assert said[1:21] == [f"  | line {number}" for number in range(6, 26)]
    assert said[21:] == [f"  hint: the full log is in {tmp_path}/cache/log"]
    assert "line 1\n" in (tmp_path / "cache/log").read_text()
