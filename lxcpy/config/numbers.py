"""Numbers as LXC reads them: strtoul(3) with base 0, whole text (`0x10`, `010`). Light: the listing commands use it."""

from __future__ import annotations

UINT_MAX = 2**32 - 1


def number(text: str) -> int:
    """An integer as strtol(3) with base 0 reads it, whole text. Raises ValueError."""
    if len(text) < 20 and text.isdigit() and text.isascii() and (text[0] != "0" or text == "0"):
        return int(text)
    if len(text) > 100:
        raise ValueError(f"{len(text)} characters are not a number")
    body = text.lstrip(" \t\n\v\f\r")
    sign = -1 if body[:1] == "-" else 1
    digits = body[1:] if body[:1] in "+-" else body
    base = 16 if digits[:2] in ("0x", "0X") else 8 if digits[:1] == "0" else 10
    digits = digits[2:] if base == 16 else digits
    # int() also takes blanks, signs and underscores, which strtol does not
    if not digits.isalnum() or not digits.isascii():
        raise ValueError(f'"{text}" is not a number')
    try:
        return sign * int(digits, base)
    except ValueError:
        raise ValueError(f'"{text}" is not a number') from None


def unsigned(text: str, maximum: int = UINT_MAX) -> int:
    """A number from 0 to `maximum`."""
    value = number(text)
    if value < 0 or text.lstrip()[:1] == "-":
        raise ValueError(f'"{text}" is negative')
    if value > maximum:
        raise ValueError(f'"{text}" is more than {maximum}')
    return value
