"""SSH host keys that take long, made by the host's ssh-keygen while the container's system is put together."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence

from lxcpy.errors import BootstrapError, meaning
from lxcpy.kernel import process
from lxcpy.kernel.fd import exists_in_root, write_in_root
from lxcpy.log import Log

LOG = Log("bootstrap")
_DAEMON = "etc/ssh/sshd_config"
_MOST = 4  # searchers for one key


class HostKeys:
    """The keys of one new container; none where the host has no ssh-keygen.

    How long the search for primes takes is chance, from a fifth of a second to two: each processor makes a key of its
    own, and the first is taken. They are drafted in `place`, the container's own directory, which only its owner can
    read and which a later command clears if this process is killed.
    """

    def __init__(self, kinds: Sequence[str], place: str, name: str) -> None:
        """Begin: a key of each kind (of ssh-keygen's -t)."""
        self._folder = ""
        self._makers: dict[str, list[subprocess.Popen[bytes]]] = {}
        program = shutil.which("ssh-keygen")
        if not kinds or program is None:
            return
        try:
            self._folder = tempfile.mkdtemp(prefix=".host-keys-", dir=place)
            for kind in kinds:
                # PEM: the form that an sshd of any age can read
                argv = [program, "-q", "-m", "PEM", "-t", kind, "-N", "", "-C", f"root@{name}", "-f"]
                makers = self._makers[kind] = []
                for number in range(min(os.cpu_count() or 1, _MOST)):
                    makers.append(_start([*argv, self._draft(kind, number)]))
        except OSError as error:
            LOG.info(f"no SSH host keys are made ahead: {meaning(error)}")

    def _draft(self, kind: str, number: int) -> str:
        return f"{self._folder}/{kind}-{number}"

    def coming(self, root: int) -> list[str]:
        """The kinds that `give` is going to put into the tree `root`: none if it has no SSH daemon."""
        return list(self._makers) if exists_in_root(root, _DAEMON) else []

    def give(self, root: int) -> list[str]:
        """Put them into the tree when they are ready: the kinds that are there now. Raises BootstrapError.

        A kind that the host's ssh-keygen failed to make is left to the system's own.
        """
        first = {kind: _first(self._makers[kind]) for kind in self.coming(root)}
        made = {kind: number for kind, number in first.items() if number is not None}
        try:
            for kind, number in made.items():
                for end, mode in (("", 0o600), (".pub", 0o644)):
                    with open(self._draft(kind, number) + end, "rb") as key:
                        write_in_root(root, f"etc/ssh/ssh_host_{kind}_key{end}", key.read(), mode)
        except OSError as error:
            raise BootstrapError(f"cannot give the new system its SSH host keys: {meaning(error)} ({error})") from error
        return list(made)

    def close(self) -> None:
        """End what is still being made, and leave no draft."""
        for makers in self._makers.values():
            for maker in makers:
                maker.kill()
                maker.wait()
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = ""


def _start(argv: Sequence[str]) -> subprocess.Popen[bytes]:
    none = subprocess.DEVNULL
    return subprocess.Popen(argv, stdin=none, stdout=none, stderr=none, preexec_fn=_settle)


def _settle() -> None:
    """In the child: it ends with this process, whatever ends that, and the copying of the tree goes before it."""
    process.set_pdeathsig(signal.SIGKILL)
    os.nice(10)


def _first(makers: Sequence[subprocess.Popen[bytes]]) -> int | None:
    """The number of the first one to succeed; None if none does."""
    while True:
        ends = [maker.poll() for maker in makers]
        if 0 in ends:
            return ends.index(0)
        if None not in ends:
            return None
        time.sleep(0.005)
