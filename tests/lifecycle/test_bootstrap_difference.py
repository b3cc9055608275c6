"""A cached system that updates have overtaken: brought up to date by what changed, and then as a fresh build."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ubuntumirror
from debcreate import Creation
from debmirror import Key, Server
from probes import requires
from trees import picture

from lxcpy import paths
from lxcpy.bootstrap import difference, plan
from lxcpy.bootstrap import template as templates
from lxcpy.bootstrap.cache import Store
from lxcpy.bootstrap.packages import parse_stanza
from lxcpy.bootstrap.progress import Plain

pytestmark = [requires("root", "gpg", "gpgv", "zstd"), pytest.mark.timeout(600)]
# What tells how a system was made, and no more: logs, old copies, caches with times in them.
TRACES = re.compile(
    r"var/log/.*|var/lib/dpkg/(status|diversions|statoverride|available)-old|var/cache/ldconfig/aux-cache"
    r"|var/cache/debconf/.*-old|etc/(passwd|shadow|group|gshadow|subuid|subgid)-|etc/machine-id|etc/ssh/ssh_host_.*"
    r"|etc/host(name|s)"
)


@pytest.fixture(scope="module")
def mirror() -> ubuntumirror.Mirror:
    return ubuntumirror.build(Store(paths.cache_dir()))


class Moving:
    """The mirror, first without updates, then with them."""

    def __init__(self, mirror: ubuntumirror.Mirror, key: Key, root: Path) -> None:
        self.mirror, self.key, self.root = mirror, key, root
        (root / "dists").mkdir(parents=True)
        (root / "pool").symlink_to(mirror.root / "pool")
        (root / "dists/resolute").symlink_to(mirror.root / "dists/resolute")
        self.ring = root / "ring.gpg"
        self.ring.write_bytes(mirror.ring.read_bytes() + key.ring.read_bytes())
        for end in ("updates", "security"):
            self.publish(end, [])

    def publish(self, end: str, packages: list[ubuntumirror.Packed]) -> None:
        ubuntumirror.publish(self.root, self.key, f"resolute-{end}", "resolute", packages, "Ubuntu")

    def updated(self, end: str) -> list[ubuntumirror.Packed]:
        """The packages of one of the mirror's own pockets."""
        found = []
        for path in (self.mirror.root / f"dists/resolute-{end}").glob("*/binary-*/Packages"):
            for text in filter(None, path.read_text().split("\n\n")):
                fields = parse_stanza(text.strip())
                found.append(ubuntumirror.Packed(fields, fields["Filename"]))
        return found


@pytest.fixture
def moving(mirror: ubuntumirror.Mirror, key: Key, tmp_path: Path) -> Moving:
    return Moving(mirror, key, tmp_path / "moving")


@pytest.fixture
def create(moving: Moving, tmp_path: Path, cache: Path) -> Iterator[Creation]:
    server = Server(moving.root)
    ring: Any = SimpleNamespace(ring=moving.ring)
    found = templates.find("ubuntu")
    small = {**found.settings, "packages.minbase": "apt sudo"}
    yield Creation(found._replace(settings=small), server, ring, tmp_path)
    server.stop()


def messages(create: Creation, tmp_path: Path, *words: str) -> tuple[Path, str]:
    with open(tmp_path / "said", "w+") as stream:
        root = create("--variant=minbase", *words, security=True, progress=Plain(stream)) / "rootfs"
        stream.seek(0)
        return root, stream.read()


def compared(root: Path) -> dict[str, Any]:
    return {path: what for path, what in picture(str(root)).items() if not TRACES.fullmatch(path)}


def test_the_difference_gives_what_a_fresh_build_gives(
    moving: Moving, create: Creation, tmp_path: Path, cache: Path
) -> None:
    _, said = messages(create, tmp_path)
    assert "brought up to date" not in said
    for end in ("updates", "security"):
        moving.publish(end, moving.updated(end))
    create.server.requests.clear()
    renewed, said = messages(create, tmp_path)
    assert "the cached system is brought up to date: grep, hostname, mawk\n" in said
    assert "configure" not in said
    fetched = [path for path in create.server.requests if path.endswith(".deb")]
    assert sorted(path.rpartition("/")[2].partition("_")[0] for path in fetched) == ["grep", "hostname", "mawk"]
    fresh, said = messages(create, tmp_path, "--no-cache")
    assert "brought up to date" not in said
    one, two = compared(renewed), compared(fresh)
    differing = [path for path in one.keys() | two.keys() if one.get(path) != two.get(path)]
    assert sorted(differing) == []
    for command in (["dpkg", "--audit"], ["dpkg", "-V"], ["apt-get", "check"]):
        done = subprocess.run(["chroot", str(renewed), *command], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, ""), command
        assert command[0] == "apt-get" or done.stdout == ""
    assert not (renewed / "lxcpy-upgrade").exists()
    assert not (renewed / "usr/sbin/policy-rc.d").exists()
    # A third one is a copy of what the second one left in the cache.
    create.server.requests.clear()
    messages(create, tmp_path)
    assert not [path for path in create.server.requests if path.endswith(".deb")]


def item(name: str, version: str, sha256: str, stage: int = 2) -> plan.Item:
    return plan.Item(name, version, "amd64", stage, 0, f"pool/{name}", 1, sha256, "", "")


BEFORE = plan.Plan("amd64", (
    item("base-files", "12", "0", 1), item("libc6", "2.36-9+deb12u1", "1", 0), item("nginx", "1.22-1", "2"),
    *(item(f"x{number}", "1", f"x{number}") for number in range(9)),
))  # fmt: skip


def after(**changes: str) -> plan.Plan:
    return BEFORE._replace(items=tuple(
        one._replace(version=changes[one.name.replace("-", "_")], sha256="new")
        if one.name.replace("-", "_") in changes else one for one in BEFORE.items
    ))  # fmt: skip


@pytest.mark.parametrize(
    ("now", "names"),
    [
        (after(nginx="1.24-1"), ["nginx"]),
        (after(libc6="2.36-9+deb12u2"), ["libc6"]),
        (after(libc6="2.37-1"), None),  # what all others stand on, in a new version
        (after(base_files="12.1"), None),
        (after(nginx="1.20-1"), None),  # older
        (after(), None),  # nothing
        (after(**{f"x{number}": "2" for number in range(5)}), None),  # too much
        (BEFORE._replace(items=BEFORE.items[:-1]), None),  # one less
        (BEFORE._replace(items=(*BEFORE.items, item("more", "1", "m"))), None),
    ],
)
def test_only_what_is_harmless_is_upgraded(now: plan.Plan, names: list[str] | None) -> None:
    about = json.loads(json.dumps(difference.noted(BEFORE, "family")))
    found = difference.between(about, now, "family")
    assert (found and [one.name for one in found]) == names
    assert difference.between(about, now, "other") is None
    for broken in ({}, {"family": "family"}, {"family": "family", "packages": [1]}):
        assert difference.between(broken, now, "family") is None




def test_a_failure_ends_in_a_fresh_build(moving: Moving, create: Creation, tmp_path: Path, cache: Path) -> None:
    """An update that cannot be installed over what is there, but can be in a fresh system: its preinst says no."""
    messages(create, tmp_path)
    grep = next(one for one in moving.updated("security") if one.fields["Package"] == "grep")
    work = tmp_path / "work"
    subprocess.run(["dpkg-deb", "-R", str(moving.mirror.root / grep.path), str(work)], check=True)
    (work / "DEBIAN/preinst").write_text('#!/bin/sh\n[ "$1" = install ] || { echo no upgrade; exit 1; }\n')
    os.chmod(work / "DEBIAN/preinst", 0o755)
    (moving.root / "own").mkdir()
    subprocess.run(["dpkg-deb", "-b", "-Znone", str(work), str(moving.root / "own/grep.deb")], check=True)
    data = (moving.root / "own/grep.deb").read_bytes()
    made = ubuntumirror.put(grep.fields, data, tmp_path)
    (moving.root / "own/grep.deb").unlink()
    (moving.root / "pool").unlink()
    (moving.root / "pool").mkdir()
    for path in (moving.mirror.root / "pool").iterdir():
        os.link(path, moving.root / "pool" / path.name) if path.name != Path(made.path).name else None
    (moving.root / made.path).write_bytes(data)
    moving.publish("security", [made])
    root, said = messages(create, tmp_path)
    assert "could not be brought up to date, so afresh: dpkg --install failed (exit status 1)" in said
    assert "no upgrade" in said
    assert grep.fields["Version"] in (root / "var/lib/dpkg/status").read_text()
    assert not list((cache / "rootfs").glob("*.partial"))
