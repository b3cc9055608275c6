"""An interpreter whose file cannot be reached for writing through /proc/PID/exe (CVE-2019-5736).

/proc/PID/exe leads to a mount and a file on it. Of a process that is, or was, the interpreter inside a container, the
container's root gets that file: by looking at the process, or by a script that names /proc/self/exe as its interpreter.
Where it has the host's root's ids it could write it. So such a process is executed from a mount of its own that is
read-only: a detached clone of the interpreter's place, which no mount namespace holds and nobody can remount (mount(2)
and mount_setattr(2) refuse a mount outside of the caller's namespace).
"""

from __future__ import annotations

import os
import sys

from lxcpy.kernel.fd import Fd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn


def is_sealed() -> bool:
    """Whether this process runs from a read-only mount. Raises OSError without procfs."""
    return bool(os.statvfs("/proc/self/exe").f_flag & os.ST_RDONLY)


def interpreter(path: str) -> Fd:
    """The program at `path` on a read-only mount of its own, to be executed. Raises OSError."""
    from lxcpy.kernel import mount  # for those alone that are not sealed yet

    tree = mount.open_tree(mount.AT_FDCWD, path, mount.OPEN_TREE_CLONE)
    mount.mount_setattr(tree.number, "", mount.AT_EMPTY_PATH, attr_set=mount.MOUNT_ATTR_RDONLY)
    return tree


def execute(path: str, argv: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """execve(2) of a program on a sealed mount, as it is where the caller may not make one. Raises OSError."""
    try:
        with interpreter(path) as tree:
            os.execve(tree.path, list(argv), environment)
    except OSError:
        os.execve(path, list(argv), environment)


def seal(environment: Mapping[str, str]) -> None:
    """Begin this command anew on a sealed mount, unless it is on one, or is not root's to begin with.

    Costs another start of the interpreter; the installed lxcpy-attach has done it before (cli/front.py).
    """
    if os.geteuid() != 0:
        return
    try:
        if is_sealed():
            return
        with interpreter(sys.executable) as tree:
            if os.fstatvfs(tree.number).f_flag & os.ST_RDONLY:  # else it would go on for ever
                os.execve(tree.path, [sys.executable, *sys.orig_argv[1:]], environment)
    except OSError:
        pass  # no right to mount, or Linux before 5.12: as good as it was
