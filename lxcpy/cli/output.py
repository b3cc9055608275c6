"""What commands print: sizes and JSON, the terminal's width."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def size(value: int) -> str:
    """Bytes as lxc-info writes them: `1023 bytes`, `1.50 KiB`, `2.00 MiB`, `3.99 GiB`.

    The rounding is LXC's: half a hundredth is added before a cut, but GiB are only cut.
    """
    if value > 1 << 30:
        return f"{value >> 30}.{(value & (1 << 30) - 1) // 10737419:02d} GiB"
    if value > 1 << 20:
        value += 5243
        return f"{value >> 20}.{(value & (1 << 20) - 1) * 100 >> 20:02d} MiB"
    if value > 1 << 10:
        value += 5
        return f"{value >> 10}.{(value & (1 << 10) - 1) * 100 >> 10:02d} KiB"
    return f"{value} bytes"


def width() -> int:
    """Columns of the terminal, asked of standard output, error and input in turn; 0 where there is none."""
    for fd in (1, 2, 0):
        try:
            return os.get_terminal_size(fd).columns
        except OSError:
            pass
    return 0


def json(value: Any) -> str:
    """`value` as one line of JSON; a name that is no UTF-8 keeps its bytes as \\udcXX escapes."""
    from lxcpy.runtime.fastjson import dumps

    return f"{dumps(value)}\n"
