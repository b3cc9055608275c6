"""Unpacks packages as dpkg would, inside the target: the process has made it its root, so no path can lead out.

Absolute links and the merged /usr resolve as they will for the system itself.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from lxcpy.bootstrap import deb, tar
from lxcpy.errors import BootstrapError, meaning
from lxcpy.kernel.fd import write_all

INFO = "var/lib/dpkg/info"
_PIECE = 1 << 20  # bytes of a conffile in memory
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


class Owners(NamedTuple):
    """Numbers of the users and groups that the target knows by name, as dpkg maps them; others keep the archive's."""

    users: Mapping[bytes, int]
    groups: Mapping[bytes, int]

    @classmethod
    def read(cls) -> Owners:
        """From the root's own tables, or base-passwd's masters before there are any."""
        return cls(*(_ids(f"etc/{name}", f"usr/share/base-passwd/{name}.master") for name in ("passwd", "group")))


def _ids(*files: str) -> dict[bytes, int]:
    for path in files:
        try:
            with open(path, "rb") as file:
                rows = [line.split(b":") for line in file]
        except OSError:
            continue
        return {row[0]: int(row[2]) for row in rows if len(row) > 2 and row[2].isdigit()}
    return {}


def unpack_package(package: deb.Deb, owners: Owners) -> dict[str, Any]:
    """Unpack a .deb into the current root, its control files into dpkg's database.

    Returns what the caller must know of it: {"control": text, "conffiles": [[path, md5, flags]], "triggers": text,
    "preinst": text or None, "unpacked": bytes written}. Raises BootstrapError, OSError.
    """
    control = package.control["control"][0].decode(errors="surrogateescape")
    fields = dict(line.partition(": ")[::2] for line in control.split("\n") if line[:1] not in (" ", "\t", ""))
    stem = fields["Package"] + (f":{fields['Architecture']}" if fields.get("Multi-Arch") == "same" else "")
    if "/" in stem or stem.startswith("."):
        raise BootstrapError(f'the package calls itself "{stem}"')
    listed = _conffiles(package)
    unpacker = _Unpacker(package.data(), owners, set(listed))
    unpacker.run()
    _write_info(stem, package, unpacker.listing)
    conffiles = [
        [os.fsdecode(b"/" + path), unpacker.sums.get(path, "newconffile"), flag] for path, flag in listed.items()
    ]
    preinst = package.control.get("preinst")
    return {
        "stem": stem,
        "control": control,
        "conffiles": conffiles,
        "triggers": package.control.get("triggers", (b"",))[0].decode(errors="surrogateescape"),
        "preinst": preinst[0].decode(errors="surrogateescape") if preinst else None,
        "unpacked": unpacker.written,
    }


def _conffiles(package: deb.Deb) -> dict[bytes, str]:
    """{relative path: flag}; the only flag of deb-conffiles(5) is remove-on-upgrade."""
    found = {}
    for line in package.control.get("conffiles", (b"",))[0].split(b"\n"):
        flag, _, path = line.strip().rpartition(b" ")
        if path:
            found[path.lstrip(b"/")] = flag.decode(errors="replace")
    return found


def _write_info(stem: str, package: deb.Deb, listing: list[bytes]) -> None:
    files = {name: entry for name, entry in package.control.items() if name != "control" and "/" not in name}
    newest = max((mtime for _, _, mtime in files.values()), default=0)
    files["list"] = b"\n".join(listing) + b"\n", 0o644, newest
    for name, (content, mode, mtime) in files.items():
        file = _create(os.fsencode(f"{INFO}/{stem}.{name}"), mode & 0o777)
        try:
            write_all(file, content)
            os.utime(file, (mtime, mtime))
        finally:
            os.close(file)


class _Unpacker:
    """The loop over one package's files."""

    def __init__(self, archive: tar.Tar, owners: Owners, conffiles: set[bytes]) -> None:
        self.tar = archive
        self.owners = owners
        self.conffiles = conffiles
        self.listing: list[bytes] = []  # paths as dpkg's .list has them
        self.sums: dict[bytes, str] = {}  # conffile: md5
        self.written = 0

    def run(self) -> None:
        users, groups = self.owners
        for entry in self.tar:
            name = entry.name
            self.listing.append(b"/" + name if name else b"/.")
            uid = users.get(entry.user, entry.uid)
            gid = groups.get(entry.group, entry.gid)
            try:
                if entry.kind == tar.FILE:
                    self._file(entry, uid, gid)
                elif entry.kind == tar.DIRECTORY:
                    _directory(name or b".", entry.mode, uid, gid, entry.mtime)
                elif entry.kind == tar.SYMLINK:
                    _symlink(entry, uid, gid)
                elif entry.kind == tar.LINK:
                    _replacing(partial(os.link, entry.target, follow_symlinks=False), name)
                else:
                    _replacing(partial(os.mkfifo, mode=entry.mode), name)
                    _own(name, entry.mode, uid, gid)
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    raise
                raise BootstrapError(f'cannot unpack "/{os.fsdecode(name)}": {meaning(error)}') from error

    def _file(self, entry: tar.Entry, uid: int, gid: int) -> None:
        file = _create(entry.name, entry.mode & 0o777)
        try:
            if entry.name in self.conffiles:
                digest = hashlib.md5(usedforsecurity=False)
                for place in range(0, entry.size, _PIECE):
                    content = self.tar.read(min(_PIECE, entry.size - place))
                    digest.update(content)
                    write_all(file, content)
                self.sums[entry.name] = digest.hexdigest()
            elif entry.size:
                self.tar.copy(file, entry.size)
            if uid or gid:
                os.fchown(file, uid, gid)
            if entry.mode & 0o7000:  # after chown, which takes these bits away
                os.fchmod(file, entry.mode)
            os.utime(file, (entry.mtime, entry.mtime))
        finally:
            os.close(file)
        self.written += entry.size


def _create(path: bytes, mode: int) -> int:
    """A new file opened for writing, in place of what stood there; the umask is 0."""
    try:
        return os.open(path, _CREATE, mode)
    except OSError:
        number: int = _replacing(lambda name: os.open(name, _CREATE, mode), path)
        return number


def _replacing(make: Any, path: bytes) -> Any:
    """make(path); a file in the way is removed first, missing parents are made."""
    try:
        return make(path)
    except FileExistsError:
        os.unlink(path)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    return make(path)


def _directory(path: bytes, mode: int, uid: int, gid: int, mtime: int) -> None:
    """A directory; one that is there keeps its owner and mode, as with dpkg."""
    try:
        os.mkdir(path, mode)
    except FileExistsError:
        if path != b"." and not os.path.isdir(path):
            raise
        return
    except FileNotFoundError:
        os.makedirs(path, 0o755, exist_ok=True)
    if uid or gid or mode & 0o7000:
        _own(path, mode, uid, gid)
    os.utime(path, (mtime, mtime))


def _symlink(entry: tar.Entry, uid: int, gid: int) -> None:
    try:
        os.symlink(entry.target, entry.name)
    except FileExistsError:
        # The skeleton made it, or ldconfig of a package configured earlier. A directory stays, as with dpkg.
        if os.path.islink(entry.name):
            if os.readlink(entry.name) == entry.target:
                return
        elif os.path.isdir(entry.name):
            return
        os.unlink(entry.name)
        os.symlink(entry.target, entry.name)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(entry.name), 0o755, exist_ok=True)
        os.symlink(entry.target, entry.name)
    if uid or gid:
        os.lchown(entry.name, uid, gid)
    os.utime(entry.name, (entry.mtime, entry.mtime), follow_symlinks=False)


def _own(path: bytes, mode: int, uid: int, gid: int) -> None:
    os.lchown(path, uid, gid)
    os.chmod(path, mode)
