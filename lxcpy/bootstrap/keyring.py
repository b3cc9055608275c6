"""Keyrings: where a distribution's keys are found, and which keys a file holds.

Keys come from the host (its distribution keeps them up to date), from the template (fingerprints pinned in its ini), or
from --keyring. Never from a keyserver.
"""

from __future__ import annotations

import base64
import glob
import hashlib
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from lxcpy.errors import BootstrapError, meaning

HOST_PLACES = ("/usr/share/keyrings", "/etc/apt/keyrings", "/etc/apt/trusted.gpg.d")
_ARMOR = b"-----BEGIN PGP PUBLIC KEY BLOCK-----"
_PUBLIC_KEY, _PUBLIC_SUBKEY = 6, 14


class Keyring(NamedTuple):
    """The keys of one file, in binary form, as gpgv reads them."""

    path: str
    data: bytes

    def __str__(self) -> str:
        return self.path


def load(path: str) -> Keyring:
    """A keyring file, binary or armored. Raises BootstrapError."""
    try:
        with open(path, "rb") as file:
            data = file.read(4 << 20)
    except OSError as error:
        raise BootstrapError(f'cannot read the keyring "{path}": {meaning(error)}') from error
    try:
        data = dearmor(data) if _ARMOR in data else data
        if not fingerprints(data):
            raise ValueError("no public key in it")
    except (ValueError, IndexError) as error:
        raise BootstrapError(f'"{path}" is not a keyring: {error}') from error
    return Keyring(path, data)


def find(names: Sequence[str], places: Sequence[str] = HOST_PLACES) -> list[Keyring]:
    """The host's keyrings whose file name matches one of the patterns `names`; files that are none are left out."""
    found = []
    for place in places:
        for name in names:
            for path in sorted(glob.glob(os.path.join(glob.escape(place), name))):
                try:
                    found.append(load(path))
                except BootstrapError:
                    continue
    return found


def shipped(path: str, pinned: Sequence[str]) -> Keyring:
    """A template's own keyring; every key in it must be among the pinned fingerprints. Raises BootstrapError."""
    keyring = load(path)
    wanted = {"".join(words.split()).upper() for words in pinned}
    for fingerprint in fingerprints(keyring.data):
        if fingerprint not in wanted:
            raise BootstrapError(
                f'"{path}" holds a key that the template does not name: {fingerprint}',
                hint="install lxcpy again, or give a keyring that you trust with --keyring",
            )
    return keyring


def dearmor(data: bytes) -> bytes:
    """The binary form of every armored block in `data` (RFC 9580, section 6.2). Raises ValueError."""
    out = b""
    for block in data.split(_ARMOR)[1:]:
        body = block.partition(b"-----END")[0].replace(b"\r", b"")
        _, _, body = body.partition(b"\n\n")  # headers end with an empty line
        lines = [line.strip() for line in body.split(b"\n")]
        out += base64.b64decode(b"".join(line for line in lines if not line.startswith(b"=")), validate=True)
    return out


def packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(tag, body) of each OpenPGP packet (RFC 9580, section 4.2). Raises ValueError, IndexError."""
    place = 0
    while place < len(data):
        first = data[place]
        place += 1
        if not first & 0x80:
            raise ValueError("not OpenPGP data")
        if first & 0x40:  # new format
            tag, length, place = first & 0x3F, data[place], place + 1
            if 192 <= length < 224:
                length, place = ((length - 192) << 8) + data[place] + 192, place + 1
            elif length == 255:
                length, place = int.from_bytes(data[place : place + 4], "big"), place + 4
            elif length >= 224:
                raise ValueError("partial packet lengths")
        else:
            tag, size = first >> 2 & 0x0F, 1 << (first & 3)
            if size == 8:
                raise ValueError("a packet without length")
            length, place = int.from_bytes(data[place : place + size], "big"), place + size
        if place + length > len(data):
            raise ValueError("cut short")
        yield tag, data[place : place + length]
        place += length


def fingerprints(data: bytes, *, subkeys: bool = False) -> list[str]:
    """The fingerprints of the primary keys (and subkeys) in binary keyring data. Raises ValueError, IndexError."""
    tags = (_PUBLIC_KEY, _PUBLIC_SUBKEY) if subkeys else (_PUBLIC_KEY,)
    found = []
    for tag, body in packets(data):
        if tag in tags and body[:1] == b"\x04":
            # Version 4: SHA-1 over 0x99, the length in two bytes and the packet (RFC 9580, section 5.5.4.2).
            digest = hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body, usedforsecurity=False)
            found.append(digest.hexdigest().upper())
        elif tag in tags and body[:1] == b"\x06":
            found.append(hashlib.sha256(b"\x9b" + len(body).to_bytes(4, "big") + body).hexdigest().upper())
    return found
