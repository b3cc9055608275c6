"""Alpine repositories that the tests make and sign: packages and indices in apk's own format."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import os
import subprocess
import tarfile
from collections.abc import Mapping
from pathlib import Path


class Key:
    """A throwaway RSA key; `name` is its public file's."""

    def __init__(self, folder: Path, name: str = "test@example.org-1.rsa.pub", bits: int = 2048) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.private, self.public, self.name = folder.parent / f"{name}.private", folder / name, name
        subprocess.run(["openssl", "genrsa", "-out", str(self.private), str(bits)], check=True, capture_output=True)
        argv = ["openssl", "rsa", "-in", str(self.private), "-pubout", "-out", str(self.public)]
        subprocess.run(argv, check=True, capture_output=True)

    def sign(self, data: bytes, kind: str = "RSA") -> bytes:
        """The signature stream that goes in front of `data`."""
        algorithm = {"RSA": "-sha1", "RSA256": "-sha256", "RSA512": "-sha512"}[kind]
        argv = ["openssl", "dgst", algorithm, "-sign", str(self.private)]
        signature = subprocess.run(argv, input=data, capture_output=True, check=True).stdout
        return stream({f".SIGN.{kind}.{self.name}": signature}, end=False)


def stream(files: Mapping[str, object], *, end: bool = True, sums: bool = False) -> bytes:
    """A gzip stream of a tar segment. Content: bytes, (bytes, mode), a link's target, "/" for a folder, a TarInfo."""
    out = io.BytesIO()
    archive = tarfile.TarFile(fileobj=out, mode="w", format=tarfile.PAX_FORMAT)
    made: set[str] = set()

    def folder(name: str, mode: int = 0o755) -> None:
        if name and name not in made:
            folder(os.path.dirname(name))
            made.add(name)
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.mtime = tarfile.DIRTYPE, mode, 1_700_000_000
            info.uname = info.gname = "root"
            archive.addfile(info)

    for name, content in files.items():
        folder(os.path.dirname(name))
        if content == "/":
            folder(name)
            continue
        info = content if isinstance(content, tarfile.TarInfo) else tarfile.TarInfo(name)
        data, info.mtime = b"", 1_700_000_000
        if isinstance(content, str):
            info.type, info.linkname, info.mode, data = tarfile.SYMTYPE, content, 0o777, b""
            digest = hashlib.sha1(content.encode())
        elif not isinstance(content, tarfile.TarInfo):
            data, info.mode = content if isinstance(content, tuple) else (content, 0o644)  # type: ignore[assignment]
            digest = hashlib.sha1(data)
        if not isinstance(content, tarfile.TarInfo):
            info.uname = info.gname = "root"
        if sums and not isinstance(content, tarfile.TarInfo):
            info.pax_headers = {"APK-TOOLS.checksum.SHA1": digest.hexdigest()}
        if not isinstance(content, str):
            info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    if end:
        archive.close()
    return gzip.compress(out.getvalue(), 1, mtime=0)


class Repository:
    """A mirror below `root`, with packages in RELEASE/NAME/ARCH."""

    def __init__(self, root: Path, key: Key | None, *, release: str = "v3.99", arch: str = "x86_64") -> None:
        self.root, self.key, self.release, self.arch = root, key, release, arch
        self.stanzas: dict[str, list[str]] = {"main": [], "community": []}

    def folder(self, name: str = "main", release: str | None = None) -> Path:
        found = self.root / (release or self.release) / name / self.arch
        found.mkdir(parents=True, exist_ok=True)
        return found

    def add(
        self, name: str, files: Mapping[str, object] | None = None, *, version: str = "1-r0", depends: str = "",
        provides: str = "", install_if: str = "", scripts: Mapping[str, bytes] | None = None, triggers: str = "",
        replaces: str = "", origin: str = "", fields: Mapping[str, str] | None = None, repository: str = "main",
        data: bytes | None = None, datahash: str | None = None,
    ) -> Path:  # fmt: skip
        """Make a package and list it."""
        data = stream(files or {}, sums=True) if data is None else data
        lines = [f"pkgname = {name}", f"pkgver = {version}", "pkgdesc = a test's", "url = https://example.org"]
        lines += ["builddate = 1700000000", "size = 4096", f"arch = {self.arch}", "license = MIT"]
        lines.append(f"origin = {origin or name}")
        for key, value in (("depend", depends), ("provides", provides), ("replaces", replaces)):
            lines += [f"{key} = {one}" for one in value.split()]
        lines += [f"{key} = {value}" for key, value in (("install_if", install_if), ("triggers", triggers)) if value]
        lines.append(f"datahash = {datahash or hashlib.sha256(data).hexdigest()}")
        control = {".PKGINFO": "\n".join(lines).encode() + b"\n"}
        control |= {f".{kind}": (text, 0o755) for kind, text in (scripts or {}).items()}  # type: ignore[misc]
        second = stream(control, end=False)
        whole = (self.key.sign(second) if self.key else b"") + second + data
        path = self.folder(repository) / f"{name}-{version}.apk"
        path.write_bytes(whole)
        checksum = "Q1" + base64.b64encode(hashlib.sha1(second).digest()).decode()
        told = {
            "C": checksum, "P": name, "V": version, "A": self.arch, "S": str(len(whole)), "I": "4096", "T": "a test's",
            "U": "https://example.org", "L": "MIT", "o": origin or name, "t": "1700000000", "D": depends,
            "p": provides, "i": install_if, **(fields or {}),
        }  # fmt: skip
        self.stanzas[repository].append("".join(f"{key}:{value}\n" for key, value in told.items() if value))
        return path

    def publish(self, *, kind: str = "RSA", release: str | None = None) -> None:
        """Write and sign the indices."""
        for name, stanzas in self.stanzas.items():
            second = stream({"DESCRIPTION": b"test", "APKINDEX": "\n".join(stanzas).encode() + b"\n"})
            signature = self.key.sign(second, kind) if self.key else b""
            (self.folder(name, release) / "APKINDEX.tar.gz").write_bytes(signature + second)


SHADOW = b"root:::0:::::\ndaemon:!::0:::::\n"


def tiny(repository: Repository, busybox: Path) -> None:
    """The smallest system in Alpine's shape: what its packages are called, how they depend, what their scripts do."""
    repository.add(
        "alpine-baselayout-data",
        {
            "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nwww:x:33:34::/:/bin/sh\n", "etc/shadow": (SHADOW, 0o640),
            "etc/group": b"root:x:0:\nwww:x:34:\n",
        },
    )  # fmt: skip
    inittab = b"::sysinit:/bin/true\ntty1::respawn:/bin/sleep 100\ntty5::respawn:/bin/sleep 100\n"
    folders = dict.fromkeys(("dev", "proc", "sys", "run", "tmp", "root", "sbin", "usr/bin", "usr/sbin", "mnt"), "/")
    repository.add(
        "alpine-baselayout", {**folders, "etc/inittab": inittab, "etc/runlevels/default": "/"},
        depends="alpine-baselayout-data=1-r0 /bin/sh", scripts={"pre-install": b"#!/bin/sh\nexit 0\n"},
    )  # fmt: skip
    install = b"#!/bin/busybox sh\n/bin/busybox mkdir -p /bin /sbin /usr/bin /usr/sbin\n/bin/busybox --install -s\n"
    trigger = b'#!/bin/busybox sh\necho "$@" >>/triggered\n'
    repository.add(
        "busybox", {"bin/busybox": (busybox.read_bytes(), 0o755)}, version="1.37.0-r30",
        provides="/bin/sh cmd:busybox=1.37.0-r30",
        scripts={"post-install": install, "trigger": trigger}, triggers="/bin /usr/bin /etc/*.d",
    )  # fmt: skip
    owned = tarfile.TarInfo("var/www")
    owned.type, owned.mode, owned.uname, owned.gname, owned.uid = tarfile.DIRTYPE, 0o2770, "www", "www", 99
    repository.add("libthing", {"usr/lib/libthing.so.1": b"lib"}, provides="so:libthing.so.1=1.2")
    repository.add(
        "thing",
        {"usr/bin/thing": (b"#!/bin/sh\n", 0o4755), "usr/bin/same": "thing", "etc/thing.d": "/", "var/www": owned},
        depends="so:libthing.so.1 libthing>=1", fields={"k": "10"},
    )  # fmt: skip
    repository.add("thing-openrc", {"etc/init.d/thing": (b"#!/bin/sh\n", 0o755)}, install_if="thing=1-r0 alpine-base")
    repository.add("alpine-base", version="3.99.1-r0", depends="alpine-baselayout busybox thing")
    repository.add("extra", {"usr/share/extra": b"extra"}, version="1.10-r0", repository="community")
    repository.add("extra", {"usr/share/extra": b"old"}, version="1.9-r5", repository="community")
