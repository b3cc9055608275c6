"""What breaks where the kernel lacks a feature, and the cure: the words below the lines of lxcpy-checkconfig.

What the machine has is handed in, but for `settings`. The options' meanings are those of the kernel's Kconfig files.
"""

from __future__ import annotations

from lxcpy.kernel.record import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence


class Advice(NamedTuple):
    """One missing thing."""

    what: str
    breaks: str
    cure: str


# By the kernel's option, in the order of lxcpy-checkconfig's lines: what it is called, what breaks without it.
OPTIONS: dict[str, tuple[str, str]] = {
    "NAMESPACES": ("namespaces", "no container starts"),
    "UTS_NS": ("the utsname namespace", "lxc.uts.name fails: a container would change the host's name"),
    "IPC_NS": ("the ipc namespace", "no container starts, unless lxc.namespace.keep = ipc"),
    "PID_NS": ("the pid namespace", "no container starts: its init would not be process 1"),
    "USER_NS": ("the user namespace", "lxc.idmap and the containers of ordinary users fail"),
    "NET_NS": ("the network namespace", "lxc.net fails: only lxc.net.0.type = none is left"),
    "CGROUPS": ("control groups", "no container starts: nothing can be limited, frozen or counted"),
    "CGROUP_DEVICE": ("the devices controller", "lxc.cgroup.devices.* fails on v1: nothing keeps off devices"),
    "CGROUP_SCHED": ("the cpu controller", "lxc.cgroup.cpu.* and lxc.cgroup2.cpu.* fail"),
    "CGROUP_CPUACCT": ("cpu accounting", "lxcpy-info and lxcpy-top show no CPU time on v1"),
    "MEMCG": ("the memory controller", "lxc.cgroup.memory.* and lxc.cgroup2.memory.* fail, memory is not counted"),
    "CPUSETS": ("the cpuset controller", "lxc.cgroup.cpuset.* and lxc.cgroup2.cpuset.* fail"),
    "VETH": ("veth pairs", "lxc.net.[i].type = veth fails, the default of every template"),
    "MACVLAN": ("macvlan", "lxc.net.[i].type = macvlan fails"),
    "VLAN_8021Q": ("802.1Q VLANs", "lxc.net.[i].type = vlan fails"),
    "BRIDGE": ("bridges", "lxcpy-net cannot make its bridge, veth pairs have nothing to hang on"),
    "NETFILTER_ADVANCED": ("advanced netfilter", "the kernel hides most matches and targets, NAT may be missing"),
    "IP_NF_TARGET_MASQUERADE": (
        "iptables' MASQUERADE", "IPv4 NAT by iptables fails; with nft it is CONFIG_NFT_MASQ that counts",
    ),
    "IP6_NF_TARGET_MASQUERADE": (
        "ip6tables' MASQUERADE", "IPv6 NAT by ip6tables fails; with nft it is CONFIG_NFT_MASQ that counts",
    ),
    "NETFILTER_XT_TARGET_CHECKSUM": (
        "iptables' CHECKSUM", "DHCP clients of old distributions reject the answers that come over the bridge",
    ),
    "NETFILTER_XT_MATCH_COMMENT": ("iptables' comment match", "rules of other programs that carry comments fail"),
    "FUSE_FS": ("FUSE", "lxcfs does not run: containers see the host's memory and processors in /proc"),
    "CHECKPOINT_RESTORE": ("checkpoint and restore", "criu cannot save or restore a container"),
    "FHANDLE": ("file handles", "criu cannot save open files, and systemd inside does without"),
    "EVENTFD": ("eventfd", "most programs inside fail"),
    "EPOLL": ("epoll", "lxcpy's supervisor and systemd inside do not run"),
    "UNIX_DIAG": ("diagnosis of Unix sockets", "criu cannot save Unix sockets"),
    "INET_DIAG": ("diagnosis of TCP and UDP sockets", "criu cannot save TCP connections"),
    "PACKET_DIAG": ("diagnosis of packet sockets", "criu cannot save packet sockets"),
    "NETLINK_DIAG": ("diagnosis of netlink sockets", "criu cannot save netlink sockets"),
}  # fmt: skip
_BOOLEAN = frozenset((
    "NAMESPACES", "UTS_NS", "IPC_NS", "PID_NS", "USER_NS", "NET_NS", "CGROUPS", "CGROUP_DEVICE", "CGROUP_SCHED",
    "CGROUP_CPUACCT", "MEMCG", "CPUSETS", "NETFILTER_ADVANCED", "CHECKPOINT_RESTORE", "FHANDLE", "EVENTFD", "EPOLL",
))  # fmt: skip


def options(found: Collection[str]) -> Iterator[Advice]:
    """The options that a kernel's configuration lacks."""
    for option, (name, breaks) in OPTIONS.items():
        if option not in found:
            values = "=y" if option in _BOOLEAN else "=y or =m"
            yield Advice(f"this kernel has no {name}", breaks, f"boot a kernel with CONFIG_{option}{values}")
    if "CGROUPS" in found and "CGROUP_BPF" not in found:
        breaks = "lxc.cgroup2.devices.* fails on v2: containers reach the host's devices"
        yield Advice("this kernel has no BPF programs on groups", breaks, "boot a kernel with CONFIG_CGROUP_BPF=y")


def modules(modular: Collection[str], wanted: Mapping[str, str], loaded: Collection[str], release: str,
            installed: Collection[str]) -> Iterator[Advice]:  # fmt: skip
    """Features that are modules and whose module is not there to be loaded.

    modular: options with =m. wanted: option to module. installed: the modules below /lib/modules.
    """
    for option, module in wanted.items():
        if option in modular and module not in loaded and module not in installed:
            name, breaks = OPTIONS[option]
            cure = f"install the modules of the running kernel (Debian: linux-image-{release}; Ubuntu: "
            cure += f"linux-modules-extra-{release}), then modprobe {module}; or reboot after a kernel's upgrade"
            yield Advice(f"{name}: the module {module} is not installed for {release}", breaks, cure)


def cgroups(v1: Sequence[str], v2: Sequence[str], *, namespace: bool) -> Iterator[Advice]:
    """v1, v2: mount points."""
    if not namespace:
        breaks = "containers see the host's groups, and systemd inside needs lxc.mount.auto = cgroup:mixed"
        yield Advice("this kernel has no cgroup namespaces", breaks, "boot Linux 4.6 or later")
    if not v1 and not v2:
        cure = "mount -t cgroup2 cgroup2 /sys/fs/cgroup"
        yield Advice("no control group hierarchy is mounted", "no container starts", cure)
    elif tuple(v2) != ("/sys/fs/cgroup",):
        for name, option, breaks in (
            ("systemd", "none,name=systemd", "systemd in a container that knows v1 alone does not start"),
            ("freezer", "freezer", "lxcpy-freeze fails on a host with v1 alone"),
        ):
            if not any(f"/{name}" in place for place in v1):
                place = f"/sys/fs/cgroup/{name}"
                cure = f"mkdir -p {place} && mount -t cgroup -o {option} cgroup {place}"
                yield Advice(f"the v1 hierarchy {name} is not mounted", breaks, cure)


def helpers(found: Mapping[str, tuple[str, bool] | None]) -> Iterator[Advice]:
    """newuidmap and newgidmap: (path, may change ids), None where it is not installed."""
    for name, at in found.items():
        breaks = "an ordinary user's containers cannot map ids (root's can)"
        if at is None:
            yield Advice(f"{name} is not installed", breaks, "apt install uidmap")
        elif not at[1]:
            yield Advice(f"{name} is not setuid-root", breaks, f"chown root {at[0]} && chmod u+s {at[0]}")


LIMITS = ("user", "mnt", "pid", "uts", "ipc", "net", "cgroup")


def sysctls(values: Mapping[str, str]) -> Iterator[Advice]:
    """Settings that forbid what the kernel can do. values: name (`user.max_net_namespaces`) to text."""
    for name in LIMITS:
        key = f"user.max_{name}_namespaces"
        if values.get(key) == "0":
            breaks = "no container with an id map starts" if name == "user" else "no container starts"
            yield Advice(f"{key} is 0", breaks, f"sysctl -w {key}=10000, and a line in /etc/sysctl.d to keep it")
    if values.get("kernel.unprivileged_userns_clone") == "0":
        breaks = "an ordinary user's containers do not start (root's do)"
        cure = "sysctl -w kernel.unprivileged_userns_clone=1"
        yield Advice("kernel.unprivileged_userns_clone is 0", breaks, cure)


def settings() -> dict[str, str]:
    """The sysctls that matter here, those that this kernel has."""
    found = {}
    names = ["kernel.unprivileged_userns_clone", "fs.inotify.max_user_instances"]
    for key in [*(f"user.max_{name}_namespaces" for name in LIMITS), *names]:
        try:
            with open(f"/proc/sys/{key.replace('.', '/')}") as file:
                found[key] = file.read().strip()
        except OSError:
            pass
    return found


def words(found: Sequence[Advice]) -> list[str]:
    """The lines a user sees."""
    lines = ["--- What to do ---"]
    for advice in found:
        lines += [f"{advice.what}", f"  breaks: {advice.breaks}", f"  cure: {advice.cure}"]
    return [*lines, ""] if found else []
