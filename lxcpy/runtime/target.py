"""A container of the supervisor as liblxc's command socket sees it (the interface is lxctarget.Target)."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lxcpy.cgroups import control as cgroup_control
from lxcpy.cgroups import layout as cgroup_layout
from lxcpy.config.file import ConfigFile
from lxcpy.errors import LxcpyError
from lxcpy.kernel import namespace
from lxcpy.kernel.fd import Fd, open_in_root
from lxcpy.runtime import joins, monitor, state
from lxcpy.runtime import lxcprotocol as wire
from lxcpy.runtime.lxctarget import Group

if TYPE_CHECKING:
    from lxcpy.runtime.live import Live


class LiveTarget:
    """What real LXC's tools may ask of a container that we run, and what they may do to it."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.name = live.name
        self.lxcpath = live.lxcpath
        self.lent_console: Fd | None = None  # the server sends a copy; ours goes when the client does

    def state(self) -> str:
        return self.live.current_state()

    def init_pid(self) -> int:
        return self.live.pid if self.live.pidfd is not None else 0

    def init_pidfd(self) -> int:
        return self.live.pidfd.number if self.live.pidfd is not None else -1

    def clone_flags(self) -> int:
        names = joins.namespaces(self.live.config, self.live.record["options"]["share"]).new
        return sum(namespace.NAMESPACES[name] for name in names)

    def config_item(self, key: str) -> str | None:
        text = self.live.record.get("text")
        if not text:
            return None
        try:
            return ConfigFile.from_text(text).get(key) or self._decided(key)
        except LxcpyError:
            return None

    def _decided(self, key: str) -> str | None:
        """What the config left open and the start decided: the names of an interface and its address."""
        head, _, rest = key.removeprefix("lxc.net.").partition(".")
        field = {"veth.pair": "host", "name": "name", "hwaddr": "hwaddr"}.get(rest)
        nics = (self.live.record.get("network") or {}).get("nics") or []
        if not field or not key.startswith("lxc.net."):
            return None
        return next((nic.get(field) for nic in nics if str(nic["index"]) == head), None)

    def groups(self) -> Sequence[Group]:
        record = self.live.record.get("cgroups") or {}
        payload, limit = record.get("payload") or {}, record.get("limit") or {}
        return [
            Group(
                hierarchy.mount,
                hierarchy.version,
                tuple(hierarchy.controllers),
                payload[hierarchy.mount],
                limit.get(hierarchy.mount, payload[hierarchy.mount]),
            )
            for hierarchy in cgroup_layout.detect().hierarchies
            if hierarchy.mount in payload
        ]

    def stop(self) -> None:
        try:
            self.live.signal("stop")
        except LxcpyError as error:
            raise OSError(errno.ESRCH, error.what) from None

    def freeze(self, timeout: int) -> None:
        try:
            cgroup_control.freeze(self.live.record["cgroups"])
        except LxcpyError as error:
            raise OSError(errno.EBUSY, error.what) from None

    def unfreeze(self, timeout: int) -> None:
        try:
            cgroup_control.thaw(self.live.record["cgroups"])
        except LxcpyError as error:
            raise OSError(errno.EBUSY, error.what) from None

    def state_changed(self, state: str) -> None:
        if self.live.state in ("RUNNING", "FREEZING", "FROZEN", "THAWED"):
            self.live.set_state("RUNNING" if state == "THAWED" else state, announced=True)

    def console(self, tty: int) -> tuple[int, int] | None:
        live = self.live
        if tty == 0:
            if live.console is None:
                return None
            master = live.console.attach()
            if master is None:
                return None
            self.lent_console = master
            return master.number, 0
        taken = live.ttys.take(tty, ("lxc", tty))
        if not taken:
            return None
        live.ttys.holders[taken] = ("lxc", taken)
        return live.ttys.master(taken).number, taken

    def release_console(self, tty: int) -> None:
        if tty == 0:
            if self.live.console is not None:
                self.live.console.detach()
            if self.lent_console is not None:
                self.lent_console.close()
        else:
            self.live.ttys.release(("lxc", tty))

    def console_log(self, *, clear: bool, read: bool, read_max: int) -> bytes:
        ring = self.live.console.ring if self.live.console else None
        if ring is None:
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
        data = ring.read(read_max) if read else b""
        if clear:
            ring.clear()
        if read and not data:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        return data

    def devpts_fd(self) -> int:
        if self.live.pidfd is None:
            return -1
        try:
            with Fd(os.open(f"/proc/{self.live.pid}/root", os.O_PATH | os.O_CLOEXEC)) as root:
                self.devpts = open_in_root(root.number, "dev/pts", os.O_PATH | os.O_DIRECTORY)
            device = os.stat("ptmx", dir_fd=self.devpts.number, follow_symlinks=False).st_rdev
        except OSError:
            return -1
        return self.devpts.number if (os.major(device), os.minor(device)) == (5, 2) else -1

    def seccomp_notify_fd(self) -> int:
        return -1

    def add_listener(self, listener: int) -> None:
        live, policy = self.live, self.live.config.seccomp
        # anything else would never end: the process that answers reads as long as there is something to read
        genuine = os.readlink(f"/proc/self/fd/{listener}") == "anon_inode:seccomp notify"
        if not policy.notify_proxy or live.pidfd is None or not genuine:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        words = {"name": self.name, "lxcpath": self.lxcpath, "init": live.pid}
        words |= {"proxy": policy.notify_proxy, "cookie": policy.notify_cookie}
        monitor.answer_calls(live.supervisor, Fd(os.dup(listener)), words, lambda: live.record)

    def add_device(self, rule: wire.DeviceRule) -> None:
        word = "devices.allow" if rule.allow else "devices.deny"
        try:
            cgroup_control.write(self.live.record["cgroups"], word, rule.text)
            state.save(self.live.record)  # the rules of a program can be read nowhere else
        except LxcpyError as error:
            raise OSError(errno.EINVAL, error.what) from None

    def systemd_scope(self) -> str | None:
        return None
