"""Dumps a running container through criu, be it ours or a real LXC's; says what a start needs that restores one."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from lxcpy.cgroups import layout as cgroup_layout
from lxcpy.config import load as config_load
from lxcpy.config.model import Config
from lxcpy.errors import LxcpyError, StateError, StorageError, meaning
from lxcpy.runtime import client, criu, lookup, lxcclient, waiting

STOP_WAIT = 30.0  # seconds that a container has to be STOPPED in once criu has ended it


class Request(NamedTuple):
    """What lxcpy-checkpoint was asked for."""

    directory: str
    verbose: bool = False
    script: str | None = None
    stop: bool = False  # end the container after the dump
    pre: bool = False  # its memory alone, while it goes on
    previous: str | None = None  # the directory of an earlier dump, relative to `directory`
    rcfile: str | None = None  # another config than the container's


def dump(lxcpath: str, name: str, request: Request) -> None:
    """Write the container's state to the directory. Raises LxcpyError; it then goes on as before."""
    _check_root("checkpoint")
    if lookup.state(lxcpath, name) == "STOPPED":
        raise StateError(f"{name} not running, not checkpointing")
    config = config_load.load(request.rcfile or lookup.config_path(lxcpath, name))
    version = criu.version()
    criu.check_network(config)
    if request.pre or request.previous is not None:
        criu.check_tracking()
    directory = os.path.abspath(request.directory)
    if not request.pre and os.path.exists(f"{directory}/inventory.img"):
        raise StateError("please use a fresh directory for the dump directory", hint=f'there is one in "{directory}"')
    try:
        os.makedirs(directory, 0o700, exist_ok=True)
        before = set(os.listdir(directory))
    except OSError as error:
        raise StorageError(f'cannot make the directory "{directory}": {meaning(error)}') from error
    work = criu.Work("pre-dump" if request.pre else "dump", directory, request.verbose, _absolute(request.script))
    expected = _expect(lxcpath, name, end=True) if request.stop and not request.pre else False
    try:
        criu.run(_arguments(lxcpath, name, config, work, request, version), work)
    except LxcpyError as error:
        if expected:
            _expect(lxcpath, name, end=False)
        _remove_images(directory, before)
        if config.tty.max:
            error.at = error.at or config.at("lxc.tty.max")
            error.hint = f"lxc.tty.max = 0: criu cannot dump ttys; {error.hint}"
        raise
    if request.stop and not request.pre and waiting.wait(lxcpath, name, ["STOPPED"], STOP_WAIT, change=False) is None:
        raise StateError(f"{name} did not stop within {STOP_WAIT:.0f} seconds of its dump")


def _check_root(verb: str) -> None:
    if os.geteuid():
        raise StateError(f"Must be root to {verb}", hint="criu may not do it for an ordinary user")


def _absolute(script: str | None) -> str | None:
    return script and os.path.abspath(script)


def _expect(lxcpath: str, name: str, *, end: bool) -> bool:
    """Tell our supervisor that the container's end is wanted, or is not any more: lxcpy.restart. Is it ours?"""
    supervisor = client.connect_if_any()
    if supervisor is None:
        return False
    with supervisor:
        if supervisor.ask("get", lxcpath=lxcpath, name=name)["container"] is None:
            return False
        supervisor.ask("expect", lxcpath=lxcpath, name=name, end=end)
    return True


def _remove_images(directory: str, before: set[str]) -> None:
    """What a dump that failed has left is worth nothing, but for its log."""
    for name in set(os.listdir(directory)) - before:
        if name.endswith(".img") or name == criu.TTY_INFO:
            os.unlink(f"{directory}/{name}")


def _arguments(
    lxcpath: str, name: str, config: Config, work: criu.Work, request: Request, version: tuple[int, ...]
) -> list[str]:
    monitor = lxcclient.command(lxcpath, name)
    layout = cgroup_layout.detect()
    roots, frozen = [], None
    for hierarchy in layout.hierarchies:
        first = hierarchy.controllers[0] if hierarchy.controllers else None
        group = monitor.cgroup(first, limit=True)
        if group is None or (first is None and len(layout.hierarchies) > 1):
            continue  # without controllers it would stand for all hierarchies
        roots.append((hierarchy.controllers, _slashed(group)))
        if hierarchy.version == 2 or hierarchy.serves("freezer"):
            frozen = frozen or hierarchy.mount + _slashed(group)
    argv = criu.arguments(work, roots, config)
    argv += ["-t", str(monitor.init_pid())]
    if version >= (2, 4):
        argv.append("--skip-in-flight")
    if frozen:
        argv += ["--freeze-cgroup", frozen]
    terminal = _note_console(monitor.init_pid(), config, work.directory)
    if terminal:
        argv += ["--ext-mount-map", "/dev/console:console", "--external", terminal]
    if request.previous is not None:
        argv += ["--prev-images-dir", request.previous]
    if request.pre or request.previous is not None:
        argv.append("--track-mem")
    argv.append("--force-irmap")
    if not request.pre and not request.stop:
        argv.append("--leave-running")
    return argv


def _slashed(group: str) -> str:
    return "/" + group.strip("/")


def _note_console(pid: int, config: Config, directory: str) -> str:
    """The console's terminal as criu names it, also written down for the restore; empty where there is none."""
    if config.console.path == "none":
        return ""
    path = f"/proc/{pid}/root/dev/console"
    try:
        status = os.stat(path)
        name = f"tty[{status.st_rdev:x}:{status.st_dev:x}]"
        with open(f"{directory}/{criu.TTY_INFO}", "w") as file:
            file.write(name)
    except OSError as error:
        raise StateError(f'the console cannot be noted: "{error.filename or path}": {meaning(error)}') from error
    return name


def restore_words(lxcpath: str, name: str, request: Request) -> dict[str, Any]:
    """launcher.Options.restore. Raises StateError for what cannot be restored."""
    _check_root("restore")
    if lookup.state(lxcpath, name) != "STOPPED":
        raise StateError(f"{name} is running, not restoring")
    directory = os.path.abspath(request.directory)
    if not os.path.exists(f"{directory}/inventory.img"):
        raise StateError(f'there is no dump in "{directory}"', hint="lxcpy-checkpoint -D DIR without -r makes one")
    return {"directory": directory, "verbose": request.verbose, "script": _absolute(request.script)}
