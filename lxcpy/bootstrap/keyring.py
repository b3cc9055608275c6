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
_SIGNATURE, _PUBLIC_KEY, _PUBLIC_SUBKEY = 2, 6, 14
# Types of signatures by which a key tells of itself, and of their subpackets (RFC 9580, sections 5.2.1 and 5.2.3).
_DIRECT = 0x1F
_SELF = (0x10, 0x11, 0x12, 0x13, _DIRECT)
_MADE, _EXPIRES, _ISSUER, _ISSUER_FINGERPRINT = 2, 9, 16, 33


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
    return [one for tag, body in packets(data) if tag in tags for one in _fingerprint(body)]


def _fingerprint(body: bytes) -> list[str]:
    """The fingerprint of a key's packet, or none of an unknown version."""
    if body[:1] == b"\x04":
        # SHA-1 over 0x99, the length in two bytes and the packet (RFC 9580, section 5.5.4.2).
        digest = hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body, usedforsecurity=False)
        return [digest.hexdigest().upper()]
    if body[:1] == b"\x06":
        return [hashlib.sha256(b"\x9b" + len(body).to_bytes(4, "big") + body).hexdigest().upper()]
    return []


def expiries(data: bytes) -> dict[str, int]:
    """Until when each version 4 primary key is valid by its newest signature of itself, in seconds since the epoch.

    0 for one without end. The signatures are not verified: the keyring is the host's or pinned. Raises ValueError,
    IndexError.
    """
    found: dict[str, int] = {}
    key, born = "", 0
    newest = (0, 0)
    for tag, body in packets(data):
        if tag == _PUBLIC_KEY and body[:1] == b"\x04":
            (key,) = _fingerprint(body)
            born, newest, found[key] = int.from_bytes(body[1:5], "big"), (0, 0), 0
        elif tag == _SIGNATURE and key and body[:1] == b"\x04" and body[1] in _SELF:
            told = _subpackets(body)
            issuer = told.get(_ISSUER) or told.get(_ISSUER_FINGERPRINT, b"")[-8:]
            # As GnuPG: what it says with a user's name counts before what it says of itself alone.
            made = (int(body[1] != _DIRECT), int.from_bytes(told.get(_MADE, b""), "big"))
            if issuer.hex().upper() == key[-16:] and made >= newest:
                newest, lasts = made, int.from_bytes(told.get(_EXPIRES, b""), "big")
                found[key] = born + lasts if lasts else 0
    return found


def _subpackets(body: bytes) -> dict[int, bytes]:
    """type: content of the subpackets of a version 4 signature; hashed ones win (RFC 9580, section 5.2.3.7)."""
    hashed = int.from_bytes(body[4:6], "big")
    rest = 6 + hashed
    areas = (body[rest + 2 : rest + 2 + int.from_bytes(body[rest : rest + 2], "big")], body[6:rest])
    found: dict[int, bytes] = {}
    for area in areas:
        place = 0
        while place < len(area):
            length, place = area[place], place + 1
            if 192 <= length < 255:
                length, place = ((length - 192) << 8) + area[place] + 192, place + 1
            elif length == 255:
                length, place = int.from_bytes(area[place : place + 4], "big"), place + 4
            found[area[place] & 0x7F] = area[place + 1 : place + length]
            place += length
            if not length:
                raise ValueError("a subpacket without content")
    return found
