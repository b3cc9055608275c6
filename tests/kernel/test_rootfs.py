"""Whole rootfs plans, applied for real in a child's namespaces and read back from inside."""

from __future__ import annotations

import dataclasses
import os
import stat
from pathlib import Path

import pytest
from rootfs_child import NEW, Failed, make_rootfs, run

from lxcpy.config.model import Autodev, Config, Console, IdMap, Mount, Pty, Rootfs, Tty
from lxcpy.errors import Origin
from lxcpy.kernel import mount
from lxcpy.kernel.proc import MountInfo, mountinfo
from lxcpy.rootfs.context import Context
from lxcpy.rootfs.plan import Facts
from lxcpy.rootfs.terminals import Terminals
from lxcpy.storage import backend

pytestmark = pytest.mark.requires("root", "busybox")

AUTO = Mount(auto=("proc:mixed", "sys:mixed"))
USUAL = Config(mount=AUTO, tty=Tty(max=4), pty=Pty(max=1024))
FIRST = 100_000  # host id of a user namespace's root
MAPPED = dataclasses.replace(
    USUAL, idmap=(IdMap("u", 0, FIRST, 65536), IdMap("g", 0, FIRST, 65536)), mount=Mount(auto=("proc:mixed", "sys:rw"))
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory that the ids of a user namespace can reach."""
    for folder in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        os.chmod(folder, 0o755)
    (tmp_path / "mnt").mkdir()
    return tmp_path


@pytest.fixture
def facts(place: Path) -> Facts:
    return Facts("c1", str(place), make_rootfs(place / "rootfs"), backend("dir"), str(place / "mnt"))


@pytest.fixture
def mapped(place: Path) -> Facts:
    rootfs = make_rootfs(place / "rootfs", owner=FIRST)
    return Facts("c1", str(place), rootfs, backend("dir"), str(place / "mnt"), userns=True)


def seen(config: Config, facts: Facts, *, ids: int = 0) -> dict[str, MountInfo]:
    return {entry.target: entry for entry in mountinfo(run(config, facts, "cat /proc/self/mountinfo", ids=ids))}


def entries(*lines: str, config: Config = USUAL) -> Config:
    origins = {f"lxc.mount.entry#{item}": Origin("web/config", item + 1) for item in range(len(lines))}
    return dataclasses.replace(config, mount=Mount(auto=config.mount.auto, entry=lines), origins=origins)


# -- devices and terminals ----------------------------------------------------------------------------------------


def nodes(_: Terminals) -> str:
    words = []
    for name in ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "console", "tty1", "tty4"):
        status = os.stat(f"/dev/{name}")
        assert stat.S_ISCHR(status.st_mode), name
        words.append(f"{name}={os.major(status.st_rdev)}:{os.minor(status.st_rdev)},{stat.S_IMODE(status.st_mode):o}")
        if name in ("null", "zero", "full"):
            os.close(os.open(f"/dev/{name}", os.O_RDWR))
    words += [f"{name}>{os.readlink(f'/dev/{name}')}" for name in ("fd", "stdin", "stdout", "stderr")]
    return " ".join(words)


def test_nodes_are_made(facts: Facts) -> None:
    assert run(USUAL, facts, "", inside=nodes) == (
        "null=1:3,666 zero=1:5,666 full=1:7,666 random=1:8,666 urandom=1:9,666 tty=5:0,666 ptmx=5:2,666 "
        "console=136:0,620 tty1=136:1,620 tty4=136:4,620 "
        "fd>/proc/self/fd stdin>/proc/self/fd/0 stdout>/proc/self/fd/1 stderr>/proc/self/fd/2"
    )


def test_nodes_in_a_user_namespace_are_the_hosts(mapped: Facts) -> None:
    assert "null=1:3,666 zero=1:5,666" in run(MAPPED, mapped, "", ids=FIRST, inside=nodes)


def test_the_whole_of_a_user_namespace(mapped: Facts) -> None:
    mounts = seen(MAPPED, mapped, ids=FIRST)
    assert mounts["/dev/null"].fstype == "devtmpfs"
    assert "gid=100005" in mounts["/dev/pts"].super_options  # shown as the host's, in the host's procfs or not
    assert mounts["/proc/sys"].options.startswith("ro,")
    text = run(MAPPED, mapped, "stat -c '%u:%g %a' /dev/console /dev/tty1 /dev /dev/pts/0; id -u", ids=FIRST)
    assert text.split("\n")[:3] == ["0:5 620", "0:5 620", "0:0 755"]


def test_without_group_5_devpts_has_none(place: Path) -> None:
    """With too few ids devpts would be refused."""
    config = dataclasses.replace(MAPPED, idmap=(IdMap("u", 0, FIRST, 65536), IdMap("g", 0, FIRST, 5)))
    facts = Facts("c1", str(place), make_rootfs(place / "rootfs", owner=FIRST), backend("dir"), str(place / "mnt"))
    facts = dataclasses.replace(facts, userns=True)
    assert "gid=" not in seen(config, facts, ids=FIRST)["/dev/pts"].super_options


def test_masters_talk_to_what_stands_in_dev(facts: Facts) -> None:
    def talk(terminals: Terminals) -> str:
        assert terminals.console is not None and terminals.console_slave is not None
        words = []
        for master, name in ((terminals.console, "console"), (terminals.ttys[0], "tty1"), (terminals.ttys[3], "tty4")):
            slave = os.open(f"/dev/{name}", os.O_RDWR | os.O_NOCTTY)
            os.write(slave, name.encode())
            words.append(os.read(master.number, 100).decode())
            os.close(slave)
        words.append(str(os.fstat(terminals.console_slave.number).st_rdev == os.stat("/dev/console").st_rdev))
        return " ".join(words + terminals.tty_names + [terminals.environment["container_ttys"]])

    names = "pts/1 pts/2 pts/3 pts/4"
    assert run(USUAL, facts, "", inside=talk) == f"console tty1 tty4 True {names} {names}"


def test_tty_dir(facts: Facts) -> None:
    config = dataclasses.replace(USUAL, tty=Tty(max=2, dir="lxc"))
    text = run(config, facts, "ls /dev/lxc; stat -c %t:%T /dev/console /dev/lxc/console; ls -l /dev/tty1")
    assert text.startswith("console\ntty1\ntty2\n88:0\n88:0\n") and text.endswith("/dev/tty1 -> lxc/tty1\n")


def test_ttys_without_ptys_outlive_their_devpts(facts: Facts) -> None:
    config = dataclasses.replace(USUAL, pty=Pty(max=0), tty=Tty(max=2), console=Console(path="none"))

    def talk(terminals: Terminals) -> str:
        slave = os.open("/dev/tty2", os.O_RDWR | os.O_NOCTTY)
        os.write(slave, b"hello")
        with open("/proc/self/mountinfo") as file:
            targets = [entry.target for entry in mountinfo(file.read())]
        return f"{os.read(terminals.ttys[1].number, 100).decode()} {'/dev/pts' in targets} {os.listdir('/dev/pts')}"

    assert run(config, facts, "", inside=talk) == "hello False []"


def test_a_dev_of_the_rootfs_s_own(facts: Facts, place: Path) -> None:
    """lxc.autodev = 0: nothing is made but the terminals' places; a hostile link does not lead out."""
    dev = place / "rootfs/dev"
    (place / "outside").write_text("host")
    (dev / "console").symlink_to("../../../outside")
    (dev / "ptmx").symlink_to("pts/ptmx")
    (dev / "tty1").touch()
    config = dataclasses.replace(USUAL, autodev=Autodev(enabled=False), tty=Tty(max=1))
    mounts = seen(config, facts)
    assert {"/dev/pts", "/dev/ptmx", "/dev/tty1"} <= set(mounts) and "/dev" not in mounts
    assert "/proc/sys/kernel/random/boot_id" not in mounts
    assert (place / "outside").read_text() == "host"
    assert not (dev / "null").exists()


def test_without_dev_the_hint_names_autodev(facts: Facts, place: Path) -> None:
    (place / "rootfs/dev").rmdir()
    with pytest.raises(Failed, match=r"No such file or directory\n(.*\n)?  hint: .*lxc.autodev = 1"):
        run(dataclasses.replace(USUAL, autodev=Autodev(enabled=False)), facts, "")


# -- hostile content ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("link", ["/outside", "../outside", "../../../../../../../outside", "/proc/1/root/outside"])
def test_a_link_leads_nowhere_outside(facts: Facts, place: Path, link: str) -> None:
    """A mount point that is a link is resolved as if the rootfs were the whole world."""
    outside = Path("/outside-of-lxcpy-test")
    assert not outside.exists()
    (place / "rootfs/trap").symlink_to(link.replace("/outside", str(outside)))
    config = entries("tmpfs trap/sub tmpfs create=dir")
    if "proc" in link:
        with pytest.raises(Failed, match="cannot mount tmpfs on trap/sub"):
            run(config, facts, "")
    else:
        assert f"{outside}/sub" in seen(config, facts)
    assert not outside.exists()


@pytest.mark.parametrize("name", ["proc", "sys", "dev"])
@pytest.mark.parametrize("target", ["/etc", "nowhere", "../../../etc"])
def test_the_systems_own_directories_are_no_links(facts: Facts, place: Path, name: str, target: str) -> None:
    """As in LXC: what belongs on /proc is mounted on /proc and nowhere else."""
    (place / "rootfs" / name).rmdir()
    (place / "rootfs" / name).symlink_to(target)
    with pytest.raises(Failed, match=rf"cannot mount .* on {name}.*: Too many .*\n(.*\n)?  hint: /{name} of the root"):
        run(USUAL, facts, "")
    assert not (place / "rootfs/nowhere").exists()


def test_a_mount_over_the_root_is_refused(facts: Facts) -> None:
    with pytest.raises(Failed, match="something was mounted over the root file system"):
        run(entries("tmpfs . tmpfs defaults"), facts, "")


# -- entries ------------------------------------------------------------------------------------------------------


def test_a_bind_keeps_what_its_source_forbids(facts: Facts, place: Path) -> None:
    (place / "data").mkdir()

    def prepare(context: Context) -> None:
        mount.mount("tmpfs", str(place / "data"), "tmpfs", mount.MS_NOSUID | mount.MS_NODEV | mount.MS_NOEXEC)
        from lxcpy.rootfs import apply
        from lxcpy.rootfs.plan import plan

        options = {"a": "bind,ro", "b": "bind,suid,exec,dev"}
        lines = [f"{place}/data mnt/{name} none {words},create=dir" for name, words in options.items()]
        apply.run(plan(entries(*lines, config=Config()), facts).mounts[1:], context)

    text = run(USUAL, facts, "cat /proc/self/mountinfo", between=prepare)
    mounts = {entry.target: set(entry.options.split(",")) for entry in mountinfo(text)}
    assert {"ro", "nosuid", "nodev", "noexec"} <= mounts["/mnt/a"]
    assert {"rw", "nosuid", "noexec"} <= mounts["/mnt/b"] and "nodev" not in mounts["/mnt/b"]


def test_read_only_binds_in_a_user_namespace(mapped: Facts) -> None:
    """What the host mounted nosuid or nodev is locked there: a remount that forgot it would be refused."""
    mounts = seen(entries("/proc/sys mnt/a none rbind,ro,create=dir", "/etc mnt/b none bind,ro,create=dir",
                          config=MAPPED), mapped, ids=FIRST)  # fmt: skip
    assert mounts["/mnt/a"].options.startswith("ro,") and mounts["/mnt/b"].options.startswith("ro,")


def failure(config: Config, facts: Facts, *, ids: int = 0) -> list[str]:
    with pytest.raises(Failed) as caught:
        run(config, facts, "", ids=ids)
    return str(caught.value).split("\n")


def test_a_missing_target_is_explained(facts: Facts) -> None:
    assert failure(entries("/etc mnt/x none bind"), facts) == [
        "cannot bind /etc on mnt/x: No such file or directory",
        "  at web/config:1",
        "  hint: add create=dir (or create=file) to the entry's options to have the target made",
    ]


def test_a_missing_source_is_explained(facts: Facts) -> None:
    assert failure(entries("/etc etc none bind", "/missing etc none bind"), facts) == [
        "cannot bind /missing on etc: No such file or directory",
        "  at web/config:2",
        "  hint: \"/missing\" does not exist; add optional to the entry's options if it need not",
    ]


def test_a_file_on_a_directory_is_explained(facts: Facts) -> None:
    assert failure(entries("/etc/hostname etc none bind"), facts)[2] == (
        "  hint: a directory can be bound on a directory only, a file on a file: use create=file for a file"
    )


def test_an_unknown_file_system_is_explained(facts: Facts) -> None:
    assert failure(entries("x etc nosuchfs defaults"), facts) == [
        "cannot mount nosuchfs x on etc: No such device",
        "  at web/config:1",
        '  hint: the kernel has no file system "nosuchfs"; /proc/filesystems lists what it has',
    ]


def test_what_a_user_namespace_forbids_is_explained(mapped: Facts) -> None:
    assert failure(entries("/dev/vda mnt ext4 create=dir", config=MAPPED), mapped, ids=FIRST)[2].startswith(
        "  hint: a container with lxc.idmap may mount only what a user namespace allows"
    )


def test_sysfs_with_the_hosts_network_is_explained(mapped: Facts) -> None:
    with pytest.raises(Failed) as caught:
        run(MAPPED, mapped, "", ids=FIRST, new=tuple(name for name in NEW if name != "net"))
    assert str(caught.value).endswith(
        "hint: in a user namespace sysfs needs a network namespace of the container's own"
    )


def test_a_missing_rootfs_is_explained(facts: Facts) -> None:
    facts = dataclasses.replace(facts, source="/no/such/rootfs")
    config = dataclasses.replace(USUAL, origins={"lxc.rootfs.path": Origin("web/config", 7)})
    assert failure(config, facts) == [
        f"cannot mount dir:/no/such/rootfs on {facts.mount}: No such file or directory",
        "  at web/config:7",
        "  hint: create the root file system, or correct lxc.rootfs.path",
    ]


def test_a_missing_mount_point_is_explained(facts: Facts) -> None:
    facts = dataclasses.replace(facts, mount="/no/such/place")
    assert failure(USUAL, facts)[-1] == "  hint: make the directory /no/such/place, or correct lxc.rootfs.mount"


def test_a_read_only_rootfs(facts: Facts, place: Path) -> None:
    config = dataclasses.replace(entries("tmpfs new tmpfs create=dir"), rootfs=Rootfs(options="ro"))
    assert failure(config, facts)[2].startswith("  hint: the root file system is read-only")
    config = dataclasses.replace(USUAL, rootfs=Rootfs(options="ro"))
    assert seen(config, facts)["/"].options.startswith("ro,")


# -- id mapped mounts ---------------------------------------------------------------------------------------------


def test_an_idmapped_rootfs_needs_no_change_of_owners(place: Path) -> None:
    rootfs = make_rootfs(place / "rootfs")
    facts = Facts("c1", str(place), rootfs, backend("dir"), str(place / "mnt"), userns=True)
    config = dataclasses.replace(MAPPED, rootfs=Rootfs(options="idmap=container,nosuid"))
    text = run(config, facts, "stat -c %u:%g /bin/busybox; echo x > /etc/new; cat /proc/self/mountinfo", ids=FIRST)
    owner, _, table = text.partition("\n")
    assert owner == "0:0"
    assert (place / "rootfs/etc/new").stat().st_uid == 0
    options = next(entry.options for entry in mountinfo(table) if entry.target == "/")
    assert {"nosuid", "idmapped"} <= set(options.split(","))


def test_an_idmapped_entry(mapped: Facts, place: Path) -> None:
    (place / "data").mkdir()
    config = entries(f"{place}/data mnt none bind,create=dir,idmap=container,ro", config=MAPPED)
    text = run(config, mapped, "stat -c %u:%g /mnt; cat /proc/self/mountinfo", ids=FIRST)
    owner, _, table = text.partition("\n")
    assert owner == "0:0"
    options = next(entry.options for entry in mountinfo(table) if entry.target == "/mnt")
    assert {"ro", "idmapped"} <= set(options.split(","))


@pytest.mark.requires("overlay")
@pytest.mark.parametrize("ids", [0, FIRST])
def test_an_overlay_is_a_rootfs_like_any(place: Path, ids: int) -> None:
    rootfs = make_rootfs(place / "rootfs", owner=ids)
    for name in ("c2/overlay/delta", "c2/overlay/work"):
        (place / name).mkdir(parents=True)
        os.chown(place / name, ids, ids)
    source = f"{rootfs}:{place}/c2/overlay/delta"
    facts = Facts("c2", str(place), source, backend("overlay"), str(place / "mnt"), userns=bool(ids))
    config = MAPPED if ids else USUAL
    text = run(config, facts, "echo new > /etc/new; cat /proc/self/mountinfo", ids=ids)
    assert next(entry for entry in mountinfo(text) if entry.target == "/").fstype == "overlay"
    assert (place / "c2/overlay/delta/etc/new").read_text() == "new\n" and not (place / "rootfs/etc/new").exists()


# -- kernel parameters, boot id ------------------------------------------------------------------------------------


def test_sysctls_are_set_behind_the_read_only_proc(facts: Facts) -> None:
    config = dataclasses.replace(USUAL, sysctl=(("kernel.shmmni", "123"), ("net.ipv4.ip_forward", "1")))
    assert run(config, facts, "cat /proc/sys/kernel/shmmni /proc/sys/net/ipv4/ip_forward") == "123\n1\n"
    assert Path("/proc/sys/kernel/shmmni").read_text() != "123\n"


def test_an_unknown_sysctl_is_told(facts: Facts) -> None:
    config = dataclasses.replace(USUAL, sysctl=(("kernel.nosuch", "1"),))
    assert failure(config, facts)[0] == "cannot set kernel parameter kernel.nosuch = 1: No such file or directory"


def test_each_container_has_a_boot_id(facts: Facts) -> None:
    first, second = (run(USUAL, facts, "cat /proc/sys/kernel/random/boot_id") for _ in range(2))
    assert len({first, second, Path("/proc/sys/kernel/random/boot_id").read_text()}) == 3
    assert len(first) == 37 and first[14] == "4"


# -- the host's root ----------------------------------------------------------------------------------------------


def test_without_a_rootfs_the_host_stays_as_it_is(place: Path) -> None:
    """The child has mounts of its own over the host's root: /dev, /proc and /sys there are not touched."""
    before = (sorted(os.listdir("/dev")), Path("/proc/self/mountinfo").read_text(), os.lstat("/dev/ptmx"))
    facts = Facts("c1", str(place))
    (place / "data").mkdir()
    config = entries(f"tmpfs {place}/data tmpfs mode=700".removeprefix("/"))
    text = run(config, facts, "cat /proc/self/mountinfo; ls /dev; echo $$")
    mounts = {entry.target: entry for entry in mountinfo(text.split("console")[0]) if entry.fstype != ""}
    assert mounts[str(place / "data")].fstype == "tmpfs"
    assert text.endswith("\n1\n")
    assert "tty1" not in text.split("\n"), "LXC shows no ttys without a rootfs"
    after = (sorted(os.listdir("/dev")), Path("/proc/self/mountinfo").read_text(), os.lstat("/dev/ptmx"))
    assert (after[0], after[1], after[2].st_ino) == (before[0], before[1], before[2].st_ino)


def test_without_a_rootfs_and_without_a_dev_of_its_own(place: Path) -> None:
    before = (sorted(os.listdir("/dev")), Path("/proc/self/mountinfo").read_text(), os.lstat("/dev/ptmx").st_ino)
    config = Config(autodev=Autodev(enabled=False), pty=Pty(max=5), mount=Mount(auto=("proc",)))
    text = run(config, Facts("c1", str(place)), "cat /proc/self/mountinfo")
    targets = [entry.target for entry in mountinfo(text)]
    assert targets.count("/dev/pts") >= 1 and "/dev/ptmx" in targets and "/dev/console" in targets
    after = (sorted(os.listdir("/dev")), Path("/proc/self/mountinfo").read_text(), os.lstat("/dev/ptmx").st_ino)
    assert after == before
