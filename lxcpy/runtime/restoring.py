"""Starts a container from a dump: the launcher's side. What init does in a start, criu finds in the dump."""

from __future__ import annotations

import os

from lxcpy import paths
from lxcpy.cgroups import tree as cgroup_tree
from lxcpy.errors import StateError, meaning
from lxcpy.kernel import mount, namespace, process, pty
from lxcpy.kernel.fd import Fd
from lxcpy.rootfs import apply as rootfs_apply
from lxcpy.rootfs import plan as rootfs_plan
from lxcpy.rootfs.context import map_here
from lxcpy.runtime import criu, hooks, joins, monitor, pidfile, state
from lxcpy.runtime.channel import Channel
from lxcpy.runtime.launcher import LOG, Launch
from lxcpy.security import apparmor, selinux


class Restore(Launch):
    """One restore, step by step."""

    def _make(self) -> None:
        config, options = self.config, self.options
        words = options.restore
        assert words is not None
        self.channel, theirs = Channel.pair()  # there is no child of ours to talk to
        theirs.close()
        self.clean = False
        criu.version()
        criu.check_network(config)
        environment = hooks.base_environment(
            config, name=options.name, config_file=options.config, caller=options.environ
        )
        monitor.unshare_mounts(config)
        self.report.send({"waiting": True})
        hooks.run_all(config, "pre-start", environment)
        joins.check_rootfs(config)
        self.record["cgroups"] = cgroup_tree.create(self.cgroups)
        monitor.Monitor(self.record).enter()
        for warning in (*self.cgroups.warnings, *cgroup_tree.limit(self.cgroups, self.record["cgroups"])):
            LOG.warn(warning)
            self.warnings.append(warning)
        state.save(self.record)
        work = criu.Work("restore", words["directory"], words["verbose"], words["script"])
        console = self._criu(work)
        cgroup_tree.limit_devices(self.cgroups, self.record["cgroups"])
        pidfile.write(self.options.pidfile, self.pid)
        self.record["state"] = "RUNNING"
        self.record["launcher"] = None
        state.save(self.record)
        self._report(self._netlink(), console, [])

    def _criu(self, work: criu.Work) -> Fd | None:
        """Let it make the processes; the console's master, where the dump has a console."""
        terminal = self._console(work.directory)
        master, slave, number = pty.open_pty() if terminal else (None, None, -1)
        pid_file = os.path.join(os.path.dirname(state.record_path(self.options.lxcpath, self.options.name)),
                                f"{self.options.name}.{os.getpid()}.new")  # fmt: skip
        target = self.config.rootfs.mount or paths.ROOTFS_MOUNT
        argv = criu.arguments(work, self._roots(), self.config)
        argv += ["--root", target, "--restore-detached", "--pidfile", pid_file, *self._labels()]
        if slave is not None:
            argv += ["--inherit-fd", f"fd[{slave.number}]:{terminal}", "--ext-mount-map", f"console:/dev/pts/{number}"]
        argv += criu.interfaces(self.config, self.network.nics)

        def inside() -> None:
            self._mount_root()
            _keep_alive(work.directory)
            if slave is not None:
                os.set_inheritable(slave.number, True)

        try:
            criu.run(argv, work, namespaces=("mnt",), inside=inside)
            with open(pid_file) as file:
                self.pid = int(file.read())
            # criu's child until it ended, and now that of the supervisor, which is a subreaper
            self.pidfd = process.pidfd_open(self.pid)
            self.record["init"] = [self.pid, process.start_time(self.pid)]
        except (OSError, ValueError) as error:
            what = meaning(error) if isinstance(error, OSError) else str(error)
            raise StateError(f"the restored process 1 cannot be found: {what}", hint=f"see {work.log}") from error
        finally:
            state.unlink(pid_file)
            if slave is not None:
                slave.close()
        state.save(self.record)
        return master

    def _console(self, directory: str) -> str:
        try:
            with open(f"{directory}/{criu.TTY_INFO}") as file:
                terminal = file.read().strip()
        except FileNotFoundError:
            return ""
        if self.config.console.path == "none":
            raise StateError("the dump has a console, the config has none", at=self.config.at("lxc.console.path"),
                             hint="restore it with the config that it ran with")  # fmt: skip
        return terminal

    def _roots(self) -> list[tuple[list[str], str]]:
        cgroups = self.record["cgroups"]
        groups = {**cgroups["payload"], **(cgroups.get("limit") or {})}
        return [
            (list(controllers), groups[mount])
            for mount, (_version, *controllers) in cgroups["hierarchies"].items()
            if mount in groups and (controllers or len(cgroups["hierarchies"]) == 1)
        ]

    def _labels(self) -> list[str]:
        """The profile or context that takes the place of the dumped one."""
        config = self.config
        if config.selinux.context and selinux.enabled():
            return ["--lsm-profile", f"selinux:{config.selinux.context}"]
        machine = apparmor.machine()
        if not machine.enabled:
            return []
        label = apparmor.plan(
            config.apparmor, name=self.options.name, lxcpath=self.options.lxcpath,
            userns="user" in self.spaces.new, host=machine, at=config.at,
        )  # fmt: skip
        if label is None:
            return []
        self.record["apparmor"] = apparmor.load(label)
        return ["--lsm-profile", f"apparmor:{label.name}"]

    def _mount_root(self) -> None:
        """In criu's process, whose mounts are its own: it wants the root filesystem as a mount."""
        facts = joins.rootfs_facts(self.config, self.options, spaces=self.spaces, cgroups=self.record["cgroups"])
        plan = rootfs_plan.plan(self.config, facts)
        rootfs_apply.run(plan.root, rootfs_apply.Context(self.config, facts, idmap=map_here))

    def _netlink(self) -> int:
        if "net" not in self.spaces.new and "net" not in self.spaces.share:
            return -1
        try:
            with namespace.open_namespace(self.pid, "net") as netns:
                return joins.netlink_in(netns).detach()
        except OSError as error:  # it went on at once, and may have ended by now
            LOG.warn(f"no view of its network: {meaning(error)}")
            return -1


def _keep_alive(directory: str) -> None:
    """In criu's process: let it see an image of process 1 that does not have it killed with its parent."""
    path = f"{directory}/core-1.img"
    try:
        with open(path, "rb") as file:
            changed = criu.without_death_signal(file.read())
        if changed is None:
            return
        other = f"{path}.{os.getpid()}"
        with open(other, "xb") as file:
            file.write(changed)
        try:
            mount.mount(other, path, None, mount.MS_BIND)
        finally:
            os.unlink(other)
    except FileNotFoundError:
        pass  # criu says what is missing
