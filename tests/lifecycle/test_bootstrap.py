"""A whole system out of a signed archive on loopback: what comes out, what goes wrong, and what a kill leaves."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import sys
import tarfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from debmirror import DPKG, Archive, Fault, Handler, Key, Server, tiny
from probes import requires

from lxcpy.bootstrap import compression, install, keyring, plan, release, shortcuts
from lxcpy.bootstrap.cache import Store
from lxcpy.bootstrap.download import Client, Mirrors
from lxcpy.bootstrap.progress import Silent
from lxcpy.bootstrap.workers import Worker
from lxcpy.errors import BootstrapError

pytestmark = requires("root", "gpg", "gpgv", "busybox")
ROOT = Path(__file__).parents[2]


class Maker:
    """Bootstraps from the server into numbered directories."""

    def __init__(self, server: Server, ring: Path, base: Path) -> None:
        self.server, self.ring, self.base = server, ring, base
        self.store = Store(str(base / "cache"))
        self.settings = install.Install(log=str(base / "log"))
        self.count = 0
        self.target = base / "t0"

    def __call__(self, *packages: str, bases: list[str] | None = None, target: Path | None = None) -> Path:
        self.count += 1
        self.target = target or self.base / f"t{self.count}"
        self.target.mkdir(exist_ok=True)
        workers = [Worker(f"{self.store.directory}/objects") for _ in range(2)]
        client = Client(timeout=1)
        try:
            mirrors = Mirrors(client, bases or [self.server.url], pause=0.01)
            trust = release.Trust((keyring.load(str(self.ring)),))
            repository = plan.Repository(mirrors, "tiny", release.fetch(mirrors, "tiny", trust), ("main",))
            wish = plan.Wish("amd64", packages=packages or ("extra",))
            made = plan.make([repository], wish, self.store, Silent())
            install.install(
                made, [repository], str(self.target), self.settings, store=self.store, workers=workers,
                progress=Silent(),
            )  # fmt: skip
        finally:
            client.close()
            for worker in workers:
                worker.close()
        return self.target

    def refused(self, *packages: str, **options: object) -> list[str]:
        with pytest.raises(BootstrapError) as caught:
            self(*packages, **options)  # type: ignore[arg-type]
        return [line.replace(self.server.url, "URL") for line in caught.value.lines()]


@pytest.fixture
def make(server: Server, key: Key, tmp_path: Path) -> Maker:
    return Maker(server, key.ring, tmp_path)


@pytest.mark.parametrize("kind", ["xz", "gz", "", pytest.param("zst", marks=requires("zstd"))])
def test_a_system_comes_out(archive: Archive, server: Server, make: Maker, kind: str) -> None:
    tiny(archive, kind=kind, postinst=b"#!/bin/sh\necho $0 $1; id -u >/ran\n")
    archive.publish()
    root = make()
    assert (root / "ran").read_text() == "0\n"
    assert (root / "usr/share/extra").read_text() == "extra\n"
    assert (root / "etc/passwd").read_text().startswith("root:*:0:0:")
    assert os.readlink(root / "bin") == "usr/bin"
    assert not (root / "libx32").is_symlink()  # nothing lives there
    assert not (root / "usr/sbin/policy-rc.d").exists()
    status = (root / "var/lib/dpkg/status").read_text()
    assert status.count("Status: install ok installed") == 5
    digest = hashlib.md5(b"# conffile\n").hexdigest()
    assert f"Conffiles:\n /etc/dpkg.cfg {digest}\n" in status
    assert (root / "var/lib/dpkg/info/extra.list").read_text().splitlines()[:2] == ["/.", "/usr"]
    assert (root / "var/lib/dpkg/triggers/File").read_text() == "/etc/triggered.d dpkg/noawait\n"
    assert (root / "triggered").read_text() == "--no-await --by-package=dpkg /etc/triggered.d\n"
    assert not any("by-hash" not in path and "Packages" in path for path in server.requests)
    # The second one downloads nothing but the release file.
    server.requests.clear()
    make()
    assert server.requests == ["/dists/tiny/InRelease"]


@requires("zstd")
def test_the_program_zstd_unpacks_too(
    archive: Archive, make: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is neither a module nor the library: the processes that unpack have left the host's root."""
    monkeypatch.setattr(compression, "ZSTD", ("zstd",))
    monkeypatch.delitem(compression._makers, "zst", raising=False)
    tiny(archive, kind="zst")
    archive.publish()
    root = make()
    assert (root / "usr/share/extra").read_text() == "extra\n"
    assert (root / "var/lib/dpkg/status").read_text().count("Status: install ok installed") == 5
    monkeypatch.delitem(compression._makers, "zst")


def test_scripts_see_nothing_of_the_host(archive: Archive, make: Maker) -> None:
    probe = b"""#!/bin/sh
exec >/seen 2>&1
echo pid $$ host $(hostname) links $(ls /sys/class/net | tr '\\n' ' ')
echo processes $(ls /proc | grep -c '^[0-9]')
mknod /dev/disk b 8 0 || echo no mknod
mount -t tmpfs x /tmp || echo no mount
echo x >/proc/sys/kernel/hostname || echo no sysctl
ls /proc/1/root
test "$(stat -c %d:%i /)" = "$(stat -c %d:%i /proc/1/root/)" || echo chroot
cat /proc/mounts | cut -d' ' -f2 | sort | tr '\\n' ' '
"""
    tiny(archive, postinst=probe)
    archive.publish()
    said = (make() / "seen").read_text()
    assert "host localhost links lo" in said
    for word in ("no mknod", "no mount", "no sysctl", "system", "chroot"):
        assert f"\n{word}\n" in said
    mounts = said.splitlines()[-1].split()
    assert all(path == "/" or path.startswith(("/proc", "/sys", "/usr/bin")) for path in mounts), mounts


def test_scripts_of_a_stage_see_nothing_of_the_next(archive: Archive, server: Server, make: Maker) -> None:
    """Else they find programs there whose libraries are not: what systemctl was to enable stays off, now and then."""
    probe = "#!/bin/sh\nfor i in 1 2 3 4 5 6 7 8 9; do\n    sleep 0.1\n    [ ! -e /{} ] || exit 7\ndone\n[ -e /{} ]\n"
    tiny(archive)
    # What is essential may lean on a package that is not, and that one on what another one provides.
    early = {"Package": "early", "Essential": "yes", "Depends": "helper"}
    archive.add(early, {}, info={"postinst": probe.format("usr/share/middle", "usr/share/giver").encode()})
    archive.add({"Package": "helper", "Depends": "missing | given"}, {})
    archive.add({"Package": "giver", "Provides": "given"}, {"usr/share/giver": b""})
    script = probe.format("usr/share/extra", "usr/share/middle").encode()
    archive.add({"Package": "middle", "Priority": "required"}, {"usr/share/middle": b""}, info={"postinst": script})
    archive.publish()
    root = make()
    assert (root / "usr/share/extra").read_text() == "extra\n"
    assert any("extra_1" in path for path in server.requests)


def test_deb_systemd_helper_hears_only_what_changes_something(archive: Archive, make: Maker) -> None:
    helper = shortcuts.SCRIPTS[0][0].lstrip("/")
    words = "unmask a.timer", "--quiet was-enabled a.timer", "enable a.timer"
    calls = "".join(f"deb-systemd-helper {call} || exit 7\n" for call in words)
    program = b'#!/bin/sh\necho "$@" >>/said\n'
    tiny(archive, postinst=f"#!/bin/sh\nexport DPKG_MAINTSCRIPT_PACKAGE=extra\n{calls}".encode())
    archive.add({"Package": "helpers", "Essential": "yes"}, {helper: (program, 0o755)})
    archive.publish()
    root = make()
    assert (root / "said").read_text() == "enable a.timer\n"
    assert (root / helper).read_bytes() == program


def test_programs_of_the_second_stage_are_covered_and_deferred(archive: Archive, make: Maker) -> None:
    """ssh-keygen, as an example, is not there yet when the first stage is configured."""
    call = b"#!/bin/sh\nkeygen || exit 7\nrefresh || exit 8\nrefresh || exit 9\necho called >>/said\n"
    tiny(archive, postinst=call)
    programs = {
        "usr/bin/true": (b"#!/bin/sh\n", 0o755),
        "usr/bin/keygen": (b"#!/bin/sh\necho a key >>/said\n", 0o755),
        "usr/sbin/refresh": (b"#!/bin/sh\necho refreshed >>/said\n", 0o755),
    }
    archive.add({"Package": "programs"}, programs)
    archive.publish()
    make.settings = make.settings._replace(
        covered=(("/usr/bin/keygen", "/usr/bin/true"),), deferred=("/usr/sbin/refresh", "/usr/sbin/missing")
    )
    root = make("extra", "programs")
    assert (root / "said").read_text() == "called\nrefreshed\n"
    assert (root / "usr/bin/keygen").read_bytes() == programs["usr/bin/keygen"][0]


def test_a_deferred_program_that_fails_is_an_error(archive: Archive, make: Maker) -> None:
    tiny(archive)
    archive.add({"Package": "programs"}, {"usr/sbin/refresh": (b"#!/bin/sh\necho no room >&2\nexit 5\n", 0o755)})
    archive.publish()
    make.settings = make.settings._replace(deferred=("/usr/sbin/refresh",))
    said = "\n".join(make.refused("programs"))
    assert "/usr/sbin/refresh failed (exit status 5)" in said
    assert "| no room" in said


def test_a_failing_script_is_shown(archive: Archive, make: Maker) -> None:
    tiny(archive, postinst=b"#!/bin/sh\nfor i in $(seq 30); do echo line $i; done\nexit 3\n")
    archive.publish()
    said = make.refused()
    lines = "\n".join(said).split("\n")
    assert lines[0] == (
        "extra: dpkg --configure -a failed (exit status 1): installed extra package post-installation script "
        "subprocess returned error exit status 3"
    )
    assert lines[1:21] == [f"  | line {number}" for number in range(11, 31)]
    assert lines[21] == f"  hint: the full log is in {make.base}/log"
    assert "line 1\n" in (make.base / "log").read_text()


def wrong_hash(handler: Handler, data: bytes) -> None:
    handler.give(200, bytes([data[0] ^ 1]) + data[1:])


def test_a_package_with_the_wrong_content_is_refused(archive: Archive, server: Server, make: Maker) -> None:
    tiny(archive)
    archive.publish()
    server.faults["extra_1"] = wrong_hash
    said = make.refused()
    assert said[0].startswith("pool/extra_1_amd64.deb: wrong hash: SHA256 is ")
    assert ", the signed index says " in said[0]
    assert said[1].startswith("  hint: the mirror may be in the middle of an update")
    # Nothing bad was kept: with the fault gone the same cache serves.
    server.faults.clear()
    make()


def test_an_index_with_the_wrong_content_is_refused(archive: Archive, server: Server, make: Maker) -> None:
    tiny(archive)
    archive.publish()
    server.faults["Packages"] = server.faults["by-hash"] = wrong_hash
    said = make.refused()
    assert "Packages.gz" in said[0]


def resets(handler: Handler, data: bytes) -> None:
    """Half of it, then the connection is gone; the rest at the next try, which must ask for it."""
    if handler.headers.get("Range"):
        handler.whole(data)
        return
    handler.give(200, data[: len(data) // 2], length=len(data))
    handler.close_connection = True


def stalls(handler: Handler, data: bytes) -> None:
    handler.give(200, data[: len(data) // 2], length=len(data))
    handler.wfile.flush()
    handler.server.stopping.wait(1.5)
    handler.close_connection = True


def breaks(handler: Handler, data: bytes) -> None:
    """The first half, at every try."""
    handler.give(200, data[: len(data) // 2], length=len(data))
    handler.close_connection = True


def longer(handler: Handler, data: bytes) -> None:
    handler.give(200, data + b"x")


def shorter(handler: Handler, data: bytes) -> None:
    handler.give(200, data[:-1])


def busy(handler: Handler, data: bytes) -> None:
    handler.give(503, b"")


def test_a_broken_connection_is_resumed(archive: Archive, server: Server, make: Maker) -> None:
    tiny(archive)
    archive.publish()
    server.faults["pool/"] = resets
    make()
    assert server.requests.count("/pool/shell_1_amd64.deb") == 2


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (stalls, "pool/extra_1_amd64.deb: the mirror does not answer (timed out)"),
        (breaks, "pool/extra_1_amd64.deb: the connection ended early"),
        (longer, "pool/extra_1_amd64.deb: larger than it should be"),
        (shorter, "pool/extra_1_amd64.deb: wrong size: "),
        (busy, "pool/extra_1_amd64.deb: the mirror answers 503"),
    ],
)
def test_a_bad_mirror_is_passed_over(
    archive: Archive, server: Server, make: Maker, fault: Fault, said: str
) -> None:
    tiny(archive)
    archive.publish()
    server.faults["extra_1"] = fault
    assert said in make.refused()[0]
    objects = Path(make.store.directory, "objects")
    kept = list(objects.glob("??/*"))
    assert len(kept) >= 2  # the index and base-passwd, at least
    assert all(hashlib.sha256(path.read_bytes()).hexdigest() == path.name for path in kept)
    good = Server(archive.root)
    try:
        make(bases=[server.url, good.url])
    finally:
        good.stop()
    assert any("extra_1" in path for path in good.requests)
    assert not list((objects / "partial").iterdir())


def test_a_missing_package_is_an_error_of_its_own(archive: Archive, server: Server, make: Maker) -> None:
    tiny(archive)
    archive.publish()
    (archive.root / "pool/extra_1_amd64.deb").unlink()
    said = make.refused()
    assert said[0] == "URL/pool/extra_1_amd64.deb: the mirror answers 404 Not Found"
    said = make.refused("nonsense")
    assert said[0] == 'there is no package "nonsense" for amd64'


def test_a_spoilt_cache_is_mended(archive: Archive, server: Server, make: Maker) -> None:
    tiny(archive)
    archive.publish()
    make()
    for path in (make.base / "cache/objects").glob("??/*"):
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    server.requests.clear()
    make()
    assert sum(path.startswith("/pool/") for path in server.requests) == 5


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.mode = kind, link, size, 0o4755
    return info


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (member("../outside"), 'evil: the archive holds the path "../outside", which leads outside'),
        (member("./usr/../../outside"), "which leads outside"),
        (member("./disk", tarfile.BLKTYPE), 'evil: the package holds a device node, "disk"'),
        (member("./link", tarfile.LNKTYPE, "../../etc/shadow"), "which leads outside"),
        (member("./sparse", tarfile.GNUTYPE_SPARSE), "sparse archive members are not allowed in a package"),
    ],
)
def test_an_archive_that_leads_outside_is_refused(
    archive: Archive, make: Maker, entry: tarfile.TarInfo, said: str
) -> None:
    tiny(archive)
    archive.add({"Package": "evil"}, {entry.name: entry})
    archive.publish()
    assert said in make.refused("evil")[0]
    assert not (make.base / "outside").exists()


def test_links_of_packages_end_inside(archive: Archive, make: Maker, tmp_path: Path) -> None:
    """A link to the host's own paths is one to the system's; what is setuid stays so, and belongs to whom it did."""
    outside = tmp_path / "outside"
    outside.mkdir()
    tiny(archive)
    inside = {f"{str(outside).lstrip('/')}/keep": b""}  # where the links lead once they cannot lead out
    archive.add({"Package": "a"}, {**inside, "escape": str(outside), "up": "../../../../../../.." + str(outside)})
    archive.add({"Package": "b", "Depends": "a"}, {"escape/one": b"1", "up/two": b"2"})
    owned = member("./usr/bin/special", size=3)
    owned.uname, owned.gname, owned.uid, owned.gid = "man", "staff", 77, 78
    archive.add({"Package": "c"}, {"usr/bin/special": owned})
    archive.publish()
    root = make("b", "c")
    assert list(outside.iterdir()) == []
    status = (root / "usr/bin/special").stat()
    assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (6, 50, 0o4755)


def test_a_full_disk_says_so(archive: Archive, make: Maker, tmp_path: Path) -> None:
    tiny(archive)
    archive.publish()
    make()  # into the cache
    target = tmp_path / "small"
    target.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "small", str(target)], check=True)
    try:
        said = make.refused(target=target)
    finally:
        subprocess.run(["umount", str(target)], check=True)
    assert said[0].startswith('cannot write to "')
    assert said[0].endswith(": no space left")
    assert said[1].startswith("  hint: free some space there")


def test_a_full_cache_says_so(archive: Archive, make: Maker, tmp_path: Path) -> None:
    tiny(archive)
    archive.publish()
    cache = tmp_path / "cache"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "small", str(cache)], check=True)
    try:
        make.store = Store(str(cache))
        said = make.refused()
        for path in (cache / "objects").glob("??/*"):
            assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name
    finally:
        subprocess.run(["umount", str(cache)], check=True)
    assert said[0] == f'cannot write to "{cache}": no space left'


SCRIPT = """
import os, sys
sys.path[:0] = [{root!r}, {tests!r}]
os.umask(0o022)
from pathlib import Path
import test_bootstrap as t
server = type("S", (), dict(url={url!r}))()
make = t.Maker(server, Path({ring!r}), Path({base!r}))
make(target=Path({target!r}))
"""


def phase_download(handler: Handler, data: bytes) -> None:
    handler.give(200, data[: len(data) // 2], length=len(data))
    handler.wfile.flush()
    handler.server.stopping.wait(30)
    handler.close_connection = True


@pytest.mark.parametrize("phase", ["release", "index", "download", "unpack", "first", "second"])
def test_a_kill_leaves_nothing_but_files(
    archive: Archive, server: Server, make: Maker, key: Key, tmp_path: Path, phase: str
) -> None:
    """kill -9 in each phase: processes and mounts go with it, and the next run begins anew from what was fetched."""
    hang = b"#!/bin/sh\nsleep 300 & sleep 301\n"
    tiny(archive, postinst=hang if phase == "second" else b"")
    if phase == "first":
        archive.add({"Package": "hang", "Priority": "required"}, {"usr/share/hang": b""}, info={"postinst": hang})
    if phase == "unpack":
        files = {f"usr/share/large/{number}": bytes(100) for number in range(20000)}
        archive.add({"Package": "large", "Priority": "required"}, files)
    archive.publish()
    part = {"release": "InRelease", "index": "by-hash", "download": "shell_1"}.get(phase)
    if part:
        server.faults[part] = phase_download
    target = tmp_path / "killed"
    target.mkdir()
    code = textwrap.dedent(SCRIPT).format(
        root=str(ROOT), tests=str(ROOT / "tests/lifecycle"), url=server.url, ring=str(key.ring), base=str(tmp_path),
        target=str(target),
    )  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}/tests:{ROOT}"}
    process = subprocess.Popen([sys.executable, "-c", code], env=environment, start_new_session=True)
    reached: dict[str, Callable[[], bool]] = {
        "release": lambda: "/dists/tiny/InRelease" in server.requests,
        "index": lambda: any("by-hash" in path for path in server.requests),
        "download": lambda: "/pool/shell_1_amd64.deb" in server.requests,
        "unpack": lambda: (target / "usr/share/large/1000").exists(),
        "first": lambda: runs("sleep 301"),
        "second": lambda: runs("sleep 301"),
    }
    deadline = time.monotonic() + 30
    while not reached[phase]() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.01)
    assert reached[phase]()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while (runs("sleep 301") or runs("sleep 300") or uses(target)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not runs("sleep 301")
    assert not runs("sleep 300")
    assert not uses(target)
    assert str(target) not in Path("/proc/self/mounts").read_text()
    server.faults.clear()
    if phase not in ("first", "second"):
        assert (make() / "usr/share/extra").exists()


def runs(command: str) -> bool:
    """Whether a process with that command line exists."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").strip()
        except OSError:
            continue
        if words == command.encode():
            return True
    return False


def uses(target: Path) -> bool:
    """Whether a process has its root there."""
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.readlink(f"/proc/{pid}/root").startswith(str(target)):
                return True
        except OSError:
            continue
    return False


def test_creates_at_once_fetch_each_file_once(archive: Archive, server: Server, make: Maker, key: Key) -> None:
    tiny(archive)
    archive.publish()
    processes = []
    for number in range(6):
        target = make.base / f"many{number}"
        target.mkdir()
        code = textwrap.dedent(SCRIPT).format(
            root=str(ROOT), tests=str(ROOT / "tests/lifecycle"), url=server.url, ring=str(key.ring),
            base=str(make.base), target=str(target),
        )  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": f"{ROOT}/tests:{ROOT}"}
        processes.append(subprocess.Popen([sys.executable, "-c", code], env=environment))
    assert [process.wait() for process in processes] == [0] * 6
    pool = [path for path in server.requests if path.startswith("/pool/")]
    assert len(pool) == len(set(pool)) == 5
    for number in range(6):
        assert (make.base / f"many{number}/usr/share/extra").exists()


def test_the_dpkg_of_the_tests_is_plain_shell() -> None:
    subprocess.run(["sh", "-n"], input=DPKG, check=True)
