"""Runs a template script of LXC's contract: `--path --name --rootfs`, then the caller's words."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Sequence
from typing import NamedTuple

from lxcpy.errors import BootstrapError, meaning
from lxcpy.kernel import idmap, mount, namespace, process
from lxcpy.kernel.idmap import IdRange, with_own

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
    uids: Sequence[IdRange], gids: Sequence[IdRange], apart: bool = False,
) -> None:  # fmt: skip
    """Run it to its end, in a mount namespace of its own. Raises BootstrapError.

    quiet: its words are dropped. apart: they all go to standard error.
    uids, gids: the container's id map; with one it runs as the map's root, and the caller's own ids are mapped too, to
    the first ones that the map leaves free: so it may write the config, and is told them to give that away.
    """
    argv = [os.path.basename(script.path), f"--path={path}", f"--name={name}", f"--rootfs={rootfs}", *words]
    if uids:
        uids, uid = with_own(uids, os.geteuid())
        gids, gid = with_own(gids, os.getegid())
        argv = [script.path, *argv[1:], "--mapped-uid", str(uid), "--mapped-gid", str(gid)]
    try:
        status = _wait(_Child(script, argv, uids, gids, quiet=quiet, apart=apart))
    except OSError as error:
        raise BootstrapError(f'cannot run the template "{script.path}": {meaning(error)} ({error})') from error
    if status:
        end = f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"
        raise BootstrapError(f'the template "{script.path}" {end}', hint="its own words are above")


class _Child:
    """The process that becomes the template; with an id map it waits until its own is written."""

    def __init__(
        self, script: Script, argv: Sequence[str], uids: Sequence[IdRange], gids: Sequence[IdRange], *, quiet: bool,
        apart: bool,
    ) -> None:  # fmt: skip
        self.script, self.argv, self.mapped, self.quiet, self.apart = script, argv, bool(uids), quiet, apart
        ours, theirs = socket.socketpair()
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            self.become(theirs)
        theirs.close()
        with ours:
            problem = ours.recv(4096)
            try:
                if self.mapped and not problem.startswith(b"!"):
                    idmap.write_maps(self.pid, uids, gids)
                    ours.send(b"go")
                    problem = ours.recv(4096)  # its end: execve(2) closes it
            except OSError:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise
        if problem.startswith(b"!"):
            os.waitpid(self.pid, 0)
            number, _, words = problem[1:].decode(errors="replace").partition(" ")
            raise OSError(int(number), words)

    def become(self, channel: socket.socket) -> None:
        """In the child; does not return."""
        try:
            namespace.unshare(namespace.CLONE_NEWNS)
            mount.mount(None, "/", None, mount.MS_REC | mount.MS_SLAVE)
            if self.mapped:
                namespace.unshare(namespace.CLONE_NEWUSER | namespace.CLONE_NEWNS)
                channel.send(b"map")
                channel.recv(2)
                os.setgroups([])
                os.setresgid(0, 0, 0)
                os.setresuid(0, 0, 0)
            process.set_pdeathsig(signal.SIGKILL)  # after the change of ids, which clears it
            os.umask(0o022)
            if self.quiet:
                null = os.open(os.devnull, os.O_RDWR)
                for number in range(3):
                    os.dup2(null, number)
            elif self.apart:
                os.dup2(2, 1)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, a shell expects it
            os.execv(self.script.path, list(self.argv))
        except OSError as error:
            channel.send(f"!{error.errno or 0} {error.strerror or error}".encode())
        finally:
            os._exit(127)


def _wait(child: _Child) -> int:
    """The exit status, -N for signal N. An interrupt is the template's too, and is waited for."""
    try:
        return os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1])
    except KeyboardInterrupt:
        os.waitpid(child.pid, 0)
        raise
