"""What a command says on standard error, and where the traceback of a fault goes."""

from __future__ import annotations

import os
import sys

from lxcpy import __version__, log, paths
from lxcpy.errors import visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxcpy.errors import LxcpyError

LOG = log.Log("cli")


class Reporter:
    """Prints errors as `PROG: NAME: WHAT`, with the indented lines of `LxcpyError.lines` below."""

    def __init__(self, prog: str, name: str = "", *, quiet: bool = False) -> None:
        self.prog = prog
        self.name = name
        self.quiet = quiet

    def error(self, error: LxcpyError, name: str | None = None) -> None:
        """Print and log one error. name: the container, where it is not the command line's."""
        LOG.error(error.what)
        self._say(error, name, "")

    def warning(self, error: LxcpyError, name: str | None = None) -> None:
        """Print and log what goes wrong without keeping the command from its work."""
        LOG.warn(error.what)
        self._say(error, name, "warning: ")

    def _say(self, error: LxcpyError, name: str | None, kind: str) -> None:
        if self.quiet:
            return
        name = self.name if name is None else name
        prefix = f"{self.prog}: {name}: {kind}" if name else f"{self.prog}: {kind}"
        text = "".join(f"{line if line.startswith('  ') else prefix + line}\n" for line in error.lines())
        try:
            sys.stdout.flush()
            sys.stderr.write(visible(text))
            sys.stderr.flush()
        except (OSError, ValueError):
            pass  # nobody listens

    def keep_traceback(self) -> str:
        """Write the traceback of the current exception to a file that its owner alone can read; say where it is."""
        import traceback

        text = f"{self.prog} {self.name}, lxcpy {__version__}\n{traceback.format_exc()}"
        for folder in (paths.run_dir(), "/tmp"):
            path = os.path.join(folder, f"fault-{self.prog}-{os.getpid()}.txt")
            try:
                os.makedirs(folder, mode=0o755, exist_ok=True)
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            except OSError:
                continue
            with open(fd, "w", errors="backslashreplace") as file:
                file.write(text)
            return f"the details are in {path}"
        return "the details could not be written to a file"
