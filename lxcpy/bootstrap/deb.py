"""The .deb format: an ar archive of two tar archives (deb(5), tar(5)).

The tar reader knows ustar, GNU long names and pax paths, which is what dpkg-deb writes. It is about twice as fast as
the tarfile module and holds one chunk in memory, however large the archive.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from lxcpy.bootstrap.compression import Inflater
from lxcpy.errors import BootstrapError

BLOCK = 512
_FEED = 256 << 10  # compressed bytes given to a decompressor at a time
_LONGEST_NAME = 64 << 10
FILE, LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
_PLAIN = (b"0", b"\0", b"7")  # regular files, by all their names


class Entry(NamedTuple):
    """One member of a tar archive; names are relative, without a slash at the end; b"" is the root."""

    name: bytes
    kind: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    target: bytes  # of a link; a hard link's is a name as above
    user: bytes
    group: bytes


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
    """A package file: `control` is {name: (content, mode)}, `data()` the tar archive of its files."""

    def __init__(self, data: memoryview) -> None:
        self.control: dict[str, tuple[bytes, int, int]] = {}  # name: content, mode, mtime
        self._kind = ""
        self._data: memoryview | None = None
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
        tar = Tar(inflated(kind, content))
        for entry in tar:
            if entry.kind in _PLAIN and b"/" not in entry.name:
                name = os.fsdecode(entry.name)
                self.control[name] = tar.read(entry.size), entry.mode, entry.mtime

    def data(self) -> Tar:
        """The archive of the package's files, from its beginning."""
        assert self._data is not None
        return Tar(inflated(self._kind, self._data))


def inflated(kind: str, data: memoryview) -> Iterator[bytes]:
    """The plain chunks of a compressed member. Raises BootstrapError."""
    inflater = Inflater(kind)
    for place in range(0, len(data), _FEED):
        yield from inflater.feed(bytes(data[place : place + _FEED]))
    inflater.end()


class Tar:
    """A tar archive read from chunks: iterate over the entries; `read` or `copy` takes the current one's content."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._buffer = b""
        self._place = 0
        self._left = 0  # of the current entry's content and padding

    def __iter__(self) -> Iterator[Entry]:
        long_name = long_target = b""
        pax: dict[bytes, bytes] = {}
        while True:
            if self._left:
                self._skip(self._left)
                self._left = 0
            block = self._take(BLOCK)
            if not block.strip(b"\0"):
                break  # two empty blocks end an archive; what follows is padding
            entry = _parse(block)
            self._left = -(-entry.size // BLOCK) * BLOCK
            if entry.kind in (b"L", b"K", b"x", b"g"):
                if entry.size > _LONGEST_NAME:
                    raise BootstrapError("damaged archive: a name longer than 64 KiB")
                content = self.read(entry.size)
                if entry.kind == b"L":
                    long_name = content.rstrip(b"\0")
                elif entry.kind == b"K":
                    long_target = content.rstrip(b"\0")
                elif entry.kind == b"x":
                    pax = _parse_pax(content)
                continue
            if long_name or long_target or pax:
                entry = self._extended(entry, pax, long_name, long_target)
                long_name = long_target = b""
                pax = {}
            yield _safe(entry)
        for _ in self._chunks:
            pass  # to the end, so that the decompressor checks its sum

    def _extended(self, entry: Entry, pax: dict[bytes, bytes], long_name: bytes, long_target: bytes) -> Entry:
        if any(key.startswith(b"GNU.sparse") for key in pax):
            raise BootstrapError(f"{os.fsdecode(entry.name)}: sparse archive members are not allowed in a package")
        if b"size" in pax:
            entry = entry._replace(size=int(pax[b"size"]))
            self._left = -(-entry.size // BLOCK) * BLOCK
        return entry._replace(
            name=long_name or pax.get(b"path", entry.name),
            target=long_target or pax.get(b"linkpath", entry.target),
            uid=int(pax.get(b"uid", entry.uid)),
            gid=int(pax.get(b"gid", entry.gid)),
        )

    def read(self, size: int) -> bytes:
        """`size` bytes of the current entry."""
        self._left -= size
        return self._take(size)

    def copy(self, file: int, size: int) -> None:
        """Write `size` bytes of the current entry to a descriptor. Raises OSError; BootstrapError if cut short."""
        self._left -= size
        while size:
            if self._place >= len(self._buffer):
                self._fill()
            view = memoryview(self._buffer)[self._place : self._place + size]
            written = os.write(file, view)
            self._place += written
            size -= written

    def _take(self, size: int) -> bytes:
        end = self._place + size
        if end <= len(self._buffer):
            data = self._buffer[self._place : end]
            self._place = end
            return data
        parts = []
        while size:
            if self._place >= len(self._buffer):
                self._fill()
            part = self._buffer[self._place : self._place + size]
            self._place += len(part)
            size -= len(part)
            parts.append(part)
        return b"".join(parts)

    def _skip(self, size: int) -> None:
        while size:
            if self._place >= len(self._buffer):
                self._fill()
            step = min(size, len(self._buffer) - self._place)
            self._place += step
            size -= step

    def _fill(self) -> None:
        self._place = 0
        self._buffer = next(self._chunks, b"")
        if not self._buffer:
            raise BootstrapError("truncated archive")


def _number(field: bytes) -> int:
    """An octal number, or GNU's binary form for large ones."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    return int(field.strip(b" \0") or b"0", 8)


def _text(field: bytes) -> bytes:
    end = field.find(b"\0")
    return field if end < 0 else field[:end]


def _parse(block: bytes) -> Entry:
    try:
        checksum = _number(block[148:156])
        # The sum is made with its own field full of blanks.
        if sum(block) - sum(block[148:156]) + 256 != checksum:
            raise ValueError("wrong checksum")
        name = _text(block[0:100])
        if block[257:263] == b"ustar\0":
            prefix = _text(block[345:500])
            if prefix:
                name = prefix + b"/" + name
        return Entry(
            name, block[156:157], _number(block[100:108]) & 0o7777, _number(block[108:116]), _number(block[116:124]),
            _number(block[124:136]), _number(block[136:148]), _text(block[157:257]), _text(block[265:297]),
            _text(block[297:329]),
        )  # fmt: skip
    except ValueError as error:
        raise BootstrapError(f"damaged archive: bad tar header: {error}") from error


def _parse_pax(content: bytes) -> dict[bytes, bytes]:
    """Records `LENGTH KEY=VALUE\\n` of a pax header."""
    records: dict[bytes, bytes] = {}
    while content:
        digits, space, _ = content.partition(b" ")
        if not space or not digits.isdigit() or not 0 < int(digits) <= len(content):
            raise BootstrapError("damaged archive: bad pax header")
        key, _, value = content[len(digits) + 1 : int(digits) - 1].partition(b"=")
        records[key] = value
        content = content[int(digits) :]
    return records


def _relative(name: bytes) -> bytes:
    """A member's name as a relative path without empty or dot parts. Raises BootstrapError for one with `..`."""
    if name.startswith(b"./"):
        name = name[2:]
    name = name.strip(b"/")
    if name == b".":
        name = b""
    if b".." in name or b"\0" in name or b"//" in name or b"/./" in name:
        parts = [part for part in name.split(b"/") if part not in (b"", b".")]
        if b".." in parts or b"\0" in name:
            raise BootstrapError(f'the package holds the path "{os.fsdecode(name)}", which leads outside')
        name = b"/".join(parts)
    return name


def _safe(entry: Entry) -> Entry:
    """The entry with relative names; kinds that no package may hold are refused. Raises BootstrapError."""
    name = _relative(entry.name)
    kind = FILE if entry.kind in _PLAIN else entry.kind
    if kind not in (FILE, LINK, SYMLINK, DIRECTORY, FIFO):
        what = "a device node" if kind in (CHARACTER, BLOCK_DEVICE) else f"a member of unknown kind {kind!r}"
        raise BootstrapError(f'the package holds {what}, "{os.fsdecode(name)}"')
    target = _relative(entry.target) if kind == LINK else entry.target
    return entry._replace(name=name, kind=kind, target=target)
