"""Unpacks a whole archive into a directory: the tarball of a root filesystem, or one layer of an image.

A process makes the directory its root and unpacks there, so no name, link or `..` of the archive leads out of it: what
a link says is read as the system itself will read it. The bytes may come from anybody. A device node is made only if
it is one that LXC lets every container use (config/common.conf), the host's disks never.
"""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import os
import re
import signal
import socket
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from lxcpy.bootstrap import compression, download, tar
from lxcpy.bootstrap.children import Child
from lxcpy.errors import BootstrapError, meaning

_READ = 256 << 10
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_WHITEOUT, _OPAQUE, _META = b".wh.", b".wh..wh..opq", b".wh..wh."
_MAGIC = ((b"\x1f\x8b", "gz"), (b"\xfd7zXZ\0", "xz"), (b"\x28\xb5\x2f\xfd", "zst"), (b"BZh", "bz2"), (b"]\0\0", "lzma"))
# Labels and seals belong to the host's policy; what overlayfs keeps in attributes could lead it elsewhere.
_NOT_OURS = ("trusted.", "security.selinux", "security.ima", "security.evm", "user.overlay.")
_ALLOWED = {(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 1), (5, 2), (10, 200), (10, 229)}


class Rules(NamedTuple):
    """How to unpack.

    excludes: patterns of names that are left out, as tar --anchored --exclude reads them. devices: whether device
    nodes are made. layer: names .wh.* take away what earlier layers put there (OCI image spec, layer.md). digest: the
    hash of the plain archive as `ALGORITHM:HEX`, checked at its end; "" for none.
    """

    excludes: Sequence[str] = ()
    devices: bool = True
    layer: bool = False
    digest: str = ""


class Result(NamedTuple):
    """bytes: of files written. left_out: device nodes that were not made."""

    bytes: int
    left_out: int


def kind(file: int) -> str:
    """How an open archive is compressed, by its first bytes: a kind of compression.Inflater. Raises OSError."""
    head = os.pread(file, 8, 0)
    return next((name for magic, name in _MAGIC if head.startswith(magic)), "")


def unpack(file: int, target: str, rules: Rules, *, name: str, advance: Callable[[int], None] | None = None) -> Result:
    """Unpack an open archive, from its beginning, into the directory `target`.

    name: what errors call it. advance: told how many bytes of the archive were read. Raises BootstrapError.
    """
    packed = kind(file)
    compression.Inflater(packed)  # loaded here: the child can load nothing from the target
    try:
        with Child(lambda channel: _unpack(channel, file, packed, target, rules)) as child:
            for answer in child.answers():
                if "read" not in answer:
                    return Result(answer["bytes"], answer["left_out"])
                if advance is not None:
                    advance(answer["read"])
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise download.full_disk(error, target) from error
        raise BootstrapError(f"cannot unpack {name}: {meaning(error)} ({error})") from error
    except BootstrapError as error:
        raise BootstrapError(f"{name}: {error.what}", hint=error.hint) from error
    raise AssertionError("unreachable")


def members(file: int, *, limit: int) -> dict[str, bytes]:
    """The regular files of a small archive, by name; `limit`: bytes of it at most, in all. Raises BootstrapError."""
    found: dict[str, bytes] = {}
    archive = tar.Tar(plain(file, kind(file), lambda _: None))
    for entry in archive:
        if entry.kind == tar.FILE and entry.segments is None:
            limit -= entry.size
            if limit < 0:
                raise BootstrapError("the archive holds more than it may")
            found[os.fsdecode(entry.name)] = archive.read(entry.size)
    return found


def plain(file: int, packed: str, advance: Callable[[int], None], begin: int = 0) -> Iterator[bytes]:
    """The plain bytes of an open file from a place on. Raises BootstrapError, OSError."""
    inflater = compression.Inflater(packed)
    place = begin
    while data := os.pread(file, _READ, place):
        place += len(data)
        advance(len(data))
        yield from inflater.feed(data)
    inflater.end()


def _unpack(channel: socket.socket, file: int, packed: str, target: str, rules: Rules) -> dict[str, Any]:
    """In the child."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    os.umask(0)
    compression.leave()
    os.chroot(target)
    os.chdir("/")

    def advance(amount: int) -> None:
        Child.say(channel, {"read": amount})

    found = Unpacker(rules)
    chunks: Iterable[bytes] = plain(file, packed, advance)
    if rules.digest:
        chunks = _hashed(chunks, rules.digest)
    found.run(tar.Tar(chunks))
    return {"bytes": found.written, "left_out": found.left_out}


def _hashed(chunks: Iterable[bytes], digest: str) -> Iterator[bytes]:
    algorithm, _, wanted = digest.partition(":")
    state = hashlib.new(algorithm)
    for chunk in chunks:
        state.update(chunk)
        yield chunk
    if state.hexdigest() != wanted:
        raise BootstrapError(f"wrong content: its {algorithm} is {state.hexdigest()}, it should be {wanted}")


class Unpacker:
    """The loop over one archive's entries, in the process's root."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.excluded = _matcher(rules.excludes)
        self.written = self.left_out = 0
        self.seen: set[bytes] = set()  # names of this layer and their parents
        self.times: dict[bytes, int] = {}  # of directories, set at the end
        info = os.statvfs(".")
        self.largest = info.f_blocks * info.f_frsize

    def run(self, archive: tar.Tar) -> None:
        for entry in archive:
            if self.excluded(entry.name):
                continue
            try:
                self.one(archive, entry)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise
                raise BootstrapError(f'cannot unpack "/{os.fsdecode(entry.name)}": {meaning(error)}') from error
        for name, mtime in self.times.items():
            if _is_directory(name):
                os.utime(name or b".", (mtime, mtime))

    def one(self, archive: tar.Tar, entry: tar.Entry) -> None:
        name = entry.name
        if self.rules.layer:
            directory, _, base = name.rpartition(b"/")
            if base.startswith(_WHITEOUT):
                self.white_out(directory, base)
                return
            self.remember(name)
        if entry.kind == tar.DIRECTORY:
            self.directory(entry)
            return
        if not name:
            raise BootstrapError("the root of the archive is no directory")
        maker = self.makers.get(entry.kind)
        if maker is None:
            raise BootstrapError(f'the archive holds a member of unknown kind {entry.kind!r}, "{os.fsdecode(name)}"')
        getattr(self, maker)(archive, entry)

    # -- what there may be -------------------------------------------------------------------------------------------

    def file(self, archive: tar.Tar, entry: tar.Entry) -> None:
        if entry.size > self.largest:
            raise BootstrapError(f'the archive holds a file larger than the file system, "{os.fsdecode(entry.name)}"')
        file = _placed(entry.name, lambda: os.open(entry.name, _CREATE, 0o600))
        try:
            archive.copy_file(file, entry)
            os.fchown(file, entry.uid, entry.gid)
            os.fchmod(file, entry.mode)  # after chown, which takes the setuid bit away
            _attributes(file, entry)
            os.utime(file, (entry.mtime, entry.mtime))
        finally:
            os.close(file)
        self.written += entry.size

    def directory(self, entry: tar.Entry) -> None:
        name = entry.name or b"."
        if not _is_directory(name):
            _placed(name, lambda: os.mkdir(name, 0o700))
        os.chown(name, entry.uid, entry.gid)
        os.chmod(name, entry.mode)
        _attributes(name, entry)
        self.times[entry.name] = entry.mtime

    def symlink(self, archive: tar.Tar, entry: tar.Entry) -> None:
        _placed(entry.name, lambda: os.symlink(entry.target, entry.name))
        os.lchown(entry.name, entry.uid, entry.gid)
        _attributes(entry.name, entry)
        os.utime(entry.name, (entry.mtime, entry.mtime), follow_symlinks=False)

    def link(self, archive: tar.Tar, entry: tar.Entry) -> None:
        if entry.target != entry.name:
            _placed(entry.name, lambda: os.link(entry.target, entry.name, follow_symlinks=False))

    def node(self, archive: tar.Tar, entry: tar.Entry) -> None:
        mode, device = stat.S_IFIFO, 0
        if entry.kind != tar.FIFO:
            if not self.rules.devices or not _harmless(entry):
                self.left_out += 1
                return
            mode, device = stat.S_IFCHR, os.makedev(*entry.device)
        _placed(entry.name, lambda: os.mknod(entry.name, mode | 0o600, device))
        os.lchown(entry.name, entry.uid, entry.gid)
        os.chmod(entry.name, entry.mode)
        os.utime(entry.name, (entry.mtime, entry.mtime))

    makers = {
        tar.FILE: "file", tar.SYMLINK: "symlink", tar.LINK: "link", tar.FIFO: "node", tar.CHARACTER: "node",
        tar.BLOCK_DEVICE: "node",
    }  # fmt: skip

    # -- layers ------------------------------------------------------------------------------------------------------

    def remember(self, name: bytes) -> None:
        while name not in self.seen:
            self.seen.add(name)
            name = name.rpartition(b"/")[0]

    def white_out(self, directory: bytes, base: bytes) -> None:
        if base == _OPAQUE:
            if _is_directory(directory or b"."):
                self.clear(directory)
        elif not base.startswith(_META):
            self.remove(os.path.join(directory, base[len(_WHITEOUT) :]))

    def clear(self, directory: bytes) -> None:
        """Remove what earlier layers put into a directory."""
        waiting = [directory]
        while waiting:
            directory = waiting.pop()
            for name in os.listdir(directory or b"."):
                path = os.path.join(directory, name)
                if path not in self.seen:
                    remove(path)
                elif _is_directory(path):
                    waiting.append(path)

    def remove(self, path: bytes) -> None:
        """Remove what earlier layers put at a path."""
        if os.path.basename(path) in (b"", b".", b".."):
            raise BootstrapError(f'the layer takes away "{os.fsdecode(path)}", which is no name')
        if path not in self.seen:
            remove(path)
        elif _is_directory(path):
            self.clear(path)


def _matcher(patterns: Sequence[str]) -> Callable[[bytes], bool]:
    """Whether a name or one of its parents matches a pattern; `*` matches slashes too, as with tar --exclude."""
    matches = [_pattern(pattern) for pattern in patterns if pattern.strip()]

    def excluded(name: bytes) -> bool:
        while name:
            if any(match(name) for match in matches):
                return True
            name = name.rpartition(b"/")[0]
        return False

    return excluded if matches else lambda name: False


def _pattern(pattern: str) -> Callable[[bytes], Any]:
    text = os.fsencode(pattern.strip())
    return re.compile(os.fsencode(fnmatch.translate(os.fsdecode(text.removeprefix(b"./").strip(b"/"))))).match


def _harmless(entry: tar.Entry) -> bool:
    major, minor = entry.device
    return entry.kind == tar.CHARACTER and (entry.device in _ALLOWED or (major == 4 and minor < 64) or major == 136)


def _is_directory(path: bytes) -> bool:
    try:
        return stat.S_ISDIR(os.lstat(path or b".").st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _placed(path: bytes, make: Callable[[], Any]) -> Any:
    """make(); what is in the way is removed first, missing parents are made."""
    try:
        return make()
    except FileExistsError:
        remove(path)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path) or b".", 0o755, exist_ok=True)
    return make()


def remove(path: bytes) -> None:
    """Remove a file, a link, or a directory with all that is in it, in the current root. Raises OSError."""
    waiting = [path]
    while waiting:
        last = waiting[-1]
        try:
            if not _is_directory(last):
                os.unlink(last)
            else:
                os.rmdir(last)
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            waiting += [os.path.join(last, name) for name in os.listdir(last)]
            continue
        waiting.pop()


def _attributes(target: int | bytes, entry: tar.Entry) -> None:
    for name, value in entry.attributes:
        if name.startswith(_NOT_OURS):
            continue
        try:
            if isinstance(target, int):
                os.setxattr(target, name, value)
            else:
                os.setxattr(target, name, value, follow_symlinks=False)
        except OSError as error:
            # a file system or a kind of file without such attributes
            if error.errno not in (errno.EOPNOTSUPP, errno.EPERM, errno.EINVAL):
                raise
