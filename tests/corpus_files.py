"""The corpus: configs in the manner of each era, ready to be read."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

FOLDER = Path(__file__).parent / "corpus"
NAMES = sorted(path.stem for path in FOLDER.glob("*.conf"))


def lay_out(target: Path) -> Path:
    """A copy of the corpus below `target` with its includes pointing there."""
    copy = target / "corpus"
    shutil.copytree(FOLDER, copy)
    for path in copy.rglob("*.conf"):
        path.write_bytes(path.read_bytes().replace(b"@DIR@", os.fsencode(copy)))
    return copy


def not_for_lxc(text: bytes) -> str | None:
    """Why real LXC 5 is not asked about a config."""
    first = text.partition(b"\n")[0].decode(errors="replace").strip()
    return first.removeprefix("# not for LXC 5: ") if first.startswith("# not for LXC 5: ") else None
