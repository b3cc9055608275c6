"""Check what this kernel offers to containers."""

from __future__ import annotations

import os
import stat
import sys

from lxcpy import __version__
from lxcpy.cli.options import PLAIN, Command, Option
from lxcpy.cli.options import Args as CommonArgs
from lxcpy.errors import LxcpyError
from lxcpy.kernel.record import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from lxcpy.runtime.doctor import kernel


class Args(CommonArgs):
    json: bool


COMMAND = Command(
    "checkconfig",
    "Check what this kernel offers to containers.",
    "",
    (Option("", "json", None, "One object with everything.", ours=True),),
    exit_status={0: "the configuration of the kernel was found and shown", 1: "it was not found"},
    named=False,
    common=PLAIN,
    stdout_help=True,
    words="The environment variable CONFIG names another configuration than the running kernel's. Below LXC's lines "
    "stands, for each missing thing, what breaks without it and what cures it.",
    args=Args,
)


class Row(NamedTuple):
    """One line: what is looked for, and how it is called."""

    label: str
    option: str  # of the kernel's configuration, without CONFIG_
    required: bool = False
    module: str = ""


NAMESPACES = (
    Row("Namespaces", "NAMESPACES", True),
    Row("Utsname namespace", "UTS_NS"),
    Row("Ipc namespace", "IPC_NS", True),
    Row("Pid namespace", "PID_NS", True),
    Row("User namespace", "USER_NS"),
    Row("Network namespace", "NET_NS"),
)
CGROUPS = (
    Row("Cgroup device", "CGROUP_DEVICE"),
    Row("Cgroup sched", "CGROUP_SCHED"),
    Row("Cgroup cpu account", "CGROUP_CPUACCT"),
    Row("Cgroup memory controller", "MEMCG"),
    Row("Cgroup cpuset", "CPUSETS"),
)
MISC = (
    Row("Veth pair device", "VETH", module="veth"),
    Row("Macvlan", "MACVLAN", module="macvlan"),
    Row("Vlan", "VLAN_8021Q", module="8021q"),
    Row("Bridges", "BRIDGE", module="bridge"),
    Row("Advanced netfilter", "NETFILTER_ADVANCED", module="nf_tables"),
    Row("CONFIG_IP_NF_TARGET_MASQUERADE", "IP_NF_TARGET_MASQUERADE", module="nf_nat_masquerade_ipv4"),
    Row("CONFIG_IP6_NF_TARGET_MASQUERADE", "IP6_NF_TARGET_MASQUERADE", module="nf_nat_masquerade_ipv6"),
    Row("CONFIG_NETFILTER_XT_TARGET_CHECKSUM", "NETFILTER_XT_TARGET_CHECKSUM", module="xt_CHECKSUM"),
    Row("CONFIG_NETFILTER_XT_MATCH_COMMENT", "NETFILTER_XT_MATCH_COMMENT", module="xt_comment"),
    Row("FUSE (for use with lxcfs)", "FUSE_FS", module="fuse"),
)
CHECKPOINT = (
    Row("checkpoint restore", "CHECKPOINT_RESTORE"),
    *(
        Row(f"CONFIG_{name}", name)
        for name in ("FHANDLE", "EVENTFD", "EPOLL", "UNIX_DIAG", "INET_DIAG", "PACKET_DIAG", "NETLINK_DIAG")
    ),
)
COLOURS = {"enabled": "1;32", "required": "1;31", "missing": "1;33"}


class Host(NamedTuple):
    """What is known of the machine beside the kernel's configuration."""

    cgroup_namespace: bool
    v1: tuple[str, ...]  # mount points
    v2: tuple[str, ...]
    clone_children: bool  # the first v1 hierarchy has that flag
    helpers: dict[str, bool | None]  # newuidmap, newgidmap: whether setuid, None where it is not installed
    modules: frozenset[str] | None  # None: the kernel does not tell


def enabled(text: str) -> frozenset[str]:
    """The options that a kernel's configuration has as =y or =m, without CONFIG_."""
    lines = (line.removeprefix("CONFIG_").split("=") for line in text.split("\n") if line.startswith("CONFIG_"))
    return frozenset(words[0] for words in lines if len(words) == 2 and words[1].strip() in ("y", "m"))


def report(found: frozenset[str], host: Host, *, colour: bool = False) -> list[str]:
    """The lines below the head, as lxc-checkconfig writes them."""

    def state(there: bool, required: bool = False) -> str:
        word = "enabled" if there else "required" if required else "missing"
        return f"\033[{COLOURS[word]}m{word}\033[0;39m" if colour else word

    def line(row: Row) -> str:
        text = f"{row.label}: {state(row.option in found, row.required)}"
        if row.module and row.option in found and host.modules is not None:
            text += ", loaded" if row.module in host.modules else ", not loaded"
        return text

    lines = ["", "--- Namespaces ---"]
    for row in NAMESPACES:
        lines.append(line(row))
        if row.option == "USER_NS" and row.option in found:
            for name, setuid in host.helpers.items():
                if setuid is None:
                    lines.append(f"{name} is not installed")
                elif not setuid:
                    lines.append(f"Warning: {name} is not setuid-root")
    lines += ["", "--- Control groups ---", line(Row("Cgroups", "CGROUPS"))]
    lines += [f"Cgroup namespace: {state(host.cgroup_namespace)}", "Cgroup v1 mount points: "]
    lines += [*(f" - {place}" for place in host.v1), "Cgroup v2 mount points: ", *(f" - {place}" for place in host.v2)]
    if host.v2 != ("/sys/fs/cgroup",):
        for name in ("systemd", "freezer"):
            if not any(f"/{name}" in place for place in host.v1):
                missing = f"\033[{COLOURS['required']}mmissing\033[0;39m" if colour else "missing"
                lines.append(f"Cgroup v1 {name} controller: {missing}")
        if host.clone_children:
            lines.append(f"Cgroup v1 clone_children flag: {state(True)}")
    lines += map(line, CGROUPS)
    lines += ["", "--- Misc ---", *map(line, MISC)]
    lines += ["", "--- Checkpoint/Restore ---", *map(line, CHECKPOINT), f"File capabilities: {state(True)}", ""]
    return lines


def to_dict(path: str, found: frozenset[str], host: Host, advice: list[kernel.Advice]) -> dict[str, Any]:
    """For --json. path: where the kernel's configuration was found."""
    parts = {"namespaces": NAMESPACES, "cgroups": CGROUPS, "misc": MISC, "checkpoint": CHECKPOINT}
    known = host.modules is not None
    return {
        "kernel_config": path,
        "features": [
            {
                "part": part, "option": f"CONFIG_{row.option}", "enabled": row.option in found,
                "required": row.required, "module": row.module or None,
                "loaded": row.module in (host.modules or ()) if known and row.module and row.option in found else None,
            }
            for part, rows in parts.items() for row in rows
        ],
        "cgroup_namespace": host.cgroup_namespace,
        "cgroup1_mounts": list(host.v1),
        "cgroup2_mounts": list(host.v2),
        "findings": [{"what": one.what, "why": one.breaks, "cure": one.cure} for one in advice],
    }  # fmt: skip


def look() -> Host:
    """This machine."""
    import shutil

    with open("/proc/self/mounts") as file:
        mounts = [words.split(" ") for words in file]
    v1, v2 = (tuple(words[1] for words in mounts if words[2] == kind) for kind in ("cgroup", "cgroup2"))
    helpers: dict[str, bool | None] = {}
    for name in ("newuidmap", "newgidmap"):
        path = shutil.which(name)
        helpers[name] = bool(os.stat(path).st_mode & stat.S_ISUID) if path else None
    try:
        with open("/proc/modules") as file:
            modules = frozenset(line.split(" ")[0] for line in file)
    except OSError:
        modules = None
    clone_children = bool(v1) and os.path.isfile(f"{v1[0]}/cgroup.clone_children")
    return Host(os.path.exists("/proc/self/ns/cgroup"), v1, v2, clone_children, helpers, modules)


def kernel_config(*, quiet: bool = False) -> tuple[str, str, list[str]]:
    """(path, text) of the kernel's configuration, and lines that say where it was found. Raises LxcpyError.

    quiet: where it is not found, do not print where it was looked for.
    """
    wanted = os.environ.get("CONFIG") or "/proc/config.gz"
    release = os.uname().release
    said: list[str] = []
    path = wanted
    if not os.path.isfile(path):
        said.append(f"Kernel configuration not found at {wanted}; searching...")
        places = (f"/boot/config-{release}", f"/lib/modules/{release}/build/.config")
        path = next((place for place in places if os.path.isfile(place)), "")
        if not path:
            if not quiet:
                sys.stdout.write("".join(f"{text}\n" for text in said))
            raise LxcpyError(
                "unable to retrieve kernel configuration",
                hint="modprobe configs may bring it, or the kernel's headers; CONFIG=PATH in the environment names it",
            )
        said.append(f"Kernel configuration found at {path}")
    try:
        with open(path, "rb") as file:
            data = file.read()
        if data.startswith(b"\x1f\x8b"):
            import zlib

            data = zlib.decompress(data, wbits=31)
    except (OSError, ValueError) as error:
        raise LxcpyError(f'cannot read "{path}": {error}') from error
    return path, data.decode(errors="replace"), said


def advice(text: str, host: Host) -> list[kernel.Advice]:
    """What is missing, in the order of the lines above; text: the kernel's configuration."""
    import shutil

    from lxcpy.runtime.doctor import kernel

    found = [*kernel.options(enabled(text)), *kernel.cgroups(host.v1, host.v2, namespace=host.cgroup_namespace)]
    running = "CONFIG" not in os.environ  # else it is about a kernel that does not run
    if running and host.modules is not None:
        release = os.uname().release
        wanted = {row.option: row.module for row in MISC if row.module}
        found += kernel.modules(modular(text), wanted, host.modules, release, installed(release))
    if "USER_NS" in enabled(text):
        places = {name: (shutil.which(name) or name, bool(setuid)) for name, setuid in host.helpers.items()}
        found += kernel.helpers({name: None if host.helpers[name] is None else at for name, at in places.items()})
    return [*found, *kernel.sysctls(kernel.settings())]


def modular(text: str) -> frozenset[str]:
    """The options that a kernel's configuration has as modules, without CONFIG_."""
    return frozenset(
        line.removeprefix("CONFIG_").removesuffix("=m") for line in text.split("\n") if line.endswith("=m")
    )


def installed(release: str) -> frozenset[str]:
    """The modules that modprobe would find."""
    try:
        with open(f"/lib/modules/{release}/modules.dep") as file:
            names = (line.partition(":")[0].rpartition("/")[2].partition(".")[0] for line in file)
            return frozenset(name.replace("-", "_") for name in names)
    except OSError:
        return frozenset()


def run(args: Args) -> int:
    from lxcpy.runtime.doctor import kernel

    path, text, said = kernel_config(quiet=args.json)
    if args.json:
        from lxcpy.cli import output

        host = look()
        sys.stdout.write(output.json(to_dict(path, enabled(text), host, advice(text, host))))
        return 0
    head = [f"LXC version {__version__}", *said]
    tail = [
        "Note : Before booting a new kernel, you can check its configuration",
        f"usage : CONFIG=/path/to/config {args.prog}",
        "",
    ]
    host = look()
    lines = head + report(enabled(text), host, colour=os.isatty(1)) + tail + kernel.words(advice(text, host))
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0
