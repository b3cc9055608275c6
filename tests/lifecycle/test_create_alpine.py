"""lxcpy-create -t alpine: from a signed repository to a container that boots; what is refused."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from alpinerepo import Key, Repository, stream, tiny
from debmirror import Server
from images import MAPPED, Run, boots
from probes import requires

pytestmark = requires("root", "busybox", "openssl")


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return Key(tmp_path_factory.mktemp("key") / "keys")


@pytest.fixture
def archive(tmp_path: Path, key: Key) -> Repository:
    program = shutil.which("busybox")
    assert program
    found = Repository(tmp_path / "mirror", key)
    tiny(found, Path(program))
    return found


class Creation:
    def __init__(self, run: Run, lxcpath: str, names: Callable[[], str], server: Server, key: Key, base: Path) -> None:
        self.run, self.lxcpath, self.names, self.server, self.key, self.base = run, lxcpath, names, server, key, base
        self.env = {**os.environ, "LXCPY_CACHE_DIR": str(base / "cache")}
        self.config = base / "begin.conf"
        self.config.write_text("lxc.net.0.type = empty\n")
        self.name = ""

    @property
    def words(self) -> tuple[str, ...]:
        return "-P", self.lxcpath, "-n", self.name

    def __call__(self, *words: str, keys: Path | None = None) -> subprocess.CompletedProcess[str]:
        self.name = self.names()
        self.server.requests.clear()
        argv = ["-m", self.server.url, "-a", "x86_64", "--keys", str(keys or self.key.public.parent), *words]
        return self.run("create", *self.words, "-t", "alpine", "-f", str(self.config), "--", *argv, env=self.env)

    def start(self, bin: str, *words: str) -> subprocess.Popen[bytes]:
        """As a process that runs beside others."""
        argv = [f"{bin}/lxcpy-create", "-q", "-P", self.lxcpath, "-n", self.names(), "-t", "alpine"]
        argv += ["-f", str(self.config), "--", "-m", self.server.url, "-a", "x86_64", "--keys"]
        return subprocess.Popen([*argv, str(self.key.public.parent), *words], env=self.env, stdin=subprocess.DEVNULL)

    def good(self, *words: str, keys: Path | None = None) -> Path:
        done = self(*words, keys=keys)
        assert done.returncode == 0, done.stderr
        return Path(self.lxcpath, self.name, "rootfs")

    def bad(self, *words: str, keys: Path | None = None) -> str:
        done = self(*words, keys=keys)
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
        assert not Path(self.lxcpath, self.name).exists()
        assert not list((self.base / "cache/rootfs").glob("*.partial"))
        return done.stderr.replace(self.server.url, "URL")


@pytest.fixture
def create(run: Run, lxcpath: str, names: Callable[[], str], server: Server, key: Key, tmp_path: Path) -> Creation:
    return Creation(run, lxcpath, names, server, key, tmp_path)


@pytest.mark.parametrize("mapped", [False, True], ids=["", "idmapped"])
def test_a_system_boots(create: Creation, archive: Repository, mapped: bool) -> None:
    archive.publish()
    archive.publish(release="latest-stable")
    if mapped:
        create.config.write_text(create.config.read_text() + MAPPED)
    root = create.good("extra", "--packages=libthing")
    shift = 700000 if mapped else 0
    assert (root / "usr/share/extra").read_text() == "extra"  # 1.10 is newer than 1.9
    assert (root / "etc/init.d/thing").exists()  # by its install_if
    assert (root / "etc/shadow").read_text().startswith("root:*:")
    assert (root / "etc/shadow").stat().st_mode & 0o777 == 0o640
    assert (root / "etc/hostname").read_text() == f"{create.name}\n"
    status = (root / "usr/bin/thing").stat()
    assert (status.st_mode & 0o7777, status.st_uid) == (0o4755, shift)
    status = (root / "var/www").stat()  # by name, not by the archive's number
    assert (status.st_uid - shift, status.st_gid - shift, status.st_mode & 0o7777) == (33, 34, 0o2770)
    assert (
        root / "etc/apk/repositories"
    ).read_text() == f"{create.server.url}/v3.99/main\n{create.server.url}/v3.99/community\n"
    assert (root / "etc/apk/world").read_text() == "alpine-base\nextra\nlibthing\n"
    assert (root / "etc/apk/arch").read_text() == "x86_64\n"
    assert (root / "etc/apk/keys" / create.key.name).read_bytes() == create.key.public.read_bytes()
    assert (root / "triggered").read_text() == "/bin /etc/init.d /etc/thing.d /usr/bin\n"
    assert "tty5" not in (root / "etc/inittab").read_text()
    installed = (root / "lib/apk/db/installed").read_text()
    assert installed.count("\nP:") == 8
    assert "F:var/www\nM:33:34:2770\n" in installed
    assert "R:same\na:0:0:777\nZ:Q1" in installed
    with tarfile.open(root / "lib/apk/db/scripts.tar") as packed:
        kinds = sorted(name.rpartition(".")[2] for name in packed.getnames())
    assert kinds == ["post-install", "pre-install", "trigger"]
    assert not os.listdir(root / "lib/apk/exec")
    config = Path(create.lxcpath, create.name, "config")
    text = config.read_text()
    assert f"lxc.arch = x86_64\nlxc.uts.name = {create.name}\n" in text
    assert ("alpine.userns.conf" in text, "sys_ptrace" in text) == (mapped, not mapped)
    with open(config, "a") as file:
        file.write("lxc.signal.halt = SIGUSR1\n")
    boots(create.run, create.words)


def test_the_second_comes_from_the_cache(create: Creation, archive: Repository) -> None:
    archive.publish()
    create.good("-r", "3.99")
    assert sum(path.endswith(".apk") for path in create.server.requests) == 7
    create.good("-r", "3.99")
    assert create.server.requests == ["/v3.99/main/x86_64/APKINDEX.tar.gz", "/v3.99/community/x86_64/APKINDEX.tar.gz"]
    assert len(list((create.base / "cache/rootfs").glob("alpine-v3.99-x86_64-*.packed"))) == 1
    create.good("-r", "3.99", "-F")
    create.good("-r", "3.99", "--no-cache", "extra")
    assert [path for path in create.server.requests if path.endswith(".apk")] == [
        "/v3.99/community/x86_64/extra-1.10-r0.apk"
    ]
    assert len(list((create.base / "cache/rootfs").glob("*.packed"))) == 1


def test_offline_nothing_is_asked(create: Creation, archive: Repository) -> None:
    archive.publish()
    archive.publish(release="latest-stable")
    said = create.bad("--offline")
    assert "APKINDEX.tar.gz: not in the cache, and --offline fetches nothing" in said
    assert "make the same once without --offline" in said
    create.good()
    create.good("--offline")
    create.good("--offline", "-F")
    assert "1 packages are not in the cache: extra 1.10-r0" in create.bad("--offline", "extra")
    assert create.server.requests == []


def test_many_at_once_fetch_each_file_once(create: Creation, archive: Repository, bin: str) -> None:
    """Of several sets, so that none waits for another's root filesystem."""
    archive.publish()
    sets = [(), ("extra",), ("thing",), ("extra", "thing"), ("libthing",), ("extra", "libthing")]
    create.server.requests.clear()
    running = [create.start(bin, "-r", "3.99", *words) for words in sets]
    assert [process.wait() for process in running] == [0] * len(sets)
    fetched = list(create.server.requests)
    for path in create.server.unchanged:  # asked whether it changed, and it had not
        fetched.remove(path)
    assert len(fetched) == len(set(fetched)), fetched
    assert sum(path.endswith(".apk") for path in fetched) >= 8
    assert not list((create.base / "cache/images").glob("*.lock"))


@pytest.mark.parametrize("size", [900, 2800])
def test_a_full_cache_is_refused_and_no_harm_is_done(create: Creation, archive: Repository, size: int) -> None:
    """While packages arrive, while the tree is made."""
    archive.publish()
    cache = create.base / "cache"
    cache.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "small", str(cache)], check=True)
    try:
        said = create.bad("-r", "3.99")
        assert f'cannot write to "{cache}' in said
        assert "no space left" in said
        assert not list((cache / "objects/partial").iterdir())
        subprocess.run(["mount", "-o", "remount,size=64m", str(cache)], check=True)
        create.good("-r", "3.99")
    finally:
        subprocess.run(["umount", str(cache)], check=True)


def test_an_index_is_fetched_once_and_not_believed_unseen(create: Creation, archive: Repository) -> None:
    archive.publish()
    create.good("-r", "3.99")
    create.server.unchanged.clear()
    create.good("-r", "3.99")
    assert len(create.server.unchanged) == 2
    for kept in (create.base / "cache/releases").glob("*main*.kept"):
        head, _, data = kept.read_bytes().partition(b"\n")
        evil = data[:-40] + bytes([data[-40] ^ 1]) + data[-39:]
        sums = [hashlib.sha256(one).hexdigest().encode() for one in (data, evil)]
        kept.write_bytes(head.replace(*sums) + b"\n" + evil)
    create.bad("-r", "3.99")
    create.good("-r", "3.99")  # what is bad is forgotten


def test_the_next_mirror_of_a_list_and_ipv6_alone(create: Creation, archive: Repository) -> None:
    archive.publish()
    other = Server(archive.root, host="::1")
    lost = next(archive.folder().glob("alpine-base*"))
    try:
        create.server.faults[lost.name] = lambda handler, _: handler.give(404, b"")
        root = create.good("-r", "3.99", "-m", f"http://127.0.0.1:9,{create.server.url},{other.url}")
        assert [path.rpartition("/")[2] for path in other.requests] == [lost.name]
        root = create.good("-r", "3.99", "-m", other.url, "-F")
        assert other.url in (root / "etc/apk/repositories").read_text()
    finally:
        other.stop()


@pytest.mark.parametrize("kind", ["RSA256", "RSA512"])
def test_signatures_of_stronger_hashes(create: Creation, archive: Repository, kind: str) -> None:
    archive.publish(kind=kind)
    create.good("-r", "3.99")


def test_what_is_not_signed_or_changed_is_refused(create: Creation, archive: Repository, tmp_path: Path) -> None:
    archive.publish()
    index = archive.folder() / "APKINDEX.tar.gz"
    whole = index.read_bytes()
    words = ("-r", "3.99", "--no-cache")
    other = Key(tmp_path / "other", "other@example.org-2.rsa.pub")
    said = create.bad(*words, keys=other.public.parent)
    assert (
        f"APKINDEX.tar.gz: it is signed with {create.key.name}, which is no key that is known\n  hint: put the file"
        in said
    )
    impostor = Key(tmp_path / "impostor", create.key.name)
    assert f"bad signature: the content does not match the signature of {create.key.name}" in create.bad(
        *words, keys=impostor.public.parent
    )
    signature = whole[: whole.index(b"\x1f\x8b", 10)]
    plain = whole[len(signature) :]
    assert "is not signed" in (index.write_bytes(plain), create.bad(*words))[1]
    index.write_bytes(plain)
    create.good(*words, "--allow-untrusted")
    for changed, said in (
        (signature + plain[:-9] + bytes([plain[-9] ^ 1]) + plain[-8:], "bad signature"),
        (signature + plain + b"x", "bad signature"),
        (signature, "bad signature"),
        (whole[:100], "truncated gz data"),
        (b"x" * 100, "damaged gz data"),
        (create.key.sign(b"other") + plain, "bad signature"),
    ):
        index.write_bytes(changed)
        assert said in create.bad(*words)
    # A package is what the signed index says, to the last byte.
    index.write_bytes(whole)
    package = archive.folder() / "thing-1-r0.apk"
    data = package.read_bytes()
    for changed, said in (
        (data[:-20] + bytes([data[-20] ^ 1]) + data[-19:], "wrong datahash"),
        (data[:-1], "wrong datahash"),
        (data + b"x", "larger than it should be"),
        (archive.add("thing2", {}).read_bytes()[: len(data)], "not the package that the signed index names"),
        (b"", "truncated"),
    ):
        package.write_bytes(changed)
        shutil.rmtree(create.base / "cache")
        assert said in create.bad(*words), said
    package.unlink()
    shutil.rmtree(create.base / "cache")
    assert "thing-1-r0.apk: the mirror answers 404" in create.bad(*words)
    package.write_bytes(data)
    create.good(*words)


def test_a_package_whose_signed_part_lies_is_refused(create: Creation, archive: Repository) -> None:
    archive.add("liar", {"x": b"x"}, datahash="0" * 64)
    archive.publish()
    assert "liar-1-r0.apk: its files are not what its signed part says (wrong datahash)" in create.bad(
        "-r", "3.99", "liar"
    )


def test_hostile_packages_stay_inside(create: Creation, archive: Repository, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    inside = str(outside).lstrip("/")
    archive.add("a", {f"{inside}/keep": b"", "escape": str(outside), "up": "../" * 20 + inside})
    archive.add("b", {"escape/one": b"1", "up/two": b"2"}, depends="a")
    evil = tarfile.TarInfo("../evil")
    archive.add("c", {"../evil": evil})
    script = b"#!/bin/sh\nmknod /dev/disk b 8 0; ls /proc/1/root >/seen; ls /sys/class/net >>/seen; exit 0\n"
    archive.add("d", {}, scripts={"post-install": script})
    archive.publish()
    root = create.good("-r", "3.99", "b", "d")
    assert os.listdir(outside) == []
    assert sorted(os.listdir(root / inside)) == ["keep", "one", "two"]
    assert not (root / "dev/disk").exists()
    assert (root / "seen").read_text() == "system\nlo\n"
    assert "c-1-r0.apk: the archive holds the path" in create.bad("-r", "3.99", "c")


@pytest.mark.parametrize("kind", ["pre-install", "post-install", "trigger"])
def test_a_failing_script_is_shown(create: Creation, archive: Repository, kind: str) -> None:
    archive.add(
        "bad",
        {"usr/bin/x": b""},
        depends="busybox",
        triggers="/usr/bin",
        scripts={kind: b"#!/bin/sh\necho why $0 $1\nexit 3\n"},
    )
    archive.publish()
    said = create.bad("-r", "3.99", "bad")
    word = "/usr/bin" if kind == "trigger" else "1-r0"
    assert (
        f"bad: the {kind} script failed (exit status 3)\n"
        f"  | why /lib/apk/exec/bad-1-r0.{kind} {word}\n  hint: the full log is in" in said
    )


def test_two_packages_with_one_file(create: Creation, archive: Repository) -> None:
    archive.add("one", {"usr/share/file": b"one"})
    archive.add("two", {"usr/share/file": b"two"})
    archive.add("three", {"usr/share/file": b"three"}, replaces="one")
    archive.add("four", {"usr/share/file": b"four"}, origin="one")
    archive.publish()
    assert "two-1-r0.apk: two and one hold the same file" in create.bad("-r", "3.99", "one", "two")
    root = create.good("-r", "3.99", "three", "one")
    assert (root / "usr/share/file").read_text() == "three"
    assert (root / "lib/apk/db/installed").read_text().count("R:file\n") == 1
    assert (create.good("-r", "3.99", "one", "four") / "usr/share/file").read_text() == "four"


def test_what_cannot_be_is_said(create: Creation, archive: Repository, tmp_path: Path) -> None:
    archive.add("needs", depends="nowhere>=2")
    archive.add("fights", depends="!thing")
    archive.publish()
    words = ("-r", "3.99")
    assert 'there is no package "nothing"\n  hint: ' in create.bad(*words, "nothing")
    assert 'there is no package "nowhere>=2", which needs needs' in create.bad(*words, "needs")
    assert "the packages contradict each other: fights and thing" in create.bad(*words, "fights")
    assert "URL/v9.9/main/x86_64/APKINDEX.tar.gz: the mirror answers 404" in create.bad("-r", "9.9")
    assert 'there is no release "../x"' in create.bad("-r", "../x")
    assert "machine cannot run programs for s390x" in create.bad("-a", "s390x")
    (tmp_path / "empty").mkdir()
    assert "there is no key in" in create.bad(*words, keys=tmp_path / "empty")
    assert 'cannot read the folder of keys "/nowhere": No such file or directory' in create.bad(
        *words, keys=Path("/nowhere")
    )
    weak = Key(tmp_path / "weak", "weak.rsa.pub", bits=1024)
    assert "is not a public RSA key: too weak (1024 bits)" in create.bad(*words, keys=weak.public.parent)


def test_huge_streams_are_refused(create: Creation, archive: Repository) -> None:
    archive.publish()
    bomb = stream({"APKINDEX": bytes(80 << 20)})
    (archive.folder() / "APKINDEX.tar.gz").write_bytes(create.key.sign(bomb) + bomb)
    assert "a stream larger than it may be" in create.bad("-r", "3.99")


@pytest.mark.parametrize("delay", [0.2, 0.3, 0.4, 0.5, 0.7])
def test_a_kill_at_any_moment_leaves_nothing_that_bars_the_next(
    create: Creation, archive: Repository, bin: str, delay: float
) -> None:
    """kill -9: processes and mounts go with it (the fixture of all tests looks), the next one begins anew."""
    archive.add("slow", {}, scripts={"post-install": b"#!/bin/sh\nsleep 300 & sleep 301\n"}, depends="busybox")
    archive.publish()
    name = create.names()
    argv = [f"{bin}/lxcpy-create", "-q", "-P", create.lxcpath, "-n", name, "-t", "alpine", "--"]
    argv += ["-m", create.server.url, "-a", "x86_64", "-r", "3.99", "--keys", str(create.key.public.parent), "slow"]
    process = subprocess.Popen(argv, env=create.env, stdin=subprocess.DEVNULL)
    time.sleep(delay)
    process.kill()
    process.wait()
    create.names = lambda: name
    create.good("-r", "3.99")
    assert not list((create.base / "cache/rootfs").glob("*.partial"))
