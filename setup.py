"""The data files beside the package: presets, templates and man pages go to share/lxcpy of the environment."""

import os

from setuptools import setup


def data_files() -> list[tuple[str, list[str]]]:
    """Every file below config, templates and man, by its folder (setup.cfg cannot say "and below")."""
    found = []
    for kind in ("config", "templates", "man"):
        for folder, below, names in os.walk(kind):
            below.sort()
            if names:
                found.append((f"share/lxcpy/{folder}", [f"{folder}/{name}" for name in sorted(names)]))
    return found


setup(data_files=data_files())
