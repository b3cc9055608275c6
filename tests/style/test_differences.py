"""lxcpy-differences(7) has a line for each difference that the tests beside real LXC know of."""

from __future__ import annotations

import re

from oracle.differences import DIFFERENCES
from oracle.test_copy import ALIKE, DIFFERENT
from oracle.test_exit_status import CASES

from lxcpy.docgen import essays


def lines() -> list[tuple[str, str]]:
    """(name, what follows) of each item, with the commands' own."""
    texts = [essays.text("differences"), *essays.of_commands().values()]
    items = [" ".join(item.split()) for text in texts for item in re.split(r"^- ", text, flags=re.MULTILINE)[1:]]
    found = [re.fullmatch(r"\*\*(.+?)\*\*(.+)", re.split(r" ## ", item)[0]) for item in items]
    assert all(found), [item for item, match in zip(items, found, strict=True) if not match]
    return [(match[1], match[2]) for match in found if match]


def test_each_difference_that_is_tested_has_its_line() -> None:
    known = {name for name, _ in lines()}
    assert {row.name for row in DIFFERENCES} <= known
    assert {*DIFFERENT, *(name for name, case in ALIKE.items() if case.differs)} <= known
    assert {case.differs for cases in CASES.values() for case in cases if case.lxc not in (None, -1)} <= known


def test_a_line_says_what_each_side_does() -> None:
    for name, text in lines():
        assert "likewise" in text or name == "mount point" or ("LXC" in text and ";" in text), name
