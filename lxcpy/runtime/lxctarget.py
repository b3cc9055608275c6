"""What liblxc's command socket asks of a container: the interface between the protocol's server and the supervisor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from lxcpy.runtime import lxcprotocol as wire


class Group(NamedTuple):
    """One hierarchy in which the container has control groups."""

    mount: str  # where the hierarchy is mounted: /sys/fs/cgroup/memory
    version: int  # 1 or 2
    controllers: tuple[str, ...]  # `name=systemd` for a named one
    payload: str  # the container's group below the mount: /lxc.payload.web
    limit: str  # the group that carries the limits; the payload's, unless lxc.cgroup.dir.container.inner is set


class Target(Protocol):
    """What the server asks of a container. Descriptors returned stay the container's; nothing here may block."""

    name: str
    lxcpath: str

    def state(self) -> str: ...
    def init_pid(self) -> int:
        """0 while there is none."""
        ...

    def init_pidfd(self) -> int:
        """-1 while there is none."""
        ...

    def clone_flags(self) -> int:
        """CLONE_NEW* of the namespaces that are the container's own."""
        ...

    def config_item(self, key: str) -> str | None:
        """LXC's canonical text of a key of the running config (lists end each item with a newline); None: unset."""
        ...

    def groups(self) -> Sequence[Group]: ...
    def stop(self) -> None:
        """Send lxc.signal.stop to init, then thaw. Raises OSError."""
        ...

    def freeze(self, timeout: int) -> None:
        """Begin to freeze (pure v2 only: on v1 a client writes to the freezer itself). Raises OSError."""
        ...

    def unfreeze(self, timeout: int) -> None: ...
    def state_changed(self, state: str) -> None:
        """A client of LXC has frozen or thawed the container: FREEZING, FROZEN, THAWED or RUNNING.

        The server has told the state clients, and the client tells lxc-monitord: only the state is to be kept.
        """
        ...

    def console(self, tty: int) -> tuple[int, int] | None:
        """Lend a terminal: 0 the console, N tty N, -1 the next free tty. (master, its number); None: busy or none."""
        ...

    def release_console(self, tty: int) -> None:
        """The client that had this terminal has gone."""
        ...

    def console_log(self, *, clear: bool, read: bool, read_max: int) -> bytes:
        """The console's ring buffer. Raises OSError: ENODATA when empty, EFAULT without a buffer."""
        ...

    def devpts_fd(self) -> int:
        """The root of the container's devpts; -1 without one."""
        ...

    def seccomp_notify_fd(self) -> int: ...
    def add_listener(self, listener: int) -> None:
        """Answer the calls of a process that lxc-attach has brought in; `listener` is the caller's. Raises OSError."""
        ...

    def add_device(self, rule: wire.DeviceRule) -> None:
        """Change the device rules (pure v2). Raises OSError."""
        ...

    def systemd_scope(self) -> str | None: ...


def find_group(groups: Sequence[Group], controller: str | None) -> Group | None:
    """The hierarchy that LXC would take for `controller`; None as controller: a v2 hierarchy without any."""
    unified = layout(groups) == wire.LAYOUT_UNIFIED
    for group in groups:
        if controller is None:
            if not group.controllers:
                return group
        elif controller in group.controllers or (unified and controller in ("devices", "freezer")):
            return group
    return None


def layout(groups: Sequence[Group]) -> int:
    """LXC's number of the layout."""
    versions = {group.version for group in groups}
    if versions == {2}:
        return wire.LAYOUT_UNIFIED
    return wire.LAYOUT_HYBRID if 2 in versions else wire.LAYOUT_LEGACY
