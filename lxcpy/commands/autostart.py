"""Start, reboot or stop the containers that are marked for it."""

from __future__ import annotations

import os
import sys
import time

from lxcpy import log
from lxcpy.cli.options import HELP, Command, Option, seconds
from lxcpy.cli.options import Args as CommonArgs
from lxcpy.cli.report import Reporter
from lxcpy.errors import LxcpyError, StateError
from lxcpy.kernel.record import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
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


class Candidate(NamedTuple):
    """A defined container, as its config describes it."""

    name: str
    auto: bool = False
    order: int = 0
    delay: int = 0  # seconds to wait after its start
    groups: tuple[str, ...] = ()


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
        (one for one in candidates if one.auto or ignore_auto),
        key=lambda one: (one.order, os.fsencode(one.name)),
        reverse=reverse,
    )
    if everything:
        return [left]
    passes = []
    for group in groups:
        passes.append([one for one in left if (group in one.groups if group else not one.groups)])
        left = [one for one in left if one not in passes[-1]]
    return passes


def batches(passes: list[list[Candidate]], *, delays: bool) -> list[list[Candidate]]:
    """What may be done at once: containers of one pass and order; one that wants a delay after it ends its batch."""
    found: list[list[Candidate]] = []
    for one_pass in passes:
        ended = True
        for one in one_pass:
            if ended or found[-1][-1].order != one.order:
                found.append([])
            found[-1].append(one)
            ended = delays and one.delay > 0
    return found


def candidates(lxcpath: str) -> list[Candidate]:
    """Every defined container."""
    from lxcpy.config.light import peek
    from lxcpy.runtime.lookup import defined

    found = []
    for name in defined(lxcpath):
        try:
            peeked = peek(f"{lxcpath}/{name}/config")
        except OSError:
            continue
        found.append(Candidate(name, peeked.auto, peeked.order, peeked.delay, peeked.groups))
    return found


class Work:
    """Does one verb to batch after batch, each batch at once, and counts what failed."""

    def __init__(self, args: Args, running: set[str]) -> None:
        self.args = args
        self.running = running
        self.reporter = Reporter(args.prog, quiet=args.quiet)
        self.failed = 0

    def fail(self, name: str, error: LxcpyError) -> None:
        self.failed += 1
        self.reporter.error(error, name)

    def start(self, batch: list[Candidate]) -> None:
        """Start those that do not run; all requests are sent before the first answer is waited for."""
        from lxcpy.container import Container
        from lxcpy.runtime import client

        wanted = [one for one in batch if one.name not in self.running]
        if not wanted:
            return
        with client.connect() as supervisor:
            asked = []
            for one in wanted:
                container = Container(one.name, self.args.lxcpath)
                try:
                    container.check_startable(None)
                    asked.append((one, supervisor.send("start", options=container.options(), foreground=False)))
                except LxcpyError as error:
                    self.fail(one.name, error)
            for one, number in asked:
                try:
                    supervisor.answer(number)
                except LxcpyError as error:
                    self.fail(one.name, error)
                else:
                    if one.delay > 0:
                        time.sleep(one.delay)

    def stop(self, batch: list[Candidate]) -> None:
        """Shut down or kill those that run: all get the signal, then all are waited for; what is left is killed."""
        from lxcpy.container import Container

        left = [Container(one.name, self.args.lxcpath) for one in batch if one.name in self.running]
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

    def reboot(self, batch: list[Candidate]) -> None:
        """Reboot those that run, one after the other."""
        from lxcpy.container import Container

        for one in batch:
            if one.name not in self.running:
                continue
            limit = self.args.timeout
            try:
                if not Container(one.name, self.args.lxcpath).reboot(None if limit < 0 else float(limit)):
                    raise StateError(f"it did not reboot within {limit} seconds", hint="-t SECONDS waits longer")
            except LxcpyError as error:
                self.fail(one.name, error)
            else:
                time.sleep(one.delay)


def listing(todo: list[Candidate], running: set[str], args: Args) -> str:
    """What -L prints: a line for each container that the verb would act on; the delay where one would follow."""
    if args.shutdown or args.kill:
        return "".join(f"{one.name}\n" for one in todo if one.name in running)
    return "".join(f"{one.name} {one.delay}\n" for one in todo if (one.name in running) == args.reboot)


def run(args: Args) -> int:
    from lxcpy.runtime import lxcclient

    stops = args.shutdown or args.kill
    passes = chosen(
        candidates(args.lxcpath),
        wanted_groups(args.groups),
        everything=args.all,
        ignore_auto=args.ignore_auto,
        reverse=stops,
    )
    todo = [one for one_pass in passes for one in one_pass]
    running = set(lxcclient.running(args.lxcpath))
    if args.listed:
        sys.stdout.write(listing(todo, running, args))
        return 0
    work = Work(args, running)
    verb = work.stop if stops else work.reboot if args.reboot else work.start
    for batch in batches(passes, delays=not stops):
        verb(batch)
    if not work.failed:
        return 0
    return 1 if work.failed == len(todo) else 2
