"""The attached process, from its fork to its exec: into the container, out of the caller's powers.

The order is the kernel's: what needs the host's root (cgroups, limits, procfs) comes before the namespaces, the
bounding set before the ids, the filter last of what is privileged. Everything it uses is imported before the fork.
"""

from __future__ import annotations

import errno
import os

from lxcpy.errors import SecurityError, StateError, meaning
from lxcpy.kernel import capability, namespace, process
from lxcpy.kernel.record import NamedTuple
from lxcpy.runtime.execpath import exec_in_path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

PASSWD_LIMIT = 1 << 20  # bytes of /etc/passwd that are looked at


class Plan(NamedTuple):
    """What the attached process does, decided before the fork. `describe` prints it."""

    argv: tuple[str, ...]  # empty: the login shell
    environment: dict[str, str]
    pidfd: int  # of init
    namespaces: int  # CLONE_NEW*, but the pid namespace, which the parent enters for its children
    chroot: int = -1  # /proc/PID of init, whose root is entered instead of the mount namespace's
    cgroups: tuple[int, ...] = ()  # directories of the container's groups
    limits: tuple[tuple[str, int, int], ...] = ()
    proc: tuple[tuple[str, str], ...] = ()
    sched_core: bool = False  # share the core scheduling cookie of init
    cwd: str = "/"
    remount: bool = False  # proc and sysfs anew, in a mount namespace of its own
    personality: int = 0
    drop: tuple[int, ...] = ()  # capabilities
    setup_ids: tuple[int, int] | None = None  # uid and gid on entry of a user namespace
    uid: int = 0
    gid: int = 0
    label: bytes = b""  # for attr/exec
    no_new_privs: bool = False
    filter: bytes = b""  # the program of the system call filter
    slave: int = -1  # the terminal, if there is one
    function: Callable[[], int] | None = None  # run in place of argv; its value is the exit status

    def describe(self) -> list[str]:
        """The steps as lines."""
        names = [name for name, flag in namespace.NAMESPACES.items() if flag & self.namespaces]
        steps = [
            (bool(self.cgroups), f"enter {len(self.cgroups)} control groups"),
            (bool(self.limits), f"limit {', '.join(limit[0] for limit in self.limits)}"),
            (bool(self.proc), f"set {', '.join(name for name, _value in self.proc)} in /proc"),
            (True, f"enter the namespaces {' '.join(names) or '(none)'}"),
            (self.remount, "mount /proc and /sys anew"),
            (bool(self.drop), f"drop {len(self.drop)} capabilities"),
            (bool(self.label), "take init's security label"),
            (self.no_new_privs, "gain no new privileges"),
            (bool(self.filter), "install the system call filter"),
            (True, f"become {self.uid}:{self.gid}"),
            (True, f"run {' '.join(self.argv) if self.argv else 'the login shell'}"),
        ]
        return [text for done, text in steps if done]


def become(plan: Plan, entered: Callable[[], None]) -> NoReturn:
    """Enter the container and run the command. Raises LxcpyError; OSError when the command cannot be run.

    entered: called before a function is run; an exec closes what must be closed by itself.
    """
    label = _leave_host(plan)
    if plan.sched_core:
        process.core_sched_share_from(1)  # this process is in the container's pid namespace already
    _enter(plan)
    _begin(plan, label, entered)


def become_beside(plan: Plan, entered: Callable[[], None], begun: Callable[[int], object]) -> NoReturn:
    """As `become`, for an ordinary user's process, which has rights only in the container's user namespace.

    It enters that before the pid namespace, and so is not in this itself: its sibling does the rest, whose pid `begun`
    is told.
    """
    label = _leave_host(plan)
    _enter(plan)
    pid, _pidfd = namespace.clone(0, parent=True)
    if pid:
        begun(pid)
        os._exit(0)
    if plan.sched_core:
        process.core_sched_share_from(1)
    _begin(plan, label, entered)


def _begin(plan: Plan, label: int, entered: Callable[[], None]) -> NoReturn:
    _restrict(plan, label)
    if plan.function is not None:
        entered()
        os._exit(plan.function() & 0xFF)
    exec_in_path(plan.argv or login_shell(plan.uid), plan.environment)


def _leave_host(plan: Plan) -> int:
    """What only the host's root may do; the open attr/exec, or -1."""
    _enter_cgroups(plan.cgroups)
    for name, value in plan.proc:
        _write(f"/proc/self/{name.replace('.', '/')}", value.encode(), f"lxc.proc.{name}")
    for limit, soft, hard in plan.limits:
        try:
            process.prlimit(0, limit, soft, hard)
        except OSError as error:
            raise SecurityError(f"lxc.prlimit.{limit}: cannot set {soft}:{hard}: {meaning(error)}") from error
    if not plan.label:
        return -1
    if plan.label.startswith(b"exec "):  # AppArmor's; it has files of its own since Linux 5.1
        try:
            return os.open("/proc/self/attr/apparmor/exec", os.O_WRONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            pass
    return os.open("/proc/self/attr/exec", os.O_WRONLY | os.O_CLOEXEC)


def _enter_cgroups(directories: tuple[int, ...]) -> None:
    asked = False
    for directory in directories:
        try:
            enter_cgroup(directory)
        except SecurityError as error:
            if asked or os.geteuid() == 0 or not isinstance(error.__cause__, PermissionError):
                raise
            from lxcpy.cgroups import own

            asked = own.ask_systemd("attach")
            enter_cgroup(directory)


def enter_cgroup(directory: int) -> None:
    """Put the calling process into a group; on v2 into a leaf `.lxc` of it, for inner groups hold no processes.

    Raises SecurityError.
    """
    try:
        try:
            os.stat("cgroup.controllers", dir_fd=directory)
        except FileNotFoundError:
            _move(directory, "cgroup.procs")  # v1
        else:
            _enter_leaf(directory)
    except OSError as error:
        raise SecurityError(f"cannot enter the container's control group: {meaning(error)}") from error


def _enter_leaf(directory: int) -> None:
    for number in range(1000):
        leaf = f".lxc-{number}" if number else ".lxc"
        made = True
        try:
            os.mkdir(leaf, 0o755, dir_fd=directory)
        except FileExistsError:
            made = False
        try:
            if made:
                _hand_over(directory, leaf)
            _move(directory, f"{leaf}/cgroup.procs")
            return
        except OSError as error:
            if made:
                os.rmdir(leaf, dir_fd=directory)
            if error.errno != errno.EBUSY:  # EBUSY: the container has put controllers or groups below it
                raise
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))


def _hand_over(directory: int, leaf: str) -> None:
    """The leaf belongs to whom the container's group belongs, as one made inside would; a user's to itself."""
    owner = os.stat("cgroup.procs", dir_fd=directory)
    made = os.stat(leaf, dir_fd=directory)
    if (owner.st_uid, owner.st_gid) != (made.st_uid, made.st_gid) and os.geteuid() == 0:
        for name in ("", "/cgroup.procs", "/cgroup.threads", "/cgroup.subtree_control"):
            os.chown(f"{leaf}{name}", owner.st_uid, owner.st_gid, dir_fd=directory)


def _move(directory: int, name: str) -> None:
    fd = os.open(name, os.O_WRONLY | os.O_CLOEXEC, dir_fd=directory)
    try:
        os.write(fd, b"0")  # the writing process
    finally:
        os.close(fd)


def _enter(plan: Plan) -> None:
    # From here on the container can see this process. It must not be able to look into it: its memory and its
    # descriptors are still the host's.
    process.set_dumpable(False)
    if plan.namespaces:
        try:
            if plan.chroot >= 0 and plan.namespaces & namespace.CLONE_NEWNS:
                root = os.open("root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=plan.chroot)
                namespace.setns(plan.pidfd, plan.namespaces)
                os.fchdir(root)
                os.chroot(".")
            else:
                namespace.setns(plan.pidfd, plan.namespaces)
        except OSError as error:
            raise StateError(f"cannot enter the container's namespaces: {meaning(error)}") from error
    if plan.remount:
        _remount()
    try:
        os.chdir(plan.cwd)
    except OSError:
        os.chdir("/")  # LXC's rule: the same directory if the container has it


def _remount() -> None:
    """/proc and /sys of the namespaces entered, for this process alone."""
    from lxcpy.kernel import mount  # still the host's files: the mount namespace is the caller's

    try:
        namespace.unshare(namespace.CLONE_NEWNS)
        mount.mount(None, "/", None, mount.MS_REC | mount.MS_SLAVE, None)
        mount.umount("/proc", mount.MNT_DETACH)
        mount.mount("none", "/proc", "proc", 0, None)
        try:
            mount.umount("/sys", mount.MNT_DETACH)
        except OSError as error:
            if error.errno != errno.EINVAL:  # EINVAL: nothing was mounted there
                raise
        else:
            mount.mount("none", "/sys", "sysfs", 0, None)
    except OSError as error:
        raise StateError(f"cannot mount /proc and /sys anew: {error}") from error


def _restrict(plan: Plan, label: int) -> None:
    try:
        if plan.personality:
            process.personality(plan.personality)
        capability.drop_bounding(plan.drop)
        if plan.drop:
            # an inherited capability is not cut by the bounding set
            sets = capability.get()
            if sets.inheritable:
                capability.set(sets.effective, sets.permitted, sets.inheritable.difference(plan.drop))
        if plan.slave >= 0:
            _take_terminal(plan)
        _drop_groups()
        if plan.setup_ids is not None:
            _switch(*plan.setup_ids)
        if label >= 0:
            os.write(label, plan.label)
            os.close(label)
        if plan.no_new_privs:
            process.set_no_new_privs()
        if plan.filter:
            from lxcpy.kernel import seccomp  # loaded by the parent already, where there is a filter

            seccomp.install(plan.filter)
        _switch(plan.uid, plan.gid)
        if plan.function is not None and plan.drop:
            # the bounding set cuts at an exec alone, and a function has none
            sets = capability.get()
            capability.set(*(held.difference(plan.drop) for held in sets))
    except OSError as error:
        raise SecurityError(f"cannot take on the container's confinement: {error}") from error


def _take_terminal(plan: Plan) -> None:
    """Make the terminal that of a new session; it replaces the standard descriptors that are terminals."""
    import fcntl  # loaded with kernel.pty by the parent
    import termios

    os.setsid()
    fcntl.ioctl(plan.slave, termios.TIOCSCTTY, 0)
    if plan.uid or plan.gid:
        os.fchown(plan.slave, plan.uid, plan.gid)  # so that the command may open it again
    for number in range(3):
        if os.isatty(number):
            os.dup2(plan.slave, number)


def _drop_groups() -> None:
    try:
        os.setgroups([])
    except PermissionError:
        pass  # a user namespace whose groups were denied for good (user_namespaces(7))


def _switch(uid: int, gid: int) -> None:
    if os.getresgid() != (gid, gid, gid):
        os.setresgid(gid, gid, gid)
    if os.getresuid() != (uid, uid, uid):
        os.setresuid(uid, uid, uid)


def login_shell(uid: int) -> tuple[str, ...]:
    """The shell of `uid` in the root the process is in: of /etc/passwd, else of getent, which knows every source."""
    shell = shell_of(_passwd(), uid) or shell_of(_getent(uid), uid)
    return (shell if shell and os.access(shell, os.X_OK) else "/bin/sh",)


def shell_of(text: str, uid: int) -> str:
    """The shell of the first line of a passwd(5) text with this uid; empty for none."""
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) == 7 and fields[2] == str(uid):
            return fields[6].strip()
    return ""


def _passwd() -> str:
    try:
        # the container's file: it may be a fifo, which must not hang us
        fd = os.open("/etc/passwd", os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return os.read(fd, PASSWD_LIMIT).decode(errors="surrogateescape")
    except OSError:
        return ""
    finally:
        os.close(fd)


def _getent(uid: int) -> str:
    reader, writer = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        try:
            null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
            os.dup2(null, 0)
            os.dup2(writer, 1)
            os.dup2(null, 2)
            exec_in_path(("getent", "passwd", str(uid)), os.environ)
        finally:
            os._exit(127)
    os.close(writer)
    try:
        text = b""
        while len(text) < PASSWD_LIMIT and (part := os.read(reader, 4096)):
            text += part
    finally:
        os.close(reader)
    os.waitpid(pid, 0)
    return text.decode(errors="surrogateescape")


def _write(path: str, data: bytes, key: str) -> None:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, data)
        finally:
            os.close(fd)
    except OSError as error:
        raise SecurityError(f'{key}: cannot write "{data.decode()}" to {path}: {meaning(error)}') from error
