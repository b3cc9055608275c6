"""SELinux: the context that the container's init runs in.

As real LXC does, a context asked for on a kernel without SELinux is left out, with a word in the log.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from lxcpy.config.model import Selinux
from lxcpy.errors import Origin, SecurityError, meaning
from lxcpy.log import Log

LOG = Log("selinux")
UNCONFINED = "unconfined_t"


def enabled() -> bool:
    """Whether this kernel runs SELinux."""
    return os.path.exists("/sys/fs/selinux/enforce") or os.path.exists("/selinux/enforce")


def prepare(config: Selinux, *, at: Callable[[str], Origin | None] = lambda key: None) -> str | None:
    """The context to set on exec; None for none. To be called on the host, before the fork. Raises nothing today."""
    context = config.context
    if not context or context == UNCONFINED:
        return None
    if not enabled():
        LOG.warn(f"lxc.selinux.context = {context}: left out, this kernel has no SELinux ({at('lxc.selinux.context')})")
        return None
    return context


def keyring_context(config: Selinux) -> str | None:
    """The context of the container's session keyring, which is made before its init has its own context."""
    return config.context_keyring if config.context_keyring and enabled() else None


def apply(context: str) -> None:
    """The calling process takes this context with its next exec. Needs a procfs on /proc. Raises SecurityError."""
    _write("exec", context)
    LOG.info(f"SELinux context on exec: {context}")


def apply_keyring(context: str) -> None:
    """Keys and keyrings made from here on get this context. Needs a procfs on /proc. Raises SecurityError."""
    _write("keycreate", context)


def _write(attribute: str, context: str) -> None:
    try:
        with open(f"/proc/thread-self/attr/{attribute}", "wb", buffering=0) as file:
            file.write(context.encode() + b"\0")
    except OSError as error:
        what = f'cannot set the SELinux context "{context}": {meaning(error)}'
        raise SecurityError(what, hint="the policy must define the context and allow the transition") from error


def context_of(pid: int) -> str | None:
    """The context of a process, for one that joins it; None without SELinux."""
    if not enabled():
        return None
    try:
        with open(f"/proc/{pid}/attr/current", "rb") as file:
            return file.read().rstrip(b"\0\n").decode() or None
    except OSError:
        return None
