"""The .deb format: an ar archive of two tar archives (deb(5), tar(5))."""

from __future__ import annotations

import os
from collections.abc import Iterator

from lxcpy.bootstrap.compression import CHUNK, Inflater
from lxcpy.bootstrap.tar import BLOCK_DEVICE, CHARACTER, DIRECTORY, FIFO, FILE, LINK, SPARSE, SYMLINK, Entry, Tar
from lxcpy.errors import BootstrapError
from lxcpy.kernel.fd import write_all

_FEED = 256 << 10  # compressed bytes given to a decompressor at a time

_LARGEST_CONTROL = 64 << 20  # they are held in memory


def members(data: memoryview) -> Iterator[tuple[str, memoryview]]:
    """The members of an ar archive. Raises BootstrapError."""
    if bytes(data[:8]) != b"!<arch>\n":
        raise BootstrapError("not a Debian package: no ar archive")
    place = 8
    while place + 60 <= len(data):
        header = bytes(data[place : place + 60])
        name = header[:16].rstrip().rstrip(b"/").decode("ascii", "replace")
        if header[58:] != b"`\n" or not header[48:58].strip().isdigit():
            raise BootstrapError("damaged Debian package: bad ar header")
        size = int(header[48:58])
        place += 60
        if place + size > len(data):
            raise BootstrapError("truncated Debian package")
        yield name, data[place : place + size]
        place += size + size % 2


class Deb:
    """A package file: `control` is {name: (content, mode, mtime)}, `data()` the tar archive of its files."""

    def __init__(self, data: memoryview) -> None:
        self.control: dict[str, tuple[bytes, int, int]] = {}  # name: content, mode, mtime
        self._kind = ""
        self._data: memoryview | None = None
        self._plain = -1
        version = b""
        for name, content in members(data):
            if name == "debian-binary":
                version = bytes(content[:16])
            elif name.startswith("control.tar"):
                self._read_control(name[len("control.tar.") :], content)
            elif name.startswith("data.tar"):
                self._kind, self._data = name[len("data.tar.") :], content
                break
        if not version.startswith(b"2.") or not self.control or self._data is None:
            raise BootstrapError("not a Debian package: a member of the archive is missing")

    def _read_control(self, kind: str, content: memoryview) -> None:
        tar = PackageTar(inflated(kind, content))
        left = _LARGEST_CONTROL
        for entry in tar:
            if entry.kind == FILE and b"/" not in entry.name:
                name = os.fsdecode(entry.name)
                left -= entry.size
                if left < 0:
                    raise BootstrapError(f"the package has more than {_LARGEST_CONTROL >> 20} MiB of control files")
                self.control[name] = tar.read(entry.size), entry.mode, entry.mtime

    def hold(self, file: int) -> None:
        """Decompress the archive of the package's files into an empty file, where `data` will read it.

        The data given to the constructor is needed no longer. Raises BootstrapError, OSError.
        """
        assert self._data is not None
        for chunk in inflated(self._kind, self._data):
            write_all(file, chunk)
        self._plain, self._data = file, None

    def close(self) -> None:
        """Give up what `hold` was given."""
        if self._plain >= 0:
            os.close(self._plain)
            self._plain = -1

    def data(self) -> PackageTar:
        """The archive of the package's files, from its beginning."""
        if self._plain >= 0:
            return PackageTar(_content(self._plain))
        assert self._data is not None
        return PackageTar(inflated(self._kind, self._data))


def _content(file: int) -> Iterator[bytes]:
    place = 0
    while chunk := os.pread(file, CHUNK, place):
        yield chunk
        place += len(chunk)


def inflated(kind: str, data: memoryview) -> Iterator[bytes]:
    """The plain chunks of a compressed member. Raises BootstrapError."""
    inflater = Inflater(kind)
    for place in range(0, len(data), _FEED):
        yield from inflater.feed(bytes(data[place : place + _FEED]))
    inflater.end()


class PackageTar(Tar):
    """An archive of a package, which may not hold everything that archives can."""

    def accept(self, entry: Entry) -> Entry:
        if entry.kind == SPARSE or entry.segments is not None:
            raise BootstrapError(f"{os.fsdecode(entry.name)}: sparse archive members are not allowed in a package")
        entry = super().accept(entry)
        if entry.kind not in (FILE, LINK, SYMLINK, DIRECTORY, FIFO):
            device = entry.kind in (CHARACTER, BLOCK_DEVICE)
            what = "a device node" if device else f"a member of unknown kind {entry.kind!r}"
            raise BootstrapError(f'the package holds {what}, "{os.fsdecode(entry.name)}"')
        return entry
