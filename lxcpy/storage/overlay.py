"""Storage `overlay`: changes go to a directory of the container's, over one or several that stay as they are.

lxc.rootfs.path is `overlay:LOWER:UPPER`, or `overlay:LOWER:LOWER:UPPER`, the upmost lower one first; the work directory
is beside UPPER (runtime.md, I and I2). The clones of a container are named in its lxc_snapshots by who makes them.
"""

from __future__ import annotations

import os
import re
import stat
import tempfile
from typing import NamedTuple

from lxcpy.errors import StorageError
from lxcpy.kernel import mount as kernel
from lxcpy.storage import workers
from lxcpy.storage.base import Shift
from lxcpy.storage.copy import copy_tree
from lxcpy.storage.dir import destroy_directory, make_directory

PRIVATE, DELTA, WORK = "overlay", "overlay/delta", "overlay/work"
# the option for an overlay of a container with an id map, wherever it is mounted: in a user namespace trusted.*
# attributes are out of reach, and what hides a directory's old content must be found where it was written
USERXATTR = "userxattr"


class Layers(NamedTuple):
    """The directories of a source."""

    lowers: tuple[str, ...]
    upper: str

    @property
    def work(self) -> str:
        return os.path.join(os.path.dirname(self.upper), "work")

    @property
    def text(self) -> str:
        return "overlay:" + ":".join((*self.lowers, self.upper))


def parse(source: str) -> Layers:
    """The layers of `LOWER[:LOWER…]:UPPER`. Raises StorageError."""
    parts = re.split(r":(?=/)", source)  # a directory's name may hold a colon
    if len(parts) < 2 or not all(parts):
        raise StorageError(
            f'lxc.rootfs.path: "overlay:{source}" names no upper directory', hint="write overlay:LOWER:UPPER"
        )
    return Layers(tuple(parts[:-1]), parts[-1])


class Overlay:
    type = "overlay"

    def create(self, rootfs: str, *, owner: tuple[int, int] = (0, 0)) -> str:
        """`rootfs` is the lower directory, which the template fills; what is changed later goes to the delta."""
        make_directory(rootfs, owner)
        layers = Layers((rootfs,), os.path.join(os.path.dirname(rootfs), DELTA))
        self._make(layers, owner)
        return layers.text

    def directory(self, source: str) -> str | None:
        return None

    def mount(self, source: str, target: str, options: str | None = None) -> None:
        """Mount it. options: words of fstab, and options of overlayfs itself. Raises OSError or StorageError."""
        layers = parse(source)
        for path in (layers.upper, layers.work):
            os.makedirs(path, 0o755, exist_ok=True)
        words = kernel.parse_options(options or "")
        lowers = ":".join(escape(path, ":") for path in layers.lowers)
        data = f"lowerdir={lowers},upperdir={escape(layers.upper)},workdir={escape(layers.work)}"
        if words.data:
            data += f",{words.data}"
        if _in_user_namespace() and USERXATTR not in data.split(","):
            data += f",{USERXATTR}"
        kernel.mount(layers.lowers[0], target, "overlay", words.flags, data)
        if words.propagation:
            kernel.mount(None, target, None, words.propagation)

    def clone(self, source: str, rootfs: str, *, snapshot: bool = False, shift: Shift | None = None) -> str:
        """A snapshot keeps the lower directories and copies the delta; else a directory with all that is seen.

        shift: None for a container without an id map.
        """
        layers = parse(source)
        if not snapshot:
            self._flatten(layers, rootfs, shift)
            return f"dir:{rootfs}"
        new = Layers(layers.lowers, os.path.join(os.path.dirname(rootfs), DELTA))
        owner = shift.root if shift is not None else (0, 0)
        make_directory(rootfs, owner)
        self._make(new, owner)
        if os.path.isdir(layers.upper):
            copy_tree(layers.upper, new.upper, shift=shift)
        return new.text

    def _flatten(self, layers: Layers, rootfs: str, shift: Shift | None) -> None:
        """Copy what the layers show together."""
        os.makedirs(os.path.dirname(rootfs), exist_ok=True)
        place = tempfile.mkdtemp(prefix=".flatten-", dir=os.path.dirname(rootfs))
        # the upper directory as one more lower one: it may be in use
        data = "lowerdir=" + ":".join(escape(path, ":") for path in (layers.upper, *layers.lowers))
        if shift is not None:
            data += f",{USERXATTR}"

        def copy() -> None:
            kernel.mount("overlay", place, "overlay", kernel.MS_RDONLY, data)
            copy_tree(place, rootfs, shift=shift)

        try:
            workers.apart(copy)
        except OSError as error:
            raise StorageError(f'cannot mount "{layers.text}" to copy it: {error.strerror}') from error
        finally:
            os.rmdir(place)

    def over(self, lower: str, rootfs: str, *, shift: Shift | None = None) -> str:
        """A new overlay over the directory `lower`, for the container whose directory holds `rootfs`; its text."""
        if shift is not None and shift.changes:
            raise StorageError(
                f'a snapshot of "{lower}" cannot have other ids than it', hint="copy without -s, or keep lxc.idmap"
            )
        if not os.path.isdir(lower):
            raise StorageError(f'the root filesystem "{lower}" is missing')
        layers = Layers((lower,), os.path.join(os.path.dirname(rootfs), DELTA))
        status = os.stat(lower)
        make_directory(rootfs, (status.st_uid, status.st_gid))
        self._make(layers, (status.st_uid, status.st_gid))
        os.chmod(layers.upper, stat.S_IMODE(status.st_mode))  # what is seen of the merged root is the upper one's
        return layers.text

    def destroy(self, source: str) -> None:
        """Remove the delta and the work directory; the lower ones may serve others."""
        layers = parse(source)
        destroy_directory(layers.upper)
        destroy_directory(layers.work)

    def _make(self, layers: Layers, owner: tuple[int, int]) -> None:
        make_directory(os.path.dirname(layers.upper), owner)
        make_directory(layers.upper, owner)
        make_directory(layers.work, owner)


def escape(path: str, more: str = "") -> str:
    """A path for overlayfs's options, which commas and, between lower directories, colons divide."""
    return re.sub(rf"([\\,{more}])", r"\\\1", path)


def _in_user_namespace() -> bool:
    try:
        with open("/proc/self/uid_map") as file:
            return file.read().split() != ["0", "0", "4294967295"]
    except OSError:
        return False


BACKEND = Overlay()
