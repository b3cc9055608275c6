"""execvpe(3) without the library's lazy imports, whose files may be out of reach in another root."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import NoReturn

DEFAULT_PATH = "/bin:/usr/bin"  # glibc's, where the environment has no PATH
_ENOEXEC = 8


def exec_in_path(argv: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Become `argv`, looked for in the PATH of `environment`. Raises OSError.

    As execvp(3) does, a file that is no program is taken for a script of /bin/sh.
    """
    if not argv[0]:
        raise FileNotFoundError(2, os.strerror(2))
    if "/" in argv[0]:
        _exec(argv[0], argv, environment)
    failure: OSError = FileNotFoundError(2, os.strerror(2))
    for folder in environment.get("PATH", DEFAULT_PATH).split(":"):
        try:
            _exec(f"{folder or '.'}/{argv[0]}", argv, environment)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except PermissionError as error:
            failure = error  # one that may not be run is better news than none
    raise failure


def _exec(path: str, argv: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    try:
        os.execve(path, list(argv), environment)
    except OSError as error:
        if error.errno != _ENOEXEC:
            raise
    os.execve("/bin/sh", ["/bin/sh", path, *argv[1:]], environment)
