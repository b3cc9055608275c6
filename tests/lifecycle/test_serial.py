"""Many clients of one container at once: its starts and stops come one after the other, each gets a true answer."""

from __future__ import annotations

import itertools
import random
import subprocess
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

if TYPE_CHECKING:
    from conftest import Define

pytestmark = pytest.mark.requires("root", "busybox")
CLIENTS = 20
EACH = 4  # commands of each



class Act(NamedTuple):
    """One command and its answer."""

    began: float
    ended: float
    verb: str  # start or stop
    done: bool  # it changed the state; else it says that there was nothing to do


def ordered(acts: list[Act]) -> bool:
    """Is there an order of the acts, none before one that had ended when it began, in which every answer is true?

    Stops at the same time may share one end of the container.
    """
    seen = set()
    stack: list[tuple[int, bool]] = [(0, False)]
    bits = {act: 1 << index for index, act in enumerate(acts)}
    everything = (1 << len(acts)) - 1
    while stack:
        done, running = stack.pop()
        if done == everything:
            return True
        if (done, running) in seen:
            continue
        seen.add((done, running))
        left = [act for act in acts if not done & bits[act]]
        first_end = min(act.ended for act in left)
        for act in left:
            if act.began > first_end:
                continue  # something has to come before it
            shared = act.verb == "stop" and any(
                done & bits[other] and other.verb == "stop" and other.done and other.ended > act.began for other in acts
            )
            if act.verb == "start":
                true = act.done != running
                after = True
            else:
                true = running or shared if act.done else not running
                after = False
            if true:
                stack.append((done | bits[act], after))
    return False


def test_the_checker_of_orders() -> None:
    def act(began: float, ended: float, verb: str, done: bool) -> Act:
        return Act(began, ended, verb, done)

    assert ordered([act(0, 1, "start", True), act(2, 3, "start", False), act(4, 5, "stop", True)])
    assert not ordered([act(0, 1, "start", True), act(2, 3, "start", True)])
    assert not ordered([act(0, 1, "start", True), act(2, 3, "stop", False)])
    assert ordered([act(0, 5, "start", True), act(2, 3, "stop", False)])
    assert ordered([act(0, 1, "start", True), act(2, 4, "stop", True), act(3, 5, "stop", True)])
    assert not ordered([act(0, 1, "start", True), act(2, 3, "stop", True), act(4, 5, "stop", True)])


def test_clients_of_one_container_get_true_answers(box: Define, bin: str) -> None:
    one = box("lxc.hook.pre-start = sh -c 'sleep 0.02'\nlxc.hook.post-stop = sh -c 'sleep 0.02'\n")
    acts: list[Act] = []
    words = ["-P", one.lxcpath, "-n", one.name]
    seeds = itertools.count(1)

    def client_of(count: int) -> None:
        chance = random.Random(next(seeds))
        for _ in range(count):
            verb, *more = chance.choice([("start",), ("start",), ("stop", "-k"), ("stop", "-t", "1")])
            argv = [f"{bin}/lxcpy-{verb}", *words, *more]
            began = time.monotonic()
            done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
            ended = time.monotonic()
            if done.stderr.startswith(f"lxcpy-start: {one.name}: the start was aborted"):
                assert done.returncode == 1  # it was started, and stopped before it ran
                acts.append(Act(began, ended, verb, True))
                continue
            complaint = f"lxcpy-{verb}: {one.name}: {one.name} is {'already' if verb == 'start' else 'not'} running\n"
            if done.stderr.startswith(complaint):
                assert done.returncode == (0 if verb == "start" else 2)
                acts.append(Act(began, ended, verb, False))
            else:
                if (done.returncode, done.stderr) != (0, ""):
                    raise RuntimeError(f"{verb}: {done.returncode}: {done.stderr}")
                acts.append(Act(began, ended, verb, True))

    failed: list[BaseException] = []

    def guarded() -> None:
        try:
            client_of(EACH)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded) for _ in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    assert failed == []
    assert len(acts) == CLIENTS * EACH
    assert ordered(acts)
    if one.state != "STOPPED":
        assert one.kill(10)
