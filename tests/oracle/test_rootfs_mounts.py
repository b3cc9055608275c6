"""The mounts that a container sees, ours and real LXC's, from the same config.

Ours come from the plan applied in a cloned child, without the runtime; LXC's from lxc-start on the same rootfs.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from rootfs_child import NEW, make_rootfs, run

from lxcpy import storage
from lxcpy.config.load import load_text
from lxcpy.kernel.proc import MountInfo, mountinfo
from lxcpy.rootfs.auto import Hierarchy
from lxcpy.rootfs.plan import Facts

pytestmark = pytest.mark.requires("root", "busybox", "lxc>=5.0")

# LXC remounts /proc/sys read-only and thereby drops what /proc has; we keep it
SAFER = {"/proc/sys": {"nosuid", "nodev", "noexec"}, "/proc/sysrq-trigger": {"nosuid", "nodev", "noexec"}}

AUTO = "lxc.mount.auto = proc:mixed sys:mixed\n"
TTYS = "lxc.tty.max = 2\nlxc.pty.max = 1024\n"
CLONE = "lxc.namespace.clone = mnt pid uts ipc net\n"

CONFIGS = {
    "usual": AUTO + TTYS,
    "none": "",
    "rw": "lxc.mount.auto = proc:rw sys:rw\n",
    "ro": "lxc.mount.auto = proc sys:ro\n",
    "no net_admin": AUTO + "lxc.cap.drop = net_admin\n",
    "tty.dir": AUTO + TTYS + "lxc.tty.dir = lxc\n",
    "no console": AUTO + TTYS + "lxc.console.path = none\n",
    "one pty": AUTO + "lxc.pty.max = 1\nlxc.tty.max = 2\n",
    "no autodev": "lxc.autodev = 0\nlxc.pty.max = 5\n" + AUTO,
    "size": AUTO + "lxc.autodev.tmpfs.size = 1048576\n",
    "rootfs options": "lxc.rootfs.options = nosuid,noatime\n" + AUTO,
    "nesting": AUTO + "lxc.apparmor.allow_nesting = 1\nlxc.mount.entry = /etc mnt none bind,create=dir\n",
    "nesting without entry": AUTO + "lxc.apparmor.allow_nesting = 1\n",
    "cgroup": AUTO + "lxc.mount.auto = cgroup:mixed\n",
    "cgroup:force": AUTO + "lxc.mount.auto = cgroup:mixed:force\n",
    "cgroup:ro:force": AUTO + "lxc.mount.auto = cgroup:ro:force\n",
    "cgroup-full:ro:force": AUTO + "lxc.mount.auto = cgroup-full:ro:force\n",
    "cgroup2:ro": AUTO + "lxc.mount.auto = cgroup2:ro\n",
    "cgroup without sys_admin": AUTO + "lxc.mount.auto = cgroup\nlxc.cap.drop = sys_admin\n",
    "host's cgroups": AUTO + "lxc.mount.auto = cgroup\n" + CLONE,
    "host's cgroups, mixed": AUTO + "lxc.mount.auto = cgroup:mixed\n" + CLONE,
    "host's cgroups, ro": AUTO + "lxc.mount.auto = cgroup:ro\n" + CLONE,
    "host's cgroups, full": AUTO + "lxc.mount.auto = cgroup-full\n" + CLONE,
    "entries": AUTO + "".join(
        f"lxc.mount.entry = {entry}\n"
        for entry in (
            "tmpfs tmp tmpfs size=1m,mode=1777,nosuid 0 0",
            "/etc mnt/etc none bind,ro,create=dir",
            "/etc/hostname etc/host none bind,create=file,ro,noexec",
            "/missing mnt/missing none bind,optional,create=dir",
            "/missing mnt/missing2 none bind,optional",
            "/etc /somewhere/else none bind",
            "bin mnt/bin none bind,relative,create=dir",
            "/proc/sys mnt/sys none bind,create=dir",
            "/dev mnt/dev none rbind,create=dir,rslave",
            "/etc mnt/private none bind,create=dir,private",
            "mqueue dev/mqueue mqueue defaults,create=dir",
            r"tmpfs mnt/with\040blank tmpfs create=dir,noatime,nodev",
        )
    ),
    "absolute": AUTO + "lxc.mount.entry = /etc {lxcpath}/c1/rootfs/mnt none bind,create=dir\n",
    "fstab": AUTO + "lxc.mount.fstab = {lxcpath}/c1/fstab\nlxc.mount.entry = /etc mnt/b none bind,create=dir\n",
    "shmounts": AUTO + "lxc.mount.auto = shmounts:{lxcpath}/shared:/shared\n",
}  # fmt: skip


def settle(text: str, lxcpath: str, cgroup: str) -> list[str]:
    """One line a mount, without ids and names that differ from run to run, sorted."""
    lines = []
    for entry in mountinfo(text):
        lines.append(describe(entry, lxcpath, cgroup))
    return sorted(lines)


def describe(entry: MountInfo, lxcpath: str, cgroup: str) -> str:
    options = set(entry.options.split(",")) - SAFER.get(entry.target, set())
    root = entry.root.replace(lxcpath, "LXCPATH").replace("//deleted", "").replace(cgroup, "/PAYLOAD")
    target = entry.target.replace(cgroup, "/PAYLOAD")
    tags = " ".join(sorted(tag.partition(":")[0] for tag in entry.optional))
    return f"{target} {root} {','.join(sorted(options))} [{tags}] {entry.fstype} {entry.source} {entry.super_options}"


@pytest.fixture
def lxcpath(tmp_path: Path) -> Path:
    for parent in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        os.chmod(parent, 0o755)
    (tmp_path / "shared").mkdir()
    (tmp_path / "target").mkdir()
    (tmp_path / "c1").mkdir()
    (tmp_path / "c1/fstab").write_text(
        "# a comment\n\n/etc mnt/a none bind,create=dir 0 0\n"
        f"tmpfs {tmp_path}/c1/rootfs/mnt/c tmpfs create=dir,size=1m 0 0\n"
    )
    rootfs = Path(make_rootfs(tmp_path / "c1/rootfs"))
    for name in ("console", "null"):
        os.mknod(rootfs / "dev" / name, 0o020666, os.makedev(1, 3))
    (rootfs / "out").touch()
    return tmp_path


@pytest.fixture
def groups() -> Iterator[tuple[Hierarchy, ...]]:
    """A group of our own in each hierarchy of the host, in LXC's order: unified last."""
    with open("/proc/self/mountinfo") as file:
        entries = [entry for entry in mountinfo(file.read()) if entry.fstype in ("cgroup", "cgroup2")]
    name = f"/lxcpy-test-{os.getpid()}"
    made = []
    for entry in entries:
        path = entry.target + name
        os.mkdir(path)
        known = ("name=systemd", "cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids")
        words = tuple(word for word in entry.super_options.split(",") if word in known)
        made.append(Hierarchy(entry.target, 2 if entry.fstype == "cgroup2" else 1, words, name))
    yield tuple(made)
    for hierarchy in made:
        os.rmdir(hierarchy.mount + name)


def real(config: str, lxcpath: Path) -> str:
    """LXC's mountinfo."""
    rootfs = lxcpath / "c1/rootfs"
    (rootfs / "t").write_text("#!/bin/sh\n/bin/cat /proc/self/mountinfo > /out\n")
    os.chmod(rootfs / "t", 0o755)
    text = f"lxc.rootfs.path = dir:{rootfs}\nlxc.net.0.type = empty\nlxc.init.cmd = /t\n"
    text += "lxc.apparmor.profile = unconfined\n"
    (lxcpath / "c1/config").write_text(text + config)
    argv = ["lxc-start", "-F", "-P", str(lxcpath), "-n", "c1", "-l", "INFO", "-o", str(lxcpath / "log")]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, (lxcpath / "log").read_text()[-3000:]
    return (rootfs / "out").read_text()


def ours(text: str, lxcpath: Path, groups: tuple[Hierarchy, ...], cgroup_namespace: bool) -> str:
    config = load_text(text, "config")
    facts = Facts(
        "c1", str(lxcpath), str(lxcpath / "c1/rootfs"), storage.backend("dir"), str(lxcpath / "target"),
        cgroup_namespace=cgroup_namespace, cgroups=groups,
    )  # fmt: skip
    new = (*NEW, "cgroup") if cgroup_namespace else NEW
    return run(config, facts, "/bin/cat /proc/self/mountinfo", new=new)


@pytest.mark.parametrize("case", CONFIGS)
def test_same_mounts(case: str, lxcpath: Path, groups: tuple[Hierarchy, ...]) -> None:
    config = CONFIGS[case].replace("{lxcpath}", str(lxcpath))
    wanted = settle(real(config, lxcpath), str(lxcpath), "/lxc.payload.c1")
    shutil.rmtree(lxcpath / "c1/rootfs/mnt", ignore_errors=True)
    found = settle(ours(config, lxcpath, groups, CLONE not in config), str(lxcpath), groups[0].payload)
    assert found == wanted
