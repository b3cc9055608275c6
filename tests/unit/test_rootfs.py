"""Plans of root file systems: decided without rights, compared as the lines that --dry-run prints."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from lxcpy import storage
from lxcpy.config.model import Apparmor, Autodev, Cap, Config, IdMap, Mount, Pty, Rootfs, Tty
from lxcpy.errors import Origin, RootfsError
from lxcpy.kernel import mount
from lxcpy.rootfs import auto, fstab
from lxcpy.rootfs.auto import Auto, Hierarchy
from lxcpy.rootfs.dev import Devpts, maps_group
from lxcpy.rootfs.fstab import Entry, Place
from lxcpy.rootfs.ops import Bind, MakeHostDirectory, attributes, propagation_words, words
from lxcpy.rootfs.ops import Mount as MountOp
from lxcpy.rootfs.plan import Facts, RootfsPlan, drops, plan

FACTS = Facts("web", "/var/lib/lxc", "/var/lib/lxc/web/rootfs", storage.backend("dir"), "/target")
NODES = [
    f"devices: device node dev/{name} (c {number})"
    for name, number in (
        ("null", "1:3"), ("zero", "1:5"), ("full", "1:7"), ("random", "1:8"), ("urandom", "1:9"), ("tty", "5:0"),
    )
]  # fmt: skip
LINKS = [
    f"devices: link dev/{name} to /proc/self/fd{rest}"
    for name, rest in (("fd", ""), ("stdin", "/0"), ("stdout", "/1"), ("stderr", "/2"))
]
V2 = (Hierarchy("/sys/fs/cgroup", 2, (), "/lxc.payload.web"),)
HYBRID = (
    Hierarchy("/sys/fs/cgroup/cpu,cpuacct", 1, ("cpu", "cpuacct"), "/lxc.payload.web"),
    Hierarchy("/sys/fs/cgroup/systemd", 1, ("name=systemd",), "/lxc.payload.web"),
    Hierarchy("/sys/fs/cgroup/unified", 2, (), "/lxc.payload.web"),
)


def test_the_usual_plan() -> None:
    config = Config(
        mount=Mount(
            auto=("cgroup:mixed", "proc:mixed", "sys:mixed"),
            entry=("/sys/fs/fuse/connections sys/c none bind,optional",),
        ),
        tty=Tty(max=4),
        pty=Pty(max=1024),
        rootfs=Rootfs(options="ro"),
        origins={
            "lxc.mount.entry#0": Origin("web/config", 9, (("common.conf", 3),)),
            "lxc.rootfs.path": Origin("web/config", 1),
        },
        sysctl=(("net.ipv4.ip_forward", "1"),),
    )
    assert plan(config, FACTS).describe() == [
        "isolate: make every mount dependent on the host's (rslave)",
        "root: make every mount dependent on the host's (rslave)",
        "root: mount dir:/var/lib/lxc/web/rootfs on /target (ro)  [web/config:1]",
        "mounts: mount tmpfs on dev (mode=755,size=500000)",
        "mounts: mount proc on proc (nosuid,nodev,noexec)",
        "mounts: make proc/sys read-only except proc/sys/net",
        "mounts: make proc/sysrq-trigger read-only",
        "mounts: mount sysfs on sys (nosuid,nodev,noexec)",
        "mounts: make sys read-only except sys/devices/virtual/net",
        "mounts: bind /sys/fs/fuse/connections on sys/c (optional)  [web/config:9, included from common.conf:3]",
        *NODES,
        "devices: mount devpts on dev/pts (nosuid,noexec,newinstance,ptmxmode=0666,mode=0620,gid=5,max=1028), "
        "bind it on dev/ptmx",
        *LINKS,
        "finish: bind dev/.lxc-boot-id on proc/sys/kernel/random/boot_id (ro,nosuid,nodev,noexec) (optional)",
        "finish: set kernel parameter net.ipv4.ip_forward = 1",
    ]


def test_the_smallest_plan() -> None:
    config = Config(autodev=Autodev(enabled=False))
    facts = Facts("web", "/var/lib/lxc")
    isolate = "make every mount dependent on the host's (rslave)"
    assert plan(config, facts).describe() == [f"isolate: {isolate}", f"root: {isolate}", *LINKS]


def test_a_plan_does_not_depend_on_when_it_is_made() -> None:
    config = Config(mount=Mount(auto=("proc", "sys")), tty=Tty(max=1))
    assert plan(config, FACTS) == plan(config, FACTS)


# -- lxc.mount.auto ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tokens", "result"),
    [
        ((), Auto()),
        (("proc", "sys"), Auto(proc="mixed", sys="mixed")),
        (("proc:mixed", "proc:rw"), Auto(proc="rw")),
        (("sys:ro",), Auto(sys="ro")),
        (("cgroup",), Auto(cgroup="cgroup")),
        (("cgroup:ro:force",), Auto(cgroup="cgroup", cgroup_mode="ro", cgroup_force=True)),
        (("cgroup:force", "cgroup-full:rw"), Auto(cgroup="cgroup-full", cgroup_mode="rw")),
        (("cgroup2",), Auto(cgroup="cgroup2", cgroup_mode="rw", cgroup_force=True)),
        (("cgroup2:ro:force",), Auto(cgroup="cgroup2", cgroup_mode="ro", cgroup_force=True)),
        (("shmounts:/h",), Auto(shmounts=("/h", "/dev/.lxc-mounts"))),
        (("shmounts:/h:/c",), Auto(shmounts=("/h", "/c"))),
    ],
)
def test_tokens(tokens: tuple[str, ...], result: Auto) -> None:
    assert auto.parse(tokens) == result


BAD = ["", "dev", "proc:ro", "sys:", "cgroup:", "cgroup:force:ro", "cgroup2:rw:ro", "shmounts:", "shmounts"]


@pytest.mark.parametrize("token", BAD)
def test_bad_tokens(token: str) -> None:
    config = Config(mount=Mount(auto=(token,)), origins={"lxc.mount.auto": Origin("web/config", 3)})
    with pytest.raises(RootfsError, match="is not an automatic mount") as caught:
        plan(config, FACTS)
    assert str(caught.value.at) == "web/config:3"


def cgroups(
    token: str, hierarchies: tuple[Hierarchy, ...], *, namespace: bool = True, cap: Cap | None = None
) -> list[str]:
    config = Config(mount=Mount(auto=(token,)), cap=cap or Cap(), autodev=Autodev(enabled=False))
    facts = dataclasses.replace(FACTS, cgroups=hierarchies, cgroup_namespace=namespace)
    return [str(operation) for operation in plan(config, facts).mounts]


SAFE = "nosuid,nodev,noexec"


def test_with_a_namespace_the_container_mounts_its_cgroups_itself() -> None:
    assert cgroups("cgroup:mixed", HYBRID) == []
    assert cgroups("cgroup-full:rw", HYBRID) == []


def test_pure_v2_is_always_mounted() -> None:
    assert cgroups("cgroup:mixed", V2) == [f"mount cgroup2 on sys/fs/cgroup ({SAFE},relatime)"]
    assert cgroups("cgroup:ro", V2) == [f"mount cgroup2 on sys/fs/cgroup (ro,{SAFE},relatime)"]
    assert cgroups("cgroup", V2, namespace=False) == [
        f"mount cgroup2 on sys/fs/cgroup (ro,{SAFE},relatime)",
        "bind /sys/fs/cgroup/lxc.payload.web on sys/fs/cgroup/lxc.payload.web",
    ]


def test_forced_on_a_hybrid_host() -> None:
    expected = [
        f"mount tmpfs on sys/fs/cgroup ({SAFE},relatime,size=10240k,mode=755)",
        "make directory sys/fs/cgroup/cpu,cpuacct",
        f"mount cgroup on sys/fs/cgroup/cpu,cpuacct (ro,{SAFE},relatime,cpu,cpuacct)",
        "make directory sys/fs/cgroup/systemd",
        f"mount cgroup on sys/fs/cgroup/systemd (ro,{SAFE},relatime,name=systemd)",
        "make directory sys/fs/cgroup/unified",
        f"mount cgroup2 on sys/fs/cgroup/unified (ro,{SAFE},relatime)",
    ]
    assert cgroups("cgroup:ro:force", HYBRID) == expected
    writable = [line.replace("(ro,", "(") for line in expected]
    assert cgroups("cgroup", HYBRID, cap=Cap(drop=("sys_admin",))) == writable


def test_the_hosts_namespace_shows_the_own_group_alone() -> None:
    unified = "sys/fs/cgroup/unified"
    assert cgroups("cgroup", HYBRID, namespace=False)[-3:] == [
        f"make directory {unified}",
        f"make directory {unified}/lxc.payload.web",
        f"bind /{unified}/lxc.payload.web on {unified}/lxc.payload.web",
    ]
    dropped = cgroups("cgroup", HYBRID, namespace=False, cap=Cap(keep=("chown",)))
    assert dropped[-2:] == [
        f"make {unified} read-only",
        f"bind /{unified}/lxc.payload.web on {unified}/lxc.payload.web",
    ]


def test_cgroup2_without_a_hierarchy_is_told() -> None:
    with pytest.raises(RootfsError, match="no cgroup2 hierarchy"):
        cgroups("cgroup2", HYBRID[:2])


def test_without_net_admin_nothing_of_proc_sys_is_writable() -> None:
    config = Config(mount=Mount(auto=("proc",)), cap=Cap(drop=("net_admin",)))
    assert "make proc/sys read-only" in [str(operation) for operation in plan(config, FACTS).mounts]


def test_dropped_capabilities() -> None:
    assert drops(Cap(drop=("sys_admin",)), "sys_admin", 21) and drops(Cap(drop=("21",)), "sys_admin", 21)
    assert drops(Cap(keep=()), "sys_admin", 21) and not drops(Cap(keep=("sys_admin",)), "sys_admin", 21)
    assert not drops(Cap(), "sys_admin", 21)


# -- entries -------------------------------------------------------------------------------------------------------

PLACE = Place("/var/lib/lxc/web/rootfs", "/var/lib/lxc", "web")


def test_fields() -> None:
    assert fstab.parse(r"/a\040b  c\011d ext4 rw,x 0 0") == Entry("/a b", "c\td", "ext4", "rw,x")
    assert fstab.parse("proc proc proc") == Entry("proc", "proc", "proc", "")
    assert fstab.parse("  # comment") is None and fstab.parse("") is None
    with pytest.raises(ValueError, match="has no target"):
        fstab.parse("alone")


@pytest.mark.parametrize(
    ("target", "rootfs", "result"),
    [
        ("mnt/x", "/r", "mnt/x"),
        ("/var/lib/lxc/web/rootfs/mnt", "/elsewhere", "mnt"),
        ("/elsewhere/mnt/", "/elsewhere", "mnt"),
        ("/host/var/lib/lxc/web/rootfs/mnt", "/elsewhere", "mnt"),
        ("/mnt", "/elsewhere", None),
        ("/mnt", None, "mnt"),
        ("mnt", None, "mnt"),
    ],
)
def test_absolute_targets(target: str, rootfs: str | None, result: str | None) -> None:
    assert fstab.target_of(target, PLACE._replace(rootfs=rootfs)) == result


def operations(line: str) -> list[object]:
    return list(fstab.from_lines([(line, None)], PLACE))


def test_binds() -> None:
    assert operations("/a b none bind,ro,create=dir,optional") == [
        Bind("/a", "b", flags=mount.MS_RDONLY, create="dir", optional=True)
    ]
    assert operations("a b none rbind,relative,rslave") == [
        Bind("a", "b", True, propagation=mount.MS_SLAVE | mount.MS_REC, inside=True)
    ]
    assert operations("/a b none bind,dev") == [Bind("/a", "b", clear=mount.MOUNT_ATTR_NODEV)]
    assert operations("/a b none bind,idmap=container") == [Bind("/a", "b", idmap="container")]
    assert operations("/a b none bind,remount,ro") == [Bind("/a", "b", flags=mount.MS_RDONLY | mount.MS_REMOUNT)]


def test_file_systems() -> None:
    assert operations("tmpfs run tmpfs rw,nosuid,size=1m,mode=755,create=dir") == [
        MountOp("tmpfs", "run", "tmpfs", mount.MS_NOSUID, "size=1m,mode=755", "dir")
    ]


def test_only_binds_have_id_maps() -> None:
    with pytest.raises(RootfsError, match="only a bind mount can have idmap=container") as caught:
        operations("tmpfs run tmpfs idmap=container")
    assert caught.value.hint == "add the option bind, or remove idmap"


def test_overlay_entries_get_directories_of_the_containers_own() -> None:
    base = "/var/lib/lxc/web"
    made = operations(f"overlay mnt overlay lowerdir=/l,upperdir={base}/u,workdir={base}/w")
    assert made[:2] == [MakeHostDirectory(f"{base}/u", optional=True), MakeHostDirectory(f"{base}/w", optional=True)]
    assert len(operations(f"overlay mnt overlay lowerdir=/l,upperdir=/u,workdir={base}/rootfs/w")) == 1


def test_a_bad_line_is_named(tmp_path: Path) -> None:
    config = Config(mount=Mount(fstab="/some/fstab"))
    facts = dataclasses.replace(FACTS, fstab="# head\n/a b none bind\nbroken\n")
    with pytest.raises(RootfsError, match='mount entry "broken" has no target') as caught:
        plan(config, facts)
    assert str(caught.value.at) == "/some/fstab:3"


def test_a_missing_fstab_is_told() -> None:
    origin = Origin("web/config", 5)
    config = Config(mount=Mount(fstab="/no/such/fstab"), origins={"lxc.mount.fstab": origin})
    with pytest.raises(RootfsError, match='fstab "/no/such/fstab" cannot be read: No such file') as caught:
        plan(config, FACTS)
    assert caught.value.at == origin


def test_nesting_needs_an_entry() -> None:
    config = Config(apparmor=Apparmor(allow_nesting=True), autodev=Autodev(enabled=False))
    assert plan(config, FACTS).mounts == []
    config = dataclasses.replace(config, mount=Mount(entry=("/a b none bind",)))
    assert [str(operation) for operation in plan(config, FACTS).mounts[1:]] == [
        "mount proc on dev/.lxc/proc",
        "mount sysfs sys on dev/.lxc/sys",
    ]


# -- root, devices -------------------------------------------------------------------------------------------------


def test_id_mapped_roots_are_directories() -> None:
    facts = dataclasses.replace(FACTS, backend=storage.backend("overlay"))
    with pytest.raises(RootfsError, match="storage of type dir only, not overlay"):
        plan(Config(rootfs=Rootfs(options="idmap=container")), facts)


def test_the_group_of_terminals() -> None:
    few = Config(idmap=(IdMap("u", 0, 1000, 65536), IdMap("g", 0, 1000, 5)))
    assert maps_group(Config(), 5) and not maps_group(few, 5)
    devpts = [operation for operation in plan(few, FACTS).devices if isinstance(operation, Devpts)]
    assert devpts == []
    few = dataclasses.replace(few, tty=Tty(max=1))
    (devpts,) = (operation for operation in plan(few, FACTS).devices if isinstance(operation, Devpts))
    assert (devpts.gid, devpts.ptmx, devpts.maximum) == (None, False, 1)


def test_flags() -> None:
    assert attributes(mount.MS_RDONLY | mount.MS_NOSUID) == (mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NOSUID, 0)
    assert attributes(mount.MS_NOATIME) == (mount.MOUNT_ATTR_NOATIME, mount.MOUNT_ATTR__ATIME)
    assert attributes(mount.MS_RELATIME) == (0, mount.MOUNT_ATTR__ATIME)
    assert words(mount.MS_RDONLY | mount.MS_NODEV, "size=1m") == " (ro,nodev,size=1m)" and words(0) == ""
    assert propagation_words(mount.MS_SHARED | mount.MS_REC) == ("rshared",)
    assert propagation_words(mount.MS_PRIVATE) == ("private",) and propagation_words(0) == ()


def test_an_empty_plan_describes_itself() -> None:
    assert RootfsPlan().describe() == []
