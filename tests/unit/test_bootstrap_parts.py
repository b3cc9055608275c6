"""The small parts of the bootstrapper: what they read, choose and say."""

from __future__ import annotations

import io
import json
import lzma
import random
import subprocess
from pathlib import Path

import pytest
from debmirror import ar, compress, deb, tar
from probes import requires

from lxcpy.bootstrap import bars, compression, dpkgdb, hostapt, install, machine, packages, progress, proxy, resolve
from lxcpy.bootstrap.deb import Deb
from lxcpy.bootstrap.packages import Index, Term
from lxcpy.bootstrap.tar import Tar
from lxcpy.bootstrap.zstdprogram import Frame
from lxcpy.errors import BootstrapError, UsageError, visible
from lxcpy.kernel import nosync

INDEX = b"""Package: a
Version: 1:1.0-1
Architecture: amd64
Priority: required
Depends: b (>= 2) | c, virtual, d [i386], e [!i386] <!nocheck>
Filename: pool/a.deb
Size: 1
SHA256: 0000000000000000000000000000000000000000000000000000000000000000

Package: b
Version: 1.5
Architecture: all
Filename: pool/b.deb
Size: 1
SHA256: 0000000000000000000000000000000000000000000000000000000000000000

Package: c
Version: 3
Architecture: amd64
Provides: virtual (= 2), awk
Description: two lines
 of text
Filename: pool/c.deb
Size: 1
SHA256: 0000000000000000000000000000000000000000000000000000000000000000

Package: c
Version: 4~rc1
Architecture: i386

Package: e
Version: 1
Architecture: amd64
Essential: yes
Filename: pool/e.deb
Size: 1
SHA256: 0000000000000000000000000000000000000000000000000000000000000000"""


@pytest.fixture
def index() -> Index:
    found = Index("amd64")
    found.add(INDEX)
    return found


def test_an_index_is_read_on_demand(index: Index) -> None:
    assert len(index) == 4
    assert [package.version for package in index.versions("c")] == ["3"]  # i386 is no use here
    assert index.versions("c")[0].fields["Description"] == "two lines\n of text"
    assert index.find(Term("a", ">=", "1:1")) is not None
    assert index.find(Term("b", ">=", "2")) is None
    assert [package.name for package in index.providers(Term("virtual"))] == ["c"]
    assert index.providers(Term("virtual", ">=", "3")) == []
    assert index.providers(Term("awk", "=", "1")) == []  # an unversioned Provides meets no version
    assert index.with_priority("required") == ["a"]
    assert index.essential() == ["e"]


def test_the_newest_of_several_suites_wins(index: Index) -> None:
    newer = INDEX.replace(b"1:1.0-1", b"1:1.0-1+deb12u1").replace(b"Essential: yes\n", b"")
    index.add(newer, repository=1)
    assert [(one.version, one.repository) for one in index.versions("a")] == [("1:1.0-1+deb12u1", 1), ("1:1.0-1", 0)]


def test_dependencies_are_read() -> None:
    read = packages.parse_relations("a (>= 1:2~) | b:any,\n c [linux-any !i386], d [i386], e <!nocheck>", "amd64")
    assert [[str(term) for term in group] for group in read] == [["a (>= 1:2~)", "b"], ["c"], ["e"]]
    with pytest.raises(ValueError, match="is not a dependency"):
        packages.parse_relations("a (>= ")


def test_the_closure_prefers_what_is_there(index: Index) -> None:
    chosen = resolve.resolve(index, resolve.Wanted(resolve.required(index), ()))
    # b is too old, c provides the rest
    assert [{package.name for package in part} for part in (chosen.essential, chosen.first)] == [{"e"}, {"a", "c"}]
    assert chosen.rest == []


def test_what_cannot_be_had_is_named(index: Index) -> None:
    with pytest.raises(BootstrapError, match='there is no package "x" for amd64'):
        resolve.resolve(index, resolve.Wanted((), ("x",)))
    index.add(b"Package: z\nVersion: 1\nArchitecture: all\nDepends: b (>= 9)\n")
    said = r'z depends on "b \(>= 9\)", which the mirror does not have \(it has b 1.5\)'
    with pytest.raises(BootstrapError, match=said):
        resolve.resolve(index, resolve.Wanted((), ("z",)))
    index.add(b"Package: y\nVersion: 1\nArchitecture: all\nConflicts: c\nFilename: y\nSize: 1\nSHA256: " + b"0" * 64)
    with pytest.raises(BootstrapError, match=r"y and c exclude each other \(Conflicts: c\)"):
        resolve.resolve(index, resolve.Wanted(("y",), ("c",)))


@pytest.mark.parametrize("path", ["../../etc/cron.d/x", "/etc/passwd", "pool/../../x", "a\tb"])
def test_an_index_cannot_name_a_file_outside(path: str) -> None:
    fields = {"Package": "p", "Filename": path, "SHA256": "0" * 64, "Size": "1"}
    with pytest.raises(BootstrapError, match="no usable Filename"):
        packages.Package(fields).check()


@pytest.mark.parametrize("kind", ["", "gz", "xz", pytest.param("zst", marks=requires("zstd"))])
def test_streams_come_out_whole(kind: str) -> None:
    data = bytes(range(256)) * 20000
    packed = compress(data, kind)
    assert compression.inflate(kind, packed) == data
    if kind:
        assert compression.inflate(kind, packed + packed) == data + data
        for broken in (packed[:-1], packed[: len(packed) // 2]):
            with pytest.raises(BootstrapError, match=f"truncated {kind} data"):
                compression.inflate(kind, broken)
        with pytest.raises(BootstrapError, match=f"damaged {kind} data"):
            compression.inflate(kind, b"junk" * 100)


@requires("zstd")
@pytest.mark.parametrize("way", compression.ZSTD)
def test_every_way_to_zstd(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One stream or several, in pieces of any size, cut short, and junk: the same from each."""
    found = compression.zstd(way)
    if found is None:
        pytest.skip(f"there is no {way} here")
    monkeypatch.setitem(compression._makers, "zst", found)
    data = random.Random(1).randbytes(300_000) + bytes(3_000_000)
    packed = compress(data, "zst")
    for size in (1 << 10, 1 << 30):
        inflater = compression.Inflater("zst")
        twice = packed + packed
        chunks = [part for at in range(0, len(twice), size) for part in inflater.feed(twice[at : at + size])]
        inflater.end()
        assert b"".join(chunks) == data + data
        assert max(map(len, chunks)) <= compression.CHUNK
    with pytest.raises(BootstrapError, match="truncated zst data"):
        compression.inflate("zst", packed[:-1])
    with pytest.raises(BootstrapError, match="damaged zst data"):
        compression.inflate("zst", b"junk" * 100)
    with pytest.raises(BootstrapError, match="damaged zst data"):
        compression.inflate("zst", packed[:1000] + b"x" * 1000 + packed[2000:])


def test_the_best_way_to_zstd_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The module of Python's own, the package, the library, the program; where one is missing, the next."""
    there = list(compression.ZSTD)
    assert there == ["compression.zstd", "backports.zstd", "libzstd", "zstd"]
    monkeypatch.setattr(compression, "zstd", lambda way: way if way in there else None)
    for way in compression.ZSTD:
        assert compression._zstd() == way
        there.remove(way)
    assert compression._zstd() is None
    monkeypatch.delitem(compression._makers, "zst", raising=False)
    with pytest.raises(BootstrapError, match='nothing here can decompress "zst"') as caught:
        compression.Inflater("zst")
    assert "install zstd" in (caught.value.hint or "")


@requires("zstd")
def test_the_end_of_a_frame_is_found() -> None:
    """Whatever its header says: checksum, content size, window; blocks of each kind; skippable ones; in any pieces."""
    noise = random.Random(1).randbytes(400_000)
    for data in (b"", b"a", b"ab" * 300, bytes(1 << 20), noise):
        for words in (["-1"], ["-19", "--no-check"], ["--long=20"], ["--no-content-size"]):
            frame = subprocess.run(["zstd", "-qc", *words], input=data, capture_output=True, check=True).stdout
            for size in (1, 7, 1 << 20):
                found = Frame()
                used = 0
                more = frame + b"(more"
                while not found.done:
                    used += found.feed(more[used : used + size])
                assert used == len(frame)
    assert Frame().feed(b"\x5f\x2a\x4d\x18\x02\0\0\0xxmore") == 10
    assert Frame().feed(b"\x50\x2a\x4d\x18\0\0\0\0more") == 8


def test_a_bomb_is_taken_in_pieces() -> None:
    inflater = compression.Inflater("xz")
    packed = lzma.compress(bytes(64 << 20), preset=0)
    assert max(len(chunk) for chunk in inflater.feed(packed)) <= compression.CHUNK


def test_a_package_is_read() -> None:
    long = "usr/share/" + "long/" * 30 + "name"
    data = deb({"Package": "p"}, {long: b"x" * 1000, "link": long, "tool": (b"", 0o4755)}, info={"postinst": b"#!"})
    package = Deb(memoryview(data))
    assert package.control["postinst"][:2] == (b"#!", 0o755)
    entries = list(package.data())
    found = {entry.name.decode(): entry for entry in entries}
    assert found[long].size == 1000
    assert found["link"].target == long.encode()
    assert found["tool"].mode == 0o4755
    assert entries[0].name == b""


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "no ar archive"),
        (ar({"debian-binary": b"2.0\n"}), "a member of the archive is missing"),
        (ar({"debian-binary": b"2.0\n", "control.tar": b"", "data.tar": b""}), "truncated archive"),
        (ar({"debian-binary": b"2.0\n"})[:-3], "truncated Debian package"),
        (b"!<arch>\n" + b"x" * 60, "bad ar header"),
    ],
)
def test_a_broken_package_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(BootstrapError, match=said):
        Deb(memoryview(data)).data()


def test_a_broken_tar_is_refused() -> None:
    whole = tar({"a": b"x" * 600}, "")
    with pytest.raises(BootstrapError, match="wrong checksum"):
        list(Tar([whole[:512].replace(b"./", b"!/", 1) + whole[512:]]))
    with pytest.raises(BootstrapError, match="truncated archive"):
        list(Tar([whole[:1100]]))


def test_chunks_may_be_cut_anywhere() -> None:
    whole = tar({"a": b"x" * 600, "b/c": b"y" * 5}, "")
    expected = list(Tar([whole]))
    for size in (1, 7, 511, 513):
        assert list(Tar([whole[at : at + size] for at in range(0, len(whole), size)])) == expected


def test_the_host_s_sources(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(
        "# deb http://no/ x main\ndeb [arch=amd64 signed-by=/k.gpg] http://one/debian stable main # c\n"
        "deb-src http://no/ x main\ndeb cdrom:[x]/ stable main\n"
    )
    (tmp_path / "sources.list.d/a.sources").write_text(
        "Types: deb deb-src\nURIs: http://two/ https://three/\nSuites: s s-security\nComponents: main\n"
        "Signed-By: /ring.gpg\n\nTypes: deb\nEnabled: no\nURIs: http://no/\nSuites: s\n"
    )
    assert hostapt.sources(str(tmp_path)) == [
        ("http://one/debian", "stable", "/k.gpg"),
        ("http://two/", "s", "/ring.gpg"),
        ("http://two/", "s-security", "/ring.gpg"),
        ("https://three/", "s", "/ring.gpg"),
        ("https://three/", "s-security", "/ring.gpg"),
    ]


@pytest.mark.parametrize(
    ("url", "environment", "through"),
    [
        ("http://a.b/x", {"http_proxy": "http://p:3128"}, "p"),
        ("http://a.b/x", {"HTTP_PROXY": "http://p:3128"}, None),  # a web server's client could set that
        ("https://a.b/x", {"HTTPS_PROXY": "p:1"}, "p"),
        ("https://a.b/x", {"http_proxy": "http://p"}, None),
        ("http://a.b/x", {"http_proxy": "http://p", "no_proxy": ".b"}, None),
        ("http://a.b/x", {"http_proxy": "http://p", "no_proxy": "b.a, other"}, "p"),
        ("http://a.b:81/x", {"all_proxy": "http://p", "no_proxy": "a.b:80"}, "p"),
        ("http://a.b/x", {"http_proxy": "http://p", "no_proxy": "*"}, None),
    ],
)
def test_proxies(url: str, environment: dict[str, str], through: str | None) -> None:
    found = proxy.Proxies({}, environment).for_host(proxy.endpoint(url))
    assert (found.host if found else None) == through


def test_a_proxy_may_want_a_password() -> None:
    found = proxy.endpoint("http://us%40er:pa%3Ass@[::1]:8080/")
    assert found == ("http", "::1", 8080, "us@er", "pa:ss")
    with pytest.raises(BootstrapError, match="is not an http or https address"):
        proxy.endpoint("ftp://x/")


def test_the_host_is_asked(tmp_path: Path) -> None:
    assert machine.debian_arch("x86_64") == "amd64"
    assert machine.locale(None, {}) == machine.locale(None, {"LANG": "C.UTF-8"}) == "en_US.UTF-8"
    assert machine.locale(None, {"LANG": "de_DE.utf8"}) == "de_DE.UTF-8"
    assert machine.locale("C", {}) == "C"
    assert machine.timezone("Europe/Berlin") == "Europe/Berlin"
    resolv = tmp_path / "resolv.conf"
    resolv.write_text("nameserver 127.0.0.53\nsearch here\n")
    assert machine.resolv_conf(str(resolv)) == ""
    resolv.write_text("nameserver 127.0.0.53\nnameserver 10.0.0.1\nsearch here\n")
    assert machine.resolv_conf(str(resolv)) == "search here\nnameserver 10.0.0.1\n"
    foreign = "arm64" if machine.host_arch() != "arm64" else "amd64"
    with pytest.raises(UsageError, match="cannot run programs for"):
        machine.check_runs(foreign, binfmt=str(tmp_path))
    entry = tmp_path / ("qemu-aarch64" if foreign == "arm64" else "qemu-x86_64")
    entry.write_text("enabled\ninterpreter /usr/bin/qemu\nflags: OCF\n")
    machine.check_runs(foreign, binfmt=str(tmp_path))


def test_the_status_of_an_unpacked_package() -> None:
    control = "Package: p\nPriority: extra\nDescription: d\n more\n"
    written = dpkgdb.stanza(control, "install ok unpacked", [["/etc/p", "0" * 32, ""]], {"Priority": "optional"})
    assert written == (
        "Package: p\nStatus: install ok unpacked\nPriority: optional\nDescription: d\n more\n"
        f"Conffiles:\n /etc/p {'0' * 32}\n\n"
    )


def test_triggers_are_found_by_path() -> None:
    triggers = dpkgdb.Triggers()
    triggers.add("p:amd64", "interest-noawait /usr/lib/x\ninterest name\nactivate other\n# comment\n")
    assert triggers.files == [("/usr/lib/x", "p:amd64/noawait")]
    assert triggers.named == {"name": ["p:amd64"]}
    assert triggers.hit([b"\n/usr/lib/xy\n"], ["p:amd64"]) == []
    assert triggers.hit([b"\n/usr/lib/x/y\n"], ["p:amd64"]) == ["/usr/lib/x"]
    assert triggers.hit([b"\n/usr/lib/x/y\n"], ["q"]) == []


@pytest.mark.parametrize(
    ("script", "nothing"),
    [
        ("#!/bin/sh\nset -e\n# x\ndpkg-maintscript-helper rm_conffile \\\n  /etc/x 1 -- \"$@\"\nexit 0\n", True),
        ("#!/bin/sh\nset -e\nmkdir /etc/network\n", False),
        ("#!/bin/sh\ndpkg-maintscript-helper supports x && rm /y\n", False),
        ("#!/bin/sh\ndpkg-maintscript-helper $(rm /y)\n", False),
    ],
)  # fmt: skip
def test_scripts_that_do_nothing_are_known(script: str, nothing: bool) -> None:
    assert install.idle(script) is nothing


def test_a_name_that_is_asked_for_is_that_package(index: Index) -> None:
    """What another one provides meets a dependency; who names the package itself gets it."""
    index.add(INDEX.replace(b"Package: b\n", b"Package: awk\n"))
    names = [package.name for package in resolve.resolve(index, resolve.Wanted(("a",), ("awk",))).packages]
    assert "c" in names
    assert "awk" in names


def test_what_a_terminal_obeys_is_shown_as_its_escape() -> None:
    assert visible("plain \u00e9 \n\ttext") == "plain \u00e9 \n\ttext"
    said = visible("\x1b[2J\x07\r\x7f\x9b\u202e\udc9b")
    assert said == r"\x1b[2J\x07\r\x7f\x9b\u202e\udc9b"


def test_what_a_bar_says() -> None:
    assert bars.amount(500, 0, "bytes", None) == "500 B"
    assert bars.amount(12_000_000, 31_900_000, "bytes", 5e6) == "12.0 MB of 31.9 MB, 5.0 MB/s, 0:04 left"
    assert bars.amount(31_900_000, 31_900_000, "bytes", 5e6) == "31.9 MB of 31.9 MB, 5.0 MB/s"
    assert bars.amount(44, 88, "packages", 0.5) == "44/88 packages, 1:28 left"
    assert bars.amount(0, 88, "packages", None) == "0/88 packages"


def test_the_words_of_the_script_that_failed(tmp_path: Path) -> None:
    """Out of what dpkg 1.21 wrote: no line of another package, none of dpkg's own."""
    log = tmp_path / "log"
    log.write_text(
        "Setting up other (1) ...\nother\nSetting up extra:amd64 (1:2-3) ...\n"
        + "".join(f"line {number}\n" for number in range(30))
        + "dpkg: error processing package extra:amd64 (--configure):\n"
        " installed extra:amd64 package post-installation script subprocess returned error exit status 3\n"
        "dpkg: too many errors, stopping\nErrors were encountered while processing:\n extra:amd64\n"
        "Processing was halted because there were too many errors.\n"
    )
    assert install.tail(str(log), "extra").splitlines() == [f"  | line {number}" for number in range(10, 30)]
    assert install.tail(str(log), "other").splitlines()[-1].endswith("too many errors.")
    assert len(install.tail(str(log)).splitlines()) == 20
    log.write_text("Setting up extra (1) ...\nonly\ndpkg: error processing package extra (--configure):\n x\n")
    assert install.tail(str(log), "extra") == "  | only"


def test_progress_in_three_forms() -> None:
    for make in (progress.Plain, progress.Live, progress.Json):
        stream = io.StringIO()
        shown = make(stream)
        shown.start("download", total=2_000_000, unit="bytes")
        shown.advance("download", 1_500_000)
        shown.warning("careful")
        shown.finish("download")
        shown.close()
        text = stream.getvalue()
        if make is progress.Json:
            events = [json.loads(line) for line in text.splitlines()]
            assert [event["event"] for event in events][:1] + [events[-1]["event"]] == ["start", "finish"]
            assert events[-1]["done"] == 1_500_000
        else:
            assert "warning: careful\n" in text
            assert "download: done in 0.0 s (1.5 MB, " in text
    assert progress.size(999) == "999 B"
    assert progress.size(31_900_000) == "31.9 MB"


def test_the_filter_jumps_to_its_ends() -> None:
    """Every jump of the program stays inside it, and each block ends in both answers."""
    for name in ("x86_64", "aarch64", "armv7l", "i686", "riscv64"):
        code = nosync.program(name)
        words = [code[at : at + 8] for at in range(0, len(code), 8)]
        for place, word in enumerate(words):
            if word[0] == 0x15:
                assert place + 1 + max(word[2], word[3]) < len(words)
        assert words[-1] == b"\x06\0\0\0\0\0\xff\x7f"
    assert nosync.program("vax") == b""
