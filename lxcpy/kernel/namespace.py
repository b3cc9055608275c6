"""Namespaces: enter, leave, and the clone that makes them."""

from __future__ import annotations

import ctypes
import errno
import os

from lxcpy.kernel import libc
from lxcpy.kernel.fd import Fd

CLONE_NEWTIME = 0x00000080
CLONE_VM = 0x00000100
CLONE_PIDFD = 0x00001000
CLONE_PARENT = 0x00008000
CLONE_NEWNS = 0x00020000
CLONE_CHILD_CLEARTID = 0x00200000
CLONE_CHILD_SETTID = 0x01000000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
CLONE_INTO_CGROUP = 0x200000000

# LXC's names; the file in /proc/PID/ns is the same word.
NAMESPACES: dict[str, int] = {
    "user": CLONE_NEWUSER,
    "mnt": CLONE_NEWNS,
    "pid": CLONE_NEWPID,
    "uts": CLONE_NEWUTS,
    "ipc": CLONE_NEWIPC,
    "net": CLONE_NEWNET,
    "cgroup": CLONE_NEWCGROUP,
    "time": CLONE_NEWTIME,
}
_FLAGS = {
    **{name: value for name, value in globals().items() if name.startswith("CLONE_")},
}
_decode_flags = libc.flags(_FLAGS)
_SIGCHLD = 17

_unshare = libc.function("unshare", (libc.int_, _decode_flags))
_setns = libc.function("setns", (libc.int_, libc.number), (libc.int_, _decode_flags))
_prctl_address = libc.function("prctl", (libc.int_, lambda _: "PR_GET_TID_ADDRESS"), (libc.pointer, libc.hidden))
_PR_GET_TID_ADDRESS = 40


class _CloneArgs(ctypes.Structure):
    _fields_ = [
        (name, libc.u64)
        for name in (
            "flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls", "set_tid",
            "set_tid_size", "cgroup",
        )
    ]  # fmt: skip


# PyDLL keeps the interpreter's lock across the call: released, another thread could hold it at the moment of the
# copy, and the child, where that thread does not exist, would wait for it for ever.
_HELD = ctypes.PyDLL(None, use_errno=True)
_raw_syscall = _HELD["syscall"]
_raw_syscall.restype = ctypes.c_long
_raw_syscall.argtypes = [ctypes.c_long, libc.pointer, libc.pointer, libc.pointer, libc.pointer, libc.pointer]
_before = ctypes.pythonapi.PyOS_BeforeFork
_in_parent = ctypes.pythonapi.PyOS_AfterFork_Parent
_in_child = ctypes.pythonapi.PyOS_AfterFork_Child
for _hook in (_before, _in_parent, _in_child):
    _hook.restype = None
    _hook.argtypes = []


def unshare(flags: int) -> None:
    """unshare(2). Raises OSError."""
    _unshare(flags)


def setns(fd: int, flags: int = 0) -> None:
    """setns(2): `fd` is a namespace (flags 0 or its type) or a pidfd (flags say which namespaces). Raises OSError."""
    _setns(fd, flags)


def open_namespace(pid: int, name: str) -> Fd:
    """The namespace `name` (a key of NAMESPACES) of a process. Raises OSError."""
    return Fd(os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC))


def _tid_address() -> int:
    """Where glibc keeps the thread's id, which its fork lets the kernel fill in for the child; 0 if not known."""
    address = ctypes.c_void_p()
    try:
        _prctl_address(_PR_GET_TID_ADDRESS, ctypes.byref(address))
    except OSError:  # a kernel without CONFIG_CHECKPOINT_RESTORE
        return 0
    return address.value or 0


def clone(flags: int, *, parent: bool = False, cgroup_fd: int = -1) -> tuple[int, int]:
    """fork(2) with new namespaces: (pid, pidfd) in the parent, (0, -1) in the child.

    flags: CLONE_NEW*. parent: the child becomes the caller's sibling (CLONE_PARENT), so the caller's parent is told of
    its end, by the signal that the caller's own end would send. cgroup_fd ≥ 0: a cgroup v2 directory in which the child
    starts (CLONE_INTO_CGROUP). The caller owns the pidfd (close-on-exec).

    The interpreter's fork hooks run as for os.fork. Raises OSError in the parent only.
    """
    if parent:
        flags |= CLONE_PARENT
    if cgroup_fd >= 0:
        flags |= CLONE_INTO_CGROUP
    pidfd = ctypes.c_int(-1)
    tid = _tid_address()
    if tid:
        flags |= CLONE_CHILD_SETTID | CLONE_CHILD_CLEARTID
    args = _CloneArgs(
        flags=flags | CLONE_PIDFD,
        pidfd=ctypes.addressof(pidfd),
        child_tid=tid,
        exit_signal=0 if parent else _SIGCHLD,
        cgroup=max(cgroup_fd, 0),
    )
    place = ctypes.addressof(args)
    size = ctypes.sizeof(args)
    _before()
    pid = _raw_syscall(libc.NUMBERS["clone3"], place, size, 0, 0, 0)
    if pid < 0 and ctypes.get_errno() == 38 and cgroup_fd < 0:
        pid = _old_clone(args, pidfd)
    if pid == 0:
        _in_child()
        return 0, -1
    number = ctypes.get_errno()
    _in_parent()
    if pid < 0:
        where = f", cgroup={cgroup_fd}" if cgroup_fd >= 0 else ""
        raise libc.failure(number, f"clone3({{{_decode_flags(flags)}{where}}})")
    return pid, pidfd.value


def clone_among_threads(flags: int) -> int:
    """As clone, for a process with several threads: the pid in the parent, 0 in the child.

    A thread that runs without the interpreter's lock, such as one that inflates, may hold malloc's: what clone
    makes then waits for it for ever. fork of glibc makes sure that it is free, so a process in between, which has one
    thread only, does the cloning. Raises OSError in the parent only.
    """
    reading, writing = os.pipe2(os.O_CLOEXEC)
    middle = os.fork()
    if middle == 0:
        word = b""
        try:
            pid = clone(flags, parent=True)[0]
            if pid == 0:
                os.close(reading)
                os.close(writing)
                return 0
            word = b"%d" % pid
        except OSError as error:
            word = b"%d %s" % (-(error.errno or 1), str(error.strerror).encode())
        os.write(writing, word)
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as stream:
        number, _, text = stream.read().partition(b" ")
    os.waitpid(middle, 0)
    if not number:
        raise libc.failure(errno.ECHILD, "the process that was to make namespaces died")
    if int(number) < 0:
        raise OSError(-int(number), text.decode(errors="replace"))
    return int(number)


def _old_clone(args: _CloneArgs, pidfd: ctypes.c_int) -> int:
    """clone(2), where a filter or an old kernel answers clone3 with ENOSYS.

    CLONE_NEWTIME has no place there: its bit belongs to the signal.
    """
    if args.flags & CLONE_NEWTIME or "clone" not in libc.NUMBERS:
        return -1
    # The last two are child_tid, tls on x86_64 and tls, child_tid elsewhere (clone(2)).
    last = (args.child_tid, 0) if libc.MACHINE == "x86_64" else (0, args.child_tid)
    flags = args.flags | args.exit_signal
    pid: int = _raw_syscall(libc.NUMBERS["clone"], flags, 0, ctypes.addressof(pidfd), *last)
    return pid
