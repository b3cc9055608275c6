"""Decompression as a stream: gzip, xz, bzip2 from the standard library; zstd from what the machine has.

zstd: the standard library's module (Python 3.14), else backports.zstd, else libzstd by ctypes (systemd, kmod and every
package manager of today need that library, so it is there), else the program zstd.
"""

from __future__ import annotations

import ctypes
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from lxcpy.bootstrap import zstdprogram
from lxcpy.errors import BootstrapError

_failures: list[type[Exception]] = [OSError, EOFError, ValueError, zlib.error]  # what decompressors raise
ZSTD = ("compression.zstd", "backports.zstd", "libzstd", "zstd")  # the best first
CHUNK = 1 << 20  # bytes a decompressor hands out at a time: bounds the memory of a worker


class Decompressor(Protocol):
    """What lzma, bz2 and compression.zstd have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Gzip:
    """zlib with the interface of the others."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(wbits=31)
        self._full = False  # the last call gave all it was allowed to: more may wait inside

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def needs_input(self) -> bool:
        return not self._zlib.unconsumed_tail and not self._full

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        tail = self._zlib.unconsumed_tail
        plain = self._zlib.decompress(tail + bytes(data) if tail else data, max(max_length, 0))
        self._full = len(plain) == max_length
        return plain


class _Buffer(ctypes.Structure):
    """ZSTD_inBuffer and ZSTD_outBuffer of zstd.h."""

    _fields_ = [("place", ctypes.c_void_p), ("size", ctypes.c_size_t), ("pos", ctypes.c_size_t)]


class _LibZstd:
    """The streaming interface of libzstd.so.1; the archives carry no content size, so no other will do."""

    library: Any = None

    @classmethod
    def load(cls) -> None:
        """Raises OSError where there is no library."""
        if cls.library is not None:
            return
        library = ctypes.CDLL("libzstd.so.1")
        library.ZSTD_createDStream.restype = ctypes.c_void_p
        library.ZSTD_freeDStream.argtypes = [ctypes.c_void_p]
        library.ZSTD_decompressStream.restype = ctypes.c_size_t
        library.ZSTD_decompressStream.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p]
        library.ZSTD_isError.argtypes = [ctypes.c_size_t]
        library.ZSTD_getErrorName.restype = ctypes.c_char_p
        library.ZSTD_getErrorName.argtypes = [ctypes.c_size_t]
        cls.library = library

    def __init__(self) -> None:
        self.load()
        self._stream = self.library.ZSTD_createDStream()
        self._room = ctypes.create_string_buffer(CHUNK)
        self._input = b""
        self._position = 0
        self._full = False  # the last call filled the room: more may wait inside
        self.eof = False
        self.unused_data = b""

    def __del__(self) -> None:
        stream = getattr(self, "_stream", None)
        if stream:
            self.library.ZSTD_freeDStream(stream)
            self._stream = None

    @property
    def needs_input(self) -> bool:
        return self._position >= len(self._input) and not self._full

    def decompress(self, data: bytes, max_length: int = -1) -> bytes:
        if data:
            self._input = self._input[self._position :] + bytes(data)
            self._position = 0
        place = ctypes.cast(ctypes.c_char_p(self._input), ctypes.c_void_p)
        source = _Buffer(place, len(self._input), self._position)
        target = _Buffer(ctypes.addressof(self._room), CHUNK if max_length < 0 else min(max_length, CHUNK), 0)
        left = self.library.ZSTD_decompressStream(self._stream, ctypes.byref(target), ctypes.byref(source))
        if self.library.ZSTD_isError(left):
            raise EOFError(self.library.ZSTD_getErrorName(left).decode())
        self._position = source.pos
        self._full = target.pos == target.size
        if left == 0:
            self.eof = True
            self.unused_data = self._input[self._position :]
        return self._room.raw[: target.pos]


def zstd(way: str) -> Callable[[], Decompressor] | None:
    """zstd by one of ZSTD; None where it is not to be had."""
    if way == "libzstd":
        try:
            _LibZstd.load()
        except OSError:
            return None
        return _LibZstd
    if way == "zstd":
        return zstdprogram.Decompressor if zstdprogram.find() else None
    try:
        module: Any = __import__(way, fromlist=["x"])
    except ImportError:
        return None
    _failures.append(module.ZstdError)
    found: Callable[[], Decompressor] = module.ZstdDecompressor
    return found


def _zstd() -> Callable[[], Decompressor] | None:
    """The best zstd decompressor of this machine; None if there is none."""
    return next((found for way in ZSTD if (found := zstd(way)) is not None), None)


_makers: dict[str, Callable[[], Decompressor]] = {"gz": _Gzip}


def prepare(kinds: Iterable[str] = ("gz", "xz", "bz2", "zst")) -> set[str]:
    """Load the decompressors, so that a process which has left the host's files behind can use them.

    Returns the kinds that there are.
    """
    for kind in kinds:
        if kind in _makers:
            continue
        if kind in ("xz", "lzma"):
            import lzma

            _makers["xz"] = _makers["lzma"] = lzma.LZMADecompressor
            _failures.append(lzma.LZMAError)
        elif kind == "bz2":
            import bz2

            _makers["bz2"] = bz2.BZ2Decompressor
        elif kind == "zst":
            found = _zstd()
            if found is not None:
                _makers["zst"] = found
    return set(_makers)


def leave() -> None:
    """To be called by a process that is about to make another directory its root. Raises OSError."""
    if _makers.get("zst") is zstdprogram.Decompressor:
        zstdprogram.keep_outside()


class Inflater:
    """Compressed bytes in, plain bytes out, as they come; one stream or several behind each other.

    kind: "gz", "xz", "lzma", "bz2", "zst", or "" for bytes that are plain already.
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        if kind and kind not in _makers:
            prepare([kind])
        if kind and kind not in _makers:
            raise BootstrapError(
                f'nothing here can decompress "{kind}"',
                hint="install zstd, libzstd1 or the Python package backports.zstd",
            )
        self._current: Decompressor | None = None

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The plain chunks (at most CHUNK bytes each) that `data` completes. Raises BootstrapError if it is damaged."""
        if not self.kind:
            yield data
            return
        try:
            while data:
                if self._current is None:
                    self._current = _makers[self.kind]()
                stream = self._current
                plain = stream.decompress(data, CHUNK)
                data = b""
                if plain:
                    yield plain
                while not stream.eof and not stream.needs_input:
                    plain = stream.decompress(b"", CHUNK)
                    if plain:
                        yield plain
                if stream.eof:
                    data = stream.unused_data.lstrip(b"\0")  # padding between streams is allowed
                    self._current = None
        except tuple(_failures) as error:
            raise BootstrapError(f"damaged {self.kind} data: {error}") from error

    def end(self) -> None:
        """That the last stream was whole. Raises BootstrapError."""
        if self._current is not None:
            raise BootstrapError(f"truncated {self.kind} data")


def inflate(kind: str, data: bytes) -> bytes:
    """All of `data`, decompressed. Raises BootstrapError."""
    inflater = Inflater(kind)
    plain = b"".join(inflater.feed(data))
    inflater.end()
    return plain
