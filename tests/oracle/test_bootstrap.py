"""Our bootstrap and debootstrap's of the same packages, from the host's own mirror: one tree but for a written list.

Each run compares the host's release, minbase. LXCPY_TEST_SUITES="oldstable stable testing sid" (or "all") compares
these, minbase and full, and the first stage of another architecture; that takes some minutes.
"""

from __future__ import annotations

import platform
from pathlib import Path

import debcompare
import pytest
from debcompare import SUITES, VARIANTS
from debmirror import Archive, Key, Server
from probes import requires
from ubuntumirror import host_suite

from lxcpy.bootstrap import keyring, plan, release
from lxcpy.bootstrap.download import Client, Mirrors
from lxcpy.errors import BootstrapError

CASES = [(suite, variant) for suite in SUITES for variant in VARIANTS] or [("host", "minbase")]
FOREIGN = "amd64" if platform.machine() == "aarch64" else "arm64"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def both(suite: str, variant: str, tmp_path: Path, cache: Path, arch: str = "") -> tuple[Path, Path]:
    """Our system and debootstrap's; skips where that one does not get through."""
    mirror, host = host_suite()
    suite = host if suite == "host" else debcompare.codename(suite)
    wanted = debcompare.packages(variant)
    with debcompare.planned(mirror, suite, wanted, cache, arch=arch) as (made, _, _):
        names = {item.name for item in made.items}
    other = tmp_path / "theirs"
    if problem := debcompare.theirs(mirror, suite, sorted(names), other, arch=arch):
        pytest.skip(f"debootstrap does not get through here: {problem}")
    more = () if arch else tuple(debcompare.states(other).keys() - names)
    assert set(more) <= debcompare.FIRST_OF_ALTERNATIVES
    mine = tmp_path / "ours"
    debcompare.ours(mirror, suite, (*wanted, *more), mine, cache, arch=arch)
    return mine, other


@requires("root", "debootstrap", "gpgv", "dpkg")
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("suite", "variant"), CASES)
def test_the_system_is_debootstraps(suite: str, variant: str, tmp_path: Path, cache: Path) -> None:
    mine, other = both(suite, variant, tmp_path, cache)
    assert debcompare.states(mine) == debcompare.states(other)
    assert debcompare.differing(mine, other) == {}
    for check in (["dpkg", "--audit"], ["dpkg", "-V"]):
        assert debcompare.told(mine, *check) == ""
    assert debcompare.told(mine, "dpkg-divert", "--list") == debcompare.told(other, "dpkg-divert", "--list")


@requires("root", "debootstrap", "gpgv", "dpkg")
@pytest.mark.timeout(900)
@pytest.mark.skipif(not SUITES, reason="a long one: set LXCPY_TEST_SUITES")
@pytest.mark.parametrize("suite", SUITES)
def test_the_first_stage_is_debootstraps(suite: str, tmp_path: Path, cache: Path) -> None:
    """Where debootstrap unpacks what is required and keeps the rest as files, all is unpacked by ours."""
    mine, other = both(suite, "minbase", tmp_path, cache, arch=FOREIGN)
    lists = [(other / "debootstrap" / name).read_text().split() for name in ("required", "base")]
    states = debcompare.states(mine)
    assert states.keys() == {name for names in lists for name in names}
    assert {line.split()[2] for line in states.values()} == {"iU"}
    assert debcompare.differing(mine, other, first_stage=True) == {}


def test_the_list_of_differences_is_in_use() -> None:
    """Every line can be read, has a reason, and stands there once."""
    found = debcompare.differences(first_stage=True)
    assert len({(one.pattern, one.what) for one in found}) == len(found) > 10
    assert all(one.reason for one in found)


@requires("root", "gpg", "gpgv")
@pytest.mark.timeout(300)
def test_a_failing_script_among_real_packages(
    archive: Archive, server: Server, key: Key, tmp_path: Path, cache: Path
) -> None:
    """Real dpkg runs it: its last 20 lines are shown, no other package's and none of dpkg's own."""
    mirror, suite = host_suite()
    script = b"#!/bin/sh\nfor i in $(seq 25); do echo line $i; done\nexit 3\n"
    archive.add({"Package": "broken", "Depends": "later-no-more | base-files"}, {}, info={"postinst": script})
    archive.add({"Package": "later", "Depends": "apt"}, {}, info={"postinst": b"#!/bin/sh\nseq 1000 1100\n"})
    archive.publish()
    client = Client()
    log = cache / "log"
    log.unlink(missing_ok=True)
    try:
        mirrors = Mirrors(client, [server.url])
        trust = release.Trust((keyring.load(str(key.ring)),))
        own = plan.Repository(mirrors, "tiny", release.fetch(mirrors, "tiny", trust), ("main",))
        with pytest.raises(BootstrapError) as caught:
            debcompare.ours(mirror, suite, ("apt", "broken", "later"), tmp_path / "ours", cache, more=(own,))
    finally:
        client.close()
    said = "\n".join(caught.value.lines()).split("\n")
    assert said[0] == (
        "broken: dpkg --configure -a failed (exit status 1): installed broken package post-installation script "
        "subprocess returned error exit status 3"
    )
    assert said[1:21] == [f"  | line {number}" for number in range(6, 26)]
    assert said[21:] == [f"  hint: the full log is in {log}"]
    assert "line 1\n" in log.read_text()
