"""criu(8): which one there is, what it is told, and what it says when it fails.

Its arguments are those of liblxc (criu.c), so that either can restore what the other has dumped.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from lxcpy.config.model import Config
from lxcpy.errors import ConfigError, StateError
from lxcpy.kernel import mount
from lxcpy.kernel.fd import Fd
from lxcpy.rootfs import fstab
from lxcpy.runtime import newns

OLDEST = (2, 0)
DUMPABLE = ("veth", "none", "empty", "phys", "macvlan")
TTY_INFO = "tty.info"  # in the directory: the console's terminal as criu names it
TOLD = 5  # lines of its log that an error repeats
INSTALL = "install the package criu; its version has to suit the kernel"


class Work(NamedTuple):
    """One call."""

    action: str  # dump, pre-dump, restore
    directory: str  # absolute
    verbose: bool = False
    script: str | None = None  # its --action-script

    @property
    def log(self) -> str:
        """Where it writes what it does."""
        return f"{self.directory}/{self.action}.log"


def version() -> tuple[int, ...]:
    """Of the criu in PATH. Raises StateError."""
    status, said = call(["criu", "--version"])
    found = re.search(r"^Version: (\d+)\.(\d+)", said, re.MULTILINE)
    if status or not found:
        raise StateError(f"criu does not tell its version: {_last(said) or f'exit status {status}'}", hint=INSTALL)
    numbers = (int(found[1]), int(found[2]))
    if numbers < OLDEST:
        raise StateError(f"must have criu 2.0 or greater to checkpoint/restore, not {numbers[0]}.{numbers[1]}")
    return numbers


def check_tracking() -> None:
    """Can the kernel tell which memory has changed since? Raises StateError."""
    if call(["criu", "check", "--feature", "mem_dirty_track"])[0]:
        raise StateError("this kernel cannot track changes of memory, which a pre-dump needs",
                         hint="it needs CONFIG_MEM_SOFT_DIRTY; dump without -p")  # fmt: skip


def check_network(config: Config) -> None:
    """Raises ConfigError for interfaces that criu cannot dump."""
    for nic in config.net:
        if nic.type not in DUMPABLE:
            at, hint = config.at(f"lxc.net.{nic.index}.type"), f"one of {', '.join(DUMPABLE)} can be"
            raise ConfigError(f"Found un-dumpable network: {nic.type} ({nic.name or ''})", at=at, hint=hint)


def arguments(work: Work, roots: Iterable[tuple[Sequence[str], str]], config: Config) -> list[str]:
    """What every call begins with. roots: (controllers, group below the mount) of each hierarchy."""
    argv = ["criu", work.action, "--tcp-established", "--file-locks", "--link-remap", "--manage-cgroups=full",
            "--ext-mount-map", "auto", "--enable-external-sharing", "--enable-external-masters",
            "--enable-fs", "hugetlbfs", "--enable-fs", "tracefs", "-D", work.directory, "-o", work.log]  # fmt: skip
    for controllers, group in roots:
        argv += ["--cgroup-root", f"{','.join(controllers)}:{group}" if controllers else group]
    if work.verbose:
        argv.append("-v4")
    if work.script:
        argv += ["--action-script", work.script]
    for entry in _binds(config):
        target = entry.target.strip("/")
        pair = f"{target}:{entry.source}" if work.action == "restore" else f"/{target}:{target}"
        argv += ["--ext-mount-map", pair]
    return argv


def _binds(config: Config) -> list[fstab.Entry]:
    """The bind mounts of lxc.mount.entry."""
    parsed = [fstab.parse(line) for line in config.mount.entry]
    return [entry for entry in parsed if entry and mount.parse_options(entry.options).flags & mount.MS_BIND]


def interfaces(config: Config, nics: Iterable[dict[str, Any]]) -> list[str]:
    """What a restore is told of the network. nics: of a network plan, which has given names to the host's ends."""
    ends = {nic["index"]: nic.get("host") for nic in nics}
    argv = []
    for number, nic in enumerate(config.net):
        name = nic.name or f"eth{number}"
        if nic.type == "veth":
            bridge = f"@{nic.link}" if nic.link else ""
            argv += ["--external", f"veth[{name}]:{ends[nic.index]}{bridge}"]
        elif nic.type == "macvlan":
            argv += ["--external", f"macvlan[{name}]:{nic.link}"]
        elif nic.type == "phys":
            argv += ["--external", f"netdev[{name}]:{nic.link}"]
    return argv


def run(argv: Sequence[str], work: Work, *, namespaces: Sequence[str] = (),
        inside: Callable[[], None] = lambda: None) -> None:  # fmt: skip
    """Run it; inside: done first, in its process, with new `namespaces`. Raises StateError with its own words."""
    status, said = call(argv, namespaces=namespaces, inside=inside)
    if not status:
        return
    how = f"was ended by signal {status - 128}" if status > 128 else f"failed with {status}"
    what = f"criu {work.action} {how}"
    reason = _last(said) or _last(_read(work.log))
    raise StateError(f"{what}: {reason}" if reason else what,
                     hint=f"its log is {work.log}; criu check tells whether it suits this kernel")  # fmt: skip


def call(argv: Sequence[str], *, namespaces: Sequence[str] = (),
         inside: Callable[[], None] = lambda: None) -> tuple[int, str]:  # fmt: skip
    """The exit status, 128+N for signal N, and what it said before its log was open. Raises StateError without criu."""
    with Fd(os.memfd_create("criu", os.MFD_CLOEXEC)) as words:

        def become() -> None:
            os.dup2(words.number, 1)
            os.dup2(words.number, 2)
            inside()

        try:
            status = newns.run(argv, namespaces, inside=become)
        except StateError as error:
            raise StateError(error.what, hint=error.hint or INSTALL) from None
        os.lseek(words.number, 0, os.SEEK_SET)
        return status, os.read(words.number, 1 << 16).decode(errors="replace")


def _read(path: str) -> str:
    try:
        with open(path, errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _last(text: str) -> str:
    """The last errors of a log, on a line of their own each."""
    found = [line.strip() for line in text.splitlines() if "Error (" in line]
    return "\n  | ".join(["", *found[-TOLD:]]) if found else ""


# core-1.img, the image of process 1 (criu: images/core.proto, include/magic.h): two magic numbers, then the length of a
# core_entry and the entry, a protobuf message: field 5 is the thread_core, whose field 8 is the signal it gets when its
# parent dies.
_THREAD_CORE, _PDEATH_SIG = 5, 8
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types


def without_death_signal(image: bytes) -> bytes | None:
    """core-1.img of a process that is not killed when its parent dies; None where it is none, or no such image.

    Real LXC's init dies with its monitor. Whoever restores it with us has criu for a parent, which ends at once.
    """
    size = int.from_bytes(image[8:12], "little")
    core = _field(image, 12, 12 + size, _THREAD_CORE)
    found = _field(image, *core, _PDEATH_SIG) if core else None
    if not found or found[1] - found[0] != 1 or not image[found[0]]:
        return None
    return image[: found[0]] + b"\0" + image[found[1] :]


def _field(data: bytes, start: int, end: int, wanted: int) -> tuple[int, int] | None:
    """Where the value of a field of a protobuf message stands; None where the message has none or is no message."""
    at = start
    while at < end <= len(data):
        tag, at = _number(data, at)
        length = {_FIXED64: 8, _FIXED32: 4}.get(tag & 7)
        if tag & 7 == _BYTES:
            length, at = _number(data, at)
        elif tag & 7 == _VARINT:
            length = _number(data, at)[1] - at
        if length is None:
            return None
        if tag >> 3 == wanted:
            return at, at + length
        at += length
    return None


def _number(data: bytes, at: int) -> tuple[int, int]:
    """A varint, and where the next thing begins."""
    value = shift = 0
    while at < len(data):
        value |= (data[at] & 0x7F) << shift
        shift, at = shift + 7, at + 1
        if not data[at - 1] & 0x80:
            break
    return value, at
