"""What a container that outlived its supervisor gets anew: console and ttys, whose masters died with it.

Its gettys and whoever read them were hung up on; those that are started again come upon the new ones.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from lxcpy import log
from lxcpy.kernel import namespace
from lxcpy.kernel.fd import Fd
from lxcpy.rootfs import terminals
from lxcpy.runtime.channel import Channel, Closed
from lxcpy.runtime.consoles import Console, Ttys

if TYPE_CHECKING:
    from lxcpy.runtime.live import Live
    from lxcpy.runtime.supervisor import Supervisor

LOG = log.Log("supervisor")
PAUSE = 0.002  # seconds


def restore_terminals(live: Live) -> None:
    """See that they are made; `live` gets them when they are. One after the other: clients are served in between."""
    if not live.config.rootfs.path or (live.config.console.path == "none" and not live.config.tty.max):
        return
    live.remaking = True
    live.supervisor.remaking.append(live)
    if len(live.supervisor.remaking) == 1:
        live.loop.after(PAUSE, lambda: _next(live.supervisor))


def _next(supervisor: Supervisor) -> None:
    live = supervisor.remaking.popleft()
    if supervisor.remaking:
        supervisor.loop.after(PAUSE, lambda: _next(supervisor))
    if live.pidfd is None:
        live.remaking = False  # it ended meanwhile
    else:
        _remake(live)


def _remake(live: Live) -> None:
    """In a process of its own, for the container may stand in its way."""
    ours, theirs = Channel.pair()
    pid, config = live.pid, live.config
    fd = theirs.fileno()

    def work() -> None:
        root = Fd(os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        spaces = [namespace.open_namespace(pid, name) for name in (("user", "mnt") if os.geteuid() else ("mnt",))]

        def join() -> None:
            for space in spaces:
                namespace.setns(space.number)

        made = terminals.remake(root.number, config, join)
        masters = [master.number for master in (made.console, *made.ttys) if master is not None]
        theirs.send({"console": made.console is not None}, masters)

    def answered(_events: int) -> None:
        live.loop.forget(ours.fileno())
        live.remaking = False
        try:
            message, fds = ours.receive()
        except (Closed, OSError):
            LOG.warn(f"{live.name}: its terminals could not be made anew")
            return
        finally:
            ours.close()
        masters = [Fd(number) for number in fds]
        if live.pidfd is None:
            return  # it ended meanwhile
        if message["console"]:
            live.console = Console(live.loop, masters.pop(0), config)
        live.ttys = Ttys(masters)

    live.loop.watch(ours.fileno(), answered)
    live.supervisor.in_child(work, keep=[fd])
    theirs.close()

