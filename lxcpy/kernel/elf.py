"""What a program's file says of how it is loaded (elf(5))."""

from __future__ import annotations

import os
from struct import unpack_from

MAGIC = b"\x7fELF"
PT_INTERP = 3
_HEAD = 64  # bytes of the file's header, at most


def interpreter(file: int) -> str:
    """The loader that the program behind a descriptor names; "" for a static one, or no ELF file. Raises OSError."""
    head = os.pread(file, _HEAD, 0)
    if head[:4] != MAGIC:
        return ""
    order = ">" if head[5:6] == b"\2" else "<"
    wide = head[4:5] == b"\2"
    try:
        offset = unpack_from(f"{order}{'Q' if wide else 'I'}", head, 32 if wide else 28)[0]
        size, count = unpack_from(f"{order}HH", head, 54 if wide else 42)
        if offset > 1 << 40 or count > 256 or size > 256:
            return ""
        table = os.pread(file, size * count, offset)
        for at in range(0, len(table) - size + 1, size or 1):
            if unpack_from(f"{order}I", table, at)[0] == PT_INTERP:
                where = unpack_from(f"{order}{'Q' if wide else 'I'}", table, at + (8 if wide else 4))[0]
                return os.fsdecode(os.pread(file, 256, where).split(b"\0", 1)[0]) if where < 1 << 40 else ""
    except Exception:  # struct.error, OverflowError: a file that is cut short or lies
        return ""
    return ""
