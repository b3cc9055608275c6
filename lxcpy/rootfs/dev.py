"""A /dev of the container's own: the filesystem, nodes, links, the devpts, the boot id (runtime.md, section D)."""

from __future__ import annotations

import os
import stat
from typing import NamedTuple

from lxcpy.config.model import Config
from lxcpy.errors import Origin
from lxcpy.kernel import mount
from lxcpy.kernel.fd import Fd, make_file_in_root, open_in_root, unlink_in_root
from lxcpy.rootfs.context import DIRECTORY, Context
from lxcpy.rootfs.ops import CLONE, Mount, Operation

DEVICES = (
    ("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0),
)  # fmt: skip
LINKS = (
    ("fd", "/proc/self/fd"), ("stdin", "/proc/self/fd/0"), ("stdout", "/proc/self/fd/1"), ("stderr", "/proc/self/fd/2"),
)  # fmt: skip
TTY_GROUP = 5


def bind(source: int, name: str, dev: int, place: str, *, make: bool = True) -> None:
    """Show the file `name` of the directory `source`, which is trusted, on `place` below `dev`. Raises OSError."""
    with mount.open_tree(source, name, mount.OPEN_TREE_CLONE) as tree, mount_point(dev, place, make=make) as target:
        mount.move_mount(tree.number, target.number)


def mount_point(dev: int, name: str, *, make: bool = True) -> Fd:
    """The file `name` of the directory `dev` as an O_PATH descriptor, made if it is missing. Raises OSError."""
    if not make:
        return open_in_root(dev, name, os.O_PATH)
    if "/" not in name:
        # the common case, without a lookup that fails first
        try:
            os.mknod(name, stat.S_IFREG, dir_fd=dev)
        except FileExistsError:
            pass
        place = Fd(os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dev))
        if not stat.S_ISLNK(os.fstat(place.number).st_mode):
            return place
        place.close()
    return make_file_in_root(dev, name, 0o000)


class Node(NamedTuple):
    """A character device of /dev, mode 0666: made, or the host's shown where the kernel forbids to make or use it."""

    name: str
    major: int
    minor: int
    origin: Origin | None = None
    optional: bool = False

    def __str__(self) -> str:
        return f"device node dev/{self.name} (c {self.major}:{self.minor})"

    def apply(self, context: Context) -> None:
        dev = context.dev_fd()
        if context.mknod and self._make_node(context, dev):
            return
        bind(context.host_dev.number, self.name, dev, self.name)

    def _make_node(self, context: Context, dev: int) -> bool:
        try:
            os.mknod(self.name, stat.S_IFCHR | 0o666, os.makedev(self.major, self.minor), dir_fd=dev)
        except FileExistsError:
            return True  # a mount entry or a hook was first
        except PermissionError:  # the devices cgroup
            context.mknod = False
            return False
        if self.name == "null":
            # a filesystem without devices, or a cgroup that allows mknod alone, lets us make what nobody can open
            try:
                os.close(os.open(self.name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=dev))
            except PermissionError:
                context.mknod = False
                return False
        return True


class Link(NamedTuple):
    """A symbolic link in /dev; left alone where something of that name is there."""

    name: str
    target: str
    origin: Origin | None = None
    optional: bool = False

    def __str__(self) -> str:
        return f"link dev/{self.name} to {self.target}"

    def apply(self, context: Context) -> None:
        if not context.own_dev:
            return  # the host's own
        try:
            os.symlink(self.target, self.name, dir_fd=context.dev_fd())
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno != 30:  # EROFS: a read-only /dev of the rootfs's own is its maker's business
                raise


class Devpts(NamedTuple):
    """A devpts of the container's own on dev/pts, and dev/ptmx as a bind of its multiplexer.

    gid: the group of new terminals; None where group 5 is not mapped. ptmx: False if only ttys are wanted (pty.max 0).
    """

    maximum: int
    gid: int | None = TTY_GROUP
    ptmx: bool = True
    origin: Origin | None = None
    optional: bool = False

    @property
    def data(self) -> str:
        gid = f"gid={self.gid}," if self.gid is not None else ""
        return f"newinstance,ptmxmode=0666,mode=0620,{gid}max={self.maximum}"

    def __str__(self) -> str:
        return f"mount devpts on dev/pts (nosuid,noexec,{self.data})" + (", bind it on dev/ptmx" if self.ptmx else "")

    def apply(self, context: Context) -> None:
        dev = context.dev_fd()
        if context.own_dev:
            try:
                os.mkdir("pts", 0o755, dir_fd=dev)
            except FileExistsError:
                pass
        with open_in_root(dev, "pts", DIRECTORY) as place:
            mount.mount("devpts", place.path, "devpts", mount.MS_NOSUID | mount.MS_NOEXEC, self.data)
        context.devpts = open_in_root(dev, "pts", DIRECTORY)
        if self.ptmx:
            self._bind_ptmx(context, dev)

    def _bind_ptmx(self, context: Context, dev: int) -> None:
        assert context.devpts is not None
        if context.own_dev:
            # a node or a link to pts/ptmx of the rootfs's own gives way to the mount point
            try:
                unlink_in_root(dev, "ptmx")
            except FileNotFoundError:
                pass
        bind(context.devpts.number, "ptmx", dev, "ptmx", make=context.own_dev)


class BootId(NamedTuple):
    """A boot id of the container's own, drawn at random, over the host's in /proc/sys (D8)."""

    origin: Origin | None = None
    optional: bool = True

    def __str__(self) -> str:
        return "bind dev/.lxc-boot-id on proc/sys/kernel/random/boot_id (ro,nosuid,nodev,noexec)"

    def apply(self, context: Context) -> None:
        with open_in_root(context.root_fd, "proc/sys/kernel/random/boot_id", os.O_PATH) as place:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
            file = os.open(".lxc-boot-id", flags, 0o444, dir_fd=context.dev_fd())
            try:
                os.write(file, random_uuid().encode() + b"\n")
            finally:
                os.close(file)
            with mount.open_tree(context.dev_fd(), ".lxc-boot-id", CLONE & ~mount.AT_EMPTY_PATH) as tree:
                attributes = mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV
                mount.mount_setattr(
                    tree.number, "", mount.AT_EMPTY_PATH, attr_set=attributes | mount.MOUNT_ATTR_NOEXEC
                )
                mount.move_mount(tree.number, place.number)


def random_uuid() -> str:
    """A version 4 UUID as the kernel prints them."""
    octets = bytearray(os.urandom(16))
    octets[6] = octets[6] & 0x0F | 0x40
    octets[8] = octets[8] & 0x3F | 0x80
    text = octets.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def filesystem(config: Config) -> list[Operation]:
    """The tmpfs on /dev (D1); nothing without lxc.autodev."""
    if not config.autodev.enabled:
        return []
    data = f"mode=755,size={config.autodev.tmpfs_size or 500000}"
    origin = config.at("lxc.autodev")
    return [Mount("none", "dev", "tmpfs", data=data, create="own", origin=origin)]


def maps_group(config: Config, group: int) -> bool:
    """Whether a group of the container exists on the host: always without lxc.idmap."""
    ranges = [entry for entry in config.idmap if entry.kind == "g"]
    return not config.idmap or any(entry.nsid <= group < entry.nsid + entry.count for entry in ranges)


def devices(config: Config) -> list[Operation]:
    """Nodes, devpts and links, in the order in which LXC makes them (D2-D4)."""
    operations: list[Operation] = []
    if config.autodev.enabled:
        operations.extend(Node(*device) for device in DEVICES)
    maximum = config.pty.max + config.tty.max
    if maximum > 0:
        gid = TTY_GROUP if maps_group(config, TTY_GROUP) else None
        origin = config.at("lxc.pty.max") or config.at("lxc.tty.max")
        operations.append(Devpts(maximum, gid, config.pty.max > 0, origin=origin))
    operations.extend(Link(*link) for link in LINKS)
    return operations
