"""Start, reboot or stop the containers that are marked for it."""

from __future__ import annotations

from lxcpy.cli.options import HELP, Command, Option, seconds
from lxcpy.cli.options import Args as CommonArgs


class Args(CommonArgs):
    kill: bool
    listed: bool
    reboot: bool
    shutdown: bool
    all: bool
    ignore_auto: bool
    groups: list[str]
    timeout: int


COMMAND = Command(
    "autostart",
    "Start, reboot or stop the containers that are marked for it.",
    "[OPTION...]",
    (
        Option("k", "kill", None, "Kill them."),
        Option("L", "list", None, "Print what would be done, in order, and do nothing.", key="listed"),
        Option("r", "reboot", None, "Reboot those that run."),
        Option("s", "shutdown", None, "Shut down those that run."),
        Option("a", "all", None, "Look at no groups."),
        Option("A", "ignore-auto", None, "Take containers without lxc.start.auto = 1 too."),
        Option(
            "g", "groups", "GROUPS",
            "These groups in this order, separated by commas; an empty one stands for containers in no group. "
            "Repeatable.",
            many=True,
        ),
        Option(
            "t", "timeout", "SECONDS", "With -s and -r: how long to wait before a container is killed (default 60).",
            convert=seconds, default=60,
        ),
        HELP,
    ),
    {0: "everything went well, or there was nothing to do", 1: "every attempt failed", 2: "some attempts failed"},
    named=False,
    words="Without -a and -g: the containers that are in no group.",
    args=Args,
)  # fmt: skip
