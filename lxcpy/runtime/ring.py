"""What a console has said: the ring buffer in memory and the log file (lxc.console.buffer.size, .logfile, .size,
.rotate)."""

from __future__ import annotations

import os
import stat

from lxcpy import log
from lxcpy.errors import StateError, meaning

LOG = log.Log("console")


class Ring:
    """The last `size` bytes of a console. It takes memory as it fills."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._data = bytearray()

    @property
    def used(self) -> int:
        """Bytes held; no __len__, for an empty ring must not be false."""
        return len(self._data)

    def write(self, data: bytes) -> None:
        """Add `data`; what no longer fits falls out at the old end."""
        self._data += data[-self.size :] if self.size else b""
        if len(self._data) > self.size:
            del self._data[: len(self._data) - self.size]  # moves the start, not the bytes

    def read(self, limit: int = 0) -> bytes:
        """Take out the oldest `limit` bytes; 0: all."""
        data = bytes(self._data[: limit or None])
        del self._data[: len(data)]
        return data

    def peek(self) -> bytes:
        """Everything, left in place."""
        return bytes(self._data)

    def clear(self) -> None:
        """Forget everything."""
        self._data.clear()


class ConsoleLog:
    """The file that a console is copied to.

    limit: bytes; 0: none. At the limit the file begins anew, its old content kept as `PATH.1` with rotate. Raises
    StateError when it cannot be opened; later failures end in our own log, for they must not end a container.
    """

    def __init__(self, path: str, *, limit: int = 0, rotate: bool = False, fd: int = -1) -> None:
        self.path = path
        self.limit = limit
        self.rotate = rotate
        self._fd = fd  # open already, by the supervisor that handed the console over
        try:
            if fd < 0:
                self._open()
        except OSError as error:
            raise StateError(
                f'lxc.console.logfile: cannot open "{path}": {meaning(error)}', hint="its directory must exist"
            ) from error
        # Rotating a device or a fifo would replace it; LXC writes nothing there either.
        self._regular = stat.S_ISREG(os.fstat(self._fd).st_mode)

    def fileno(self) -> int:
        """-1 after a rotation that failed."""
        return self._fd

    def write(self, data: bytes) -> None:
        """Append `data`, beginning the file anew as often as the limit asks for."""
        try:
            if not self.limit:
                self._append(data)
            elif self._regular:
                self._write_limited(data)
        except OSError as error:
            LOG.warn(f'lxc.console.logfile: cannot write to "{self.path}": {meaning(error)}')

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _open(self) -> None:
        # O_NONBLOCK: a fifo that nobody reads must not stop the supervisor.
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        self._fd = os.open(self.path, flags, 0o640)

    def _append(self, data: bytes) -> None:
        while data and self._fd >= 0:
            data = data[os.write(self._fd, data) :]

    def _write_limited(self, data: bytes) -> None:
        while data:
            if self._fd < 0:
                self._open()  # the last rotation could not
            space = self.limit - os.fstat(self._fd).st_size
            if space > 0:
                self._append(data[:space])
                data = data[space:]
            else:
                self._begin_anew()

    def _begin_anew(self) -> None:
        if not self.rotate:
            os.ftruncate(self._fd, 0)
            return
        self.close()
        os.rename(self.path, self.path + ".1")
        self._open()
