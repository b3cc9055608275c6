"""What LXC's monitor of one container has to itself, and our supervisor, which serves all, has not: its mount namespace
(lxc.monitor.unshare), its control group (lxc.cgroup.dir.monitor), its log, and the answers to system calls that a
policy passes on (lxc.seccomp.notify.*).

Who works for one container alone for a while takes its place: the launcher, the process of a teardown, and one that
answers system calls as long as the container lives.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from lxcpy import log
from lxcpy.cgroups import monitor as cgroup_monitor
from lxcpy.cgroups import own as own_cgroup
from lxcpy.config.model import Config
from lxcpy.errors import LxcpyError, StateError, meaning
from lxcpy.kernel import mount, namespace, process
from lxcpy.kernel.fd import Fd
from lxcpy.runtime import state
from lxcpy.security import notify

if TYPE_CHECKING:
    from lxcpy.runtime.supervisor import Supervisor

LOG = log.Log("monitor")
NAMESPACE = "monitor"  # among the namespaces of a container: the mount namespace of its monitor


def open_log(config: Config, options: Mapping[str, Any]) -> None:
    """-o and -l (launcher.Options), else lxc.log.file and lxc.log.level; lxc.log.syslog. Raises LxcpyError."""
    file = options["log_file"] or config.log.file
    level = options["log_level"] if options["log_level"] is not None else config.log.level
    level = log.ERROR if level is None else level
    try:
        log.open_log(file, level, program="lxcpy-start", name=options["name"], syslog=config.log.syslog)
    except OSError as error:
        raise LxcpyError(
            f'cannot open the log file "{file}": {meaning(error)}', at=config.at("lxc.log.file")
        ) from error


def unshare_mounts(config: Config) -> None:
    """lxc.monitor.unshare: what is mounted from here on is the host's no more. Raises StateError."""
    if not config.monitor.unshare:
        return
    try:
        namespace.unshare(namespace.CLONE_NEWNS)
        mount.mount(None, "/", None, mount.MS_SLAVE | mount.MS_REC)
    except OSError as error:
        raise StateError(
            f"lxc.monitor.unshare: no mount namespace for the hooks: {meaning(error)}",
            at=config.at("lxc.monitor.unshare"),
        ) from error


class Monitor:
    """The calling, single-threaded process in the monitor's place. Its methods raise nothing."""

    def __init__(self, record: state.Record) -> None:
        self.cgroups: dict[str, Any] = record.get("cgroups") or {}
        self.made: list[str] = []

    def enter(self, mounts: int | None = None) -> None:
        """Go into the monitor's groups and, if there is one, into its mount namespace behind descriptor `mounts`."""
        cgroup_monitor.enter(self.cgroups)
        if mounts is not None:
            try:
                namespace.setns(mounts, namespace.CLONE_NEWNS)
            except OSError as error:
                LOG.error(f"the hooks do not see what those before start have mounted: {meaning(error)}")

    def leave(self) -> None:
        """Out of the groups, which are to be removed."""
        if self.cgroups.get("serving"):
            own_cgroup.enter()
        try:
            self.made = cgroup_monitor.leave(self.cgroups)
        except LxcpyError as error:
            LOG.error(error.what)

    def end(self) -> None:
        """Out of the pivot groups, and remove them."""
        if self.cgroups.get("pivot"):
            own_cgroup.enter()
            cgroup_monitor.remove(self.made)


def answer_calls(
    supervisor: Supervisor, listener: Fd, words: Mapping[str, Any], record: Callable[[], state.Record | None]
) -> None:
    """A process that passes the container's notified calls on to the proxy, until nobody can make one any more.

    listener: taken over. words: proxy, cookie, init (its pid). record: the container's.
    """

    def work() -> None:
        process.set_title(f"lxcpy seccomp proxy {words['lxcpath']} {words['name']}")
        Monitor(record() or {}).enter()
        pids = {"init": words["init"], "monitor": os.getpid()}
        notify.Proxy(listener, words["proxy"], **pids, cookie=words["cookie"]).serve()

    with listener:
        supervisor.in_child(work, keep=[listener.number])
