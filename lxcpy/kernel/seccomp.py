"""System call filters: libseccomp builds the program, seccomp(2) installs it.

The library is loaded by the first Filter, so that importing this module costs nothing where no filter is wanted. A
filter is built before the fork; after it `install` needs the bytes of its program and nothing else.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct

from lxcpy.kernel import libc
from lxcpy.kernel.fd import Fd
from lxcpy.kernel.record import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

ACT_KILL = 0x00000000
ACT_TRAP = 0x00030000
ACT_ERRNO = 0x00050000  # | errno
ACT_NOTIFY = 0x7FC00000
ACT_ALLOW = 0x7FFF0000

CMP_NE, CMP_LT, CMP_LE, CMP_EQ, CMP_GE, CMP_GT, CMP_MASKED_EQ = range(1, 8)

ATTR_CTL_NNP = 3  # set no_new_privs on load
ATTR_API_TSKIP = 5  # rules for system call -1 are allowed

FILTER_FLAG_NEW_LISTENER = 1 << 3
_SET_MODE_FILTER, _GET_NOTIF_SIZES = 1, 3
_UNKNOWN_CALL = -1  # __NR_SCMP_ERROR


_seccomp = libc.syscall(
    "seccomp",
    (libc.uint, libc.choice({"SECCOMP_SET_MODE_FILTER": 1, "SECCOMP_GET_NOTIF_SIZES": 3})),
    (libc.uint, libc.flags({"SECCOMP_FILTER_FLAG_NEW_LISTENER": FILTER_FLAG_NEW_LISTENER})),
    (libc.pointer, libc.hidden),
)


class Comparison(NamedTuple):
    """One condition on an argument: `argument` (0 to 5) `op` `value`; for CMP_MASKED_EQ: argument & mask == value."""

    argument: int
    op: int
    value: int
    mask: int = 0


class _Argument(ctypes.Structure):
    _fields_ = [("arg", libc.uint), ("op", libc.int_), ("first", libc.u64), ("second", libc.u64)]


class _Library:
    """libseccomp's functions, declared once, on first use."""

    def __init__(self) -> None:
        try:
            self.dll = ctypes.CDLL("libseccomp.so.2")
        except OSError:
            raise OSError(38, "libseccomp.so.2 is not installed") from None
        context, name = libc.pointer, libc.string
        self.init = self._declare("seccomp_init", libc.u32, result=libc.pointer)
        self.release = self._declare("seccomp_release", context, result=None)
        self.attr_set = self._declare("seccomp_attr_set", context, libc.int_, libc.u32)
        self.arch_native = self._declare("seccomp_arch_native", result=libc.u32)
        self.arch_resolve_name = self._declare("seccomp_arch_resolve_name", name, result=libc.u32)
        self.arch_add = self._declare("seccomp_arch_add", context, libc.u32)
        self.arch_remove = self._declare("seccomp_arch_remove", context, libc.u32)
        self.resolve_name = self._declare("seccomp_syscall_resolve_name", name)
        self.resolve_name_arch = self._declare("seccomp_syscall_resolve_name_arch", libc.u32, name)
        self.rule_add_exact = self._declare(
            "seccomp_rule_add_exact_array", context, libc.u32, libc.int_, libc.uint, libc.pointer
        )
        self.merge = self._declare("seccomp_merge", context, context)
        self.export_bpf = self._declare("seccomp_export_bpf", context, libc.int_)
        self.export_pfc = self._declare("seccomp_export_pfc", context, libc.int_)

    def _declare(self, name: str, *kinds: Any, result: Any = libc.int_) -> Callable[..., Any]:
        entry = self.dll[name]
        entry.argtypes, entry.restype = list(kinds), result
        called: Callable[..., Any] = entry
        return called


_loaded: _Library | None = None


def library() -> _Library:
    """libseccomp, loaded once. Raises OSError(ENOSYS) where it is not installed."""
    global _loaded
    if _loaded is None:
        _loaded = _Library()
    return _loaded


def available() -> bool:
    """Whether libseccomp is installed."""
    try:
        library()
    except OSError:
        return False
    return True


def _checked(result: int, call: str) -> None:
    if result < 0:
        raise libc.failure(-result, call)


def resolve(name: str, arch: str | None = None) -> int | None:
    """The number of a system call on `arch` (None: this machine); negative where that architecture lacks it.

    None for a name that no architecture has. Raises OSError.
    """
    word = libc.encode(name)
    if arch is None:
        number: int = library().resolve_name(word)
    else:
        number = library().resolve_name_arch(_token(arch), word)
    return None if number == _UNKNOWN_CALL else number


def _token(arch: str) -> int:
    token: int = library().arch_resolve_name(libc.encode(arch))
    if not token:
        raise OSError(22, f'libseccomp does not know the architecture "{arch}"')
    return token


class Filter:
    """A filter being built. `arch`: libseccomp's name of the one architecture it is for; None: this machine's.

    Every method raises OSError.
    """

    def __init__(self, default_action: int, arch: str | None = None) -> None:
        self._context: int | None = None
        self._lib = library()
        self._context = self._lib.init(default_action)
        if not self._context:
            raise libc.failure(12, f"seccomp_init({default_action:#x})")
        # The filter must not set no_new_privs: setuid programs of the container would lose their use.
        self.set_attribute(ATTR_CTL_NNP, 0)
        self.set_attribute(ATTR_API_TSKIP, 1)
        if arch is not None:
            self.add_arch(arch)
            if _token(arch) != self._lib.arch_native():
                _checked(self._lib.arch_remove(self._context, 0), "seccomp_arch_remove(native)")

    def __del__(self) -> None:
        if self._context:
            self._lib.release(self._context)

    def set_attribute(self, attribute: int, value: int) -> None:
        _checked(self._lib.attr_set(self._context, attribute, value), f"seccomp_attr_set({attribute}, {value})")

    def add_arch(self, arch: str) -> None:
        """Filter the calls of this architecture too; nothing happens if it is there already."""
        result = self._lib.arch_add(self._context, _token(arch))
        if result != -17:  # EEXIST
            _checked(result, f'seccomp_arch_add("{arch}")')

    def add_rule(self, call: str | int, action: int, arguments: Sequence[Comparison] = ()) -> None:
        """`action` for a system call (name, or this machine's number) whose arguments meet all comparisons."""
        number = call if isinstance(call, int) else resolve(call)
        if number is None:
            raise OSError(22, f'"{call}" is not a system call')
        array = (_Argument * len(arguments))(
            *(
                _Argument(item.argument, item.op, item.mask, item.value)
                if item.op == CMP_MASKED_EQ
                else _Argument(item.argument, item.op, item.value, 0)
                for item in arguments
            )
        )
        result = self._lib.rule_add_exact(self._context, action, number, len(arguments), ctypes.addressof(array))
        _checked(result, f"seccomp_rule_add({action:#x}, {call}, {len(arguments)} arguments)")

    def merge(self, other: Filter) -> None:
        """Take over the rules of a filter for other architectures, which is used up."""
        _checked(self._lib.merge(self._context, other._context), "seccomp_merge()")
        other._context = None

    def export_bpf(self) -> bytes:
        """The program: an array of struct sock_filter."""
        return self._export(self._lib.export_bpf, "seccomp_export_bpf()")

    def export_text(self) -> str:
        """The filter in libseccomp's readable form."""
        return self._export(self._lib.export_pfc, "seccomp_export_pfc()").decode()

    def _export(self, function: Callable[..., int], call: str) -> bytes:
        with Fd(os.memfd_create("seccomp", os.MFD_CLOEXEC)) as file:
            _checked(function(self._context, file.number), call)
            size = os.lseek(file.number, 0, os.SEEK_END)
            return os.pread(file.number, size, 0)

    def load(self, *, listener: bool = False) -> Fd | None:
        """Install the filter on the calling thread, for good; see `install`."""
        return install(self.export_bpf(), listener=listener)


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", libc.pointer)]


def install(program: bytes, *, listener: bool = False) -> Fd | None:
    """Install a filter program on the calling thread, for good; its children inherit it.

    listener: the descriptor on which `notify` actions are reported is returned (close-on-exec). Raises OSError; EACCES
    without CAP_SYS_ADMIN, unless no_new_privs is set.
    """
    buffer = ctypes.create_string_buffer(program, len(program))
    what = _Program(len(program) // 8, ctypes.addressof(buffer))
    result = _seccomp(_SET_MODE_FILTER, FILTER_FLAG_NEW_LISTENER if listener else 0, ctypes.addressof(what))
    return Fd(result) if listener else None


def notification_sizes() -> tuple[int, int, int]:
    """The kernel's sizes of struct seccomp_notif, seccomp_notif_resp and seccomp_data, in bytes. Raises OSError."""
    sizes = ctypes.create_string_buffer(6)
    _seccomp(_GET_NOTIF_SIZES, 0, ctypes.addressof(sizes))
    notification, response, data = struct.unpack("=3H", sizes.raw)
    return notification, response, data


# linux/seccomp.h; the sizes are those of the structures' first and so far only versions, which the numbers contain.
NOTIFICATION = struct.Struct("=QIIiIQ6Q")  # id, pid, flags, then seccomp_data: call, arch, instruction, arguments
RESPONSE = struct.Struct("=QqiI")  # id, value, error (negative errno), flags
_IOCTL_RECEIVE = 3 << 30 | NOTIFICATION.size << 16 | ord("!") << 8 | 0
_IOCTL_SEND = 3 << 30 | RESPONSE.size << 16 | ord("!") << 8 | 1
_IOCTL_ID_VALID = 1 << 30 | 8 << 16 | ord("!") << 8 | 2


def receive_notification(listener: int) -> bytes:
    """Wait for a call that `notify` stopped: a packed NOTIFICATION. Raises OSError; ENOENT if the caller has gone."""
    buffer = bytearray(NOTIFICATION.size)
    fcntl.ioctl(listener, _IOCTL_RECEIVE, buffer)
    return bytes(buffer)


def respond(listener: int, response: bytes) -> None:
    """Let the stopped call return as a packed RESPONSE says. Raises OSError; ENOENT if the caller is gone."""
    fcntl.ioctl(listener, _IOCTL_SEND, bytearray(response))


def notification_valid(listener: int, number: int) -> bool:
    """Whether the caller of notification `number` still waits, so that what was opened by its pid is really its."""
    try:
        fcntl.ioctl(listener, _IOCTL_ID_VALID, struct.pack("=Q", number))
    except OSError:
        return False
    return True
