"""Show the supervisor, replace its code in place, or end it."""

from __future__ import annotations

import sys

from lxcpy.cli.options import PLAIN, Args, Command, Option
from lxcpy.errors import StateError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lxcpy.runtime.client import Client

VERBS = ("status", "reexec", "stop")
REEXEC_TIMEOUT = 60.0  # seconds; the supervisor gives up after half of that
STOP_TIMEOUT = 10.0


class SupervisorArgs(Args):
    json: bool
    adopt: bool
    force: bool


COMMAND = Command(
    "supervisor",
    "Show the supervisor, replace its code in place, or end it.",
    "status|reexec|stop [--json] [--adopt] [--force]",
    (
        Option("", "json", None, "Print the status as JSON."),
        Option("", "adopt", None, "With reexec: hand nothing over; the new code adopts the containers."),
        Option("f", "force", None, "With stop: end it while containers run, too; they go on."),
    ),
    exit_status={
        0: "done, or nothing was to be done; status: one runs",
        1: "it could not be done; stop: containers run",
        3: "status: none runs",
    },
    named=False,
    common=PLAIN,
    args=SupervisorArgs,
    words="""\
    status  Show its process, its version and what it costs.
    reexec  Go on with the code of this command, in place: containers and clients do not notice.
    stop    End it. Refused while it has containers to look after.""",
)


def run(args: SupervisorArgs) -> int:
    """Exit status 0, or 3 for a status when none runs. Raises StateError and UsageError."""
    if len(args.rest) != 1 or args.rest[0] not in VERBS:
        raise UsageError(f"one of {', '.join(VERBS)} is needed", hint=f"{args.prog} status")
    from lxcpy.runtime import client

    verb = args.rest[0]
    supervisor = client.connect_running()
    if supervisor is None:
        if verb == "status":
            sys.stdout.write("null\n" if args.json else "no supervisor runs\n")
            return 3
        if verb == "reexec" and client.connect_if_any():
            sys.stdout.write("none ran; a new one has adopted the containers\n")
        return 0
    with supervisor:
        if verb == "status":
            _status(supervisor, args)
        elif verb == "reexec":
            _reexec(supervisor, args)
        else:
            _stop(supervisor, args)
    return 0


def _status(supervisor: Client, args: SupervisorArgs) -> None:
    found = supervisor.ask("status")
    del found["id"]
    if args.json:
        from lxcpy.cli.output import json

        found["active"] = found.pop("containers")
        for one in found.get("restarting", ()):
            one["tries"], one["limit"] = one.pop("try"), one["limit"] or None
        sys.stdout.write(json(found))
    else:
        sys.stdout.write("".join(f"{label + ':':<15} {text}\n" for label, text in rows(found)))


def rows(found: dict[str, Any]) -> list[tuple[str, str]]:
    """A status as (label, text)."""
    import time

    from lxcpy.cli.output import size

    return [
        ("PID", str(found["pid"])),
        ("Version", found["version"]),
        ("Since", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(found["started"]))),
        ("Containers", str(found["containers"])),
        ("Clients", str(found["clients"])),
        ("Starting", f"{found['launching']} at work, {found['queued']} waiting"),
        *[
            ("Restarting", f"{one['name']} in {one['in']:.0f} seconds, try {one['try']}")
            for one in found.get("restarting") or ()  # an older supervisor has none
        ],
        ("Memory", f"{size(found['resident'])} resident, {size(found['proportional'])} proportional"),
        ("Descriptors", f"{found['descriptors']} of {found['descriptor_limit']}"),
    ]


def _reexec(supervisor: Client, args: SupervisorArgs) -> None:
    if args.adopt:
        _replace(supervisor)
        return
    try:
        found = supervisor.ask("reexec", timeout=REEXEC_TIMEOUT, python=sys.executable, path=sys.path)
    except TimeoutError:
        raise StateError(f"the supervisor has not answered for {REEXEC_TIMEOUT:.0f} seconds") from None
    except StateError as error:
        if not error.what.startswith("unknown request"):
            raise
        raise StateError(
            "the supervisor that runs is too old to go on with other code", hint=f"{args.prog} reexec --adopt"
        ) from None
    sys.stdout.write(f"version {found['version']} goes on as process {found['pid']}\n")


def _replace(supervisor: Client) -> None:
    """End it, and bring up another where there is something to adopt."""
    from lxcpy.runtime import client

    _end(supervisor)
    successor = client.connect_if_any()
    if successor is None:
        return
    with successor:
        found = successor.ask("status")
    sys.stdout.write(f"version {found['version']} has adopted the containers as process {found['pid']}\n")


def _stop(supervisor: Client, args: SupervisorArgs) -> None:
    found = supervisor.ask("status")
    containers = int(found["containers"]) + len(found.get("restarting") or ())
    if containers and not args.force:
        raise StateError(
            f"it looks after {containers} container{'s' if containers > 1 else ''}",
            hint="stop them first (lxcpy-autostart -a -A -s), or let them go on with --force",
        )
    _end(supervisor)


def _end(supervisor: Client) -> None:
    import os
    import select

    pidfd = os.pidfd_open(int(supervisor.ask("status")["pid"]))
    try:
        supervisor.ask("quit")
        if not select.select([pidfd], [], [], STOP_TIMEOUT)[0]:
            raise StateError(f"the supervisor has not ended for {STOP_TIMEOUT:.0f} seconds")
    finally:
        os.close(pidfd)
