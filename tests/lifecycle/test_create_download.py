"""lxcpy-create -t download: from an image server's index to a container that boots, and what is refused on the way."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import images
import pytest
from debmirror import Key, Server
from images import MAPPED, Run, boots
from imageserver import NAMES, Images, TlsServer, certificate
from probes import requires

pytestmark = requires("root", "busybox", "gpg", "gpgv", "openssl")
IMAGE = ("-d", "busybox", "-r", "1.0", "-a", "amd64")


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return certificate(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("image")
    source = images.system(folder / "source")
    (source / "etc/hostname").write_text("LXC_NAME\n")
    user = {"config-user": images.CONFIG + "lxc.include = LXC_TEMPLATE_CONFIG/userns.conf\n"}
    return {
        "rootfs.tar.xz": images.pack(source, folder / "rootfs.tar.xz"),
        "meta.tar.xz": images.meta(folder / "meta.tar.xz", {"create-message": "Welcome.\n", **user}),
    }


@pytest.fixture
def store(tmp_path: Path, key: Key) -> Images:
    return Images(tmp_path / "server", key)


@pytest.fixture
def server(store: Images, tls: tuple[Path, Path]) -> Iterator[Server]:
    found = TlsServer(store.root, *tls)
    yield found
    found.stop()


class Creation:
    """`create(words...)`: run lxcpy-create against the server; the private authority is known, caches are its own."""

    def __init__(self, run: Run, lxcpath: str, names: Callable[[], str], server: Server, base: Path, ca: Path) -> None:
        self.run, self.lxcpath, self.names, self.server, self.base = run, lxcpath, names, server, base
        self.env = {**os.environ, "SSL_CERT_FILE": str(ca), "LXCPY_CACHE_DIR": str(base / "cache")}
        self.name = ""
        self.config = base / "begin.conf"
        self.config.write_text("lxc.net.0.type = empty\n")

    @property
    def words(self) -> tuple[str, ...]:
        return "-P", self.lxcpath, "-n", self.name

    @property
    def directory(self) -> Path:
        return Path(self.lxcpath, self.name)

    def __call__(self, *words: str, server: str | None = None, **options: object) -> subprocess.CompletedProcess[str]:
        self.name = self.names()
        url = [] if server == "" else ["--server", server or self.server.url]
        settings = {"env": self.env, **options}
        argv = ("create", *self.words, "-t", "download", "-f", str(self.config), "--", *words, *url)
        return self.run(*argv, **settings)

    def good(self, *words: str, **options: str) -> Path:
        self.server.requests.clear()
        done = self(*words, **options)
        assert done.returncode == 0, done.stderr
        return self.directory

    def bad(self, *words: str, **options: str) -> str:
        done = self(*words, **options)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert not self.directory.exists()
        return done.stderr.replace(self.server.url, "URL")


@pytest.fixture
def create(
    run: Run, lxcpath: str, names: Callable[[], str], server: Server, tmp_path: Path, tls: tuple[Path, Path]
) -> Creation:
    return Creation(run, lxcpath, names, server, tmp_path, tls[0])


@pytest.mark.parametrize("mapped", [False, True], ids=["", "idmapped"])
def test_an_image_boots(create: Creation, store: Images, files: dict[str, Path], mapped: bool) -> None:
    store.add(files)
    store.publish()
    if mapped:
        create.config.write_text(create.config.read_text() + MAPPED)
    done = create(*IMAGE)
    assert done.returncode == 0, done.stderr
    assert "Welcome.\n" in done.stderr
    root = create.directory / "rootfs"
    assert (root / "etc/hostname").read_text() == f"{create.name}\n"
    assert (root / "etc/secret").stat().st_uid == (700007 if mapped else 7)
    assert ("userns.conf" in (create.directory / "config").read_text()) is mapped
    boots(create.run, create.words)


def test_the_cache_serves_until_the_image_expires(
    create: Creation, store: Images, server: Server, files: dict[str, Path], tmp_path: Path
) -> None:
    expiry = {"expiry": f"{int(time.time()) + 1000}\n"}
    store.add({**files, "meta.tar.xz": images.meta(tmp_path / "m.xz", expiry)})
    store.publish("meta/1.0/index-system.7")
    create.good(*IMAGE)
    assert [path.rpartition("/")[2] for path in server.requests] == [
        "index-system.7", "SHA256SUMS", "meta.tar.xz", "rootfs.tar.xz",
    ]  # fmt: skip
    create.good(*IMAGE)
    assert server.requests == []  # as with LXC, not even the index is asked
    create.good(*IMAGE, "--flush-cache")
    assert len(server.requests) == 2  # the index and the sums: the files themselves are known by their hashes
    # An expired one is looked up again; the same build is not fetched twice.
    store.add({**files, "meta.tar.xz": images.meta(tmp_path / "n.xz", {"expiry": "1\n"})}, build="20240102_00:00")
    store.publish("meta/1.0/index-system.7")
    create.good(*IMAGE, "--flush-cache")
    create.good(*IMAGE)
    assert server.requests == ["/meta/1.0/index-system.7"]
    create.good(*IMAGE, "--force-cache")
    assert server.requests == []
    source = store.add(files, build="20240103_00:00")
    (source / "rootfs.tar.xz").unlink()  # the tree itself is the same, and known
    store.publish("meta/1.0/index-system.7")
    create.good(*IMAGE)


def test_offline_nothing_is_asked(
    create: Creation, store: Images, server: Server, files: dict[str, Path], tmp_path: Path
) -> None:
    """What is here does, expired or not; what is not here is told."""
    store.add({**files, "meta.tar.xz": images.meta(tmp_path / "m.xz", {"expiry": "1\n"})})
    store.publish()
    words = (*IMAGE, "--offline")
    assert "the image busybox 1.0 amd64 default of" in create.bad(*words)
    create.good(*IMAGE)
    create.good(*words)
    shutil.rmtree(tmp_path / "cache/rootfs")
    create.good(*words)
    assert "--offline takes the cached image, and --flush-cache none" in create.bad(*words, "--flush-cache")
    assert "--offline needs --release" in create.bad("-d", "busybox", "-a", "amd64", "--offline")
    assert "the list is the server's" in create.bad("--list", "--offline")
    assert server.requests == []


def test_many_at_once_fetch_each_file_once(
    create: Creation, store: Images, server: Server, files: dict[str, Path], bin: str
) -> None:
    store.add(files)
    store.publish()
    server.requests.clear()
    argv = [f"{bin}/lxcpy-create", "-q", "-P", create.lxcpath, "-t", "download", "-f", str(create.config)]
    running = [
        subprocess.Popen([*argv, "-n", create.names(), "--", *IMAGE, "--server", server.url], env=create.env)
        for _ in range(6)
    ]
    assert [process.wait() for process in running] == [0] * 6
    assert sorted(path.rpartition("/")[2] for path in server.requests) == [
        "SHA256SUMS", "index-system", "index-system.7", "meta.tar.xz", "rootfs.tar.xz",
    ]  # fmt: skip


@pytest.mark.parametrize("delay", [0.2, 0.4, 0.6, 0.9])
def test_a_kill_at_any_moment_leaves_nothing_that_bars_the_next(
    create: Creation, store: Images, files: dict[str, Path], bin: str, delay: float
) -> None:
    store.add(files)
    store.publish()
    name = create.names()
    argv = [f"{bin}/lxcpy-create", "-q", "-P", create.lxcpath, "-n", name, "-t", "download", "-f", str(create.config)]
    process = subprocess.Popen([*argv, "--", *IMAGE, "--server", create.server.url], env=create.env)
    time.sleep(delay)  # a moment of the way, whichever: nothing depends on which
    process.kill()
    process.wait()
    made = Path(create.lxcpath, name)
    if (made / "config").exists() and not (made / "partial").exists():
        assert (made / "rootfs").is_dir()
        name = create.names()  # it was whole before the kill
    create.names = lambda: name
    create.good(*IMAGE)
    for path in (create.base / "cache/objects").glob("??/*"):
        assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    assert not list((create.base / "cache/rootfs").glob("*.partial"))


def test_a_full_cache_is_refused_and_no_harm_is_done(
    create: Creation, store: Images, server: Server, files: dict[str, Path], tmp_path: Path
) -> None:
    store.add(files)
    store.publish()
    cache = tmp_path / "cache"
    cache.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "small", str(cache)], check=True)
    try:
        assert f'cannot write to "{cache}": no space left' in create.bad(*IMAGE)
        assert not list((cache / "objects/partial").iterdir())
        subprocess.run(["mount", "-o", "remount,size=64m", str(cache)], check=True)
        create.good(*IMAGE)
    finally:
        subprocess.run(["umount", str(cache)], check=True)


def test_the_next_server_of_a_list(create: Creation, store: Images, server: Server, files: dict[str, Path]) -> None:
    store.add(files)
    store.publish()
    create.good(*IMAGE, "--server", f"https://127.0.0.1:9,{server.url}")
    assert any(path.endswith("rootfs.tar.xz") for path in server.requests)


def test_a_spoilt_cache_is_mended(create: Creation, store: Images, files: dict[str, Path]) -> None:
    store.add(files)
    store.publish()
    create.good(*IMAGE)
    for path in (create.base / "cache/objects").glob("??/*"):
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert "a cached file of the image is damaged, it is removed\n  hint: run the command again" in create.bad(*IMAGE)
    create.good(*IMAGE)


@pytest.mark.parametrize("layout", ["sums", "files", "streams"])
def test_signatures_are_checked(
    create: Creation, store: Images, server: Server, files: dict[str, Path], key: Key, layout: str, tmp_path: Path
) -> None:
    if layout == "streams":
        store.streams({"root.tar.xz": files["rootfs.tar.xz"], "lxc.tar.xz": files["meta.tar.xz"]})
    else:
        folder = store.add(files, sums=layout == "sums")
        store.publish()
        if layout == "files":
            for name in files:
                store.sign(folder / name)
    ring = (f"--keyring={key.ring}",)
    create.good(*IMAGE, *ring, f"--keyid=0x{key.fingerprint}")
    other = Key(tmp_path / "other", name="other")
    said = create.bad(*IMAGE, f"--keyring={other.ring}")
    assert f"bad signature: it is signed with key {key.fingerprint[-16:]}, which is in no keyring" in said
    assert f"is signed by {key.fingerprint}, not by {'A' * 40}" in create.bad(*IMAGE, *ring, f"--keyid={'A' * 40}")
    # Every signed file, changed in turn.
    for path in sorted(store.root.rglob("*")):
        if path.suffix in (".sjson", ".xz") or path.name in ("index-system", "SHA256SUMS"):
            whole = path.read_bytes()
            path.write_bytes(
                whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:]
                if path.suffix != ".sjson"
                else whole.replace(b"amd64", b"amd65").replace(b"streams/v1", b"streams/v2")
            )
            said = create.bad(*IMAGE, *ring, "--flush-cache") if path.suffix != ".xz" else ""
            if path.suffix == ".xz":
                subprocess.run(["rm", "-r", str(create.base / "cache")], check=True)
                said = create.bad(*IMAGE, *ring)
            assert "bad signature: the content does not match" in said or "wrong hash" in said, path
            path.write_bytes(whole)
    # Signatures that are not there.
    for path in [*store.root.rglob("*.asc"), *store.root.rglob("*.sjson")]:
        path.unlink()
    assert "is not signed: there is no" in create.bad(*IMAGE, *ring, "--flush-cache")
    create.good(*IMAGE)


def test_a_wrong_hash_is_refused_without_signatures_too(
    create: Creation, store: Images, files: dict[str, Path]
) -> None:
    folder = store.add(files)
    store.publish()
    (folder / "rootfs.tar.xz").write_bytes(b"x" * 1000)
    said = create.bad(*IMAGE)
    assert "rootfs.tar.xz: wrong hash: SHA256 is " in said
    assert "wrong hash" not in create.bad(*IMAGE, "--no-validate")


def test_simplestreams(create: Creation, store: Images, files: dict[str, Path]) -> None:
    """Without LXC's metadata the distribution's preset serves."""
    store.streams({"root.tar.xz": files["rootfs.tar.xz"], "incus.tar.xz": files["meta.tar.xz"]})
    create.good(*IMAGE)
    text = (create.directory / "config").read_text()
    assert "lxc.include = /usr/share/lxc/config/common.conf\nlxc.arch = amd64\n" in text
    with open(create.directory / "config", "a") as file:
        file.write("lxc.signal.halt = SIGUSR1\n")
    boots(create.run, create.words)


@requires("mksquashfs", "unsquashfs")
def test_a_squashfs_image(create: Creation, store: Images, files: dict[str, Path], tmp_path: Path) -> None:
    image = tmp_path / "rootfs.squashfs"
    source = files["rootfs.tar.xz"].parent / "source"
    subprocess.run(["mksquashfs", str(source), str(image), "-quiet", "-no-progress", "-comp", "gzip"], check=True)
    store.streams({"squashfs": image, "lxc.tar.xz": files["meta.tar.xz"]})
    create.good(*IMAGE)
    boots(create.run, create.words)


def test_the_list_is_lxcs(create: Creation, store: Images, files: dict[str, Path]) -> None:
    store.add(files)
    store.add(files, names=("busybox", "2.0", "arm64", "cloud"), build="20240202_11:11")
    store.publish()
    done = create("--list")
    head = "---\nDIST             RELEASE     ARCH   VARIANT  BUILD         \n---\n"
    one = "busybox          1.0         amd64  default  20240101_00:00\n"
    two = "busybox          2.0         arm64  cloud    20240202_11:11\n"
    assert (done.returncode, done.stdout) == (0, f"{head}{one}{two}---\n")
    assert create("-l", "-a", "arm64").stdout == f"{head}{two}---\n"
    assert os.listdir(create.lxcpath) == []


def test_what_is_missing_is_asked_for(create: Creation, store: Images, files: dict[str, Path]) -> None:
    store.add(files)
    store.publish()
    done = create(stdin=None, input="busybox\n1.0\namd64\n")
    assert done.returncode == 0, done.stderr
    assert "Distribution: Release: Architecture: " in done.stderr
    said = create.bad("-d", "busybox")
    assert "template download: which release?\n  hint: give --dist, --release and --arch" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            (*IMAGE, "-v", "none"),
            "URL has no image busybox 1.0 amd64 none\n  hint: lxcpy-create -t download -n NAME -- --list",
        ),
        (("-d", "../x", "-r", "1", "-a", "2"), '"../x" cannot be a distribution'),
        ((*IMAGE, "--keyserver=x"), "lxcpy takes no key from a keyserver, which anybody can put one on"),
        (
            (*IMAGE, "--keyid=BAEFF88C22F6E216", "--keyring={ring}"),
            "is not a fingerprint\n  hint: give all its 40 digits",
        ),
        ((*IMAGE, f"--keyid={'A' * 40}"), "--keyid: of which keyring?"),
        ((*IMAGE, "--keyring=/nowhere"), 'cannot read the keyring "/nowhere"'),
    ],
)
def test_what_cannot_be_is_said(
    create: Creation, store: Images, files: dict[str, Path], key: Key, words: tuple[str, ...], said: str
) -> None:
    store.add(files)
    store.publish()
    assert said in create.bad(*(word.format(ring=key.ring) for word in words))


def test_plain_http_needs_something_that_vouches(
    create: Creation, store: Images, files: dict[str, Path], key: Key
) -> None:
    store.add(files)
    store.publish()
    plain = Server(store.root)
    try:
        assert "anybody on the way could change what comes over http" in create.bad(*IMAGE, server=plain.url)
        create.good(*IMAGE, f"--keyring={key.ring}", server=plain.url)
        create.good(*IMAGE, "--no-validate", server=plain.url)
    finally:
        plain.stop()


def test_an_unknown_authority_is_refused(create: Creation, store: Images, files: dict[str, Path]) -> None:
    store.add(files)
    store.publish()
    del create.env["SSL_CERT_FILE"]
    assert "its certificate is not trusted (self-signed certificate)" in create.bad(*IMAGE)


def test_a_private_authority_can_be_named_and_a_login_stays_secret(
    create: Creation, store: Images, files: dict[str, Path], tls: tuple[Path, Path]
) -> None:
    store.add(files)
    store.publish()
    del create.env["SSL_CERT_FILE"]
    url = create.server.url.replace("https://", "https://me:hush@")
    directory = create.good(*IMAGE, f"--ca={tls[0]}", server=url)
    assert "hush" not in (directory / "config").read_text()
    assert "hush" not in create.bad("-d", "x", "-r", "1", "-a", "y", f"--ca={tls[0]}", server=url)


def test_an_image_may_not_run_programs_of_the_host(
    create: Creation, store: Images, files: dict[str, Path], tmp_path: Path
) -> None:
    for number, (hook, fine) in enumerate([
        ("lxc.hook.pre-start = /bin/touch /tmp/x", False), ("lxc.hook.clone = LXC_HOOK_DIR/clonehostname", True),
        ("lxc.hook.clone = LXC_HOOK_DIR/../../x", False),
    ]):  # fmt: skip
        meta = images.meta(tmp_path / f"{number}.xz", {"config": images.CONFIG + hook + "\n"})
        store.add({**files, "meta.tar.xz": meta}, build=f"2024010{number}_00:00")
        store.publish()
        if fine:
            create.good(*IMAGE, "--flush-cache")
        else:
            assert "the image's config would run" in create.bad(*IMAGE, "--flush-cache")
    create.good(*IMAGE, "--no-validate")


def test_a_hostile_index_leads_nowhere(create: Creation, store: Images, files: dict[str, Path]) -> None:
    store.add(files)
    store.lines = [";".join([*NAMES, "1", "/images/../../etc"])]
    store.publish()
    assert "which leads outside" in create.bad(*IMAGE)
    store.lines = ["\x00;;;;", ";".join([*NAMES, "1", ""]), "a/b;1;2;3;4;5"]
    store.publish()
    assert "has no image" in create.bad(*IMAGE)


def test_what_is_no_image_server(create: Creation, store: Images) -> None:
    assert "URL is no image server: it has neither" in create.bad(*IMAGE)
