"""Start, stop or show the network that containers hang on."""

from __future__ import annotations

import os
import sys

from lxcpy.cli.options import PLAIN, Args, Command, Option
from lxcpy.errors import NetworkError, UsageError

TYPE_CHECKING = False  # importing typing costs more than this command's help
if TYPE_CHECKING:
    from lxcpy.network.service import settings

VERBS = ("start", "stop", "restart", "status")


class NetArgs(Args):
    json: bool


COMMAND = Command(
    "net",
    "Start, stop or show the network that containers hang on.",
    "start|stop|restart|status [--json]",
    (Option("", "json", None, "Print the status as JSON."),),
    exit_status={
        0: "done, or nothing was to be done; status: the bridge is up with its address and its DHCP server",
        1: "it could not be done",
        3: "status: it is not up",
    },
    named=False,
    common=PLAIN,
    args=NetArgs,
    words="""\
    start    Make the bridge, its addresses, forwarding, NAT, DHCP and DNS.
    stop     Take down what start made. The bridge stays while containers hang on it.
    restart  stop, then start.
    status   Show what is up.

The settings are those of /etc/default/lxc-net.""",
)


def run(args: NetArgs) -> int:
    """Exit status 0, or 3 for a status that is not up. Raises NetworkError and UsageError."""
    if len(args.rest) != 1 or args.rest[0] not in VERBS:
        raise UsageError(f"one of {', '.join(VERBS)} is needed", hint=f"{args.prog} start")
    from lxcpy.network.service import settings

    verb, found = args.rest[0], settings.load()
    if verb == "status":
        return _status(args, found)
    if os.geteuid() != 0:
        raise NetworkError(f"lxcpy-net {verb} needs root", hint=f"sudo {args.prog} {verb}")
    from lxcpy.network.service import control

    if verb in ("stop", "restart"):
        print(control.stop(found))
    if verb in ("start", "restart"):
        print(control.start(found))
    return 0


def _status(args: NetArgs, found: settings.Settings) -> int:
    from lxcpy.network.service import status

    value = status.status(found)
    if args.json:
        from lxcpy.cli import output

        sys.stdout.write(output.json(value))
    else:
        print("\n".join(status.lines(value, found.bridge)))
    return 0 if value["up"] else 3
