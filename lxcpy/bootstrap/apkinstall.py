"""Installs Alpine's packages as apk would: files, scripts, triggers, and the database that apk finds afterwards."""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import os
import signal
import socket
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from lxcpy.bootstrap import apkdb, apkformat, download, extract, install, tar, untar
from lxcpy.bootstrap.apkdb import Installed
from lxcpy.bootstrap.apkformat import Package
from lxcpy.bootstrap.children import Child
from lxcpy.bootstrap.chroot import Chroot, Settings
from lxcpy.bootstrap.progress import Progress
from lxcpy.errors import BootstrapError, meaning
from lxcpy.kernel.fd import make_dirs_in_root, unlink_in_root, write_in_root

_EXEC = "lib/apk/exec"
_CHUNK = 1 << 18


class Installation:
    """One system in the making. open_package: a descriptor of a package's file whose hash was just checked."""

    def __init__(
        self, target: str, packages: Sequence[Package], open_package: Callable[[Package], int], *, persona: int,
        log: str, progress: Progress,
    ) -> None:  # fmt: skip
        self.target, self.packages, self.open_package = target, packages, open_package
        self.persona, self.log, self.progress = persona, log, progress
        self.taken: dict[bytes, Installed] = {}  # whose each file is
        self.done: list[Installed] = []
        self.root = -1
        self.chroot: Chroot | None = None

    def run(self, world: Sequence[str], arch: str) -> None:
        """Install everything into the empty directory. Raises BootstrapError."""
        with ExitStack() as stack:
            try:
                self.root = os.open(self.target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
                stack.callback(os.close, self.root)
                install.make_devices(self.root)
                for path in ("proc", "sys", "tmp", _EXEC, apkdb.DIRECTORY, "etc/apk/keys"):
                    make_dirs_in_root(self.root, path).close()
                output = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
                stack.callback(os.close, output)
                self.chroot = stack.enter_context(Chroot(self.target, Settings(persona=self.persona, log=output)))
                self.progress.start("install", total=len(self.packages), unit="packages")
                for package in self.packages:
                    self.one(package)
                    self.progress.advance("install")
                self.triggers()
                apkdb.write(self.root, self.done, world, arch)
                self.progress.finish("install")
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT):
                    raise download.full_disk(error, self.target) from error
                raise BootstrapError(
                    f'cannot make the system in "{self.target}": {meaning(error)} ({error})'
                ) from error

    def one(self, package: Package) -> None:
        """Install one package."""
        file = self.open_package(package)
        try:
            size = os.fstat(file).st_size
            streams = apkformat.package(memoryview(os.pread(file, size, 0)), package)
            installed = Installed(package, streams.control, apkformat.info(streams.control), [], {})
            self.script(installed, "pre-install", [package.version])
            answer = self.files(installed, file, streams.begin)
        finally:
            os.close(file)
        for path, uid, gid, mode in answer["directories"]:
            installed.directories[os.fsencode(path)] = (uid, gid, mode)
        for path, uid, gid, mode, sha1 in answer["files"]:
            name = os.fsencode(path)
            if name in self.taken:
                self.taken[name].files[:] = [one for one in self.taken[name].files if one[0] != name]
            installed.files.append((name, uid, gid, mode, bytes.fromhex(sha1)))
            self.taken[name] = installed
        self.done.append(installed)
        self.script(installed, "post-install", [package.version])

    def files(self, installed: Installed, file: int, begin: int) -> dict[str, Any]:
        """Unpack a package's files, in a child; what it tells. Raises BootstrapError, OSError."""
        try:
            with Child(lambda channel: self.unpack(channel, installed, file, begin)) as child:
                return next(child.answers())
        except BootstrapError as error:
            raise BootstrapError(f"{installed.package.file}: {error.what}", hint=error.hint) from error

    def unpack(self, channel: socket.socket, installed: Installed, file: int, begin: int) -> dict[str, Any]:
        """In the child."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.umask(0)
        os.chroot(self.target)
        os.chdir("/")
        unpacker = _Unpacker(installed, self.taken, extract.Owners.read())
        unpacker.run(tar.Tar(untar.plain(file, "gz", lambda _: None, begin)))
        return {"directories": unpacker.directories, "files": unpacker.files}

    def script(self, installed: Installed, kind: str, words: Sequence[str]) -> None:
        """Run a package's script inside, if it has one of that kind. Raises BootstrapError."""
        content = installed.control.get(f".{kind}")
        if content is None:
            return
        package = installed.package
        path = f"{_EXEC}/{package.name}-{package.version}.{kind}"
        write_in_root(self.root, path, content, 0o755)
        assert self.chroot is not None
        environment = {"APK_PACKAGE": package.name, "APK_SCRIPT": kind}
        status = self.chroot.run([f"/{path}", *words], env=environment)
        unlink_in_root(self.root, path)
        if status:
            end = f"was killed by signal {-status}" if status < 0 else f"exit status {status}"
            raise BootstrapError(
                f"{package.name}: the {kind} script failed ({end})\n{install.tail(self.log)}",
                hint=f"the full log is in {self.log}",
            )

    def triggers(self) -> None:
        """Run the triggers of packages, each with the directories it watches in which something was installed."""
        touched = sorted({"/" + os.fsdecode(path) for one in self.done for path in one.directories if path})
        for installed in self.done:
            patterns = installed.triggers
            hit = [path for path in touched if any(fnmatch.fnmatchcase(path, one) for one in patterns)]
            if hit:
                self.script(installed, "trigger", hit)


class _Unpacker(untar.Unpacker):
    """Unpacks one package and takes down what apk's database tells of it."""

    def __init__(self, installed: Installed, taken: Mapping[bytes, Installed], owners: extract.Owners) -> None:
        super().__init__(untar.Rules())
        self.installed, self.taken, self.owners = installed, taken, owners
        self.directories: list[tuple[str, int, int, int]] = []
        self.files: list[tuple[str, int, int, int, str]] = []
        self.sums: dict[bytes, str] = {}

    def one(self, archive: tar.Tar, entry: tar.Entry) -> None:
        name = entry.name
        if name.startswith(b".") and b"/" not in name:
            return  # what is not the system's
        entry = entry._replace(
            uid=self.owners.users.get(entry.user, entry.uid), gid=self.owners.groups.get(entry.group, entry.gid)
        )
        facts = os.fsdecode(name), entry.uid, entry.gid, entry.mode
        if entry.kind == tar.DIRECTORY:
            self.directories.append(facts)
            super().one(archive, entry)
            return
        if name in self.taken and not self.installed.may_replace(self.taken[name]):
            return
        super().one(archive, entry)
        if entry.kind == tar.SYMLINK:
            self.sums[name] = hashlib.sha1(entry.target, usedforsecurity=False).hexdigest()
        elif entry.kind == tar.LINK:
            self.sums[name] = self.sums.get(entry.target, "")
        self.files.append((*facts, self.sums.get(name, "")))

    def directory(self, entry: tar.Entry) -> None:
        # A link to a directory stays, as with apk: a merged /usr is such a one.
        if not (os.path.islink(entry.name) and os.path.isdir(entry.name)):
            super().directory(entry)

    def file(self, archive: tar.Tar, entry: tar.Entry) -> None:
        super().file(archive, entry)
        state = hashlib.sha1(usedforsecurity=False)
        with open(entry.name, "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise BootstrapError(f'"/{os.fsdecode(entry.name)}" was replaced meanwhile')
            while data := file.read(_CHUNK):
                state.update(data)
        self.sums[entry.name] = state.hexdigest()
