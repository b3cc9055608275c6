"""The fast JSON says and reads what the json module does."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxcpy.runtime import fastjson

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(VALUES)
def test_writes_as_json(value: Any) -> None:
    assert fastjson.dumps(value) == json.dumps(value, separators=(",", ":"))


@given(VALUES)
def test_reads_as_json(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False)
    assert fastjson.loads(text) == value
    try:
        data = text.encode()
    except UnicodeEncodeError:
        return
    assert fastjson.loads(data) == value


@given(st.text().map(str.strip))
def test_refuses_what_json_refuses(text: str) -> None:
    try:
        expected = json.loads(text)
    except ValueError:
        with pytest.raises(ValueError):
            fastjson.loads(text)
    else:
        assert fastjson.loads(text) == expected or expected != expected


def test_tuples_and_what_is_no_json() -> None:
    assert fastjson.dumps((1, (2,))) == "[1,[2]]"
    with pytest.raises(TypeError):
        fastjson.dumps({"a": object()})
