"""Start, reboot or stop the containers that are marked for it."""

from __future__ import annotations

import os
import sys
import time

from lxcpy import log
from lxcpy.cli import output
from lxcpy.cli.options import HELP, Command, Option, seconds
from lxcpy.cli.options import Args as CommonArgs
from lxcpy.cli.report import Reporter
from lxcpy.errors import LxcpyError, StateError, UsageError
from lxcpy.kernel.record import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lxcpy.config.light import Peek
    from lxcpy.container import Container

LOG = log.Log("autostart")
KILL_WAIT = 30  # seconds


class Args(CommonArgs):
    kill: bool
    listed: bool
    reboot: bool
    shutdown: bool
    all: bool
    ignore_auto: bool
    groups: list[str]
    timeout: int
    json: bool


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
        Option("", "json", None, "With -L: an array of objects, one a container.", ours=True),
        HELP,
    ),
    {0: "everything went well, or there was nothing to do", 1: "every attempt failed", 2: "some attempts failed"},
    named=False,
    words="Without -a and -g: the containers that are in no group.",
    args=Args,
)  # fmt: skip


class Candidate(NamedTuple):
    """A defined container, as its config describes it."""

    name: str
    peek: Peek


def wanted_groups(texts: list[str]) -> list[str]:
    """The groups of every -g in order, each once; "" stands for containers in no group, which is the default."""
    return list(dict.fromkeys(group.strip() for text in texts or [""] for group in text.split(",")))


def chosen(
    candidates: list[Candidate], groups: list[str], *, everything: bool, ignore_auto: bool, reverse: bool
) -> list[list[Candidate]]:
    """The containers to act on, a list for each pass over the groups; each container is in one alone.

    Within a pass they stand in order: lxc.start.order, then name; the other way round where `reverse`.
    """
    left = sorted(
        (one for one in candidates if one.peek.auto or ignore_auto),
        key=lambda one: (one.peek.order, os.fsencode(one.name)),
        reverse=reverse,
    )
    if everything:
        return [left]
    passes = []
    for group in groups:
        passes.append([one for one in left if (group in one.peek.groups if group else not one.peek.groups)])
        left = [one for one in left if one not in passes[-1]]
    return passes


def candidates(lxcpath: str) -> list[Candidate]:
    """Every defined container."""
    from lxcpy.config.light import peek
    from lxcpy.runtime.lookup import config_path, defined

    found = []
    for name in defined(lxcpath):
        try:
            found.append(Candidate(name, peek(config_path(lxcpath, name))))
        except OSError:
            continue
    return found


class Work:
    """Does one verb to batch after batch, each batch at once, and counts what failed."""

    def __init__(self, args: Args, everyone: list[Candidate], running: set[str]) -> None:
        self.args = args
        self.peeks = {one.name: one.peek for one in everyone}
        self.running = running
        self.reporter = Reporter(args.prog, quiet=args.quiet)
        self.failed = 0
        self.tried = 0
        self.errors: dict[str, LxcpyError] = {}  # of starts

    def fail(self, name: str, error: LxcpyError) -> None:
        self.failed += 1
        self.reporter.error(error, name)

    def plan(self, passes: list[list[Candidate]]) -> list[list[str]]:
        """The containers that the verb acts on, a batch after the other; those that cannot be started are reported."""
        from lxcpy.runtime import dependencies

        stops = self.args.shutdown or self.args.kill
        starts = not stops and not self.args.reboot
        places = {one.name: (at, one.peek.order) for at, one_pass in enumerate(passes) for one in one_pass}
        self.tried = len(places)
        names = [name for name in places if (name in self.running) != starts]
        if stops:
            stages = dependencies.batches(names, places.__getitem__, lambda _name: False)
            return dependencies.stop_batches(stages, self.peeks.get)
        if self.args.reboot:
            return [[name] for name in names]
        lxcpath = self.args.lxcpath
        plan = dependencies.plan(
            names, self.peeks.get, dependencies.running(lxcpath), at=dependencies.origin(lxcpath), lxcpath=lxcpath
        )
        self.tried += len(plan.pulled.keys() - places.keys())
        for name, error in plan.ignored:
            self.reporter.warning(error, name)
        self.errors |= plan.broken
        for name, error in plan.broken.items():
            self.fail(name, error)
        places |= {name: places[root] for name, root in plan.pulled.items()}
        return dependencies.batches(plan.names, places.__getitem__, lambda name: self.peeks[name].delay > 0)

    def start(self, batch: list[str]) -> None:
        """Start them, at once as far as they do not wait for each other; then pause as long as one of them wants."""
        from lxcpy.runtime import dependencies

        lxcpath, environ = self.args.lxcpath, dict(os.environ)
        dependencies.start(
            lxcpath, batch, self.peeks.get, lambda name: dependencies.request(lxcpath, name, environ),
            at=dependencies.origin(lxcpath), errors=self.errors,
        )  # fmt: skip
        for name in batch:
            if name in self.errors:
                self.fail(name, self.errors[name])
            else:
                time.sleep(self.peeks[name].delay)

    def stop(self, batch: list[str]) -> None:
        """Shut down or kill them: all get the signal, then all are waited for; what is left is killed."""
        from lxcpy.container import Container

        left = [Container(name, self.args.lxcpath) for name in batch]
        if self.args.shutdown:
            for container in left:
                try:
                    container.signal("halt")
                except LxcpyError as error:
                    LOG.warn(f"{container.name}: {error.what}")  # it is killed below
            left = self._still(left, self.args.timeout)
        killed = []
        for container in left:
            try:
                container.signal("stop")
            except LxcpyError as error:
                if container.state != "STOPPED":
                    self.fail(container.name, error)
            else:
                killed.append(container)
        for container in self._still(killed, KILL_WAIT):
            self.fail(container.name, StateError(f"it did not stop within {KILL_WAIT} seconds of being killed"))

    def _still(self, containers: list[Container], limit: int) -> list[Container]:
        """Those that are not STOPPED within `limit` seconds; -1 waits for ever."""
        deadline = None if limit < 0 else time.monotonic() + limit
        left = []
        for container in containers:
            seconds = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            if container.wait(["STOPPED"], seconds) is None:
                left.append(container)
        return left

    def reboot(self, batch: list[str]) -> None:
        """Reboot them, one after the other."""
        from lxcpy.container import Container

        for name in batch:
            limit = self.args.timeout
            try:
                if not Container(name, self.args.lxcpath).reboot(None if limit < 0 else float(limit)):
                    raise StateError(f"it did not reboot within {limit} seconds", hint="-t SECONDS waits longer")
            except LxcpyError as error:
                self.fail(name, error)
            else:
                time.sleep(self.peeks[name].delay)

    def listing(self, planned: list[list[str]]) -> str:
        """What -L prints: a line for each container that the verb would act on; the delay where one would follow."""
        names = [name for batch in planned for name in batch]
        if self.args.shutdown or self.args.kill:
            return "".join(f"{name}\n" for name in names)
        return "".join(f"{name} {self.peeks[name].delay}\n" for name in names)

    def to_dicts(self, planned: list[list[str]]) -> list[dict[str, object]]:
        """The same for --json."""
        stops = self.args.shutdown or self.args.kill
        action = "shutdown" if self.args.shutdown else "kill" if stops else "reboot" if self.args.reboot else "start"
        return [
            {
                "name": name, "lxcpath": self.args.lxcpath, "action": action, "batch": number,
                "delay": None if stops else self.peeks[name].delay, "groups": list(self.peeks[name].groups),
            }
            for number, batch in enumerate(planned) for name in batch
        ]  # fmt: skip


def run(args: Args) -> int:
    from lxcpy.runtime import lxcclient

    if args.json and not args.listed:
        raise UsageError("--json goes with -L")

    everyone = candidates(args.lxcpath)
    passes = chosen(
        everyone,
        wanted_groups(args.groups),
        everything=args.all,
        ignore_auto=args.ignore_auto,
        reverse=args.shutdown or args.kill,
    )
    running = set(lxcclient.running(args.lxcpath))
    if (args.shutdown or args.kill) and any(one.peek.restart != "no" for one in everyone):
        from lxcpy.container import awaiting

        running |= set(awaiting(args.lxcpath))
    work = Work(args, everyone, running)
    planned = work.plan(passes)
    if args.listed:
        sys.stdout.write(output.json(work.to_dicts(planned)) if args.json else work.listing(planned))
        return 0
    verb = work.stop if args.shutdown or args.kill else work.reboot if args.reboot else work.start
    for batch in planned:
        verb(batch)
    if not work.failed:
        return 0
    return 1 if work.failed == work.tried else 2
