"""What the kernel means when it refuses a group or a value: errno and file to words and a next step."""

from __future__ import annotations

from lxcpy.cgroups.translate import Write
from lxcpy.errors import CgroupError, meaning


def failed(what: str, error: OSError) -> CgroupError:
    return CgroupError(f"{what}: {meaning(error)}")


def refused(write: Write, what: str, error: OSError) -> CgroupError:
    return CgroupError(f"{write.item}: {what}: {meaning(error)}", at=write.origin)
