"""RSA signatures (RFC 8017, PKCS #1 v1.5), checked with nothing but the standard library.

Only checking: a public exponent, a public modulus, and a comparison of the whole padded message, so that no part of it
is left for a forger to fill.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import NamedTuple

from lxcpy.errors import BootstrapError, meaning

_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----(.*?)-----END PUBLIC KEY-----", re.DOTALL)
_OID = bytes.fromhex("06092a864886f70d010101")  # rsaEncryption
# DigestInfo before the hash itself: RFC 8017, section 9.2, note 1.
_PREFIX = {
    "sha1": bytes.fromhex("3021300906052b0e03021a05000414"),
    "sha256": bytes.fromhex("3031300d060960864801650304020105000420"),
    "sha512": bytes.fromhex("3051300d060960864801650304020305000440"),
}
_SMALLEST = 2048  # bits


class Key(NamedTuple):
    """A public key."""

    modulus: int
    exponent: int

    def verifies(self, digest: bytes, algorithm: str, signature: bytes) -> bool:
        """Whether a signature is that of this key over content with the hash `digest`."""
        length = (self.modulus.bit_length() + 7) // 8
        number = int.from_bytes(signature, "big")
        if len(signature) != length or number >= self.modulus:
            return False
        info = _PREFIX[algorithm] + digest
        expected = b"\x00\x01" + b"\xff" * (length - len(info) - 3) + b"\x00" + info
        return pow(number, self.exponent, self.modulus).to_bytes(length, "big") == expected


def load(path: str) -> Key:
    """A key file in PEM form, as openssl writes it. Raises BootstrapError."""
    try:
        with open(path, "rb") as file:
            return parse(file.read(1 << 16))
    except OSError as error:
        raise BootstrapError(f'cannot read the key "{path}": {meaning(error)}') from error
    except (ValueError, IndexError) as error:
        raise BootstrapError(f'"{path}" is not a public RSA key: {error}') from error


def parse(pem: bytes) -> Key:
    """SubjectPublicKeyInfo of RFC 5280 in PEM form. Raises ValueError, IndexError."""
    match = _PEM.search(pem)
    if match is None:
        raise ValueError("no public key in it")
    outer, _ = _take(base64.b64decode(b"".join(match[1].split()), validate=True), 0x30)
    kind, rest = _take(outer, 0x30)
    if not kind.startswith(_OID):
        raise ValueError("a key of another kind")
    bits, _ = _take(rest, 0x03)
    pair, _ = _take(bits[1:], 0x30)
    modulus, rest = _take(pair, 0x02)
    exponent, _ = _take(rest, 0x02)
    key = Key(int.from_bytes(modulus, "big"), int.from_bytes(exponent, "big"))
    if key.modulus.bit_length() < _SMALLEST or key.exponent < 3 or not key.exponent & 1:
        raise ValueError(f"too weak ({key.modulus.bit_length()} bits)")
    return key


def _take(data: bytes, tag: int) -> tuple[bytes, bytes]:
    """(content of the first DER element, what follows it). Raises ValueError, IndexError."""
    if data[0] != tag:
        raise ValueError("not in the form that is expected")
    length, place = data[1], 2
    if length & 0x80:
        count = length & 0x7F
        length, place = int.from_bytes(data[2 : 2 + count], "big"), 2 + count
    if place + length > len(data):
        raise ValueError("cut short")
    return data[place : place + length], data[place + length :]


def digest(data: bytes | memoryview, algorithm: str) -> bytes:
    """The hash of some content."""
    return hashlib.new(algorithm, data, usedforsecurity=False).digest()
