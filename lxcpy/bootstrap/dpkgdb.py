"""dpkg's database, written for packages that we unpacked: as if dpkg had done it, ready for `dpkg --configure -a`.

Source of the formats: dpkg's own files, deb-triggers(5), dpkg(1) section FILES.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lxcpy.kernel.fd import make_dirs_in_root, write_in_root

ADMIN = "var/lib/dpkg"
_DIRECTORIES = ("info", "updates", "triggers", "alternatives", "parts")


def make_empty(root: int) -> None:
    """An empty database below the directory `root`. Raises OSError."""
    for name in _DIRECTORIES:
        make_dirs_in_root(root, f"{ADMIN}/{name}").close()
    for name in ("status", "available", "triggers/File", "triggers/Unincorp"):
        write_in_root(root, f"{ADMIN}/{name}", b"")
    write_in_root(root, f"{ADMIN}/triggers/Lock", b"", 0o600)
    write_in_root(root, f"{ADMIN}/info/format", b"1\n")  # names of Multi-Arch: same packages carry the architecture


def stanza(control: str, state: str, conffiles: Sequence[Sequence[str]], overrides: Mapping[str, str]) -> str:
    """A package's entry in the status file.

    control: the package's own control file. conffiles: (path, md5, flag). overrides: Priority and Section as the
    archive has them, which wins over what the package says.
    """
    lines = []
    for line in control.rstrip("\n").split("\n"):
        name = line.partition(":")[0]
        if line[:1] not in (" ", "\t") and name in overrides:
            line = f"{name}: {overrides[name]}"
        lines.append(line)
        if name == "Package":
            lines.append(f"Status: {state}")
    if conffiles:
        lines.append("Conffiles:")
        lines += [f" {path} {digest}" + (f" {flag}" if flag else "") for path, digest, flag in conffiles]
    return "\n".join(lines) + "\n\n"


def overridden(text: str, overrides: Mapping[str, Mapping[str, str]]) -> str:
    """A status file with Priority and Section of some packages as the archive has them."""
    lines = []
    found: Mapping[str, str] = {}
    for line in text.split("\n"):
        name, _, value = line.partition(": ")
        if name == "Package":
            found = overrides.get(value, {})
        lines.append(f"{name}: {found[name]}" if name in found else line)
    return "\n".join(lines)


def status(unpacked: Iterable[tuple[Mapping[str, Any], Mapping[str, str]]]) -> bytes:
    """The status file for (what the unpacker returned, the archive's overrides) of each package."""
    text = "".join(
        stanza(found["control"], "install ok unpacked", found["conffiles"], overrides) for found, overrides in unpacked
    )
    return text.encode(errors="surrogateescape")


class Triggers:
    """Which packages are interested in what: the files below triggers/."""

    def __init__(self) -> None:
        self.files: list[tuple[str, str]] = []  # (path, package as written in the file)
        self.named: dict[str, list[str]] = {}

    def add(self, stem: str, directives: str) -> None:
        """Take in a package's `triggers` control file."""
        for line in directives.splitlines():
            words = line.partition("#")[0].split()
            if len(words) != 2 or not words[0].startswith("interest"):
                continue  # `activate` directives are dpkg's business when it configures the package
            owner = stem + ("/noawait" if words[0] == "interest-noawait" else "")
            if words[1].startswith("/"):
                self.files.append((words[1].rstrip("/"), owner))
            else:
                self.named.setdefault(words[1], []).append(owner)

    def write(self, root: int) -> None:
        """Write the files. Raises OSError."""
        write_in_root(
            root, f"{ADMIN}/triggers/File", "".join(f"{path} {owner}\n" for path, owner in self.files).encode()
        )
        for name, owners in self.named.items():
            if "/" not in name and name not in ("File", "Unincorp", "Lock"):
                write_in_root(root, f"{ADMIN}/triggers/{name}", "".join(f"{owner}\n" for owner in owners).encode())

    def hit(self, listings: Iterable[bytes], owners: Iterable[str]) -> list[str]:
        """The paths that packages in `owners` wait for and that one of the .list texts touches."""
        wanted = set(owners)
        paths = {path for path, owner in self.files if owner.removesuffix("/noawait") in wanted}
        return sorted(path for path in paths if any(_touches(listing, path.encode()) for listing in listings))


def _touches(listing: bytes, path: bytes) -> bool:
    """Whether a .list text names the path or something below it."""
    return b"\n" + path + b"\n" in listing or b"\n" + path + b"/" in listing
