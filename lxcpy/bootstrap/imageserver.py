"""Image servers: what they have, and what vouches for it.

Two kinds of index are read: LXC's (`meta/1.0/index-MODE`, a line a build) and simplestreams' (`streams/v1/`, JSON).
Over https the server's certificate vouches for what it says, as with LXC; with a keyring an OpenPGP signature must:
of the index, and of the SHA256SUMS beside an image or of each file. Every file whose hash is told is checked by it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from lxcpy.bootstrap import keyring, signature
from lxcpy.bootstrap.download import Client, Expected, Mirrors, Missing
from lxcpy.errors import BootstrapError, UsageError

_LARGEST_INDEX = 64 << 20
_LARGEST_SIGNATURE = 1 << 20
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]*")
_SUM = re.compile(r"([0-9a-f]{64}) [ *](?:\./)?([A-Za-z0-9._+-]+)")
_FINGERPRINT = re.compile(r"(0x)?([0-9A-Fa-f]{40}|[0-9A-Fa-f]{64})")


class Build(NamedTuple):
    """One build of an image. path: its folder. files: the file's name → where it is, and what it must be if told."""

    dist: str
    release: str
    arch: str
    variant: str
    build: str
    path: str
    files: Mapping[str, tuple[str, Expected | None]]


class Server:
    """One server, or several that have the same. Raises UsageError, BootstrapError."""

    def __init__(self, client: Client, options: Mapping[str, str], default: str, *, mode: str, compat: int) -> None:
        addresses = (options.get("server") or default).replace(",", " ").split()
        self.mirrors = Mirrors(client, [one if "://" in one else f"https://{one}" for one in addresses])
        self.url = self.mirrors.bases[0]  # without a login
        self.mode, self.compat = mode, compat
        self.validate = "no-validate" not in options
        self.keyrings = [keyring.load(options["keyring"])] if "keyring" in options else []
        self.key = _key(options)
        if self.key and not self.keyrings:
            raise UsageError("--keyid: of which keyring?", hint="--keyring=FILE names the file that holds the key")
        self.bare = any(urlsplit(base).scheme == "http" for base in self.mirrors.bases)
        if self.bare and self.validate and not self.keyrings:
            raise UsageError(
                f"{self.url}: anybody on the way could change what comes over http",
                hint="use https, or --keyring=FILE if the server signs its images, or --no-validate",
            )

    @property
    def signed(self) -> bool:
        """Whether signatures are asked for."""
        return bool(self.keyrings) and self.validate

    def builds(self) -> list[Build]:
        """All that the server has for this kind of container, in its own order. Raises BootstrapError."""
        for name in (f"meta/1.0/index-{self.mode}.{self.compat}", f"meta/1.0/index-{self.mode}"):
            try:
                data = self._index(name)
            except Missing:
                continue
            return [build for line in data.decode(errors="replace").splitlines() if (build := _line(line))]
        try:
            return self._streams()
        except Missing as error:
            raise BootstrapError(
                f"{self.url} is no image server: it has neither meta/1.0/index-{self.mode} nor streams/v1/index.json",
                hint="--server=NAME or --server=URL names another",
            ) from error

    def files(self, build: Build) -> dict[str, tuple[str, Expected | None]]:
        """The build's files, with their hashes where the server tells them. Raises BootstrapError."""
        if build.files:
            return dict(build.files)
        try:
            text = self._index(f"{build.path}/SHA256SUMS").decode(errors="replace")
        except Missing:
            return {name: (f"{build.path}/{name}", None) for name in ("meta.tar.xz", "rootfs.tar.xz")}
        sums = {match[2]: match[1] for line in text.splitlines() if (match := _SUM.fullmatch(line.strip()))}
        return {name: (f"{build.path}/{name}", Expected(-1, value)) for name, value in sums.items()}

    def vouched(self, path: str, data: bytes) -> None:
        """Check a file whose hash nothing signed told by the signature beside it. Raises BootstrapError."""
        self._check(path, data, f"{path}.asc")

    def _index(self, name: str) -> bytes:
        """A small file, and its signature if one is asked for. Raises Missing, BootstrapError."""
        data = self.mirrors.read(name, _LARGEST_INDEX)
        if self.signed:
            self._check(name, data, f"{name}.asc")
        return data

    def _check(self, name: str, data: bytes, beside: str) -> None:
        try:
            seal = self.mirrors.read(beside, _LARGEST_SIGNATURE)
        except Missing as error:
            raise BootstrapError(
                f"{self.url}/{name} is not signed: there is no {beside.rpartition('/')[2]}",
                hint="without --keyring the server's certificate has to do" if not self.bare else None,
            ) from error
        self._known(signature.verify_detached(data, seal, self.keyrings, name=f"{self.url}/{name}").keys, name)

    def _known(self, keys: tuple[str, ...], name: str) -> None:
        if self.key and self.key not in keys:
            raise BootstrapError(f"{self.url}/{name} is signed by {', '.join(keys)}, not by {self.key}")

    # -- simplestreams -----------------------------------------------------------------------------------------------

    def _streams(self) -> list[Build]:
        index = self._json("streams/v1/index")
        try:
            places = [one["path"] for one in index["index"].values() if one.get("datatype") == "image-downloads"]
            path = _inside(str(places[0] if places else "streams/v1/images.json"))
            products = self._json(path.removesuffix(".json").removesuffix(".sjson"))["products"].values()
        except (KeyError, TypeError, AttributeError) as error:
            raise BootstrapError(f"{self.url}/streams/v1 is no index of simplestreams' kind") from error
        return [build for product in products for build in _product(product)]

    def _json(self, name: str) -> Any:
        """A JSON file; signed inside (.sjson) or beside (.json.gpg) if signatures are asked for."""
        if not self.signed:
            data = self.mirrors.read(f"{name}.json", _LARGEST_INDEX)
        else:
            try:
                sealed = self.mirrors.read(f"{name}.sjson", _LARGEST_INDEX)
            except Missing:
                data = self.mirrors.read(f"{name}.json", _LARGEST_INDEX)
                self._check(f"{name}.json", data, f"{name}.json.gpg")
            else:
                verified = signature.verify_inline(sealed, self.keyrings, name=f"{self.url}/{name}.sjson")
                self._known(verified.keys, f"{name}.sjson")
                data = verified.text
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise BootstrapError(f"{self.url}/{name}.json is no JSON: {error}") from error


def _key(options: Mapping[str, str]) -> str:
    if "keyserver" in options:
        raise UsageError(
            "--keyserver: lxcpy takes no key from a keyserver, which anybody can put one on",
            hint="--keyring=FILE names a file with the keys that you trust, --keyid=FINGERPRINT one of them",
        )
    if "keyid" not in options:
        return ""
    if not (match := _FINGERPRINT.fullmatch(options["keyid"].replace(" ", ""))):
        raise UsageError(
            f'--keyid: "{options["keyid"]}" is not a fingerprint',
            hint="give all its 40 digits: keys with the same last digits are easily made",
        )
    return match[2].upper()


def word(text: str, what: str) -> str:
    """A name of a distribution and the like, which becomes part of file names. Raises UsageError."""
    if not _WORD.fullmatch(text):
        raise UsageError(f'"{text}" cannot be a {what}')
    return text


def _line(line: str) -> Build | None:
    """A line `dist;release;arch;variant;build;path` of LXC's index; None for one that is of no use."""
    fields = line.split(";")
    if len(fields) < 6 or not all(map(_WORD.fullmatch, fields[:4])) or not fields[4] or not fields[5]:
        return None
    dist, release, arch, variant, build, path = fields[:6]
    return Build(dist, release, arch, variant, build, _inside(path), {})


def _inside(path: str) -> str:
    """A path of the server's index, below its root. Raises BootstrapError."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if ".." in parts or "://" in path:
        raise BootstrapError(f'the server\'s index holds the path "{path}", which leads outside')
    return "/".join(parts)


def _product(product: Any) -> list[Build]:
    """The builds of one product of simplestreams that containers can be made of, the newest first."""
    found = []
    try:
        dist, release, arch = str(product.get("os", "")).lower(), product["release"], product["arch"]
        variant = product.get("variant") or "default"
        if not all(map(_WORD.fullmatch, (dist, release, arch, variant))):
            return []
        for build in sorted(product["versions"], reverse=True):
            files: dict[str, tuple[str, Expected | None]] = {}
            for item in product["versions"][build]["items"].values():
                name = _USES.get(item["ftype"])
                if name and re.fullmatch(r"[0-9a-f]{64}", item["sha256"]):
                    files[name] = _inside(item["path"]), Expected(int(item["size"]), item["sha256"])
            if files:
                path = os.path.dirname(next(iter(files.values()))[0])
                found.append(Build(dist, release, arch, variant, build, path, files))
    except (KeyError, TypeError, AttributeError, ValueError):
        return found  # a product of another kind
    return found


# simplestreams' types of files, and what the same files are called in LXC's tree
_USES = {
    "root.tar.xz": "rootfs.tar.xz", "squashfs": "rootfs.squashfs", "meta.tar.xz": "meta.tar.xz",
    "lxc.tar.xz": "meta.tar.xz",
}  # fmt: skip
