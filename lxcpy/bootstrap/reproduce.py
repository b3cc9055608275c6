"""The same tree each time: times no later than a given one, nothing random, nothing of the day, and a digest of it all.

Source of the convention: the specification of SOURCE_DATE_EPOCH (reproducible-builds.org).
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Mapping

from lxcpy.errors import UsageError
from lxcpy.kernel.fd import exists_in_root, open_in_root, write_in_root

VARIABLE = "SOURCE_DATE_EPOCH"
_LATEST = 1 << 40  # seconds; what file systems and tools can still tell
# Made anew by the first start, or when they are needed; a name that ends with * is the beginning of names.
_REMOVED = (
    "etc/.updated", "etc/hostid", "etc/ssh/ssh_host_*", "var/.updated", "var/cache/apt/pkgcache.bin",
    "var/cache/apt/srcpkgcache.bin", "var/cache/debconf/config.dat-old", "var/cache/debconf/templates.dat-old",
    "var/cache/ldconfig/aux-cache", "var/lib/dbus/machine-id", "var/lib/dpkg/available-old",
    "var/lib/dpkg/diversions-old", "var/lib/dpkg/statoverride-old", "var/lib/dpkg/status-old",
    "var/lib/systemd/credential.secret", "var/lib/systemd/random-seed", "var/lib/urandom/random-seed",
)  # fmt: skip
_LOGS = "var/log"
_OF_THE_DISK = "lost+found"
_HOSTS = ("security.selinux", "security.ima", "security.evm", "trusted.")  # attributes that the host's policy gives
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_MACHINE_ID = "etc/machine-id"  # empty: the first start draws one, see machine-id(5)


def epoch(environment: Mapping[str, str] = os.environ) -> int | None:
    """The time that the environment sets, seconds since the epoch; None where it sets none. Raises UsageError."""
    text = environment.get(VARIABLE, "")
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or int(text) > _LATEST:
        raise UsageError(
            f'{VARIABLE}: "{text}" is no time', hint="write seconds since 1970-01-01 00:00 UTC, as date +%s prints them"
        )
    return int(text)


def salt(*words: object) -> str:
    """16 characters for crypt(5) that follow from the words: a salt is no secret, but must not be random here."""
    return hashlib.sha256("\n".join(map(str, words)).encode(errors="surrogateescape")).hexdigest()[:16]


def settle(tree: str, latest: int) -> None:
    """Take out of a finished system what differs each time, and set no time later than `latest`. Raises OSError.

    Directories get that time in any case: which of their files came last is a matter of chance.
    """
    root = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for path in _REMOVED:
            _remove(root, *path.rsplit("/", 1))
        if exists_in_root(root, os.path.dirname(_MACHINE_ID)):
            write_in_root(root, _MACHINE_ID, b"")
        _empty_logs(root)
        _clamp(root, latest * 10**9)
    finally:
        os.close(root)


def _remove(root: int, folder: str, name: str) -> None:
    """Remove the regular files of a name, or that begin so; links stay: what is behind them is no file of that name."""
    try:
        parent = open_in_root(root, folder, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return
    with parent:
        for found in os.listdir(parent.number):
            if found == name or (name.endswith("*") and found.startswith(name[:-1])):
                status = os.stat(found, dir_fd=parent.number, follow_symlinks=False)
                if stat.S_ISREG(status.st_mode):
                    os.unlink(found, dir_fd=parent.number)


def _empty_logs(root: int) -> None:
    try:
        logs = open_in_root(root, _LOGS, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return
    with logs:
        for _, _, names, folder in os.fwalk(".", dir_fd=logs.number):
            for name in names:
                if stat.S_ISREG(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
                    os.truncate(f"/proc/self/fd/{folder}/{name}", 0)


def _clamp(root: int, latest: int) -> None:
    for _, folders, names, folder in os.fwalk(".", dir_fd=root):
        for name in (*folders, *names):
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            time = latest if stat.S_ISDIR(status.st_mode) else min(status.st_mtime_ns, latest)
            os.utime(name, ns=(time, time), dir_fd=folder, follow_symlinks=False)
    os.utime(root, ns=(latest, latest))


def digest(tree: str) -> str:
    """The SHA256 of a tree: names, types, modes, owners, devices, times, attributes, links, contents.

    What the host's security policy adds to files does not count, nor what ext4 has in its root. Raises OSError.
    """
    state = hashlib.sha256()
    seen: dict[tuple[int, int], str] = {}
    root = os.open(tree, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        state.update(_entry(root, ".", "", seen))
        for path, folders, names, folder in os.fwalk(".", dir_fd=root):
            if path == "." and _OF_THE_DISK in folders:
                folders.remove(_OF_THE_DISK)
            folders.sort()
            for name in sorted((*folders, *names)):
                state.update(_entry(folder, name, f"{path}/{name}", seen))
    finally:
        os.close(root)
    return state.hexdigest()


def _entry(folder: int, name: str, path: str, seen: dict[tuple[int, int], str]) -> bytes:
    """One file as bytes that no other file has. seen: the first name of each with several."""
    status = os.stat(name, dir_fd=folder, follow_symlinks=False)
    first = path
    content = ""
    if not stat.S_ISDIR(status.st_mode) and status.st_nlink > 1:
        first = seen.setdefault((status.st_dev, status.st_ino), path)
    if first == path and stat.S_ISREG(status.st_mode):
        with open(os.open(name, _READ, dir_fd=folder), "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(name, dir_fd=folder)
    place = f"/proc/self/fd/{folder}/{name}"
    attributes = [
        (key, os.getxattr(place, key, follow_symlinks=False))
        for key in sorted(os.listxattr(place, follow_symlinks=False))
        if not key.startswith(_HOSTS)
    ]
    device = status.st_rdev if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode) else 0
    return repr((
        path, first, status.st_mode, status.st_uid, status.st_gid, device, status.st_mtime_ns, content, attributes,
    )).encode("ascii", "backslashreplace")  # fmt: skip
