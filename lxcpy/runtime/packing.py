"""Objects as plain data that survives an exec: bytes as text, descriptors as numbers that stay open."""

from __future__ import annotations

import binascii


class Parcel:
    """What is handed over: `fds` are the descriptors that the exec must leave open."""

    def __init__(self) -> None:
        self.fds: set[int] = set()

    def keep(self, fd: int) -> int:
        """The number, noted; a negative one stands for no descriptor."""
        if fd >= 0:
            self.fds.add(fd)
        return fd

    def keep_all(self, fds: list[int]) -> list[int]:
        """The same for many."""
        return [self.keep(fd) for fd in fds]


def text(data: bytes | bytearray) -> str:
    """Bytes as text."""
    return binascii.b2a_base64(data, newline=False).decode()


def data(text: str) -> bytes:
    """Bytes of a text. Raises ValueError."""
    return binascii.a2b_base64(text)
