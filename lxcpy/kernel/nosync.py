"""A system call filter that turns fsync and its kin into calls that do nothing and succeed.

For work on a tree that is thrown away if it is not finished: dpkg alone calls fsync thousands of times. A handful of
BPF instructions, so no library is needed; calls of another architecture's table than the known ones pass untouched.
"""

from __future__ import annotations

import ctypes
import struct

from lxcpy.kernel import libc

# Numbers of fsync, fdatasync, sync, syncfs, msync, sync_file_range by architecture word (linux/audit.h).
_I386 = (0x40000003, (118, 148, 36, 344, 144, 314))
_ARM = (0x40000028, (118, 148, 36, 373, 144, 341))
_GENERIC = (82, 83, 81, 267, 227, 84)
_TABLES: dict[str, tuple[tuple[int, tuple[int, ...]], ...]] = {
    "x86_64": ((0xC000003E, (74, 75, 162, 306, 26, 277)), _I386),
    "i686": (_I386,),
    "aarch64": ((0xC00000B7, _GENERIC), _ARM),
    "armv7l": (_ARM,),
    "riscv64": ((0xC00000F3, _GENERIC),),
}
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
_NUMBER, _ARCH = 0, 4  # offsets in struct seccomp_data
_ALLOW, _SUCCEED = 0x7FFF0000, 0x00050000  # SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO with errno 0
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER = 22, 2


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", libc.pointer)]


_prctl = libc.function(
    "prctl",
    (libc.int_, lambda _: "PR_SET_SECCOMP"),
    (libc.ulong, lambda _: "SECCOMP_MODE_FILTER"),
    (libc.pointer, libc.hidden),
)


def program(machine: str = libc.MACHINE) -> bytes:
    """The filter as BPF instructions; empty for a machine whose numbers are not known."""
    code = b""
    for arch, numbers in _TABLES.get(machine, ()):
        block = struct.pack("=HBBI", _LOAD, 0, 0, _NUMBER)
        for place, number in enumerate(numbers):
            # Equal: to the last instruction of the block; else to the next.
            block += struct.pack("=HBBI", _JUMP_IF_EQUAL, len(numbers) - place, 0, number)
        block += struct.pack("=HBBI", _RETURN, 0, 0, _ALLOW)
        block += struct.pack("=HBBI", _RETURN, 0, 0, _SUCCEED)
        code += struct.pack("=HBBI", _LOAD, 0, 0, _ARCH)
        code += struct.pack("=HBBI", _JUMP_IF_EQUAL, 0, len(block) // 8, arch) + block
    return code + struct.pack("=HBBI", _RETURN, 0, 0, _ALLOW) if code else b""


def install() -> bool:
    """Apply the filter to this process and its children, for good; False on a machine that it is not known for.

    Needs CAP_SYS_ADMIN or no_new_privs. Raises OSError.
    """
    code = program()
    if not code:
        return False
    buffer = ctypes.create_string_buffer(code, len(code))
    _prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(_Program(len(code) // 8, ctypes.addressof(buffer))))
    return True
