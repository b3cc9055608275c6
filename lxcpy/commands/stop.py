"""Stop or reboot a container."""

from __future__ import annotations

from lxcpy.cli.options import Args as CommonArgs
from lxcpy.cli.options import Command, Option, seconds


class Args(CommonArgs):
    reboot: bool
    nowait: bool
    timeout: int | None
    kill: bool
    nolock: bool
    nokill: bool


COMMAND = Command(
    "stop",
    "Stop or reboot a container.",
    "--name=NAME",
    (
        Option("r", "reboot", None, "Reboot it and wait until it runs again."),
        Option("W", "nowait", None, "Send the request and return at once."),
        Option(
            "t", "timeout", "SECONDS",
            "How long to wait for a clean shutdown before it is killed (default 60; -1: for ever).",
            convert=seconds,
        ),
        Option("k", "kill", None, "Kill it; ask for no clean shutdown."),
        Option("", "nokill", None, "Do not kill it when the time is over."),
        Option("", "nolock", None, "With -k: do not wait for another command that works on it."),
    ),
    {
        0: "the container is stopped; with -r: rebooted; with -W: asked to",
        1: "it did not stop in time, or the request failed",
        2: "it was not running, or there is no such container",
    },
    args=Args,
)  # fmt: skip
