"""Whole archives: what GNU tar packs comes out the same, and none leads out of its directory."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import images
import pytest
from probes import requires

from lxcpy.bootstrap import squashfs, untar
from lxcpy.errors import BootstrapError

pytestmark = requires("root", "busybox")
Make = Callable[..., Path]
PLAIN = untar.Rules()


@pytest.fixture
def unpacked(tmp_path: Path) -> Iterator[Make]:
    """`unpacked(archive)`: into a directory of its own."""
    count = 0

    def make(archive: Path | bytes, rules: untar.Rules = PLAIN, *, target: Path | None = None) -> Path:
        nonlocal count
        count += 1
        root = target or tmp_path / f"out{count}"
        root.mkdir(exist_ok=True)
        if isinstance(archive, bytes):
            (tmp_path / "archive").write_bytes(archive)
            archive = tmp_path / "archive"
        file = os.open(archive, os.O_RDONLY)
        try:
            make.result = untar.unpack(file, str(root), rules, name="the archive")  # type: ignore[attr-defined]
        finally:
            os.close(file)
        return root

    yield make


@pytest.mark.parametrize("end", ["tar", "tar.gz", "tar.xz", pytest.param("tar.zst", marks=requires("zstd")), "tar.bz2"])
@pytest.mark.parametrize("form", ["gnu", "posix"])
def test_what_tar_packs_comes_out_the_same(tmp_path: Path, unpacked: Make, end: str, form: str) -> None:
    source = images.system(tmp_path / "source")
    words = ["--sparse", "--sparse-version=1.0"] if form == "posix" else ["--sparse"]
    root = unpacked(images.pack(source, tmp_path / f"archive.{end}", f"--format={form}", *words))
    found, expected = images.tree(root), images.tree(source)
    if form == "gnu":  # a format without extended attributes
        expected = {name: (*facts[:4], "{}", *facts[5:]) for name, facts in expected.items()}
    assert found == expected
    assert os.stat(root / "sparse").st_blocks < 1000


def test_sparse_files_of_the_older_pax_format(tmp_path: Path, unpacked: Make) -> None:
    source = images.system(tmp_path / "source")
    archive = images.pack(source, tmp_path / "a.tar", "--format=posix", "--sparse", "--sparse-version=0.1")
    assert images.tree(unpacked(archive)) == images.tree(source)


def tar(*members: tarfile.TarInfo | tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for one in members:
            info, data = one if isinstance(one, tuple) else (one, b"x" * one.size)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "", **settings: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, 0o755
    for key, value in settings.items():
        setattr(info, key, value)
    return info


def test_links_lead_nowhere_outside(tmp_path: Path, unpacked: Make) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_text("host\n")
    inside = str(outside).lstrip("/")
    archive = tar(
        member(f"{inside}", tarfile.DIRTYPE),
        member("absolute", tarfile.SYMTYPE, str(outside)),
        member("up", tarfile.SYMTYPE, "../" * 20 + inside),
        (member("absolute/one"), b"1"),
        (member("up/two"), b"2"),
        (member("/etc/absolute-name"), b"3"),
        member("self", tarfile.SYMTYPE, f"{outside}/file"),
        (member("self"), b"replaced"),
    )
    root = unpacked(archive)
    assert {path.name for path in outside.iterdir()} == {"file"}
    assert (outside / "file").read_text() == "host\n"
    assert {path.name for path in (root / inside).iterdir()} == {"one", "two"}
    assert (root / "etc/absolute-name").read_text() == "3"
    assert (root / "self").read_text() == "replaced"
    assert not (root / "self").is_symlink()


@pytest.mark.parametrize(
    ("archive", "said"),
    [
        (tar(member("../x")), 'the archive: the archive holds the path "../x", which leads outside'),
        (tar(member("a/../../x")), "which leads outside"),
        (tar(member("link", tarfile.LNKTYPE, "../../etc/passwd")), "which leads outside"),
        (tar(member("link", tarfile.LNKTYPE, "etc/passwd")), 'cannot unpack "/link": No such file or directory'),
        (tar(member("", tarfile.SYMTYPE, "/")), "the root of the archive is no directory"),
        (tar(member("f"), member("f/x")), 'cannot unpack "/f/x": Not a directory'),
        (tar(member("x", b"V")), "the archive holds a member of unknown kind b'V'"),
        (tar((member("big"), b"x" * 100000))[:50000], "truncated archive"),
        (b"x" * 1024, "bad tar header"),
        (b"\x1f\x8b" + b"x" * 100, "damaged gz data"),
        (b"", "truncated archive"),
    ],
)
def test_bad_archives_are_refused(unpacked: Make, archive: bytes, said: str) -> None:
    with pytest.raises(BootstrapError) as caught:
        unpacked(archive)
    assert said in caught.value.what


def header(name: bytes, kind: bytes, size: bytes, rest: bytes = b"") -> bytes:
    """A raw header, for what tarfile does not write."""
    block = bytearray(512)
    block[0 : len(name)] = name
    block[100:108], block[108:116], block[116:124], block[136:148] = (
        b"0000644\0",
        b"0000000\0",
        b"0000000\0",
        b"0" * 11 + b"\0",
    )
    block[124 : 124 + len(size)] = size
    block[148:156], block[156:157], block[257:265] = b" " * 8, kind, b"ustar\x0000"
    block[386 : 386 + len(rest)] = rest
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


def octal(number: int) -> bytes:
    return f"{number:011o}\0".encode()


@pytest.mark.parametrize(
    ("archive", "said"),
    [
        # a file of 4 EiB, all hole
        (header(b"huge", b"S", octal(0), struct.pack("97x12s17x", b"\x80\0\0\0" + struct.pack(">Q", 1 << 62))),
         "larger than the file system"),
        # a name of a gigabyte
        (header(b"long", b"L", octal(1 << 30)), "a name or header longer than 64 KiB"),
        (header(b"pax", b"x", octal(1 << 30)), "a name or header longer than 1024 KiB"),
        (header(b"pax", b"x", octal(9)) + b"99 a=b\n\n\n".ljust(512, b"\0"), "bad pax header"),
        (header(b"pax", b"x", octal(12)) + b"12 uid=abcd\n".ljust(512, b"\0") + header(b"f", b"0", octal(0)),
         "bad pax header"),
        (header(b"pax", b"x", octal(13)) + b"13 size=-999\n".ljust(512, b"\0") + header(b"f", b"0", octal(0)),
         "bad pax header"),
        (header(b"negative", b"0", b"\xff" * 12), "bad tar header"),
        (header(b"overlap", b"S", octal(20), b"".join(map(octal, (100, 10, 0, 10))) + bytes(49) + octal(200)),
         "bad sparse map"),
    ],
)  # fmt: skip
def test_headers_that_lie_are_refused(unpacked: Make, archive: bytes, said: str) -> None:
    with pytest.raises(BootstrapError) as caught:
        unpacked(archive + bytes(1024))
    assert said in caught.value.what


def test_only_harmless_devices_are_made(unpacked: Make) -> None:
    disk = member("disk", tarfile.BLKTYPE, devmajor=8, devminor=0)
    memory = member("mem", tarfile.CHRTYPE, devmajor=1, devminor=1)
    zero = member("zero", tarfile.CHRTYPE, devmajor=1, devminor=5)
    archive = tar(disk, memory, zero)
    root = unpacked(archive)
    assert os.listdir(root) == ["zero"]
    assert os.stat(root / "zero").st_rdev == os.makedev(1, 5)
    assert unpacked.result.left_out == 2  # type: ignore[attr-defined]
    assert os.listdir(unpacked(archive, untar.Rules(devices=False))) == []


def test_attributes_of_overlayfs_and_labels_are_left_out(unpacked: Make) -> None:
    info = member("f")
    info.pax_headers = {
        "SCHILY.xattr.trusted.overlay.redirect": "/etc", "SCHILY.xattr.user.overlay.opaque": "y",
        "SCHILY.xattr.user.fine": "1", "SCHILY.xattr.security.selinux": "x",
    }  # fmt: skip
    root = unpacked(tar(info, form=tarfile.PAX_FORMAT))
    assert os.listxattr(root / "f") == ["user.fine"]


def test_patterns_leave_out_what_tar_would(tmp_path: Path, unpacked: Make) -> None:
    source = images.system(tmp_path / "source")
    archive = images.pack(source, tmp_path / "a.tar")
    patterns = ["./dev/*", "./etc/g*", "./usr/bin", "./no/such"]
    root = unpacked(archive, untar.Rules(excludes=patterns))
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    words = [f"--exclude={pattern}" for pattern in patterns]
    subprocess.run(
        ["tar", "--anchored", *words, "--xattrs", "--xattrs-include=*", "-xpf", str(archive), "-C", str(theirs)],
        check=True,
    )
    assert images.tree(root) == images.tree(theirs)


def test_a_full_disk_says_so(tmp_path: Path, unpacked: Make) -> None:
    target = tmp_path / "small"
    target.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "small", str(target)], check=True)
    try:
        archive = tar(*((member(f"f{number}"), b"x" * 100_000) for number in range(10)))
        with pytest.raises(BootstrapError, match="no space left"):
            unpacked(archive, target=target)
    finally:
        subprocess.run(["umount", str(target)], check=True)


# -- layers ----------------------------------------------------------------------------------------------------------


def test_a_layer_takes_away_what_earlier_ones_put(tmp_path: Path, unpacked: Make) -> None:
    rules = untar.Rules(layer=True)
    lower = [
        (member(name), b"old") for name in ("keep", "gone", "dir/one", "dir/two", "dir/sub/deep", "tree/x", "later")
    ]
    root = unpacked(tar(*lower), rules)
    upper = tar(
        (member(".wh.gone"), b""),
        (member("dir/new"), b"new"),  # before the mark and after it: both are of this layer
        (member("dir/sub/mine"), b"new"),
        (member("dir/.wh..wh..opq"), b""),
        (member("dir/late"), b"new"),
        (member("tree"), b"a file now"),
        (member("later"), b"new"),
        (member(".wh.later"), b""),  # of lower layers only
        (member(".wh..wh.plnk"), b""),
        (member(".wh.never"), b""),
    )
    unpacked(upper, rules, target=root)
    found = {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}
    assert found == {"keep", "dir/new", "dir/sub/mine", "dir/late", "tree", "later"}
    assert (root / "tree").read_text() == "a file now"


@pytest.mark.parametrize("name", [".wh...", ".wh..", ".wh.", "a/.wh..."])
def test_a_layer_takes_away_nothing_but_names(unpacked: Make, name: str) -> None:
    with pytest.raises(BootstrapError, match="which is no name"):
        unpacked(tar(member("a", tarfile.DIRTYPE), (member(name), b"")), untar.Rules(layer=True))


def test_a_whiteout_through_a_link_stays_inside(tmp_path: Path, unpacked: Make) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").touch()
    archive = tar(
        member("link", tarfile.SYMTYPE, str(outside)),
        (member("link/.wh.file"), b""),
        (member("link/.wh..wh..opq"), b""),
    )
    unpacked(archive, untar.Rules(layer=True))
    assert (outside / "file").exists()


def test_deep_trees_are_taken_away(unpacked: Make) -> None:
    deep = tar(*(member("a/" * (depth + 1), tarfile.DIRTYPE) for depth in range(1500)))
    root = unpacked(deep, untar.Rules(layer=True))
    unpacked(tar((member(".wh.a"), b"")), untar.Rules(layer=True), target=root)
    assert os.listdir(root) == []


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_the_plain_content_is_checked(unpacked: Make, algorithm: str) -> None:
    import gzip
    import hashlib

    plain = tar((member("f"), b"x"))
    digest = f"{algorithm}:{hashlib.new(algorithm, plain).hexdigest()}"
    unpacked(gzip.compress(plain), untar.Rules(digest=digest))
    with pytest.raises(BootstrapError, match=f"wrong content: its {algorithm} is"):
        unpacked(gzip.compress(plain), untar.Rules(digest=digest[:-1] + "x"))


# -- squashfs --------------------------------------------------------------------------------------------------------


@requires("mksquashfs", "unsquashfs")
def test_a_squashfs_image_comes_out_without_devices(tmp_path: Path) -> None:
    source = images.system(tmp_path / "source")
    image = tmp_path / "image"
    subprocess.run(["mksquashfs", str(source), str(image), "-quiet", "-no-progress", "-comp", "gzip"], check=True)
    root = tmp_path / "out"
    root.mkdir()
    with open(image, "rb") as file:
        assert squashfs.is_one(file.fileno())
        squashfs.unpack(file.fileno(), str(root), name="image", excludes=["./etc/greeting"])
    expected = images.tree(source)
    for name in ("dev/null", "etc/greeting"):
        del expected[name]
    found = images.tree(root)
    for name in ("dev", "etc"):  # their times: something was left out
        expected[name] = found[name]
    assert found == expected


@requires("unsquashfs")
def test_what_is_no_squashfs_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "image").write_bytes(b"hsqs" + b"x" * 5000)
    (tmp_path / "out").mkdir()
    with (
        open(tmp_path / "image", "rb") as file,
        pytest.raises(BootstrapError, match="cannot unpack image: unsquashfs: "),
    ):
        squashfs.unpack(file.fileno(), str(tmp_path / "out"), name="image")
