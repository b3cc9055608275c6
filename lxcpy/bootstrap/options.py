"""The options of the templates that are not of Debian's kind, by engine."""

from __future__ import annotations

from typing import NamedTuple


class Setting(NamedTuple):
    """An option of a template's command line: long name, letter, what its value is called (None: a switch), help."""

    long: str
    short: str
    value: str | None
    help: str


BUSYBOX = (Setting("busybox-path", "", "FILE", "the busybox to install (default: the one in PATH)"),)
LOCAL = (
    Setting("fstree", "f", "FILE", "the root filesystem: a tar archive, compressed or not, or a squashfs image"),
    Setting("metadata", "m", "FILE", "the image's meta archive: config, excludes, fstab, templates, create-message"),
    Setting("no-dev", "", None, "leave out what the archive has in /dev"),
)
