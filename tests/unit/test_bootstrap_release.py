"""Trust in a mirror: every way in which a release file can be wrong is refused with words of its own."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest
from debmirror import Archive, Handler, Key, Server, date
from probes import requires

from lxcpy.bootstrap import keyring, release, signature, transport
from lxcpy.bootstrap.cache import Store
from lxcpy.bootstrap.download import Client, Mirrors
from lxcpy.errors import BootstrapError

pytestmark = requires("gpg", "gpgv")


def fetch(
    server: Server, ring: Path, suite: str = "tiny", store: Store | None = None, **trust: bool
) -> release.Release:
    client = Client(timeout=2)
    try:
        mirrors = Mirrors(client, [server.url], pause=0.01)
        return release.fetch(mirrors, suite, release.Trust((keyring.load(str(ring)),), **trust), store)
    finally:
        client.close()


@pytest.mark.parametrize("inline", [True, False])
def test_a_good_one_is_taken(archive: Archive, server: Server, key: Key, inline: bool) -> None:
    archive.publish(inline=inline)
    found = fetch(server, key.ring)
    assert found.keys == (key.fingerprint,)
    assert (found.suite, found.codename, found.components) == ("tiny", "tiny", ["main"])
    names, kind, _ = found.index("main", "amd64") or ([], "", None)
    assert kind == "gz"
    assert "/by-hash/SHA256/" in names[0]
    assert names[1] == "main/binary-amd64/Packages.gz"


def refusal(server: Server, ring: Path, **options: object) -> list[str]:
    with pytest.raises(BootstrapError) as caught:
        fetch(server, ring, **options)  # type: ignore[arg-type]
    return [line.replace(server.url, "URL") for line in caught.value.lines()]


def test_a_changed_one_is_refused(archive: Archive, server: Server, key: Key) -> None:
    path = archive.publish() / "InRelease"
    path.write_bytes(path.read_bytes().replace(b"Origin: Tiny", b"Origin: Evil"))
    said = refusal(server, key.ring)
    words = "URL/dists/tiny/InRelease: bad signature: the content does not match the signature of key "
    assert said[0].startswith(words)
    assert said[1] == "  hint: the file was changed on its way, or the mirror is broken: try another with --mirror"


def test_another_key_is_refused(archive: Archive, server: Server, tmp_path: Path) -> None:
    archive.publish()
    said = refusal(server, Key(tmp_path / "other").ring)
    assert said[0].startswith("URL/dists/tiny/InRelease: bad signature: it is signed with key ")
    assert said[0].endswith(", which is in no keyring")
    assert said[1].startswith("  hint: the key may be newer than the keyring")


def test_a_revoked_key_is_refused(archive: Archive, server: Server, tmp_path: Path) -> None:
    archive.key = Key(tmp_path / "revoked")
    archive.publish()
    archive.key.revoke()
    said = refusal(server, archive.key.ring)
    assert said[0].endswith(" that signed it is revoked")


def test_an_expired_key_is_refused(archive: Archive, server: Server, tmp_path: Path) -> None:
    archive.key = Key(tmp_path / "expired", expire="1d", when=int(time.time()) - 172800)
    archive.publish()
    said = refusal(server, archive.key.ring)
    assert said[0].endswith(" that signed it is expired")


def test_a_forgeable_hash_is_refused(archive: Archive, server: Server, key: Key) -> None:
    path = archive.publish() / "InRelease"
    text, _ = signature.split(path.read_bytes(), "t")
    path.write_bytes(key.clearsign(text + b"\n", "--digest-algo", "SHA1"))
    said = refusal(server, key.ring)
    assert said[0].startswith("URL/dists/tiny/InRelease: bad signature: ")


def test_what_is_not_signed_is_refused_unless_asked_for(archive: Archive, server: Server, key: Key) -> None:
    archive.key = None
    archive.publish()
    said = refusal(server, key.ring)
    assert said == [
        "URL/dists/tiny/Release is not signed",
        "  hint: --no-check-gpg takes it, if you trust the network and the mirror",
    ]
    assert fetch(server, key.ring, check=False).codename == "tiny"


def test_text_beside_the_signed_one_is_refused(archive: Archive, server: Server, key: Key) -> None:
    path = archive.publish() / "InRelease"
    good = path.read_bytes()
    for text in (b"Origin: Evil\n\n" + good, good + b"Origin: Evil\n", good + good):
        path.write_bytes(text)
        assert refusal(server, key.ring)[0] == "URL/dists/tiny/InRelease holds more than one signed text"
    path.write_bytes(good[: len(good) // 2])
    assert refusal(server, key.ring)[0] == "URL/dists/tiny/InRelease is not signed"


def test_another_suite_is_refused(archive: Archive, server: Server, key: Key) -> None:
    archive.publish("old", codename="older")
    shutil.copytree(archive.root / "dists/old", archive.root / "dists/new")
    said = refusal(server, key.ring, suite="new")
    assert said[0] == 'URL/dists/new/InRelease is about "old" (older), not "new"'


def test_an_outdated_one_is_refused(archive: Archive, server: Server, key: Key) -> None:
    archive.publish(fields={"Valid-Until": date(-3600)})
    said = refusal(server, key.ring)
    assert said[0].startswith("URL/dists/tiny/InRelease is out of date since ")
    assert fetch(server, key.ring, valid_until=False).codename == "tiny"


def test_one_from_the_future_is_refused(archive: Archive, server: Server, key: Key) -> None:
    archive.publish(fields={"Date": date(7200)})
    assert refusal(server, key.ring)[0].startswith("URL/dists/tiny/InRelease is dated in the future (")


def test_an_older_one_than_before_is_refused(archive: Archive, server: Server, key: Key, tmp_path: Path) -> None:
    store = Store(str(tmp_path / "cache"))
    archive.publish()
    fetch(server, key.ring, store=store)
    archive.publish(fields={"Date": date(-86400)})
    said = refusal(server, key.ring, store=store)
    assert ", older than the one of " in said[0]
    assert "replays an old state" in said[1]


def test_an_oversized_one_is_refused(archive: Archive, server: Server, key: Key) -> None:
    archive.publish()
    server.faults["InRelease"] = lambda handler, data: handler.give(200, b"x", length=1 << 30)
    assert "InRelease: larger than it should be (1073741824 bytes" in refusal(server, key.ring)[0]


def test_a_release_that_is_not_there(archive: Archive, server: Server, key: Key) -> None:
    archive.publish()
    said = refusal(server, key.ring, suite="nonsense")
    assert said[0].startswith('the mirror URL has no release "nonsense" (')
    assert said[1] == "  hint: check the name of the release and the address of the mirror"


def test_a_redirect_to_a_file_is_refused(archive: Archive, server: Server, key: Key) -> None:
    archive.publish()
    server.faults["InRelease"] = lambda handler, data: handler.give(302, b"", {"Location": "file:///etc/shadow"})
    said = refusal(server, key.ring)
    assert said[0] == 'URL/dists/tiny/InRelease: the mirror redirects to "file:///etc/shadow", which is refused'


def test_no_keyring_is_an_error_of_its_own(archive: Archive, server: Server) -> None:
    archive.publish()
    client = Client()
    with pytest.raises(BootstrapError, match="there is no keyring to check its signature with"):
        release.fetch(Mirrors(client, [server.url]), "tiny", release.Trust(()))
    client.close()


def test_keyrings_are_read_in_both_forms(key: Key, tmp_path: Path) -> None:
    armored = tmp_path / "ring.asc"
    armored.write_bytes(key.gpg("--export", "--armor").stdout)
    for path in (armored, key.ring):
        loaded = keyring.load(str(path))
        assert keyring.fingerprints(loaded.data) == [key.fingerprint]
    with pytest.raises(BootstrapError, match="holds a key that the template does not name"):
        keyring.shipped(str(key.ring), ["0" * 40])
    assert keyring.shipped(str(key.ring), [key.fingerprint]).path == str(key.ring)
    for junk in (b"", b"junk", b"\x99\x01"):
        (tmp_path / "junk").write_bytes(junk)
        with pytest.raises(BootstrapError, match="is not a keyring"):
            keyring.load(str(tmp_path / "junk"))


def test_dates() -> None:
    assert release.parse_date("Sat, 11 Jul 2026 10:16:37 UTC") == 1783764997
    for text in ("yesterday", "Sat, 11 Jul 2026 10:16:37 CEST", ""):
        with pytest.raises(BootstrapError):
            release.parse_date(text)


def test_an_expired_signature_is_refused(archive: Archive, server: Server, key: Key) -> None:
    path = archive.publish() / "InRelease"
    text, _ = signature.split(path.read_bytes(), "t")
    path.write_bytes(key.clearsign(text + b"\n", "--default-sig-expire", "seconds=1"))
    time.sleep(2)
    said = refusal(server, key.ring)
    assert said[0].startswith("URL/dists/tiny/InRelease: bad signature: the signature of key ")
    assert said[0].endswith(" is expired")


def test_a_signature_of_another_file_is_refused(archive: Archive, server: Server, key: Key) -> None:
    """Release with the signature of an older one, and Release cut short."""
    folder = archive.publish(inline=False)
    old = (folder / "Release.gpg").read_bytes()
    archive.publish(inline=False, fields={"Date": date(-60)})
    (folder / "Release.gpg").write_bytes(old)
    said = refusal(server, key.ring)
    assert said[0].startswith("URL/dists/tiny/Release: bad signature: the content does not match the signature of key ")
    archive.publish(inline=False)
    whole = (folder / "Release").read_bytes()
    (folder / "Release").write_bytes(whole[: len(whole) // 2])
    assert "the content does not match the signature" in refusal(server, key.ring)[0]
    (folder / "Release.gpg").write_bytes(b"junk")
    assert refusal(server, key.ring)[0].startswith("URL/dists/tiny/Release: bad signature: ")


def test_a_changed_release_does_not_hide_behind_a_detached_signature(
    archive: Archive, server: Server, key: Key
) -> None:
    """Without its InRelease a mirror still has to show a signature."""
    archive.publish(inline=False)
    (archive.root / "dists/tiny/Release.gpg").unlink()
    assert refusal(server, key.ring)[0] == "URL/dists/tiny/Release is not signed"


def test_one_without_a_strong_hash_is_refused(archive: Archive, server: Server, key: Key) -> None:
    path = archive.publish() / "InRelease"
    text, _ = signature.split(path.read_bytes(), "t")
    md5 = text.partition(b"SHA256:")[0] + b"MD5Sum:\n d41d8cd98f00b204e9800998ecf8427e 0 main/binary-amd64/Packages\n"
    path.write_bytes(key.clearsign(md5))
    said = refusal(server, key.ring)
    assert said == [
        "URL/dists/tiny/InRelease names no file by its SHA256", "  hint: the mirror is too old to be trusted"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"Date": ""}, "URL/dists/tiny/InRelease has no date"),
        ({"Date": "soon"}, 'the release file holds a date that cannot be read: "soon"'),
        ({"Valid-Until": "never"}, 'the release file holds a date that cannot be read: "never"'),
        (
            {"Suite": "tiny-updates"},
            'URL/dists/tiny/InRelease is about the pocket "tiny-updates", not the release "tiny"',
        ),
    ],
)
def test_one_without_sense_is_refused(
    archive: Archive, server: Server, key: Key, fields: dict[str, str], said: str
) -> None:
    archive.publish(fields=fields)
    assert refusal(server, key.ring)[0] == said


@pytest.mark.parametrize("place", ["ftp://127.0.0.1/x", "data:,x", "gopher://x/", "file://localhost/etc/shadow"])
def test_a_redirect_to_another_scheme_is_refused(archive: Archive, server: Server, key: Key, place: str) -> None:
    archive.publish()
    server.faults["InRelease"] = lambda handler, data: handler.give(302, b"", {"Location": place})
    said = refusal(server, key.ring)
    assert said[0] == f'URL/dists/tiny/InRelease: the mirror redirects to "{place}", which is refused'


def test_a_redirect_never_leaves_tls() -> None:
    with pytest.raises(BootstrapError, match='redirects to "http://b/x", which is refused'):
        transport.redirected("https://a/x", "http://b/x")
    assert transport.redirected("http://a/x", "https://b/x") == "https://b/x"


def test_a_redirect_without_end_is_given_up(archive: Archive, server: Server, key: Key) -> None:
    archive.publish()
    server.faults["InRelease"] = lambda handler, data: handler.give(302, b"", {"Location": handler.path})
    assert refusal(server, key.ring)[0] == "URL/dists/tiny/InRelease: too many redirects"


def test_an_endless_one_is_cut_off(archive: Archive, server: Server, key: Key) -> None:
    """A server that tells no length and sends without end."""
    archive.publish()

    def endless(handler: Handler, _: bytes) -> None:
        handler.send_response(200)
        handler.send_header("Connection", "close")
        handler.end_headers()
        for _ in range(64):
            handler.wfile.write(bytes(1 << 20))

    server.faults["InRelease"] = endless
    said = refusal(server, key.ring)
    assert said[0] == "URL/dists/tiny/InRelease: larger than it should be (more than 8388608 bytes)"


@requires("sqv")
class TestWithoutGpgv:
    """A host whose apt uses sqv and that has no gpgv, as Debian from trixie on."""

    @pytest.fixture(autouse=True)
    def no_gpgv(self, monkeypatch: pytest.MonkeyPatch) -> None:
        which = shutil.which
        monkeypatch.setattr(shutil, "which", lambda name: None if name == "gpgv" else which(name))

    @pytest.mark.parametrize("inline", [True, False])
    def test_a_good_one_is_taken(self, archive: Archive, server: Server, key: Key, inline: bool) -> None:
        archive.publish(inline=inline)
        assert fetch(server, key.ring).keys == (key.fingerprint,)

    @pytest.mark.parametrize("inline", [True, False])
    def test_a_changed_one_is_refused(self, archive: Archive, server: Server, key: Key, inline: bool) -> None:
        path = archive.publish(inline=inline) / ("InRelease" if inline else "Release")
        path.write_bytes(path.read_bytes().replace(b"Origin: Tiny", b"Origin: Evil"))
        assert f"URL/dists/tiny/{path.name}: bad signature: " in refusal(server, key.ring)[0]

    def test_another_key_is_refused(self, archive: Archive, server: Server, tmp_path: Path) -> None:
        archive.publish()
        assert ": bad signature: " in refusal(server, Key(tmp_path / "other").ring)[0]

    def test_a_revoked_key_is_refused(self, archive: Archive, server: Server, tmp_path: Path) -> None:
        archive.key = Key(tmp_path / "revoked")
        archive.publish()
        archive.key.revoke()
        assert ": bad signature: " in refusal(server, archive.key.ring)[0]

    def test_an_expired_key_is_refused(self, archive: Archive, server: Server, tmp_path: Path) -> None:
        archive.key = Key(tmp_path / "expired", expire="1d", when=int(time.time()) - 172800)
        archive.publish()
        said = f"the key {archive.key.fingerprint} that signed it is expired"
        assert refusal(server, archive.key.ring)[0].endswith(said)

    def test_a_forgeable_hash_is_refused(self, archive: Archive, server: Server, key: Key) -> None:
        path = archive.publish() / "InRelease"
        text, _ = signature.split(path.read_bytes(), "t")
        path.write_bytes(key.clearsign(text + b"\n", "--digest-algo", "SHA1"))
        assert ": bad signature: " in refusal(server, key.ring)[0]

    def test_with_neither_nothing_is_taken(
        self, archive: Archive, server: Server, key: Key, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        archive.publish()
        monkeypatch.setattr(shutil, "which", lambda name: None)
        assert refusal(server, key.ring) == [
            "URL/dists/tiny/InRelease: nothing here can check its signature",
            "  hint: install gpgv or sqv; --no-check-gpg goes on without, if you trust the network and the mirror",
        ]


def test_escaped_lines_of_a_signed_text_come_out_as_signed(archive: Archive, server: Server, key: Key) -> None:
    """RFC 9580, section 7.2: a line that begins with a dash is escaped in the file, and is not so in the text."""
    path = archive.publish() / "InRelease"
    text, _ = signature.split(path.read_bytes(), "t")
    path.write_bytes(key.clearsign(b"X-Dash: 1\n-----BEGIN: 2\n" + text + b"\n"))
    found = fetch(server, key.ring)
    assert found.fields["-----BEGIN"] == "2"
