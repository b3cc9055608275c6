"""Who runs a container, ours or a real LXC's monitor, and where its files are. Import-light."""

from __future__ import annotations

import os

from lxcpy import paths
from lxcpy.errors import StateError
from lxcpy.runtime import client, lxcclient


def default_lxcpath() -> str:
    """The system key lxc.lxcpath, else LXC's own default."""
    from lxcpy.config import system

    return system.system_value("lxc.lxcpath") or paths.LXCPATH


def config_path(lxcpath: str, name: str) -> str:
    """Where a container's config stands, be it there or not."""
    return os.path.join(lxcpath, name, "config")


def init_pid(lxcpath: str, name: str) -> int:
    """The host's pid of a running container's init; 0 when it is not running.

    Asks the command socket that both kinds of monitor listen on, so it needs no supervisor of ours.
    """
    try:
        return lxcclient.command(lxcpath, name).init_pid()
    except lxcclient.Gone:
        return 0


def state(lxcpath: str, name: str) -> str:
    """The state, whoever runs it."""
    answer = client.ask_if_any("get", lxcpath=lxcpath, name=name)
    if answer and answer["container"]:
        return str(answer["container"]["state"])
    return lxcclient.command(lxcpath, name).state()


def defined(lxcpath: str) -> list[str]:
    """The names that have a config file in an lxcpath, sorted by byte; none where the directory is missing."""
    return paths.containers(lxcpath)


def check_startable(lxcpath: str, name: str, rcfile: str | None = None) -> None:
    """Say what a start would trip over before anything is asked; finish what a killed command began. Raises StateError.

    rcfile: another config than the container's.
    """
    directory = os.path.join(lxcpath, name)
    if os.path.exists(os.path.join(directory, ".lxcpy-pending")):  # runtime/pending.py
        from lxcpy.runtime import pending

        pending.settle(lxcpath, name)
    if rcfile is None:
        if not os.path.exists(config_path(lxcpath, name)):
            raise no_such(lxcpath, name)
    elif not os.path.exists(rcfile):
        raise StateError(f'the config file "{rcfile}" does not exist', hint="-f names it")
    if os.path.exists(os.path.join(directory, "partial")):
        from lxcpy.runtime import partial

        partial.check(lxcpath, name)


def no_such(lxcpath: str, name: str) -> StateError:
    """The error for a name that is none, with the nearest one that is."""
    names = defined(lxcpath)
    hint = "lxcpy-create makes one, lxcpy-ls lists them"
    if names:
        import difflib

        near = difflib.get_close_matches(name, names, 1)
        hint = f'did you mean "{near[0]}"?' if near else hint
    return StateError(f'there is no container "{name}" in {lxcpath}', hint=hint)
