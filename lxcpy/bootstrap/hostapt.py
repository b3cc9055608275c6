"""What the host's own apt is told: its mirrors by sources.list(5), one-line and deb822 style; its settings."""

from __future__ import annotations

import glob
import os
import subprocess
from typing import NamedTuple

from lxcpy.bootstrap.packages import parse_stanza


class Source(NamedTuple):
    """A mirror that the host uses: base address, suite, and the keyring it names for it ("" for none)."""

    uri: str
    suite: str
    signed_by: str = ""


def sources(root: str = "/etc/apt") -> list[Source]:
    """Every enabled binary source of the host, in the order of its files; unreadable ones are left out."""
    found: list[Source] = []
    for path in [f"{root}/sources.list", *sorted(glob.glob(f"{glob.escape(root)}/sources.list.d/*"))]:
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                text = file.read()
        except OSError:
            continue
        if path.endswith(".sources"):
            found += _deb822(text)
        elif path.endswith(".list"):
            found += _one_line(text)
    return [source for source in found if source.uri.startswith(("http://", "https://", "file:/"))]


def _one_line(text: str) -> list[Source]:
    """Lines `deb [option=value …] URI SUITE COMPONENT…`."""
    found = []
    for line in text.splitlines():
        words = line.partition("#")[0].split()
        if words[:1] != ["deb"]:
            continue
        words = words[1:]
        options: list[str] = []
        if words and words[0].startswith("["):
            while words and not words[0].endswith("]"):
                options.append(words.pop(0))
            if words:
                options.append(words.pop(0))
        settings = " ".join(options).strip("[] ").split()
        signed = next((word.partition("=")[2] for word in settings if word.startswith("signed-by=")), "")
        if len(words) >= 2:
            found.append(Source(words[0], words[1], signed))
    return found


def _deb822(text: str) -> list[Source]:
    found = []
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    for block in "\n".join(lines).split("\n\n"):
        fields = {name.lower(): value for name, value in parse_stanza(block.strip("\n")).items()}
        if fields.get("enabled", "yes").lower() in ("no", "false", "0") or "deb" not in fields.get("types", "").split():
            continue
        signed = fields.get("signed-by", "")
        signed = signed if os.path.isabs(signed) and "\n" not in signed else ""
        for uri in fields.get("uris", "").split():
            found += [Source(uri, suite, signed) for suite in fields.get("suites", "").split()]
    return found


def settings() -> dict[str, str]:
    """apt's settings (apt.conf(5)) by lower-case name, of a list the last; none where there is no apt."""
    try:
        done = subprocess.run(["apt-config", "dump"], stdin=subprocess.DEVNULL, capture_output=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    found = {}
    for line in done.stdout.decode(errors="replace").splitlines():
        name, _, value = line.partition(" ")
        if value.startswith('"') and value.endswith('";'):
            found[name.lower()] = value[1:-2]
    return found
