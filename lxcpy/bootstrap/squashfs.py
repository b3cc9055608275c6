"""Root filesystems that come as a squashfs image, unpacked by unsquashfs.

The image may come from anybody, and unsquashfs has followed links of its images out of its target before now
(CVE-2021-41072). So it runs where nothing but the target can be written, and without the right to make device nodes.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Sequence
from typing import Any

from lxcpy.bootstrap.children import Child
from lxcpy.errors import BootstrapError, meaning
from lxcpy.kernel import capability, mount, namespace

_KEPT = {"chown", "dac_override", "fowner", "fsetid", "setfcap"}


def is_one(file: int) -> bool:
    """Whether an open file is a squashfs image, by its magic number. Raises OSError."""
    return os.pread(file, 4, 0) == b"hsqs"


def unpack(file: int, target: str, *, name: str, excludes: Sequence[str] = ()) -> None:
    """Unpack an open image into the empty directory `target`, without its device nodes. Raises BootstrapError.

    excludes: patterns of names that are left out. name: what errors call the image.
    """
    program = shutil.which("unsquashfs")
    if program is None:
        raise BootstrapError(
            f"{name} is a squashfs image, and there is no unsquashfs here", hint="install squashfs-tools"
        )
    argv = [program, "-no-progress", "-quiet", "-no-exit-code", "-force", "-dest", "."]
    argv += ["-excludes", f"/proc/self/fd/{file}"]
    argv += [pattern.removeprefix("./").strip("/") for pattern in excludes]
    try:
        with Child(lambda channel: _confined(channel, argv, file, target)) as child:
            answer = next(child.answers())
    except OSError as error:
        raise BootstrapError(f"cannot unpack {name}: {meaning(error)} ({error})") from error
    if answer["status"]:
        words = answer["said"].strip().splitlines() or [f"exit status {answer['status']}"]
        raise BootstrapError(f"cannot unpack {name}: unsquashfs: {words[-1]}")


def _confined(channel: socket.socket, argv: Sequence[str], file: int, target: str) -> dict[str, Any]:
    """In the child."""
    namespace.unshare(namespace.CLONE_NEWNS | namespace.CLONE_NEWNET | namespace.CLONE_NEWIPC)
    mount.mount(None, "/", None, mount.MS_REC | mount.MS_PRIVATE)
    mount.mount(target, target, None, mount.MS_BIND)
    mount.mount_setattr(mount.AT_FDCWD, "/", mount.AT_RECURSIVE, attr_set=mount.MOUNT_ATTR_RDONLY)
    mount.mount_setattr(mount.AT_FDCWD, target, 0, attr_clear=mount.MOUNT_ATTR_RDONLY)
    os.chdir(target)
    kept = {number for number, word in enumerate(capability.CAPABILITIES) if word in _KEPT}
    capability.drop_bounding(set(range(capability.last_cap() + 1)) - kept)
    os.umask(0)
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", pass_fds=[file],
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
    )  # fmt: skip
    return {"status": done.returncode, "said": done.stderr}
