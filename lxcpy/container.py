"""`Container`: one container, one method a verb; whoever runs it, our supervisor or a real LXC's monitor.

Import-light: the light commands are calls of this class. What a verb needs beyond a socket is imported by the verb.
"""

from __future__ import annotations

import os

from lxcpy import paths
from lxcpy.errors import StateError
from lxcpy.runtime import client, lookup, lxcclient, stopping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

    from lxcpy.runtime.checkpoint import Request
    from lxcpy.runtime.snapnames import Snapshot

STATES = ("STOPPED", "STARTING", "RUNNING", "STOPPING", "ABORTING", "FREEZING", "FROZEN", "THAWED")


class Container:
    """A container by name and lxcpath; it need not exist.

    name, lxcpath: as in the lxc-* commands. Raises UsageError for a name that is none.
    """

    def __init__(self, name: str, lxcpath: str | None = None) -> None:
        from lxcpy.errors import UsageError

        if not name or "/" in name or name in (".", "..") or "\0" in name or len(os.fsencode(name)) > 200:
            raise UsageError(f'"{name}" is not a container name', hint="a name is a file name without a slash")
        self.name = name
        self.lxcpath = paths.lxcpath(lxcpath or lookup.default_lxcpath())

    # -- on disk ---------------------------------------------------------------------------------------------------

    @property
    def directory(self) -> str:
        """LXCPATH/NAME."""
        return os.path.join(self.lxcpath, self.name)

    @property
    def config_file(self) -> str:
        """LXCPATH/NAME/config."""
        return os.path.join(self.directory, "config")

    @property
    def defined(self) -> bool:
        """Does it have a config file?"""
        return os.path.exists(self.config_file)

    def require_defined(self) -> None:
        """Raises StateError with the nearest name where there is no such container."""
        if not self.defined:
            raise lookup.no_such(self.lxcpath, self.name)

    # -- questions -------------------------------------------------------------------------------------------------

    def describe(self, **detail: bool) -> dict[str, Any] | None:
        """What runs: state, pid, config and, as `detail` asks, addresses, cgroups, network, restart. None when it is
        STOPPED, unless a `restart` is due.

        `ours` tells whether our supervisor runs it; a real LXC's monitor knows state and pid alone.
        """
        answer = client.ask_if_any("get", lxcpath=self.lxcpath, name=self.name, detail=detail)
        found = answer and answer["container"]
        if found and found["state"] != "STOPPED":
            return {**found, "ours": True}
        due = {**found, "ours": True} if found and found.get("restart") else None
        return lxcclient.command(self.lxcpath, self.name).now() or due

    @property
    def state(self) -> str:
        """One of STATES."""
        found = self.describe()
        return str(found["state"]) if found else "STOPPED"

    @property
    def init_pid(self) -> int:
        """The host's pid of init; 0 when it is not running."""
        return lookup.init_pid(self.lxcpath, self.name)

    # -- verbs -----------------------------------------------------------------------------------------------------

    def start(
        self,
        *,
        rcfile: str | None = None,
        define: Sequence[str] = (),
        command: Sequence[str] | None = None,
        init: Sequence[str] | None = None,
        share: Mapping[str, str] | None = None,
        uid: int | None = None,
        gid: int | None = None,
        console: str | None = None,
        console_log: str | None = None,
        log_file: str | None = None,
        log_level: int | None = None,
        pidfile: str | None = None,
        restore: Mapping[str, Any] | None = None,
        stdio: Sequence[int] = (),
        foreground: bool = False,
    ) -> Start:
        """Start it and return once it runs. Raises LxcpyError with the cause, everything undone.

        rcfile:     another config file. define: KEY=VALUE, applied after it.
        command:    run this under a small init instead of the system (lxc-execute).
        init:       run this instead of lxc.init.cmd.
        share:      namespace → container name or pid.
        pidfile:    holds init's pid while it runs.
        restore:    from a checkpoint; see `resume`.
        stdio:      three descriptors for init instead of the console.
        foreground: it ends with this process: keep the returned connection open.
        """
        self.check_startable(rcfile)
        options = self.options(
            rcfile=rcfile, define=define, command=command, init=init, share=share, uid=uid, gid=gid,
            console=console, console_log=console_log, log_file=log_file, log_level=log_level,
            pidfile=pidfile,
        )  # fmt: skip
        options["restore"] = dict(restore) if restore else None
        from lxcpy.runtime import dependencies

        dependencies.start_required(self.lxcpath, self.name, options["config"], define, options["environ"])
        supervisor = client.connect()
        try:
            number = supervisor.send("start", list(stdio), options=options, foreground=foreground)
            ended = 0
            if foreground:  # asked at once: a short command may have ended before its start is answered
                ended = supervisor.send(
                    "wait", lxcpath=self.lxcpath, name=self.name, states=["STOPPED"], change=True
                )
            answer = supervisor.answer(number)
        except BaseException:
            supervisor.close()
            raise
        if not foreground:
            supervisor.close()
        already, warnings = bool(answer.get("already")), answer.get("warnings") or ()
        return Start(supervisor, int(answer.get("pid") or 0), already, ended, warnings)

    def options(
        self,
        *,
        rcfile: str | None = None,
        define: Sequence[str] = (),
        command: Sequence[str] | None = None,
        init: Sequence[str] | None = None,
        share: Mapping[str, str] | None = None,
        uid: int | None = None,
        gid: int | None = None,
        console: str | None = None,
        console_log: str | None = None,
        log_file: str | None = None,
        log_level: int | None = None,
        pidfile: str | None = None,
    ) -> dict[str, Any]:
        """What `start` asks for, as plain data (runtime.launcher.Options)."""
        return {
            "name": self.name,
            "lxcpath": self.lxcpath,
            "config": os.path.abspath(rcfile) if rcfile else self.config_file,
            "define": list(define),
            "environ": dict(os.environ),
            "command": list(command) if command is not None else None,
            "init": list(init) if init else None,
            "share": dict(share or {}),
            "uid": uid,
            "gid": gid,
            "console": console,
            "console_log": os.path.abspath(console_log) if console_log else None,
            "log_file": os.path.abspath(log_file) if log_file else None,
            "log_level": log_level,
            "pidfile": os.path.abspath(pidfile) if pidfile else None,
            "caller": os.getpid(),
        }

    def check_startable(self, rcfile: str | None) -> None:
        """Say what a start would trip over before anything is asked. Raises StateError."""
        lookup.check_startable(self.lxcpath, self.name, rcfile)

    def signal(self, kind: str) -> None:
        """Send init the signal for halt, reboot or stop, as its config defines it. Raises StateError when stopped."""
        stopping.signal(self.lxcpath, self.name, kind)

    def wait(self, states: Iterable[str], timeout: float | None = None, *, change: bool = False) -> str | None:
        """Wait until one of `states` is reached: which, None after `timeout` seconds.

        change: not the state it is in now, only one that it enters from now on.
        """
        from lxcpy.runtime import waiting

        return waiting.wait(self.lxcpath, self.name, sorted(set(states)), timeout, change=change)

    def shutdown(self, timeout: float | None = 60) -> bool:
        """Ask init to halt and wait: did it stop within `timeout` seconds (None: for ever; 0: not waited for)?"""
        if timeout == 0:
            self.signal("halt")
            return True
        return stopping.stop(self.lxcpath, self.name, "halt", timeout)

    def kill(self, timeout: float | None = None) -> bool:
        """Send lxc.signal.stop and wait until it is STOPPED."""
        return stopping.stop(self.lxcpath, self.name, "stop", timeout)

    def reboot(self, timeout: float | None = 60) -> bool:
        """Ask init to reboot and wait until it runs again; 0 does not wait."""
        if timeout == 0:
            self.signal("reboot")
            return True
        return stopping.reboot(self.lxcpath, self.name, timeout)

    def freeze(self) -> None:
        """Stop every process until thawed. Raises StateError when it is not running."""
        self._freezer("freeze")

    def thaw(self) -> None:
        """Let the processes go on. Raises StateError when it is not running."""
        self._freezer("thaw")

    def _freezer(self, verb: str) -> None:
        """In this process, for it may take long, and the supervisor has others to look after."""
        found = self.describe(cgroups=True)
        if found and found["ours"] and found["pid"] and found["state"] != "STOPPED":
            from lxcpy.cgroups import control

            (control.freeze if verb == "freeze" else control.thaw)(found["cgroups"])
            client.ask_if_any("get", lxcpath=self.lxcpath, name=self.name)  # it looks, and tells who waits
            return
        theirs = lxcclient.command(self.lxcpath, self.name)
        if (found and found["ours"]) or not theirs.running():
            raise StateError(f"{self.name} is not running")
        if verb == "freeze":
            theirs.freeze()
        else:
            theirs.thaw()

    def destroy(self, *, force: bool = False, snapshots: bool = False) -> None:
        """Remove the container and its storage for good.

        force: kill it first where it runs. snapshots: remove its snapshots and all clones that depend on it, too.
        Raises StateError while it runs, or has snapshots or clones, unless so asked.
        """
        from lxcpy.runtime import destroy

        if force:
            for lxcpath, name in destroy.family(self.lxcpath, self.name) if snapshots else [(self.lxcpath, self.name)]:
                one = Container(name, lxcpath)
                if one.state != "STOPPED" and one.kill(30) and name == self.name and not self.defined:
                    return  # an ephemeral one goes when it stops
        (destroy.destroy_all if snapshots else destroy.destroy)(self.lxcpath, self.name)

    def checkpoint(self, request: Request) -> None:
        """Write its state to disk through criu; `request` says how. Raises LxcpyError; it then goes on as before."""
        from lxcpy.runtime import checkpoint

        checkpoint.dump(self.lxcpath, self.name, request)

    def resume(self, request: Request, *, foreground: bool = False) -> Start:
        """Start it from a checkpoint; as `start`."""
        from lxcpy.runtime import checkpoint

        words = checkpoint.restore_words(self.lxcpath, self.name, request)
        return self.start(rcfile=request.rcfile, restore=words, foreground=foreground)

    # -- copies ----------------------------------------------------------------------------------------------------

    def copy(
        self, new_name: str, lxcpath: str | None = None, *, snapshot: bool = False, allow_running: bool = False,
        backing: str | None = None, keep_name: bool = False, keep_macs: bool = False, arguments: Sequence[str] = (),
        rcfile: str | None = None,
    ) -> Container:  # fmt: skip
        """Copy it, as it is on disk. Raises LxcpyError with nothing left behind.

        snapshot: store the differences alone; the original must then stay as it is. backing: type of the storage.
        keep_name: the host name; keep_macs: the hardware addresses. arguments: of the clone hooks.
        """
        from lxcpy.runtime import copy

        made = Container(new_name, lxcpath or self.lxcpath)
        copy.copy(
            copy.Request(
                self.name, self.lxcpath, made.name, made.lxcpath, snapshot, allow_running, backing, keep_name,
                keep_macs, arguments, rcfile,
            )
        )  # fmt: skip
        return made

    def rename(self, new_name: str, arguments: Sequence[str] = (), *, keep_name: bool = False) -> Container:
        """Give it another name; see `copy`. Raises StateError while it runs, or has snapshots or clones; LxcpyError."""
        from lxcpy.runtime import rename

        made = Container(new_name, self.lxcpath)
        rename.rename(self.lxcpath, self.name, made.name, arguments, keep_name=keep_name)
        return made

    def snapshots(self) -> list[Snapshot]:
        """Its snapshots, in the order of their numbers. Raises StateError where there is no such container."""
        from lxcpy.runtime import snapnames

        return snapnames.listed(self.lxcpath, self.name)

    def snapshot(self, comment: str | None = None, *, rcfile: str | None = None) -> str:
        """Take a snapshot of the stopped container; its name. comment: a file. Raises LxcpyError."""
        from lxcpy.runtime import snapshots

        return snapshots.take(self.lxcpath, self.name, comment, rcfile)

    def restore(self, snapshot: str, new_name: str | None = None) -> Container:
        """Make it what it was when the snapshot was taken, or make a new container of it. Raises LxcpyError."""
        from lxcpy.runtime import snapshots

        made = Container(new_name or self.name, self.lxcpath)
        snapshots.put_back(self.lxcpath, self.name, snapshot, made.name)
        return made

    def delete_snapshot(self, snapshot: str | None) -> None:
        """Delete a snapshot; None: all of them. Raises StateError where something depends on it; LxcpyError."""
        from lxcpy.runtime import snapshots

        if snapshot is None:
            snapshots.delete_all(self.lxcpath, self.name)
        else:
            snapshots.delete(self.lxcpath, self.name, snapshot)


class Start:
    """What came of a start. connection: open for a foreground container, which ends when it closes."""

    def __init__(
        self, connection: client.Client, pid: int, already: bool, ended: int = 0, warnings: Sequence[str] = ()
    ) -> None:
        self.connection = connection
        self.pid = pid
        self.already = already
        self.warnings = tuple(warnings)  # about limits that have less effect here than their words say
        self.ended = ended  # number of the request that is answered when the container is STOPPED

    def take_console(self) -> int:
        """A terminal on a foreground container's console, the caller's; -1 where it has none."""
        return self.connection.fds.pop() if self.connection.fds else -1

    def wait(self) -> int | None:
        """Wait until a foreground container is STOPPED: init's raw wait status; None where it is not known."""
        status: int | None = self.connection.answer(self.ended).get("status")
        return status


def awaiting(lxcpath: str) -> list[str]:
    """Containers of an lxcpath that are STOPPED and due to be started again (lxcpy.restart)."""
    supervisor = client.connect_if_any()
    if supervisor is None:
        return []
    with supervisor:
        found = supervisor.ask("list", lxcpath=lxcpath, detail={})["containers"]
    return [one["name"] for one in found if one["state"] == "STOPPED" and one.get("restart")]


def states(lxcpath: str, **detail: bool) -> dict[str, dict[str, Any]]:
    """Every container of an lxcpath that is not STOPPED, ours and real LXC's, as `Container.describe` says it."""
    found: dict[str, dict[str, Any]] = {}
    for one in (client.ask_if_any("list", lxcpath=lxcpath, detail=detail) or {"containers": ()})["containers"]:
        if one["state"] != "STOPPED":
            found[one["name"]] = {**one, "ours": True}
    for name in lxcclient.running(lxcpath):
        if name not in found and (one := lxcclient.command(lxcpath, name).now()):
            found[name] = one
    return found
