"""Capability sets of the calling thread, as sets of numbers."""

from __future__ import annotations

import ctypes

from lxcpy.kernel import libc
from lxcpy.kernel.record import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

# The index is the number (linux/capability.h).
CAPABILITIES = (
    "chown", "dac_override", "dac_read_search", "fowner", "fsetid", "kill", "setgid", "setuid", "setpcap",
    "linux_immutable", "net_bind_service", "net_broadcast", "net_admin", "net_raw", "ipc_lock", "ipc_owner",
    "sys_module", "sys_rawio", "sys_chroot", "sys_ptrace", "sys_pacct", "sys_admin", "sys_boot", "sys_nice",
    "sys_resource", "sys_time", "sys_tty_config", "mknod", "lease", "audit_write", "audit_control", "setfcap",
    "mac_override", "mac_admin", "syslog", "wake_alarm", "block_suspend", "audit_read", "perfmon", "bpf",
    "checkpoint_restore",
)  # fmt: skip
SETPCAP = 8
SYS_ADMIN = 21

_PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_CAP_AMBIENT = 23, 24, 47
_PR_CAP_AMBIENT_RAISE, _PR_CAP_AMBIENT_CLEAR_ALL = 2, 4
_VERSION = 0x20080522  # _LINUX_CAPABILITY_VERSION_3: two words a set


class CapabilitySets(NamedTuple):
    effective: frozenset[int]
    permitted: frozenset[int]
    inheritable: frozenset[int]


class _Header(ctypes.Structure):
    _fields_ = [("version", libc.u32), ("pid", libc.int_)]


class _Data(ctypes.Structure):
    _fields_ = [("effective", libc.u32), ("permitted", libc.u32), ("inheritable", libc.u32)]


_capget = libc.function("capget", (libc.pointer, libc.hidden), (libc.pointer, libc.hidden))
_capset = libc.function("capset", (libc.pointer, libc.hidden), (libc.pointer, libc.hidden))
_prctl = libc.function(
    "prctl",
    (libc.int_, libc.choice({"PR_CAPBSET_READ": 23, "PR_CAPBSET_DROP": 24, "PR_CAP_AMBIENT": 47})),
    (libc.ulong, libc.number),
    (libc.ulong, libc.number),
    (libc.ulong, libc.number),
    (libc.ulong, libc.number),
)


def _members(mask: int) -> frozenset[int]:
    return frozenset(bit for bit in range(64) if mask >> bit & 1)


def _mask(numbers: Iterable[int]) -> int:
    mask = 0
    for number in numbers:
        mask |= 1 << number
    return mask


def last_cap() -> int:
    """The highest capability of this kernel; a kernel may have more than we have names for."""
    try:
        with open("/proc/sys/kernel/cap_last_cap", "rb") as file:
            return int(file.read())
    except OSError:  # no procfs mounted
        last = 0
        while last < 63:
            try:
                _prctl(_PR_CAPBSET_READ, last + 1, 0, 0, 0)
            except OSError:
                break
            last += 1
        return last


def drop_bounding(numbers: Iterable[int]) -> None:
    """Remove capabilities from the bounding set, for good. Raises OSError; EPERM without CAP_SETPCAP."""
    for number in sorted(numbers):
        _prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)


def bounding() -> frozenset[int]:
    """The bounding set."""
    return frozenset(number for number in range(last_cap() + 1) if _prctl(_PR_CAPBSET_READ, number, 0, 0, 0))


def get() -> CapabilitySets:
    """The calling thread's sets."""
    header, data = _Header(_VERSION, 0), (_Data * 2)()
    _capget(ctypes.addressof(header), ctypes.addressof(data))
    low, high = data
    return CapabilitySets(
        _members(low.effective | high.effective << 32),
        _members(low.permitted | high.permitted << 32),
        _members(low.inheritable | high.inheritable << 32),
    )


def set(effective: Iterable[int], permitted: Iterable[int], inheritable: Iterable[int]) -> None:
    """Set the calling thread's sets. Raises OSError; EPERM for one that is not permitted."""
    header, data = _Header(_VERSION, 0), (_Data * 2)()
    masks = [_mask(numbers) for numbers in (effective, permitted, inheritable)]
    for word in (0, 1):
        data[word] = _Data(*(mask >> 32 * word & 0xFFFFFFFF for mask in masks))
    _capset(ctypes.addressof(header), ctypes.addressof(data))


def clear_ambient() -> None:
    """Empty the ambient set."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)


def raise_ambient(numbers: Iterable[int]) -> None:
    """Put capabilities, permitted and inheritable already, into the ambient set. Raises OSError."""
    for number in sorted(numbers):
        _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number, 0, 0)
