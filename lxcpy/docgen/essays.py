"""The pages of section 7 that are prose alone: man/json.md, whose lists of fields are data too, and others."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from lxcpy import paths
from lxcpy.cli.registry import COMMANDS
from lxcpy.docgen import man, roff

# What a page is called, to its summary
PAGES = {
    "differences": "where lxcpy means to differ from LXC, and why",
    "json": "what the commands print for programs",
}
DIFFERENCES = "Differences from LXC"  # the heading in man/commands/*.md
TYPES = ("string", "integer", "number", "boolean", "object", "array of strings", "array of objects")


class Field(NamedTuple):
    """One field of an object that --json prints."""

    path: str  # as jq would say: links[].sent
    type: str  # of TYPES
    unit: str  # bytes, nanoseconds, seconds, or ""
    words: tuple[str, ...]  # the values that a string may have; any where there are none
    null: bool
    absent: bool
    meaning: str


class Document(NamedTuple):
    """What one command prints."""

    command: str  # `lxcpy-ls --json`
    shape: str  # array, object, lines
    null: bool
    fields: tuple[Field, ...]


_SHAPES = {"An array of objects": "array", "One object": "object", "An object a line": "lines"}
_FIELD = re.compile(
    rf"`(?P<path>[^`]+)`, (?P<type>{'|'.join(TYPES)})(?: in (?P<unit>\w+))?(?: out of (?P<words>[^:]+?))?"
    r"(?P<null> or null)?(?P<absent> or absent)?: (?P<meaning>.+)"
)


def text(name: str) -> str:
    """The prose of a page."""
    with open(os.path.join(paths.data_dir("man"), f"{name}.md"), encoding="utf-8") as file:
        return file.read()


def pages() -> dict[str, str]:
    """Path below man/ to the text of each page."""
    return {f"man7/lxcpy-{name}.7": page(name, summary) for name, summary in PAGES.items()}


def page(name: str, summary: str) -> str:
    """The page lxcpy-NAME(7)."""
    (_, introduction), *further = roff.sections(text(name))
    lines = roff.header(f"lxcpy-{name}", 7, summary)
    lines += [roff.section("description"), *roff.markdown(introduction)]
    for heading, prose in further:
        # a heading that is a command line keeps its letters
        title = f".SH {roff.escape(heading)}" if heading.startswith("lxcpy-") else roff.section(heading)
        lines += [title, *roff.markdown(prose)]
    if name == "differences":
        for command, prose in of_commands().items():
            lines += [f".SH lxcpy\\-{roff.escape(command)}", *roff.markdown(prose)]
    return roff.finish([*lines, roff.section("see also"), "\\fBlxcpy\\fR(1)"])


def of_commands() -> dict[str, str]:
    """What each command's own page says on its differences from LXC."""
    found = {name: dict(roff.sections(man.prose(name))).get(DIFFERENCES) for name in COMMANDS}
    return {name: prose for name, prose in found.items() if prose is not None}


def documents() -> list[Document]:
    """What man/json.md says of each command. Raises ValueError for a line that is no field."""
    found = []
    for heading, prose in roff.sections(text("json")):
        if not heading.startswith("lxcpy-"):
            continue
        introduction, *items = re.split(r"^- ", prose, flags=re.MULTILINE)
        shape = next((value for words, value in _SHAPES.items() if introduction.strip().startswith(words)), None)
        if shape is None:
            raise ValueError(f"{heading}: say first what it prints: {', '.join(_SHAPES)}")
        fields = tuple(_field(heading, " ".join(item.split())) for item in items)
        found.append(Document(heading, shape, "or null" in introduction, fields))
    return found


def _field(heading: str, line: str) -> Field:
    match = _FIELD.fullmatch(line)
    if match is None:
        raise ValueError(f"{heading}: no field: {line}")
    words = tuple((match["words"] or "").split())
    return Field(
        match["path"], match["type"], match["unit"] or "", words, bool(match["null"]), bool(match["absent"]),
        match["meaning"],
    )  # fmt: skip
