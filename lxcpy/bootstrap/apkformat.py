"""Alpine's files: packages and indices, each a row of gzip streams (apk-package(5), version 2).

signature    a tar segment with .SIGN.RSA.KEY (over SHA-1) or .SIGN.RSA256.KEY of the next stream
control      .PKGINFO and the scripts; in an index DESCRIPTION and APKINDEX, and that is all
data         the files
"""

from __future__ import annotations

import base64
import hashlib
import os
import re
import zlib
from collections.abc import Mapping
from typing import NamedTuple

from lxcpy.bootstrap import rsa, tar
from lxcpy.errors import BootstrapError

_SIGNATURE = re.compile(r"\.SIGN\.(RSA|RSA256|RSA512)\.([A-Za-z0-9@._+-]+)")
_ALGORITHMS = {"RSA512": "sha512", "RSA256": "sha256", "RSA": "sha1"}
_LARGEST_CONTROL = 64 << 20  # plain bytes of a signature or a control segment, or an index
_TERM = re.compile(r"(!?)([^\s<>=~@]+)([<>=~]*)([^\s@]*)(?:@\S+)?")
SCRIPTS = ("pre-install", "post-install", "pre-upgrade", "post-upgrade", "pre-deinstall", "post-deinstall", "trigger")


class Term(NamedTuple):
    """A dependency, or what a package provides. negative: it must not be there. operator: "" for any version."""

    name: str
    operator: str = ""
    version: str = ""
    negative: bool = False


class Package(NamedTuple):
    """One stanza of an index. fields: its lines by their letters. identity: the SHA-1 of its control stream."""

    name: str
    version: str
    identity: bytes
    size: int
    fields: Mapping[str, str]
    depends: tuple[Term, ...]
    provides: tuple[Term, ...]
    install_if: tuple[Term, ...]
    repository: int  # which of the repositories has it

    @property
    def file(self) -> str:
        return f"{self.name}-{self.version}.apk"

    @property
    def priority(self) -> int:
        """Of what it provides, against others that provide the same."""
        return int(self.fields.get("k", "0"))

    @property
    def checksum(self) -> str:
        """Its identity as Alpine writes it."""
        return "Q1" + base64.b64encode(self.identity).decode()


class Streams(NamedTuple):
    """A package file's parts. control: the plain files of the second stream; begin: where the third begins."""

    control: Mapping[str, bytes]
    identity: bytes
    begin: int


def streams(data: memoryview, count: int) -> list[tuple[memoryview, bytes]]:
    """The first gzip streams of a file, as they are and plain. Raises BootstrapError."""
    found, place = [], 0
    for _ in range(count):
        inflater = zlib.decompressobj(wbits=31)
        try:
            plain = inflater.decompress(data[place:], _LARGEST_CONTROL)
        except zlib.error as error:
            raise BootstrapError(f"damaged gz data: {error}") from error
        if not inflater.eof:
            what = "a stream larger than it may be" if len(plain) == _LARGEST_CONTROL else "truncated gz data"
            raise BootstrapError(what)
        end = len(data) - len(inflater.unused_data)
        found.append((data[place:end], plain))
        place = end
    return found


def members(plain: bytes) -> dict[str, bytes]:
    """The regular files of a tar segment. Raises BootstrapError."""
    archive = tar.Tar([plain, bytes(1024)])
    files = (one for one in archive if one.kind == tar.FILE and one.segments is None)
    return {os.fsdecode(one.name): archive.read(one.size) for one in files}


def index(data: bytes, keys: Mapping[str, rsa.Key], used: set[str], *, name: str, check: bool) -> dict[str, bytes]:
    """The files of a signed index; `used` gets the key's name. check: it must be signed. Raises BootstrapError."""
    try:
        first, *_ = streams(memoryview(data), 1)
        signatures = members(first[1])
        if any(map(_SIGNATURE.fullmatch, signatures)):
            rest = memoryview(data)[len(first[0]) :]
            if check:
                used.add(verify(rest, signatures, keys, name=name))
            return members(streams(rest, 1)[0][1])
        if check:
            hint = "something between you and the mirror may have replaced it"
            raise BootstrapError(f"{name} is not signed", hint=hint)
        return signatures
    except BootstrapError as error:
        raise error if name in error.what else BootstrapError(f"{name}: {error.what}", hint=error.hint) from error


def verify(data: memoryview, signatures: Mapping[str, bytes], keys: Mapping[str, rsa.Key], *, name: str) -> str:
    """Check a stream by the signatures in front of it; the name of the key. Raises BootstrapError."""
    unknown = []
    for file, signature in signatures.items():
        match = _SIGNATURE.fullmatch(file)
        if match is None:
            continue
        algorithm, key = _ALGORITHMS[match[1]], match[2]
        if key not in keys:
            unknown.append(key)
        elif keys[key].verifies(rsa.digest(data, algorithm), algorithm, signature):
            return key
        else:
            raise BootstrapError(
                f"{name}: bad signature: the content does not match the signature of {key}",
                hint="the file was changed on its way, or the mirror is broken: try another with --mirror",
            )
    raise BootstrapError(
        f"{name}: it is signed with {' and '.join(unknown)}, which is no key that is known",
        hint=f"put the file {unknown[0]} from a system that you trust into a folder, and name that by --keys",
    )


def package(data: memoryview, wanted: Package) -> Streams:
    """A package file that is the one the index names: its control stream by its identity, its files by its datahash.

    Raises BootstrapError.
    """
    try:
        (first, _), (raw, plain) = streams(data, 2)
        identity = hashlib.sha1(raw, usedforsecurity=False).digest()
        if identity != wanted.identity:
            raise BootstrapError("it is not the package that the signed index names (wrong hash of its control part)")
        control = members(plain)
        begin = len(first) + len(raw)
        told = info(control).get("datahash", [""])[0]
        if hashlib.sha256(data[begin:]).hexdigest() != told:
            raise BootstrapError("its files are not what its signed part says (wrong datahash)")
        return Streams(control, identity, begin)
    except BootstrapError as error:
        raise BootstrapError(f"{wanted.file}: {error.what}", hint=error.hint) from error


def info(control: Mapping[str, bytes]) -> dict[str, list[str]]:
    """The lines `KEY = VALUE` of .PKGINFO; keys repeat."""
    found: dict[str, list[str]] = {}
    for line in control.get(".PKGINFO", b"").decode(errors="replace").splitlines():
        key, equals, value = line.partition(" = ")
        if equals and not line.startswith("#"):
            found.setdefault(key.strip(), []).append(value.strip())
    return found


def stanzas(text: str, repository: int) -> list[Package]:
    """The packages of an index; a stanza that makes no sense is left out."""
    found = []
    for block in text.split("\n\n"):
        fields = {line[:1]: line[2:] for line in block.split("\n") if line[1:2] == ":"}
        try:
            if not fields["C"].startswith("Q1") or not _plain(fields["P"]) or not _plain(fields["V"]):
                continue
            identity = base64.b64decode(fields["C"][2:], validate=True)
            found.append(
                Package(
                    fields["P"], fields["V"], identity, int(fields["S"]), fields, terms(fields.get("D", "")),
                    terms(fields.get("p", "")), terms(fields.get("i", "")), repository,
                )
            )  # fmt: skip
        except (KeyError, ValueError):
            continue
    return found


def _plain(word: str) -> bool:
    return bool(word) and "/" not in word and not word.startswith(".") and not any(c.isspace() for c in word)


def terms(text: str) -> tuple[Term, ...]:
    """Dependencies or provisions, separated by blanks."""
    found = []
    for word in text.split():
        if match := _TERM.fullmatch(word):
            found.append(Term(match[2], match[3], match[4], bool(match[1])))
    return tuple(found)
