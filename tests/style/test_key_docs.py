"""Prose and keys match one to one, and the pages of section 5 say what the tables say."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from lxcpy.config import schema
from lxcpy.config.keys.row import REMOVED
from lxcpy.config.system import SYSTEM_KEYS
from lxcpy.docgen import keys

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("family", schema.FAMILIES, ids=lambda family: family.__name__.rpartition(".")[2])
def test_each_key_has_its_paragraph_and_each_paragraph_its_key(family: ModuleType) -> None:
    (_, introduction), *found = keys.fragments(family.__name__.rpartition(".")[2])
    assert introduction.strip()
    assert [name for name, _ in found] == [row.name for row in family.ROWS if row.shape is not REMOVED]
    assert all(prose.strip() for _, prose in found)


def test_each_system_key_has_its_paragraph() -> None:
    _, *found = keys.fragments("system")
    assert [name for name, _ in found] == [key.name for key in SYSTEM_KEYS]
    assert all(prose.strip() for _, prose in found)


def test_every_file_of_prose_is_used() -> None:
    used = {*keys.TITLES, "page", "system", "renames"}
    assert {path.stem for path in (ROOT / "man/keys").glob("*.md")} == used


@pytest.mark.parametrize("path", sorted(keys.pages()))
def test_pages_are_in_step(path: str) -> None:
    assert (ROOT / "man" / path).read_text() == keys.pages()[path], "python3 -m lxcpy.docgen writes them"


def test_pages_name_every_key() -> None:
    pages = {path: text.replace("\\-", "-") for path, text in keys.pages().items()}
    container, renames = pages[f"man5/{keys.CONTAINER}.5"], pages[f"man7/{keys.RENAMES}.7"]
    for row in schema.ROWS:
        assert f"\\fB{row.name}\\fR" in (renames if row.shape is REMOVED else container)
        for old in row.old:
            assert f"{old.replace('[i].', '')}\t{row.name}" in renames
