"""The keys that templates trust: those that come with lxcpy, those of the host; and the mirrors that they take."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest
from probes import requires
from ubuntumirror import host_suite

from lxcpy.bootstrap import deb_system, hostapt, keyring, machine, release, template
from lxcpy.bootstrap.download import Client, Mirrors
from lxcpy.errors import BootstrapError

# Of the files as Debian's packages debian-archive-keyring 2023.3+deb12u2 and ubuntu-keyring 2023.11.28.1 have them.
SHIPPED = {
    "debian": ("debian-archive-keyring.gpg", 9),
    "ubuntu": ("ubuntu-archive-keyring.gpg", 3),
}


def system(name: str, **options: str) -> deb_system.System:
    """A template's system as far as it is before anything is fetched."""
    found = object.__new__(deb_system.System)
    found.template, found.options, found.sources = template.find(name), options, []
    found.arch, found.pinned = machine.debian_arch(options.get("arch", "amd64")), options.get("keyring", "")
    return found


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_keys_are_the_pinned_ones(name: str) -> None:
    file, count = SHIPPED[name]
    found = template.find(name)
    path = found.file(file)
    assert path is not None
    shipped = keyring.shipped(path, found.words("fingerprints"))
    assert sorted(keyring.fingerprints(shipped.data)) == sorted(found.words("fingerprints"))
    assert len(found.words("fingerprints")) == count


@requires("gpg")
@pytest.mark.parametrize("name", SHIPPED)
def test_gnupg_reads_the_same_keys_in_them(name: str, tmp_path: Path) -> None:
    found = template.find(name)
    argv = ["gpg", "--homedir", str(tmp_path), "--with-colons", "--show-keys", found.file(SHIPPED[name][0]) or ""]
    lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    primary = []
    for line in lines:
        if line.startswith("pub:"):
            primary.append("")
        elif line.startswith("fpr:") and not primary[-1]:
            primary[-1] = line.split(":")[9]
    assert sorted(primary) == sorted(found.words("fingerprints"))


@requires("gpg")
@pytest.mark.parametrize("name", SHIPPED)
def test_keys_end_when_gnupg_says_so(name: str, tmp_path: Path) -> None:
    found = template.find(name)
    path = found.file(SHIPPED[name][0]) or ""
    argv = ["gpg", "--homedir", str(tmp_path), "--with-colons", "--show-keys", path]
    lines = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.splitlines()
    ends = [int(line.split(":")[6] or 0) for line in lines if line.startswith("pub:")]
    assert sorted(keyring.expiries(keyring.load(path).data).values()) == sorted(ends)


def test_debians_own_package_has_the_same_keys() -> None:
    host = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
    if not host.exists():
        pytest.skip("the host has no debian-archive-keyring")
    ours = Path(template.find("debian").file("debian-archive-keyring.gpg") or "")
    if hashlib.sha256(host.read_bytes()).digest() != hashlib.sha256(ours.read_bytes()).digest():
        assert set(keyring.fingerprints(host.read_bytes())) & set(keyring.fingerprints(ours.read_bytes()))


@requires("gpgv")
def test_a_host_of_another_distribution_trusts_the_shipped_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """No keyring on the host: the release file of the real Debian is verified all the same."""
    base, suite = host_suite()
    monkeypatch.setattr(keyring, "find", lambda names: [])
    keyrings = system("debian")._keyrings([])
    assert [Path(one.path).name for one in keyrings] == ["debian-archive-keyring.gpg"]
    client = Client()
    try:
        found = release.fetch(Mirrors(client, [base]), suite, release.Trust(tuple(keyrings)))
    finally:
        client.close()
    assert set(found.keys) <= set(template.find("debian").words("fingerprints"))


@pytest.mark.parametrize("name", ["devuan", "kali"])
def test_without_keys_it_is_said_which(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyring, "find", lambda names: [])
    with pytest.raises(BootstrapError) as caught:
        system(name)._keyrings([])
    assert caught.value.what == f"there is no keyring of {name} here to check its releases with"
    hint = caught.value.hint or ""
    assert f"put {name}-archive-keyring" in hint
    assert "/usr/share/keyrings" in hint
    for fingerprint in template.find(name).words("fingerprints"):
        assert fingerprint in hint
    assert system(name, **{"no-check-gpg": "1"})._keyrings([]) == []


@pytest.mark.parametrize(
    ("name", "arch", "kind", "base"),
    [
        ("ubuntu", "amd64", "mirror", "http://archive.ubuntu.com/ubuntu"),
        ("ubuntu", "i386", "security_mirror", "http://security.ubuntu.com/ubuntu"),
        ("ubuntu", "arm64", "mirror", "http://ports.ubuntu.com/ubuntu-ports"),
        ("ubuntu", "riscv64", "security_mirror", "http://ports.ubuntu.com/ubuntu-ports"),
        ("debian", "arm64", "mirror", "http://ftp.debian.org/debian"),
        ("devuan", "amd64", "mirror", "http://deb.devuan.org/merged"),
        ("kali", "amd64", "mirror", "http://http.kali.org/kali"),
    ],
)
def test_public_mirrors(name: str, arch: str, kind: str, base: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for word in ("MIRROR", "SECURITY_MIRROR"):
        monkeypatch.delenv(word, raising=False)
    assert system(name, arch=arch)._bases(kind) == [base]


def test_the_hosts_own_mirror_comes_first_where_it_has_the_architecture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MIRROR", raising=False)
    monkeypatch.setattr(machine, "host_arch", lambda: "amd64")
    sources = [hostapt.Source("http://near/ubuntu", "noble"), hostapt.Source("http://near/debian", "bookworm")]
    for arch, served in (("amd64", ["http://near/ubuntu"]), ("i386", ["http://near/ubuntu"]), ("arm64", [])):
        one = system("ubuntu", arch=arch)
        assert [source.uri for source in sources if one._serves(source.suite)] == served


def test_releases_by_other_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "codename", lambda distribution: "noble" if distribution == "ubuntu" else "")
    assert system("ubuntu", release="22.04")._release() == "jammy"
    assert system("ubuntu", release="lts")._release() == "resolute"
    assert system("ubuntu")._release() == "noble"  # the host's own
    assert system("debian")._release() == "stable"
    monkeypatch.undo()
    assert system("kali")._release() == "kali-rolling"


def test_the_hosts_release(tmp_path: Path) -> None:
    file = tmp_path / "os-release"
    file.write_text('ID=ubuntu\nVERSION_CODENAME="noble"\n')
    assert machine.codename("ubuntu", str(file)) == "noble"
    assert machine.codename("debian", str(file)) == ""
    assert machine.codename("", str(file)) == ""
    assert machine.codename("ubuntu", str(tmp_path / "none")) == ""
