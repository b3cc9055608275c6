"""What an engine gets: one wish, and where its result goes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

from lxcpy import paths
from lxcpy.bootstrap.progress import Progress
from lxcpy.bootstrap.rootfscache import Trees
from lxcpy.bootstrap.template import Renderer, Template


class Job(NamedTuple):
    """tree: the empty directory that the engine fills. target: where the tree will be when the container runs.

    They differ where owners are shifted at the end (trees.shifted), and only there. options: as template.parse gives
    them.
    """

    template: Template
    options: Mapping[str, str]
    tree: str
    target: str
    config_path: str
    name: str
    progress: Progress
    trees: Trees

    @property
    def directory(self) -> str:
        """The container's."""
        return os.path.dirname(self.config_path)

    @contextmanager
    def renderer(self, values: Mapping[str, object]) -> Iterator[Renderer]:
        """The template's files, for this container and its tree."""
        values = {"name": self.name, "mapped": self.trees.mapped, "preset": preset, **values}
        root = os.open(self.tree, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            yield Renderer(self.template, root, values)
        finally:
            os.close(root)


def preset(name: str) -> bool:
    """Whether there is a preset of that name, LXC's or ours."""
    return any(os.path.isfile(f"{place}/{name}") for place in (paths.LXC_CONFIG_DIR, paths.data_dir("config")))
