"""Files and functions stay small; what is larger today is listed, and the list may only shrink."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
FILE_LIMIT, FUNCTION_LIMIT = 400, 40
SLACK = 25  # a listed size that is more than this above the real one is out of date
# Larger than the limit today, and how large they may be at most.
FILES = {
}
FUNCTIONS = {
    "lxcpy/runtime/launcher.py:_make": 70,
}


def measure() -> tuple[dict[str, int], dict[str, int]]:
    """Lines of each file, and of the code of each function: its table-like literals and docstring do not count."""
    files, functions = {}, {}
    for path in sorted((ROOT / "lxcpy").rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        text = path.read_text()
        files[name] = text.count("\n")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body
                if isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
                    body = body[1:] or body
                functions[f"{name}:{node.name}"] = (body[-1].end_lineno or 0) - body[0].lineno + 1
    return files, functions


def check(sizes: dict[str, int], limit: int, listed: dict[str, int]) -> None:
    grown = {name: size for name, size in sizes.items() if size > listed.get(name, limit)}
    assert grown == {}, f"longer than {limit} lines, or than listed: split them"
    shrunk = {name: size for name, size in listed.items() if sizes.get(name, 0) < max(limit, size - SLACK)}
    assert shrunk == {}, "these have shrunk: lower the listed size, or take them off the list"


def test_files() -> None:
    check(measure()[0], FILE_LIMIT, FILES)


def test_functions() -> None:
    check(measure()[1], FUNCTION_LIMIT, FUNCTIONS)
