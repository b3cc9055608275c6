"""apk's database of what is installed: text of one letter a line (apk's own index format), and a tar of the scripts."""

from __future__ import annotations

import base64
import hashlib
import io
import os
import tarfile
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lxcpy.bootstrap.apkformat import SCRIPTS, Package
from lxcpy.errors import BootstrapError
from lxcpy.kernel.fd import write_in_root

DIRECTORY = "lib/apk/db"
_FIELDS = "CPVASITULomtckDpi"  # those of the index, in the database's order


class Installed(NamedTuple):
    """A package and what there is of it. info: its .PKGINFO.

    files: (path, uid, gid, mode, SHA-1). directories: path → (uid, gid, mode).
    """

    package: Package
    control: Mapping[str, bytes]
    info: Mapping[str, Sequence[str]]
    files: list[tuple[bytes, int, int, int, bytes]]
    directories: dict[bytes, tuple[int, int, int]]

    @property
    def replaces(self) -> list[str]:
        return [word for line in self.info.get("replaces", ()) for word in line.split()]

    @property
    def priority(self) -> int:
        """Of its files, against those of what it replaces."""
        return int((self.info.get("replaces_priority") or ["0"])[0])

    @property
    def triggers(self) -> list[str]:
        return [word for line in self.info.get("triggers", ()) for word in line.split()]

    def may_replace(self, other: Installed) -> bool:
        """Whether a file of both is to be this package's; False: the other's. Raises BootstrapError if neither may."""
        mine = other.package.name in _names(self.replaces)
        theirs = self.package.name in _names(other.replaces)
        if mine or theirs:
            return mine if mine is not theirs else self.priority >= other.priority
        if self.package.fields.get("o") == other.package.fields.get("o") or self is other:
            return True
        raise BootstrapError(f"{self.package.name} and {other.package.name} hold the same file")


def _names(words: Sequence[str]) -> set[str]:
    return {word.partition("<")[0].partition(">")[0].partition("=")[0].partition("~")[0] for word in words}


def write(root: int, installed: Sequence[Installed], world: Sequence[str], arch: str) -> None:
    """Write the database into a tree. Raises OSError."""
    by_name = sorted(installed, key=lambda one: one.package.name)
    text = b"".join(_stanza(one) + b"\n" for one in by_name)
    write_in_root(root, f"{DIRECTORY}/installed", text)
    lines = [" ".join([one.package.checksum, *one.triggers]) for one in by_name if one.triggers]
    write_in_root(root, f"{DIRECTORY}/triggers", "".join(f"{line}\n" for line in lines).encode())
    write_in_root(root, f"{DIRECTORY}/scripts.tar", _scripts(by_name))
    write_in_root(root, f"{DIRECTORY}/lock", b"", 0o600)
    write_in_root(root, "etc/apk/world", "".join(f"{word}\n" for word in sorted(set(world))).encode())
    write_in_root(root, "etc/apk/arch", f"{arch}\n".encode())


def _stanza(one: Installed) -> bytes:
    lines = [f"{key}:{one.package.fields[key]}".encode() for key in _FIELDS if key in one.package.fields]
    if one.replaces:
        lines.append(f"r:{' '.join(one.replaces)}".encode())
    if one.priority:
        lines.append(f"q:{one.priority}".encode())
    below: dict[bytes, list[tuple[bytes, int, int, int, bytes]]] = {path: [] for path in one.directories}
    for row in one.files:
        below.setdefault(os.path.dirname(row[0]), []).append(row)
    for path in sorted(below):
        lines.append(b"F:" + path)
        uid, gid, mode = one.directories.get(path, (0, 0, 0o755))
        if (uid, gid, mode) != (0, 0, 0o755):
            lines.append(f"M:{uid}:{gid}:{mode:o}".encode())
        for name, uid, gid, mode, sha1 in sorted(below[path]):
            lines.append(b"R:" + os.path.basename(name))
            if (uid, gid, mode) != (0, 0, 0o644):
                lines.append(f"a:{uid}:{gid}:{mode:o}".encode())
            if sha1:
                lines.append(b"Z:Q1" + base64.b64encode(sha1))
    return b"\n".join(lines) + b"\n"


def _scripts(installed: Sequence[Installed]) -> bytes:
    """The scripts that apk runs later; the names hold the package's identity in hexadecimal form."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for one in installed:
            package = one.package
            for kind in SCRIPTS:
                if (content := one.control.get(f".{kind}")) is not None:
                    info = tarfile.TarInfo(f"{package.name}-{package.version}.X1{package.identity.hex()}.{kind}")
                    info.size, info.mode, info.mtime = len(content), 0o755, int(package.fields.get("t", "0"))
                    archive.addfile(info, io.BytesIO(content))
    return out.getvalue()


def digest(installed: Sequence[Package]) -> str:
    """What tells one set of packages from another."""
    return hashlib.sha256("\n".join(one.checksum for one in installed).encode()).hexdigest()
