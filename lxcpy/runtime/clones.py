"""Who depends on whom: a container's snapshot clones (lxc_snapshots) and a clone's originals (lxc_rdepends).

Both files are LXC's: two lines an entry, lxcpath and name (runtime.md, G). LXC before 1.1 wrote only how many clones
there are.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from lxcpy.errors import StateError, StorageError, meaning
from lxcpy.kernel.fd import Fd
from lxcpy.runtime import lock

CLONES, ORIGINALS = "lxc_snapshots", "lxc_rdepends"
Pairs = list[tuple[str, str]]


def dependents(directory: str) -> Pairs:
    """(lxcpath, name) of the clones of a container that still exist, each once."""
    pairs = dict.fromkeys(_read(os.path.join(directory, CLONES)))
    return [(lxcpath, name) for lxcpath, name in pairs if os.path.isdir(os.path.join(lxcpath, name))]


def uncounted(directory: str) -> int:
    """How many clones an LXC of old has noted without their names."""
    try:
        with open(os.path.join(directory, CLONES), encoding="utf-8", errors="surrogateescape") as file:
            return int(file.readline())
    except (FileNotFoundError, ValueError):
        return 0


def check_none(directory: str, what: str) -> None:
    """Raises StateError, `what` and who depends on it, for a container that has snapshot clones."""
    names = [name for _path, name in dependents(directory)]
    if count := uncounted(directory):
        raise StateError(
            f"{what}: {count} clones depend on it",
            hint=f'an old LXC noted their number in "{directory}/{CLONES}"; remove that file when they are gone',
        )
    if names:
        raise StateError(f"{what}: it has clones that depend on it: {', '.join(names)}", hint="destroy those first")


def originals(directory: str) -> Pairs:
    """(lxcpath, name) of the containers that a clone depends on."""
    return _read(os.path.join(directory, ORIGINALS))


def note_originals(directory: str, pairs: Sequence[tuple[str, str]]) -> None:
    """Write lxc_rdepends; none where nothing is depended on. Raises OSError."""
    if pairs:
        _write(os.path.join(directory, ORIGINALS), pairs)


def register(pairs: Sequence[tuple[str, str]], lxcpath: str, name: str) -> None:
    """Note the clone (lxcpath, name) with each of its originals. Raises StateError where one of them has gone."""
    for original_path, original in pairs:
        directory = os.path.join(original_path, original)
        try:
            _change(directory, (lxcpath, name), add=True)
        except FileNotFoundError:
            what = f'the original "{original}" in {original_path} is missing'
            raise StateError(what, hint=f'"{name}" would depend on its files') from None
        except OSError as error:
            raise StorageError(f'cannot note the clone in "{directory}": {meaning(error)}') from error


def forget(pairs: Sequence[tuple[str, str]], lxcpath: str, name: str) -> None:
    """Take the clone (lxcpath, name) out of what its originals noted; an original that has gone is no error."""
    for original_path, original in pairs:
        try:
            _change(os.path.join(original_path, original), (lxcpath, name), add=False)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise StorageError(f'cannot take a clone off "{original}": {meaning(error)}') from error


def _change(directory: str, pair: tuple[str, str], *, add: bool) -> None:
    path = os.path.join(directory, CLONES)
    if not add and not os.path.exists(path):
        return
    with lock.lxc(directory), _locked(path):
        count = uncounted(directory)
        if count:
            _write(path, f"{max(0, count + (1 if add else -1))}\n")
            return
        left = [other for other in _read(path) if other != pair]
        if add:
            left.append(pair)
        if left:
            _write(path, left)
            return
        for gone in (f"{path}.new", path):  # the first is of a command that was killed
            if os.path.exists(gone):
                os.unlink(gone)


@contextmanager
def _locked(path: str) -> Iterator[None]:
    """Be the only one who changes the file at `path`, which others replace."""
    while True:
        with Fd(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)) as file:
            fcntl.flock(file.number, fcntl.LOCK_EX)
            if _is(file.number, path):
                yield
                return


def _is(fd: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(fd), os.stat(path))
    except FileNotFoundError:
        return False


def _read(path: str) -> Pairs:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return []
    return list(zip(lines[::2], lines[1::2], strict=False))


def _write(path: str, content: str | Sequence[tuple[str, str]]) -> None:
    text = content if isinstance(content, str) else "".join(f"{lxcpath}\n{name}\n" for lxcpath, name in content)
    temporary = f"{path}.new"
    with open(temporary, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)
    os.rename(temporary, path)
