"""The AppArmor profile that is generated for one container. Pure text.

Root of a privileged container is root of the host to the kernel; what keeps it from the host's settings is this: files
of /proc and /sys cannot be written but for those that namespaces make its own, and filesystems can be mounted only
where that does not show the same files under another name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

# What may be written below a directory: name → the same for what is below, {} is everything. `msg*` takes any ending.
Writable = Mapping[str, Any]
PROC_SYS: Writable = {
    "kernel": {"hostname": {}, "domainname": {}, "msg*": {}, "sem*": {}, "shm*": {}},
    "net": {},
}
SYS: Writable = {
    "fs": {"cgroup": {}},
    "class": {"net": {}},
    "devices": {"virtual": {"net": {}}},
}
NO_ACCESS = (
    "/proc/kcore", "/proc/sysrq-trigger", "/proc/acpi/**", "/sys/firmware/efi/efivars/**", "/sys/kernel/security/**",
    "/sys/kernel/debug/{,**}",
)  # fmt: skip
NO_WRITING = ("/proc/bus/**", "/proc/mem", "/proc/kmem")

_BASE = """\
  capability,
  dbus,
  file,
  network,
  umount,
  unix,
  signal (receive),
  signal peer=@{profile_name},
  ptrace (readby, tracedby),
  ptrace peer=@{profile_name},
"""

# New filesystems that show nothing of the host, and those with one fixed place.
_MOUNTS = """\
  mount fstype=(tmpfs, ramfs, hugetlbfs, mqueue, devpts, overlay, fuse, fuse.*),
  mount fstype=binfmt_misc -> /proc/sys/fs/binfmt_misc/,
  mount fstype=fusectl -> /sys/fs/fuse/connections/,
  mount fstype=proc -> /proc/,
  mount fstype=sysfs -> /sys/,
  mount fstype=(cgroup, cgroup2) -> /sys/fs/cgroup/**,
  mount fstype=cgroup2 -> /sys/fs/cgroup/,
"""
_TOPS = ("dev/.lxc", "proc", "sys")


def name_of(container: str, lxcpath: str) -> str:
    """The profile's name, one for each container of the machine; at most 253 characters, as the kernel takes."""
    full = f"lxc-{container}_<{lxcpath}>"
    if len(full) <= 246:
        return full
    import hashlib

    return f"lxc-{hashlib.sha256(full.encode()).hexdigest()[:32]}"


def text(name: str, *, userns: bool, nesting: bool, mounting: bool = False, raw: Sequence[str] = ()) -> str:
    """The profile.

    userns: root inside has no rights on the host, so it may mount what the kernel lets it. nesting: containers inside
    mount proc and sysfs of their own wherever they like, so mount rules cannot hold; what may be written still does.
    mounting: disk filesystems too. raw: lines of lxc.apparmor.raw, added as they are.
    """
    lines = [f'profile "{name}" flags=(attach_disconnected,mediate_deleted) {{', _BASE]
    if userns or nesting:
        lines += ["  mount,", "  pivot_root,", "  ptrace,", "  signal,"]
    else:
        lines += [_MOUNTS, *_binds()]
        if mounting:
            lines.append("  mount fstype=(ext2, ext3, ext4, xfs, btrfs, vfat, iso9660, squashfs),")
    lines += [f"  deny {path} rwklx," for path in NO_ACCESS]
    lines += [f"  deny {path} wklx," for path in NO_WRITING]
    if not userns:  # the kernel's own checks do for a user namespace
        lines += deny_except("/proc/sys", PROC_SYS) + deny_except("/sys", SYS)
    return "\n".join([*lines, *(f"  {line}" for line in raw), "}", ""])


def _binds() -> list[str]:
    """Bind mounts and moves of all but the trees whose files are told apart by name; changes of options."""
    lines = []
    for pattern in _others("", {top: {} for top in _TOPS}):
        lines += [f"  mount options=(rw, bind) {pattern}{{,/**}},", f"  mount options=(rw, rbind) {pattern}{{,/**}},"]
        lines.append(f"  mount options=(rw, move) {pattern}{{,/**}},")
    words = ("nosuid", "nodev", "noexec")
    for mask in range(8):
        extra = "".join(f", {word}" for bit, word in enumerate(words) if mask >> bit & 1)
        lines.append(f"  mount options=(ro, remount, bind{extra}),")
    for kind in ("slave", "private", "shared", "unbindable"):
        lines.append(f"  mount options=(rw, make-{kind}) -> /{{,**}},")
        lines.append(f"  mount options=(rw, make-r{kind}) -> /{{,**}},")
    return lines


def deny_except(base: str, writable: Writable) -> list[str]:
    """Rules that deny writing to everything below `base` but what `writable` names.

    AppArmor's denials win over what is allowed, and its patterns have no exceptions: each path that is not meant has to
    differ from those that are in some first character, and there is a rule for each place where it can.
    """
    return [f"  deny {pattern}{{,/**}} wklx," for pattern in _others(base, writable)]


def _others(base: str, names: Writable) -> list[str]:
    """Patterns for all names below `base` but these, at every level."""
    tree: dict[str, dict[str, Any]] = {}
    for name, below in names.items():
        top, _, rest = name.partition("/")
        tree.setdefault(top, {}).update({rest: below} if rest else below)
    patterns = []
    for prefix in sorted({name[:length] for name in tree for length in range(len(name))}):
        following = {name[len(prefix)] for name in tree if name.startswith(prefix) and len(name) > len(prefix)}
        if "*" in following:
            continue
        patterns.append(f"{base}/{prefix}[^{''.join(sorted(following))}]*")
        if prefix and prefix not in tree:
            patterns.append(f"{base}/{prefix}")
    for name, below in tree.items():
        if not name.endswith("*"):
            longer = any(other != name and other.startswith(name) for other in tree)
            patterns += [] if longer else [f"{base}/{name}?*"]
            patterns += _others(f"{base}/{name}", below) if below else []
    return patterns
