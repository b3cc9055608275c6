"""The text of a config file, line by line and without loss. Knows nothing of keys' meanings.

Rules, as LXC's: blanks around key and value do not count; one pair of matching quotes around a value is taken off; a
line that does not begin with `lxc.`, nor with `lxcpy.` as our own keys do, says nothing, is kept, and is no error. Our
keys are such lines to LXC. Bytes that are not UTF-8 survive as surrogates. A line ends with a line feed; a carriage
return before it does not count.
"""

from __future__ import annotations

from lxcpy.kernel.record import NamedTuple

MAX_LINE = 1 << 16
MAX_FILE = 1 << 24
OURS = "lxcpy."
PREFIXES = ("lxc.", OURS)
_BLANKS = " \t"
_END = " \t\r\0"


class Line(NamedTuple):
    """A line that sets something. `key` and `value` are None where it has no `=`."""

    number: int
    key: str | None
    value: str
    text: str  # the whole line, for messages


def decode(data: bytes) -> str:
    """A file's bytes as text that `encode` turns into the same bytes."""
    return data.decode("utf-8", "surrogateescape")


def encode(text: str) -> bytes:
    """The bytes that `decode` read."""
    return text.encode("utf-8", "surrogateescape")


def key_of(line: str) -> str | None:
    """The key a line sets; None: it sets nothing."""
    body = line.lstrip(_BLANKS)
    if not body.startswith(PREFIXES):
        return None
    return body.partition("=")[0].rstrip(_END)


def value_of(text: str) -> str:
    """The value that stands after `=`."""
    value = text.strip(_BLANKS).rstrip(_END)
    if len(value) > 1 and value[0] in "'\"" and value[-1] == value[0]:
        return value[1:-1]
    return value


def quoted(value: str) -> str:
    """A value as it must stand in a file to be read as it is."""
    if value and value_of(value) != value:
        return f'"{value}"'
    return value


def lines(text: str) -> list[Line]:
    """The lines of `text` that set something, in order."""
    found = []
    if text.startswith("\ufeff"):
        text = text[1:]
    for number, line in enumerate(text.split("\n"), 1):
        body = line.lstrip(_BLANKS)
        if not body.startswith(PREFIXES):
            continue
        key, equals, value = body.partition("=")
        found.append(Line(number, key.rstrip(_END) if equals else None, value_of(value), body))
    return found


class Fault(NamedTuple):
    """What makes a text unusable at one line."""

    number: int
    reason: str
    hint: str


def fault(text: str) -> Fault | None:
    """The first thing that no config can contain: a NUL, or a line or text beyond all measure."""
    at = text.find("\0")
    if at >= 0:
        return Fault(text.count("\n", 0, at) + 1, "a NUL character", "a config is a text file")
    if len(text) > MAX_FILE:
        return Fault(1, f"{len(text)} characters are too many", f"a config has at most {MAX_FILE}")
    if len(text) > MAX_LINE:
        for number, line in enumerate(text.split("\n"), 1):
            if len(line) > MAX_LINE:
                return Fault(number, f"a line of {len(line)} characters", f"a line has at most {MAX_LINE}")
    return None
