"""liblxc's command protocol as bytes: numbers, socket names, requests and answers. Pure, and light to import.

Every running container listens on an abstract stream socket. A client sends one request of 16 bytes with its
credentials beside it, then the request's data, if any; the answer is 16 bytes, perhaps with descriptors beside it, then
its data. Both headers are the C structures of 64-bit LXC in host order: an int, an int of data's length and a pointer,
whose place carries a small number instead where no data follows (ENCODE_INTO_PTR_LEN).

Learnt from src/lxc/commands.c, commands_utils.c, af_unix.c and monitor.h. The layout is the same in 4.0, 5.0, 6.0 and
7.0: it was read back byte for byte from 5.0.2; of 5.0.3 and 7.0.0 the structures and the table of commands are equal,
and what differs is that a 6 or 7 client may give up waiting for GET_STATE's answer (SO_RCVTIMEO) and that their server
refuses a CONFIG_ITEM without a final NUL and a CONSOLE_LOG of another length than its structure's.
"""

from __future__ import annotations

import struct

from lxcpy import paths
from lxcpy.kernel.record import NamedTuple  # typing's costs more than the rest of a light command

# fmt: off
GET_TTY_FD                  = 0
TERMINAL_WINCH              = 1  # never answered
STOP                        = 2
GET_STATE                   = 3
GET_INIT_PID                = 4
GET_CLONE_FLAGS             = 5
GET_CGROUP                  = 6
GET_CONFIG_ITEM             = 7
GET_NAME                    = 8
GET_LXCPATH                 = 9
ADD_STATE_CLIENT            = 10
CONSOLE_LOG                 = 11
SERVE_STATE_CLIENTS         = 12
SECCOMP_NOTIFY_ADD_LISTENER = 13
ADD_BPF_DEVICE_CGROUP       = 14
FREEZE                      = 15
UNFREEZE                    = 16
GET_CGROUP2_FD              = 17
GET_INIT_PIDFD              = 18
GET_LIMIT_CGROUP            = 19
GET_LIMIT_CGROUP2_FD        = 20
GET_DEVPTS_FD               = 21
GET_SECCOMP_NOTIFY_FD       = 22
GET_CGROUP_CTX              = 23
GET_CGROUP_FD               = 24
GET_LIMIT_CGROUP_FD         = 25
GET_SYSTEMD_SCOPE           = 26
# fmt: on

STATES = ("STOPPED", "STARTING", "RUNNING", "STOPPING", "ABORTING", "FREEZING", "FROZEN", "THAWED")
"""The states; a state's index is its number on the wire."""
MAX_STATE = len(STATES)  # as an answer to ADD_STATE_CLIENT: the state comes later, on the same socket

DATA_MAX = 4096 * 2  # LXC_CMD_DATA_MAX; a longer request is dropped
SCM_CREDENTIALS = 2  # _socket knows the name, but only where the C library did

HEADER = struct.Struct("=iiQ")  # request: number, length, value; answer: result (0 or -errno), length, value
CREDENTIALS = struct.Struct("=iII")  # struct ucred: pid, uid, gid
STATE_MASK = struct.Struct(f"={MAX_STATE}i")  # ADD_STATE_CLIENT: one int a state, not 0 where the state is wanted
CONSOLE_LOG_REQUEST = struct.Struct("=??6xQ?7x")  # clear, read, read_max, write_logfile
CGROUP_FD = struct.Struct("=iIii64s")  # layout, utilities, type of file system, descriptor, controller
CGROUP_CTX = struct.Struct("=iII20i4x")  # layout, utilities, number of descriptors, the sender's numbers of them
DEVICE_ITEM = struct.Struct("=c3xii4si4x16x")  # type, major, minor, access, allow; the list pointers mean nothing
CGROUP_CTX_MAX_FD = 20
CGROUP_TYPE = {1: 0x27E0EB, 2: 0x63677270}  # CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC
LAYOUT_LEGACY, LAYOUT_HYBRID, LAYOUT_UNIFIED = 0, 1, 2
UTILITY_DEVICES, UTILITY_FREEZER = 1, 2  # what a pure v2 hierarchy can do besides its controllers

MESSAGE = struct.Struct("=i256si")  # struct lxc_msg: kind, container's name, state or raw wait status
MESSAGE_STATE, MESSAGE_PRIORITY, MESSAGE_EXIT_CODE = 0, 1, 2

SOCKET_NAME_MAX = 105  # characters after the leading NUL: sun_path less two NULs, and LXC's off-by-one kept


class DeviceRule(NamedTuple):
    """A device rule asked for at run time (lxc-device on cgroup v2)."""

    type: str  # a, b or c
    major: int  # -1: any
    minor: int  # -1: any
    access: str  # some of rwm
    allow: bool

    @property
    def text(self) -> str:
        """The rule as devices.allow and devices.deny take it: `c 1:3 rwm`."""
        major, minor = ("*" if number < 0 else number for number in (self.major, self.minor))
        return f"{self.type} {major}:{minor} {self.access}"


class Message(NamedTuple):
    """What state clients and lxc-monitor receive."""

    kind: int  # MESSAGE_STATE or MESSAGE_EXIT_CODE
    name: str
    value: int  # a state's number, or the raw status of wait(2)


def fnv64a(data: bytes) -> int:
    """The 64-bit FNV-1a hash."""
    value = 0xCBF29CE484222325
    for byte in data:
        value = ((value ^ byte) * 0x100000001B3) & 0xFFFFFFFFFFFFFFFF
    return value


def socket_name(lxcpath: str, name: str) -> bytes:
    """The address of a container's command socket, leading NUL included.

    It is made of the lxcpath as the client spells it (LXC's tools cut trailing slashes off and no more), so both sides
    must spell it alike.
    """
    container = _encode(f"{lxcpath}/{name}")
    if len(container) + len(b"/command") <= SOCKET_NAME_MAX:
        return b"\0" + container + b"/command"
    return hashed_socket_name(f"{fnv64a(container):016x}")


def hashed_socket_name(digest: str) -> bytes:
    """The address of a command socket from the hash that stands for a path too long."""
    return f"\0lxc/{digest}/command".encode()


def monitor_socket_name(lxcpath: str) -> bytes:
    """The address of the socket on which lxc-monitord serves lxc-monitor."""
    path = _encode(lxcpath)
    digest = fnv64a(b"lxc/" + path + b"/monitor-sock")
    return b"\0" + (f"lxc/{digest:016x}/".encode() + path)[:SOCKET_NAME_MAX]


def monitor_fifo(lxcpath: str) -> str:
    """The fifo in which lxc-monitord reads what happens to the containers of an lxcpath."""
    return f"{paths.lxc_run_dir()}/lxc/{lxcpath}/monitor-fifo"


def request(command: int, data: bytes = b"", value: int = 0) -> bytes:
    """A request's header; `data` follows it in a write of its own, after the credentials went with the header."""
    return HEADER.pack(command, len(data), value & 0xFFFFFFFFFFFFFFFF)


def answer(result: int = 0, *, length: int = 0, value: int = 0) -> bytes:
    """An answer's header. `length` bytes follow."""
    return HEADER.pack(result, length, value & 0xFFFFFFFFFFFFFFFF)


def signed(value: int) -> int:
    """The int that C reads out of a header's pointer (PTR_TO_INT)."""
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value & 0x80000000 else value


def text(data: bytes) -> str:
    """A C string as text: up to the first NUL, bytes outside UTF-8 kept as surrogates."""
    return data.partition(b"\0")[0].decode(errors="surrogateescape")


def c_string(value: str) -> bytes:
    """Text as a C string with its NUL."""
    return _encode(value) + b"\0"


def state_number(state: str) -> int:
    """A state's number. Raises ValueError."""
    return STATES.index(state)


def message(name: str, value: int, kind: int = MESSAGE_STATE) -> bytes:
    """A message for state clients and monitors."""
    return MESSAGE.pack(kind, _encode(name)[:255], value)


def parse_message(data: bytes) -> Message:
    """The message in `data`. Raises struct.error when it is not one."""
    kind, name, value = MESSAGE.unpack(data)
    return Message(kind, text(name), value)


def parse_device(data: bytes) -> DeviceRule | None:
    """The rule of ADD_BPF_DEVICE_CGROUP; None when it makes no sense."""
    if len(data) != DEVICE_ITEM.size:
        return None
    kind, major, minor, access, allow = DEVICE_ITEM.unpack(data)
    rule = DeviceRule(kind.decode("latin-1"), major, minor, access.partition(b"\0")[0].decode("latin-1"), bool(allow))
    if rule.type not in "abc" or set(rule.access) - set("rwm") or major < -1 or minor < -1:
        return None
    return rule


def device_item(rule: DeviceRule) -> bytes:
    """The data of ADD_BPF_DEVICE_CGROUP."""
    return DEVICE_ITEM.pack(rule.type.encode(), rule.major, rule.minor, rule.access.encode(), rule.allow)


def _encode(value: str) -> bytes:
    return value.encode(errors="surrogateescape")
