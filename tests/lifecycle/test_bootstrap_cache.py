"""The caches as containers use them: shared, killed, filled up, spoilt, offline; and mirrors that change meanwhile."""

from __future__ import annotations

import hashlib
import shutil
import signal
import subprocess
from pathlib import Path

import pytest
from debcreate import Creation, tiny_template
from debmirror import Archive, Handler, Key, Server, date, tiny
from probes import requires

from lxcpy.errors import BootstrapError, LxcpyError, UsageError

pytestmark = [requires("root", "gpg", "gpgv", "busybox"), pytest.mark.usefixtures("cache")]


@pytest.fixture
def archive(archive: Archive) -> Archive:
    tiny(archive)
    archive.publish("tiny", fields={"Suite": "stable"})
    return archive


@pytest.fixture
def create(server: Server, key: Key, tmp_path: Path) -> Creation:
    return Creation(tiny_template(tmp_path / "template"), server, key, tmp_path)


def newer(archive: Archive, version: str = "2", *, by_hash: bool = True, depends: str = "dpkg") -> None:
    """Another version of `extra` takes the place of the one there was, as in an archive."""
    for path in (archive.root / "pool").glob("extra_*"):
        path.unlink()
    archive.stanzas = [stanza for stanza in archive.stanzas if "Package: extra\n" not in stanza]
    archive.add(
        {"Package": "extra", "Version": version, "Depends": depends}, {"usr/share/extra": f"{version}\n".encode()}
    )
    shutil.rmtree(archive.root / "dists")
    archive.publish("tiny", fields={"Suite": "stable", "Date": date(int(version))}, by_hash=by_hash)


def whole(cache: Path) -> bool:
    """Whether each object is what its name says."""
    objects = list((cache / "objects").glob("??/*"))
    return all(hashlib.sha256(path.read_bytes()).hexdigest() == path.name for path in objects)


def extra(container: Path) -> str:
    status = (container / "rootfs/var/lib/dpkg/status").read_text()
    assert status.count("Status: install ok installed") == status.count("Package: ") >= 4
    return (container / "rootfs/usr/share/extra").read_text()


def test_the_second_comes_from_the_cache(archive: Archive, create: Creation, cache: Path) -> None:
    first = create()
    packed = list((cache / "rootfs").glob("debian-tiny-amd64-*.packed"))
    assert len(packed) == 1
    assert not list((cache / "rootfs").glob("*.partial"))
    shutil.rmtree(cache / "objects")  # nothing is unpacked again
    create.server.requests.clear()
    second = create()
    assert create.server.requests == ["/dists/tiny/InRelease"]
    for path in ("usr/share/extra", "var/lib/dpkg/status", "usr/bin/busybox"):
        one, two = first / "rootfs" / path, second / "rootfs" / path
        assert one.read_bytes() == two.read_bytes()
        assert one.stat().st_mode == two.stat().st_mode
        assert int(one.stat().st_mtime) == int(two.stat().st_mtime) or path.startswith("var")
    # Another set is another tree; a changed package too.
    create("--variant=minbase")
    archive.add({"Package": "extra", "Version": "2", "Depends": "dpkg"}, {"usr/share/extra": b"new\n"})
    archive.publish("tiny", fields={"Suite": "stable"})
    third = create()
    assert (third / "rootfs/usr/share/extra").read_text() == "new\n"
    assert len(list((cache / "rootfs").glob("*.packed"))) == 3
    create("-F")
    create("-c")
    assert not list((cache / "rootfs").glob("*.packed"))


def test_no_cache_leaves_none(archive: Archive, create: Creation, cache: Path) -> None:
    create("--no-cache")
    create.server.requests.clear()
    create("--no-cache")
    assert {path.rpartition("/")[2] for path in create.server.requests} >= {"InRelease", "shell_1_amd64.deb"}
    assert not list((cache / "rootfs").glob("*.packed"))
    for folder in ("plans", "rootfs"):
        assert not list((cache / folder).iterdir())
    assert not list((cache / "objects").glob("??/*"))
    assert not list((cache / "logs").iterdir())


def test_twenty_creates_at_once_fetch_each_file_once(create: Creation, cache: Path) -> None:
    running = [create.start(number) for number in range(20, 40)]
    assert [process.wait() for process in running] == [0] * 20
    assert len(list((cache / "rootfs").glob("*.packed"))) == 1
    fetched = list(create.server.requests)
    for path in create.server.unchanged:  # asked whether it changed, and it had not
        fetched.remove(path)
    assert len(fetched) == len(set(fetched)), fetched
    assert len(fetched) == 1 + 1 + 5  # the release, the index, the packages
    for number in range(20, 40):
        assert (create.base / f"c{number}/rootfs/etc/hostname").read_text() == f"c{number}\n"


KILLS = [
    ("lxcpy.bootstrap.kept", "KeptMirrors.read"),
    ("lxcpy.bootstrap.cache", "Store.write"),
    ("lxcpy.bootstrap.cache", "_receive"),
    ("lxcpy.bootstrap.plan", "solve"),
    ("lxcpy.bootstrap.install", "_skeleton"),
    ("lxcpy.bootstrap.unpack", "Unpacking._unpack"),
    ("lxcpy.bootstrap.install", "_Configuration.stage"),
    ("lxcpy.bootstrap.install", "_finish"),
    ("lxcpy.storage.blob", "_Pack._note"),
    ("lxcpy.storage.blob", "_boot_id"),  # all is in the draft but its last bytes
    ("lxcpy.bootstrap.rootfscache", "RootfsCache._note"),
    ("lxcpy.bootstrap.rootfscache", "RootfsCache._move"),
    ("lxcpy.bootstrap.create", "_configure"),
]


@pytest.mark.parametrize(("module", "function"), KILLS, ids=[function for _, function in KILLS])
def test_a_kill_leaves_a_cache_that_works(create: Creation, cache: Path, module: str, function: str) -> None:
    """kill -9 as a function is entered, for each step of a creation."""
    assert create.start(10, kill=(module, function)).wait() == -signal.SIGKILL
    assert whole(cache)
    assert extra(create()) == "extra\n"
    assert not list((cache / "rootfs").glob("*.partial"))
    assert extra(create()) == "extra\n"
    assert len(list((cache / "rootfs").glob("*.packed"))) == 1


@pytest.mark.parametrize("function", ["apply", "_fetched", "_run"])
def test_a_kill_while_a_tree_is_brought_up_to_date(
    archive: Archive, create: Creation, cache: Path, function: str
) -> None:
    create()
    newer(archive, depends="dpkg, virtual")
    assert create.start(10, kill=("lxcpy.bootstrap.difference", function)).wait() == -signal.SIGKILL
    assert whole(cache)
    assert extra(create()) == "2\n"
    assert not list((cache / "rootfs").glob("*.partial"))
    assert len(list((cache / "rootfs").glob("*.packed"))) == 2


def test_a_kill_while_a_tree_is_copied(create: Creation, cache: Path) -> None:
    create()
    assert create.start(10, kill=("lxcpy.storage.blob", "_Unpack._link")).wait() == -signal.SIGKILL
    assert extra(create()) == "extra\n"


@pytest.mark.parametrize("size", [64, 300, 1000, 2100, 3000, 4200])
def test_a_full_cache_is_refused_and_no_harm_is_done(create: Creation, cache: Path, size: int) -> None:
    """The disk of the cache is full after so many kB; with more space the same cache serves."""
    cache.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "small", str(cache)], check=True)
    try:
        with pytest.raises(LxcpyError) as caught:
            create()
        lines = "\n".join(caught.value.lines())
        assert "no space left" in lines.lower()
        assert str(cache) in lines
        assert whole(cache)
        assert not list((cache / "rootfs").glob("*.partial"))
        subprocess.run(["mount", "-o", "remount,size=64m", str(cache)], check=True)
        assert extra(create()) == "extra\n"
        assert len(list((cache / "rootfs").glob("*.packed"))) == 1
    finally:
        subprocess.run(["umount", str(cache)], check=True)


@pytest.mark.parametrize("cached", [False, True])
def test_a_full_target_is_refused_and_no_harm_is_done(create: Creation, cache: Path, cached: bool) -> None:
    if cached:
        create()
    place = create.directory(create.count + 1) / "rootfs"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "small", str(place)], check=True)
    try:
        with pytest.raises(LxcpyError) as caught:
            create()
        lines = "\n".join(caught.value.lines())
        assert "no space left" in lines.lower()
        assert str(place) in lines
    finally:
        subprocess.run(["umount", str(place)], check=True)
    assert extra(create()) == "extra\n"


# -- a mirror that changes --------------------------------------------------------------------------------------------


def once(server: Server, part: str, change: object) -> None:
    """After the first answer about `part`, the mirror changes."""

    def fault(handler: Handler, data: bytes) -> None:
        del server.faults[part]
        change()  # type: ignore[operator]
        handler.whole(data)

    server.faults[part] = fault


def test_an_index_replaced_after_the_release_was_read(archive: Archive, server: Server, create: Creation) -> None:
    """Without by-hash: the index at hand is not the release's. Both are read once more."""
    newer(archive, "2", by_hash=False)
    once(server, "InRelease", lambda: newer(archive, "3", by_hash=False))
    assert extra(create()) == "3\n"


@pytest.mark.parametrize("words", [(), ("--no-cache",)], ids=["cache", "no cache"])
def test_a_package_replaced_after_the_index_was_read(
    archive: Archive, server: Server, create: Creation, cache: Path, words: tuple[str, ...]
) -> None:
    once(server, "by-hash", lambda: newer(archive))
    assert extra(create(*words)) == "2\n"
    assert whole(cache)
    assert extra(create(*words)) == "2\n"


def test_a_package_gone_for_good_is_refused(archive: Archive, server: Server, create: Creation, cache: Path) -> None:
    path = archive.root / "pool/extra_1_amd64.deb"
    data = path.read_bytes()
    path.unlink()
    with pytest.raises(BootstrapError, match=r"extra_1_amd64\.deb: the mirror answers 404") as caught:
        create()
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("the mirror may be in the middle of an update")
    assert not list((cache / "rootfs").glob("*.pa*"))
    path.write_bytes(data)
    assert extra(create()) == "extra\n"


def test_a_stale_mirror_is_helped_out_by_another(archive: Archive, server: Server, create: Creation) -> None:
    """The first mirror of two lacks a package and lies about the length of another."""
    good = Server(archive.root)
    server.faults["extra_1"] = lambda handler, _: handler.give(404, b"")
    server.faults["provider_1"] = lambda handler, data: handler.give(200, data + b"more")
    try:
        assert extra(create(f"--mirror={server.url},{good.url}")) == "extra\n"
        assert sorted(good.requests) == ["/pool/extra_1_amd64.deb", "/pool/provider_1_amd64.deb"]
    finally:
        good.stop()


def test_a_release_is_not_fetched_twice_nor_believed_unseen(
    archive: Archive, server: Server, create: Creation, cache: Path
) -> None:
    create()
    create()
    assert server.unchanged == ["/dists/tiny/InRelease"]
    # What is kept is checked like what is fetched: by its signature.
    (kept,) = (cache / "releases").glob("*InRelease.kept")
    head, _, data = kept.read_bytes().partition(b"\n")
    evil = data.replace(b"Origin: Tiny", b"Origin: Evil")
    head = head.replace(hashlib.sha256(data).hexdigest().encode(), hashlib.sha256(evil).hexdigest().encode())
    kept.write_bytes(head + b"\n" + evil)
    with pytest.raises(BootstrapError, match="bad signature"):
        create()
    assert extra(create()) == "extra\n"  # and forgotten when it is bad
    for size in (20, 300):  # cut short by a crash
        kept.write_bytes(kept.read_bytes()[:size])
        assert extra(create()) == "extra\n"


# -- offline ----------------------------------------------------------------------------------------------------------


def test_offline_nothing_is_asked(archive: Archive, server: Server, create: Creation, cache: Path) -> None:
    create()
    server.requests.clear()
    assert extra(create("--offline")) == "extra\n"
    shutil.rmtree(cache / "rootfs")
    shutil.rmtree(cache / "plans")
    assert extra(create("--offline")) == "extra\n"
    assert server.requests == []


def test_offline_what_is_missing_is_named(server: Server, create: Creation, cache: Path) -> None:
    with pytest.raises(BootstrapError) as caught:
        create("--offline")
    url = f"{server.url}/dists/stable/Release"
    assert f'has no release "stable" ({url}: not in the cache, and --offline fetches nothing)' in caught.value.what
    create()
    shutil.rmtree(cache / "rootfs")
    for name in ("extra_1", "provider_1"):
        data = (server.root / f"pool/{name}_amd64.deb").read_bytes()
        digest = hashlib.sha256(data).hexdigest()
        (cache / f"objects/{digest[:2]}/{digest}").unlink()
    with pytest.raises(BootstrapError) as caught:
        create("--offline")
    assert caught.value.lines() == [
        "--offline fetches nothing, and 2 packages are not in the cache: extra 1, provider 1",
        "  hint: make the same once without --offline",
    ]
    shutil.rmtree(cache / "objects")
    shutil.rmtree(cache / "plans")
    with pytest.raises(BootstrapError, match=r"by-hash/SHA256/.*: not in the cache, and --offline fetches nothing"):
        create("--offline")
    with pytest.raises(UsageError, match="--offline takes all from the cache, and --no-cache nothing"):
        create("--offline", "--no-cache")


def test_offline_a_release_out_of_date_will_do(archive: Archive, create: Creation, server: Server) -> None:
    archive.publish("tiny", fields={"Suite": "stable", "Valid-Until": date(2)})
    create("-r", "tiny")
    archive.publish("tiny", fields={"Suite": "stable", "Valid-Until": date(-3600)})
    with pytest.raises(BootstrapError):
        create("-r", "tiny")
    assert extra(create("-r", "tiny", "--offline")) == "extra\n"


# -- trees that went bad ----------------------------------------------------------------------------------------------


def test_a_spoilt_packed_tree_is_made_anew(archive: Archive, create: Creation, cache: Path) -> None:
    create()
    (packed,) = (cache / "rootfs").glob("*.packed")
    packed.write_bytes(packed.read_bytes()[:1000])
    assert (create() / "rootfs/usr/share/extra").exists()


def test_a_leftover_of_another_tree_goes(archive: Archive, create: Creation, cache: Path) -> None:
    leftover = cache / "rootfs/debian-gone-amd64-0.partial"
    leftover.mkdir(parents=True)
    (leftover / "file").touch()
    create()
    assert not leftover.exists()
