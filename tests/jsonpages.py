"""What --json prints, compared with what lxcpy-json(7) says of it."""

from __future__ import annotations

import json
from typing import Any

from lxcpy.docgen.essays import Document, Field, documents

DOCUMENTS = {document.command: document for document in documents()}
_PLAIN = {"string": (str,), "integer": (int,), "number": (int, float), "boolean": (bool,), "object": (dict,)}


def read(command: str, text: str) -> Any:
    """The values that a command has printed, each as the page says; `command` is a heading of the page."""
    document = DOCUMENTS[command]
    assert text.isascii() and (text == "" or text.endswith("\n"))
    values = [json.loads(line) for line in text.splitlines()]
    if document.shape == "lines":
        for value in values:
            check(document, value)
        return values
    assert len(values) == 1, f"{command}: one line, not {text!r}"
    if document.shape == "array":
        assert isinstance(values[0], list)
        for value in values[0]:
            check(document, value)
    elif not (values[0] is None and document.null):
        check(document, values[0])
    return values[0]


def check(document: Document, value: Any) -> None:
    """One object."""
    _check_object(document.command, "", value, document.fields)


def _check_object(place: str, prefix: str, value: Any, fields: tuple[Field, ...]) -> None:
    assert isinstance(value, dict), f"{place}: {value!r} is no object"
    own = {field.path[len(prefix) :]: field for field in fields if field.path.startswith(prefix)}
    own = {name: field for name, field in own.items() if "." not in name}
    assert set(value) <= set(own), f"{place}: not in the page: {sorted(set(value) - set(own))}"
    for name, field in own.items():
        if name not in value:
            assert field.absent, f"{place}: {name} is not there"
        elif value[name] is None:
            assert field.null, f"{place}: {name} is null"
        else:
            _check_value(f"{place}: {field.path}", field, value[name], fields)


def _check_value(place: str, field: Field, value: Any, fields: tuple[Field, ...]) -> None:
    if field.type.startswith("array"):
        assert isinstance(value, list), f"{place}: {value!r} is no array"
        for item in value:
            if field.type == "array of objects":
                _check_object(place, f"{field.path}[].", item, fields)
            else:
                assert isinstance(item, str), f"{place}: {item!r} is no string"
        return
    assert isinstance(value, _PLAIN[field.type]), f"{place}: {value!r} is no {field.type}"
    assert isinstance(value, bool) == (field.type == "boolean"), f"{place}: {value!r} is no {field.type}"
    if field.words:
        assert value in field.words, f"{place}: {value!r} is none of {field.words}"
    if field.unit:
        assert value >= 0, f"{place}: {value!r} {field.unit}"
    if field.type == "object":
        _check_object(place, f"{field.path}.", value, fields)
