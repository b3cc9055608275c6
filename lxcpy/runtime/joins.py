"""Where the packages of floor 2 meet: the small decisions of a start that need more than one of them."""

from __future__ import annotations

import errno
import os
import shlex
import signal
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from lxcpy import log, paths, storage
from lxcpy.config import load as config_load
from lxcpy.config import system
from lxcpy.config.model import Config
from lxcpy.errors import HookError, NetworkError, RootfsError, StateError, meaning
from lxcpy.kernel import namespace, process
from lxcpy.kernel.fd import Fd
from lxcpy.network import addresses as network_addresses
from lxcpy.network import facts as network_facts
from lxcpy.network import plan as network_plan
from lxcpy.network.steps import Script
from lxcpy.rootfs import plan as rootfs_plan
from lxcpy.rootfs.context import map_tree
from lxcpy.runtime import hooks, state
from lxcpy.runtime.channel import Channel

if TYPE_CHECKING:
    from lxcpy.runtime.launcher import Options

LOG = log.Log("start")
# in the order in which LXC hands them to hooks
HOOK_NAMESPACES = ("user", "mnt", "pid", "uts", "ipc", "net", "cgroup")
KILL_WAIT = 10.0  # seconds; a process in uninterruptible sleep may take a while


# -- config --------------------------------------------------------------------------------------------------------


def load(path: str, options: Options) -> tuple[Config, str]:
    """The config of a start and its text without includes: the file, then -s KEY=VALUE, then the command's options.

    Raises ConfigError.
    """
    defines = list(options.define)
    if options.console is not None:
        defines.append(f"lxc.console.path={options.console}")
    if options.console_log is not None:
        defines.append(f"lxc.console.logfile={options.console_log}")
    return config_load.load_flat(path, defines)


def system_value(key: str) -> str | None:
    """A key of lxc.conf."""
    return system.system_value(key)


def cgroup_use() -> tuple[str, ...] | None:
    """lxc.cgroup.use as a tuple; None: every controller."""
    value = system.system_value("lxc.cgroup.use")
    if not value or value == "@all":
        return None
    return tuple(word.strip() for word in value.split(",") if word.strip())


def init_command(config: Config, options: Options) -> list[str]:
    """The words of what becomes process 1 (or, for lxc-execute, of what its init runs)."""
    if options.command or options.init:
        return options.command or options.init or []
    text = (config.execute.cmd if options.command is not None else config.init.cmd) or "/sbin/init"
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise RootfsError(f"lxc.init.cmd: {error} in `{text}`", at=config.at("lxc.init.cmd")) from error
    return words


def signal_for(config: Config, kind: str, pid: int) -> int:
    """The number of the signal that halts, reboots or stops.

    Without lxc.signal.halt it is SIGRTMIN+3 when init blocks that one, as systemd does, else SIGPWR (lxc-stop(1)).
    """
    if kind == "stop":
        return config.signal.stop or signal.SIGKILL
    if kind == "reboot":
        return config.signal.reboot or signal.SIGINT
    if config.signal.halt:
        return config.signal.halt
    systemd = signal.SIGRTMIN + 3
    try:
        blocked = process.blocked_signals(pid)
    except OSError:
        blocked = 0
    return systemd if blocked >> (systemd - 1) & 1 else signal.SIGPWR


# -- namespaces ----------------------------------------------------------------------------------------------------


class Namespaces(NamedTuple):
    """Which namespaces are the container's own, and which it shares with whom."""

    new: tuple[str, ...]
    share: dict[str, int]  # name → pid whose namespace is joined


def namespaces(config: Config, share: Mapping[str, str]) -> Namespaces:
    """Decide from lxc.namespace.*, lxc.idmap, lxc.net and the share options. Raises StateError."""
    wanted = {"mnt", "pid", "uts", "ipc", "net", "cgroup"}
    if config.namespace.clone is not None:
        wanted = set(config.namespace.clone)
    elif config.namespace.keep is not None:
        wanted -= set(config.namespace.keep)
    if config.idmap and "user" not in (config.namespace.keep or ()):
        wanted.add("user")
    if config.time.boot or config.time.monotonic:
        wanted.add("time")
    if any(nic.type == "none" for nic in config.net):
        wanted.discard("net")
    sources = {**config.namespace.share, **share}
    joined = {name: _pid_of(source, name, config) for name, source in sources.items()}
    wanted -= set(joined)
    return Namespaces(tuple(name for name in namespace.NAMESPACES if name in wanted), joined)


def _pid_of(source: str, name: str, config: Config) -> int:
    """The pid behind `NAME`, `/LXCPATH/NAME` or a number."""
    if source.isdigit():
        return int(source)
    from lxcpy.runtime import lookup

    lxcpath, _slash, container = source.rpartition("/")
    pid = lookup.init_pid(lxcpath or lookup.default_lxcpath(), container)
    if not pid:
        raise StateError(
            f'lxc.namespace.share.{name}: "{source}" is not running',
            at=config.at(f"lxc.namespace.share.{name}"),
            hint="start that container first, or give a process id",
        )
    return pid


def clone(spaces: Namespaces, cgroup_fd: int) -> tuple[int, int]:
    """Clone the container's first process: (pid, pidfd), (0, -1) in it. Raises StateError.

    cgroup_fd: its v2 group; -1 without one. The cgroup namespace is made later, by the child, once it is in its groups.
    To share namespaces a process in between joins them first, for this one could not come back from a user namespace.
    """
    flags = 0
    for name in spaces.new:
        if name not in ("cgroup", "time"):
            flags |= namespace.NAMESPACES[name]
    try:
        if not spaces.share:
            return namespace.clone(flags, parent=True, cgroup_fd=cgroup_fd)
        return _clone_beside(flags, spaces.share, cgroup_fd)
    except OSError as error:
        hint = "lxcpy-checkconfig shows what the kernel lacks; /proc/sys/user/max_*_namespaces are limits"
        if isinstance(error, PermissionError) and "user" in spaces.new:
            hint = "a process in a chroot may make no user namespace (user_namespaces(7)), and so have no lxc.idmap"
            if spaces.share and os.geteuid():
                hint = "who is not root shares namespaces along with the user namespace: lxc.namespace.share.user"
        raise StateError(f"cannot make the namespaces {', '.join(spaces.new)}: {meaning(error)}", hint=hint) from error


def _clone_beside(flags: int, share: Mapping[str, int], cgroup_fd: int) -> tuple[int, int]:
    """The clone from inside other namespaces. The process becomes ours, and the supervisor's when we leave."""
    held = {name: namespace.open_namespace(pid, name) for name, pid in share.items()}
    ours, theirs = Channel.pair()
    between = os.fork()
    if between == 0:
        pid = -1
        try:
            ours.close()
            for name in sorted(held, key=lambda name: name != "user"):
                namespace.setns(held[name].number, namespace.NAMESPACES[name])
            pid, pidfd = namespace.clone(flags, parent=True, cgroup_fd=cgroup_fd)
            if pid == 0:
                theirs.close()
                return 0, -1
            theirs.send({"pid": pid}, [pidfd])
        except OSError as error:
            theirs.send({"errno": error.errno, "text": str(error)})
        finally:
            if pid != 0:
                os._exit(0)
    theirs.close()
    for fd in held.values():
        fd.close()
    message, fds = ours.receive()
    ours.close()
    os.waitpid(between, 0)
    if "errno" in message:
        raise OSError(message["errno"], message["text"])
    return message["pid"], fds[0]


def set_time_offsets(config: Config, spaces: Namespaces) -> Fd | None:
    """A time namespace for the children of this process, with its offsets; the way back. Raises StateError."""
    if "time" not in spaces.new:
        return None
    try:
        back = Fd(os.open("/proc/self/ns/time", os.O_RDONLY | os.O_CLOEXEC))
        namespace.unshare(namespace.NAMESPACES["time"])
        with open("/proc/self/timens_offsets", "w") as file:
            for clock, offset in (("monotonic", config.time.monotonic), ("boottime", config.time.boot)):
                if offset:
                    file.write(f"{clock} {offset[0]} {offset[1]}\n")
        return back
    except OSError as error:
        keys = ("lxc.time.offset.boot", "lxc.time.offset.monotonic", "lxc.namespace.clone")
        key = next((key for key in keys if config.at(key)), keys[-1])
        raise StateError(f"{key}: cannot make the time namespace: {meaning(error)}", at=config.at(key)) from error


# -- processes -----------------------------------------------------------------------------------------------------


def kill_and_wait(pidfd: Fd) -> None:
    """SIGKILL, then wait for the end."""
    import select

    try:
        process.pidfd_send_signal(pidfd.number, signal.SIGKILL)
    except ProcessLookupError:
        return
    poll = select.poll()
    poll.register(pidfd.number, select.POLLIN)
    poll.poll(KILL_WAIT * 1000)


def kill_group(identity: list[int] | None, name: str) -> None:
    """End a process [pid, start time] that works on the container `name`, and the hooks in its process group.

    One that was killed leaves its hooks running. The number may be another's group by now, so their environment has to
    name the container.
    """
    if not identity:
        return
    if state.process_lives(identity):
        try:
            os.killpg(identity[0], signal.SIGKILL)
        except ProcessLookupError:
            pass  # it has just begun, or ended
        kill_process(identity)
        return
    for pid in process.in_group(identity[0]):
        try:
            with process.pidfd_open(pid) as pidfd, open(f"/proc/{pid}/environ", "rb") as environ:
                if f"LXC_NAME={name}".encode(errors="surrogateescape") in environ.read().split(b"\0"):
                    kill_and_wait(pidfd)
        except OSError:
            continue  # gone meanwhile


def kill_process(identity: list[int] | None) -> None:
    """End the process [pid, start time] if it is still that one."""
    if identity and state.process_lives(identity):
        try:
            with process.pidfd_open(identity[0]) as pidfd:
                if state.process_lives(identity):
                    kill_and_wait(pidfd)
        except OSError:
            pass


# -- rootfs --------------------------------------------------------------------------------------------------------


def check_rootfs(config: Config) -> None:
    """Say that the rootfs is missing before anything is made. Raises RootfsError."""
    if not config.rootfs.path:
        return
    if not config.rootfs.mount:
        try:
            os.makedirs(paths.ROOTFS_MOUNT, 0o755, exist_ok=True)
        except OSError as error:
            hint = "lxc.rootfs.mount names another place; as root, mkdir -p makes this one" if os.geteuid() else None
            what = f'cannot make the mount point "{paths.ROOTFS_MOUNT}": {meaning(error)}'
            raise RootfsError(what, hint=hint) from error
    kind, source = storage.parse(config.rootfs.path)
    if kind == "dir" and not os.path.isdir(source):
        what = "is missing" if not os.path.lexists(source) else "is not a directory"
        raise RootfsError(
            f'the root filesystem "{source}" {what}',
            at=config.at("lxc.rootfs.path"),
            hint="lxcpy-create makes one; or correct lxc.rootfs.path",
        )


def rootfs_facts(config: Config, options: Options, *, spaces: Namespaces, cgroups: dict[str, Any]) -> rootfs_plan.Facts:
    """What the rootfs plan has to know beside the config. cgroups: the record of tree.create."""
    source, backend = None, None
    if config.rootfs.path:
        kind, source = storage.parse(config.rootfs.path)
        backend = storage.backend(kind)
    return rootfs_plan.Facts(
        name=options.name,
        lxcpath=options.lxcpath,
        source=source,
        backend=backend,
        mount=config.rootfs.mount or paths.ROOTFS_MOUNT,
        userns="user" in spaces.new or "user" in spaces.share,
        cgroup_namespace="cgroup" in spaces.new,
        cgroups=tuple(
            rootfs_plan.Hierarchy(mount, version, tuple(controllers), cgroups["payload"][mount])
            for mount, (version, *controllers) in cgroups["hierarchies"].items()
            if mount in cgroups["payload"]
        ),
        own_net="net" in spaces.new,
        own_pid="pid" in spaces.new,
    )


def map_mount(tree: Fd, namespace: str, pid: int) -> int:
    """Map the ids of a detached mount of the container as `container`, or a user namespace's path, says: 0 or errno."""
    try:
        path = f"/proc/{pid}/ns/user" if namespace == "container" else namespace
        with Fd(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as userns:
            map_tree(tree.number, userns.number)
    except OSError as error:
        return error.errno or errno.EINVAL
    return 0


# -- network -------------------------------------------------------------------------------------------------------


def plan_network(config: Config, name: str, lxcpath: str) -> network_plan.NetworkPlan:
    """The links of a container. Raises NetworkError."""
    nets = network_facts.matched(config.net)
    facts = network_facts.gather(nets)
    if os.geteuid():
        facts = replace(facts, ordinary=(lxcpath, name))
    return network_plan.plan(nets, facts, config.at)


def network_script(environment: Mapping[str, str], *, fatal: bool = True) -> Callable[[Script], None]:
    """What the network calls for lxc.net.[i].script.up and .down."""

    def run(script: Script) -> None:
        try:
            hooks.run(
                script.command,
                environment,
                section="net",
                hook=script.hook,
                extra=script.arguments,
                variables=script.environment,
                origin=script.origin,
            )
        except HookError as error:
            if fatal:
                raise NetworkError(error.what, at=error.at, hint=error.hint) from error
            LOG.error(error.what)

    return run


def netlink_in(netns: Fd) -> socket.socket:
    """A netlink socket of another network namespace; the calling thread comes back. Raises OSError."""
    return network_addresses.open_socket_in(netns.number)


def addresses(sock: socket.socket) -> list[list[str]]:
    """[interface, family, address] of a container, for ls and info."""
    return [list(found) for found in network_addresses.addresses(sock)]
