"""What each command of liblxc's protocol means: from a request and a Target to a reply. No sockets here."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import NamedTuple

from lxcpy.runtime import lxcprotocol as wire
from lxcpy.runtime.lxctarget import Target, find_group, layout


class Request(NamedTuple):
    """A whole request of a client that may ask."""

    command: int
    value: int  # of the header's pointer
    data: bytes
    rights: tuple[int, ...] = ()  # descriptors that came along, closed after the answer

    @property
    def number(self) -> int:
        """The value as C's int."""
        return wire.signed(self.value)

    @property
    def string(self) -> str:
        """The data as a string. Raises OSError for what is none."""
        if not self.data or self.data.find(b"\0") != len(self.data) - 1:
            raise OSError(errno.EINVAL, "not a string")
        return wire.text(self.data)


class Reply(NamedTuple):
    """What the client gets, and what becomes of its connection."""

    result: int = 0  # 0 or -errno
    value: int = 0  # in the header's pointer
    data: bytes = b""
    fds: tuple[int, ...] = ()  # copies are sent
    close: bool = False  # the descriptors are the server's to close
    hold: bool = False  # the connection stays
    silent: bool = False  # there is no answer but the end of the connection
    tty: int | None = None  # the terminal lent to it
    wanted: tuple[int, ...] | None = None  # the states it waits for: not 0
    tell: str = ""  # a state that the waiting clients are to hear of


def answer(target: Target, request: Request) -> Reply:
    """The reply to a request; never raises for what the request says."""
    handler = _HANDLERS.get(request.command)
    if handler is None:
        return Reply(result=-errno.ENOSYS)
    try:
        return handler(target, request)
    except OSError as error:
        return Reply(result=-(error.errno or errno.EIO))


def _one_fd(fd: int) -> Reply:
    return Reply(fds=(fd,)) if fd >= 0 else Reply(result=-errno.EBADF)


def _terminal(target: Target, request: Request) -> Reply:
    lent = target.console(request.number)
    if lent is None:
        return Reply(result=-errno.EBADF)
    master, tty = lent
    return Reply(value=tty, fds=(master,), hold=True, tty=tty)


def _stop(target: Target, request: Request) -> Reply:
    target.stop()
    return Reply(hold=True, silent=True)  # hung up on when the container has stopped


def _cgroup(target: Target, request: Request) -> Reply:
    group = find_group(target.groups(), request.string if request.data else None)
    if group is None:
        return Reply(silent=True)
    return Reply(data=wire.c_string(group.limit if request.command == wire.GET_LIMIT_CGROUP else group.payload))


def _config_item(target: Target, request: Request) -> Reply:
    value = target.config_item(request.string)
    return Reply(data=wire.c_string(value)) if value else Reply(result=-1)


def _state_client(target: Target, request: Request) -> Reply:
    if len(request.data) != wire.STATE_MASK.size:
        return Reply(result=-errno.EINVAL)
    wanted = wire.STATE_MASK.unpack(request.data)
    state = wire.state_number(target.state())
    if wanted[state] == 1:  # another number waits for the next time: 2 while rebooting
        return Reply(result=state, value=state)
    return Reply(result=wire.MAX_STATE, value=wire.MAX_STATE, hold=True, wanted=wanted)


def _console_log(target: Target, request: Request) -> Reply:
    if len(request.data) != wire.CONSOLE_LOG_REQUEST.size:
        return Reply(result=-errno.EINVAL)
    clear, read, read_max, _write = wire.CONSOLE_LOG_REQUEST.unpack(request.data)
    return Reply(data=target.console_log(clear=clear, read=read, read_max=read_max))


def _serve_state_clients(target: Target, request: Request) -> Reply:
    state = wire.STATES[request.number] if 0 <= request.number < wire.MAX_STATE else ""
    if state not in ("FREEZING", "FROZEN", "THAWED", "RUNNING"):
        return Reply(result=-errno.EINVAL)
    target.state_changed(state)
    return Reply(tell=state)


def _add_device(target: Target, request: Request) -> Reply:
    rule = wire.parse_device(request.data)
    if rule is None:
        return Reply(result=-errno.EINVAL)
    target.add_device(rule)
    return Reply()


def _add_listener(target: Target, request: Request) -> Reply:
    if len(request.rights) != 1:
        return Reply(result=-errno.EINVAL)
    target.add_listener(request.rights[0])
    return Reply()


def _freeze(target: Target, request: Request) -> Reply:
    if layout(target.groups()) != wire.LAYOUT_UNIFIED:
        return Reply(result=-errno.ENOENT)
    act = target.freeze if request.command == wire.FREEZE else target.unfreeze
    act(request.number)
    return Reply()


def _cgroup2_fd(target: Target, request: Request) -> Reply:
    groups = target.groups()
    if layout(groups) != wire.LAYOUT_UNIFIED:
        return Reply(result=-errno.EINVAL)
    path = groups[0].limit if request.command == wire.GET_LIMIT_CGROUP2_FD else groups[0].payload
    return _directories([groups[0].mount + path], b"")


def _cgroup_ctx(target: Target, request: Request) -> Reply:
    groups = target.groups()[: wire.CGROUP_CTX_MAX_FD]
    if not groups:
        return Reply(result=-errno.ENOENT)
    kind = layout(groups)
    data = wire.CGROUP_CTX.pack(kind, _utilities(kind), len(groups), *[-1] * wire.CGROUP_CTX_MAX_FD)
    return _directories([group.mount + group.payload for group in groups], data[: len(request.data)])


def _cgroup_fd(target: Target, request: Request) -> Reply:
    size = wire.CGROUP_FD.size
    _layout, _old, wanted, _fd, name = wire.CGROUP_FD.unpack(request.data[:size].ljust(size, b"\0"))
    controller = wire.text(name)
    if not controller:
        return Reply(result=-errno.EINVAL)
    groups = target.groups()
    group = find_group(groups, controller)
    if group is None:
        return Reply(result=-errno.ENOENT)
    kind, fs_type = layout(groups), wire.CGROUP_TYPE[group.version]
    if wanted not in (0, fs_type):
        return Reply(result=-errno.EINVAL)
    path = group.limit if request.command == wire.GET_LIMIT_CGROUP_FD else group.payload
    data = wire.CGROUP_FD.pack(kind, _utilities(kind), fs_type, -1, name)
    return _directories([group.mount + path], data[: len(request.data)])


def _utilities(kind: int) -> int:
    return wire.UTILITY_DEVICES | wire.UTILITY_FREEZER if kind == wire.LAYOUT_UNIFIED else 0


def _directories(paths: list[str], data: bytes) -> Reply:
    """Descriptors of directories, opened for this reply alone. Raises OSError."""
    fds: list[int] = []
    try:
        for path in paths:
            fds.append(os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
    except OSError:
        for fd in fds:
            os.close(fd)
        raise
    return Reply(data=data, fds=tuple(fds), close=True)


def _scope(target: Target, request: Request) -> Reply:
    scope = target.systemd_scope()
    return Reply(data=wire.c_string(scope)) if scope else Reply(result=-errno.EINVAL)


_HANDLERS: dict[int, Callable[[Target, Request], Reply]] = {
    wire.GET_TTY_FD: _terminal,
    wire.TERMINAL_WINCH: lambda target, request: Reply(silent=True),
    wire.STOP: _stop,
    wire.GET_STATE: lambda target, request: Reply(value=wire.state_number(target.state())),
    wire.GET_INIT_PID: lambda target, request: Reply(value=target.init_pid()),
    wire.GET_CLONE_FLAGS: lambda target, request: Reply(value=target.clone_flags()),
    wire.GET_CGROUP: _cgroup,
    wire.GET_CONFIG_ITEM: _config_item,
    wire.GET_NAME: lambda target, request: Reply(data=wire.c_string(target.name)),
    wire.GET_LXCPATH: lambda target, request: Reply(data=wire.c_string(target.lxcpath)),
    wire.ADD_STATE_CLIENT: _state_client,
    wire.CONSOLE_LOG: _console_log,
    wire.SERVE_STATE_CLIENTS: _serve_state_clients,
    wire.SECCOMP_NOTIFY_ADD_LISTENER: _add_listener,
    wire.ADD_BPF_DEVICE_CGROUP: _add_device,
    wire.FREEZE: _freeze,
    wire.UNFREEZE: _freeze,
    wire.GET_CGROUP2_FD: _cgroup2_fd,
    wire.GET_INIT_PIDFD: lambda target, request: _one_fd(target.init_pidfd()),
    wire.GET_LIMIT_CGROUP: _cgroup,
    wire.GET_LIMIT_CGROUP2_FD: _cgroup2_fd,
    wire.GET_DEVPTS_FD: lambda target, request: _one_fd(target.devpts_fd()),
    wire.GET_SECCOMP_NOTIFY_FD: lambda target, request: _one_fd(target.seccomp_notify_fd()),
    wire.GET_CGROUP_CTX: _cgroup_ctx,
    wire.GET_CGROUP_FD: _cgroup_fd,
    wire.GET_LIMIT_CGROUP_FD: _cgroup_fd,
    wire.GET_SYSTEMD_SCOPE: _scope,
}
