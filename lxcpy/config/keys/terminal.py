"""Console, ttys and the monitor behind them."""

from __future__ import annotations

from lxcpy.config.keys.row import ONE, Row
from lxcpy.config.values import FILE_NAME, PATH, RING_SIZE, SIGNAL, SWITCH, UINT

ROWS = (
    Row("lxc.console.path", "console.path", PATH, ONE, "2.1",
        "Device or file of the host for the console; none: no console.", old=("lxc.console",)),
    Row("lxc.console.logfile", "console.logfile", PATH, ONE, "1.0.6",
        "File that receives the console's output."),
    Row("lxc.console.buffer.size", "console.buffer_size", RING_SIZE, ONE, "3.0",
        "Size of the console's ring buffer in memory."),
    Row("lxc.console.size", "console.size", RING_SIZE, ONE, "3.0",
        "Size at which the console's log file ends."),
    Row("lxc.console.rotate", "console.rotate", SWITCH, ONE, "3.0",
        "Whether the log file is rotated when it is full."),
    Row("lxc.tty.max", "tty.max", UINT, ONE, "2.1",
        "Number of ttys.", old=("lxc.tty",)),
    Row("lxc.tty.dir", "tty.dir", FILE_NAME, ONE, "2.1",
        "Directory below /dev that holds the console and the ttys.", old=("lxc.devttydir",)),
    Row("lxc.pty.max", "pty.max", UINT, ONE, "2.1",
        "Number of ptys of the container's own devpts; 0: the host's is used.", old=("lxc.pts",)),
    Row("lxc.monitor.unshare", "monitor.unshare", SWITCH, ONE, "2.0",
        "Whether the hooks before start run in a mount namespace of their own."),
    Row("lxc.monitor.signal.pdeath", "monitor.signal_pdeath", SIGNAL, ONE, "3.1",
        "Signal init gets when its supervisor dies.", unset="0"),
)  # fmt: skip
