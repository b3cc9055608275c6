"""A container's config as values: the only home of types and defaults.

Every field is reached by exactly one row of the key table (`config/keys`), whose `into` is the field's path here:
`lxc.tty.max` is `tty.max`, `lxc.net.[i].link` is `net[i].link`. Frozen: a plan can trust what it was made from.
Sizes are bytes, times seconds, signals numbers, unless a field says otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from lxcpy.errors import Origin


@dataclass(frozen=True)
class Uts:
    name: str | None = None


@dataclass(frozen=True)
class Init:
    cmd: str | None = None  # None: /sbin/init
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    cwd: str | None = None  # None: /


@dataclass(frozen=True)
class Execute:
    cmd: str | None = None


@dataclass(frozen=True)
class Rootfs:
    path: str | None = None  # as written, `[TYPE:]SOURCE`; None: the host's root is shared
    mount: str | None = None  # None: paths.ROOTFS_MOUNT
    options: str | None = None
    managed: bool = True


@dataclass(frozen=True)
class Mount:
    auto: tuple[str, ...] = ()  # tokens such as `proc:mixed`, in order
    entry: tuple[str, ...] = ()  # fstab lines
    fstab: str | None = None


@dataclass(frozen=True)
class Autodev:
    enabled: bool = True
    tmpfs_size: int = 500000


@dataclass(frozen=True)
class Veth:
    mode: str = "bridge"  # bridge, router
    pair: str | None = None
    n_rxqueues: int | None = None
    n_txqueues: int | None = None
    ipv4_route: tuple[str, ...] = ()
    ipv6_route: tuple[str, ...] = ()
    vlan_id: str | None = None  # a number as text, or none
    vlan_tagged_id: tuple[int, ...] = ()


@dataclass(frozen=True)
class Nic:
    """One `lxc.net.[i]`."""

    index: int
    type: str | None = None  # empty veth vlan macvlan ipvlan phys none
    flags: str | None = None  # up
    link: str | None = None
    l2proxy: bool = False
    name: str | None = None  # in the container; None: eth%d
    hwaddr: str | None = None
    mtu: int | None = None
    ipv4_address: tuple[str, ...] = ()  # `ADDR/LEN` or `ADDR/LEN BROADCAST`, LEN always filled in
    ipv4_gateway: str | None = None  # ADDR, auto, dev
    ipv6_address: tuple[str, ...] = ()  # `ADDR/LEN`
    ipv6_gateway: str | None = None
    script_up: str | None = None
    script_down: str | None = None
    veth: Veth = Veth()
    vlan_id: int | None = None
    macvlan_mode: str = "private"
    ipvlan_mode: str = "l3"
    ipvlan_isolation: str = "bridge"


@dataclass(frozen=True)
class CgroupDirs:
    dir: str | None = None
    container: str | None = None
    container_inner: str | None = None
    monitor: str | None = None
    monitor_pivot: str | None = None


@dataclass(frozen=True)
class CgroupEntry:
    """One limit: `lxc.cgroup.KEY = VALUE` (dialect 1) or `lxc.cgroup2.KEY = VALUE` (dialect 2)."""

    dialect: int  # 1 or 2
    key: str  # memory.limit_in_bytes
    value: str
    origin: Origin | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Cgroup:
    entries: tuple[CgroupEntry, ...] = ()  # in the file's order: device rules depend on it
    dirs: CgroupDirs = CgroupDirs()
    relative: bool = False


@dataclass(frozen=True)
class IdMap:
    kind: str  # u or g
    nsid: int
    hostid: int
    count: int


@dataclass(frozen=True)
class Cap:
    drop: tuple[str, ...] = ()  # lower case, without CAP_; or a number as text
    keep: tuple[str, ...] | None = None  # None: no keep list; () : drop all


@dataclass(frozen=True)
class Seccomp:
    profile: str | None = None
    allow_nesting: bool = False
    notify_cookie: str | None = None
    notify_proxy: str | None = None


@dataclass(frozen=True)
class Apparmor:
    profile: str | None = None
    allow_incomplete: bool = False
    allow_nesting: bool = False
    raw: tuple[str, ...] = ()


@dataclass(frozen=True)
class Selinux:
    context: str | None = None
    context_keyring: str | None = None


@dataclass(frozen=True)
class Namespaces:
    clone: tuple[str, ...] | None = None  # user mnt pid uts ipc net cgroup time; None: all that apply
    keep: tuple[str, ...] | None = None
    share: Mapping[str, str] = field(default_factory=dict)  # namespace → NAME, /LXCPATH/NAME or PID


@dataclass(frozen=True)
class Time:
    boot: tuple[int, int] | None = None  # (seconds, nanoseconds), may be negative
    monotonic: tuple[int, int] | None = None


@dataclass(frozen=True)
class Console:
    path: str | None = None  # `none`: no console at all
    logfile: str | None = None
    buffer_size: int = 0  # bytes; 0: off
    size: int = 0  # limit of the log file; 0: none
    rotate: bool = False


@dataclass(frozen=True)
class Tty:
    max: int = 0
    dir: str | None = None


@dataclass(frozen=True)
class Pty:
    max: int = 0


@dataclass(frozen=True)
class Hooks:
    version: int = 0
    pre_start: tuple[str, ...] = ()
    pre_mount: tuple[str, ...] = ()
    mount: tuple[str, ...] = ()
    autodev: tuple[str, ...] = ()
    start_host: tuple[str, ...] = ()
    start: tuple[str, ...] = ()
    stop: tuple[str, ...] = ()
    post_stop: tuple[str, ...] = ()
    clone: tuple[str, ...] = ()
    destroy: tuple[str, ...] = ()


@dataclass(frozen=True)
class Environment:
    always: tuple[str, ...] = ()  # NAME=VALUE, or NAME alone: the caller's value
    runtime: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Signals:
    halt: int | None = None  # None: SIGRTMIN+3 if init blocks it, else SIGPWR
    reboot: int | None = None  # None: SIGINT
    stop: int | None = None  # None: SIGKILL


@dataclass(frozen=True)
class Monitor:
    unshare: bool = False
    signal_pdeath: int | None = None  # None: no signal, the container outlives its supervisor


@dataclass(frozen=True)
class Start:
    auto: bool = False
    delay: int = 0
    order: int = 0
    requires: tuple[str, ...] = ()  # containers that have to run before, and are started for it
    after: tuple[str, ...] = ()  # containers that are started before where both are


@dataclass(frozen=True)
class Restart:
    policy: str = "no"  # no, on-failure, always
    delay: float = 1.0  # seconds, as the other two
    delay_max: float = 60.0
    limit: int = 0  # tries; 0: any number
    period: float = 60.0


@dataclass(frozen=True)
class LogKeys:
    file: str | None = None
    level: int | None = None  # 0 TRACE .. 8 FATAL (lxcpy.log)
    syslog: str | None = None


@dataclass(frozen=True)
class Limit:
    """One `lxc.prlimit.NAME`; -1 is unlimited."""

    name: str  # nofile
    soft: int
    hard: int


@dataclass(frozen=True)
class Config:
    """Everything one container's file says, defaults filled in."""

    arch: str | None = None  # as written; kernel.process.personality_of turns it into a number
    uts: Uts = Uts()
    group: tuple[str, ...] = ()
    ephemeral: bool = False
    init: Init = Init()
    execute: Execute = Execute()
    rootfs: Rootfs = Rootfs()
    mount: Mount = Mount()
    autodev: Autodev = Autodev()
    net: tuple[Nic, ...] = ()  # by rising index
    cgroup: Cgroup = Cgroup()
    idmap: tuple[IdMap, ...] = ()
    cap: Cap = Cap()
    seccomp: Seccomp = Seccomp()
    apparmor: Apparmor = Apparmor()
    selinux: Selinux = Selinux()
    no_new_privs: bool = False
    namespace: Namespaces = Namespaces()
    time: Time = Time()
    console: Console = Console()
    tty: Tty = Tty()
    pty: Pty = Pty()
    hook: Hooks = Hooks()
    environment: Environment = Environment()
    signal: Signals = Signals()
    monitor: Monitor = Monitor()
    start: Start = Start()
    restart: Restart = Restart()
    log: LogKeys = LogKeys()
    prlimit: tuple[Limit, ...] = ()
    sysctl: tuple[tuple[str, str], ...] = ()  # (net.ipv4.ip_forward, 1)
    proc: tuple[tuple[str, str], ...] = ()  # (oom_score_adj, 10)
    keyring_session: bool = True  # a session keyring of its own
    sched_core: bool = False
    warnings: tuple[tuple[Origin, str], ...] = field(default=(), compare=False, repr=False)  # keys that say nothing now
    origins: Mapping[str, Origin] = field(default_factory=dict, compare=False, repr=False)

    def at(self, key: str, item: int | None = None) -> Origin | None:
        """Where `key` (modern name, index filled in) was written last; `item` picks one entry of a list key."""
        return self.origins.get(key if item is None else f"{key}#{item}")
