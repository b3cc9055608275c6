"""OCI image layouts that the tests make, and a registry on loopback that serves one."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import ssl
import subprocess
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MANIFEST, INDEX = "application/vnd.oci.image.manifest.v1+json", "application/vnd.oci.image.index.v1+json"
CONFIG, LAYER = "application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar"
NAME = "org.opencontainers.image.ref.name"


def member(name: str, content: bytes | str = b"", **settings: Any) -> tuple[tarfile.TarInfo, bytes]:
    """A file, a link if `content` is text, a directory if the name ends in a slash."""
    info = tarfile.TarInfo(name)
    info.mode, info.mtime = 0o644, 1_600_000_000
    data = b""
    if name.endswith("/"):
        info.type, info.mode = tarfile.DIRTYPE, 0o755
    elif isinstance(content, str):
        info.type, info.linkname = tarfile.SYMTYPE, content
    else:
        data = content
    info.size = len(data)
    for key, value in settings.items():
        setattr(info, key, value)
    return info, data


def layer(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


class Layout:
    """A layout below `root`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.entries: list[dict[str, Any]] = []
        (root / "blobs/sha256").mkdir(parents=True)
        (root / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def blob(self, data: bytes, kind: str, algorithm: str = "sha256") -> dict[str, Any]:
        """Store a blob; its descriptor."""
        value = hashlib.new(algorithm, data).hexdigest()
        (self.root / "blobs" / algorithm).mkdir(exist_ok=True)
        (self.root / "blobs" / algorithm / value).write_bytes(data)
        return {"mediaType": kind, "digest": f"{algorithm}:{value}", "size": len(data)}

    def json(self, content: Any, kind: str) -> dict[str, Any]:
        return self.blob(json.dumps(content).encode(), kind)

    def image(
        self, layers: list[bytes], settings: dict[str, Any], *, kinds: tuple[str, ...] = ("gzip", "zstd", ""),
        arch: str = "amd64", algorithm: str = "sha256",
    ) -> dict[str, Any]:  # fmt: skip
        """Store an image; the descriptor of its manifest."""
        described = []
        for number, data in enumerate(layers):
            kind = kinds[number % len(kinds)]
            packed = {"gzip": gzip.compress, "zstd": zstd, "": bytes}[kind](data)
            described.append(self.blob(packed, LAYER + (f"+{kind}" if kind else ""), algorithm))
        plain = [f"sha256:{hashlib.sha256(data).hexdigest()}" for data in layers]
        config = {
            "architecture": arch,
            "os": "linux",
            "config": settings,
            "rootfs": {"type": "layers", "diff_ids": plain},
        }
        return self.json(
            {"schemaVersion": 2, "mediaType": MANIFEST, "config": self.json(config, CONFIG), "layers": described},
            MANIFEST,
        )

    def tag(self, entry: dict[str, Any], name: str | None, platform: dict[str, str] | None = None) -> None:
        extra: dict[str, Any] = {"annotations": {NAME: name}} if name else {}
        if platform:
            extra["platform"] = platform
        self.entries.append({**entry, **extra})
        (self.root / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": self.entries}))

    def index(self, *entries: tuple[dict[str, Any], str, str]) -> dict[str, Any]:
        """Store an index of (manifest, architecture, variant)."""
        manifests = [
            {**entry, "platform": {"os": "linux", "architecture": arch, **({"variant": variant} if variant else {})}}
            for entry, arch, variant in entries
        ]
        return self.json({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests}, INDEX)


def zstd(data: bytes) -> bytes:
    return subprocess.run(["zstd", "-q", "-1", "-c"], input=data, capture_output=True, check=True).stdout


class Registry(ThreadingHTTPServer):
    """Serves the images of a layout over https, by their tags, to who knows the password."""

    def __init__(self, layout: Path, cert: Path, key: Path, login: str) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(cert, key)
        super().__init__(("127.0.0.1", 0), _Handler)
        self.layout = layout
        self.login = "Basic " + base64.b64encode(login.encode()).decode()
        self.requests: list[str] = []
        self.host = f"127.0.0.1:{self.server_address[1]}"
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def get_request(self):  # type: ignore[no-untyped-def]
        sock, address = super().get_request()
        return self.context.wrap_socket(sock, server_side=True), address

    def handle_error(self, *_: object) -> None:
        pass

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self.thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Registry

    def do_GET(self) -> None:
        if self.headers.get("Authorization") != self.server.login:
            self.answer(401, b"{}", {"WWW-Authenticate": 'Basic realm="test"'})
            return
        self.server.requests.append(self.path)
        if self.path.rstrip("/") == "/v2":
            self.answer(200, b"{}")
            return
        what, _, name = self.path.rpartition("/")
        if what.endswith("/manifests") and not name.startswith("sha256:"):
            entries = json.loads((self.server.layout / "index.json").read_text())["manifests"]
            name = next(entry["digest"] for entry in entries if entry.get("annotations", {}).get(NAME) == name)
        data = (self.server.layout / "blobs" / name.replace(":", "/")).read_bytes()
        kind = json.loads(data).get("mediaType") if what.endswith("/manifests") else "application/octet-stream"
        self.answer(200, data, {"Content-Type": kind, "Docker-Content-Digest": name})

    do_HEAD = do_GET

    def answer(self, status: int, data: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass
