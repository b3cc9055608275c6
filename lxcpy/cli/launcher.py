"""The script behind every installed command, and the links that name it: `python3 -m lxcpy.cli.launcher DIRECTORY`.

pip's own console scripts work too, but import re and run the site module: 6 ms that a light command feels. This one is
started with -I (no user's environment or directory) and -S (no site), and knows where its packages are. What enters
containers, lxcpy-attach, has a program before it (front.py).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from lxcpy.cli import front
from lxcpy.cli.registry import COMMANDS

SCRIPT = """\
#!{python} -IS
import sys

sys.path += {packages!r}
from lxcpy.cli.main import leave, main

leave(main())
"""


def script(python: str, packages: Sequence[str]) -> str:
    """The text of the script: run by the interpreter `python`, with the directories `packages` after the library's."""
    return SCRIPT.format(python=python, packages=list(packages))


def names() -> list[str]:
    """The commands' names as they are typed; the first is the script itself, the rest are links to it."""
    return ["lxcpy", *(f"lxcpy-{name}" for name in COMMANDS)]


def install(directory: str, *, python: str, packages: Sequence[str]) -> list[str]:
    """Write the script and the links into `directory`; what was there under these names is replaced. Raises OSError."""
    os.makedirs(directory, exist_ok=True)
    first, *links = (os.path.join(directory, name) for name in names())
    _write(first, script(python, packages).encode(errors="surrogateescape"))
    for link in links:
        if os.path.lexists(link):
            os.unlink(link)
        os.symlink("lxcpy", link)
    if os.uname().machine == "x86_64":
        _write(os.path.join(directory, "lxcpy-attach"), front.program(python, list(packages)))
    return [first, *links]


def _write(path: str, data: bytes) -> None:
    with open(f"{path}.new", "wb") as file:
        file.write(data)
        os.fchmod(file.fileno(), 0o755)
    os.rename(f"{path}.new", path)


def main() -> int:
    """Install for the interpreter and the packages that run this module."""
    here = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    packages = [here, *(path for path in sys.path if path.endswith("-packages") and path != here)]
    for path in install(sys.argv[1], python=sys.executable, packages=packages):
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
