"""Containers that real LXC runs, gone after the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from lxctests import runner
from reallxc import Real


@pytest.fixture
def reals(lxcpath: str, names: Callable[[], str]) -> Iterator[Callable[..., Real]]:
    """Makes and starts as many as a test asks for; the argument is added to the config."""
    made: list[Real] = []

    def make(config: str = "") -> Real:
        real = Real(lxcpath, names())
        made.append(real)
        real.start(config)
        return real

    yield make
    for real in made:
        real.kill()


@pytest.fixture
def real(reals: Callable[..., Real]) -> Real:
    return reals()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What LXC's own tests say of real LXC and of lxcpy, seen whether they pass or not."""
    if runner.TABLE:
        terminalreporter.section("LXC's own tests")
        for line in runner.report():
            terminalreporter.write_line(line)
