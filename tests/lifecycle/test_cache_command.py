"""lxcpy-cache on a cache that a creation filled: what it lists, finds and removes."""

from __future__ import annotations

import hashlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jsonpages
import pytest
from debcreate import Creation, tiny_template
from debmirror import Archive, Key, Server, tiny
from probes import requires

from lxcpy.bootstrap import ocilayout
from lxcpy.bootstrap.cache import Store
from lxcpy.bootstrap.download import Expected
from lxcpy.bootstrap.imagecache import Images, Record

pytestmark = requires("root", "gpg", "gpgv", "busybox")
Run = Callable[..., "subprocess.CompletedProcess[str]"]
DAY = 86400


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LXCPY_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def create(tmp_path: Path, key: Key, cache: Path) -> Iterator[Creation]:
    archive = Archive(tmp_path / "mirror", key)
    tiny(archive)
    archive.publish("tiny", fields={"Suite": "stable"})
    server = Server(archive.root)
    yield Creation(tiny_template(tmp_path / "template"), server, key, tmp_path)
    server.stop()


@pytest.fixture
def told(run: Run) -> Callable[..., Any]:
    """What the command says in JSON, and its exit status."""

    def call(*words: str, status: int = 0) -> Any:
        done = run("cache", *words, "--json")
        assert (done.returncode, done.stderr) == (status, "")
        document = {"list": "lxcpy-cache list --json", "verify": "lxcpy-cache verify --json"}
        return jsonpages.read(document.get(next(iter(words), "list"), "lxcpy-cache prune --json"), done.stdout)

    return call


def unused(path: Path, days: float) -> None:
    moment = time.time() - days * DAY
    os.utime(path, (moment, moment))


def test_a_cache_that_is_not_there_is_empty(run: Run, told: Any, cache: Path) -> None:
    assert told() == {"directory": str(cache), "entries": []}
    assert told("verify") == {"directory": str(cache), "checked": 0, "damaged": []}
    assert told("prune", "--age=0")["removed"] == []
    assert not cache.exists()
    assert run("cache").stdout.split()[-4:] == ["total", "0", "B", str(cache)]


def test_what_there_is_is_listed(create: Creation, run: Run, told: Any, cache: Path) -> None:
    create()
    entries = told("list")["entries"]
    names = {(one["kind"], one["name"]) for one in entries}
    assert {("object", f"{name} 1 (amd64)") for name in ("base-passwd", "dpkg", "extra", "shell")} <= names
    (tree,) = (one for one in entries if one["kind"] == "rootfs")
    assert tree["name"].startswith("debian-tiny-amd64-")
    assert tree["size"] == os.stat(tree["path"]).st_size
    assert {kind for kind, _ in names} == {"object", "rootfs", "plan", "release"}
    lines = run("cache").stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["KIND", "object", "plan", "release", "rootfs", "total"]
    assert lines[1].endswith("6 files")
    assert any(line.endswith("extra 1 (amd64)") for line in run("cache", "list", "-a").stdout.splitlines())


def test_damage_is_found_and_repaired(create: Creation, run: Run, told: Any, cache: Path) -> None:
    create()
    assert told("verify")["checked"] == 7
    (packed,) = (cache / "rootfs").glob("*.packed")
    package = next(path for path in (cache / "objects").glob("??/*") if path.stat().st_size > 100000)
    for path in (packed, package):
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    found = told("verify", status=1)["damaged"]
    assert {(one["kind"], one["problem"], one["repaired"]) for one in found} == {
        ("object", "its content is not what its name says", False),
        ("rootfs", "its content has changed since it was made", False),
    }
    done = run("cache", "verify", "--repair")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "7 checked, 2 damaged"
    assert "object shell 1 (amd64): its content is not what its name says: removed" in done.stdout
    assert not packed.exists()
    assert told("verify") == {"directory": str(cache), "checked": 5, "damaged": []}
    assert (create() / "rootfs/usr/share/extra").exists()
    packed.write_bytes(packed.read_bytes()[:-100])
    (one,) = told("verify", status=1)["damaged"]
    assert one["problem"] == "it is not whole, or the machine went down before it was on the disk"


def test_images_and_their_blobs_are_known(told: Any, cache: Path) -> None:
    """Those of image servers and of registries: listed by name, checked, and thinned by their last use."""
    kept = Images(Store(str(cache)), "server alpine", "alpine 3.20 amd64 default")
    data = b"a root filesystem"
    digest = hashlib.sha256(data).hexdigest()
    place = cache / f"objects/{digest[:2]}/{digest}"
    place.parent.mkdir()
    place.write_bytes(data)
    kept.keep(Record("20260101", {"rootfs.tar.xz": Expected(len(data), digest)}))
    blobs = {}
    for algorithm in ("sha256", "sha512"):
        value = hashlib.new(algorithm, data).hexdigest()
        blobs[algorithm] = cache / "oci" / algorithm / value
        blobs[algorithm].parent.mkdir(parents=True)
        blobs[algorithm].write_bytes(data)
    found = {(one["kind"], one["name"]) for one in told()["entries"]}
    assert found == {
        ("image", "alpine 3.20 amd64 default"), ("object", "rootfs.tar.xz 20260101"),
        *(("oci", f"{algorithm}:{path.name}") for algorithm, path in blobs.items()),
    }  # fmt: skip
    assert (told("verify")["checked"], told("verify")["damaged"]) == (4, [])
    (record,) = (cache / "images").iterdir()
    text = record.read_text()
    blobs["sha512"].write_bytes(data[:-1])
    record.write_text(text[:20])
    damaged = told("verify", status=1)["damaged"]
    assert {(one["kind"], one["problem"]) for one in damaged} == {
        ("oci", "its content is not what its name says"), ("image", "it does not tell the image's files"),
    }  # fmt: skip
    assert kept.record() is None
    assert told("verify", "--repair")["checked"] == 4
    assert not blobs["sha512"].exists()
    assert not record.exists()
    # What was used lately stays.
    record.write_text(text)
    for path in (record, blobs["sha256"], place):
        unused(path, 40)
    assert kept.record() is not None
    layout = cache.parent / "layout"
    layout.mkdir()
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    removed = told("prune", "--age=30d", "--dry-run")["removed"]
    assert {one["kind"] for one in removed} == {"oci", "object"}
    blob = ocilayout.Blob(f"sha256:{blobs['sha256'].name}", len(data), "")
    os.close(ocilayout.Layout(str(layout), f"{cache}/oci").open(blob))
    assert [one["kind"] for one in told("prune", "--age=30d")["removed"]] == ["object"]
    assert {one["kind"] for one in told("prune", "--size=0b")["removed"]} == {"oci", "image"}
    assert not blobs["sha256"].exists()


def test_what_was_not_used_goes(create: Creation, run: Run, told: Any, cache: Path) -> None:
    create()
    packages = {path.stat().st_size: path for path in (cache / "objects").glob("??/*")}
    shell = packages[max(packages)]
    unused(shell, 40)
    date = next(path for path in (cache / "releases").iterdir() if path.suffix not in (".kept", ".lock"))
    unused(date, 40)  # what tells an old state of the mirror from the newest stays
    assert [one["name"] for one in told("prune", "--age=30d", "--dry-run")["removed"]] == ["shell 1 (amd64)"]
    assert shell.exists()
    assert told("prune", "--age=6w")["removed"] == []
    removed = told("prune", "--age=30")
    assert [one["name"] for one in removed["removed"]] == ["shell 1 (amd64)"]
    assert removed["freed"] == max(packages)
    assert not shell.exists()
    assert date.exists()
    # A use renews it.
    for path in packages.values():
        if path.exists():
            unused(path, 40)
    create("-F")
    assert [one["kind"] for one in told("prune", "--age=1d")["removed"]] == ["object"]  # the index: the plan was there
    assert (create("--offline") / "rootfs/usr/share/extra").exists()


def test_the_longest_unused_go_first(create: Creation, run: Run, told: Any, cache: Path) -> None:
    create()
    entries = told()["entries"]
    total = sum(one["size"] for one in entries)
    for age, one in enumerate(entries):
        unused(Path(one["path"]), age)
    (packed,) = (cache / "rootfs").glob("*.packed")
    unused(packed, 400)
    removed = told("prune", f"--size={(total - 10) // 1024}k")["removed"]
    assert [one["path"] for one in removed] == [str(packed)]
    assert sum(one["size"] for one in told()["entries"]) <= total
    done = run("cache", "prune", "--size", "0b")
    assert done.returncode == 0
    assert {one["kind"] for one in told()["entries"]} == {"release"}


def test_what_is_in_use_stays(create: Creation, told: Any, cache: Path) -> None:
    """A tree that is copied, a download that goes on; drafts and trees of the dead go."""
    import fcntl

    create()
    (packed,) = (cache / "rootfs").glob("*.packed")
    partial = cache / "objects/partial/0123"
    partial.write_bytes(b"x")
    unused(partial, 3)
    dead = cache / "rootfs/dead-0.partial"
    (dead / "below").mkdir(parents=True)
    draft = cache / "plans/x.json.1-2.new"
    draft.touch()
    unused(draft, 3)
    locks = [os.open(path, os.O_RDWR) for path in (packed.with_suffix(".lock"), partial)]
    for lock in locks:
        fcntl.flock(lock, fcntl.LOCK_SH)
    told("prune", "--age=0")
    assert packed.exists()
    assert partial.exists()
    assert not draft.exists()
    assert not dead.exists()
    for lock in locks:
        os.close(lock)
    assert {one["kind"] for one in told("prune", "--age=0")["removed"]} == {"partial", "rootfs"}
    assert not list((cache / "rootfs").iterdir())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nonsense"], '"nonsense" is none of list, verify, prune'),
        (["list", "verify"], '"list verify" is none of'),
        (["prune", "--age=2y"], '"2y" is not an age: write a number and one of h d w'),
        (["prune", "--size=1q"], '"1q" is not a size'),
    ],
)
def test_nonsense_is_refused(run: Run, cache: Path, words: list[str], said: str) -> None:
    done = run("cache", *words)
    assert done.returncode == 1
    assert said in done.stderr
