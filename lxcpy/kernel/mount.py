"""Mounts: the old and the new system calls, and the words of fstab options."""

from __future__ import annotations

import ctypes
import os

from lxcpy.kernel import libc
from lxcpy.kernel.fd import Fd
from lxcpy.kernel.record import NamedTuple

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_NO_AUTOMOUNT = 0x800
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_REMOUNT = 32
MS_MANDLOCK = 64
MS_DIRSYNC = 128
MS_NOSYMFOLLOW = 256
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_SILENT = 32768
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_STRICTATIME = 1 << 24
MS_LAZYTIME = 1 << 25

MNT_FORCE = 1
MNT_DETACH = 2
MNT_EXPIRE = 4
UMOUNT_NOFOLLOW = 8

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_SYMLINKS = 0x10
MOVE_MOUNT_T_EMPTY_PATH = 0x40

MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR_RELATIME = 0x00
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_STRICTATIME = 0x20
MOUNT_ATTR__ATIME = 0x70
MOUNT_ATTR_NODIRATIME = 0x80
MOUNT_ATTR_IDMAP = 0x00100000
MOUNT_ATTR_NOSYMFOLLOW = 0x00200000

FSOPEN_CLOEXEC = 1
FSMOUNT_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6


def _named(prefix: str) -> dict[str, int]:
    return {name: value for name, value in globals().items() if name.startswith(prefix) and isinstance(value, int)}


_MS = _named("MS_")
_ATTR = {name: value for name, value in _named("MOUNT_ATTR_").items() if name != "MOUNT_ATTR__ATIME"}
_TREE = {**_named("OPEN_TREE_"), "AT_RECURSIVE": AT_RECURSIVE, "AT_EMPTY_PATH": AT_EMPTY_PATH}
_AT = {**_named("AT_")}
_AT.pop("AT_FDCWD")


class _MountAttr(ctypes.Structure):
    _fields_ = [("set", libc.u64), ("clear", libc.u64), ("propagation", libc.u64), ("userns", libc.u64)]


def _decode_attr(attr: _MountAttr) -> str:
    words = [
        f"set={_decode_attrs(attr.set)}" if attr.set else "",
        f"clear={_decode_attrs(attr.clear)}" if attr.clear else "",
    ]
    words += [_decode_ms(attr.propagation) if attr.propagation else "", f"userns={attr.userns}" if attr.userns else ""]
    return "{" + ", ".join(word for word in words if word) + "}"


_decode_ms = libc.flags(_MS)
_decode_attrs = libc.flags(_ATTR)

_mount = libc.function(
    "mount",
    (libc.string, libc.text),
    (libc.string, libc.text),
    (libc.string, libc.text),
    (libc.ulong, _decode_ms),
    (libc.string, libc.text),
)
_umount2 = libc.function(
    "umount2", (libc.string, libc.text), (libc.int_, libc.flags({**_named("MNT_"), **_named("UMOUNT_")}))
)
_pivot_root = libc.function("pivot_root", (libc.string, libc.text), (libc.string, libc.text))
_open_tree = libc.syscall(
    "open_tree", (libc.int_, libc.directory), (libc.string, libc.text), (libc.uint, libc.flags(_TREE))
)
_move_mount = libc.syscall(
    "move_mount",
    (libc.int_, libc.directory),
    (libc.string, libc.text),
    (libc.int_, libc.directory),
    (libc.string, libc.text),
    (libc.uint, libc.flags(_named("MOVE_MOUNT_"))),
)
_fsopen = libc.syscall("fsopen", (libc.string, libc.text), (libc.uint, libc.number))
_fsconfig = libc.syscall(
    "fsconfig",
    (libc.int_, libc.number),
    (libc.uint, libc.choice(_named("FSCONFIG_"))),
    (libc.string, libc.text),
    (libc.string, libc.text),
    (libc.int_, libc.number),
)
_fsmount = libc.syscall("fsmount", (libc.int_, libc.number), (libc.uint, libc.number), (libc.uint, libc.flags(_ATTR)))
_mount_setattr = libc.syscall(
    "mount_setattr",
    (libc.int_, libc.directory),
    (libc.string, libc.text),
    (libc.uint, libc.flags(_AT)),
    (ctypes.POINTER(_MountAttr), _decode_attr),
    (libc.ulong, libc.number),
)


def mount(source: str | None, target: str, fstype: str | None = None, flags: int = 0, data: str | None = None) -> None:
    """mount(2). Raises OSError."""
    _mount(libc.encode(source), libc.encode(target), libc.encode(fstype), flags, libc.encode(data))


def umount(target: str, flags: int = 0) -> None:
    """umount2(2) with MNT_* and UMOUNT_* flags. Raises OSError."""
    _umount2(libc.encode(target), flags)


def pivot_root(new: str, old: str) -> None:
    """pivot_root(2); `.` and `.` stacks the old root on the new one (pivot_root(2), notes). Raises OSError."""
    _pivot_root(libc.encode(new), libc.encode(old))


def open_tree(dirfd: int, path: str, flags: int) -> Fd:
    """open_tree(2), close-on-exec; with OPEN_TREE_CLONE a detached copy of the mount. Raises OSError."""
    return Fd(_open_tree(dirfd, libc.encode(path), flags | OPEN_TREE_CLOEXEC | (0 if path else AT_EMPTY_PATH)))


def move_mount(from_fd: int, to_fd: int, to_path: str = "") -> None:
    """Attach the detached mount `from_fd` on `to_path` below the directory `to_fd`, or on `to_fd`. Raises OSError."""
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if to_path else MOVE_MOUNT_T_EMPTY_PATH)
    _move_mount(from_fd, b"", to_fd, libc.encode(to_path), flags)


def fsopen(fstype: str) -> Fd:
    """A context in which a filesystem is configured. Raises OSError; ENODEV if the kernel has no such type."""
    return Fd(_fsopen(libc.encode(fstype), FSOPEN_CLOEXEC))


def fsconfig_string(context: int, key: str, value: str) -> None:
    """Set `key=value`. Raises OSError with the kernel's own words where it left some."""
    _told(context, FSCONFIG_SET_STRING, key, value)


def fsconfig_flag(context: int, key: str) -> None:
    """Set an option without a value (`ro`). Raises OSError."""
    _told(context, FSCONFIG_SET_FLAG, key, None)


def fsconfig_create(context: int) -> None:
    """Make the superblock. Raises OSError."""
    _told(context, FSCONFIG_CMD_CREATE, None, None)


def fsmount(context: int, attributes: int = 0) -> Fd:
    """The detached mount of a created context, with MOUNT_ATTR_* attributes. Raises OSError."""
    return Fd(_fsmount(context, FSMOUNT_CLOEXEC, attributes))


def _told(context: int, command: int, key: str | None, value: str | None) -> None:
    try:
        _fsconfig(context, command, libc.encode(key), libc.encode(value), 0)
    except OSError as error:
        words = messages(context)
        if words:
            raise OSError(error.errno, f"{error.strerror} ({words})") from None
        raise


def messages(context: int) -> str:
    """What the filesystem driver said in this context (`overlay: workdir is missing`), without the level letters."""
    lines: list[str] = []
    while len(lines) < 16:
        try:
            line = os.read(context, 4096)
        except OSError:  # ENODATA: no more
            break
        lines.append(line.decode(errors="replace").strip().removeprefix("e ").removeprefix("w "))
    return "; ".join(lines)


def mount_setattr(
    dirfd: int,
    path: str,
    flags: int,
    *,
    attr_set: int = 0,
    attr_clear: int = 0,
    propagation: int = 0,
    userns_fd: int = -1,
) -> None:
    """Change attributes, propagation or id mapping of a mount; AT_RECURSIVE in `flags` takes those below too.

    userns_fd ≥ 0 maps the mount's ids by that user namespace (the mount must be detached). Raises OSError.
    """
    if userns_fd >= 0:
        attr_set |= MOUNT_ATTR_IDMAP
    attr = _MountAttr(attr_set, attr_clear, propagation, max(userns_fd, 0))
    _mount_setattr(dirfd, libc.encode(path), flags | (0 if path else AT_EMPTY_PATH), attr, ctypes.sizeof(attr))


class MountOptions(NamedTuple):
    """flags: MS_* to set; clear: MS_* to be off; propagation: MS_SHARED … with MS_REC; data: the rest, or None."""

    flags: int
    propagation: int
    data: str | None
    clear: int = 0


# word → (MS_* bits, whether the word turns them off). Source: LXC's table of mount options.
_WORDS = {
    "atime": (MS_NOATIME, True),
    "dev": (MS_NODEV, True),
    "diratime": (MS_NODIRATIME, True),
    "exec": (MS_NOEXEC, True),
    "noatime": (MS_NOATIME, False),
    "nodev": (MS_NODEV, False),
    "nodiratime": (MS_NODIRATIME, False),
    "noexec": (MS_NOEXEC, False),
    "norelatime": (MS_RELATIME, True),
    "nostrictatime": (MS_STRICTATIME, True),
    "nosymfollow": (MS_NOSYMFOLLOW, False),
    "nosuid": (MS_NOSUID, False),
    "relatime": (MS_RELATIME, False),
    "ro": (MS_RDONLY, False),
    "rw": (MS_RDONLY, True),
    "strictatime": (MS_STRICTATIME, False),
    "suid": (MS_NOSUID, True),
    "bind": (MS_BIND, False),
    "rbind": (MS_BIND | MS_REC, False),
    "move": (MS_MOVE, False),
    "defaults": (0, False),
    "sync": (MS_SYNCHRONOUS, False),
    "async": (MS_SYNCHRONOUS, True),
    "dirsync": (MS_DIRSYNC, False),
    "lazytime": (MS_LAZYTIME, False),
    "mand": (MS_MANDLOCK, False),
    "nomand": (MS_MANDLOCK, True),
    "remount": (MS_REMOUNT, False),
}
_PROPAGATION = {
    "private": MS_PRIVATE,
    "shared": MS_SHARED,
    "slave": MS_SLAVE,
    "unbindable": MS_UNBINDABLE,
    "rprivate": MS_PRIVATE | MS_REC,
    "rshared": MS_SHARED | MS_REC,
    "rslave": MS_SLAVE | MS_REC,
    "runbindable": MS_UNBINDABLE | MS_REC,
}

# The attribute of the new mount call for each old flag that is one.
ATTRIBUTES = {
    MS_RDONLY: MOUNT_ATTR_RDONLY,
    MS_NOSUID: MOUNT_ATTR_NOSUID,
    MS_NODEV: MOUNT_ATTR_NODEV,
    MS_NOEXEC: MOUNT_ATTR_NOEXEC,
    MS_NOATIME: MOUNT_ATTR_NOATIME,
    MS_NODIRATIME: MOUNT_ATTR_NODIRATIME,
    MS_STRICTATIME: MOUNT_ATTR_STRICTATIME,
    MS_NOSYMFOLLOW: MOUNT_ATTR_NOSYMFOLLOW,
}


def parse_options(text: str) -> MountOptions:
    """The words of an fstab options field. Pure; the later of two contrary words wins; unknown words are `data`."""
    flags = clear = propagation = 0
    rest = []
    for word in text.split(","):
        word = word.strip()
        if word in _PROPAGATION:
            propagation = _PROPAGATION[word]
        elif word in _WORDS:
            bits, off = _WORDS[word]
            flags, clear = (flags & ~bits, clear | bits) if off else (flags | bits, clear & ~bits)
        elif word:
            rest.append(word)
    return MountOptions(flags, propagation, ",".join(rest) or None, clear)


def attributes(flags: int) -> int:
    """MOUNT_ATTR_* for the MS_* flags that are attributes of a mount. Pure."""
    return sum(attribute for flag, attribute in ATTRIBUTES.items() if flags & flag)


def describe_flags(flags: int) -> str:
    """MS_* bits by name, for the description of a plan."""
    return _decode_ms(flags)
