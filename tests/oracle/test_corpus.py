"""The corpus against real LXC: old configs through its own lxc-update-config, then loaded and compared key by key."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from corpus_files import NAMES, lay_out, not_for_lxc
from oracle.differences import Case, difference
from oracle.liblxc import Liblxc, Ours, why_not
from oracle.test_config import NET, NEW_IN_7, PLAIN

from lxcpy.config import legacy, schema
from lxcpy.config.file import ConfigFile

REASON = why_not() or (None if shutil.which("lxc-update-config") else "lxc-update-config is not installed")
pytestmark = pytest.mark.skipif(REASON is not None, reason=REASON or "")

# Where the result of LXC's script means something else than the file did, or is no config at all.
SCRIPT_IS_WRONG = {
    "1.1-quotes": "the type is put before the quote, which then is part of the path",
    "2.0-overlay-clone": "dir: is put before a path that names its type already",
    "2.1-half-way": "lxc.limit.NAME is left as it is",
    "2.1-both-network-styles": "both styles begin at interface 0 and become one",
}
MEANT = {
    ("5.0-cleared", "lxc.cgroup.devices.allow"): "an emptied list of devices empties the presets' other dialect too",
    ("5.0-cleared", "lxc.cgroup.devices.deny"): "as above",
    ("5.0-cleared", "lxc.cgroup"): "as above",
}


@pytest.fixture(scope="module")
def place() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        copy = lay_out(Path(folder))
        copy.chmod(0o777)  # LXC opens a log file at once, here as an ordinary user
        yield copy


@pytest.fixture(scope="module")
def liblxc() -> Iterator[Liblxc]:
    with tempfile.TemporaryDirectory() as home:
        server = Liblxc(home)
        yield server
        server.close()


def updated_by_lxc(file: Path) -> bytes:
    """What LXC's script makes of a copy."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "config"
        copy.write_bytes(file.read_bytes())
        done = subprocess.run(["lxc-update-config", "-c", str(copy)], cwd=folder, capture_output=True)
        assert done.returncode == 0, done.stderr
        return copy.read_bytes()


@pytest.mark.parametrize("name", NAMES)
def test_rewritten_as_lxc_does(place: Path, name: str) -> None:
    file = place / f"{name}.conf"
    ours = legacy.convert(file.read_bytes().decode(errors="surrogateescape")).encode(errors="surrogateescape")
    theirs = updated_by_lxc(file)
    if name in SCRIPT_IS_WRONG:
        assert ours != theirs, "the row is idle"
    else:
        assert ours == theirs


@pytest.mark.parametrize("name", NAMES)
def test_means_the_same_to_lxc(place: Path, liblxc: Liblxc, name: str) -> None:
    file = place / f"{name}.conf"
    if reason := not_for_lxc(file.read_bytes()):
        pytest.skip(reason)
    text = legacy.convert(file.read_bytes().decode(errors="surrogateescape")).encode(errors="surrogateescape")
    updated = file.with_suffix(".updated")
    updated.write_bytes(text)
    ours = Ours()
    assert ours.run([["load", str(file)]]) == [["ok", True]]
    assert liblxc.run([["load", str(updated)]]) == [["ok", True]], text.decode(errors="replace")
    shared = [key for key in PLAIN if key not in NEW_IN_7] + [f"lxc.{entry}" for entry in subkeys(ours)]
    pairs = [(key, key) for key in shared]
    # LXC's script counts interfaces that are commented out or forgotten again: what counts is their order
    numbers = zip(sorted(ours.config.settings.nets), interfaces(updated), strict=True)
    pairs += [(key.replace(".0.", f".{a}."), key.replace(".0.", f".{b}.")) for a, b in numbers for key in NET]
    mine = ours.run([["get", key] for key, _ in pairs])
    theirs = liblxc.run([["get", key] for _, key in pairs])
    for (key, _), one, other in zip(pairs, mine, theirs, strict=True):
        if one == other or "\udce9" in str(one[-1]):
            continue  # python3-lxc cannot show text that is not UTF-8
        if (name, key) not in MEANT:
            assert difference(Case("get", key, "", one, other)), f"{key}: ours {one}, LXC's {other}"


def interfaces(file: Path) -> list[int]:
    """The numbers of a config's interfaces."""
    return sorted(ConfigFile.load(str(file)).settings.nets)


def subkeys(ours: Ours) -> list[str]:
    """The keys with sub-keys that are set."""
    settings = ours.config.settings
    found = [f"cgroup{'' if entry[0] == 1 else '2'}.{entry[1]}" for entry in settings.limits]
    for row in schema.ROWS:
        if row.name in ("lxc.prlimit.*", "lxc.sysctl.*", "lxc.proc.*", "lxc.namespace.share.*"):
            found += [row.name[4:-1] + sub for sub in settings.values.get(row.into, ())]
    return list(dict.fromkeys(found))
