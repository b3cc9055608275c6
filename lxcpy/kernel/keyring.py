"""The session keyring."""

from __future__ import annotations

from lxcpy.kernel import libc

_KEYCTL = {"KEYCTL_JOIN_SESSION_KEYRING": 1, "KEYCTL_SETPERM": 5}
_join = libc.syscall("keyctl", (libc.int_, libc.choice(_KEYCTL)), (libc.string, libc.text))
_setperm = libc.syscall("keyctl", (libc.int_, libc.choice(_KEYCTL)), (libc.int_, libc.number), (libc.u32, hex))

POSSESSOR_ALL = 0x3F000000


def join_session_keyring(name: str | None = None) -> int:
    """Begin a new, empty session keyring, so that keys of the caller's session are not seen; its serial number.

    Raises OSError; ENOSYS on a kernel without keyrings, EDQUOT when the user has too many.
    """
    return _join(1, libc.encode(name))


def set_permissions(serial: int, permissions: int) -> None:
    """Who may do what with a key (keyctl_setperm(3)). Raises OSError."""
    _setperm(5, serial, permissions)
