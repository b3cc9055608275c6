"""Imports point down only, and the heavy libraries stay where they belong."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent / "lxcpy"
FLOORS = {
    "errors": 0, "log": 0, "paths": 0, "kernel": 0,
    "config": 1,
    "storage": 2, "rootfs": 2, "network": 2, "cgroups": 2, "security": 2, "bootstrap": 2,
    "runtime": 3,
    "container": 4,
    "cli": 5, "commands": 5, "compat": 5,
    "docgen": 6, "__main__": 6,
}  # fmt: skip
# A floor's own parts that may not see each other: runtime alone joins those of floor 2.
SEPARATE = {2}
# Upward imports inside a function, each with its reason; the list may only shrink.
EXEMPT: set[tuple[str, str]] = set()
# Libraries that cost much, and the only places that may load them.
HOMES = {
    "pyroute2": ("network/links.py", "network/service"),
    "jinja2": ("bootstrap",),
    "rich": ("bootstrap/bars.py",),
    "configobj": ("bootstrap", "config/system.py"),
}
MODULES = sorted(path.relative_to(ROOT).as_posix() for path in ROOT.rglob("*.py"))


def imports(module: str) -> Iterator[str]:
    """Dotted names that a module imports, wherever it does so, but for the type checker's sake."""
    tree = ast.parse((ROOT / module).read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: a relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part(module: str) -> str:
    return module.split("/")[0].removesuffix(".py")


def test_every_part_has_a_floor() -> None:
    parts = {part(module) for module in MODULES} - {"__init__"}
    assert parts == set(FLOORS)


@pytest.mark.parametrize("module", [module for module in MODULES if part(module) != "__init__"])
def test_imports_point_down(module: str) -> None:
    own = part(module)
    for name in imports(module):
        if not name.startswith("lxcpy."):
            continue
        other = name.split(".")[1]
        if other == own or other.startswith("__") or (module, other) in EXEMPT:
            continue
        assert FLOORS[other] <= FLOORS[own], f"{module} imports {name}, which is above it"
        same = FLOORS[other] == FLOORS[own] and FLOORS[own] in SEPARATE
        assert not same, f"{module} imports its sibling {name}: runtime joins the two"


def test_exemptions_are_still_needed() -> None:
    needed = {
        (module, name.split(".")[1])
        for module, other in EXEMPT
        for name in imports(module)
        if name.startswith(f"lxcpy.{other}")
    }
    assert needed == EXEMPT


@pytest.mark.parametrize("library", HOMES)
def test_heavy_libraries_stay_at_home(library: str) -> None:
    users = [module for module in MODULES if any(name.split(".")[0] == library for name in imports(module))]
    assert [user for user in users if not user.startswith(HOMES[library])] == []


def test_docgen_is_imported_by_nobody() -> None:
    users = [module for module in MODULES if any(name.startswith("lxcpy.docgen") for name in imports(module))]
    assert [user for user in users if not user.startswith("docgen/")] == []
