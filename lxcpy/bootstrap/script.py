"""Runs a template script of LXC's contract: `--path --name --rootfs`, then the caller's words."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from typing import NamedTuple

from lxcpy.errors import BootstrapError, meaning
from lxcpy.kernel.idmap import IdRange

DIRECTORY = "/usr/share/lxc/templates"


class Script(NamedTuple):
    """An executable."""

    path: str


def find(name: str) -> Script | None:
    """The script behind `-t NAME`: an absolute path, or LXC's `lxc-NAME`; None where there is no such executable."""
    path = name if name.startswith("/") else f"{DIRECTORY}/lxc-{name}"
    return Script(path) if os.path.isfile(path) and os.access(path, os.X_OK) else None


def run(
    script: Script, *, path: str, name: str, rootfs: str, words: Sequence[str], quiet: bool,
    uids: Sequence[IdRange], gids: Sequence[IdRange],
) -> None:  # fmt: skip
    """Run it to its end, in a mount namespace of its own. Raises BootstrapError."""
    argv = [script.path, f"--path={path}", f"--name={name}", f"--rootfs={rootfs}", *words]
    if uids:
        argv += ["--mapped-uid", str(sum(one.count for one in uids)), "--mapped-gid", str(sum(o.count for o in gids))]
        maps = [f"u:{one.nsid}:{one.hostid}:{one.count}" for one in uids]
        maps += [f"g:{one.nsid}:{one.hostid}:{one.count}" for one in gids]
        argv = ["lxcpy-usernsexec", *(word for one in maps for word in ("-m", one)), "--", *argv]
    output = subprocess.DEVNULL if quiet else None
    try:
        done = subprocess.run(["unshare", "-m", "--", *argv], stdout=output, stderr=output, umask=0o022)
    except OSError as error:
        raise BootstrapError(f'cannot run the template "{script.path}": {meaning(error)}') from error
    if done.returncode:
        raise BootstrapError(
            f'the template "{script.path}" ended with status {done.returncode}', hint="its own words are above"
        )
