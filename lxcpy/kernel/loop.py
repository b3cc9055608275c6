"""Loop devices: a file as a block device."""

from __future__ import annotations

import ctypes
import fcntl
import os

from lxcpy.kernel import libc
from lxcpy.kernel.fd import Fd

LO_FLAGS_READ_ONLY = 1
LO_FLAGS_AUTOCLEAR = 4
LO_FLAGS_PARTSCAN = 8
LO_FLAGS_DIRECT_IO = 16

_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_LOOP_CLR_FD = 0x4C01


class _Info(ctypes.Structure):
    """struct loop_info64."""

    _fields_ = [
        ("device", libc.u64), ("inode", libc.u64), ("rdevice", libc.u64), ("offset", libc.u64),
        ("size_limit", libc.u64), ("number", libc.u32), ("encrypt_type", libc.u32), ("encrypt_key_size", libc.u32),
        ("flags", libc.u32), ("file_name", ctypes.c_char * 64), ("crypt_name", ctypes.c_char * 64),
        ("encrypt_key", ctypes.c_char * 32), ("init", libc.u64 * 2),
    ]  # fmt: skip


class _Config(ctypes.Structure):
    _fields_ = [("fd", libc.u32), ("block_size", libc.u32), ("info", _Info), ("reserved", libc.u64 * 8)]


def attach(
    path: str, *, read_only: bool = False, autoclear: bool = True, partitions: bool = False, offset: int = 0
) -> tuple[Fd, str]:
    """Bind `path` to a free loop device: (its descriptor, /dev/loopN).

    autoclear: the kernel frees the device when the last user (a mount, a descriptor) is gone, so nothing leaks even
    after kill -9; keep the descriptor until it is mounted. offset: bytes into the file. Raises OSError.
    """
    how = os.O_RDONLY if read_only else os.O_RDWR
    flags = LO_FLAGS_READ_ONLY * read_only | LO_FLAGS_AUTOCLEAR * autoclear | LO_FLAGS_PARTSCAN * partitions
    with Fd(os.open(path, how | os.O_CLOEXEC)) as file, Fd(os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)) as c:
        info = _Info(flags=flags, offset=offset, file_name=(libc.encode(path) or b"")[:63])
        config = _Config(fd=file.number, info=info)
        for _ in range(64):
            name = f"/dev/loop{fcntl.ioctl(c.number, _LOOP_CTL_GET_FREE)}"
            device = Fd(os.open(name, how | os.O_CLOEXEC))
            try:
                fcntl.ioctl(device.number, _LOOP_CONFIGURE, config)
            except OSError as error:
                device.close()
                if error.errno == 16:  # EBUSY: somebody else was faster with this one
                    continue
                raise libc.failure(error.errno or 22, f'ioctl("{name}", LOOP_CONFIGURE, "{path}")') from None
            return device, name
    raise libc.failure(16, f'loop device for "{path}"')


def detach(device: str) -> None:
    """Free a loop device; it goes when its last user does. Nothing happens if it is free already. Raises OSError."""
    with Fd(os.open(device, os.O_RDONLY | os.O_CLOEXEC)) as file:
        try:
            fcntl.ioctl(file.number, _LOOP_CLR_FD)
        except OSError as error:
            if error.errno != 6:  # ENXIO: not bound
                raise libc.failure(error.errno or 22, f'ioctl("{device}", LOOP_CLR_FD)') from None


def backing_file(device: str) -> str | None:
    """The path of the file behind a loop device; None if it is free. Raises OSError."""
    try:
        with open(
            f"/sys/block/{os.path.basename(device)}/loop/backing_file", encoding="utf-8", errors="surrogateescape"
        ) as f:
            return f.read().rstrip("\n")
    except FileNotFoundError:
        return None
