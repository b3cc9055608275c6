"""Reading and writing the small files of a cgroup: one system call each, no buffers, no locale."""

from __future__ import annotations

import os

LARGEST = 1 << 20  # no file of a cgroup that is read as a whole comes near


def read(path: str) -> str:
    """The whole file. Raises OSError."""
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(number, 65536)
        while len(text) >= 4096 and len(text) < LARGEST:  # seq files come in pieces
            more = os.read(number, 65536)
            if not more:
                break
            text += more
        return text.decode(errors="surrogateescape")
    finally:
        os.close(number)


def write(path: str, value: str) -> None:
    """Write the value in one call, as the kernel's parsers want it. Raises OSError."""
    number = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(number, value.encode(errors="surrogateescape"))
    finally:
        os.close(number)
