"""Processes: pidfds, prctl, limits, personality, title."""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct

from lxcpy.kernel import libc
from lxcpy.kernel.fd import Fd

_PRCTL = {
    "PR_SET_PDEATHSIG": 1,
    "PR_SET_DUMPABLE": 4,
    "PR_SET_KEEPCAPS": 8,
    "PR_SET_NAME": 15,
    "PR_SET_MM": 35,
    "PR_SET_CHILD_SUBREAPER": 36,
    "PR_SET_NO_NEW_PRIVS": 38,
    "PR_SCHED_CORE": 62,
}
_prctl_parameters = (
    (libc.int_, libc.choice(_PRCTL)),
    (libc.ulong, libc.number),
    (libc.ulong, libc.number),
    (libc.ulong, libc.number),
    (libc.ulong, libc.number),
)
_prctl = libc.function("prctl", *_prctl_parameters)
_prctl_name = libc.function("prctl", (libc.int_, libc.choice(_PRCTL)), (libc.string, libc.text))
_pidfd_open = libc.syscall("pidfd_open", (libc.int_, libc.number), (libc.uint, libc.number))
_pidfd_send_signal = libc.syscall(
    "pidfd_send_signal",
    (libc.int_, libc.number),
    (libc.int_, libc.number),
    (libc.pointer, libc.hidden),
    (libc.uint, libc.number),
)
_pidfd_getfd = libc.syscall("pidfd_getfd", (libc.int_, libc.number), (libc.int_, libc.number), (libc.uint, libc.number))
_close_range = libc.syscall(
    "close_range",
    (libc.uint, libc.number),
    (libc.uint, libc.number),
    (libc.uint, libc.flags({"CLOSE_RANGE_UNSHARE": 2, "CLOSE_RANGE_CLOEXEC": 4})),
)
_personality = libc.function("personality", (libc.ulong, hex))

_SIGKILL = 9  # importing signal costs more than a fork
CLOSE_RANGE_UNSHARE = 2
CLOSE_RANGE_CLOEXEC = 4
PER_LINUX = 0
PER_LINUX32 = 8

# Names of lxc.prlimit.NAME; asm-generic/resource.h.
LIMITS = {
    "cpu": 0, "fsize": 1, "data": 2, "stack": 3, "core": 4, "rss": 5, "nproc": 6, "nofile": 7, "memlock": 8,
    "as": 9, "locks": 10, "sigpending": 11, "msgqueue": 12, "nice": 13, "rtprio": 14, "rttime": 15,
}  # fmt: skip

# The words that LXC takes for lxc.arch.
ARCHITECTURES = {
    **dict.fromkeys(
        ("arm", "armel", "armhf", "armv7l", "athlon", "i386", "i486", "i586", "i686", "linux32", "mips", "mipsel",
         "ppc", "powerpc", "x32", "x86"), PER_LINUX32),
    **dict.fromkeys(
        ("aarch64", "amd64", "arm64", "linux64", "loongarch64", "loong64", "mips64", "mips64el", "ppc64", "ppc64el",
         "ppc64le", "powerpc64", "riscv64", "s390x", "x86_64"), PER_LINUX),
}  # fmt: skip


class _Rlimit(ctypes.Structure):
    _fields_ = [("soft", libc.u64), ("hard", libc.u64)]


def _decode_limit(limit: _Rlimit) -> str:
    return "{" + ", ".join("unlimited" if n == (1 << 64) - 1 else str(n) for n in (limit.soft, limit.hard)) + "}"


_prlimit = libc.function(
    "prlimit64",
    (libc.int_, libc.number),
    (libc.int_, libc.choice({f"RLIMIT_{name.upper()}": value for name, value in LIMITS.items()})),
    (ctypes.POINTER(_Rlimit), _decode_limit),
    (libc.pointer, libc.hidden),
)


def pidfd_open(pid: int) -> Fd:
    """A descriptor of the process, readable when it ends. Raises OSError; ProcessLookupError if there is none."""
    return Fd(_pidfd_open(pid, 0))


def pidfd_send_signal(pidfd: int, sig: int) -> None:
    """Send a signal to exactly that process. Raises OSError; ProcessLookupError once it is gone."""
    _pidfd_send_signal(pidfd, sig, None, 0)


def pidfd_getfd(pidfd: int, fd: int) -> Fd:
    """A copy of descriptor `fd` of another process. Raises OSError; PermissionError without ptrace rights."""
    return Fd(_pidfd_getfd(pidfd, fd, 0))


# struct pidfd_info, first version (linux/pidfd.h): mask, cgroupid, 12 numbers of which the last is the exit code.
_PIDFD_INFO = struct.Struct("=QQ11Ii")
_PIDFD_GET_INFO = 3 << 30 | _PIDFD_INFO.size << 16 | 0xFF << 8 | 11
_PIDFD_INFO_EXIT = 1 << 3


def kill_child(pid: int) -> None:
    """End a child of the calling process and reap it; one that has ended is reaped. Raises OSError."""
    try:
        os.kill(pid, _SIGKILL)
    except ProcessLookupError:
        pass
    os.waitpid(pid, 0)


def exit_status_of(pidfd: int) -> int | None:
    """The raw wait status of an ended process that is somebody else's to reap.

    None while it is running, and once it is reaped on kernels that do not keep it (older than 6.15).
    """
    status = _kept_status(pidfd)
    pid = _pid_of(pidfd) if status is None else 0
    if pid <= 0:
        return status
    try:
        fields = _stat_fields(pid)  # 52: the status, which root may read
    except OSError:
        fields = []
    if _pid_of(pidfd) != pid:
        return _kept_status(pidfd)  # reaped meanwhile: the pid may have been another's
    return int(fields[52 - 3]) if fields and fields[0] == b"Z" else None


def _pid_of(pidfd: int) -> int:
    """The pid in /proc; -1 once it is reaped."""
    with open(f"/proc/self/fdinfo/{pidfd}", "rb") as file:
        return next((int(line.split()[1]) for line in file if line.startswith(b"Pid:")), -1)


def _kept_status(pidfd: int) -> int | None:
    """The status that the kernel keeps of a process that was reaped."""
    ask = bytearray(_PIDFD_INFO.pack(_PIDFD_INFO_EXIT, *[0] * 13))
    try:
        fcntl.ioctl(pidfd, _PIDFD_GET_INFO, ask)
    except OSError:
        return None
    mask, *_, code = _PIDFD_INFO.unpack(ask)
    return int(code) if mask & _PIDFD_INFO_EXIT else None


def _stat_fields(pid: int | str) -> list[bytes]:
    """Fields 3 and on of /proc/PID/stat: index = field number of proc(5) - 3."""
    file = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(file, 4096).rpartition(b")")[2].split()
    finally:
        os.close(file)


def start_time(pid: int) -> int:
    """When the process began, in clock ticks since boot: with the pid it names a process for good. Raises OSError."""
    return int(_stat_fields(pid)[22 - 3])


def in_group(group: int) -> list[int]:
    """The processes of a process group, as /proc shows them."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if int(_stat_fields(pid)[5 - 3]) == group:
                found.append(int(pid))
        except OSError:
            continue  # gone meanwhile
    return found


def blocked_signals(pid: int) -> int:
    """The mask of signals the process blocks (bit 0 is signal 1). Raises OSError."""
    with open(f"/proc/{pid}/status", "rb") as file:
        for line in file:
            if line.startswith(b"SigBlk:"):
                return int(line.split()[1], 16)
    return 0


def memory() -> dict[str, int]:
    """Bytes of memory of this process: `resident`, and `proportional`, where a shared page counts in parts."""
    found = {}
    with open("/proc/self/smaps_rollup", "rb") as file:
        for line in file:
            word = {b"Rss:": "resident", b"Pss:": "proportional"}.get(line.split()[0])
            if word:
                found[word] = int(line.split()[1]) << 10
    return found


def set_name(name: str) -> None:
    """The thread's name (comm), cut to 15 bytes by the kernel."""
    _prctl_name(_PRCTL["PR_SET_NAME"], libc.encode(name))


class _MmMap(ctypes.Structure):
    _fields_ = [
        *((name, libc.u64) for name in (
            "start_code", "end_code", "start_data", "end_data", "start_brk", "brk", "start_stack", "arg_start",
            "arg_end", "env_start", "env_end")),
        ("auxv", libc.pointer), ("auxv_size", libc.u32), ("exe_fd", libc.u32),
    ]  # fmt: skip


_title: ctypes.Array[ctypes.c_char] | None = None  # the kernel reads it as long as the process lives


def set_title(title: str) -> None:
    """The command line that ps shows: the kernel is pointed at a new text. Silently kept as it was where refused."""
    global _title
    fields = [int(field) for field in _stat_fields("self")[1:]]
    field = {number: fields[number - 4] for number in (26, 27, 28, 45, 46, 47, 48, 49, 50, 51)}
    data = (libc.encode(title) or b"") + b"\0"
    buffer = ctypes.create_string_buffer(data, len(data))
    place = ctypes.addressof(buffer)
    sbrk = libc.LIBC["sbrk"]
    sbrk.restype, sbrk.argtypes = libc.pointer, [libc.long]
    layout = _MmMap(
        field[26], field[27], field[45], field[46], field[47], sbrk(0), field[28],
        place, place + len(data), field[50], field[51], None, 0, 0xFFFFFFFF,
    )  # fmt: skip
    try:
        _prctl(_PRCTL["PR_SET_MM"], 14, ctypes.addressof(layout), ctypes.sizeof(layout), 0)  # PR_SET_MM_MAP
    except OSError:
        # No CONFIG_CHECKPOINT_RESTORE: write over the old text, as far as it reaches.
        room = field[49] - field[48]
        ctypes.memmove(field[48], data[: room - 1].ljust(room, b"\0"), room)
        return
    _title = buffer


def set_pdeathsig(sig: int) -> None:
    """The signal this process gets when its parent thread ends; 0 for none. Cleared by exec of a setuid program."""
    _prctl(_PRCTL["PR_SET_PDEATHSIG"], sig, 0, 0, 0)


def set_no_new_privs() -> None:
    """No exec from here on can gain privileges."""
    _prctl(_PRCTL["PR_SET_NO_NEW_PRIVS"], 1, 0, 0, 0)


def set_child_subreaper(on: bool = True) -> None:
    """Orphans below this process become its children."""
    _prctl(_PRCTL["PR_SET_CHILD_SUBREAPER"], int(on), 0, 0, 0)


def set_dumpable(on: bool) -> None:
    """Whether others with the same uid may look into this process (its files in /proc belong to root if not)."""
    _prctl(_PRCTL["PR_SET_DUMPABLE"], int(on), 0, 0, 0)


def set_keepcaps(on: bool) -> None:
    """Whether permitted capabilities stay when all uids leave 0."""
    _prctl(_PRCTL["PR_SET_KEEPCAPS"], int(on), 0, 0, 0)


def prlimit(pid: int, name: str, soft: int, hard: int) -> None:
    """Set a resource limit of a process (0: this one); `name` as in lxc.prlimit, -1 is unlimited. Raises OSError."""
    if name not in LIMITS:
        raise OSError(22, f'prlimit: unknown limit "{name}"')
    limit = _Rlimit(soft & (1 << 64) - 1, hard & (1 << 64) - 1)
    _prlimit(pid, LIMITS[name], limit, None)


def personality_of(arch: str) -> int:
    """PER_LINUX or PER_LINUX32 for a word of lxc.arch. Raises OSError(EINVAL) for an unknown word."""
    if arch not in ARCHITECTURES:
        raise OSError(22, f'"{arch}" is not an architecture')
    return ARCHITECTURES[arch]


def personality(persona: int) -> int:
    """Set the execution domain; the old one is returned. 0xffffffff only asks."""
    return _personality(persona)


def close_range(first: int, last: int, flags: int = 0) -> None:
    """Close descriptors first to last (or mark them, CLOSE_RANGE_CLOEXEC). Raises OSError."""
    try:
        _close_range(first, min(last, (1 << 32) - 1), flags)
    except OSError as error:
        if error.errno != 38 or flags & ~CLOSE_RANGE_CLOEXEC:
            raise
        for number in [int(name) for name in os.listdir("/proc/self/fd")]:
            if first <= number <= last:
                try:
                    if flags:
                        os.set_inheritable(number, False)
                    else:
                        os.close(number)
                except OSError:
                    pass  # the listing's own descriptor


def core_sched_create(pid: int) -> None:
    """Give the process (all its threads; 0: this one) a core scheduling cookie of its own. Raises OSError."""
    _prctl(_PRCTL["PR_SCHED_CORE"], 1, pid, 1, 0)  # PR_SCHED_CORE_CREATE, …SCOPE_THREAD_GROUP


def core_sched_share_from(pid: int) -> None:
    """Take over the core scheduling cookie of a process. Raises OSError."""
    _prctl(_PRCTL["PR_SCHED_CORE"], 3, pid, 0, 0)  # PR_SCHED_CORE_SHARE_FROM, …SCOPE_THREAD
