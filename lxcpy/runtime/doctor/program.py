"""Whether the kernel can run a program that stands in a root filesystem: its kind, its machine, its loader.

Every path is opened beneath the root filesystem's descriptor: its files are the container's.
"""

from __future__ import annotations

import os
import stat
from struct import unpack_from
from typing import NamedTuple

from lxcpy.kernel import elf
from lxcpy.kernel.fd import Fd, open_in_root

_HEAD = 4096  # bytes that are looked at; the kernel reads 256 of a script's first line
_DEPTH = 4  # scripts whose interpreter is a script (the kernel allows five)
# e_machine of elf.h, and which of them a kernel runs by itself (uname's machine)
MACHINES = {3: "i386", 8: "mips", 20: "ppc", 21: "ppc64", 22: "s390x", 40: "arm", 62: "x86_64", 183: "aarch64",
            243: "riscv", 258: "loongarch"}  # fmt: skip
NATIVE = {
    "x86_64": (62, 3), "i686": (3,), "i586": (3,), "i386": (3,), "aarch64": (183, 40), "armv7l": (40,), "armv8l": (40,),
    "armv6l": (40,), "ppc64le": (21,), "ppc64": (21, 20), "s390x": (22,), "riscv64": (243,), "loongarch64": (258,),
    "mips64": (8,), "mips": (8,),
}  # fmt: skip
BINFMT = "/proc/sys/fs/binfmt_misc"


class Program(NamedTuple):
    """What was found at a path.

    path:    as asked for, or the interpreter of the script before it.
    trouble: "", missing, directory, mode (not executable), interpreter (the one it names is missing), format, foreign,
             deep (scripts of scripts).
    machine: the ELF machine's name. detail: what the trouble is about.
    runner:  the program by which binfmt_misc runs a foreign one.
    """

    path: str
    trouble: str = ""
    machine: str = ""
    detail: str = ""
    runner: str = ""


def look(root: int, path: str, *, machine: str = "", binfmt: str = BINFMT, depth: int = 0) -> Program:
    """Look at the program that `path` is inside `root`. machine: uname's; by default this one's. Raises OSError."""
    try:
        with open_in_root(root, path, os.O_PATH) as place:
            mode = os.fstat(place.number).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return Program(path, "missing")
    if not stat.S_ISREG(mode):
        return Program(path, "directory", detail="a directory" if stat.S_ISDIR(mode) else "no regular file")
    if not mode & 0o111:
        return Program(path, "mode", detail=f"{stat.S_IMODE(mode):04o}")
    with open_in_root(root, path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY) as file:
        head = os.pread(file.number, _HEAD, 0)
        if head[:2] == b"#!":
            return _script(root, path, head, machine=machine, binfmt=binfmt, depth=depth)
        return _elf(root, path, file, head, machine or os.uname().machine, binfmt)


def _script(root: int, path: str, head: bytes, *, machine: str, binfmt: str, depth: int) -> Program:
    words = head[2:].split(b"\n", 1)[0].split()
    if not words:
        return Program(path, "format", detail="a script that names no interpreter")
    if depth >= _DEPTH:
        return Program(path, "deep")
    interpreter = os.fsdecode(words[0])
    found = look(root, interpreter, machine=machine, binfmt=binfmt, depth=depth + 1)
    if found.trouble == "missing":
        return Program(path, "interpreter", detail=interpreter)
    return found


def _elf(root: int, path: str, file: Fd, head: bytes, machine: str, binfmt: str) -> Program:
    if head[:4] != elf.MAGIC or len(head) < 52:
        runner = _runner(head, path, binfmt)
        return Program(path, "" if runner else "format", detail="neither ELF nor a script", runner=runner)
    order = ">" if head[5] == 2 else "<"
    number = unpack_from(f"{order}H", head, 18)[0]
    name = MACHINES.get(number, f"machine {number}")
    native = number in NATIVE.get(machine, (number,)) and (order == "<") == _little(machine)
    runner = "" if native else _runner(head, path, binfmt)
    if not native and not runner:
        return Program(path, "foreign", name)
    loader = elf.interpreter(file.number)
    if loader and not _exists(root, loader):
        return Program(path, "interpreter", name, loader, runner)
    return Program(path, machine=name, runner=runner)


def _little(machine: str) -> bool:
    return machine not in ("ppc64", "s390x", "mips64", "mips")


def _exists(root: int, path: str) -> bool:
    try:
        open_in_root(root, path, os.O_PATH).close()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _runner(head: bytes, path: str, binfmt: str) -> str:
    """The program by which binfmt_misc runs a file that begins so; "" for none."""
    try:
        names = [name for name in os.listdir(binfmt) if name not in ("register", "status")]
        with open(f"{binfmt}/status") as file:
            if file.read().strip() != "enabled":
                return ""
    except OSError:
        return ""
    for name in names:
        rule = _rule(f"{binfmt}/{name}")
        if rule.get("enabled") is None or "interpreter" not in rule:
            continue
        if "extension" in rule:
            fits = path.endswith(rule["extension"])
        else:
            magic = bytes.fromhex(rule.get("magic", ""))
            mask = bytes.fromhex(rule.get("mask", "")) or b"\xff" * len(magic)
            part = head[int(rule.get("offset", "0")) :][: len(magic)]
            fits = bool(magic) and len(part) == len(magic) and all(
                (a ^ b) & c == 0 for a, b, c in zip(part, magic, mask, strict=False)
            )
        if fits:
            return rule["interpreter"]
    return ""


def _rule(path: str) -> dict[str, str]:
    """A file of binfmt_misc as its lines' first words and the rest."""
    try:
        with open(path) as file:
            words = (line.strip().partition(" ") for line in file)
            return {word.rstrip(":"): rest for word, _, rest in words}
    except OSError:
        return {}
