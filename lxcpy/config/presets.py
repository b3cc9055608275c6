"""Where an include is read from. Light: the peek at a config uses it."""

from __future__ import annotations

import os

from lxcpy import paths

# LXC's presets, from a distribution's package and from a build of one's own.
PRESET_DIRS = (f"{paths.LXC_CONFIG_DIR}/", "/usr/local/share/lxc/config/")


def preset(path: str) -> str:
    """`path`, or our own file or folder where it names a preset of an LXC that is not installed."""
    for directory in PRESET_DIRS:
        if path.startswith(directory) and not os.path.exists(path):
            ours = os.path.join(paths.data_dir("config"), path[len(directory) :])
            if os.path.exists(ours):
                return ours
    return path


def is_preset(file: str) -> bool:
    """Whether a file is one of LXC's presets or ours, and not the wish of the one who wrote a config."""
    return file.startswith((*PRESET_DIRS, os.path.join(paths.data_dir("config"), "")))


def members(name: str, file: str) -> list[str]:
    """The files that `lxc.include = name` in `file` means: one, or the *.conf files of a folder by name.

    A relative name starts at the folder of `file`. A folder that is missing is empty: LXC's presets include folders for
    local additions. Raises OSError.
    """
    path = preset(os.path.join(os.path.dirname(file), name))
    if not path.endswith("/") and not os.path.isdir(path):
        return [path]
    try:
        names = sorted(name for name in os.listdir(path) if name.endswith(".conf") and len(name) > 5)
    except FileNotFoundError:
        return []
    return [os.path.join(path, name) for name in names]
