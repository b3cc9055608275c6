"""Systems that can be made again: the lock, what is in it, and what a rebuild from it refuses."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ubuntumirror
from debcreate import Creation, tiny_template
from debmirror import Archive, Key, Server, date, tiny
from probes import requires

from lxcpy import paths
from lxcpy.bootstrap import reproduce
from lxcpy.bootstrap import template as templates
from lxcpy.bootstrap.cache import Store
from lxcpy.bootstrap.progress import Plain
from lxcpy.errors import BootstrapError, LxcpyError, UsageError

pytestmark = [requires("root", "gpg", "gpgv", "busybox"), pytest.mark.usefixtures("cache")]
# Things of the day and of chance that a package may leave behind.
POSTINST = b"""#!/bin/sh
mkdir -p /var/log/apt /var/cache/ldconfig /var/lib/systemd /etc/ssh
date +%N >/var/log/apt/term.log
date +%N >/var/cache/ldconfig/aux-cache
date +%N >/var/lib/systemd/random-seed
date +%N >/etc/ssh/ssh_host_rsa_key
echo $SOURCE_DATE_EPOCH >/epoch
setfattr -n user.note -v 1 /epoch 2>/dev/null || true
"""


@pytest.fixture(scope="module")
def mirror() -> ubuntumirror.Mirror:
    return ubuntumirror.build(Store(paths.cache_dir()))


@pytest.fixture
def archive(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> Archive:
    monkeypatch.delenv(reproduce.VARIABLE, raising=False)
    tiny(archive, postinst=POSTINST)
    archive.publish("tiny", fields={"Suite": "stable"})
    return archive


@pytest.fixture
def create(server: Server, key: Key, tmp_path: Path) -> Creation:
    return Creation(tiny_template(tmp_path / "template"), server, key, tmp_path)


def again(create: Creation, number: int, cache: Path, *words: str, **environment: str) -> str:
    """The digest of the container c1 made again in another place, with another cache and in a process of its own."""
    other = Creation(create.template, create.server, create.key, create.base / f"again{number}")
    os.makedirs(other.base)
    saved = dict(os.environ)
    try:
        os.environ.update(LXCPY_CACHE_DIR=str(cache), **environment)
        process = other.start(1, *words, stderr=subprocess.PIPE)
        said = process.communicate()[1].decode()
    finally:
        os.environ.clear()
        os.environ.update(saved)
    assert process.returncode == 0, said
    return reproduce.digest(str(other.base / "c1/rootfs"))


def test_two_builds_from_one_lock_are_the_same(
    archive: Archive, create: Creation, cache: Path, tmp_path: Path
) -> None:
    lock = tmp_path / "lock.json"
    root = create(f"--lock={lock}", "--password=secret") / "rootfs"
    found = json.loads(lock.read_text())
    assert found["tree"] == {"name": "c1", "sha256": reproduce.digest(str(root))}
    assert "secret" not in lock.read_text()
    assert (root / "epoch").read_text().strip() == str(found["source_date_epoch"])
    newest = max(path.lstat().st_mtime for path in [root, *root.rglob("*")])
    assert newest <= found["source_date_epoch"]
    assert (root / "usr/share/extra").stat().st_mtime == 1_700_000_000  # what is older stays
    assert (root / "etc/machine-id").read_text() == ""
    assert (root / "var/log/apt/term.log").read_bytes() == b""
    for path in ("etc/ssh/ssh_host_rsa_key", "var/cache/ldconfig/aux-cache", "var/lib/systemd/random-seed"):
        assert not (root / path).exists()
    digests = [
        again(create, 1, tmp_path / "empty", f"--from-lock={lock}", "--password=secret"),  # nothing cached
        again(create, 2, cache, f"--from-lock={lock}", "--password=secret"),  # from the cached tree
        again(create, 3, cache, f"--from-lock={lock}", "--password=secret", "--no-cache", LANG="de_DE.UTF-8"),
    ]
    assert digests == [found["tree"]["sha256"]] * 3
    # The release moves on, the packages stay: the lock still gives what it gave.
    archive.add({"Package": "extra", "Version": "2", "Depends": "dpkg"}, {"usr/share/extra": b"2\n"})
    archive.publish("tiny", fields={"Suite": "stable", "Date": date(5)})
    assert again(create, 4, tmp_path / "other", f"--from-lock={lock}", "--password=secret") == digests[0]
    # Another time is another tree, and the caller's time wins.
    earlier = again(create, 5, cache, f"--from-lock={lock}", "--password=secret", SOURCE_DATE_EPOCH="1600000000")
    assert earlier != digests[0]
    extra = create.base / "again5/c1/rootfs/usr/share/extra"
    assert extra.stat().st_mtime == 1_600_000_000


@requires("zstd")
@pytest.mark.timeout(600)
def test_real_packages_too(mirror: ubuntumirror.Mirror, tmp_path: Path, cache: Path) -> None:
    """dpkg, the scripts of real packages, a first user, a password: another cache and another process, one tree."""
    found = templates.find("ubuntu")
    small = {**found.settings, "packages.minbase": "apt sudo openssh-server"}
    server = Server(mirror.root)
    ring: Any = SimpleNamespace(ring=mirror.ring)
    create = Creation(found._replace(settings=small), server, ring, tmp_path)
    lock = tmp_path / "lock"
    words = ("--variant=minbase", "--password=secret", f"--security-mirror={server.url}")
    try:
        root = create(*words, f"--lock={lock}") / "rootfs"
        assert not list((root / "etc/ssh").glob("ssh_host_*"))
        assert "$6$" in (root / "etc/shadow").read_text()
        digest = again(create, 1, tmp_path / "empty", *words, f"--from-lock={lock}")
    finally:
        server.stop()
    assert digest == json.loads(lock.read_text())["tree"]["sha256"] == reproduce.digest(str(root))


def test_the_digest_tells_all_that_counts(tmp_path: Path) -> None:
    """One change each, and another digest each time."""
    root = tmp_path / "tree"
    (root / "folder").mkdir(parents=True)
    file = root / "folder/file"
    file.write_text("one")
    (root / "same").write_text("one")
    os.symlink("file", root / "link")
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    reproduce.settle(str(root), 1_000_000_000)
    seen = [reproduce.digest(str(root))]
    (root / "lost+found").mkdir()
    os.utime(root, (1_000_000_000, 1_000_000_000))
    assert reproduce.digest(str(root)) == seen[0]

    def relink() -> None:
        (root / "link").unlink()
        os.symlink("other", root / "link")

    def device() -> None:
        (root / "null").unlink()
        os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 5))

    def hard_link() -> None:
        file.unlink()
        os.link(root / "same", file)

    changes = [
        lambda: file.write_text("two"), lambda: file.chmod(0o600), lambda: os.chown(file, 1, 0),
        lambda: os.chown(file, 1, 1), lambda: os.setxattr(file, "user.note", b"1"), lambda: file.rename(root / "file"),
        lambda: (root / "file").rename(file), relink, device, lambda: file.write_text("one"), hard_link,
        lambda: (root / "folder").chmod(0o700), lambda: root.chmod(0o700), lambda: os.utime(root / "same", (5, 5)),
    ]  # fmt: skip
    for number, change in enumerate(changes):
        change()
        if number not in (6, 13):  # the name is the first again
            reproduce.settle(str(root), 1_000_000_000)
        now = reproduce.digest(str(root))
        assert now not in seen or number == 6, number
        seen.append(now)


def test_what_makes_a_tree_another_is_told(archive: Archive, create: Creation, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    with open(tmp_path / "said", "w+") as stream:
        create(f"--lock={lock}", progress=Plain(stream))  # c1
        create.count = 0
        shutil.rmtree(tmp_path / "c1")
        create(f"--from-lock={lock}", progress=Plain(stream))
        create.count = 0
        shutil.rmtree(tmp_path / "c1")
        create(f"--from-lock={lock}", "--password=x", progress=Plain(stream))
        create(f"--from-lock={lock}", progress=Plain(stream))
        create(f"--from-lock={lock}", "--password=-", progress=Plain(stream))
        stream.seek(0)
        said = stream.read().splitlines()
    tree = json.loads(lock.read_text())["tree"]["sha256"]
    lines = [line for line in said if line.startswith("the digest of")]
    assert lines[0] == f"the digest of the root filesystem is {tree}"
    assert lines[1] == f"the digest of the root filesystem is {tree}, as in the lock"
    assert lines[2].endswith(f"; the lock's, made with another password, SSH key or id map, is {tree}")
    assert lines[3].endswith(f"; the lock's, made for the container c1, is {tree}")
    assert any("a random password makes this system differ from any other" in line for line in said)


def test_what_a_mirror_lost_comes_from_a_snapshot(
    archive: Archive, create: Creation, cache: Path, tmp_path: Path, server: Server
) -> None:
    lock = tmp_path / "lock.json"
    create(f"--lock={lock}")
    text = lock.read_text()
    when = json.loads(text)["repositories"][0]["date"]
    snapshot = archive.root / "snapshot" / snapshot_name(when)
    snapshot.mkdir(parents=True)
    (archive.root / "pool/extra_1_amd64.deb").rename(tmp_path / "lost.deb")
    shutil.rmtree(cache)
    with pytest.raises(BootstrapError) as caught:
        create(f"--from-lock={lock}")
    sha256 = next(one["sha256"] for one in json.loads(text)["packages"] if one["name"] == "extra")
    assert caught.value.what.startswith(
        f"the lock's package extra 1 (amd64), SHA256 {sha256}, is on none of {server.url}: "
    )
    assert "--snapshot" in (caught.value.hint or "")
    # The snapshot has it, and so has a mirror that keeps files under their hashes.
    (snapshot / "pool").mkdir()
    shutil.copy(tmp_path / "lost.deb", snapshot / "pool/extra_1_amd64.deb")
    create(f"--from-lock={lock}", f"--snapshot={server.url}/snapshot/@SNAPSHOTID@")
    shutil.rmtree(cache)
    (archive.root / "pool/by-hash/SHA256").mkdir(parents=True)
    shutil.copy(tmp_path / "lost.deb", archive.root / "pool/by-hash/SHA256" / sha256)
    root = create(f"--from-lock={lock}") / "rootfs"
    assert (root / "usr/share/extra").read_text() == "extra\n"
    # Another package under the lost one's name is refused by its hash.
    shutil.rmtree(cache)
    shutil.rmtree(archive.root / "pool/by-hash")
    (archive.root / "pool/extra_1_amd64.deb").write_bytes(b"x" * (tmp_path / "lost.deb").stat().st_size)
    with pytest.raises(BootstrapError, match=r"the lock's package extra 1 \(amd64\).*wrong hash"):
        create(f"--from-lock={lock}")


def snapshot_name(when: int) -> str:
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(when))


def test_the_archives_own_snapshots_are_in_the_lock(archive: Archive, create: Creation, tmp_path: Path) -> None:
    url = f"{create.server.url}/snapshot/@SNAPSHOTID@/"
    archive.publish("tiny", fields={"Suite": "stable", "Snapshots": url})
    create(f"--lock={tmp_path / 'lock'}")
    found = json.loads((tmp_path / "lock").read_text())["repositories"][0]
    assert found["snapshots"] == [f"{create.server.url}/snapshot/{snapshot_name(found['date'])}"]
    assert found["signers"] == [create.key.fingerprint]


def test_a_changed_lock_is_found_out_by_the_signed_release(archive: Archive, create: Creation, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    create(f"--lock={lock}")
    create(f"--from-lock={lock}")
    path = archive.add({"Package": "extra", "Version": "1", "Depends": "dpkg"}, {"usr/share/extra": b"evil\n"})
    found = json.loads(lock.read_text())
    stanza = dict(line.split(": ", 1) for line in archive.stanzas[-1].splitlines())
    for one in found["packages"]:
        if one["name"] == "extra":
            one.update(size=int(stanza["Size"]), sha256=stanza["SHA256"])
    lock.write_text(json.dumps(found))
    assert path.exists()
    with pytest.raises(BootstrapError, match=r'package extra 1 .* is not in the signed release "tiny"'):
        create(f"--from-lock={lock}")


BAD: list[tuple[Any, str]] = [
    ("{", "Expecting property name"),
    ("[]", "all of it: a list where an object should be"),
    ("\xff", "not UTF-8"),
    ("[" * 100_000, "nested too deeply"),
    ({"lxcpy-lock": 2}, "it is of schema version 2, and this lxcpy knows 1"),
    ({"lxcpy-lock": "1"}, "lxcpy-lock: a text where a number should be"),
    ({"packages": []}, "packages: empty"),
    ({"options": {"password": "x"}}, 'options: there is no "password"'),
    ({"tree": None}, "tree: another value where an object should be"),
    ({"source_date_epoch": -1}, "source_date_epoch: -1 is not between"),
    ({"packages": [{"filename": "../../etc/passwd"}]}, 'packages[0].filename: "../../etc/passwd" is not'),
    ({"packages": [{"sha256": "0"}]}, 'packages[0].sha256: "0" is not'),
    ({"packages": [{"size": 10**15}]}, "packages[0].size: 1000000000000000 is not between"),
    ({"packages": [{"stage": 3}]}, "packages[0].stage: 3 is not between 0 and 2"),
    ({"packages": [{"repository": 1}]}, "packages[0].repository: 1 is not between"),
    ({"packages": [{"name": "a\nb"}]}, "packages[0].name: "),
    ({"packages": [{"stage": 2}]}, "packages: none is essential or required"),
    ({"packages": [{}, {}]}, "packages: base-passwd is there twice"),
    ({"repositories": [{"mirrors": ["ftp://x/"]}]}, 'repositories[0].mirrors[0]: "ftp://x/" is not'),
    ({"sources": {"mirror": "http://x\ndeb evil"}}, "sources.mirror: "),
    ({"host": {"locale": ""}, "template": {}}, "template.name is missing"),
]


@pytest.mark.parametrize(("change", "said"), BAD, ids=[said[:30] for _, said in BAD])
def test_bad_locks_are_refused(create: Creation, tmp_path: Path, change: Any, said: str) -> None:
    path = tmp_path / "lock"
    if isinstance(change, str):
        path.write_bytes(change.encode("latin-1"))
    else:
        found = json.loads(GOOD)
        for key, value in change.items():
            if key in ("repositories", "packages") and value:
                found[key] = [{**found[key][0], **one} for one in value]
            elif isinstance(value, dict) and value:
                found[key] = {**found[key], **value}
            else:
                found[key] = value
        path.write_text(json.dumps(found))
    with pytest.raises(BootstrapError) as caught:
        create(f"--from-lock={path}")
    assert caught.value.what.startswith(f'the lock "{path}" cannot be used: {said}')
    assert create.server.requests == []


GOOD = json.dumps({
    "lxcpy-lock": 1, "template": {"name": "debian", "sha256": "0" * 64}, "source_date_epoch": 1, "options": {},
    "host": {"locale": "C", "timezone": "UTC", "resolv_conf": "", "ttys": 4},
    "sources": {"release": "stable", "codename": "tiny", "arch": "amd64", "mirror": "http://x", "sources_suite": "tiny",
                "components": "main", "pockets": [], "security_mirror": "", "security_suite": ""},
    "repositories": [{"suite": "tiny", "date": 1, "mirrors": ["http://x"], "snapshots": [], "components": ["main"],
                      "release": "0" * 64, "signers": []}],
    "packages": [{"name": "base-passwd", "version": "1", "arch": "amd64", "stage": 1, "repository": 0,
                  "filename": "pool/x", "size": 1, "sha256": "0" * 64, "priority": "", "section": ""}],
    "tree": {"name": "c1", "sha256": "0" * 64},
})  # fmt: skip


def test_wishes_against_a_lock_are_refused(archive: Archive, create: Creation, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text(GOOD)
    cases = [
        (["--packages=x"], '--packages: the lock "'),
        (["-a", "i386"], '--arch: the lock "'),
        (["-r", "old"], "is of tiny, not of old"),
        ([f"--lock={tmp_path / 'new'}"], "--lock writes what --from-lock reads"),
    ]
    for words, said in cases:
        with pytest.raises(UsageError) as caught:
            create(f"--from-lock={lock}", *words)
        assert said in caught.value.what
    lock.write_text(GOOD.replace('"name": "debian"', '"name": "ubuntu"'))
    with pytest.raises(UsageError, match="is of the template ubuntu, not of debian"):
        create(f"--from-lock={lock}")
    with pytest.raises(UsageError, match="--snapshot is of use with --lock or --from-lock alone"):
        create("--snapshot=http://x")
    with pytest.raises(BootstrapError, match='cannot read the lock "/nowhere": No such file or directory'):
        create("--from-lock=/nowhere")
    for place, said in (("/nowhere/lock", "there is no directory"), (str(tmp_path), "Is a directory")):
        with pytest.raises(UsageError, match=said):
            create(f"--lock={place}")
    assert create.server.requests == []


def test_a_failed_build_leaves_the_lock_that_was_there(
    archive: Archive, create: Creation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = tmp_path / "lock"
    lock.write_text("old")
    broken = "Package: extra\nPre-Depends: nothing\n"
    archive.stanzas = [text.replace("Package: extra\n", broken) for text in archive.stanzas]
    archive.publish("tiny", fields={"Suite": "stable"})
    with pytest.raises(LxcpyError):
        create(f"--lock={lock}")
    assert lock.read_text() == "old"
    assert [path.name for path in tmp_path.glob("lock*")] == ["lock"]
    monkeypatch.setenv(reproduce.VARIABLE, "yesterday")
    with pytest.raises(UsageError, match='SOURCE_DATE_EPOCH: "yesterday" is no time'):
        create(f"--lock={lock}")
