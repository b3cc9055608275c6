"""Dependencies between containers, and what lxcpy-autostart does at once and what not."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from conftest import Box, Define

pytestmark = pytest.mark.requires("root", "busybox")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def quick(run: Run, lxcpath: str) -> Run:
    """A command on the test's lxcpath."""
    return lambda command, *words, **options: run(command, "-P", lxcpath, *words, **options)


class Diary:
    """What containers do, and when: their hooks write it down."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def keep(self, *, pause: float = 0) -> str:
        """The lines of a config for it; pause: how long the container is STARTING."""
        script = f"{self.file}.sh"
        Path(script).write_text(f'#!/bin/sh\necho "$1 $2 $(date +%s.%N)" >> {self.file}\n')
        os.chmod(script, 0o755)
        hooks = [("pre-start", f"{script} {{name}} begins"), ("start-host", f"sh -c 'sleep {pause}'")] if pause else [
            ("pre-start", f"{script} {{name}} begins")
        ]  # fmt: skip
        hooks += [("start-host", f"{script} {{name}} runs"), ("stop", f"{script} {{name}} ends"),
                  ("post-stop", f"{script} {{name}} ended")]  # fmt: skip
        return "".join(f"lxc.hook.{hook} = {command}\n" for hook, command in hooks)

    def when(self, what: str) -> dict[str, float]:
        """Container → the last time that it was so."""
        lines = [line.split() for line in self.file.read_text().splitlines()]
        return {words[0]: float(words[-1]) for words in lines if words[-2] == what}

    def clear(self) -> None:
        self.file.unlink(missing_ok=True)


@pytest.fixture
def diary(tmp_path: Path) -> Diary:
    return Diary(tmp_path / "diary")


def add(one: Box, text: str) -> None:
    with open(one.config_file, "a") as file:
        file.write(text)


def states(*boxes: Box) -> list[str]:
    return [one.state for one in boxes]


# -- lxcpy-start -----------------------------------------------------------------------------------------------------


def test_a_start_starts_first_what_is_required(box: Define, quick: Run, diary: Diary) -> None:
    db, cache, web = box(diary.keep(pause=0.4)), box(diary.keep(pause=0.4)), box(diary.keep())
    disk = box(diary.keep(pause=0.2))
    add(db, f"lxcpy.start.requires = {disk.name}\n")
    add(web, f"lxcpy.start.requires = {db.name} {cache.name}\n")
    begun = time.monotonic()
    done = quick("start", web.name)
    took = time.monotonic() - begun
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert states(disk, db, cache, web) == ["RUNNING"] * 4
    begins, runs = diary.when("begins"), diary.when("runs")
    assert begins[db.name] > runs[disk.name]
    assert begins[web.name] > max(runs[db.name], runs[cache.name])
    assert begins[cache.name] < runs[disk.name], "what does not wait for each other starts at once"
    assert took < 2.5
    assert web.kill(10)
    diary.clear()
    web.start()
    assert set(diary.when("begins")) == {web.name}, "what runs is left alone"


def test_what_is_frozen_counts_as_running(box: Define, quick: Run) -> None:
    db, web = box(), box()
    add(web, f"lxcpy.start.requires = {db.name}\n")
    db.start()
    db.freeze()
    assert quick("start", web.name).returncode == 0
    assert states(db, web) == ["FROZEN", "RUNNING"]


def test_a_requirement_of_the_command_line(box: Define, quick: Run) -> None:
    db, web = box(), box()
    assert quick("start", web.name, "-s", f"lxcpy.start.requires={db.name}").returncode == 0
    assert states(db, web) == ["RUNNING", "RUNNING"]


def test_a_requirement_that_is_missing_names_the_line(box: Define, quick: Run, lxcpath: str) -> None:
    db, web = box(), box()
    add(web, f"lxcpy.start.requires = {db.name}x\n")
    line = Path(web.config_file).read_text().count("\n")
    done = quick("start", web.name)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f'lxcpy-start: {web.name}: lxcpy.start.requires: there is no container "{db.name}x" in {lxcpath}\n'
        f'  at {web.config_file}:{line}\n  hint: did you mean "{db.name}"?\n'
    )
    checked = quick("config", "check", web.name)
    assert checked.returncode == 1
    assert checked.stdout.count("there is no container") == 1
    assert states(db, web) == ["STOPPED", "STOPPED"]


def test_a_circle_names_the_line(box: Define, quick: Run) -> None:
    one, two = box(), box()
    add(one, f"lxcpy.start.requires = {two.name}\n")
    add(two, f"# a\nlxcpy.start.after = x\nlxcpy.start.after =\nlxcpy.start.requires = {one.name}\n")
    line = Path(two.config_file).read_text().count("\n")
    done = quick("start", two.name)
    assert done.returncode == 1
    assert done.stderr == (
        f"lxcpy-start: {two.name}: lxcpy.start.requires: containers that wait for each other: {two.name} requires "
        f"{one.name}, {one.name} requires {two.name}\n  at {two.config_file}:{line}\n"
        "  hint: take one of these lines out\n"
    )
    assert "containers that wait for each other" in quick("config", "check", one.name).stdout
    started = quick("autostart", "-a", "-A")
    assert started.returncode == 1
    assert started.stderr.count("wait for each other") == 2


def test_a_requirement_that_fails_keeps_the_other_from_starting(box: Define, quick: Run) -> None:
    db, web = box("lxc.hook.pre-start = /bin/false\n"), box()
    add(web, f"lxcpy.start.requires = {db.name}\n")
    done = quick("start", web.name)
    assert done.returncode == 1
    first, second = done.stderr.splitlines()[:2]
    assert first.startswith(f"lxcpy-start: {web.name}: {web.name} requires {db.name}, which could not be started: ")
    assert second.startswith(f"  at {web.config_file}:")
    assert states(db, web) == ["STOPPED", "STOPPED"]


def test_two_who_start_at_once_share_what_they_require(box: Define, bin: str, lxcpath: str, diary: Diary) -> None:
    db, first, second = box(diary.keep(pause=0.5)), box(), box()
    for one in (first, second):
        add(one, f"lxcpy.start.requires = {db.name}\n")
    commands = [
        subprocess.Popen([f"{bin}/lxcpy-start", "-P", lxcpath, one.name], stderr=subprocess.PIPE, text=True)
        for one in (first, second)
    ]
    assert [(one.communicate(timeout=30)[1], one.returncode) for one in commands] == [("", 0), ("", 0)]
    assert diary.file.read_text().count("begins") == 1
    assert states(db, first, second) == ["RUNNING"] * 3


@pytest.mark.requires("lxc")
def test_a_requirement_that_real_lxc_runs(box: Define, quick: Run, lxcpath: str) -> None:
    db, web = box(), box()
    add(web, f"lxcpy.start.requires = {db.name}\n")
    subprocess.run(["lxc-start", "-P", lxcpath, "-n", db.name], check=True, stdin=subprocess.DEVNULL)
    try:
        assert quick("start", web.name).returncode == 0
        assert states(db, web) == ["RUNNING", "RUNNING"]
    finally:
        subprocess.run(["lxc-stop", "-k", "-P", lxcpath, "-n", db.name], check=True)


# -- lxcpy-autostart -------------------------------------------------------------------------------------------------


def test_order_and_groups_are_barriers_and_within_them_all_start_at_once(
    box: Define, quick: Run, diary: Diary
) -> None:
    auto = "lxc.start.auto = 1\n"
    early = [box(diary.keep(pause=0.5) + auto + "lxc.group = a\nlxc.start.order = 1\n") for _ in range(3)]
    late = [box(diary.keep(pause=0.3) + auto + "lxc.group = a\nlxc.start.order = 2\n") for _ in range(2)]
    other = box(diary.keep() + auto + "lxc.group = b\nlxc.start.order = 0\n")
    begun = time.monotonic()
    assert quick("autostart", "-g", "a,b").returncode == 0
    took = time.monotonic() - begun
    assert states(*early, *late, other) == ["RUNNING"] * 6
    begins, runs = diary.when("begins"), diary.when("runs")
    assert max(begins[one.name] for one in early) < min(runs[one.name] for one in early)
    assert min(begins[one.name] for one in late) > max(runs[one.name] for one in early)
    assert begins[other.name] > max(runs[one.name] for one in late)
    assert took < 0.5 * 3 + 0.3 * 2, "not one after the other"
    diary.clear()
    assert quick("autostart", "-a", "-k").returncode == 0
    ended, ends = diary.when("ended"), diary.when("ends")
    assert min(ends[one.name] for one in early) > max(ended[one.name] for one in late)


def test_what_the_groups_do_not_have_is_started_for_those_that_require_it(
    box: Define, quick: Run, diary: Diary
) -> None:
    auto = "lxc.start.auto = 1\n"
    web = box(diary.keep() + auto + "lxc.group = onboot\nlxc.start.order = 1\n")
    db = box(diary.keep(pause=0.3) + "lxc.start.order = 9\nlxc.start.delay = 1\n")
    queue = box(diary.keep(pause=0.2) + auto + "lxc.group = onboot\nlxc.start.order = 7\n")
    other = box(diary.keep() + auto + "lxc.group = onboot\n")
    add(web, f"lxcpy.start.requires = {db.name}\nlxcpy.start.after = {queue.name} no-such\n")
    listed = quick("autostart", "-g", "onboot", "-L")
    assert listed.stdout == f"{other.name} 0\n{db.name} 1\n{queue.name} 0\n{web.name} 0\n"
    assert listed.returncode == 0
    assert 'warning: lxcpy.start.after: there is no container "no-such"' in listed.stderr
    assert quick("autostart", "-g", "onboot").returncode == 0
    begins, runs = diary.when("begins"), diary.when("runs")
    assert begins[web.name] > max(runs[db.name] + 1, runs[queue.name]), "the delay counts too"
    assert begins[other.name] < begins[db.name]
    diary.clear()
    stops = quick("autostart", "-a", "-A", "-L", "-s").stdout
    assert stops.split() == [one.name for one in (web, db, queue, other)]
    assert quick("autostart", "-a", "-A", "-k").returncode == 0
    ends, ended = diary.when("ends"), diary.when("ended")
    assert min(ends[db.name], ends[queue.name]) > ended[web.name]
    assert states(web, db, queue, other) == ["STOPPED"] * 4


def test_one_that_hangs_delays_only_those_that_need_it(box: Define, bin: str, lxcpath: str, diary: Diary) -> None:
    auto = "lxc.start.auto = 1\n"
    slow, user = box(auto + diary.keep(pause=1.5)), box(auto + diary.keep())
    db, web = box(auto + diary.keep()), box(auto + diary.keep())
    add(user, f"lxcpy.start.requires = {slow.name}\n")
    add(web, f"lxcpy.start.requires = {db.name}\n")
    subprocess.run([f"{bin}/lxcpy-autostart", "-P", lxcpath], check=True)
    begins, runs = diary.when("begins"), diary.when("runs")
    assert runs[web.name] < runs[slow.name] < begins[user.name]


def test_a_failure_in_an_earlier_stage_counts(box: Define, quick: Run) -> None:
    auto = "lxc.start.auto = 1\n"
    db = box(auto + "lxc.start.order = 1\nlxc.hook.pre-start = /bin/false\n")
    web, other = box(auto + "lxc.start.order = 2\n"), box(auto + "lxc.start.order = 2\n")
    add(web, f"lxcpy.start.requires = {db.name}\n")
    done = quick("autostart")
    assert done.returncode == 2
    assert states(db, web, other) == ["STOPPED", "STOPPED", "RUNNING"]
    assert f"lxcpy-autostart: {web.name}: {web.name} requires {db.name}, which could not be started: " in done.stderr


def test_stops_are_parallel_in_reverse_order_of_dependencies(box: Define, quick: Run, diary: Diary) -> None:
    slow = "lxc.signal.halt = SIGUSR1\n"  # nobody listens: they are killed when the time is over
    web, shop, db = box(diary.keep() + slow), box(diary.keep() + slow), box(diary.keep())
    for one in (web, shop):
        add(one, f"lxcpy.start.requires = {db.name}\n")
    assert quick("autostart", "-a", "-A").returncode == 0
    for one in (web, shop, db):
        one.await_traps()
    begun = time.monotonic()
    assert quick("autostart", "-a", "-A", "-s", "-t", "2").returncode == 0
    took = time.monotonic() - begun
    ends, ended = diary.when("ends"), diary.when("ended")
    assert ends[db.name] > max(ended[web.name], ended[shop.name])
    assert 2 <= took < 3.9, "both at once"


@pytest.fixture
def many(box: Define) -> Any:
    return [box("lxc.start.auto = 1\n") for _ in range(12)]


def test_no_more_launchers_work_at_once_than_there_are_processors_for(
    many: list[Box], bin: str, lxcpath: str
) -> None:
    from lxcpy.runtime import client, supervisor

    with client.connect() as asked:
        command = subprocess.Popen([f"{bin}/lxcpy-autostart", "-P", lxcpath])
        seen = []
        while command.poll() is None:
            seen.append(asked.ask("status")["launching"])
    assert command.returncode == 0
    assert 1 <= max(seen) <= supervisor.PARALLEL
    assert states(*many) == ["RUNNING"] * 12
