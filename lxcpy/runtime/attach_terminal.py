"""The terminal of an attached process."""

from __future__ import annotations

import os

from lxcpy.errors import StateError, meaning
from lxcpy.kernel.fd import Fd
from lxcpy.runtime.attach_facts import Facts


def allocate(facts: Facts) -> tuple[Fd, Fd]:
    """A terminal of the container's devpts, else of the host's: (master, slave). Raises StateError."""
    from lxcpy.kernel import pty

    multiplexer = _multiplexer(facts)
    try:
        if multiplexer is None:
            master, slave, _index = pty.open_pty()
        else:
            with multiplexer:
                master, slave, _index = pty.open_pty(multiplexer.number)
    except OSError as error:
        raise StateError(
            f"no terminal can be had: {meaning(error)}", hint="lxc.pty.max limits those of a container"
        ) from error
    for number in filter(os.isatty, range(3)):
        pty.copy_window_size(number, master.number)  # before the command asks for it
        break
    if facts.root_ids is not None:
        _give(slave, facts.root_ids[0])  # else it would belong to nobody inside
    return master, slave


def _give(slave: Fd, uid: int) -> None:
    if os.geteuid() == 0:
        os.fchown(slave.number, uid, -1)
        return
    from lxcpy.runtime import mapped

    mapped.apart(lambda: os.fchown(slave.number, uid, -1))


def _multiplexer(facts: Facts) -> Fd | None:
    """The container's /dev/pts/ptmx. Its files are hostile: a descriptor is only taken of the device itself."""
    from lxcpy.kernel.fd import open_in_root

    number = facts.client.devpts_fd()
    try:
        if number >= 0:
            with Fd(number) as devpts:
                found = Fd(os.open("ptmx", os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=devpts.number))
        else:
            with Fd(os.open("root", os.O_PATH | os.O_CLOEXEC, dir_fd=facts.proc.number)) as root:
                found = open_in_root(root.number, "dev/pts/ptmx", os.O_PATH | os.O_NOFOLLOW)
    except OSError:
        return None
    device = os.fstat(found.number).st_rdev
    if (os.major(device), os.minor(device)) != (5, 2):
        found.close()
        return None
    return found
