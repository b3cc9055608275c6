"""JSON for the light commands, without the json package: it imports re and enum, 4 ms that each lxcpy-ls would pay.

The standard library's own C scanner and encoder do the work; an interpreter without them gets the json package.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

try:
    import _json

    class _Context:
        """What json.JSONDecoder hands to its C scanner."""

        strict = True
        object_hook = None
        object_pairs_hook = None
        parse_float = float
        parse_int = int
        memo: dict[str, str] = {}

        @staticmethod
        def parse_constant(word: str) -> float:
            return float(word)

    _scan: Any = _json.make_scanner(_Context())  # type: ignore[arg-type]

    def _refuse(value: object) -> object:
        raise TypeError(f"{type(value).__name__} is no JSON")

    _encode: Any = _json.make_encoder(
        None, _refuse, _json.encode_basestring_ascii, None, ":", ",", False, False, True
    )

    def dumps(value: Any) -> str:
        """A value as JSON text. Raises TypeError."""
        return "".join(_encode(value, 0))

    def loads(text: bytes | str) -> Any:
        """JSON text, without space around it, as a value. Raises ValueError."""
        words = text.decode() if isinstance(text, bytes) else text
        try:
            value, end = _scan(words, 0)
        except StopIteration:
            raise ValueError("no JSON") from None
        if end != len(words):
            raise ValueError(f"something follows the JSON at {end}")
        return value

except ImportError:  # another interpreter than CPython
    from json import dumps, loads  # type: ignore[assignment]  # noqa: F401
