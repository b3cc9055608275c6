"""Runs inside a virtual machine: tests of the project's own tree, named by their nodes; one line of JSON for each."""

from __future__ import annotations

import json
import os
import sys

import pytest


class Answers:
    """Tells how each test ended; what failed in any of its phases has failed."""

    def __init__(self) -> None:
        self.failures: dict[str, str] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if not report.passed:
            self.failures[report.nodeid] = f"{report.when}: {report.longreprtext}"
        if report.when == "teardown":
            text = self.failures.get(report.nodeid, "")
            print("\n" + json.dumps({"check": report.nodeid, "ok": not text, "value": text}), flush=True)


def main() -> int:
    os.chdir("/project")
    os.environ["LXCPY_MUST_RUN"] = "all"  # what the machine is for must not be skipped
    return int(pytest.main(["-p", "no:cacheprovider", "--no-header", "--color=no", *sys.argv[1:]], plugins=[Answers()]))


if __name__ == "__main__":
    sys.exit(main())
