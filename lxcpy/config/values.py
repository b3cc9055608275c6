"""Codecs: how the text after `=` becomes a value, and the canonical text that LXC prints for it.

A codec knows no key and no file: `parse` raises ValueError with a reason, and the caller adds the key, the line and the
grammar as hint. Law, checked by a property test: parse(format(v)) == v. A canonical number is
decimal.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any, NamedTuple

from lxcpy.config.numbers import UINT_MAX, number, unsigned

INT_MAX = 2**31 - 1
UNLIMITED = -1  # of an rlimit

CAPABILITIES = (
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
    "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
    "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice",
    "sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap",
    "mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf",
    "checkpoint_restore",
)  # fmt: skip
NAMESPACES = ("user", "mnt", "pid", "uts", "ipc", "net", "cgroup", "time")  # LXC's order
ARCHES_32 = (
    "arm", "armel", "armhf", "armv7l", "athlon", "i386", "i486", "i586", "i686", "linux32", "mips", "mipsel", "ppc",
    "powerpc", "x32", "x86",
)  # fmt: skip
ARCHES_64 = (
    "aarch64", "amd64", "arm64", "linux64", "loong64", "loongarch64", "mips64", "mips64el", "ppc64", "ppc64el",
    "ppc64le", "powerpc64", "riscv64", "s390x", "x86_64",
)  # fmt: skip
RLIMITS = (
    "as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice", "nofile", "nproc", "rss", "rtprio",
    "rttime", "sigpending", "stack",
)  # fmt: skip
LOG_LEVELS = ("TRACE", "DEBUG", "INFO", "NOTICE", "WARN", "ERROR", "CRIT", "ALERT", "FATAL")
FACILITIES = ("daemon", *(f"local{n}" for n in range(8)))


class Codec(NamedTuple):
    """One kind of value."""

    grammar: str  # one line: the hint of an error, and the man page's
    parse: Callable[[str], Any]
    format: Callable[[Any], str] = str


def _signed(text: str) -> int:
    value = number(text)
    if not -INT_MAX - 1 <= value <= INT_MAX:
        raise ValueError(f'"{text}" is more than {INT_MAX} or less than {-INT_MAX - 1}')
    return value


def _switch(text: str) -> bool:
    if text == "1" or text == "0":
        return text == "1"
    if unsigned(text) > 1:
        raise ValueError(f'"{text}" is neither 0 nor 1')
    return number(text) == 1


def _positive(text: str) -> int:
    value = _signed(text)
    if value <= 0:
        raise ValueError(f'"{text}" is not more than 0')
    return value


def simplify(path: str) -> str:
    """A path without doubled slashes, `.` parts and a slash at its end; `..` stays. LXC keeps paths in this form."""
    if not path:
        return path
    absolute = path[0] == "/"
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if not parts:
        return "/" if absolute else "."
    return ("/" if absolute else "") + "/".join(parts)


def octets(text: str) -> int:
    """The number of bytes of `text` in a file."""
    return len(text) if text.isascii() else len(os.fsencode(text))


def limited(maximum: int) -> Callable[[str], str]:
    """A parser of text of at most `maximum` bytes."""

    def parse(text: str) -> str:
        if len(text) * 4 > maximum and octets(text) > maximum:
            raise ValueError(f"{octets(text)} bytes are too long")
        return text

    return parse


def _path(text: str) -> str:
    path = simplify(text)
    if len(path) > 1000 and octets(path) > 4095:
        raise ValueError(f"a path of {octets(path)} bytes is too long")
    return path


def _cgroup_path(text: str) -> str:
    if text[0] == "/":
        raise ValueError(f'"{text}" is absolute')
    if ".." in text:
        raise ValueError(f'"{text}" contains ".."')
    return _path(text)


def _cgroup_name(text: str) -> str:
    if "/" in text or text in (".", ".."):
        raise ValueError(f'"{text}" is not a single name')
    return text


def _below(text: str) -> str:
    if ".." in text.split("/") or text[:1] == "/":
        raise ValueError(f'"{text}" leaves the directory')
    return text


def choice(*words: str) -> Codec:
    """One of some words, exactly."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f'"{text}" is unknown')
        return text

    return Codec("one of " + ", ".join(words), parse)


def _arch(text: str) -> str:
    if text not in ARCHES_32 and text not in ARCHES_64:
        raise ValueError(f'"{text}" is unknown')
    return text


def _show_arch(arch: str) -> str:
    return "i686" if arch in ARCHES_32 else "x86_64"


def words(check: Callable[[str], str] = lambda word: word) -> Callable[[str], list[str]]:
    """A parser of words divided by blanks."""

    def parse(text: str) -> list[str]:
        return [check(word) for word in text.replace("\t", " ").split(" ") if word]

    return parse


def _capability(word: str) -> str:
    if word in CAPABILITIES:
        return word
    try:
        known = unsigned(word) < 64
    except ValueError:
        known = False
    if not known:
        raise ValueError(f'"{word}" is not a capability')
    return word


def _kept(text: str) -> list[str]:
    """The words of lxc.cap.keep; `none` forgets what stands before it."""
    found: list[str] = []
    for word in text.replace("\t", " ").split(" "):
        if word == "none":
            found = ["none"]
        elif word:
            found.append(_capability(word))
    return found


def _namespace(word: str) -> str:
    if word not in NAMESPACES:
        raise ValueError(f'"{word}" is not a namespace')
    return word


def _gids(text: str) -> list[int]:
    found = [unsigned(word) for word in text.split(",") if word]
    if not found:
        raise ValueError(f'"{text}" names no group')
    return found


_SIGNALS = {item.name[3:]: int(item) for item in signal.Signals if not item.name.startswith("SIGRT")}
_SIGNALS.update({"CLD": 17, "IOT": 6, "POLL": 29, "IO": 29, "STKFLT": 16})


def signal_number(text: str) -> int:
    """A signal's number from SIGNAME, SIGRTMIN+N, SIGRTMAX-N (any case) or a number. Raises ValueError."""
    if text[:1].isdigit():
        return unsigned(text, signal.SIGRTMAX)
    name = text.upper()
    if name.startswith("SIGRT"):
        number_text = name[9:]
        if name[5:9] in ("MIN+", "MAX-") and number_text[:1].isdigit():
            offset = unsigned(number_text)
            if offset <= signal.SIGRTMAX - signal.SIGRTMIN:
                return signal.SIGRTMIN + offset if name[5:9] == "MIN+" else signal.SIGRTMAX - offset
    elif name.startswith("SIG") and name[3:] in _SIGNALS:
        return _SIGNALS[name[3:]]
    raise ValueError(f'"{text}" is not a signal')


def log_level(text: str) -> int:
    """A log level's number from its name in any case or its number. Raises ValueError."""
    if text.upper() in LOG_LEVELS:
        return LOG_LEVELS.index(text.upper())
    if text[:1].isdigit():
        return unsigned(text, len(LOG_LEVELS) - 1)
    raise ValueError(f'"{text}" is not a log level')


def _facility(text: str) -> str:
    if text.lower() not in FACILITIES:
        raise ValueError(f'"{text}" is not a facility')
    return text


_FACTORS = {"": 1, "B": 1, "K": 1 << 10, "KB": 1 << 10, "M": 1 << 20, "MB": 1 << 20, "G": 1 << 30, "GB": 1 << 30}
_PAGE = os.sysconf("SC_PAGESIZE")


def _ring(text: str) -> int:
    """A size that LXC rounds up to a power of two and to a page."""
    if text == "auto":
        return 1 << 17
    digits = text.rstrip("KMGBkmgb")
    unit = text[len(digits) :].upper()
    if unit not in _FACTORS:
        raise ValueError(f'"{text}" is not a size')
    size = unsigned(digits.rstrip(" \t"), 1 << 62) * _FACTORS[unit]
    if size > 1 << 62:
        raise ValueError(f'"{text}" is too large')
    return max(_PAGE, 1 << max(size - 1, 0).bit_length())


def _id_map(text: str) -> tuple[str, int, int, int]:
    fields = text.split()
    if len(fields) != 4 or fields[0] not in ("u", "g"):
        raise ValueError(f'"{text}" is not an id mapping')
    nsid, hostid, count = (unsigned(field) for field in fields[1:])
    if not count:
        raise ValueError(f'"{text}" maps no id')
    if nsid + count > UINT_MAX + 1 or hostid + count > UINT_MAX + 1:
        raise ValueError(f'"{text}" goes beyond the last id')
    return fields[0], nsid, hostid, count


def _one_limit(text: str) -> int:
    word = text.strip(" \t\n\v\f\r")
    if word in ("unlimited", "-1"):
        return UNLIMITED
    if not word.isdigit() or not word.isascii() or len(word) > 40 or int(word) >= 1 << 64:
        raise ValueError(f'"{text}" is not a limit')
    return UNLIMITED if int(word) == (1 << 64) - 1 else int(word)


def _limits(text: str) -> tuple[int, int]:
    soft, colon, hard = text.partition(":")
    first = _one_limit(soft)
    return first, _one_limit(hard) if colon and hard.strip() else first


def _show_limits(limits: tuple[int, int]) -> str:
    soft, hard = ("unlimited" if value == UNLIMITED else str(value) for value in limits)
    return soft if soft == hard else f"{soft}:{hard}"


_UNITS = {"h": (0, 3600), "m": (0, 60), "s": (0, 1), "ms": (1, 1_000_000), "us": (1, 1000), "ns": (1, 1)}


def _offset(text: str) -> tuple[int | None, int | None]:
    """Seconds, or nanoseconds: the other part is None and stays as it was."""
    body = text.strip(" \t")
    digits = body.rstrip("hmsun \t")
    part, factor = _UNITS.get(body[len(digits) :].strip(" \t"), (-1, 1))
    plain = digits[1:] if digits[:1] in ("+", "-") else digits
    if part < 0 or not plain.isdigit() or not plain.isascii() or len(plain) > 40:
        raise ValueError(f'"{text}" is not a time')
    value = int(digits) * factor
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f'"{text}" is too large')
    return (value, None) if part == 0 else (None, value)


def _show_offset(offset: tuple[int | None, int | None]) -> str:
    seconds, parts = offset
    return f"{seconds}s" if seconds else f"{parts or 0}ns"


def _environment(text: str) -> str:
    if text[0] == "=":
        raise ValueError(f'"{text}" has no name')
    return text


def _show_environment(text: str) -> str:
    return text if "=" in text else f"{text}={os.environ.get(text, '')}"


def _proxy(text: str) -> str:
    address = text[5:]
    if not text.startswith("unix:") or address[:1] not in ("/", "@") or len(address) < 2 or octets(address) > 107:
        raise ValueError(f'"{text}" is not a socket')
    return text


_ROOTFS_FORBIDDEN = ("create=dir", "create=file", "optional", "relative")


def _rootfs_options(text: str) -> str:
    for word in text.split(","):
        if word in _ROOTFS_FORBIDDEN:
            raise ValueError(f'"{word}" has no meaning for the root filesystem')
        if word == "idmap=":
            raise ValueError('"idmap=" names no user namespace')
    return text


AUTO_MOUNTS = frozenset(
    ["proc", "proc:mixed", "proc:rw", "sys", "sys:ro", "sys:mixed", "sys:rw"]
    + ["cgroup2", "cgroup2:ro", "cgroup2:force", "cgroup2:ro:force"]
    + [
        f"{kind}{mode}{force}"
        for kind in ("cgroup", "cgroup-full")
        for mode in ("", ":mixed", ":ro", ":rw")
        for force in ("", ":force")
    ]
)


def _auto_mount(word: str) -> str:
    if word.startswith("shmounts:"):
        if word in ("shmounts:", "shmounts::"):
            raise ValueError(f'"{word}" names no directory of the host')
        return word
    if word not in AUTO_MOUNTS:
        raise ValueError(f'"{word}" is unknown')
    return {"proc": "proc:mixed", "sys": "sys:mixed"}.get(word, word)


def source_of(path: str) -> str:
    """The part of lxc.rootfs.path after `TYPE:`, simplified: what LXC prints for the key."""
    kind, colon, source = path.partition(":")
    return simplify(source if colon else kind)


TEXT = Codec("any text", str)
PATH = Codec("a path", _path)
HOST_NAME = Codec("a name of at most 64 bytes", limited(64))
FILE_NAME = Codec("a path of at most 255 bytes, relative to /dev", limited(255))
UINT = Codec(f"a number from 0 to {UINT_MAX}", unsigned)
INT = Codec("a number", _signed)
POSITIVE = Codec("a number above 0", _positive)
SWITCH = Codec("0 or 1", _switch, lambda value: "1" if value else "0")
INVERSE = Codec("0 or 1", lambda text: not _switch(text), lambda value: "0" if value else "1")
VERSION = Codec("0 or 1", lambda text: int(_switch(text)))
ARCH = Codec("one of " + ", ".join(sorted(ARCHES_32 + ARCHES_64)), _arch, _show_arch)
CGROUP_PATH = Codec('a relative path without ".."', _cgroup_path)
CGROUP_NAME = Codec("the name of one directory", _cgroup_name)
WORDS = Codec("words divided by blanks", words())
CAPS = Codec("capabilities in lower case without CAP_, such as sys_module", words(_capability))
KEPT_CAPS = Codec("capabilities in lower case without CAP_, or none", _kept)
NAMESPACE_NAMES = Codec("some of " + " ".join(NAMESPACES), words(_namespace))
GIDS = Codec("numbers divided by commas", _gids)
SIGNAL = Codec("SIGNAME, SIGRTMIN+N, SIGRTMAX-N or a number", signal_number)
LOG_LEVEL = Codec("TRACE, DEBUG, INFO, NOTICE, WARN, ERROR, CRIT, ALERT, FATAL or 0 to 8", log_level,
                  lambda level: LOG_LEVELS[level])  # fmt: skip
FACILITY = Codec("one of " + ", ".join(FACILITIES), _facility)
RING_SIZE = Codec("auto, or bytes with KB, MB or GB, such as 64KB; rounded up to a power of two", _ring)
ID_MAP = Codec("u|g FIRST_INSIDE FIRST_OUTSIDE COUNT, such as u 0 100000 65536", _id_map,
               lambda value: " ".join(map(str, value)))  # fmt: skip
LIMITS = Codec("SOFT[:HARD], numbers or unlimited", _limits, _show_limits)
TIME_OFFSET = Codec("a number with h, m, s, ms, us or ns, such as -3h", _offset, _show_offset)
ENVIRONMENT = Codec("NAME=VALUE, or NAME to take over the caller's value", _environment, _show_environment)
PROXY = Codec("unix:/PATH or unix:@NAME", _proxy)
ROOTFS_OPTIONS = Codec("mount options divided by commas", _rootfs_options)
ROOTFS_PATH = Codec("[TYPE:]SOURCE, such as dir:/srv/web or /srv/web", limited(4095), source_of)
FSTAB_LINE = Codec("SOURCE TARGET TYPE OPTIONS [0 0], the target relative to the root", str)
AUTO_MOUNT = Codec("some of proc[:mixed|rw] sys[:mixed|ro|rw] cgroup[:mixed|ro|rw][:force] cgroup-full[…] "
                   "cgroup2[:ro][:force] shmounts:HOSTDIR[:DIR]", words(_auto_mount))  # fmt: skip
EMPTY = Codec("nothing", str)
BELOW = Codec("a relative path without \"..\"", _below)
