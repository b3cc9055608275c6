"""Writing one limit: into whichever of its files this kernel has, and a look whether it was kept."""

from __future__ import annotations

import errno

from lxcpy.cgroups import files
from lxcpy.cgroups.refusals import ignored, refused
from lxcpy.cgroups.values import numbers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxcpy.cgroups.translate import Write


def put(write: Write, group: str) -> None:
    """One value into the first of its files that this kernel has, or into every one of them. Raises CgroupError."""
    written, first = False, None
    for file, value in ((write.file, write.value), *write.others):
        try:
            files.write(f"{group}/{file}", value)
            written = True
        except OSError as error:
            if error.errno != errno.ENOENT or not write.others:
                what = f'cannot write "{value}" to {group}/{file}'
                raise refused(write._replace(file=file), what, error, group=group) from error
            first = first or error
        if written and not write.every:
            return
    if not written and first is not None:
        what = f'cannot write "{write.value}" to {group}/{write.file}'
        raise refused(write, what, first, group=group) from first


def check(write: Write, group: str) -> list[str]:
    """Warnings about a value that some kernels take and forget; CgroupError for one that cannot be had at all."""
    try:
        if write.file == "memory.kmem.limit_in_bytes":
            kept = files.read(f"{group}/{write.file}").strip()
            same = write.value == "-1" or abs(int(kept) - int(write.value)) < 65536  # whole pages are kept
            return [] if same else [ignored(write, kept)]
        if write.file in ("cpuset.cpus", "cpuset.mems"):
            got = set(numbers(files.read(f"{group}/{write.file}.effective").strip()))
            if got and not got & set(numbers(write.value)):  # v2 falls back on the parent's without a word
                what = f'cannot use "{write.value}" of {group}/{write.file}, none of it is there'
                raise refused(write, what, OSError(errno.ERANGE, ""), group=group)
    except FileNotFoundError:
        pass  # v1's cpuset refuses by itself
    return []
