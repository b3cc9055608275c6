"""Packages and mirrors that want out: archives that lead elsewhere, lying indices, maintainer scripts that attack."""

from __future__ import annotations

import gzip
import io
import os
import platform
import socket
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import ubuntumirror
from debmirror import Archive, Handler, Key, Server, ar, deb, tiny
from lifecycle.test_bootstrap import Maker, member, uses
from probes import requires

from lxcpy import paths
from lxcpy.bootstrap.cache import Store
from lxcpy.bootstrap.chroot import Chroot, Settings

Run = Callable[..., "subprocess.CompletedProcess[str]"]
pytestmark = requires("root", "gpg", "gpgv", "busybox")


@pytest.fixture
def archive(archive: Archive) -> Archive:
    tiny(archive)
    return archive


@pytest.fixture
def make(server: Server, key: Key, tmp_path: Path) -> Maker:
    return Maker(server, key.ring, tmp_path)


# -- the mirror --------------------------------------------------------------------------------------------------------


def test_an_index_that_is_a_bomb_is_cut_off(archive: Archive, server: Server, make: Maker) -> None:
    """It is decompressed before its hash is known, so no further than the signed size."""
    archive.publish(kinds=("gz",))

    def bomb(handler: Handler, data: bytes) -> None:
        packed = gzip.compress(bytes(len(data) * 500), 9)
        assert len(packed) < len(data)
        handler.give(200, packed)

    server.faults["Packages"] = server.faults["by-hash"] = bomb
    said = make.refused()[0]
    assert "Packages.gz: larger than it should be (more than " in said
    assert said.endswith(" bytes decompressed)")


def test_a_package_in_place_of_another_is_refused(archive: Archive, server: Server, make: Maker) -> None:
    archive.publish()
    other = (archive.root / "pool/provider_1_amd64.deb").read_bytes()
    server.faults["extra_1"] = lambda handler, data: handler.give(200, other)
    assert "pool/extra_1_amd64.deb: wrong " in make.refused()[0]


def test_a_package_under_another_name_is_refused(archive: Archive, make: Maker) -> None:
    """The signed index itself says so, as a broken archive might."""
    extra, provider = archive.stanzas[-2:]
    fields = "".join(f"{line}\n" for line in provider.splitlines() if line.startswith(("Filename", "Size", "SHA256")))
    kept = "".join(f"{line}\n" for line in extra.splitlines() if not line.startswith(("Filename", "Size", "SHA256")))
    archive.stanzas[-2] = kept + fields
    archive.publish()
    said = make.refused()[0]
    assert said == "pool/provider_1_amd64.deb: the package inside is not extra 1 (amd64)"


def test_what_is_gone_by_hash_is_taken_by_name(archive: Archive, server: Server, make: Maker) -> None:
    archive.publish()
    for path in archive.root.glob("dists/tiny/main/*/by-hash/SHA256/*"):
        path.unlink()
    make()
    asked = [path for path in server.requests if "Packages" in path or "by-hash" in path]
    assert ["by-hash" in path for path in asked] == [True, False]


# -- archives ----------------------------------------------------------------------------------------------------------


def evil(archive: Archive, data: bytes, name: str = "evil") -> None:
    path = archive.root / "pool/evil.deb"
    path.write_bytes(data)
    archive.list({"Package": name, "Version": "1", "Architecture": "amd64"}, path)
    archive.publish()


CONTROL = {"Package": "evil", "Version": "1", "Architecture": "amd64", "Maintainer": "t", "Description": "t"}


def pax_sparse() -> tarfile.TarInfo:
    info = member("./huge", size=512)
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": str(1 << 50)}
    return info


def raw(*infos: tarfile.TarInfo) -> bytes:
    """A package whose archive holds these headers and no content."""
    out = io.BytesIO()
    for info in infos:
        out.write(info.tobuf(tarfile.PAX_FORMAT))
    out.write(bytes(1024))
    control = deb(CONTROL, {})
    parts = dict(ubuntumirror.members(memoryview(control)))
    return ar({
        "debian-binary": b"2.0\n", "control.tar.xz": bytes(parts["control.tar.xz"]), "data.tar": out.getvalue()
    })  # fmt: skip


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (raw(pax_sparse()), "damaged archive: bad pax header: its sparse map does not end"),
        (raw(member("./huge", size=1 << 45)), "truncated archive"),
        (raw(member("./disk", tarfile.CHRTYPE)), 'the package holds a device node, "disk"'),
        (raw(member("./l", tarfile.SYMTYPE, "/"), member("./l/../../x")), "which leads outside"),
        (raw(member("./shadow", tarfile.LNKTYPE, "/etc/shadow")), 'cannot unpack "/shadow": No such file or directory'),
        (raw(member("./l", tarfile.SYMTYPE, "/"), member("./shadow", tarfile.LNKTYPE, "l/etc/shadow")),
         'cannot unpack "/shadow"'),
        (raw(member("./usr"), member("./usr/x")), 'cannot unpack "/usr"'),
        (raw(member("a\0/../b")), ""),
        (deb({**CONTROL, "Package": "../../evil"}, {}), 'the package calls itself "../../evil"'),
        (deb(CONTROL, {}, info={"../../outside": member("../../outside")}), "which leads outside"),
        (deb(CONTROL, {}, info={"templates": (bytes(65 << 20), 0o644)}), "more than 64 MiB of control files"),
        (deb(CONTROL, {"usr/x": os.urandom(5000)})[:-900], "truncated Debian package"),
        (b"", "not a Debian package: an empty file"),
    ],
)  # fmt: skip
def test_an_archive_that_wants_out_is_refused(archive: Archive, make: Maker, data: bytes, said: str) -> None:
    evil(archive, data)
    if not said:  # a name ends at its first zero byte: what is behind is not looked at
        assert (make("evil") / "a").exists()
        return
    assert said in make.refused("evil")[0]
    assert not list(make.base.glob("outside*"))


def test_a_package_that_fills_the_disk_ends_it_cleanly(archive: Archive, make: Maker, tmp_path: Path) -> None:
    """40 kB that become 160 MB."""
    evil(archive, deb(CONTROL, {"usr/huge": bytes(160 << 20)}))
    target = tmp_path / "small"
    target.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "small", str(target)], check=True)
    try:
        said = make.refused("evil", target=target)
    finally:
        subprocess.run(["umount", str(target)], check=True)
    assert said[0].endswith(": no space left")


def test_setuid_is_kept_and_no_more(archive: Archive, make: Maker) -> None:
    """Bits of the archive, on a link's file too; never on what was there before."""
    first = member("./usr/bin/one", size=1)
    second = member("./usr/bin/two", tarfile.LNKTYPE, "./usr/bin/one")
    plain = member("./usr/bin/three", size=1)
    plain.mode = 0o755
    folder = member("./usr/shared", tarfile.DIRTYPE)
    folder.mode = 0o3775
    archive.add({"Package": "s"}, {info.name: info for info in (first, second, plain, folder)})
    archive.publish()
    root = make("s")
    names = ("bin/one", "bin/two", "bin/three", "shared")
    modes = {name: os.stat(root / "usr" / name).st_mode & 0o7777 for name in names}
    assert modes == {"bin/one": 0o4755, "bin/two": 0o4755, "bin/three": 0o755, "shared": 0o3775}
    assert os.stat(root / "usr/bin/one").st_nlink == 2


# -- scripts -----------------------------------------------------------------------------------------------------------


def test_no_daemon_starts_and_none_stays(archive: Archive, make: Maker) -> None:
    archive.stanzas.clear()
    asks = b"/usr/sbin/policy-rc.d ssh start; echo $? >/policy\n"
    tiny(archive, postinst=b"#!/bin/sh\n" + asks + b"setsid sleep 301 >/dev/null 2>&1 &\n")
    archive.publish()
    root = make()
    assert (root / "policy").read_text() == "101\n"
    assert not uses(root)
    assert not (root / "usr/sbin/policy-rc.d").exists()


ATTACK = r"""
use strict; use Socket; use Fcntl;
sub said { my ($what, $ok) = @_; printf "%s %s\n", $what, $ok ? "done" : "refused:" . ($!+0); }
sub call { my @a = @_; my $n = shift @a; syscall($n, @a) }
sub put { my ($path, $text) = @_; open(my $f, ">", $path) or return 0; my $n = syswrite($f, $text); close $f; $n }
# a file of the host's by its handle: inode 2 is the root of an ext file system
sysopen(my $root, "/", O_RDONLY);
said "handle", call(304, fileno($root), pack("IiII", 8, 1, 2, 0), 0) >= 0;
said "keyring", call(250, 0, -4, 0) >= 0;
said "mknod", call(133, "/disk", 0060644, (8 << 8)) == 0;
said "userns", call(272, 0x10000000) == 0;
said "mount", call(165, "x", "/mnt", "tmpfs", 0, "") == 0;
said "reboot", call(169, 0xfee1dead, 672274793, 0, 0) == 0;  # would only turn Ctrl-Alt-Del off
said "hostname", call(170, "evil", 4) == 0;
said "clock", call(227, 0, pack("qq", 0, 0)) == 0;
said "module", call(313, fileno($root), "", 0) == 0;
said "sysrq", put("/proc/sysrq-trigger", "h");
said "sysctl", put("/proc/sys/kernel/core_pattern", "|/evil");
said "sys", put("/sys/power/state", "mem") || put("/sys/kernel/uevent_helper", "/evil");
said "kcore", do { my $f; sysopen($f, "/proc/kcore", O_RDONLY) && sysread($f, my $x, 4) };
said "kallsyms", do { open(my $f, "<", "/proc/kallsyms"); my @l = <$f>; scalar @l };
socket(my $tcp, PF_INET, SOCK_STREAM, 0); said "tcp", connect($tcp, sockaddr_in(PORT, inet_aton("127.0.0.1")));
socket(my $unix, PF_UNIX, SOCK_STREAM, 0); said "unix", connect($unix, pack("Sa*", AF_UNIX, "NAME"));
said "host process", -d "/proc/HOSTPID";
opendir(my $d, "/proc"); my @pids = grep /^\d+$/, readdir $d; printf "pids %d\n", scalar @pids;
for my $n (map { glob "/proc/$_/fd/*" } "1", "self") { my $l = readlink $n; print "fd $l\n" if $l && $l =~ m{^/} }
# the classic way out of a chroot
mkdir "/jail"; opendir(my $old, "/"); chdir "/"; chroot "/jail"; chdir ".." for 1..64; chroot ".";
opendir($d, "/"); print "top ", join(",", sort grep !/^\.\.?$/, readdir $d), "\n";
kill 9, -1;
print "alive\n";
"""


@requires("zstd")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the attacker's system calls are numbers of x86_64")
def test_scripts_cannot_reach_the_host(run: Run, lxcpath: str, name: str, tmp_path: Path) -> None:
    """A real system, root inside as dpkg's scripts are, and every way out that there is a name for."""
    mirror = ubuntumirror.build(Store(paths.cache_dir()))
    server = Server(mirror.root)
    try:
        options = [f"--mirror={server.url}", f"--security-mirror={server.url}", f"--keyring={mirror.ring}"]
        made = run("create", "-P", lxcpath, "-n", name, "-t", "ubuntu", "--", *options, "-v", "minbase", timeout=600)
        assert made.returncode == 0, made.stderr
    finally:
        server.stop()
    rootfs = f"{lxcpath}/{name}/rootfs"
    tcp = socket.create_server(("127.0.0.1", 0))
    unix = socket.socket(socket.AF_UNIX)
    unix.bind(f"\0{name}")
    unix.listen()
    # what would succeed outside
    socket.create_connection(tcp.getsockname()).close()
    with socket.socket(socket.AF_UNIX) as near:
        near.connect(f"\0{name}")
    bystander = subprocess.Popen(["sleep", "1000"])
    pattern = Path("/proc/sys/kernel/core_pattern").read_text()
    log = tmp_path / "log"
    try:
        attack = ATTACK.replace("PORT", str(tcp.getsockname()[1])).replace("NAME", f"\\0{name}")
        attack = attack.replace("HOSTPID", str(bystander.pid))
        with open(log, "wb") as output, Chroot(rootfs, Settings(log=output.fileno())) as chroot:
            assert chroot.run(["/usr/bin/perl", "-e", attack]) in (0, -9)
            assert chroot.run(["/bin/true"]) == 0  # process 1 outlives what its children do
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
        tcp.close()
        unix.close()
    lines = log.read_text().splitlines()
    said = dict(line.split(" ", 1) for line in lines if " " in line and not line.startswith(("fd ", "host process")))
    assert lines[-1] == "alive"  # a kill of everything spares who kills
    for word in (
        "handle", "keyring", "mknod", "userns", "mount", "reboot", "hostname", "clock", "module", "sysrq",
        "sysctl", "sys", "kcore", "tcp", "unix", "kallsyms",
    ):  # fmt: skip
        assert said[word].startswith("refused"), (word, lines)
    assert said["keyring"] == "refused:38"  # ENOSYS
    assert int(said["pids"]) <= 2
    assert not any(line.startswith("host process done") for line in lines)
    assert said["top"] == "system"  # the agent's own empty root; nothing above it
    # What is open there: the log, /dev/null, and the agent's own root.
    opened = {line[3:] for line in lines if line.startswith("fd ")}
    assert opened <= {str(log), "/dev/null", "/null", "/", "/proc"}
    assert Path("/proc/sys/kernel/core_pattern").read_text() == pattern
    assert run("destroy", "-P", lxcpath, "-n", name).returncode == 0
