"""A config file and what it includes, as one Config."""

from __future__ import annotations

from collections.abc import Sequence

from lxcpy.config.addresses import fill_hwaddr
from lxcpy.config.build import build
from lxcpy.config.explain import flat
from lxcpy.config.lines import Loader, parse, run
from lxcpy.config.model import Config
from lxcpy.config.presets import preset

__all__ = ["fill_hwaddr", "finish", "load", "load_flat", "load_text", "preset", "run"]


def load(path: str, *, defines: Sequence[str] = ()) -> Config:
    """The config of a file of any era.

    defines: `KEY=VALUE` texts applied after the file (lxc-start -s). Raises ConfigErrors with every problem,
    ConfigError where the file cannot be read.
    """
    return finish(run(path, defines))


def load_flat(path: str, defines: Sequence[str] = ()) -> tuple[Config, str]:
    """As `load`; and what was read as one text without includes, which means the same whatever becomes of the files."""
    loader = run(path, defines)
    return finish(loader), flat(loader.settings)


def load_text(content: str, file: str) -> Config:
    """The config of a text; `file` names it in messages and is where relative includes start. Raises ConfigErrors."""
    loader = Loader()
    loader.apply(parse(content), file)
    return finish(loader)


def finish(loader: Loader) -> Config:
    """The Config of what was read. Raises ConfigErrors."""
    loader.check()
    return build(loader.settings, tuple(loader.warnings))
