"""The root filesystem before a start: is it there, may its root reach it, can its init run, is there room."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator

from lxcpy import paths, storage
from lxcpy.config.model import Config
from lxcpy.errors import LxcpyError, RootfsError, StorageError, meaning
from lxcpy.kernel import mount, namespace
from lxcpy.kernel.fd import Fd, open_in_root
from lxcpy.runtime import ids, joins
from lxcpy.runtime.channel import Channel, Closed
from lxcpy.runtime.doctor import program, systemd
from lxcpy.runtime.doctor.finding import ERROR, WARNING, Finding, Fix, failed, ok
from lxcpy.runtime.launcher import Options

CHECK = "rootfs"
LITTLE = 64 << 20  # bytes free, below which a system hardly boots
FEW = 1000  # inodes


def check(config: Config, *, lxcpath: str, owner: tuple[int, int]) -> Iterator[Finding]:
    """owner: the host's ids of the container's root."""
    if not config.rootfs.path:
        return
    try:
        joins.check_rootfs(config)
        root = open_root(config)
    except LxcpyError as error:
        yield failed(CHECK, error, why="the container does not start")
        return
    with root:
        source = storage.backend(storage.parse(config.rootfs.path)[0]).directory(storage.parse(config.rootfs.path)[1])
        if source:
            yield from reach(source, owner, lxcpath, config)
            yield from _owner(root, owner, config)
        yield from _mounted(root, config)
        yield from _init(root, config)
        yield from systemd.check(root, config)
    yield from space(source or lxcpath, "the root filesystem's disk")


def open_root(config: Config) -> Fd:
    """The root filesystem's directory, mounted aside where it has to be. Raises LxcpyError."""
    kind, source = storage.parse(str(config.rootfs.path))
    backend = storage.backend(kind)
    directory = backend.directory(source)
    try:
        if directory is not None:
            return Fd(os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError as error:
        raise RootfsError(f'cannot open "{directory}": {meaning(error)}', at=config.at("lxc.rootfs.path")) from error
    return _mounted_aside(kind, source, config)


def _mounted_aside(kind: str, source: str, config: Config) -> Fd:
    """Mounted in a mount namespace that nobody else sees; the descriptor outlives it."""
    ours, theirs = Channel.pair()
    pid = os.fork()
    if pid == 0:
        try:
            _mount_aside(kind, source, config, theirs)
        finally:
            os._exit(0)
    theirs.close()
    try:
        message, fds = ours.receive()
    except Closed:
        message, fds = {"failed": "the process that mounts it died"}, []
    finally:
        ours.close()
        os.waitpid(pid, 0)
    if not fds:
        raise StorageError(f"cannot mount {config.rootfs.path}: {message['failed']}", at=config.at("lxc.rootfs.path"))
    return Fd(fds[0])


def _mount_aside(kind: str, source: str, config: Config, channel: Channel) -> None:
    try:
        namespace.unshare(namespace.CLONE_NEWNS)
        mount.mount(None, "/", None, mount.MS_REC | mount.MS_PRIVATE)
        target = config.rootfs.mount or paths.ROOTFS_MOUNT
        storage.backend(kind).mount(source, target, None)
        with Fd(os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
            channel.send({}, [root.number])
    except (LxcpyError, OSError) as error:
        channel.send({"failed": error.what if isinstance(error, LxcpyError) else meaning(error)})


def reach(path: str, owner: tuple[int, int], lxcpath: str, config: Config) -> Iterator[Finding]:
    """Whether the container's root may walk to a directory: root asks the kernel as that user, so that ACLs count."""
    if owner == (0, 0):
        return
    blocked = _blocked(os.path.realpath(path), owner)
    if blocked is None:
        yield ok(CHECK, f"the container's root (uid {owner[0]}) reaches it")
        return
    inside = f"{blocked}/".startswith(f"{os.path.realpath(lxcpath)}/")
    cure = f"chmod o+x {blocked}" if inside else f"setfacl -m u:{owner[0]}:x {blocked} (or chmod o+x {blocked})"
    fix = Fix(f"chmod o+x {blocked}", lambda: _let_walk(blocked)) if inside else None
    yield Finding(ERROR, CHECK, f'"{blocked}" may not be walked through by the container\'s root (uid {owner[0]})',
                  "the container cannot reach its root filesystem and does not start", cure,
                  config.at("lxc.rootfs.path"), fix)  # fmt: skip


def _let_walk(path: str) -> None:
    with Fd(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)) as directory:
        os.fchmod(directory.number, stat.S_IMODE(os.fstat(directory.number).st_mode) | 0o001)


def _blocked(path: str, owner: tuple[int, int]) -> str | None:
    """The first directory from / on that these ids may not walk through."""
    parts = path.strip("/").split("/")
    places = ["/", *("/" + "/".join(parts[: number + 1]) for number in range(len(parts)))]
    if os.geteuid():  # who cannot become them looks at the bits that are for others
        return next((place for place in places if not _open_to(place, owner)), None)
    pid = os.fork()
    if pid == 0:
        number = 255
        try:
            os.setgroups([])
            os.setresgid(owner[1], owner[1], owner[1])
            os.setresuid(owner[0], owner[0], owner[0])
            number = next((at for at, place in enumerate(places) if not os.access(place, os.X_OK)), 254)
        finally:
            os._exit(min(number, 254) if number != 255 else 255)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return places[code] if 0 <= code < len(places) else None


def _open_to(place: str, owner: tuple[int, int]) -> bool:
    found = os.stat(place)
    bit = 0o100 if found.st_uid == owner[0] else 0o010 if found.st_gid == owner[1] else 0o001
    return bool(found.st_mode & bit)


def _owner(root: Fd, owner: tuple[int, int], config: Config) -> Iterator[Finding]:
    uid = os.fstat(root.number).st_uid
    if owner == (0, 0) or uid == owner[0] or "idmap=" in (config.rootfs.options or ""):
        return
    uids, _gids = ids.ranges(config)
    if not any(entry.hostid <= uid < entry.hostid + entry.count for entry in uids):
        yield Finding(WARNING, CHECK, f"the root filesystem belongs to uid {uid}, which lxc.idmap does not map",
                      "its files are nobody's inside, and most programs fail to write them",
                      "lxc.rootfs.options = idmap=container shows them with the container's ids; or make it anew",
                      config.at("lxc.rootfs.path"))  # fmt: skip


def _mounted(root: Fd, config: Config) -> Iterator[Finding]:
    """Flags of the mount it is on, which the container inherits."""
    at, flags = config.at("lxc.rootfs.path"), os.fstatvfs(root.number).f_flag
    if flags & os.ST_NOEXEC:
        yield Finding(ERROR, CHECK, "the root filesystem is on a mount with noexec", "not even init can be run",
                      "mount -o remount,exec PLACE, or move the container", at)  # fmt: skip
    if flags & os.ST_NOSUID:
        yield Finding(WARNING, CHECK, "the root filesystem is on a mount with nosuid", "su and sudo do not work inside",
                      "mount -o remount,suid PLACE, or move the container", at)  # fmt: skip


def _init(root: Fd, config: Config) -> Iterator[Finding]:
    at = config.at("lxc.init.cmd")
    path = joins.init_command(config, Options("", "", "", [], {}))[0]
    try:
        found = program.look(root.number, path)
    except OSError as error:
        yield Finding(ERROR, "init", f'cannot look at init "{path}": {meaning(error)}', at=at)
        return
    if not found.trouble:
        by = f", by {found.runner} (binfmt_misc)" if found.runner else ""
        yield ok("init", f'"{path}" is a program for {found.machine or "binfmt_misc"}{by}')
        return
    what, why, cure = _trouble(found, path)
    fix, source = None, str(config.rootfs.path)
    if found.trouble == "mode":
        fix = Fix(f'chmod +x "{found.path}" inside the root filesystem', lambda: _executable(source, found.path))
    yield Finding(ERROR, "init", what, why, cure, at, fix)


def _trouble(found: program.Program, path: str) -> tuple[str, str, str]:
    """(what, why, cure)."""
    init = f'init "{path}"' if found.path == path else f'"{found.path}", which runs init "{path}",'
    machine = os.uname().machine
    return {
        "missing": (f"there is no {init} in the root filesystem", "there is nothing to run",
                    "create the container anew, or lxc.init.cmd = what its system starts with"),
        "directory": (f"{init} is {found.detail}", "there is nothing to run", "correct lxc.init.cmd"),
        "mode": (f"{init} is not executable (mode {found.detail})", "the kernel refuses to run it",
                 f"chmod +x {found.path} inside the root filesystem"),
        "interpreter": (f"{init} needs {found.detail}, which is not there", "the kernel finds no loader for it",
                        "install what brings it (libc of that architecture), or create the container anew"),
        "format": (f"{init} is {found.detail}", "the kernel does not know how to run it", "correct lxc.init.cmd"),
        "foreign": (f"{init} is a program for {found.machine}, this machine is {machine}",
                    "the kernel does not know how to run it",
                    f"apt install qemu-user-static binfmt-support, or create the container for {machine}"),
        "deep": (f"{init} is a script of scripts", "the kernel gives up", "correct lxc.init.cmd"),
    }[found.trouble]  # fmt: skip


def _executable(path: str, name: str) -> None:
    """chmod a+x beneath the root filesystem of type dir."""
    kind, source = storage.parse(path)
    directory = storage.backend(kind).directory(source)
    if directory is None:
        raise StorageError(f"the files of {path} are not to be changed from here", hint="lxcpy-start, then chmod")
    with (
        Fd(os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root,
        open_in_root(root.number, name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY) as file,
    ):
        mode = os.fstat(file.number).st_mode
        if stat.S_ISREG(mode):
            os.fchmod(file.number, stat.S_IMODE(mode) | 0o111)


def space(path: str, name: str) -> Iterator[Finding]:
    """Room on the filesystem of a path."""
    try:
        found = os.statvfs(path)
    except OSError:
        return  # missing: somebody else's finding
    free = found.f_bavail * found.f_frsize
    if free < LITTLE:
        level, cure = ERROR if free == 0 else WARNING, f"df -h {path}; lxcpy-cache prune frees the cache"
        yield Finding(level, "disk", f"{name} has {free >> 20} MiB left ({path})",
                      "programs fail to write, a boot may hang", cure)  # fmt: skip
    elif found.f_files and found.f_favail < FEW:
        yield Finding(WARNING, "disk", f"{name} has {found.f_favail} inodes left ({path})",
                      "no new file can be made", f"df -i {path}")  # fmt: skip
    else:
        yield ok("disk", f"{name} has {free >> 20} MiB left")


def mount_point() -> Iterator[Finding]:
    """The place where root filesystems are mounted."""
    if os.geteuid() == 0 and not os.path.isdir(paths.ROOTFS_MOUNT):
        parent = os.path.dirname(paths.ROOTFS_MOUNT)
        if os.path.exists(parent) and not os.access(parent, os.W_OK):
            yield Finding(ERROR, CHECK, f'there is no "{paths.ROOTFS_MOUNT}", and it cannot be made',
                          "root filesystems are mounted there", "lxc.rootfs.mount names another directory")  # fmt: skip
