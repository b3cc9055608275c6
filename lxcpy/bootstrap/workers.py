"""Processes that unpack packages inside the target, fed as downloads complete.

They are forked before any thread runs and import all they need first: once the target is their root, the host's files,
its Python among them, are out of reach.
"""

from __future__ import annotations

import errno
import hashlib
import json
import mmap
import os
import resource
import signal
import socket
import traceback
from typing import Any

from lxcpy.bootstrap import compression, deb, extract
from lxcpy.bootstrap.children import check
from lxcpy.bootstrap.download import Expected
from lxcpy.errors import BootstrapError, LxcpyError
from lxcpy.kernel import process

_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW


class Damaged(Exception):
    """A cached file is not what its name says."""


class Worker:
    """One process; `start` it, then `unpack` packages, some of which it was told to `hold` before, then `close`."""

    def __init__(self, objects: str) -> None:
        """objects: the store's directory of objects. Forks. Raises OSError."""
        compression.prepare()
        ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            _run(theirs, objects)
        theirs.close()
        self._socket = ours
        self._reader = ours.makefile("rb")

    def start(self, target: str) -> None:
        """Make `target` the process's root. Raises BootstrapError, OSError."""
        self._ask({"root": target})

    def unpack(self, expected: Expected) -> dict[str, Any]:
        """Unpack the stored package of that hash; returns what extract.unpack_package does.

        Raises Damaged if the file is not of that hash, BootstrapError, OSError.
        """
        return self._ask({"sha256": expected.sha256, "size": expected.size})

    def hold(self, expected: Expected) -> None:
        """Check and decompress a package so that this worker's `unpack` has little left to do; nothing is visible yet.

        Raises as `unpack`.
        """
        self._ask({"sha256": expected.sha256, "size": expected.size, "hold": True})

    def close(self) -> None:
        """End the process, also in the middle of its work."""
        self._reader.close()
        self._socket.close()
        if self.pid:
            process.kill_child(self.pid)
            self.pid = 0

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        self._socket.sendall(json.dumps(request).encode() + b"\n")
        line = self._reader.readline()
        if not line:
            raise BootstrapError("the process that unpacks packages died", hint="the kernel's log may tell why")
        answer: dict[str, Any] = json.loads(line)
        if "damaged" in answer:
            raise Damaged(answer["damaged"])
        check(answer)
        return answer


def _run(channel: socket.socket, objects: str) -> None:
    """The process's whole life."""
    try:
        process.set_pdeathsig(signal.SIGKILL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
        os.umask(0)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a descriptor for each package that is held
        directory = os.open(objects, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        # Sockets of other workers must not stay open here, or they would never see their parent's end of file.
        first, second = sorted((channel.fileno(), directory))
        for low, high in ((3, first - 1), (first + 1, second - 1), (second + 1, 1 << 31)):
            if low <= high:
                process.close_range(low, high)
        packages = _Packages(directory)
        for line in channel.makefile("rb"):
            try:
                answer = packages.answer(json.loads(line))
            except Damaged as error:
                answer = {"damaged": str(error)}
            except LxcpyError as error:
                answer = {"error": error.to_dict()}
            except OSError as error:
                answer = {"errno": error.errno, "text": str(error)}
            channel.sendall(json.dumps(answer).encode() + b"\n")
    except BrokenPipeError:
        pass
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


class _Packages:
    """What the process knows between two requests."""

    def __init__(self, objects: int) -> None:
        self.objects = objects
        self.owners = extract.Owners({}, {})
        self.held: dict[str, deb.Deb] = {}

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what the request says. Raises Damaged, BootstrapError, OSError."""
        if "root" in request:
            compression.leave()
            os.chroot(request["root"])
            os.chdir("/")
            return {}
        name = request["sha256"]
        if "hold" in request:
            if name not in self.held:  # an index may name one file twice
                package = _open(self.objects, request)
                package.hold(_scratch())
                self.held[name] = package
            return {}
        package = self.held.pop(name) if name in self.held else _open(self.objects, request)
        if not self.owners.users:
            self.owners = extract.Owners.read()
        found = extract.unpack_package(package, self.owners)
        package.close()
        return found


def _scratch() -> int:
    """A file without a name, on the target's disk and not in memory where its file system can."""
    try:
        return os.open("/", os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
            raise
        return os.memfd_create("package")


def _open(objects: int, request: dict[str, Any]) -> deb.Deb:
    """The stored package, its hash checked."""
    name = request["sha256"]
    try:
        file = os.open(f"{name[:2]}/{name}", _READ, dir_fd=objects)
    except FileNotFoundError:
        raise Damaged(f"{name}: gone") from None
    with open(file, "rb") as stream:
        if os.fstat(file).st_size != request["size"]:
            raise Damaged(f"{name}: wrong size")
        if not request["size"]:
            raise BootstrapError("not a Debian package: an empty file")  # which cannot be mapped
        data = mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ)  # unmapped with its last slice
    if hashlib.sha256(data).hexdigest() != name:
        raise Damaged(f"{name}: wrong content")
    return deb.Deb(memoryview(data))
