"""lxcpy.start.requires and lxcpy.start.after: who has to run before whom, and the starts in that order.

Deciding is pure but for `look`, which reads a config; `start` does it, each container as soon as those before it run.
Import-light: lxcpy-start asks of every container whether it requires others.
"""

from __future__ import annotations

import os

from lxcpy.config.light import Peek, peek
from lxcpy.errors import ConfigError, LxcpyError, Origin, StateError
from lxcpy.kernel.record import NamedTuple
from lxcpy.runtime import client, lookup, lxcclient

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    Look = Callable[[str], Peek | None]  # the config of a container; None: there is none
    Runs = Callable[[str], bool]
    At = Callable[[str, str, str], Origin | None]  # (container, key, word) → the line that has the word

REQUIRES, AFTER = "lxcpy.start.requires", "lxcpy.start.after"
UP = ("RUNNING", "FREEZING", "FROZEN", "THAWED")


class Plan(NamedTuple):
    """What is to be started, each container behind all that it needs."""

    names: list[str]
    pulled: dict[str, str]  # started for the sake of another → that one, which was asked for
    broken: dict[str, LxcpyError]  # cannot be started, and why
    ignored: list[tuple[str, LxcpyError]]  # what is only worth a warning


def plan(wanted: Sequence[str], look: Look, runs: Runs, *, at: At, lxcpath: str) -> Plan:
    """The order in which to start `wanted`, and what these require where it does not run. Pure but for its callables.

    lxcpath: named in messages.
    """
    order = _Order(wanted, look, runs, at, lxcpath)
    for name in wanted:
        order.place(name)
    return Plan(order.placed, order.pulled, order.broken, order.ignored)


class _Order:
    """A walk over what containers need, depth first."""

    def __init__(self, wanted: Sequence[str], look: Look, runs: Runs, at: At, lxcpath: str) -> None:
        self.look = look
        self.runs = runs
        self.at = at
        self.lxcpath = lxcpath
        self.placed: list[str] = []
        self.pulled: dict[str, str] = {}
        self.broken: dict[str, LxcpyError] = {}
        self.ignored: list[tuple[str, LxcpyError]] = []
        self.done: set[str] = set()
        self.known = self._closure(wanted)
        self.needs = {name: self._needs(name) for name in self.known}  # (key, container) of what has to be up before

    def _closure(self, wanted: Iterable[str]) -> dict[str, Peek]:
        """All that will be started, with what their configs say."""
        known: dict[str, Peek] = {}
        left = list(wanted)
        while left:
            name = left.pop()
            found = None if name in known else self.look(name)
            if found is not None:
                known[name] = found
                left += [other for other in found.requires if not self.runs(other)]
        return known

    def _needs(self, name: str) -> list[tuple[str, str]]:
        peeked = self.known[name]
        needs = [(REQUIRES, other) for other in peeked.requires if other in self.known or not self.runs(other)]
        for other in peeked.after:
            if other in self.known:
                needs.append((AFTER, other))
            elif self.look(other) is None:  # ordered behind what does not exist: a slip of the pen, but no harm
                self.ignored.append((name, self._missing(name, AFTER, other)))
        return needs

    def place(self, root: str) -> None:
        """Put a container behind all that it needs."""
        path: list[tuple[str, list[tuple[str, str]]]] = []
        name = root
        while True:
            if name not in self.done and name not in self.broken and name in self.known:
                circle = [inner for inner, _ in path]
                if name in circle:
                    self._circle(path[circle.index(name) :])
                else:
                    path.append((name, list(self.needs[name])))
            while path and (path[-1][0] in self.broken or not path[-1][1]):
                self._finish(path.pop()[0], root)
            if not path:
                return
            name = path[-1][1].pop(0)[1]

    def _finish(self, name: str, root: str) -> None:
        if name in self.broken:
            return
        for key, other in self.needs[name]:
            if key == REQUIRES and other not in self.known:
                self.broken[name] = self._missing(name, key, other)
                return
            if key == REQUIRES and other in self.broken:
                self.broken[name] = unmet(name, other, self.at(name, key, other), self.broken[other])
                return
        self.done.add(name)
        self.placed.append(name)
        if name != root:
            self.pulled[name] = root

    def _missing(self, name: str, key: str, other: str) -> LxcpyError:
        error = lookup.no_such(self.lxcpath, other)
        return ConfigError(f"{key}: {error.what}", at=self.at(name, key, other), hint=error.hint)

    def _circle(self, path: list[tuple[str, list[tuple[str, str]]]]) -> None:
        """Nothing in a circle can be the first."""
        names = [name for name, _ in path]
        followers = [*names[1:], names[0]]
        keys = [
            next(key for key, inner in self.needs[name] if inner == other)
            for name, other in zip(names, followers, strict=True)
        ]
        words = {REQUIRES: "requires", AFTER: "is after"}
        text = ", ".join(f"{a} {words[key]} {b}" for a, key, b in zip(names, keys, followers, strict=True))
        for name, key, other in zip(names, keys, followers, strict=True):
            self.broken[name] = ConfigError(
                f"{key}: containers that wait for each other: {text}",
                at=self.at(name, key, other), hint="take one of these lines out",
            )  # fmt: skip


def unmet(name: str, other: str, at: Origin | None, why: LxcpyError | None = None) -> LxcpyError:
    """The error of a container whose requirement does not run."""
    reason = f": {why.what}" if why else ""
    return StateError(f"{name} requires {other}, which could not be started{reason}", at=at,
                      hint=why.hint if why else None)  # fmt: skip


def batches(names: Sequence[str], place: Callable[[str], object], ends: Callable[[str], bool]) -> list[list[str]]:
    """What may be started at once: containers that stand together and have one `place`; one that `ends` is the last."""
    found: list[list[str]] = []
    ended = True
    for name in names:
        if ended or place(found[-1][-1]) != place(name):
            found.append([])
        found[-1].append(name)
        ended = ends(name)
    return found


def stop_batches(stages: Sequence[Sequence[str]], look: Look) -> list[list[str]]:
    """What may be stopped at once, stage by stage: nobody before those of `stages` that require it or are after it.

    A circle does not keep anybody from being stopped.
    """
    places = {name: number for number, stage in enumerate(stages) for name in stage}
    needs = {name: _known(look(name) or Peek(), places) for name in places}
    levels = dict.fromkeys(places, 0)
    for _ in places:  # as often as the longest chain is long; a circle ends with the loop
        settled = True
        for name, others in needs.items():
            for other in others:
                settled = settled and places[name] <= places[other]
                places[name] = min(places[name], places[other])
        for name, others in needs.items():
            for other in others:
                if places[other] == places[name] and levels[other] <= levels[name]:
                    levels[other], settled = levels[name] + 1, False
        if settled:
            break
    found: dict[tuple[int, int], list[str]] = {}
    for name in places:
        found.setdefault((places[name], levels[name]), []).append(name)
    return [found[place] for place in sorted(found)]


def _known(peeked: Peek, names: Mapping[str, object]) -> list[str]:
    """Whom of `names` a container needs."""
    return [other for other in dict.fromkeys((*peeked.requires, *peeked.after)) if other in names]


def start(
    lxcpath: str, names: Sequence[str], look: Look, request: Callable[[str], dict[str, Any]], *,
    at: At, errors: dict[str, LxcpyError],
) -> None:  # fmt: skip
    """Start containers, each once those of `names` that it needs run; others do not wait for it.

    request: launcher.Options as plain data; may raise LxcpyError. errors: why one does not run; those that are in there
    already count, and those of this call are added.
    """
    left = {name: look(name) or Peek() for name in names}
    asked: dict[int, str] = {}

    with client.connect() as supervisor:
        while left or asked:
            under_way = {*left, *asked.values()}
            ready = [name for name, peeked in left.items()
                     if not under_way & {*peeked.requires, *peeked.after} - {name}]  # fmt: skip
            for name in ready or ([] if asked else list(left)):  # a config that changed meanwhile can make a circle
                peeked = left.pop(name)
                lost = next((other for other in peeked.requires if other in errors), None)
                try:
                    if lost is not None:
                        raise unmet(name, lost, at(name, REQUIRES, lost), errors[lost])
                    asked[supervisor.send("start", options=request(name), foreground=False)] = name
                except LxcpyError as error:
                    errors[name] = error
            if asked:
                number, problem = supervisor.first(asked)
                name = asked.pop(number)
                if problem is not None and not _run_by_others(lxcpath, name):
                    errors[name] = problem


def _run_by_others(lxcpath: str, name: str) -> bool:
    """Does a real LXC's monitor run it, or start it just now?"""
    theirs = lxcclient.command(lxcpath, name)
    return theirs.running() and theirs.wait((*UP, "STOPPED")) in UP


def start_required(lxcpath: str, name: str, path: str, defines: Sequence[str], environ: dict[str, str]) -> None:
    """Start what a container requires, as far as it does not run; nothing where it requires nothing.

    path: its config, with `defines` behind it. environ: the starter's. Raises LxcpyError; what was started stays.
    """
    try:
        own = peek(path, defines)
    except OSError:
        return  # the start itself says it
    if not own.requires or lookup.state(lxcpath, name) != "STOPPED":
        return
    others = configs(lxcpath)

    def look(one: str) -> Peek | None:
        return own if one == name else others(one)

    def at(one: str, key: str, word: str) -> Origin | None:
        return line(path, key, word, defines) if one == name else origin(lxcpath)(one, key, word)

    planned = plan([name], look, running(lxcpath), at=at, lxcpath=lxcpath)
    if name in planned.broken:
        raise planned.broken[name]
    errors: dict[str, LxcpyError] = {}
    todo = [other for other in planned.names if other != name]
    start(lxcpath, todo, look, lambda one: request(lxcpath, one, environ), at=at, errors=errors)
    lost = next((other for other in own.requires if other in errors), None)
    if lost is not None:
        raise unmet(name, lost, at(name, REQUIRES, lost), errors[lost])


def running(lxcpath: str) -> Runs:
    """Tells whether a container is RUNNING, or frozen; each is asked once."""
    bound = frozenset(lxcclient.running(lxcpath))
    states: dict[str, bool] = {}

    def runs(name: str) -> bool:
        if name in bound and name not in states:
            states[name] = lookup.state(lxcpath, name) in UP
        return states.get(name, False)

    return runs


def configs(lxcpath: str) -> Look:
    """Reads the configs of an lxcpath."""

    def look(name: str) -> Peek | None:
        try:
            return peek(lookup.config_path(lxcpath, name))
        except OSError:
            return None

    return look


def origin(lxcpath: str) -> At:
    """Finds the lines in the configs of an lxcpath."""
    return lambda name, key, word: line(lookup.config_path(lxcpath, name), key, word)


def line(path: str, key: str, word: str, defines: Sequence[str] = ()) -> Origin | None:
    """The line of a config that sets a word of a key. Heavy: for errors."""
    from lxcpy.config import lines

    try:
        settings = lines.run(path, defines).settings
    except LxcpyError:
        return None
    into = key.removeprefix("lxcpy.")
    words, wheres = settings.values.get(into, []), settings.where.get(into, [])
    return next((where for one, where in zip(words, wheres, strict=True) if one == word), None)


def request(lxcpath: str, name: str, environ: dict[str, str]) -> dict[str, Any]:
    """A plain start of a container (launcher.Options). Raises LxcpyError where it cannot be started as it is."""
    lookup.check_startable(lxcpath, name)
    return {
        "name": name, "lxcpath": lxcpath, "config": lookup.config_path(lxcpath, name), "define": [],
        "environ": environ, "caller": os.getpid(),
    }  # fmt: skip
