"""An image server on loopback, in the layout of LXC's and in that of simplestreams."""

from __future__ import annotations

import hashlib
import json
import shutil
import ssl
import subprocess
from pathlib import Path

from debmirror import Key, Server

NAMES = ("busybox", "1.0", "amd64", "default")


class Images:
    """The files of a server below `root`."""

    def __init__(self, root: Path, key: Key | None = None) -> None:
        self.root, self.key = root, key
        self.lines: list[str] = []
        self.products: dict[str, object] = {}
        root.mkdir(parents=True)

    def add(
        self,
        files: dict[str, Path],
        *,
        build: str = "20240101_00:00",
        names: tuple[str, ...] = NAMES,
        sums: bool = True,
    ) -> Path:
        """One build in LXC's layout; its folder."""
        path = f"images/{'/'.join(names)}/{build}"
        folder = self.root / path
        folder.mkdir(parents=True)
        for name, source in files.items():
            shutil.copy(source, folder / name)
        if sums:
            text = "".join(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n" for name in files)
            (folder / "SHA256SUMS").write_text(text)
            self.sign(folder / "SHA256SUMS")
        self.lines = [line for line in self.lines if not line.startswith(";".join(names))]
        self.lines.append(";".join([*names, build, f"/{path}/"]))
        return folder

    def publish(self, name: str = "meta/1.0/index-system") -> None:
        for index in (name, name.replace("system", "user")):
            path = self.root / index
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("\n".join([*self.lines, "", "nonsense;x"]) + "\n")
            self.sign(path)

    def sign(self, path: Path) -> None:
        if self.key is not None:
            (path.parent / f"{path.name}.asc").write_bytes(self.key.detach(path.read_bytes()))

    def streams(self, files: dict[str, Path], *, build: str = "20240101_00:00", names: tuple[str, ...] = NAMES) -> None:
        """Publish one image as simplestreams; files: type of file to its source."""
        items = {}
        for kind, source in files.items():
            path = self.root / f"images/{build}/{source.name}"
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, path)
            data = path.read_bytes()
            sha256 = hashlib.sha256(data).hexdigest()
            items[kind] = {"ftype": kind, "size": len(data), "sha256": sha256, "path": str(path.relative_to(self.root))}
        product = {"os": names[0].title(), "release": names[1], "arch": names[2], "variant": names[3]}
        self.products[":".join(names)] = {
            **product,
            "versions": {build: {"items": items}, "20200101_00:00": {"items": {}}},
        }
        self.products["disk"] = {"os": "x", "versions": 3}
        index = {"index": {"images": {"datatype": "image-downloads", "path": "streams/v1/images.json"}}}
        (self.root / "streams/v1").mkdir(parents=True, exist_ok=True)
        for name, content in (("index", index), ("images", {"products": self.products})):
            text = json.dumps(content).encode()
            (self.root / f"streams/v1/{name}.json").write_bytes(text)
            if self.key is not None:
                (self.root / f"streams/v1/{name}.sjson").write_bytes(self.key.clearsign(text))


def certificate(folder: Path) -> tuple[Path, Path]:
    """(certificate, key) of a private authority that is the server too, for 127.0.0.1."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=127.0.0.1", "-addext",
         "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


class TlsServer(Server):
    """The same over https."""

    def __init__(self, root: Path, cert: Path, key: Path) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(cert, key)
        super().__init__(root)
        self.url = self.url.replace("http://", "https://")

    def get_request(self):  # type: ignore[no-untyped-def]
        sock, address = super().get_request()
        return self.context.wrap_socket(sock, server_side=True), address
