"""From a template to a container's root filesystem: mirrors and suites, the cache, what is each container's own."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from debmirror import Archive, Key, Server, date, tiny
from probes import requires

from lxcpy.bootstrap import template as templates
from lxcpy.bootstrap.create import bootstrap
from lxcpy.bootstrap.progress import Silent
from lxcpy.bootstrap.rootfscache import Trees
from lxcpy.errors import BootstrapError, UsageError
from lxcpy.storage import blob
from lxcpy.storage.copy import copy_tree
from lxcpy.storage.tree import remove_tree

pytestmark = requires("root", "gpg", "gpgv", "busybox")
ROOT = Path(__file__).parents[2]
TREES = Trees(copy_tree, remove_tree, blob.pack, blob.unpack, blob.usable)


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return Key(tmp_path_factory.mktemp("key") / "home")


@pytest.fixture
def archive(tmp_path: Path, key: Key) -> Archive:
    found = Archive(tmp_path / "mirror", key)
    tiny(found)
    return found


@pytest.fixture
def server(archive: Archive) -> Iterator[Server]:
    found = Server(archive.root)
    yield found
    found.stop()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LXCPY_CACHE_DIR", str(tmp_path / "cache"))
    for word in ("MIRROR", "SECURITY_MIRROR", "KEYRING", "LANG"):
        monkeypatch.delenv(word, raising=False)
    return tmp_path / "cache"


@pytest.fixture
def debian(tmp_path: Path) -> templates.Template:
    """The debian template for the tiny archive: its own suites and package."""
    found = templates.find("debian")
    folder = tmp_path / "template"
    shutil.copytree(found.path, folder)
    settings = {**found.settings, "release": "stable", "suites": "stable=tiny old=older", "packages": "extra"}
    settings["packages.minbase"] = "dpkg"
    return templates.Template("debian", str(folder), settings)


class Creation:
    """Bootstraps containers c1, c2, …"""

    def __init__(self, template: templates.Template, server: Server, key: Key, base: Path) -> None:
        self.template, self.server, self.key, self.base = template, server, key, base
        self.count = 0

    def __call__(self, *words: str, config: str = "", security: bool = False) -> Path:
        self.count += 1
        directory = self.base / f"c{self.count}"
        (directory / "rootfs").mkdir(parents=True)
        (directory / "config").write_text(config)
        urls = [f"--mirror={self.server.url}", f"--keyring={self.key.ring}"]
        if security:
            urls.append(f"--security-mirror={self.server.url}")
        else:
            os.environ["SECURITY_MIRROR"] = ""
        settings = dict(self.template.settings)
        if not security:
            settings["security_suite"] = ""
        bootstrap(
            self.template._replace(settings=settings), [*urls, *words], target=str(directory / "rootfs"),
            config_path=str(directory / "config"), name=f"c{self.count}", progress=Silent(), trees=TREES,
        )  # fmt: skip
        return directory


@pytest.fixture
def create(debian: templates.Template, server: Server, key: Key, tmp_path: Path) -> Creation:
    return Creation(debian, server, key, tmp_path)


def test_a_container_gets_what_is_its_own(archive: Archive, create: Creation, tmp_path: Path) -> None:
    archive.publish("tiny", codename="tiny", fields={"Suite": "stable"})
    public = tmp_path / "key.pub"
    public.write_text("ssh-ed25519 AAAA me")
    nic = "lxc.net.0.type = veth\nlxc.net.0.link = br0\n"
    one = create("-S", str(public), "--password=s$(x) '", config=nic)
    root = one / "rootfs"
    assert (root / "etc/hostname").read_text() == "c1\n"
    assert "127.0.1.1 c1\n" in (root / "etc/hosts").read_text()
    assert (root / "etc/apt/sources.list").read_text() == f"deb {create.server.url} tiny main\n"
    assert (root / "root/.ssh/authorized_keys").read_text() == "ssh-ed25519 AAAA me\n"
    assert (root / "root/.ssh").stat().st_mode & 0o777 == 0o700
    assert (root / "root/.ssh/authorized_keys").stat().st_mode & 0o777 == 0o600
    assert (root / "chpasswd").read_text() == "root:s$(x) '\n"
    assert os.readlink(root / "etc/mtab") == "/proc/self/mounts"
    assert len((root / "etc/machine-id").read_text().strip()) == 32
    config = (one / "config").read_text()
    assert config.startswith("lxc.net.0.type = veth\nlxc.net.0.hwaddr = 00:16:3e:")
    for line in ("lxc.include = /usr/share/lxc/config/debian.common.conf", "lxc.uts.name = c1", "lxc.arch = amd64",
                 "lxc.tty.max = 4", "lxc.pty.max = 1024"):  # fmt: skip
        assert f"\n{line}\n" in config
    two = create(config="lxc.tty.max = 2\n")
    assert (two / "rootfs/etc/machine-id").read_text() != (root / "etc/machine-id").read_text()
    assert not (two / "rootfs/root/.ssh").exists()
    assert "lxc.tty.max = 2\nlxc.uts.name = c2\n" in (two / "config").read_text()


def test_the_second_comes_from_the_cache(archive: Archive, create: Creation, cache: Path) -> None:
    archive.publish("tiny", fields={"Suite": "stable"})
    first = create()
    packed = list((cache / "rootfs").glob("debian-tiny-amd64-*.packed"))
    assert len(packed) == 1
    assert not list((cache / "rootfs").glob("*.partial"))
    shutil.rmtree(cache / "objects")  # nothing is unpacked again
    create.server.requests.clear()
    second = create()
    assert create.server.requests == ["/dists/tiny/InRelease"]
    for path in ("usr/share/extra", "var/lib/dpkg/status", "usr/bin/busybox"):
        one, two = first / "rootfs" / path, second / "rootfs" / path
        assert one.read_bytes() == two.read_bytes()
        assert one.stat().st_mode == two.stat().st_mode
        assert int(one.stat().st_mtime) == int(two.stat().st_mtime) or path.startswith("var")
    # Another set is another tree; a changed package too.
    create("--variant=minbase")
    archive.add({"Package": "extra", "Version": "2", "Depends": "dpkg"}, {"usr/share/extra": b"new\n"})
    archive.publish("tiny", fields={"Suite": "stable"})
    third = create()
    assert (third / "rootfs/usr/share/extra").read_text() == "new\n"
    assert len(list((cache / "rootfs").glob("*.packed"))) == 3
    create("-F")
    create("-c")
    assert not list((cache / "rootfs").glob("*.packed"))


def test_no_cache_leaves_none(archive: Archive, create: Creation, cache: Path) -> None:
    archive.publish("tiny", fields={"Suite": "stable"})
    create("--no-cache")
    assert not list((cache / "rootfs").glob("*.packed"))
    assert not list((cache / "plans").iterdir())
    assert not list((cache / "logs").iterdir())


def test_a_suite_is_followed_to_its_code_name(archive: Archive, create: Creation) -> None:
    """`stable` became another release than the template knows, and its own file on the mirror is old."""
    archive.publish("newer", codename="newer", fields={"Suite": "stable"})
    archive.publish("stable", codename="newer", fields={"Valid-Until": date(-86400)})
    archive.publish("tiny", codename="tiny", fields={"Suite": "oldstable"})
    root = create() / "rootfs"
    assert " newer main" in (root / "etc/apt/sources.list").read_text()
    # An old file that leads to what is no longer stable is not followed.
    archive.publish("stable", codename="tiny")
    with pytest.raises(BootstrapError, match='says that "stable" is tiny, and tiny says that it is "oldstable"'):
        create()


def test_security_updates_are_installed(archive: Archive, create: Creation, key: Key, tmp_path: Path) -> None:
    archive.publish("tiny", fields={"Suite": "stable"})
    archive.stanzas.clear()
    archive.add({"Package": "extra", "Version": "1+sec", "Depends": "dpkg, virtual"}, {"usr/share/extra": b"safe\n"})
    archive.publish("tiny-security", codename="tiny-security")
    root = create(security=True) / "rootfs"
    assert (root / "usr/share/extra").read_text() == "safe\n"
    assert f"deb {create.server.url} tiny-security main\n" in (root / "etc/apt/sources.list").read_text()
    # Changed on its way is no reason to go on without.
    path = archive.root / "dists/tiny-security/InRelease"
    path.write_bytes(path.read_bytes().replace(b"Origin: Tiny", b"Origin: Evil"))
    with pytest.raises(BootstrapError, match="bad signature"):
        create(security=True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--variant=nonsense"], 'there is no variant "nonsense"'),
        (["-a", "vax"], "machine cannot run programs for vax"),
        (["--password=a:b"], "--password: it must not hold a colon or a control character"),
        (["-S", "/nowhere"], '--auth-key: cannot read "/nowhere": No such file or directory'),
    ],
)
def test_nonsense_is_refused_before_anything_is_done(
    archive: Archive, create: Creation, words: list[str], said: str
) -> None:
    archive.publish("tiny", fields={"Suite": "stable"})
    with pytest.raises(UsageError) as caught:
        create(*words)
    assert said in caught.value.what
    assert create.server.requests == []


def test_a_private_key_is_not_given_away(create: Creation, tmp_path: Path) -> None:
    private = tmp_path / "id"
    private.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    with pytest.raises(UsageError, match="is a private key"):
        create("-S", str(private))


SCRIPT = """
import os, sys
sys.path[:0] = [{root!r}, {root!r} + "/tests", {root!r} + "/tests/lifecycle"]
os.environ["LXCPY_CACHE_DIR"] = {cache!r}
from pathlib import Path
from types import SimpleNamespace as N
import test_bootstrap_create as t
from lxcpy.bootstrap import template
found = template.Template("debian", {template!r}, {settings!r})
create = t.Creation(found, N(url={url!r}), N(ring={ring!r}), Path({base!r}))
create.count = {number}
create()
"""


def start(create: Creation, cache: Path, number: int) -> subprocess.Popen[bytes]:
    code = textwrap.dedent(SCRIPT).format(
        root=str(ROOT), cache=str(cache), template=create.template.path, settings=dict(create.template.settings),
        url=create.server.url, ring=str(create.key.ring), base=str(create.base), number=number,
    )  # fmt: skip
    return subprocess.Popen([sys.executable, "-c", code])


def test_creates_at_once_make_the_tree_once(archive: Archive, create: Creation, cache: Path) -> None:
    archive.publish("tiny", fields={"Suite": "stable"})
    running = [start(create, cache, number) for number in range(10, 16)]
    assert [process.wait() for process in running] == [0] * 6
    assert len(list((cache / "rootfs").glob("*.packed"))) == 1
    pool = [path for path in create.server.requests if path.startswith("/pool/")]
    assert len(pool) == len(set(pool))
    for number in range(11, 17):
        assert (create.base / f"c{number}/rootfs/etc/hostname").read_text() == f"c{number}\n"


@pytest.mark.parametrize("delay", [0.25, 0.4, 0.55, 0.7, 0.9])
def test_a_kill_at_any_moment_leaves_a_cache_that_works(
    archive: Archive, create: Creation, cache: Path, delay: float
) -> None:
    archive.publish("tiny", fields={"Suite": "stable"})
    process = start(create, cache, 10)
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    root = create() / "rootfs"
    assert (root / "usr/share/extra").read_text() == "extra\n"
    assert (root / "var/lib/dpkg/status").read_text().count("install ok installed") == 5
    assert not list((cache / "rootfs").glob("*.partial"))


def test_a_spoilt_packed_tree_is_made_anew(archive: Archive, create: Creation, cache: Path) -> None:
    archive.publish("tiny", fields={"Suite": "stable"})
    create()
    (packed,) = (cache / "rootfs").glob("*.packed")
    packed.write_bytes(packed.read_bytes()[:1000])
    assert (create() / "rootfs/usr/share/extra").exists()


def test_a_leftover_of_another_tree_goes(archive: Archive, create: Creation, cache: Path) -> None:
    archive.publish("tiny", fields={"Suite": "stable"})
    leftover = cache / "rootfs/debian-gone-amd64-0.partial"
    leftover.mkdir(parents=True)
    (leftover / "file").touch()
    create()
    assert not leftover.exists()
