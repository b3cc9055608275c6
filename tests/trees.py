"""Trees that hold everything a tree can hold, and pictures of them that can be compared."""

from __future__ import annotations

import hashlib
import os
import random
import socket
import stat
import struct
from pathlib import Path

from lxcpy.storage import attributes

CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)  # cap_net_raw=ep
ACL = struct.pack("<I", 2) + b"".join(
    struct.pack("<HHI", *entry)
    for entry in ((1, 7, 0xFFFFFFFF), (2, 5, 1000), (4, 5, 0xFFFFFFFF), (8, 4, 1001), (16, 7, 0xFFFFFFFF),
                  (32, 5, 0xFFFFFFFF))
)  # fmt: skip


def make_tree(root: Path) -> None:
    """Every kind of file, odd names, odd modes, links of both sorts, holes, attributes."""
    root.mkdir()
    (root / "empty").touch()
    (root / "plain").write_bytes(b"text")
    (root / "big").write_bytes(random.Random(1).randbytes(300_000))
    (root / "ends exactly").write_bytes(bytes(64 << 10))
    (root / "sub/deep/er").mkdir(parents=True)
    (root / "sub/deep/er/file").write_text("x")
    (root / os.fsdecode(b"latin\xe9")).write_text("name that is no UTF-8")
    (root / "suid").write_text("#!")
    os.chown(root / "suid", 1000, 1001)
    os.chmod(root / "suid", 0o6755)
    (root / "capable").write_text("")
    os.setxattr(root / "capable", attributes.CAPABILITY, CAPABILITY)
    (root / "user").write_text("")
    os.setxattr(root / "user", "user.note", b"\0\xff")
    (root / "acl").mkdir()
    os.setxattr(root / "acl", attributes.ACCESS, ACL)
    os.setxattr(root / "acl", attributes.DEFAULT, ACL)
    (root / "acl/below").write_text("inherits")
    os.removexattr(root / "acl/below", attributes.ACCESS)
    (root / "sticky").mkdir()
    os.chmod(root / "sticky", 0o1777)
    (root / "setgid").mkdir()
    os.chown(root / "setgid", 0, 50)
    os.chmod(root / "setgid", 0o2755)
    (root / "setgid/file").touch()
    os.chown(root / "setgid/file", 0, 0)
    (root / "closed").mkdir(mode=0)
    (root / "closed/inside").touch(mode=0)
    os.symlink("/etc/passwd", root / "absolute")
    os.symlink("nowhere", root / "dangling")
    os.chown(root / "dangling", 7, 8, follow_symlinks=False)
    os.link(root / "plain", root / "sub/same")
    os.link(root / "plain", root / "zz")
    os.link(root / "dangling", root / "sub/dangling too", follow_symlinks=False)
    os.mkfifo(root / "fifo", 0o640)
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "loop", stat.S_IFBLK | 0o660, os.makedev(7, 0))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))
    with open(root / "holes", "wb") as file:
        file.seek(1 << 20)
        file.write(b"middle")
        file.truncate(3 << 20)
    with open(root / "all hole", "wb") as file:
        file.truncate(1 << 20)
    for folder, names, files in os.walk(root, topdown=False):
        for at, name in enumerate([*files, *names]):
            path = os.path.join(folder, name)
            os.utime(path, ns=(1_500_000_000_123_456_789 + at, 1_400_000_000_987_654_321 + at), follow_symlinks=False)
    os.chmod(root, 0o711)
    os.utime(root, ns=(0, 1_300_000_000_000_000_001))


def picture(root: str) -> dict[str, tuple[object, ...]]:
    """Path → all that counts of each file: type and mode, owner, device, content or link, attributes, other names.

    A large file's content stands as its digest. The time of a file counts, that of a directory does not; whether a file
    has holes does.
    """
    found: dict[str, tuple[object, ...]] = {}
    names: dict[tuple[int, int], str] = {}
    for folder, folders, files in os.walk(root):
        for entry in sorted(folders + files):
            path = os.path.join(folder, entry)
            found[os.path.relpath(path, root)] = _file(path, names, root)
    return found


def _file(path: str, names: dict[tuple[int, int], str], root: str) -> tuple[object, ...]:
    status = os.lstat(path)
    content: object = None
    if stat.S_ISREG(status.st_mode):
        with open(path, "rb") as file:
            data = file.read()
        # a whole system's files are some hundred megabytes, whose tables each later fork would copy
        content = (data if len(data) < 4096 else hashlib.sha256(data).digest(), status.st_blocks * 512 < status.st_size)
    elif stat.S_ISLNK(status.st_mode):
        content = os.readlink(path)
    same = None
    if not stat.S_ISDIR(status.st_mode):
        same = names.setdefault((status.st_dev, status.st_ino), os.path.relpath(path, root))
    values = {
        name: os.getxattr(path, name, follow_symlinks=False) for name in os.listxattr(path, follow_symlinks=False)
    }
    return (oct(status.st_mode), status.st_uid, status.st_gid, status.st_rdev, content, same, values)
