"""zstd by the program of that name, for machines that have neither a module for Python nor the library.

A process for each frame, whose end is found here: the program itself does not tell one frame from the next (RFC 8878).
"""

from __future__ import annotations

import os
import select
import shutil
import signal
from collections.abc import Callable

CHUNK = 1 << 20  # bytes read at a time
_MAGIC, _SKIPPABLE = b"\x28\xb5\x2f\xfd", b"\x2a\x4d\x18"
_RAW, _RLE, _COMPRESSED = range(3)

_program = ""
_outside = -1


def find() -> bool:
    """Whether the program is there; it is remembered."""
    global _program
    _program = shutil.which("zstd") or ""
    return bool(_program)


def keep_outside() -> None:
    """Before the process makes another directory its root: keep the way to the program."""
    global _outside
    if _program and _outside < 0:
        _outside = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


class Frame:
    """Finds the end of one frame. Raises ValueError where it is none."""

    def __init__(self) -> None:
        self.done = False
        self._step: Callable[[bytes], None] = self._magic
        self._wanted = 4  # bytes that the step looks at
        self._skip = 0  # bytes before those that nobody looks at
        self._seen = b""
        self._checksum = 0

    def feed(self, data: bytes) -> int:
        """How many bytes of `data` belong to the frame."""
        place = 0
        while not self.done and place < len(data):
            if self._skip:
                passed = min(self._skip, len(data) - place)
                self._skip -= passed
                place += passed
            else:
                taken = data[place : place + self._wanted - len(self._seen)]
                self._seen += taken
                place += len(taken)
            if not self._skip and len(self._seen) == self._wanted:
                seen, self._seen = self._seen, b""
                self._step(seen)
        return place

    def _magic(self, seen: bytes) -> None:
        if seen[1:] == _SKIPPABLE and seen[0] & 0xF0 == 0x50:
            self._step = self._skippable
        elif seen == _MAGIC:
            self._step, self._wanted = self._descriptor, 1
        else:
            raise ValueError("no zstd frame")

    def _skippable(self, seen: bytes) -> None:
        self._end(int.from_bytes(seen, "little"))

    def _descriptor(self, seen: bytes) -> None:
        flags = seen[0]
        single = flags >> 5 & 1
        self._checksum = 4 * (flags >> 2 & 1)
        self._skip = (not single) + (0, 1, 2, 4)[flags & 3] + (single, 2, 4, 8)[flags >> 6]
        self._step, self._wanted = self._block, 3

    def _block(self, seen: bytes) -> None:
        header = int.from_bytes(seen, "little")
        kind, size = header >> 1 & 3, header >> 3
        if kind > _COMPRESSED:
            raise ValueError("a block of a kind that there is not")
        size = 1 if kind == _RLE else size
        if header & 1:
            self._end(size + self._checksum)
        else:
            self._skip = size

    def _end(self, rest: int) -> None:
        self._skip, self._wanted, self._step = rest, 0, self._last
        if not rest:
            self.done = True

    def _last(self, _: bytes) -> None:
        self.done = True


class Decompressor:
    """One frame, with the interface of the modules' decompressors (compression.Decompressor)."""

    def __init__(self) -> None:
        self.eof = False
        self.unused_data = b""
        self._frame = Frame()
        self._waiting = b""  # for the program
        self._pid, self._into, self._out = _start()

    def __del__(self) -> None:
        if getattr(self, "_pid", 0):
            os.kill(self._pid, signal.SIGKILL)
            self._collect()

    @property
    def needs_input(self) -> bool:
        return not self._waiting and not self._frame.done

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        """Raises EOFError, ValueError."""
        data = bytes(data)
        used = self._frame.feed(data)
        self._waiting += data[:used]
        if self._frame.done and used < len(data):
            self.unused_data = data[used:]
        limit = max_length if max_length > 0 else CHUNK
        while True:
            if self._into >= 0 and not self._waiting:
                if not self._frame.done:
                    return self._read(limit) if self._ready() else b""
                os.close(self._into)
                self._into = -1
            if self._into < 0:
                return self._read(limit)
            readable, _, _ = select.select([self._out], [self._into], [])
            if readable:
                return self._read(limit)
            try:
                self._waiting = self._waiting[os.write(self._into, self._waiting) :]
            except BrokenPipeError:
                self._waiting = b""

    def _ready(self) -> bool:
        return bool(select.select([self._out], [], [], 0)[0])

    def _read(self, limit: int) -> bytes:
        if found := os.read(self._out, limit):
            return found
        if self._collect() or not self._frame.done:
            raise EOFError("zstd finds it damaged")
        self.eof = True
        return b""

    def _collect(self) -> int:
        """The program's exit status; all that is open is closed."""
        for descriptor in (self._into, self._out):
            if descriptor >= 0:
                os.close(descriptor)
        self._into = self._out = -1
        pid, self._pid = self._pid, 0
        return os.waitpid(pid, 0)[1] if pid else 0


def _start() -> tuple[int, int, int]:
    """(process, its input, its output). Raises OSError."""
    reading, into = os.pipe2(os.O_CLOEXEC)
    out, writing = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            if _outside >= 0:
                os.fchdir(_outside)
                os.chroot(".")
            os.dup2(reading, 0)
            os.dup2(writing, 1)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            os.execv(_program, [_program, "-dcqq"])
        finally:
            os._exit(127)
    os.close(reading)
    os.close(writing)
    os.set_blocking(into, False)
    return pid, into, out
