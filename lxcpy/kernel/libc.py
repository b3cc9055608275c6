"""The C library as typed functions: prototypes declared once, every failure an OSError that names the call.

`function` and `syscall` return a callable whose errors read `mount("tmpfs", "/run", "tmpfs", MS_NOSUID, NULL):
Operation not permitted`. Each parameter is (ctype, decoder); the decoder turns the value into the words of the message.
"""

from __future__ import annotations

import ctypes
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Decoder = Callable[[Any], str]
    Parameter = tuple[Any, Decoder]

LIBC = ctypes.CDLL(None, use_errno=True)

int_ = ctypes.c_int
uint = ctypes.c_uint
long = ctypes.c_long
ulong = ctypes.c_ulong
u64 = ctypes.c_uint64
u32 = ctypes.c_uint32
string = ctypes.c_char_p
pointer = ctypes.c_void_p


MACHINE = os.uname().machine

# System calls from 424 on have one number on every architecture but alpha; these are the older ones without a
# function in glibc. Source: asm/unistd_64.h, asm-generic/unistd.h.
_OLD = {
    "x86_64": {"bpf": 321, "keyctl": 250, "seccomp": 317, "memfd_create": 319, "clone": 56},
    "aarch64": {"bpf": 280, "keyctl": 219, "seccomp": 277, "memfd_create": 279, "clone": 220},
    "riscv64": {"bpf": 280, "keyctl": 219, "seccomp": 277, "memfd_create": 279, "clone": 220},
}
NUMBERS: dict[str, int] = {
    **_OLD.get(MACHINE, {}),
    "pidfd_send_signal": 424,
    "open_tree": 428,
    "move_mount": 429,
    "fsopen": 430,
    "fsconfig": 431,
    "fsmount": 432,
    "pidfd_open": 434,
    "clone3": 435,
    "close_range": 436,
    "openat2": 437,
    "pidfd_getfd": 438,
    "mount_setattr": 442,
}


def text(value: Any) -> str:
    """A C string in quotes; NULL for none."""
    if value is None:
        return "NULL"
    shown: str = os.fsdecode(value)
    return '"' + shown.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def number(value: Any) -> str:
    return str(value)


def directory(value: Any) -> str:
    return "AT_FDCWD" if value == AT_FDCWD else str(value)


def hidden(value: Any) -> str:
    """For pointers to structures: the address tells nobody anything."""
    return "NULL" if value is None else "..."


def flags(table: dict[str, int]) -> Decoder:
    """A decoder that spells a bit mask with the names of `table`; what is left over is shown as hex."""

    def decode(value: Any) -> str:
        rest, names = int(value), []
        for name, bits in table.items():
            if bits and rest & bits == bits:
                names.append(name)
                rest &= ~bits
        if rest or not names:
            names.append(hex(rest) if rest else "0")
        return "|".join(names)

    return decode


def choice(table: dict[str, int]) -> Decoder:
    """A decoder that spells one of the values of `table`."""

    def decode(value: Any) -> str:
        return next((name for name, known in table.items() if known == value), str(value))

    return decode


AT_FDCWD = -100


def encode(value: str | bytes | os.PathLike[str] | None) -> bytes | None:
    """A path or word as the bytes of a C string. Raises OSError(EINVAL) for a NUL inside, which C would cut at."""
    if value is None:
        return None
    data = os.fsencode(value)
    if b"\0" in data:
        raise OSError(22, f"{data!r}: NUL byte in a string for the kernel")
    return data


def failure(errno: int, call: str) -> OSError:
    """The OSError (of the right subclass) for a failed `call`."""
    return OSError(errno, f"{call}: {os.strerror(errno)}")


def _prepare(entry: Any, name: str, parameters: tuple[Parameter, ...], result: Any, skip: int) -> Callable[..., int]:
    decoders = tuple(decoder for _, decoder in parameters)

    def check(value: Any, _: Any, arguments: tuple[Any, ...]) -> Any:
        if value == -1:
            words = ", ".join(decode(argument) for decode, argument in zip(decoders, arguments[skip:], strict=True))
            raise failure(ctypes.get_errno(), f"{name}({words})")
        return value

    entry.restype = result
    entry.errcheck = check
    called: Callable[..., int] = entry
    return called


def function(name: str, *parameters: Parameter, result: Any = int_) -> Callable[..., int]:
    """A function of the C library that returns -1 and errno on failure."""
    entry = LIBC[name]  # indexing gives a function object of our own; an attribute would be shared
    entry.argtypes = [kind for kind, _ in parameters]
    return _prepare(entry, name, parameters, result, 0)


def syscall(name: str, *parameters: Parameter) -> Callable[..., int]:
    """A system call that glibc has no function for (or not in the versions we support).

    On a machine whose number is not known the call raises OSError(ENOSYS), as on a kernel without it.
    """
    if name not in NUMBERS:

        def missing(*_: Any) -> int:
            raise failure(38, f"{name} on {MACHINE}")

        return missing
    entry = LIBC["syscall"]
    entry.argtypes = [long, *(kind for kind, _ in parameters)]
    call = _prepare(entry, name, parameters, long, 1)
    nr = NUMBERS[name]

    def run(*arguments: Any) -> int:
        return call(nr, *arguments)

    return run
