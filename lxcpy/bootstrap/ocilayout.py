"""OCI image layouts (image-spec 1.1): a folder with index.json and blobs that their digests name.

Every blob is checked against its digest and size before a byte of it is used. Docker's manifests of the second schema
are read too: skopeo and others put them into such folders.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Sequence
from typing import Any, NamedTuple

from lxcpy.errors import BootstrapError, UsageError, meaning

_REFERENCE = "org.opencontainers.image.ref.name"
_DIGEST = re.compile(r"(sha256):([0-9a-f]{64})|(sha512):([0-9a-f]{128})")
_LARGEST_JSON = 4 << 20  # the distribution spec's limit of a manifest
_DEEPEST = 4  # indices in indices
_INDEX = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_MANIFEST = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
_LAYER = re.compile(
    r"application/vnd\.(oci\.image\.layer(\.nondistributable)?\.v1\.tar(\+(gzip|zstd))?"
    r"|docker\.image\.rootfs\.(foreign\.)?diff\.tar(\.gzip|\.zstd)?)"
)
_EMPTY = "application/vnd.oci.empty.v1+json"


class Blob(NamedTuple):
    """What a descriptor says of a blob."""

    digest: str
    size: int
    kind: str


class Image(NamedTuple):
    """One image for one platform. config: its JSON. layers with their plain content's digests, the lowest first."""

    config: dict[str, Any]
    layers: tuple[tuple[Blob, str], ...]


class Layout:
    """A folder; further: one more place of blobs, as skopeo's cache is. Raises BootstrapError."""

    def __init__(self, path: str, further: str | None = None) -> None:
        self.path = path
        self.further = further
        self.places = [f"{path}/blobs", *([further] if further else [])]
        try:
            with open(f"{path}/oci-layout", encoding="utf-8") as file:
                version = json.loads(file.read(1 << 16))["imageLayoutVersion"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            words = meaning(error) if isinstance(error, OSError) else "bad JSON"
            raise BootstrapError(
                f'"{path}" is no OCI image layout: oci-layout: {words}',
                hint="it needs oci-layout, index.json and blobs/",
            ) from error
        if not str(version).startswith("1."):
            raise BootstrapError(f'"{path}" is an OCI image layout of the unknown version {version}')

    def open(self, blob: Blob) -> int:
        """A descriptor of a blob that is what it should be. Raises BootstrapError."""
        algorithm, _, value = blob.digest.partition(":")
        file = self._open(algorithm, value)
        state, size = hashlib.new(algorithm), 0
        while data := os.pread(file, 1 << 20, size):
            state.update(data)
            size += len(data)
        if state.hexdigest() != value or size != blob.size:
            os.close(file)
            found = f"{algorithm}:{state.hexdigest()} of {size} bytes"
            raise BootstrapError(
                f"{self.path}: the blob {blob.digest} of {blob.size} bytes is not that, it is {found}",
                hint="the image is damaged, or somebody changed it: copy it anew",
            )
        return file

    def _open(self, algorithm: str, value: str) -> int:
        problem: OSError | None = None
        for place in self.places:
            try:
                file = os.open(f"{place}/{algorithm}/{value}", os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
            except OSError as error:
                problem = problem or error
                continue
            if stat.S_ISREG(os.fstat(file).st_mode):
                if place == self.further:
                    os.utime(file)  # used
                return file
            os.close(file)
        words = meaning(problem) if problem else "not a regular file"
        raise BootstrapError(f"{self.path}: cannot read the blob {algorithm}:{value}: {words}")

    def image(self, reference: str, platform: Sequence[str]) -> Image:
        """The image of a tag or digest ("" for the only one) and a platform (architecture, variant or "").

        Raises BootstrapError, UsageError.
        """
        try:
            manifest = self._manifest(self._referred(self._index(), reference), platform, 0)
            return self._image(manifest)
        except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
            raise BootstrapError(f"{self.path}: damaged: its JSON makes no sense ({type(error).__name__})") from error

    def _index(self) -> list[dict[str, Any]]:
        try:
            with open(f"{self.path}/index.json", "rb") as file:
                data = file.read(_LARGEST_JSON + 1)
        except OSError as error:
            raise BootstrapError(f"cannot read {self.path}/index.json: {meaning(error)}") from error
        if len(data) > _LARGEST_JSON:
            raise BootstrapError(f"{self.path}/index.json is larger than {_LARGEST_JSON >> 20} MiB")
        found: list[dict[str, Any]] = json.loads(data)["manifests"]
        return found

    def _referred(self, manifests: list[dict[str, Any]], reference: str) -> list[dict[str, Any]]:
        """The entries of the index that a tag or digest means."""
        names = [(one.get("annotations") or {}).get(_REFERENCE, "") for one in manifests]
        if _DIGEST.fullmatch(reference):
            found = [one for one in manifests if one["digest"] == reference]
        elif reference:
            found = [one for one, name in zip(manifests, names, strict=True) if name == reference]
        else:
            found = manifests if len(set(names)) == 1 else []
        if not found:
            known = ", ".join(sorted({name for name in names if name})) or "none with a name"
            what = f'has no image "{reference}"' if reference else "has several images: which one?"
            raise UsageError(f"{self.path} {what}", hint=f"there are {known}; a tag stands after a colon: oci:PATH:TAG")
        return found

    def _manifest(self, entries: list[dict[str, Any]], platform: Sequence[str], depth: int) -> dict[str, Any]:
        """The manifest for a platform, through indices where they are. Raises BootstrapError."""
        fitting = [one for one in entries if "platform" in one and _fits(one["platform"], platform)]
        open_ones = [one for one in entries if not one.get("platform")]
        for one in sorted(fitting, key=lambda entry: entry["platform"].get("variant", "") != platform[1]) + open_ones:
            found = self._json(blob(one))
            kind = one.get("mediaType") or found.get("mediaType", "")
            if kind in _INDEX or "manifests" in found:
                if depth >= _DEEPEST:
                    raise BootstrapError(f"{self.path}: indices in indices, {_DEEPEST} deep and more")
                return self._manifest(found["manifests"], platform, depth + 1)
            if kind and kind not in _MANIFEST:
                raise BootstrapError(f'{self.path}: a manifest of the unknown type "{kind}"')
            return found
        known = sorted({_platform(one["platform"]) for one in entries if one.get("platform")})
        raise BootstrapError(
            f"{self.path} has no image for {'/'.join(filter(None, ('linux', *platform)))}",
            hint=f"there are {', '.join(known) or 'none at all'}; --arch chooses one",
        )

    def _image(self, manifest: dict[str, Any]) -> Image:
        described = blob(manifest["config"])
        config = {} if described.kind == _EMPTY else self._json(described)
        layers = [blob(one) for one in manifest["layers"]]
        for one in layers:
            if not _LAYER.fullmatch(one.kind):
                raise BootstrapError(
                    f'{self.path}: a layer of the type "{one.kind}", which is no tar archive',
                    hint="squashfs and puzzlefs need their own mount helpers, encrypted layers must be opened",
                )
        plain = (config.get("rootfs") or {}).get("diff_ids") if config else [""] * len(layers)
        if not isinstance(plain, list) or len(plain) != len(layers):
            raise BootstrapError(f"{self.path}: damaged: the image has {len(layers)} layers and its config others")
        for digest in plain:
            if digest and not _DIGEST.fullmatch(digest):
                raise BootstrapError(f'{self.path}: "{digest}" is not a digest')
        return Image(config, tuple(zip(layers, plain, strict=True)))

    def _json(self, described: Blob) -> dict[str, Any]:
        if described.size > _LARGEST_JSON:
            raise BootstrapError(f"{self.path}: the blob {described.digest} is too large for a manifest or config")
        file = self.open(described)
        try:
            found = json.loads(os.pread(file, described.size, 0))
        finally:
            os.close(file)
        if not isinstance(found, dict):
            raise TypeError("no object")
        return found


def blob(descriptor: dict[str, Any]) -> Blob:
    """What a descriptor names. Raises BootstrapError, KeyError, TypeError."""
    digest, size = descriptor["digest"], descriptor["size"]
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise BootstrapError(f'"{digest}" is not a digest of a known kind', hint="sha256 and sha512 are")
    if not isinstance(size, int) or size < 0:
        raise BootstrapError(f"the blob {digest} has the size {size}")
    return Blob(digest, size, str(descriptor.get("mediaType", "")))


def _fits(platform: Any, wanted: Sequence[str]) -> bool:
    if platform.get("os", "linux") != "linux" or platform.get("architecture") != wanted[0]:
        return False
    # An image for an older variant runs on a newer one, v6 on v7.
    return not wanted[1] or str(platform.get("variant") or wanted[1]) <= wanted[1]


def _platform(platform: Any) -> str:
    return "/".join(str(platform[one]) for one in ("os", "architecture", "variant") if platform.get(one))
