"""Starts one container: the host's side, in a process of its own that the warm supervisor forked.

Decide, then do: the config becomes plans; a record that names everything about to be made is written; then it is made.
Whatever goes wrong, `teardown` of that record undoes it. The container's first process is cloned with CLONE_PARENT, so
that it is the supervisor's child and this process can leave.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, NamedTuple

from lxcpy import log
from lxcpy.cgroups import layout as cgroup_layout
from lxcpy.cgroups import own as own_cgroup
from lxcpy.cgroups import plan as cgroup_plan
from lxcpy.cgroups import tree as cgroup_tree
from lxcpy.errors import LxcpyError, SecurityError, from_dict, meaning
from lxcpy.kernel import idmap, namespace, process
from lxcpy.kernel.fd import Fd
from lxcpy.network import links, undo
from lxcpy.runtime import hooks, ids, init, joins, lastwords, lock, mapped, monitor, pidfile, state
from lxcpy.runtime.channel import Channel, Closed
from lxcpy.runtime.teardown import teardown
from lxcpy.security import apparmor

LOG = log.Log("start")


class Options(NamedTuple):
    """What a start was asked for; plain data, kept in the record for a reboot."""

    name: str
    lxcpath: str
    config: str  # the config file
    define: list[str]
    environ: dict[str, str]  # the caller's
    command: list[str] | None = None  # lxc-execute: run under a small init; []: lxc.execute.cmd
    init: list[str] | None = None  # instead of lxc.init.cmd
    share: dict[str, str] = {}
    uid: int | None = None
    gid: int | None = None
    console: str | None = None
    console_log: str | None = None
    log_file: str | None = None
    log_level: int | None = None
    pidfile: str | None = None  # holds init's pid while it runs
    caller: int = 0  # pid of the client
    restore: dict[str, Any] | None = None  # from a dump: directory, verbose, script (restoring.py)
    restart: bool = True  # lxcpy.restart counts for this run
    tries: int = 0  # to start it again, since it last ran well


class Launch:
    """One start, step by step."""

    def __init__(self, options: Options, report: Channel, stdio: list[int], *, more: bool) -> None:
        self.options = options
        self.report = report
        self.stdio = stdio
        self.pidfd: Fd | None = None
        self.pid = 0
        self.record: state.Record = {}
        self.more = more
        self.warnings: list[str] = []  # what the starter should know though it runs
        self.clean = False  # nothing of this start stays in the process: it ran nobody else's programs

    # -- decide ----------------------------------------------------------------------------------------------------

    def decide(self) -> None:
        """Config and plans; nothing is made yet."""
        options = self.options
        config, text = joins.load(options.config, options)
        self.config = config
        monitor.open_log(config, options._asdict())
        hooks.check_environment(config, options.environ)
        hooked = config.hook.pre_start or config.hook.start_host or any(nic.script_up for nic in config.net)
        self.clean = self.more and not (hooked or config.monitor.unshare or config.cgroup.dirs.monitor)
        self.spaces = joins.namespaces(config, options.share)
        uid_ranges, gid_ranges = ids.ranges(config)
        ids.check_user(config, self.spaces)
        self.uid_ranges, self.gid_ranges = uid_ranges, gid_ranges
        self.owner = ids.root(uid_ranges, gid_ranges)
        self.layout = cgroup_layout.detect()
        self.cgroups = cgroup_plan.plan(
            config.cgroup,
            name=options.name,
            layout=self.layout,
            pattern=joins.system_value("lxc.cgroup.pattern"),
            use=joins.cgroup_use(),
            owner=self.owner,
            host=cgroup_plan.HostFacts.read(
                self.layout, relative=config.cgroup.relative, caller=options.caller or None
            ),
        )
        for group in self.cgroups.left_out:
            LOG.warn(f"no control group of the container's own in {group}: it belongs to another user")
        self.network = joins.plan_network(config, options.name, options.lxcpath)
        self.record = {
            "version": 1,
            "name": options.name,
            "lxcpath": options.lxcpath,
            "config": options.config,
            "state": "STARTING",
            "options": options._replace(restore=None)._asdict(),  # not in a reboot
            "text": text,
            "launcher": [os.getpid(), process.start_time(os.getpid())],
            "init": None,
            "cgroups": self.cgroups.record(),
            "network": self.network.record,
        }

    # -- do --------------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Make everything and let init run; raises LxcpyError with all of it undone."""
        # after STARTING was announced: who changes the container looks for that when it has the lock
        lock.check(os.path.join(self.options.lxcpath, self.options.name))
        self.decide()
        if self.report.ended():  # another supervisor may have begun to start it: leave it alone
            raise Closed
        state.save(self.record)
        try:
            self._make()
        except Closed:
            if self.record["state"] != "RUNNING":
                self.undo()
                raise
            # the supervisor has died since; the next one finds a container that runs
        except Exception as error:
            cause = lastwords.cause(error, self.pidfd, self.channel) if self.pidfd else error
            self.undo()
            if cause is error:
                raise
            raise cause from error
        except BaseException:
            self.undo()
            raise

    def _make(self) -> None:
        config, options = self.config, self.options
        environment = hooks.base_environment(
            config, name=options.name, config_file=options.config, caller=options.environ
        )
        monitor.unshare_mounts(config)
        if config.hook.pre_start:
            self.report.send({"waiting": True})
            hooks.run_all(config, "pre-start", environment)
        joins.check_rootfs(config)
        self._make_groups()
        monitor.Monitor(self.record).enter()
        label = apparmor.plan(
            config.apparmor,
            name=options.name,
            lxcpath=options.lxcpath,
            userns="user" in self.spaces.new,
            host=apparmor.machine(),
            at=config.at,
        )
        if label is not None:
            self.record["apparmor"] = apparmor.load(label)
        child = init.Child(
            config=config,
            options=options,
            facts=joins.rootfs_facts(config, options, spaces=self.spaces, cgroups=self.record["cgroups"]),
            spaces=self.spaces,
            environment=environment,
            stdio=self.stdio,
            label=label,
        )
        child.plan()
        if any((config.hook.pre_mount, config.hook.mount, config.hook.autodev, config.hook.start)):
            self.report.send({"waiting": True})
        for warning in (*self.cgroups.warnings, *cgroup_tree.limit(self.cgroups, self.record["cgroups"])):
            LOG.warn(warning)
            self.warnings.append(warning)
        self._clone(child)
        if self.uid_ranges or self.gid_ranges:
            if "user" in self.spaces.new:  # one that is shared has its maps
                self._map_ids()
            mapped.with_ids(cgroup_tree.delegate)(self.record["cgroups"], *self.owner)
        self._limits()
        # by its new ids the child becomes undumpable, and its /proc files root's: who is not opens them before
        netns = self._network(environment) if os.geteuid() else None
        self.channel.send({"go": "mapped"})
        if netns is None:
            netns = self._network(environment)
        self.channel.send({"go": "network"})
        message, fds = self._receive()
        # only now: the child's mknod would have to obey them
        cgroup_tree.limit_devices(self.cgroups, self.record["cgroups"])
        masters = [Fd(fd) for fd in fds]
        console = masters.pop(0) if message["console"] else None
        environment["LXC_PID"] = str(self.pid)
        self.channel.send({"go": "limited"})
        self._receive()  # ready: only exec is left
        if config.hook.start_host:
            self.report.send({"waiting": True})
            hooks.run_all(config, "start-host", environment)
        self.channel.send({"go": "exec"})
        self._await_exec()
        pidfile.write(self.options.pidfile, self.pid)
        self.record["state"] = "RUNNING"
        self.record["launcher"] = None
        state.save(self.record)
        self._report(netns, console, masters)

    def _make_groups(self) -> None:
        room = {}
        if self.cgroups.enable and os.geteuid():
            room = own_cgroup.make_room(self.record["cgroups"], self.options.caller)
        self.record["cgroups"] = cgroup_tree.create(self.cgroups)
        for mount, group in room.items():
            self.record["cgroups"]["parents"].setdefault(mount, []).append(group)

    def _clone(self, child: init.Child) -> None:
        """The container's first process, held by its channel until it is told to go."""
        self.channel, theirs = Channel.pair()
        host_time = joins.set_time_offsets(self.config, self.spaces)
        with cgroup_tree.Entry(self.record["cgroups"]) as entry:
            child.entry = entry
            pid, pidfd = joins.clone(self.spaces, entry.unified)
            if pid == 0:
                self.channel.close()
                self.report.close()  # its end tells the supervisor that the launcher died
                child.run(theirs)  # never returns
        if host_time is not None:
            namespace.setns(host_time.number, namespace.NAMESPACES["time"])
            host_time.close()
        theirs.close()
        self.pid, self.pidfd = pid, Fd(pidfd)
        self.record["init"] = [pid, process.start_time(pid)]
        state.save(self.record)

    def _map_ids(self) -> None:
        try:
            idmap.write_maps(self.pid, self.uid_ranges, self.gid_ranges)
        except OSError as error:
            if os.geteuid():
                refusal = mapped.cannot_map(error, what="lxc.idmap")
                refusal.at = self.config.at("lxc.idmap", 0)
                raise refusal from error
            raise SecurityError(
                f"lxc.idmap: the kernel refused the id map: {meaning(error)}",
                at=self.config.at("lxc.idmap", 0),
                hint="ranges may not overlap, and there are at most 340 of a kind",
            ) from error

    def _limits(self) -> None:
        """lxc.prlimit and lxc.proc: of the process that becomes init."""
        for limit in self.config.prlimit:
            key = f"lxc.prlimit.{limit.name}"
            try:
                process.prlimit(self.pid, limit.name, limit.soft, limit.hard)
            except OSError as error:
                raise LxcpyError(
                    f"{key}: cannot set {limit.soft}:{limit.hard}: {meaning(error)}", at=self.config.at(key)
                ) from error
        for file, value in self.config.proc:
            try:
                with open(f"/proc/{self.pid}/{file}", "w") as target:
                    target.write(value)
            except OSError as error:
                raise LxcpyError(
                    f'lxc.proc.{file}: cannot write "{value}" to /proc/PID/{file}: {meaning(error)}',
                    at=self.config.at(f"lxc.proc.{file}"),
                ) from error
        if self.config.sched_core:
            try:
                process.core_sched_create(self.pid)
            except OSError as error:
                raise LxcpyError(
                    f"lxc.sched.core: no core scheduling domain: {meaning(error)}",
                    at=self.config.at("lxc.sched.core"),
                    hint="the kernel needs CONFIG_SCHED_CORE and a processor with SMT",
                ) from error

    def _network(self, environment: Mapping[str, str]) -> int:
        """Links, inside and outside. A netlink socket's descriptor in the container's namespace, -1 for the host's."""
        if "net" not in self.spaces.new and "net" not in self.spaces.share:
            return -1
        with namespace.open_namespace(self.pid, "net") as netns:
            if self.network.host or self.network.inside:
                with links.Network(joins.network_script(environment)) as network:
                    self.record["network"] = network.create(self.network, pid=self.pid, netns=netns.number)
            return joins.netlink_in(netns).detach()

    # -- the child's words -----------------------------------------------------------------------------------------

    def _receive(self) -> tuple[dict[str, Any], list[int]]:
        try:
            message, fds = self.channel.receive()
        except Closed:
            raise lastwords.died() from None
        if "failed" in message:
            raise from_dict(message["failed"])
        if "idmap" in message:
            with Fd(fds[0]) as tree:
                self.channel.send({"go": "idmap", "errno": joins.map_mount(tree, message["idmap"], self.pid)})
            return self._receive()
        if "listener" in message:
            self._answer_calls(Fd(fds[0]))
            return self._receive()
        return message, fds

    def _answer_calls(self, listener: Fd) -> None:
        """At once, for the start hooks and the exec of init may be among the calls."""
        options, seccomp = self.options, self.config.seccomp
        words = {"name": options.name, "lxcpath": options.lxcpath, "init": self.pid}
        words |= {"proxy": seccomp.notify_proxy, "cookie": seccomp.notify_cookie}
        with listener:
            self.report.send({"listener": words}, [listener.number])

    def _await_exec(self) -> None:
        """The channel closes on exec; a message instead means that exec failed."""
        try:
            message, _fds = self.channel.receive()
        except Closed:
            return
        raise from_dict(message["failed"])

    def _report(self, netns: int, console: Fd | None, ttys: list[Fd]) -> None:
        assert self.pidfd is not None
        fds = [self.pidfd.number]
        held = []
        if netns >= 0:
            fds.append(netns)
        if console:
            fds.append(console.number)
        fds += [tty.number for tty in ttys]
        names = []
        scripts = self.config.hook.stop or any(nic.script_down for nic in self.config.net)
        if scripts or undo.needs_netns(self.record["network"]):
            for name in joins.HOOK_NAMESPACES:
                if name in self.spaces.new:
                    names.append(name)
                    held.append(namespace.open_namespace(self.pid, name))
                    fds.append(held[-1].number)
        if self.config.monitor.unshare:
            names.append(monitor.NAMESPACE)
            held.append(namespace.open_namespace(os.getpid(), "mnt"))
            fds.append(held[-1].number)
        self.report.send(
            {
                "started": self.pid,
                "netlink": netns >= 0,
                "console": console is not None,
                "ttys": len(ttys),
                "namespaces": names,
                "again": self.clean,
                "warnings": self.warnings,
            },
            fds,
        )
        self.channel.close()
        for fd in (self.pidfd, console, *ttys, *held):
            if fd is not None:
                fd.close()
        if netns >= 0:
            os.close(netns)

    def undo(self) -> None:
        """Kill what runs and remove what was made."""
        if self.pidfd is not None:
            self.channel.close()
            joins.kill_and_wait(self.pidfd)
        teardown(self.record, failed=True, monitor=monitor.Monitor(self.record))

