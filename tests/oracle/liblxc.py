"""The other side of the oracle: real liblxc through python3-lxc, and our own config behind the same calls."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from typing import Any

from lxcpy.config.file import ConfigFile
from lxcpy.errors import ConfigError

Operation = Sequence[str]
Answer = list[Any]
PYTHON = "/usr/bin/python3"


def why_not() -> str | None:
    """Why real liblxc cannot be asked; None: it can."""
    if not os.path.exists(PYTHON):
        return f"{PYTHON} is not installed"
    done = subprocess.run([PYTHON, "-c", "import _lxc; print(_lxc.get_version())"], capture_output=True, text=True)
    if done.returncode:
        return "python3-lxc is not installed"
    return None if done.stdout.startswith("5.") else f"the oracle knows LXC 5, not {done.stdout.strip()}"


class Liblxc:
    """Real liblxc."""

    def __init__(self, home: str) -> None:
        server = os.path.join(os.path.dirname(__file__), "liblxc_server.py")
        self.process = subprocess.Popen([PYTHON, server, home], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True)  # fmt: skip

    def run(self, operations: Sequence[Operation]) -> list[Answer]:
        """The answers to some operations."""
        assert self.process.stdin and self.process.stdout
        print(json.dumps(operations), file=self.process.stdin, flush=True)
        answers: list[Answer] = json.loads(self.process.stdout.readline())
        return answers

    def close(self) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


class Ours:
    """Our config behind the same operations."""

    def __init__(self) -> None:
        self.config = ConfigFile()

    def one(self, operation: str, *arguments: str) -> Any:
        if operation == "new":
            self.config = ConfigFile()
        elif operation == "load":
            self.config = ConfigFile.load(*arguments)
        elif operation == "set":
            self.config.append(*arguments)
        elif operation == "get":
            return self.config.get(*arguments)
        elif operation == "clear":
            self.config.clear(*arguments)
        elif operation == "keys":
            return "".join(f"{key}\n" for key in self.config.keys(*arguments))
        elif operation == "save":
            self.config.save(*arguments)
        return True

    def run(self, operations: Sequence[Operation]) -> list[Answer]:
        """The answers to some operations."""
        answers: list[Answer] = []
        for operation in operations:
            try:
                answers.append(["ok", self.one(*operation)])
            except ConfigError:
                answers.append(["error"])
        return answers
