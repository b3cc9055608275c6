"""A container that ended by itself is started again: whether, when, how often, and when no more (lxcpy.restart).

What is due stands in the run directory beside the records, `NAME.restart`, written before the dead container is torn
down and removed once it runs again, so that it outlives the supervisor. What was given up stands in `gave-up/`.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

from lxcpy.config.load import load_text
from lxcpy.config.model import Config, Restart
from lxcpy.errors import LxcpyError
from lxcpy.runtime import launcher, state
from lxcpy.runtime.starting import Asked

if TYPE_CHECKING:
    from lxcpy.runtime.live import Live

TICKS = os.sysconf("SC_CLK_TCK")


class Pending(NamedTuple):
    """A restart that is due; plain data, in a file and from one supervisor to the next."""

    due: float  # time.monotonic(), which all processes of a boot share
    options: dict[str, Any]  # launcher.Options of the start; its `tries` counts this one
    delay: float  # seconds; these three as in the config that it ran with
    delay_max: float
    limit: int

    @property
    def key(self) -> tuple[str, str]:
        """(lxcpath, name)."""
        return self.options["lxcpath"], self.options["name"]

    def after_failure(self, now: float) -> Pending | None:
        """The one that follows when this one has not made the container run; None: no more."""
        return _pending(self.options, self.options["tries"], self.delay, self.delay_max, self.limit, now)

    def describe(self) -> dict[str, Any]:
        """As commands show it: `in` seconds, which `try` it is, `limit` (0: none)."""
        left = max(self.due - time.monotonic(), 0.0)
        return {"in": round(left, 3), "try": self.options["tries"], "limit": self.limit}


def _pending(options: dict[str, Any], tries: int, delay: float, most: float, limit: int, now: float) -> Pending | None:
    if limit and tries >= limit:
        return None
    wait = min(delay * 2.0 ** min(tries, 64), most)  # no float is too small for that, nor too large
    return Pending(now + wait, {**options, "tries": tries + 1}, delay, most, limit)


def applies(config: Config, options: launcher.Options) -> bool:
    """Does a policy look after this run? Not where it ends with its client, is one command, or leaves nothing."""
    return config.restart.policy != "no" and options.restart and options.command is None and not config.ephemeral


def wanted(policy: str, status: int | None, *, asked: bool) -> bool:
    """Should a container that ended this way start again? status: raw, of init; None: nobody can tell.

    By reboot(2) the kernel says SIGINT for a halt and a poweroff. A reboot is none of this.
    """
    if asked or policy == "no":
        return False
    if policy == "always" or status is None:
        return True
    return status != 0 and not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGINT)


def decide(keys: Restart, options: launcher.Options, *, ran: float, now: float) -> Pending | None:
    """The restart of a container that has run for `ran` seconds; None: the limit is reached."""
    tries = 0 if ran >= keys.period else options.tries
    return _pending(options._asdict(), tries, keys.delay, max(keys.delay_max, keys.delay), keys.limit, now)


def after_end(record: state.Record, config: Config, status: int | None) -> Pending | None:
    """What follows the end of a container's init; noted in the run directory before it is returned."""
    options = launcher.Options(**record["options"])
    if not applies(config, options) or not wanted(config.restart.policy, status, asked=bool(record.get("asked"))):
        return None
    started = record["init"][1] / TICKS  # proc_pid_stat(5): since boot, asleep or not
    ran = time.clock_gettime(time.CLOCK_BOOTTIME) - started
    pending = decide(config.restart, options, ran=ran, now=time.monotonic())
    if pending is None:
        give_up(record["lxcpath"], record["name"], options.tries)
    else:
        write(pending)
        say(options.name, f"{_how(status)}; started again in {pending.due - time.monotonic():.1f} s, {_try(pending)}")
    return pending


def after_death(record: state.Record) -> None:
    """As `after_end`, of a container that ended while no supervisor looked."""
    if not record.get("init") or record["state"] in ("STARTING", "ABORTING"):
        return
    if os.path.exists(state.restart_path(record["lxcpath"], record["name"])):
        return  # the supervisor of then has decided
    try:
        after_end(record, load_text(record["text"], record["config"]), None)
    except LxcpyError as error:
        say(record["name"], f"not started again: {error.what}")


def _how(status: int | None) -> str:
    if status is None:
        return "it ended, nobody knows how"
    if os.WIFSIGNALED(status):
        return f"signal {os.WTERMSIG(status)} ended it"
    return f"it ended with status {os.WEXITSTATUS(status)}"


def _try(pending: Pending) -> str:
    return f"try {pending.options['tries']}" + (f" of {pending.limit}" if pending.limit else "")


def say(name: str, text: str) -> None:
    """Write a line to the supervisor's log."""
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {name}: {text}", file=sys.stderr, flush=True)


def write(pending: Pending) -> None:
    """Note what is due."""
    state.write(state.restart_path(*pending.key), pending._asdict())


def give_up(lxcpath: str, name: str, tries: int) -> None:
    """Note that there are no more tries, and say so."""
    state.forget_restart(lxcpath, name)
    state.write(state.gave_up_path(lxcpath, name), {"tries": tries})
    say(name, f"not started again: {tries} tries were in vain (lxcpy.restart.limit)")


def load_all() -> list[Pending]:
    """Everything that is due. A file that makes no sense is removed."""
    found = []
    for path, data in state.restarts():
        try:
            found.append(Pending(**data))
            os.fspath(found[-1].key[0])
        except (TypeError, KeyError):
            os.unlink(path)
    return found


class Restarts:
    """One container's restarts."""

    def __init__(self, live: Live) -> None:
        # a cycle would keep the container's record and config until the collector's next full turn, which is far off
        self.live: Live = weakref.proxy(live)
        self.pending: Pending | None = None
        self.unwanted = False  # it was called off while the start was under way
        self.rebooting: Restart | None = None  # the policy under which it reboots

    # -- what happens to the container -----------------------------------------------------------------------------

    def asked(self, kind: str) -> None:
        """It gets the signal for halt, reboot or stop: its end is wanted, or not any more."""
        live = self.live
        if live.config.restart.policy != "no" and bool(live.record.get("asked")) != (kind != "reboot"):
            live.record["asked"] = kind != "reboot"
            state.save(live.record)

    def ended(self, status: int | None, *, reboot: bool) -> None:
        """Its init has ended, and is torn down next."""
        live = self.live
        looked_after = reboot and applies(live.config, launcher.Options(**live.record["options"]))
        self.pending, self.rebooting = None, live.config.restart if looked_after else None
        try:
            if not reboot:
                self.pending = after_end(live.record, live.config, status)
        except OSError as problem:  # a full disk must not keep it from being torn down
            say(live.name, f"not started again: {problem}")

    def begins(self, options: launcher.Options) -> None:
        """A start begins; that of a user counts anew."""
        self.unwanted = False
        if not options.tries:
            self.pending = None
            state.forget_restart(self.live.lxcpath, self.live.name)

    def runs(self) -> bool:
        """It runs; False: it was called off."""
        if self.pending is not None:
            state.unlink(state.restart_path(*self.pending.key))
        self.pending = self.rebooting = None
        return not self.unwanted

    def failed(self, error: LxcpyError) -> None:
        """A start has failed, or was aborted on purpose, or a halt waited for it."""
        if self.live.starting is not None and self.live.starting.signalled:
            self.rebooting = None
            self.cancel()
            return
        options = launcher.Options(**self.live.record["options"])
        if self.pending is not None:
            say(self.live.name, f"{_try(self.pending)} failed: {error.what}")
            self.pending = self.pending.after_failure(time.monotonic())
        elif self.rebooting is not None:
            say(self.live.name, f"the start of its reboot failed: {error.what}")
            self.pending = decide(self.rebooting, options, ran=0.0, now=time.monotonic())
        else:
            return
        tries = options.tries
        try:
            if self.pending is None:
                give_up(self.live.lxcpath, self.live.name, tries)
            else:
                write(self.pending)
        except OSError as problem:
            say(self.live.name, f"that cannot be noted: {problem}")

    def cancel(self) -> bool:
        """Call it off; False where none is due."""
        if self.pending is None:
            return False
        state.unlink(state.restart_path(*self.pending.key))
        self.pending = None
        self.unwanted = self.live.starting is not None
        self.live.drop_if_done()
        return True

    # -- the wait --------------------------------------------------------------------------------------------------

    def resume(self) -> None:
        """Wait for what is due; called once the container is STOPPED, and by a supervisor that takes over."""
        pending, self.rebooting = self.pending, None
        if pending is not None and self.live.state == "STOPPED":
            self.live.loop.after(max(pending.due - time.monotonic(), 0.0), lambda: self._due(pending))

    def adopt(self, pending: Pending) -> None:
        """One that an earlier supervisor waited for."""
        self.pending = pending
        if self.live.pidfd is not None:
            self.runs()
        self.resume()

    def _due(self, pending: Pending) -> None:
        if self.pending is not pending or self.live.state != "STOPPED":
            return
        if not os.path.exists(state.restart_path(*pending.key)) or not os.path.exists(pending.options["config"]):
            say(self.live.name, "not started again: it was destroyed or renamed")
            self.cancel()
            return
        self.live.begin(Asked(launcher.Options(**pending.options), [], None))

    # -- what is told ----------------------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any] | None:
        """Policy, tries so far, limit and, while one is due, the rest of Pending.describe; None without a policy."""
        if self.pending is not None:
            return self.pending.describe()
        record = self.live.record
        if not record.get("options") or not applies(self.live.config, launcher.Options(**record["options"])):
            return None
        return {"policy": self.live.config.restart.policy, "tries": record["options"].get("tries", 0),
                "limit": self.live.config.restart.limit}  # fmt: skip
