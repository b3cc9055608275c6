"""The host's Python as a container's init: it tells what a process alone can know of itself."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lifecycle.conftest import Box

PYTHON = "lxc.init.cmd = /python\n" + "".join(
    f"lxc.mount.entry = /{name} {name} none ro,rbind,create=dir,optional 0 0\n" for name in ("usr", "lib", "lib64")
)
PROBE = """\
import ctypes, os, sys, time
def say(what):
    with open("/said.new", "w") as file:
        file.write(str(what))
    os.rename("/said.new", "/said")
{code}
time.sleep(1000)
"""


def python(one: Box, code: str) -> Box:
    """Init is the host's Python, running `code`."""
    program = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
    Path(one.rootfs, "python").write_text(f"#!/bin/sh\nexec {program} -IS /probe.py\n")
    os.chmod(f"{one.rootfs}/python", 0o755)
    Path(one.rootfs, "probe.py").write_text(PROBE.format(code=code))
    return one


def said(one: Box) -> str:
    deadline = time.monotonic() + 20
    while not os.path.exists(f"{one.rootfs}/said"):
        assert time.monotonic() < deadline and one.state == "RUNNING"
        time.sleep(0.01)
    return Path(one.rootfs, "said").read_text()
