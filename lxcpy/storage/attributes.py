"""Extended attributes of files on their way to another owner: file capabilities and access lists name ids too."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Iterable

from lxcpy.storage.base import Shift

CAPABILITY = "security.capability"
ACCESS, DEFAULT = "system.posix_acl_access", "system.posix_acl_default"

# include/uapi/linux/capability.h: revision in the top byte, then two pairs of words; revision 3 adds the id of a root
_REVISION_MASK, _REVISION_2, _REVISION_3 = 0xFF000000, 0x02000000, 0x03000000
_ACL_USER, _ACL_GROUP = 0x02, 0x08  # include/uapi/linux/posix_acl.h: the entries that have an id


def copy(source: int, target: int, shift: Shift | None = None) -> None:
    """Give the open file `target` the extended attributes of `source`. Raises OSError."""
    try:
        names = os.listxattr(source)
    except OSError as error:
        if error.errno == errno.EOPNOTSUPP:
            return
        raise
    for name in names:
        _set(target, name, os.getxattr(source, name), shift)


def put(
    target: int | str, values: Iterable[tuple[str, bytes]], shift: Shift | None = None, *, follow: bool = True
) -> None:
    """Give the file `target` extended attributes. Raises OSError."""
    for name, value in values:
        _set(target, name, value, shift, follow=follow)


def copy_named(source: int, target: int, name: str, shift: Shift | None = None) -> None:
    """The same for a name in two directories that is no regular file and no directory. Raises OSError."""
    path = f"/proc/self/fd/{source}/{name}"
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno in (errno.EOPNOTSUPP, errno.ENOENT):
            return
        raise
    for attribute in names:
        value = os.getxattr(path, attribute, follow_symlinks=False)
        _set(f"/proc/self/fd/{target}/{name}", attribute, value, shift, follow=False)


def _set(target: int | str, name: str, value: bytes, shift: Shift | None, *, follow: bool = True) -> None:
    if shift is not None:
        value = shifted(name, value, shift)
    try:
        os.setxattr(target, name, value, follow_symlinks=follow)
    except OSError as error:
        # labels belong to the host's policy, which sets its own
        if name.startswith(("security.selinux", "security.SMACK", "security.apparmor", "security.ima", "security.evm")):
            return
        raise OSError(error.errno, f"attribute {name}: {error.strerror}") from error


def clear(fd: int) -> None:
    """Remove the access lists of a directory, which what is made in it would inherit. Raises nothing."""
    for name in (DEFAULT, ACCESS):
        try:
            os.removexattr(fd, name)
        except OSError:
            pass


def shifted(name: str, value: bytes, shift: Shift) -> bytes:
    """An attribute's value for a file whose owner changes by `shift`; unknown shapes stay as they are. Pure."""
    if name == CAPABILITY:
        return _capability(value, shift)
    if name in (ACCESS, DEFAULT):
        return _acl(value, shift)
    return value


def _capability(value: bytes, shift: Shift) -> bytes:
    """Revision 2 counts for every namespace's root that the host's root is; 3 for those below one host id."""
    if len(value) not in (20, 24):
        return value
    (magic,) = struct.unpack_from("<I", value)
    root = struct.unpack_from("<I", value, 20)[0] if len(value) == 24 else 0
    root = shift.uid(root)
    words = value[4:20]
    flags = magic & ~_REVISION_MASK
    if root == 0:
        return struct.pack("<I", _REVISION_2 | flags) + words
    return struct.pack("<I", _REVISION_3 | flags) + words + struct.pack("<I", root)


def _acl(value: bytes, shift: Shift) -> bytes:
    """A header, then entries of tag, permissions and id."""
    out = bytearray(value)
    for at in range(4, len(value) - 7, 8):
        tag, _, number = struct.unpack_from("<HHI", value, at)
        if tag == _ACL_USER:
            struct.pack_into("<I", out, at + 4, shift.uid(number))
        elif tag == _ACL_GROUP:
            struct.pack_into("<I", out, at + 4, shift.gid(number))
    return bytes(out)
