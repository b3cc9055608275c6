"""What each key does, and where that is seen: the proof that no key is parsed and ignored.

A row names the test that observes the key's effect in a real container, from inside or from the kernel. Where this
machine cannot show it, the row is Elsewhere, with the reason and, if there is one, the test that shows it where it can
be seen. tests/style/test_effects.py compares the table with the key table.

    python tests/effects.py [KEY...]

runs each row's test without its key (the lines that set it are taken out of the containers' configs) and names the
tests that pass nevertheless: they prove nothing.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
WITHOUT = "LXCPY_WITHOUT_KEY"


class Elsewhere(NamedTuple):
    """An effect that cannot be seen here."""

    reason: str
    test: str = ""  # sees it on a machine that has what is missing here; skipped without
    needs: str = ""  # that, as a word of tests/probes.py


IDENTITY, INIT = (f"tests/lifecycle/test_keys_{family}.py::test_" for family in ("identity", "init"))
EFFECTS: dict[str, str | Elsewhere] = {
    "lxc.arch": IDENTITY + "arch",
    "lxc.uts.name": IDENTITY + "uts_name",
    "lxc.include": IDENTITY + "include",
    "lxc.group": IDENTITY + "group",
    "lxc.ephemeral": IDENTITY + "ephemeral",
    "lxc.start.auto": IDENTITY + "start_auto",
    "lxc.start.delay": IDENTITY + "start_delay",
    "lxc.start.order": IDENTITY + "start_order",
    "lxc.log.file": IDENTITY + "log_file",
    "lxc.log.level": IDENTITY + "log_level",
    "lxc.log.syslog": IDENTITY + "log_syslog",
    "lxc.init.cmd": INIT + "init_cmd",
    "lxc.init.uid": INIT + "init_uid",
    "lxc.init.gid": INIT + "init_gid",
    "lxc.init.groups": INIT + "init_groups",
    "lxc.init.cwd": INIT + "init_cwd",
    "lxc.execute.cmd": INIT + "execute_cmd",
    "lxc.environment": INIT + "environment",
    "lxc.environment.runtime": INIT + "environment_runtime",
    "lxc.environment.hooks": INIT + "environment_hooks",
    "lxc.signal.halt": INIT + "signal_halt",
    "lxc.signal.reboot": INIT + "signal_reboot",
    "lxc.signal.stop": INIT + "signal_stop",
    "lxc.namespace.clone": INIT + "namespace_clone",
    "lxc.namespace.keep": INIT + "namespace_keep",
    "lxc.namespace.share.*": INIT + "namespace_share",
    "lxc.time.offset.boot": INIT + "time_offset_boot",
    "lxc.time.offset.monotonic": INIT + "time_offset_monotonic",
    "lxc.keyring.session": INIT + "keyring_session",
    "lxc.prlimit.*": INIT + "prlimit",
    "lxc.sysctl.*": INIT + "sysctl",
    "lxc.proc.*": INIT + "proc",
}


def pattern(key: str) -> re.Pattern[str]:
    """Matches the keys of a row: [i] is a number, * anything."""
    return re.compile(re.escape(key).replace(r"\[i\]", r"\d+").replace(r"\*", r".+"))


def without(text: str) -> str:
    """A config's text less the lines of the key that the environment asks to leave out."""
    key = os.environ.get(WITHOUT)
    if not key:
        return text
    matches = pattern(key).fullmatch
    return "".join(line for line in text.splitlines(True) if not matches(line.partition("=")[0].strip()))


def check(keys: list[str]) -> list[str]:
    """Run each key's test without the key; the keys whose test passes all the same, or does not run at all."""
    wrong = []
    for key in keys:
        row = EFFECTS[key]
        if isinstance(row, Elsewhere):
            continue
        argv = [sys.executable, "-m", "pytest", "-q", "-x", row]
        done = subprocess.run(argv, cwd=ROOT, env={**os.environ, WITHOUT: key}, capture_output=True, text=True)
        verdict = {0: "passes without it", 1: "ok"}.get(done.returncode, f"did not run: {done.stdout}{done.stderr}")
        print(f"{key}: {row}: {verdict}", flush=True)
        if verdict != "ok":
            wrong.append(key)
    return wrong


if __name__ == "__main__":
    wrong = check(sys.argv[1:] or list(EFFECTS))
    print("\n".join(["", "prove nothing:", *wrong]) if wrong else "\nevery test fails without its key")
    sys.exit(bool(wrong))
