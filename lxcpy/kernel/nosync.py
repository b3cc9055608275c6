"""A system call filter that turns fsync and its kin into calls that do nothing and succeed, and shuts keyrings off.

For work on a tree that is thrown away if it is not finished: dpkg alone calls fsync thousands of times. Keyrings are no
part of any namespace, so a program with user id 0 would read the keys of the host's root: their calls are not
there. A handful of BPF instructions, so no library is needed; calls of another architecture's table than the known ones
pass untouched.
"""

from __future__ import annotations

import ctypes
import struct

from lxcpy.kernel import libc

# By architecture word (linux/audit.h): numbers of fsync, fdatasync, sync, syncfs, msync, sync_file_range; and of
# add_key, request_key, keyctl.
_Table = tuple[int, tuple[int, ...], tuple[int, ...]]
_I386 = (0x40000003, (118, 148, 36, 344, 144, 314), (286, 287, 288))
_ARM = (0x40000028, (118, 148, 36, 373, 144, 341), (309, 310, 311))
_GENERIC = ((82, 83, 81, 267, 227, 84), (217, 218, 219))
_TABLES: dict[str, tuple[_Table, ...]] = {
    "x86_64": ((0xC000003E, (74, 75, 162, 306, 26, 277), (248, 249, 250)), _I386),
    "i686": (_I386,),
    "aarch64": ((0xC00000B7, *_GENERIC), _ARM),
    "armv7l": (_ARM,),
    "riscv64": ((0xC00000F3, *_GENERIC),),
}
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K
_NUMBER, _ARCH = 0, 4  # offsets in struct seccomp_data
# SECCOMP_RET_ALLOW, SECCOMP_RET_ERRNO with errno 0, with ENOSYS
_ALLOW, _SUCCEED, _MISSING = 0x7FFF0000, 0x00050000, 0x00050026
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
    for arch, done, missing in _TABLES.get(machine, ()):
        block = struct.pack("=HBBI", _LOAD, 0, 0, _NUMBER)
        numbers = done + missing
        for place, number in enumerate(numbers):
            # Equal: to one of the block's last two instructions; else to the next.
            end = len(numbers) - place + (number in missing)
            block += struct.pack("=HBBI", _JUMP_IF_EQUAL, end, 0, number)
        for answer in (_ALLOW, _SUCCEED, _MISSING):
            block += struct.pack("=HBBI", _RETURN, 0, 0, answer)
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
