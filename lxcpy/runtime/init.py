"""The container's first process, from its clone to the exec of init: the container's side of a start.

Everything is imported before the clone; after pivot_root the standard library's files are out of reach. It speaks to
the launcher over a channel that closes by itself on exec: that is how the launcher learns that init runs.
"""

from __future__ import annotations

import gc
import os
import signal
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from lxcpy import log
from lxcpy.cgroups.tree import Entry
from lxcpy.config.model import Config
from lxcpy.errors import CgroupError, LxcpyError, RootfsError, SecurityError, StateError, meaning
from lxcpy.kernel import keyring, namespace, process
from lxcpy.kernel.fd import Fd
from lxcpy.rootfs import apply as rootfs_apply
from lxcpy.rootfs import plan as rootfs_plan
from lxcpy.rootfs import terminals as rootfs_terminals
from lxcpy.rootfs.context import map_here
from lxcpy.runtime import execute_init, hooks, joins
from lxcpy.runtime.channel import Channel, Closed
from lxcpy.security import apparmor, caps, seccomp, selinux

if TYPE_CHECKING:
    from lxcpy.runtime.launcher import Options

LOG = log.Log("init")


class Child:
    """What the first process does."""

    def __init__(
        self,
        *,
        config: Config,
        options: Options,
        facts: rootfs_plan.Facts,
        spaces: joins.Namespaces,
        environment: Mapping[str, str],
        stdio: list[int],
        label: apparmor.Label | None,
    ) -> None:
        self.config = config
        self.options = options
        self.facts = facts
        self.spaces = spaces
        self.environment = dict(environment)
        self.stdio = stdio
        self.apparmor = label
        self.entry: Entry | None = None
        self.networked = False

    def plan(self) -> None:
        """Decide everything that can be decided before the clone."""
        config = self.config
        self.rootfs = rootfs_plan.plan(config, self.facts)
        self.caps = caps.plan(config.cap, at=config.at)
        self.filter = seccomp.prepare(config.seccomp, at=config.at)
        self.selinux = selinux.prepare(config.selinux, at=config.at)
        self.keyring = selinux.keyring_context(config.selinux)
        self.argv = joins.init_command(config, self.options)
        self.null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)

    def run(self, channel: Channel) -> NoReturn:
        """Become init. Never returns."""
        gc.disable()
        self.channel = channel
        try:
            self._prepare()
            self._enter_rootfs()
            self._restrict()
            self._exec()
        except LxcpyError as error:
            self._fail(error)
        except Closed:
            pass  # the launcher died, or gave up: it or its successor cleans up
        except OSError as error:
            self._fail(StateError(f"while the container was set up: {error}"))
        except BaseException as error:
            self._fail(StateError(f"internal error while the container was set up: {type(error).__name__}: {error}"))
        finally:
            os._exit(1)

    def _fail(self, error: LxcpyError) -> None:
        try:
            self.channel.send({"failed": error.to_dict()})
        except (Closed, OSError):
            pass

    def _wait(self, word: str) -> dict[str, Any]:
        message, _fds = self.channel.receive()
        if message["go"] == "network" != word:
            self.networked = True  # it came while this process asked for something else
            return self._wait(word)
        assert message["go"] == word, message
        return message

    def _network_ready(self) -> None:
        """Hooks see a network that is complete."""
        if not self.networked:
            self._wait("network")
            self.networked = True

    def _map_mount(self, tree: Fd, namespace: str) -> None:
        """idmap= of a mount; a process in a user namespace may not do it itself. Raises OSError."""
        self.channel.send({"idmap": namespace}, [tree.number])
        number = self._wait("idmap")["errno"]
        if number:
            raise OSError(number, os.strerror(number), namespace)

    # -- steps -----------------------------------------------------------------------------------------------------

    def _prepare(self) -> None:
        config = self.config
        for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        os.umask(0o022)
        assert self.entry is not None
        try:
            self.entry.enter()
        except OSError as error:
            raise CgroupError(f"cannot enter the container's control groups: {meaning(error)}") from error
        self.entry.close()
        self._wait("mapped")
        if self.facts.userns:
            os.setgroups([])
            os.setresgid(0, 0, 0)
            os.setresuid(0, 0, 0)
        if config.monitor.signal_pdeath:
            process.set_pdeathsig(config.monitor.signal_pdeath)
        if "cgroup" in self.spaces.new:
            # after the move into the payload group: the namespace's root is the group it is made in
            namespace.unshare(namespace.NAMESPACES["cgroup"])
        os.setsid()
        self.attribute = apparmor.open_attribute() if self.apparmor is not None else None
        idmap = self._map_mount if self.facts.userns else map_here
        self.context = context = rootfs_apply.Context(config, self.facts, idmap=idmap)
        rootfs_apply.run(self.rootfs.isolate, context)
        if config.hook.pre_mount:
            self._network_ready()
            hooks.run_all(config, "pre-mount", self.environment, stdin=self.null)

    def _enter_rootfs(self) -> None:
        config = self.config
        context = self.context
        rootfs_apply.run(self.rootfs.root, context)
        if config.uts.name and "uts" in self.spaces.new:
            try:
                socket.sethostname(config.uts.name)
            except OSError as error:
                raise StateError(
                    f'lxc.uts.name: cannot set the host name "{config.uts.name}": {meaning(error)}',
                    at=config.at("lxc.uts.name"),
                ) from error
        if config.keyring_session:
            if self.keyring:
                selinux.apply_keyring(self.keyring)
            try:
                keyring.join_session_keyring()
            except OSError as error:
                LOG.warn(f"no session keyring of its own: {meaning(error)}")
        rootfs_apply.run(self.rootfs.mounts, context)
        for hook in ("mount", "autodev") if config.autodev.enabled else ("mount",):
            if getattr(config.hook, hook):
                self._network_ready()
                hooks.run_all(config, hook, self.environment, stdin=self.null)
        rootfs_apply.run(self.rootfs.devices, context)
        terminals = rootfs_terminals.make(context, config, execute=self.options.command is not None)
        masters = [terminals.console] if terminals.console else []
        masters += terminals.ttys
        self.channel.send({"console": terminals.console is not None}, [master.number for master in masters])
        for master in masters:
            master.close()
        self.console_slave: Fd | None = terminals.console_slave
        if terminals.tty_names:
            self.environment["container_ttys"] = " ".join(terminals.tty_names)
        self._network_ready()
        self._wait("limited")
        rootfs_apply.pivot(context)
        rootfs_apply.run(self.rootfs.finish, context)

    def _restrict(self) -> None:
        config = self.config
        if config.arch:
            try:
                process.personality(process.personality_of(config.arch))
            except OSError as error:
                raise StateError(
                    f'lxc.arch: cannot set the personality of "{config.arch}": {meaning(error)}',
                    at=config.at("lxc.arch"),
                ) from error
        caps.apply(self.caps)
        if self.apparmor is not None and self.attribute is not None:
            apparmor.apply(self.apparmor, self.attribute)
        if self.selinux is not None:
            selinux.apply(self.selinux)
        if config.no_new_privs:
            process.set_no_new_privs()
        if self.filter is not None:
            listener = seccomp.apply(self.filter)
            if listener is not None:
                with listener:
                    self.channel.send({"listener": True}, [listener.number])
        if config.hook.start:
            hooks.run_all(config, "start", self.environment, stdin=self.null)

    def _exec(self) -> None:
        self.channel.send({"ready": True})
        self._wait("exec")
        config = self.config
        self._stdio()
        if config.init.cwd:
            self._chdir(config.init.cwd)
        else:
            os.chdir("/")
        self._switch_ids()
        environment = {"container": "lxc"}
        environment.update(
            hooks.expand(config.environment.always + config.environment.runtime, self.options.environ)
        )
        if "container_ttys" in self.environment:
            environment["container_ttys"] = self.environment["container_ttys"]  # systemd puts gettys there
        if self.options.command is not None:
            # lxc-execute: this process stays init; the channel's end is the launcher's sign
            self.channel.close()
            execute_init.run(self.argv, environment, self._command_identity())
        self.context.close()
        process.close_range(3, 0x7FFFFFFF, process.CLOSE_RANGE_CLOEXEC)
        try:
            os.execve(self.argv[0], self.argv, environment)
        except OSError as error:
            hint = "lxc.init.cmd names the program; the template may have failed to install one"
            if isinstance(error, PermissionError):
                hint = "it must be executable, on a mount without noexec"
            elif error.errno == 8:
                hint = "it is no program for this machine's architecture, or a script without #!"
            raise RootfsError(
                f'cannot run init "{self.argv[0]}": {meaning(error)}', at=config.at("lxc.init.cmd"), hint=hint
            ) from error

    def _command_identity(self) -> execute_init.Identity:
        """Whom the command of lxcpy-execute runs as: -u and -g, else lxc.init.uid and gid where they are not root's."""
        init, options = self.config.init, self.options
        uid = options.uid if options.uid is not None else (init.uid or None)
        gid = options.gid if options.gid is not None else (init.gid or None)
        return execute_init.Identity(uid, gid, tuple(init.groups or ()))

    def _stdio(self) -> None:
        if self.stdio:
            sources = self.stdio
        elif self.console_slave is not None:
            sources = [self.console_slave.number] * 3
        else:
            sources = [self._own_null()] * 3
        for target, source in enumerate(sources):
            os.dup2(source, target)

    def _own_null(self) -> int:
        """The container's own /dev/null, which criu finds among its mounts, if it has one; else the host's."""
        try:
            number = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW)
        except OSError:
            return self.null
        if os.fstat(number).st_rdev != os.fstat(self.null).st_rdev:
            os.close(number)
            return self.null
        os.set_blocking(number, True)
        return number

    def _chdir(self, path: str) -> None:
        try:
            os.makedirs(path, 0o755, exist_ok=True)  # LXC 7 makes it too
            os.chdir(path)
        except OSError as error:
            raise RootfsError(
                f'lxc.init.cwd: cannot enter "{path}": {meaning(error)}', at=self.config.at("lxc.init.cwd")
            ) from error

    def _switch_ids(self) -> None:
        """lxc.init.uid, gid and groups; with a user namespace the ids are those inside."""
        init = self.config.init
        if self.options.command is not None:
            return  # the command gets them, not its init
        try:
            if init.groups:
                os.setgroups(list(init.groups))
            elif init.uid or init.gid:
                os.setgroups([])
            if init.gid:
                os.setresgid(init.gid, init.gid, init.gid)
            if init.uid:
                os.setresuid(init.uid, init.uid, init.uid)
            if self.config.monitor.signal_pdeath:
                process.set_pdeathsig(self.config.monitor.signal_pdeath)  # other ids clear it
        except OSError as error:
            raise SecurityError(
                f"lxc.init.uid, lxc.init.gid: cannot become {init.uid}:{init.gid}: {meaning(error)}",
                at=self.config.at("lxc.init.uid") or self.config.at("lxc.init.gid"),
                hint="with lxc.idmap the ids must be mapped",
            ) from error


