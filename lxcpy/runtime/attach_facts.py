"""What has to be known of a running container to enter it: its init, its namespaces, its limits. Import-light."""

from __future__ import annotations

import os

from lxcpy.errors import StateError
from lxcpy.kernel import process
from lxcpy.kernel.fd import Fd
from lxcpy.kernel.namespace import NAMESPACES
from lxcpy.kernel.record import NamedTuple
from lxcpy.runtime import lxcclient

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class Settings(NamedTuple):
    """The config's part in it."""

    environment: tuple[str, ...] = ()  # NAME=VALUE, or NAME alone: the caller's value
    limits: tuple[tuple[str, int, int], ...] = ()  # (nofile, soft, hard); -1 is unlimited
    proc: tuple[tuple[str, str], ...] = ()  # (oom_score_adj, 10)
    no_new_privs: bool = False
    seccomp: str | None = None  # the profile's path
    sched_core: bool = False


class Facts(NamedTuple):
    """A container that runs."""

    name: str
    client: lxcclient.Command
    pid: int
    pidfd: Fd
    proc: Fd  # /proc/PID: what is read through it is init's, whoever gets the number later
    different: tuple[str, ...]  # the namespaces that are not the caller's
    bounding: int  # init's bounding set of capabilities, as a mask
    personality: int
    root_ids: tuple[int, int] | None  # host ids of root in the container's user namespace; None without one
    setup_ids: tuple[int, int]  # ids inside with which to begin there: root's, else those of init
    settings: Settings


def find(lxcpath: str, name: str, *, rcfile: str | None = None) -> Facts:
    """Learn about a container. rcfile: a config to be used in place of the running one. Raises StateError."""
    client = lxcclient.command(lxcpath, name)
    try:
        pidfd, pid = _init(client)
        proc = Fd(os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC))
        status = _status(proc)
        different = _different(proc)
        personality = _personality(proc)
        root_ids, setup_ids = _ids(proc, status) if "user" in different else (None, (0, 0))
        # Init is still there, so all of this was said of init.
        process.pidfd_send_signal(pidfd.number, 0)
    except (lxcclient.Gone, FileNotFoundError, ProcessLookupError):
        raise StateError(f'container "{name}" is not running', hint=f"start it: lxcpy-start -n {name}") from None
    settings = _settings_of_file(rcfile) if rcfile else _settings(client, status)
    return Facts(
        name, client, pid, pidfd, proc, different, int(status.get("CapBnd", "0"), 16), personality, root_ids, setup_ids,
        settings,
    )  # fmt: skip


def may_be_chrooted() -> bool:
    """Whether the caller's root is not that of the machine's first process: a chroot, or another mount namespace.

    In a chroot a container without a root filesystem has that for its root, and its mount namespace another.
    """
    if os.geteuid():
        return False  # may not chroot, nor look there
    try:
        return _mount_id("/") != _mount_id("/proc/1/root")
    except OSError:
        return True  # as in a container that may not look into its host's init


def _mount_id(path: str) -> str:
    with Fd(os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as place:
        text = _read(os.open(f"/proc/self/fdinfo/{place.number}", os.O_RDONLY | os.O_CLOEXEC))
    return text.partition("mnt_id:")[2].partition("\n")[0]


def _init(client: lxcclient.Command) -> tuple[Fd, int]:
    """(pidfd, pid) of init."""
    number = client.init_pidfd()
    if number < 0:  # a monitor on an old kernel
        pid = client.init_pid()
        if not pid:
            raise ProcessLookupError(3, os.strerror(3))
        return process.pidfd_open(pid), pid
    pidfd = Fd(number)
    for line in _read(os.open(f"/proc/self/fdinfo/{number}", os.O_RDONLY | os.O_CLOEXEC)).splitlines():
        key, _, value = line.partition(":")
        if key == "Pid" and int(value) > 0:
            return pidfd, int(value)
    raise ProcessLookupError(3, os.strerror(3))


def _status(proc: Fd) -> dict[str, str]:
    found = {}
    for line in _read(_open(proc, "status")).splitlines():
        key, _, value = line.partition(":")
        found[key] = value.strip()
    return found


def _different(proc: Fd) -> tuple[str, ...]:
    different = []
    for name in NAMESPACES:
        try:
            theirs = os.stat(f"ns/{name}", dir_fd=proc.number)
            ours = os.stat(f"/proc/self/ns/{name}")
        except FileNotFoundError:
            continue  # a kernel without this kind
        if (theirs.st_ino, theirs.st_dev) != (ours.st_ino, ours.st_dev):
            different.append(name)
    return tuple(different)


def _personality(proc: Fd) -> int:
    try:
        return int(_read(_open(proc, "personality")), 16) & 0xFF  # PER_MASK; the rest are flags of init's own
    except (OSError, ValueError):
        return 0


def _ids(proc: Fd, status: dict[str, str]) -> tuple[tuple[int, int], tuple[int, int]]:
    """(host ids of the namespace's root, ids inside to begin with): where 0 is not mapped, those of init."""
    hosts, inside = [], []
    for file, key in (("uid_map", "Uid"), ("gid_map", "Gid")):
        own = int(status[key].split()[0])
        ranges = [tuple(map(int, line.split())) for line in _read(_open(proc, file)).splitlines()]
        root = next((host for low, host, count in ranges if low <= 0 < low + count), None)
        hosts.append(own if root is None else root)
        begin = next((low + own - host for low, host, count in ranges if host <= own < host + count), 0)
        inside.append(begin if root is None else 0)
    return (hosts[0], hosts[1]), (inside[0], inside[1])


def _settings(client: lxcclient.Command, status: dict[str, str]) -> Settings:
    """From the running config. Init's own status says which questions need no asking."""
    filtered = status.get("Seccomp") == "2"
    return Settings(
        environment=_lines(client, "lxc.environment") + _lines(client, "lxc.environment.runtime"),
        limits=parse_limits(_lines(client, "lxc.prlimit")),
        proc=tuple(_pair(line, "lxc.proc.") for line in _lines(client, "lxc.proc")),
        no_new_privs=status.get("NoNewPrivs") == "1" and client.config_item("lxc.no_new_privs") == "1",
        seccomp=client.config_item("lxc.seccomp.profile") if filtered else None,
        sched_core=client.config_item("lxc.sched.core") == "1",
    )


def _settings_of_file(path: str) -> Settings:
    from lxcpy.config.load import load

    config = load(path)
    return Settings(
        environment=config.environment.always + config.environment.runtime,
        limits=tuple((limit.name, limit.soft, limit.hard) for limit in config.prlimit),
        proc=config.proc,
        no_new_privs=config.no_new_privs,
        seccomp=config.seccomp.profile,
        sched_core=config.sched_core,
    )


def _lines(client: lxcclient.Command, key: str) -> tuple[str, ...]:
    value = client.config_item(key)
    return tuple(line for line in (value or "").split("\n") if line)


def _pair(line: str, prefix: str) -> tuple[str, str]:
    key, _, value = line.partition("=")
    return key.strip().removeprefix(prefix), value.strip()


def parse_limits(lines: Sequence[str]) -> tuple[tuple[str, int, int], ...]:
    """`lxc.prlimit.nofile = 1000:2000` as (nofile, 1000, 2000); one number stands for both."""
    limits = []
    for line in lines:
        name, value = _pair(line, "lxc.prlimit.")
        soft, _, hard = value.partition(":")
        numbers = [-1 if word.strip() == "unlimited" else int(word) for word in (soft, hard or soft)]
        limits.append((name, numbers[0], numbers[1]))
    return tuple(limits)


def _open(directory: Fd, name: str) -> int:
    return os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=directory.number)


def _read(fd: int) -> str:
    """The whole file as text; the descriptor is closed."""
    try:
        parts = []
        while part := os.read(fd, 1 << 16):
            parts.append(part)
        return b"".join(parts).decode(errors="surrogateescape")
    finally:
        os.close(fd)
