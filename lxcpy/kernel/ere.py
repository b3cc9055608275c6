"""POSIX extended regular expressions by the C library: the very ones that LXC's commands match names with.

Python's re has another grammar ([[:alpha:]], leftmost-longest), and its import costs more than ctypes.
"""

from __future__ import annotations

import ctypes
import os

from lxcpy.kernel.libc import LIBC

REG_EXTENDED, REG_NOSUB = 1, 8  # regex.h of glibc and musl
SIZE = 256  # bytes; regex_t has 64 in glibc, fewer elsewhere


class Pattern:
    """A compiled expression. Raises ValueError with the library's reason when it is none."""

    def __init__(self, text: str) -> None:
        self._valid = False
        self._compiled = ctypes.create_string_buffer(SIZE)
        code = LIBC.regcomp(self._compiled, os.fsencode(text), REG_EXTENDED | REG_NOSUB)
        if code:
            reason = ctypes.create_string_buffer(200)
            LIBC.regerror(code, self._compiled, reason, len(reason))
            raise ValueError(f'"{text}" is not a regular expression: {reason.value.decode(errors="replace")}')
        self._valid = True

    def matches(self, text: str) -> bool:
        """Does it match anywhere in `text`?"""
        return bool(LIBC.regexec(self._compiled, os.fsencode(text), 0, None, 0) == 0)

    def __del__(self) -> None:
        if self._valid:
            LIBC.regfree(self._compiled)
