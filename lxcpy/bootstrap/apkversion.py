"""Versions of Alpine's packages: DIGITS{.DIGITS}[LETTER]{_SUFFIX[NUMBER]}[~HASH][-rREVISION] (apk-package(5))."""

from __future__ import annotations

import functools
import re

_BEFORE, _AFTER = ("alpha", "beta", "pre", "rc"), ("cvs", "svn", "git", "hg", "p")
_ORDER = {name: number - len(_BEFORE) for number, name in enumerate(_BEFORE)} | {
    name: number for number, name in enumerate(_AFTER)
}
_VERSION = re.compile(r"(\d+(?:\.\d+)*)([a-z]?)((?:_[a-z]+\d*)*)(~[0-9a-f]+)?(?:-r(\d+))?")
_SUFFIX = re.compile(r"_([a-z]+)(\d*)")
# Kinds of parts; where two versions part ways, the one whose next part comes earlier in this list is the later one.
_FIRST, _DIGITS, _LETTER, _SUFFIX_NAME, _SUFFIX_NUMBER, _HASH, _REVISION, _END = range(8)


@functools.lru_cache(maxsize=1 << 15)
def parts(version: str) -> tuple[tuple[int, str | int], ...]:
    """The version as (kind, value) each. Raises ValueError."""
    match = _VERSION.fullmatch(version)
    if match is None:
        raise ValueError(f'"{version}" is not a version of a package')
    first, *further = match[1].split(".")
    found: list[tuple[int, str | int]] = [(_FIRST, int(first)), *((_DIGITS, digits) for digits in further)]
    if match[2]:
        found.append((_LETTER, match[2]))
    for name, number in _SUFFIX.findall(match[3]):
        if name not in _ORDER:
            raise ValueError(f'"{version}" is not a version of a package')
        found.append((_SUFFIX_NAME, _ORDER[name]))
        if number:
            found.append((_SUFFIX_NUMBER, int(number)))
    if match[4]:
        found.append((_HASH, match[4]))
    if match[5] is not None:
        found.append((_REVISION, int(match[5])))
    return (*found, (_END, 0))


def compare(one: str, two: str, *, fuzzy: bool = False) -> int:
    """Negative, 0 or positive, as `one` is before, the same as, or after `two`. Raises ValueError.

    fuzzy: also the same if `two` is where `one` begins, as 1.2 of 1.2.3.
    """
    for (kind, value), (other_kind, other) in zip(parts(one), parts(two), strict=False):
        if kind != other_kind:
            if fuzzy and other_kind == _END:
                return 0
            if kind == _SUFFIX_NAME and isinstance(value, int) and value < 0:
                return -1
            if other_kind == _SUFFIX_NAME and isinstance(other, int) and other < 0:
                return 1
            return other_kind - kind
        if value != other:
            if kind == _DIGITS and not (str(value).startswith("0") or str(other).startswith("0")):
                value, other = int(value), int(other)
            return -1 if value < other else 1  # type: ignore[operator]
    return 0


def fits(version: str, operator: str, wanted: str) -> bool:
    """Whether a version satisfies `OPERATOR WANTED`, an operator of <, =, > and ~ together. Raises ValueError."""
    order = compare(version, wanted, fuzzy="~" in operator)
    return (order < 0 and "<" in operator) or (order > 0 and ">" in operator) or (
        order == 0 and ("=" in operator or "~" in operator)
    )  # fmt: skip


key = functools.cmp_to_key(compare)
