"""The program that lxcpy-attach is on x86-64: it executes the interpreter from a read-only mount (kernel/sealed.py).

Python cannot do that for the process it runs in without starting twice. So this is a static ELF file of some hundred
bytes, made here: open_tree, mount_setattr, execveat; where one of them fails, execve of the interpreter as it is. The
words of its command line are handed on after `PYTHON -IS -c CODE`.
"""

from __future__ import annotations

from struct import pack

BASE = 0x400000
# What CODE_BYTES is assembled from (a test does it again). The stack begins with argc, argv, NULL, envp, NULL.
SOURCE = """
.intel_syntax noprefix
        mov     r12, [rsp]
        lea     r13, [rsp + 8]              # argv
        lea     r14, [r13 + r12*8 + 8]      # envp
        lea     rax, [r12*8 + 48]
        sub     rsp, rax
        mov     r15, rsp                    # the new argv: the table, then ours with its NULL
        mov     rdi, rsp
        lea     rsi, [rip + table]
        mov     ecx, 4
        rep movsq
        mov     rsi, r13
        lea     rcx, [r12 + 1]
        rep movsq
        mov     eax, 428                    # open_tree(AT_FDCWD, PYTHON, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)
        mov     edi, -100
        mov     rsi, [r15]
        mov     edx, 0x80001
        syscall
        test    eax, eax
        js      plain
        mov     ebx, eax
        mov     eax, 442                    # mount_setattr(fd, "", AT_EMPTY_PATH, {MOUNT_ATTR_RDONLY}, 32)
        mov     edi, ebx
        lea     rsi, [rip + empty]
        mov     edx, 0x1000
        lea     r10, [rip + attributes]
        mov     r8d, 32
        syscall
        test    eax, eax
        js      plain
        mov     eax, 322                    # execveat(fd, "", argv, envp, AT_EMPTY_PATH)
        mov     edi, ebx
        lea     rsi, [rip + empty]
        mov     rdx, r15
        mov     r10, r14
        mov     r8d, 0x1000
        syscall
plain:  mov     eax, 59                     # execve(PYTHON, argv, envp)
        mov     rdi, [r15]
        mov     rsi, r15
        mov     rdx, r14
        syscall
        mov     eax, 60                     # exit(127)
        mov     edi, 127
        syscall
        .balign 8
attributes: .quad 1, 0, 0
empty:  .quad 0
table:
"""
CODE_BYTES = bytes.fromhex(
    "4c8b24244c8d6c24084f8d74e5084a8d04e5300000004829c44989e74889e7488d35b2000000b904000000f348a54c89ee49"
    "8d4c2401f348a5b8ac010000bf9cffffff498b37ba010008000f0585c0784489c3b8ba01000089df488d356f000000ba0010"
    "00004c8d154b00000041b8200000000f0585c0781cb84201000089df488d35490000004c89fa4d89f241b8001000000f05b8"
    "3b000000498b3f4c89fe4c89f20f05b83c000000bf7f0000000f050f1f800000000001000000000000000000000000000000"
    "00000000000000000000000000000000"
)
PYTHON_CODE = """\
import sys
del sys.argv[0]
sys.path += {packages!r}
from lxcpy.cli.main import leave, main
leave(main())
"""


def program(python: str, packages: list[str]) -> bytes:
    """The ELF file for an interpreter and the directories `packages` after its library's."""
    words = (python, "-IS", "-c", PYTHON_CODE.format(packages=packages))
    start = 64 + 2 * 56
    place = BASE + start + len(CODE_BYTES) + 8 * len(words)
    table, strings = b"", b""
    for word in words:
        table += pack("<Q", place + len(strings))
        strings += word.encode(errors="surrogateescape") + b"\0"
    size = start + len(CODE_BYTES) + len(table) + len(strings)
    head = b"\x7fELF\2\1\1" + bytes(9) + pack("<HHIQQQIHHHHHH", 2, 62, 1, BASE + start, 64, 0, 0, 64, 56, 2, 0, 0, 0)
    load = pack("<IIQQQQQQ", 1, 5, 0, BASE, BASE, size, size, 0x1000)  # PT_LOAD, read and execute
    stack = pack("<IIQQQQQQ", 0x6474E551, 6, 0, 0, 0, 0, 0, 16)  # PT_GNU_STACK, not executable
    return head + load + stack + CODE_BYTES + table + strings
