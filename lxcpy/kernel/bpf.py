"""Device control on cgroup v2: a BPF program in place of the devices controller.

The program (BPF_PROG_TYPE_CGROUP_DEVICE) is called for every open and mknod of a device in the cgroup with the type of
access, the major and the minor number; it returns 1 to allow and 0 to refuse.
"""

from __future__ import annotations

import ctypes
import os
import struct

from lxcpy.kernel import libc
from lxcpy.kernel.fd import Fd
from lxcpy.kernel.record import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH, _PROG_GET_FD_BY_ID, _PROG_QUERY = 5, 8, 9, 13, 16
_COMMANDS = {
    "BPF_PROG_LOAD": _PROG_LOAD,
    "BPF_PROG_ATTACH": _PROG_ATTACH,
    "BPF_PROG_DETACH": _PROG_DETACH,
    "BPF_PROG_GET_FD_BY_ID": _PROG_GET_FD_BY_ID,
    "BPF_PROG_QUERY": _PROG_QUERY,
}
_PROG_TYPE_CGROUP_DEVICE = 15
_CGROUP_DEVICE = 6
_F_ALLOW_MULTI = 2
_F_REPLACE = 4

_bpf = libc.syscall("bpf", (libc.int_, libc.choice(_COMMANDS)), (libc.pointer, libc.hidden), (libc.uint, libc.number))

ACCESS = {"m": 1, "r": 2, "w": 4}  # BPF_DEVCG_ACC_MKNOD, _READ, _WRITE
_ALL_LETTERS = 7
TYPES = {"b": 1, "c": 2}  # BPF_DEVCG_DEV_BLOCK, _CHAR


class DeviceRule(NamedTuple):
    """Devices of `type` (b, c; a is both), numbers (-1: any), `access` letters of r w m; whether they are allowed."""

    type: str
    major: int
    minor: int
    access: str
    allow: bool


def _instruction(code: int, dst: int = 0, src: int = 0, offset: int = 0, value: int = 0) -> bytes:
    return struct.pack("=BBhi", code, src << 4 | dst, offset, value)


# Opcodes: linux/bpf_common.h, linux/bpf.h.
_LOAD_WORD = 0x61  # BPF_LDX | BPF_MEM | BPF_W
_MOV_REG = 0xBC  # BPF_ALU | BPF_MOV | BPF_X
_MOV_VALUE = 0xB7  # BPF_ALU64 | BPF_MOV | BPF_K
_AND_VALUE = 0x54  # BPF_ALU | BPF_AND | BPF_K
_SHIFT_RIGHT = 0x74  # BPF_ALU | BPF_RSH | BPF_K
_UNLESS_EQUAL = 0x55  # BPF_JMP | BPF_JNE | BPF_K
_UNLESS_EQUAL_REG = 0x5D  # BPF_JMP | BPF_JNE | BPF_X
_EXIT = 0x95


def device_program(rules: Sequence[DeviceRule], *, allow: bool) -> bytes:
    """The instructions for these rules; the last rule that matches decides, `allow` where none does. Pure.

    A rule that allows matches an access whose letters are all among its own, one that refuses matches an access with
    any of its letters, as in the v1 controller. Rules for the same devices add up where all rules agree.
    """
    if len({rule.allow for rule in rules}) == 1:
        joined: dict[tuple[str, int, int], str] = {}
        for rule in rules:
            joined[rule[:3]] = joined.get(rule[:3], "") + rule.access
        rules = [DeviceRule(*key, access, rules[0].allow) for key, access in joined.items()]
    code = [
        _instruction(_LOAD_WORD, 2, 1, 0),  # r2 = access_type & 0xffff: block or char
        _instruction(_AND_VALUE, 2, value=0xFFFF),
        _instruction(_LOAD_WORD, 3, 1, 0),  # r3 = access_type >> 16: letters
        _instruction(_SHIFT_RIGHT, 3, value=16),
        _instruction(_LOAD_WORD, 4, 1, 4),  # r4 = major
        _instruction(_LOAD_WORD, 5, 1, 8),  # r5 = minor
    ]
    for rule in reversed(rules):
        if rule.type == "a" and rule.major < 0 and rule.minor < 0 and _letters(rule) == _ALL_LETTERS:
            allow = rule.allow  # what stands before it can never be reached, which the verifier would refuse
            break
        code += _rule(rule)
    code += [_instruction(_MOV_VALUE, 0, value=int(allow)), _instruction(_EXIT)]
    return b"".join(code)


def _letters(rule: DeviceRule) -> int:
    bits = 0
    for letter in rule.access:
        bits |= ACCESS[letter]
    return bits


def _rule(rule: DeviceRule) -> list[bytes]:
    """Leave with the rule's verdict if all its tests hold, else go on behind it."""
    tests: list[tuple[int, int, int, int]] = []  # code, dst, src, value of each test that jumps behind the rule
    before: list[bytes] = []
    letters = _letters(rule)
    if rule.type != "a":
        tests.append((_UNLESS_EQUAL, 2, 0, TYPES[rule.type]))
    if letters != _ALL_LETTERS:
        before += [_instruction(_MOV_REG, 1, 3), _instruction(_AND_VALUE, 1, value=letters)]
        # allow: every letter asked for is ours (r1 == r3); refuse: one is (r1 != 0)
        tests.append((_UNLESS_EQUAL_REG, 1, 3, 0) if rule.allow else (0x15, 1, 0, 0))  # BPF_JMP | BPF_JEQ | BPF_K
    if rule.major >= 0:
        tests.append((_UNLESS_EQUAL, 4, 0, rule.major))
    if rule.minor >= 0:
        tests.append((_UNLESS_EQUAL, 5, 0, rule.minor))
    jumps = [
        _instruction(code, dst, src, len(tests) - at - 1 + 2, value) for at, (code, dst, src, value) in enumerate(tests)
    ]
    return [*before, *jumps, _instruction(_MOV_VALUE, 0, value=int(rule.allow)), _instruction(_EXIT)]


def _call(command: int, attributes: bytes) -> tuple[int, bytes]:
    buffer = ctypes.create_string_buffer(attributes, max(len(attributes), 128))
    result = _bpf(command, ctypes.addressof(buffer), len(buffer))
    return result, buffer.raw


def load(program: bytes) -> Fd:
    """Have the kernel check and take a device program. Raises OSError, the verifier's last words in its text."""
    code = ctypes.create_string_buffer(program, len(program))
    licence = ctypes.create_string_buffer(b"GPL")
    report = ctypes.create_string_buffer(1 << 16)

    def attributes(level: int) -> bytes:
        return struct.pack(
            "=IIQQIIQ", _PROG_TYPE_CGROUP_DEVICE, len(program) // 8, ctypes.addressof(code),
            ctypes.addressof(licence), level, len(report) if level else 0, ctypes.addressof(report) if level else 0,
        )  # fmt: skip

    try:
        return Fd(_call(_PROG_LOAD, attributes(0))[0])
    except OSError as error:
        if error.errno in (1, 38):  # no right to, or no BPF: the verifier has nothing to say
            raise
    try:
        return Fd(_call(_PROG_LOAD, attributes(1))[0])
    except OSError as error:
        words = " ".join(report.value.decode(errors="replace").split()[-40:])
        raise OSError(error.errno, f"{error.strerror} ({words})") from None


def attach(cgroup: int, program: int, *, replace: int = -1) -> None:
    """Put a program on the cgroup directory `cgroup`, beside those of its ancestors, which must allow too.

    replace ≥ 0: the descriptor of the program it takes the place of, without a moment in between. Raises OSError.
    """
    flags = _F_ALLOW_MULTI | (_F_REPLACE if replace >= 0 else 0)
    _call(_PROG_ATTACH, struct.pack("=IIIII", cgroup, program, _CGROUP_DEVICE, flags, max(replace, 0)))


def detach(cgroup: int, program: int) -> None:
    """Take a program off a cgroup. Raises OSError; ENOENT if it is not there."""
    _call(_PROG_DETACH, struct.pack("=IIII", cgroup, program, _CGROUP_DEVICE, 0))


def attached(cgroup: int) -> list[int]:
    """The ids of the device programs on the cgroup itself. Raises OSError."""
    ids = (libc.u32 * 64)()
    ask = struct.pack("=IIIIQI", cgroup, _CGROUP_DEVICE, 0, 0, ctypes.addressof(ids), len(ids))
    _, answer = _call(_PROG_QUERY, ask)
    return list(ids)[: struct.unpack_from("=I", answer, 24)[0]]


def program_by_id(number: int) -> Fd:
    """A descriptor of a loaded program. Raises OSError."""
    return Fd(_call(_PROG_GET_FD_BY_ID, struct.pack("=III", number, 0, 0))[0])


def open_cgroup(path: str) -> Fd:
    """A descriptor of a cgroup directory for the calls above. Raises OSError."""
    return Fd(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
