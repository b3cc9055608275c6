"""`python3 -m lxcpy.docgen` writes the generated man pages; with --check it says which are stale, exit status 1."""

from __future__ import annotations

import sys

from lxcpy.docgen import check


def main() -> int:
    """Write, or check."""
    if sys.argv[1:] == ["--check"]:
        stale = check.stale()
        print("".join(f"stale: man/{path}\n" for path in stale), end="")
        return 1 if stale else 0
    print("".join(f"man/{path}\n" for path in check.write()), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
