"""Reads tar archives from a stream of bytes (tar(5)): ustar, GNU's long names and sparse files, pax headers.

About twice as fast as the tarfile module, and it holds one chunk in memory however large the archive: what a header
claims is never believed before it is bounded, since archives are hostile. Names come out relative, without `..`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from lxcpy.errors import BootstrapError

BLOCK = 512
FILE, LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = b"0", b"1", b"2", b"3", b"4", b"5", b"6"
PLAIN = (b"0", b"\0", b"7")  # regular files, by all their names
SPARSE = b"S"  # GNU's
_LONGEST_NAME = 64 << 10
_LONGEST_PAX = 1 << 20  # extended attributes are in there
_MOST_SEGMENTS = 1 << 16  # of a sparse file
_LAST_ID = 0xFFFFFFFE  # the one after it means "no id" to chown(2)
_LAST_TIME = 1 << 36


class Entry(NamedTuple):
    """One member of an archive; names are relative, without a slash at the end; b"" is the root.

    device: major and minor of a device node. attributes: extended attributes of the file. segments: (offset, length)
    of a sparse file's data, `size` being the whole file's; None for a file that is not sparse.
    """

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
    device: tuple[int, int] = (0, 0)
    attributes: tuple[tuple[str, bytes], ...] = ()
    segments: tuple[tuple[int, int], ...] | None = None


class Tar:
    """An archive read from chunks: iterate over the entries; `read` or `copy` takes the current one's content.

    Iterating raises BootstrapError for an archive that is damaged or holds what it must not.
    """

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._chunks = iter(chunks)
        self._buffer = b""
        self._place = 0
        self._left = 0  # of the current entry's content and padding

    def __iter__(self) -> Iterator[Entry]:
        long_name = long_target = b""
        pax: dict[bytes, bytes] = {}
        some = False
        while True:
            if self._left:
                if self._left < BLOCK and self._ended():
                    return  # and some the padding of the last file
                self._skip(self._left)
                self._left = 0
            if some and self._ended():
                return  # some writers leave the empty blocks out
            block = self._take(BLOCK)
            if not block.strip(b"\0"):
                break  # two empty blocks end an archive; what follows is padding
            some = True
            entry = _parse(block)
            self._left = -(-entry.size // BLOCK) * BLOCK
            if entry.kind in (b"L", b"K", b"x", b"g"):
                content = self._header(entry)
                if entry.kind == b"L":
                    long_name = content.rstrip(b"\0")
                elif entry.kind == b"K":
                    long_target = content.rstrip(b"\0")
                elif entry.kind == b"x":
                    pax = parse_pax(content)
                continue
            if entry.kind == SPARSE:
                entry = self._gnu_sparse(entry, block)
            if long_name or long_target or pax:
                entry = self._extended(entry, pax, long_name, long_target)
                long_name = long_target = b""
                pax = {}
            yield self.accept(entry)
        for _ in self._chunks:
            pass  # to the end, so that the decompressor checks its sum

    def accept(self, entry: Entry) -> Entry:
        """The entry with names that stay inside. Raises BootstrapError for one that is not acceptable."""
        kind = FILE if entry.kind in PLAIN or entry.kind == SPARSE else entry.kind
        target = relative(entry.target) if kind == LINK else entry.target
        return entry._replace(name=relative(entry.name), kind=kind, target=target)

    def _header(self, entry: Entry) -> bytes:
        """The content of an entry that describes the next one."""
        limit = _LONGEST_NAME if entry.kind in (b"L", b"K") else _LONGEST_PAX
        if entry.size > limit:
            raise BootstrapError(f"damaged archive: a name or header longer than {limit >> 10} KiB")
        return self.read(entry.size)

    def _extended(self, entry: Entry, pax: dict[bytes, bytes], long_name: bytes, long_target: bytes) -> Entry:
        try:
            if b"size" in pax:
                entry = entry._replace(size=_bounded(pax[b"size"], 1 << 62))
                self._left = -(-entry.size // BLOCK) * BLOCK
            entry = entry._replace(
                name=long_name or pax.get(b"path", entry.name),
                target=long_target or pax.get(b"linkpath", entry.target),
                uid=_bounded(pax[b"uid"], _LAST_ID) if b"uid" in pax else entry.uid,
                gid=_bounded(pax[b"gid"], _LAST_ID) if b"gid" in pax else entry.gid,
                mtime=_time(pax[b"mtime"]) if b"mtime" in pax else entry.mtime,
                attributes=tuple(
                    (os.fsdecode(key[len(_XATTR) :]), value) for key, value in pax.items() if key.startswith(_XATTR)
                ),
            )
            if any(key.startswith(b"GNU.sparse.") for key in pax):
                entry = self._pax_sparse(entry, pax)
        except ValueError as error:
            raise BootstrapError(f"damaged archive: bad pax header: {error}") from error
        return entry

    def _gnu_sparse(self, entry: Entry, block: bytes) -> Entry:
        """An entry of type S: its map is in the header and in blocks behind it (tar(5))."""
        pieces, more, place = [block[386:482]], block[482], 0
        while more:
            following = self._take(BLOCK)
            pieces.append(following[:504])
            more = following[504]
            place += 1
            if place > _MOST_SEGMENTS // 21:
                raise BootstrapError("damaged archive: a sparse file in too many pieces")
        fields = b"".join(pieces)
        try:
            numbers = [
                _number(fields[at : at + 12]) for at in range(0, len(fields), 12) if fields[at : at + 12].strip(b"\0 ")
            ]
            return _sparse(entry, numbers, _number(block[483:495]))
        except ValueError as error:
            raise BootstrapError(f"damaged archive: bad sparse map: {error}") from error

    def _pax_sparse(self, entry: Entry, pax: dict[bytes, bytes]) -> Entry:
        """The pax formats 0.1 and 1.0 of GNU tar's manual; 0.0 repeats a key and has not been written since 2005."""
        entry = entry._replace(name=pax.get(b"GNU.sparse.name", entry.name))
        if b"GNU.sparse.map" in pax:
            numbers = [_bounded(word, 1 << 62) for word in pax[b"GNU.sparse.map"].split(b",")]
            return _sparse(entry, numbers, _bounded(pax.get(b"GNU.sparse.size", b""), 1 << 62))
        if pax.get(b"GNU.sparse.major") != b"1":
            raise BootstrapError(f'the archive holds "{os.fsdecode(entry.name)}" in an unknown sparse format')
        data, words = b"", 1
        while len(found := data.split(b"\n")) <= words:
            if entry.size < len(data) + BLOCK or len(data) > 40 * _MOST_SEGMENTS:
                raise ValueError("its sparse map does not end")
            data += self.read(BLOCK)
            words = 1 + 2 * _bounded(data.partition(b"\n")[0], _MOST_SEGMENTS) if b"\n" in data else 1
        numbers = [_bounded(word, 1 << 62) for word in found[1:words]]
        entry = entry._replace(size=entry.size - len(data))
        return _sparse(entry, numbers, _bounded(pax.get(b"GNU.sparse.realsize", b""), 1 << 62))

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

    def copy_file(self, file: int, entry: Entry) -> None:
        """Write the current entry's whole content to an empty file, holes as holes. Raises as `copy`."""
        if entry.segments is None:
            self.copy(file, entry.size)
            return
        for offset, length in entry.segments:
            os.lseek(file, offset, os.SEEK_SET)
            self.copy(file, length)
        os.ftruncate(file, entry.size)

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

    def _ended(self) -> bool:
        """Whether nothing comes any more."""
        while self._place >= len(self._buffer):
            self._place, self._buffer = 0, next(self._chunks, b"")
            if not self._buffer:
                return True
        return False

    def _fill(self) -> None:
        self._place = 0
        self._buffer = next(self._chunks, b"")
        if not self._buffer:
            raise BootstrapError("truncated archive")


_XATTR = b"SCHILY.xattr."


def _number(field: bytes) -> int:
    """An octal number, or GNU's binary form for large and negative ones. Raises ValueError."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F | (field[0] & 0x40) << 1]) + field[1:], "big", signed=True)
    return int(field.strip(b" \0") or b"0", 8)


def _bounded(text: bytes | int, most: int) -> int:
    """A number of a header between 0 and `most`. Raises ValueError."""
    number = int(text)
    if not 0 <= number <= most:
        raise ValueError(f"{number} is out of range")
    return number


def _time(text: bytes | int) -> int:
    return max(-_LAST_TIME, min(int(text if isinstance(text, int) else float(text)), _LAST_TIME))


def _sparse(entry: Entry, numbers: list[int], size: int) -> Entry:
    """The entry with its map, which must fit the data that follows. Raises ValueError."""
    pairs = tuple(zip(numbers[::2], numbers[1::2], strict=True))
    end = 0
    for offset, length in pairs:
        if offset < end or length < 0:
            raise ValueError("pieces that overlap")
        end = offset + length
    if end > size or sum(length for _, length in pairs) != entry.size:
        raise ValueError("pieces that do not fit")
    return entry._replace(size=size, segments=pairs)


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
        kind = block[156:157]
        device = (_number(block[329:337]), _number(block[337:345])) if kind in (CHARACTER, BLOCK_DEVICE) else (0, 0)
        return Entry(
            name, kind, _number(block[100:108]) & 0o7777, _bounded(_number(block[108:116]), _LAST_ID),
            _bounded(_number(block[116:124]), _LAST_ID), _bounded(_number(block[124:136]), 1 << 62),
            _time(_number(block[136:148])), _text(block[157:257]), _text(block[265:297]), _text(block[297:329]), device,
        )  # fmt: skip
    except ValueError as error:
        raise BootstrapError(f"damaged archive: bad tar header: {error}") from error


def parse_pax(content: bytes) -> dict[bytes, bytes]:
    """Records `LENGTH KEY=VALUE\\n` of a pax header. Raises BootstrapError."""
    records: dict[bytes, bytes] = {}
    place = 0
    while place < len(content):
        space = content.find(b" ", place, place + 20)
        digits = content[place : max(space, place)]
        if not digits.isdigit() or not len(digits) + 1 < int(digits) <= len(content) - place:
            raise BootstrapError("damaged archive: bad pax header")
        key, _, value = content[space + 1 : place + int(digits) - 1].partition(b"=")
        records[key] = value
        place += int(digits)
    return records


def relative(name: bytes) -> bytes:
    """A member's name as a relative path without empty or dot parts. Raises BootstrapError for one with `..`."""
    if name.startswith(b"./"):
        name = name[2:]
    name = name.strip(b"/")
    if name == b".":
        name = b""
    if b".." in name or b"\0" in name or b"//" in name or b"/./" in name or name[:2] == b"./" or name[-2:] == b"/.":
        parts = [part for part in name.split(b"/") if part not in (b"", b".")]
        if b".." in parts or b"\0" in name:
            raise BootstrapError(f'the archive holds the path "{os.fsdecode(name)}", which leads outside')
        name = b"/".join(parts)
    return name
