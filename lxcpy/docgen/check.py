"""Which generated pages there are, what they should say, and whether they do."""

from __future__ import annotations

import os

from lxcpy import paths
from lxcpy.cli.registry import COMMANDS
from lxcpy.docgen import essays, keys, man, templates


def generated() -> dict[str, str]:
    """Path below man/ to the text that belongs there."""
    pages = {"man1/lxcpy.1": man.overview()}
    pages |= {f"man1/lxcpy-{name}.1": man.page(name) for name in COMMANDS}
    return pages | keys.pages() | templates.pages() | essays.pages()


def stale() -> list[str]:
    """The pages that differ from what the tables say, or that no table asks for."""
    top, wanted = paths.data_dir("man"), generated()
    present = {
        f"{folder}/{name}"
        for folder in sorted(os.listdir(top))
        if folder.startswith("man")
        for name in os.listdir(os.path.join(top, folder))
    }
    current = {path: _read(os.path.join(top, path)) for path in present}
    return sorted(path for path in present | set(wanted) if current.get(path) != wanted.get(path))


def write() -> list[str]:
    """Write the pages that are stale; their paths."""
    top, wanted, changed = paths.data_dir("man"), generated(), stale()
    for path in changed:
        target = os.path.join(top, path)
        if path not in wanted:
            os.unlink(target)
            continue
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "w", encoding="utf-8") as file:
            file.write(wanted[path])
    return changed


def _read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()
