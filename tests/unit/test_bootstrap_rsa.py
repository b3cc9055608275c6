"""RSA signatures: what openssl makes is good, what a forger makes is not."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest
from probes import requires

from lxcpy.bootstrap import rsa
from lxcpy.errors import BootstrapError

pytestmark = requires("openssl")
DATA = b"what was signed"


def make(folder: Path, *words: str, bits: int = 2048) -> tuple[Path, Path]:
    private, public = folder / "private.pem", folder / "public.pem"
    subprocess.run(["openssl", "genrsa", *words, "-out", str(private), str(bits)], check=True, capture_output=True)
    argv = ["openssl", "rsa", "-in", str(private), "-pubout", "-out", str(public)]
    subprocess.run(argv, check=True, capture_output=True)
    return private, public


@pytest.mark.parametrize("algorithm", ["sha1", "sha256", "sha512"])
@pytest.mark.parametrize("bits", [2048, 2056, 4096])
def test_openssls_signatures_are_good(tmp_path: Path, algorithm: str, bits: int) -> None:
    private, public = make(tmp_path, bits=bits)
    argv = ["openssl", "dgst", f"-{algorithm}", "-sign", str(private)]
    signature = subprocess.run(argv, input=DATA, capture_output=True, check=True).stdout
    key, digest = rsa.load(str(public)), rsa.digest(DATA, algorithm)
    assert key.verifies(digest, algorithm, signature)
    number = int.from_bytes(signature, "big")
    for bad in (
        signature[:-1] + bytes([signature[-1] ^ 1]), signature[:-1], b"\0" + signature, b"", bytes(len(signature)),
        (number + key.modulus).to_bytes(len(signature) + 1, "big"),
    ):  # fmt: skip
        assert not key.verifies(digest, algorithm, bad)
    assert not key.verifies(rsa.digest(DATA + b"x", algorithm), algorithm, signature)
    other = "sha256" if algorithm != "sha256" else "sha1"
    assert not key.verifies(rsa.digest(DATA, other), other, signature)


def cube_root(number: int) -> int:
    low, high = 0, 1 << (number.bit_length() // 3 + 1)
    while low < high:
        middle = (low + high) // 2
        low, high = (middle + 1, high) if middle**3 < number else (low, middle)
    return low


def test_a_forgery_for_a_small_exponent_fails(tmp_path: Path) -> None:
    """Bleichenbacher's: with exponent 3 a cube that only begins as it should satisfies who looks at the beginning."""
    _, public = make(tmp_path, "-3", bits=2048)
    key = rsa.load(str(public))
    assert key.exponent == 3
    info = bytes.fromhex("3021300906052b0e03021a05000414") + hashlib.sha1(DATA).digest()
    begin = b"\0\1" + b"\xff" * 8 + b"\0" + info
    forged = cube_root(int.from_bytes(begin.ljust(256, b"\0"), "big"))
    assert (forged**3).to_bytes(256, "big").startswith(begin)  # it does begin so
    assert not key.verifies(rsa.digest(DATA, "sha1"), "sha1", forged.to_bytes(256, "big"))


def test_what_is_no_key(tmp_path: Path) -> None:
    path = tmp_path / "key"
    _, weak = make(tmp_path, bits=1024)
    subprocess.run(["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-out", str(path)], check=True)
    curve = subprocess.run(["openssl", "ec", "-in", str(path), "-pubout"], capture_output=True, check=True).stdout
    for data, said in (
        (weak.read_bytes(), "too weak (1024 bits)"),
        (curve, "a key of another kind"),
        (b"", "no public key in it"),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "not in the form that is expected"),
        (b"-----BEGIN PUBLIC KEY-----\nMIIB\n-----END PUBLIC KEY-----\n", "cut short"),
    ):
        path.write_bytes(data)
        with pytest.raises(BootstrapError, match="is not a public RSA key") as caught:
            rsa.load(str(path))
        assert said in caught.value.what


def test_alpines_keys_are_the_pinned_ones() -> None:
    from lxcpy.bootstrap import template

    alpine = template.find("alpine")
    pinned = alpine.pairs("keys")
    folder = Path(alpine.path, "keys")
    assert {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()} == pinned
    assert len(pinned) == 16
    for path in folder.iterdir():
        assert rsa.load(str(path)).modulus.bit_length() in (2048, 4096)
