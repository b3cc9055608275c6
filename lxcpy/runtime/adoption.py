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

LOG = log.Log("supervisor")


def restore_terminals(live: Live) -> None:
    """Make them in a process of their own, for the container may stand in its way; `live` gets them when they are."""
    if not live.config.rootfs.path or (live.config.console.path == "none" and not live.config.tty.max):
        return
    ours, theirs = Channel.pair()
    pid, config = live.pid, live.config
    fd = theirs.fileno()

    def work() -> None:
        root = Fd(os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        mounts = namespace.open_namespace(pid, "mnt")
        made = terminals.remake(root.number, config, lambda: namespace.setns(mounts.number, namespace.CLONE_NEWNS))
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

    live.remaking = True
    live.loop.watch(ours.fileno(), answered)
    live.supervisor.in_child(work, keep=[fd])
    theirs.close()

