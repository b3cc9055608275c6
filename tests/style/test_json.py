"""lxcpy-json(7): one name means one thing, every --json is described, and every description is tested."""

from __future__ import annotations

from pathlib import Path

import pytest

from lxcpy.cli.registry import COMMANDS
from lxcpy.docgen.essays import Document, documents
from lxcpy.docgen.man import command
from lxcpy.runtime.state import STATES

TESTS = Path(__file__).parent.parent


def test_every_command_with_json_has_its_lists() -> None:
    described = {document.command.split()[0].removeprefix("lxcpy-") for document in documents()}
    assert described == {name for name in COMMANDS if any(option.long == "json" for option in command(name).options)}


def test_fields_of_one_name_are_of_one_type_and_unit() -> None:
    seen: dict[str, tuple[str, str, str]] = {}
    for document in documents():
        for field in document.fields:
            name = field.path.rpartition("[].")[2]
            kind = "number" if field.type in ("integer", "number") else field.type
            before = seen.setdefault(name, (kind, field.unit, document.command))
            assert before[:2] == (kind, field.unit), f"{name}: {document.command} against {before[2]}"


@pytest.mark.parametrize("document", documents(), ids=lambda document: document.command)
def test_fields_stand_once_and_below_their_parents(document: Document) -> None:
    paths = [field.path for field in document.fields]
    assert len(set(paths)) == len(paths)
    types = {field.path: field.type for field in document.fields}
    for path in paths:
        parent = path.rpartition(".")[0]
        if parent:
            expected = "array of objects" if parent.endswith("[]") else "object"
            assert types.get(parent.removesuffix("[]")) == expected, path
        if path == "state":
            words = next(field.words for field in document.fields if field.path == path)
            assert set(words) == set(STATES)


def test_every_document_is_tested() -> None:
    sources = "".join(path.read_text() for path in TESTS.rglob("test_*.py") if path.parent.name != "style")
    assert [one.command for one in documents() if f'"{one.command}"' not in sources] == []
