"""What a container's first process said before it ended: the cause, where the launcher sees what came of it alone."""

from __future__ import annotations

import os
import select

from lxcpy.errors import StateError, from_dict
from lxcpy.kernel.fd import Fd
from lxcpy.runtime.channel import Channel, Closed


def died() -> StateError:
    """It has said nothing."""
    hint = "the kernel's log (dmesg) may say why, such as out of memory"
    return StateError("the container's first process died while it was set up", hint=hint)


def cause(error: Exception, pidfd: Fd, channel: Channel) -> Exception:
    """The failure that the process told on its channel, if it has ended; else `error` itself."""
    # its namespaces and its channel go a moment before it counts as ended
    moment = 1.0 if isinstance(error, (OSError, Closed)) else 0.0
    if not select.select([pidfd], [], [], moment)[0]:
        return error
    try:
        while True:
            message, fds = channel.receive()
            for fd in fds:
                os.close(fd)
            if "failed" in message:
                return from_dict(message["failed"])
    except Closed:
        return died() if isinstance(error, Closed) else error
