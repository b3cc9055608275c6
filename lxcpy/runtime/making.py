"""The directory of a container that is being made: one command's alone, and gone again where that command fails."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from lxcpy.errors import LxcpyError, StateError, StorageError, meaning
from lxcpy.log import Log
from lxcpy.runtime import ids, lock, partial
from lxcpy.storage.tree import remove_tree, spread

LOG = Log("create")


class Taken(StateError):
    """A name that another container has, or gets at this moment."""


@contextmanager
def made(lxcpath: str, name: str, *, owner: tuple[int, int] | None = None, empty: bool = True) -> Iterator[ExitStack]:
    """Make LXCPATH/NAME, locked and marked `partial`, mode 0770; what is to be undone goes on the stack it gives.

    owner: of the directory, where not the caller. empty: whether a directory that holds anything is refused.
    Raises Taken where another has the name, StorageError.
    """
    directory = os.path.join(lxcpath, name)
    with ExitStack() as locks, ExitStack() as undo:
        try:
            locks.enter_context(own(directory))
            spread(lxcpath)
            check_free(directory, empty=empty)
            undo.callback(attempt, _remove_new, directory, set(os.listdir(directory)))
            os.chmod(directory, 0o770)
            if owner is not None:
                ids.give(directory, owner)
            mark = partial.take(lxcpath, name)
            locks.callback(os.close, mark)  # it goes with its lock
        except OSError as error:
            hint = "-P names another directory" if os.geteuid() else "check that the file system is writable"
            raise StorageError(f'cannot make "{directory}": {meaning(error)}', hint=hint) from error
        yield undo
        os.unlink(partial.path(lxcpath, name))
        undo.pop_all()


def attempt(function: Callable[..., None], *arguments: object) -> None:
    """A step back that may fail without hiding why it is taken."""
    try:
        function(*arguments)
    except (LxcpyError, OSError) as error:
        LOG.error(f"of what is given up, something could not be removed: {error}")


@contextmanager
def own(directory: str) -> Iterator[None]:
    """Have the directory of a name, new or old, to oneself. Raises Taken, OSError."""
    while True:
        os.makedirs(os.path.dirname(directory), 0o755, exist_ok=True)
        try:
            os.mkdir(directory, 0o770)
        except FileExistsError:
            pass
        except FileNotFoundError:
            continue  # another command has just removed an empty directory of snapshots
        with ExitStack() as stack:
            try:
                stack.enter_context(lock.hold(directory))
            except FileNotFoundError:
                if os.path.islink(directory):
                    raise  # it leads nowhere
                continue  # another command has just given it up
            except StateError as error:
                raise Taken(error.what, hint=error.hint) from None
            yield
            return


def _remove_new(directory: str, before: set[str]) -> None:
    """Remove what was made; what a directory held before stays."""
    if not before:
        remove_tree(directory)
        return
    for entry in set(os.listdir(directory)) - before:
        path = os.path.join(directory, entry)
        if os.path.isdir(path) and not os.path.islink(path):
            remove_tree(path)
        else:
            os.unlink(path)


def check_free(directory: str, *, empty: bool) -> None:
    """Raises Taken where a directory holds a container, StorageError where it is to be `empty` and is not."""
    name = os.path.basename(directory)
    if os.path.exists(os.path.join(directory, "config")) or os.path.lexists(os.path.join(directory, "partial")):
        raise taken(directory)
    if empty and os.listdir(directory):
        raise StorageError(
            f'cannot make "{directory}": Directory not empty',
            hint=f'"{name}" is not a container, but not empty: move it away',
        )


def taken(directory: str) -> Taken:
    """The error for a name that has a container."""
    lxcpath, name = os.path.split(directory)
    return Taken(
        f'Container already exists: "{name}" in {lxcpath}',
        hint=f"choose another name, or remove it with lxcpy-destroy -n {name}",
    )
