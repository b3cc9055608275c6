"""A Debian-shaped archive made and signed by the tests, and a server on loopback that can misbehave.

`tiny()` fills it with a system of four packages around a static busybox, whose "dpkg" is a shell script: every phase
of a bootstrap, real signatures, hashes, archives, namespaces and maintainer scripts among them, in under a second.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import os
import shutil
import socket
import ssl
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Mapping
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

Files = Mapping[str, "bytes | str | tarfile.TarInfo | tuple[bytes, int]"]


def tar(files: Files, kind: str) -> bytes:
    """A compressed tar: content (mode 0644), (content, mode), a link's target as str, None-like str "/" for a folder,
    or a TarInfo for what needs more."""
    out = io.BytesIO()
    made: set[str] = set()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:

        def folder(name: str) -> None:
            if name in made:
                return
            made.add(name)
            if name != ".":
                folder(os.path.dirname(name) or ".")
            info = tarfile.TarInfo(name if name == "." else f"./{name}")
            info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, 1_700_000_000
            archive.addfile(info)

        for name, content in files.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content, io.BytesIO(b"x" * content.size))
                continue
            folder(os.path.dirname(name) or ".")
            info = tarfile.TarInfo(f"./{name}")
            info.mtime = 1_700_000_000
            data, mode = content if isinstance(content, tuple) else (content, 0o644)
            if data == "/":
                folder(name)
            elif isinstance(data, str):
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, data, 0o777
                archive.addfile(info)
            else:
                info.size, info.mode = len(data), mode
                archive.addfile(info, io.BytesIO(data))
    return compress(out.getvalue(), kind)


def compress(data: bytes, kind: str) -> bytes:
    if kind == "gz":
        return gzip.compress(data, 1, mtime=0)
    if kind == "xz":
        return lzma.compress(data, preset=0)
    if kind == "zst":
        return subprocess.run(["zstd", "-q", "-1", "-c"], input=data, capture_output=True, check=True).stdout
    return data


def ar(members: Mapping[str, bytes]) -> bytes:
    out = b"!<arch>\n"
    for name, data in members.items():
        out += f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
    return out


def deb(control: Mapping[str, str], files: Files, *, info: Files | None = None, kind: str = "xz") -> bytes:
    """A package file. info: further control files, scripts among them."""
    text = "".join(f"{key}: {value}\n" for key, value in control.items()).encode()
    end = f".{kind}" if kind else ""
    scripts = {name: (data, 0o755) if isinstance(data, bytes) else data for name, data in (info or {}).items()}
    return ar({
        "debian-binary": b"2.0\n",
        f"control.tar{end}": tar({"control": text, **scripts}, kind),
        f"data.tar{end}": tar(files, kind),
    })  # fmt: skip


class Key:
    """A throwaway signing key. when: the time at which it is made and signs (seconds since 1970; default: now)."""

    def __init__(self, home: Path, *, expire: str = "never", name: str = "test", when: int | None = None) -> None:
        self.home, self.when = home, when
        home.mkdir(mode=0o700)
        self.gpg("--quick-gen-key", f"{name} <{name}@example.org>", "ed25519", "sign", expire)
        self.ring = home / "ring.gpg"
        self.export()
        lines = self.gpg("--with-colons", "--list-keys").stdout.decode().splitlines()
        self.fingerprint = next(line.split(":")[9] for line in lines if line.startswith("fpr:"))

    def gpg(self, *words: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        base = ["gpg", "--homedir", str(self.home), "--batch", "--yes"]
        base += ["--pinentry-mode", "loopback", "--passphrase", ""]
        base += ["--faked-system-time", f"{self.when}!"] if self.when is not None else []
        try:
            return subprocess.run([*base, *words], input=data, capture_output=True, check=True)
        finally:
            subprocess.run(["gpgconf", "--homedir", str(self.home), "--kill", "all"], check=False)

    def export(self) -> None:
        self.ring.write_bytes(self.gpg("--export").stdout)

    def revoke(self) -> None:
        """Import the revocation that GnuPG made with the key."""
        path = self.home / "openpgp-revocs.d" / f"{self.fingerprint}.rev"
        self.gpg("--import", data=path.read_bytes().replace(b":-----BEGIN", b"-----BEGIN"))
        self.export()

    def clearsign(self, data: bytes, *words: str) -> bytes:
        return self.gpg("--clear-sign", *words, data=data).stdout

    def detach(self, data: bytes) -> bytes:
        return self.gpg("--detach-sign", "--armor", data=data).stdout


class Archive:
    """The files of a mirror below `root`; `add` packages, then `publish`."""

    def __init__(self, root: Path, key: Key | None = None) -> None:
        self.root, self.key = root, key
        self.stanzas: list[str] = []
        root.mkdir(parents=True, exist_ok=True)

    def add(self, control: Mapping[str, str], files: Files, *, info: Files | None = None, kind: str = "xz") -> Path:
        """Put a package into the pool and the index."""
        full = {"Architecture": "amd64", "Version": "1", "Maintainer": "t", "Description": "t", **control}
        data = deb(full, files, info=info, kind=kind)
        path = self.root / "pool" / f"{full['Package']}_{full['Version']}_{full['Architecture']}.deb"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
        self.list(full, path)
        return path

    def list(self, control: Mapping[str, str], path: Path) -> None:
        data = path.read_bytes()
        fields = {
            **control,
            "Filename": str(path.relative_to(self.root)),
            "Size": str(len(data)),
            "SHA256": hashlib.sha256(data).hexdigest(),
        }
        self.stanzas.append("".join(f"{key}: {value}\n" for key, value in fields.items()))

    def publish(
        self, suite: str = "tiny", *, codename: str = "tiny", arch: str = "amd64", inline: bool = True,
        fields: Mapping[str, str] | None = None, by_hash: bool = True, kinds: tuple[str, ...] = ("gz", "xz"),
    ) -> Path:  # fmt: skip
        """Write the indices and sign the release file; its folder."""
        folder = self.root / "dists" / suite
        binary = folder / f"main/binary-{arch}"
        binary.mkdir(parents=True, exist_ok=True)
        text = "\n".join(self.stanzas).encode()
        sums = []
        for kind in ("", *kinds):
            data = compress(text, kind)
            name = "Packages" + (f".{kind}" if kind else "")
            digest = hashlib.sha256(data).hexdigest()
            sums.append(f" {digest} {len(data)} main/binary-{arch}/{name}")
            if kind:
                (binary / name).write_bytes(data)
            if by_hash:
                (binary / "by-hash/SHA256").mkdir(parents=True, exist_ok=True)
                (binary / "by-hash/SHA256" / digest).write_bytes(data)
        head = {
            "Origin": "Tiny", "Suite": suite, "Codename": codename, "Date": date(), "Architectures": arch,
            "Components": "main", **({"Acquire-By-Hash": "yes"} if by_hash else {}), **(fields or {}),
        }  # fmt: skip
        release = "".join(f"{key}: {value}\n" for key, value in head.items() if value)
        release += "SHA256:\n" + "\n".join(sums) + "\n"
        for name in ("InRelease", "Release", "Release.gpg"):
            (folder / name).unlink(missing_ok=True)
        if self.key is None:
            (folder / "Release").write_text(release)
        elif inline:
            (folder / "InRelease").write_bytes(self.key.clearsign(release.encode()))
        else:
            (folder / "Release").write_text(release)
            (folder / "Release.gpg").write_bytes(self.key.detach(release.encode()))
        return folder


def date(offset: float = 0) -> str:
    """A date as release files have it, `offset` seconds from now."""
    return formatdate(time.time() + offset, usegmt=True).replace("GMT", "UTC")


Fault = Callable[["Handler", bytes], None]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server
    tag = ""

    def do_GET(self) -> None:
        server = self.server
        path = unquote(self.path)
        if server.login and self.headers.get("Authorization") != server.login:
            self.give(401, b"", {"WWW-Authenticate": 'Basic realm="mirror"'})
            return
        with server.lock:
            server.requests.append(path)
            fault = next((fault for part, fault in server.faults.items() if part in path), None)
        file = server.root / path.lstrip("/")
        if not file.is_file():
            self.give(404, b"")
            return
        data = file.read_bytes()
        if fault is not None:
            fault(self, data)
            return
        self.tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
        if self.headers.get("If-None-Match") == self.tag:
            with server.lock:
                server.unchanged.append(path)
            self.give(304, b"")
        else:
            self.whole(data)

    def whole(self, data: bytes) -> None:
        """The file, or the range asked for."""
        start = int((self.headers.get("Range") or "bytes=0-")[6:].rstrip("-") or 0)
        if start >= len(data) > 0:
            self.give(416, b"")
        elif start:
            self.give(206, data[start:], {"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"})
        else:
            self.give(200, data)

    def give(self, status: int, data: bytes, headers: Mapping[str, str] | None = None, *, length: int = -1) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(data) if length < 0 else length))
        if self.tag:
            self.send_header("ETag", self.tag)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


class Server(ThreadingHTTPServer):
    """Serves a folder; `faults` maps a part of a path to what happens instead.

    login: the Authorization header it insists on. requests: paths asked for; unchanged: those of them answered by 304.
    """

    daemon_threads = False  # stop() waits for every answer that is under way
    request_queue_size = 64  # a busy machine must not drop connections

    request_queue_size = 128

    def __init__(
        self, root: Path, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None, login: str = ""
    ) -> None:
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        super().__init__((host, 0), Handler)
        self.root, self.tls, self.login = root, tls, login
        self.unchanged: list[str] = []
        self.faults: dict[str, Fault] = {}
        self.requests: list[str] = []
        self.lock = threading.Lock()
        self.stopping = threading.Event()
        place = f"[{host}]" if ":" in host else host
        self.url = f"{'https' if tls else 'http'}://{place}:{self.server_address[1]}"
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def finish_request(self, request: Any, client_address: Any) -> None:
        if self.tls is not None:  # in the connection's own thread: a client that stalls holds up nobody else
            request = self.tls.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def handle_error(self, *_: object) -> None:
        pass  # a client that went away is part of the game

    def stop(self) -> None:
        self.stopping.set()
        self.shutdown()
        self.server_close()
        self.thread.join()


# The tiny system's dpkg: configures what is unpacked, tells --status-fd 9, and answers dpkg-trigger.
DPKG = b"""#!/bin/sh
set -e
cd /var/lib/dpkg
[ "$*" = "--abort-after=1 --status-fd 9 --configure -a" ] || exit 3
for list in info/*.list; do
    stem=${list#info/}; stem=${stem%.list}
    grep -q "^$stem\\$" configured 2>/dev/null && continue
    grep -q "^Package: ${stem%:*}\\$" status || continue
    if [ -x info/$stem.postinst ]; then
        info/$stem.postinst configure || {
            code=$?
            said="installed $stem package post-installation script subprocess returned error exit status $code"
            echo "status: $stem : error : $said" >&9
            exit 1
        }
    fi
    echo $stem >>configured
    echo "status: $stem: installed" >&9
done
sed -i 's/^Status: install ok unpacked/Status: install ok installed/' status
"""


def tiny(archive: Archive, *, kind: str = "xz", postinst: bytes = b"") -> None:
    """Packages of the smallest system that can be bootstrapped, and two of the second stage.

    postinst: of the package `extra`.
    """
    program = shutil.which("busybox")
    assert program
    busybox = Path(program).read_bytes()
    required = {"Priority": "required", "Essential": "yes"}
    applets = subprocess.run([program, "--list"], capture_output=True, text=True, check=True).stdout.split()
    links: dict[str, str] = {f"usr/bin/{name}": "busybox" for name in applets if name not in ("busybox", "dpkg")}
    archive.add(
        {"Package": "base-passwd", **required},
        {
            "usr/share/base-passwd/passwd.master": b"root:*:0:0:root:/root:/bin/sh\nman:*:6:12::/:/bin/sh\n",
            "usr/share/base-passwd/group.master": b"root:*:0:\nstaff:*:50:\n",
        },
        info={"preinst": b"#!/bin/sh\ncp /usr/share/base-passwd/passwd.master /etc/passwd\n"
              b"cp /usr/share/base-passwd/group.master /etc/group\n"},
        kind=kind,
    )  # fmt: skip
    archive.add({"Package": "shell", **required}, {"usr/bin/busybox": (busybox, 0o755), **links}, kind=kind)
    archive.add(
        {"Package": "dpkg", "Depends": "shell | sh, base-passwd (>= 1)", **required},
        {
            "usr/bin/dpkg": (DPKG, 0o755),
            "usr/bin/dpkg-trigger": (b'#!/bin/sh\necho "$@" >>/triggered\n', 0o755),
            "usr/bin/chpasswd": (b"#!/bin/sh\ncat >/chpasswd\n", 0o755),
            "etc/dpkg.cfg": b"# conffile\n",
            **dict.fromkeys(("proc", "sys", "run", "tmp", "etc/triggered.d"), "/"),
        },
        info={"conffiles": b"/etc/dpkg.cfg\n", "triggers": b"interest-noawait /etc/triggered.d\n"}, kind=kind,
    )  # fmt: skip
    archive.add(
        {"Package": "extra", "Depends": "dpkg, virtual"},
        {"usr/share/extra": b"extra\n", "etc/triggered.d/extra": b""},
        info={"postinst": postinst} if postinst else {}, kind=kind,
    )  # fmt: skip
    archive.add({"Package": "provider", "Provides": "virtual (= 2)"}, {"usr/share/provider": b"p"}, kind=kind)
