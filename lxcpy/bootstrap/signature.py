"""OpenPGP signatures, checked by the host's gpgv, else by sqv. Only what they vouch for is handed on."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from typing import NamedTuple

from lxcpy.bootstrap.keyring import Keyring, expiries
from lxcpy.errors import BootstrapError, meaning

_CLEAR = b"-----BEGIN PGP SIGNED MESSAGE-----"
_SIGNATURE = b"-----BEGIN PGP SIGNATURE-----"
_END = b"-----END PGP SIGNATURE-----"
# Hash algorithms of RFC 9580, section 9.5, that nobody can forge today: SHA256, SHA384, SHA512, SHA224, SHA3.
_STRONG = ("8", "9", "10", "11", "12", "14")
_KEY_HINT = "the key may be newer than the keyring: update the host's keyring package, or give one with --keyring"


class Verified(NamedTuple):
    """The text that was signed, and the primary keys that signed it."""

    text: bytes
    keys: tuple[str, ...]


def verify_inline(data: bytes, keyrings: Sequence[Keyring], *, name: str) -> Verified:
    """Check a clear-signed file such as InRelease. Raises BootstrapError."""
    message, signature = split(data, name)
    if shutil.which("gpgv"):
        return _gpgv([data], keyrings, name)
    return Verified(message, _sqv(message, signature, keyrings, name))


def verify_detached(data: bytes, signature: bytes, keyrings: Sequence[Keyring], *, name: str) -> Verified:
    """Check a file against a signature beside it, such as Release and Release.gpg. Raises BootstrapError."""
    if shutil.which("gpgv"):
        return Verified(data, _gpgv([signature, data], keyrings, name).keys)
    return Verified(data, _sqv(data, signature, keyrings, name))


def split(data: bytes, name: str) -> tuple[bytes, bytes]:
    """The text and the signature of a clear-signed file (RFC 9580, section 7), which must hold nothing else.

    Raises BootstrapError.
    """
    lines = data.replace(b"\r\n", b"\n").split(b"\n")
    try:
        start = lines.index(_CLEAR)
        text = lines.index(b"", start) + 1
        end = lines.index(_SIGNATURE, text)
        last = lines.index(_END, end)
    except ValueError:
        raise BootstrapError(
            f"{name} is not signed", hint="something between you and the mirror may have replaced it"
        ) from None
    headers = lines[start + 1 : text - 1]
    if any(lines[:start]) or any(lines[last + 1 :]) or not all(line.startswith(b"Hash:") for line in headers):
        raise BootstrapError(f"{name} holds more than one signed text")
    body = [line.removeprefix(b"- ").rstrip(b" \t") for line in lines[text:end]]
    return b"\n".join(body), b"\n".join(lines[end : last + 1]) + b"\n"


def _gpgv(files: Sequence[bytes], keyrings: Sequence[Keyring], name: str) -> Verified:
    """gpgv over one clear-signed file, or over a signature and its file."""
    with tempfile.TemporaryDirectory(prefix="lxcpy-gpgv-") as home:
        command = ["gpgv", "--homedir", home, "--status-fd", "2", "--output", "-"]
        for number, keyring in enumerate(keyrings):
            command += ["--keyring", _file(home, f"{number}.gpg", keyring.data)]
        command += [_file(home, f"{number}.data", data) for number, data in enumerate(files)]
        result = _run(command)
    keys, problems = _read_status(result.stderr.decode(errors="replace"))
    bad = next((problem for problem in problems if problem[0] == "BADSIG"), None)
    if bad or not keys:
        raise _refused(name, bad or (problems[0] if problems else ("", "")), result.stderr)
    return Verified(result.stdout, tuple(keys))


def _file(home: str, name: str, data: bytes) -> str:
    path = os.path.join(home, name)
    with open(path, "wb") as file:
        file.write(data)
    return path


def _run(command: list[str]) -> subprocess.CompletedProcess[bytes]:
    environment = {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}
    try:
        return subprocess.run(command, capture_output=True, env=environment, timeout=60, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired) as error:
        words = meaning(error) if isinstance(error, OSError) else "it did not end in 60 seconds"
        raise BootstrapError(f"cannot run {command[0]}: {words}") from error


def _read_status(text: str) -> tuple[list[str], list[tuple[str, str]]]:
    """The primary keys with a good signature, and (keyword, argument) of each thing that is wrong (GnuPG's DETAILS)."""
    keys, problems = [], []
    good = False
    for line in text.splitlines():
        words = line.split()
        if words[:1] != ["[GNUPG:]"] or len(words) < 2:
            continue
        keyword, arguments = words[1], words[2:]
        if keyword == "NEWSIG":
            good = False
        elif keyword == "GOODSIG":
            good = True
        elif keyword in ("BADSIG", "EXPSIG", "EXPKEYSIG", "REVKEYSIG", "ERRSIG", "NO_PUBKEY", "NODATA"):
            problems.append((keyword, arguments[0] if arguments else ""))
        elif keyword == "VALIDSIG" and good and len(arguments) >= 8:
            good = False
            if arguments[7] not in _STRONG:
                problems.append(("WEAK", arguments[0]))
                continue
            keys.append(arguments[9] if len(arguments) > 9 else arguments[0])
    # The first in this order explains best why nothing was good.
    order = ("BADSIG", "REVKEYSIG", "EXPKEYSIG", "EXPSIG", "WEAK", "NO_PUBKEY", "ERRSIG", "NODATA")
    return keys, sorted(problems, key=lambda problem: order.index(problem[0]))


_MEANINGS = {
    "BADSIG": ("the content does not match the signature of key {key}",
               "the file was changed on its way, or the mirror is broken: try another with --mirror"),
    "REVKEYSIG": ("the key {key} that signed it is revoked", _KEY_HINT),
    "EXPKEYSIG": ("the key {key} that signed it is expired", _KEY_HINT),
    "EXPSIG": ("the signature of key {key} is expired", "the mirror is out of date: try another with --mirror"),
    "WEAK": ("the key {key} signed it with a hash that can be forged", "the mirror is too old to be trusted"),
    "NO_PUBKEY": ("it is signed with key {key}, which is in no keyring", _KEY_HINT),
    "ERRSIG": ("it is signed with key {key}, which is in no keyring", _KEY_HINT),
    "NODATA": ("there is no signature in it", "something between you and the mirror may have replaced it"),
}  # fmt: skip


def _refused(name: str, problem: tuple[str, str], output: bytes) -> BootstrapError:
    keyword, key = problem
    if keyword not in _MEANINGS:
        last = output.decode(errors="replace").strip().rpartition("\n")[2]
        return BootstrapError(f"{name}: the signature cannot be checked: {last}")
    words, hint = _MEANINGS[keyword]
    return BootstrapError(f"{name}: bad signature: {words.format(key=key)}", hint=hint)


def _sqv(data: bytes, signature: bytes, keyrings: Sequence[Keyring], name: str) -> tuple[str, ...]:
    """Fingerprints that sqv prints for good signatures; its own policy refuses weak hashes."""
    if not shutil.which("sqv"):
        raise BootstrapError(
            f"{name}: nothing here can check its signature",
            hint="install gpgv or sqv; --no-check-gpg goes on without, if you trust the network and the mirror",
        )
    with tempfile.TemporaryDirectory(prefix="lxcpy-sqv-") as home:
        command = ["sqv"]
        for number, keyring in enumerate(keyrings):
            command += ["--keyring", _file(home, f"{number}.gpg", keyring.data)]
        command += [_file(home, "signature", signature), _file(home, "data", data)]
        result = _run(command)
    keys = tuple(result.stdout.decode(errors="replace").split())
    if result.returncode or not keys:
        words = " ".join(result.stderr.decode(errors="replace").split()) or "no key of the keyrings made it"
        raise BootstrapError(f"{name}: bad signature: {words}", hint=_KEY_HINT)
    # sqv takes what an expired key signed while it was valid, and the date of a signature is whoever signs to choose.
    ends = {key: end for keyring in keyrings for key, end in expiries(keyring.data).items()}
    valid = tuple(key for key in keys if not 0 < ends.get(key, 0) < time.time())
    if not valid:
        raise _refused(name, ("EXPKEYSIG", keys[0]), b"")
    return valid
