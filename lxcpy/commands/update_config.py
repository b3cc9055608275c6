"""Rewrite the key names of LXC before 2.1 in a container's configuration."""

from __future__ import annotations

from lxcpy.cli.options import PLAIN, Command, Option
from lxcpy.cli.options import Args as CommonArgs


class Args(CommonArgs):
    config: str | None


COMMAND = Command(
    "update-config",
    "Rewrite the key names of LXC before 2.1 in a container's configuration.",
    "-c FILE",
    (Option("c", "config", "FILE", "The file to rewrite; the original stays as FILE.backup."),),
    {0: "rewritten", 1: "the file cannot be read or written"},
    named=False,
    common=PLAIN,
    stdout_help=True,
    words="lxcpy reads the old names as they are; LXC from 2.1 on refuses them.",
    args=Args,
)


def run(args: Args) -> int:
    from lxcpy.config.legacy import update
    from lxcpy.errors import UsageError

    if not args.config:
        raise UsageError("no file is named", hint="-c FILE")
    update(args.config)
    return 0
