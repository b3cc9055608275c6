"""Pseudo terminals of any devpts instance, window sizes and raw mode."""

from __future__ import annotations

import fcntl
import os
import struct
import termios

from lxcpy.kernel.fd import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_TIOCGPTN = 0x80045430
_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441


def open_pty(ptmx: str | int = "/dev/ptmx") -> tuple[Fd, Fd, int]:
    """A new terminal: (master, slave, index), both close-on-exec and no controlling terminal of anybody.

    ptmx: the path of a devpts instance's ptmx, or an O_PATH (or other) descriptor of it. Raises OSError.
    """
    # A descriptor is opened anew by its magic link: dup would share one open file, and each open makes one terminal.
    path = f"/proc/self/fd/{ptmx}" if isinstance(ptmx, int) else ptmx
    flags = os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC
    master = Fd(os.open(path, flags))
    fcntl.ioctl(master.number, _TIOCSPTLCK, struct.pack("i", 0))
    index = struct.unpack("I", fcntl.ioctl(master.number, _TIOCGPTN, bytes(4)))[0]
    return master, open_slave(master.number), index


def open_slave(master: int) -> Fd:
    """The slave of a master, close-on-exec and nobody's controlling terminal. Raises OSError."""
    # By its master (Linux 4.13), not by name: the name may belong to another mount of devpts.
    return Fd(fcntl.ioctl(master, _TIOCGPTPEER, os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))


def window_size(fd: int) -> tuple[int, int]:
    """(columns, rows). Raises OSError."""
    rows, columns, _, _ = struct.unpack("4H", fcntl.ioctl(fd, termios.TIOCGWINSZ, bytes(8)))
    return columns, rows


def set_window_size(fd: int, columns: int, rows: int) -> None:
    """Set the size; the terminal's foreground processes get SIGWINCH. Raises OSError."""
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))


def copy_window_size(source: int, target: int) -> None:
    """Give `target` the size of `source`; nothing happens if one is no terminal."""
    try:
        columns, rows = window_size(source)
        set_window_size(target, columns, rows)
    except OSError:
        pass


def _attributes(fd: int) -> list[Any]:
    try:
        return termios.tcgetattr(fd)
    except termios.error as error:  # no OSError, whatever its arguments look like
        raise OSError(error.args[0], f"tcgetattr({fd}): {error.args[1]}") from None


def restore(fd: int, saved: list[Any]) -> None:
    """Set the attributes that make_raw returned, after pending output is out. Raises OSError."""
    try:
        termios.tcsetattr(fd, termios.TCSADRAIN, saved)
    except termios.error as error:
        raise OSError(error.args[0], f"tcsetattr({fd}): {error.args[1]}") from None


def make_raw(fd: int) -> list[Any]:
    """Pass every byte through unchanged (cfmakeraw(3)); the attributes before are returned. Raises OSError."""
    saved = _attributes(fd)
    raw = saved[:6] + [list(saved[6])]
    raw[0] &= ~(
        termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP | termios.INLCR | termios.IGNCR
        | termios.ICRNL | termios.IXON
    )  # fmt: skip
    raw[1] &= ~termios.OPOST
    raw[2] = raw[2] & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    raw[3] &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    raw[6][termios.VMIN] = b"\x01"
    raw[6][termios.VTIME] = b"\x00"
    restore(fd, raw)
    return saved


def set_controlling(fd: int) -> None:
    """Make the terminal that of the calling session leader. Raises OSError; EPERM if another session has it."""
    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)
