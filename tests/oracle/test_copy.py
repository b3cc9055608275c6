"""lxcpy-copy, -snapshot and -destroy beside LXC's, and on each other's work: what is printed, what is there afterwards.

Each case happens twice, in two directories of containers. Exit statuses, standard output and every file are compared:
config, owners, modes, attributes, links, devices, and what is left where something fails. Where we mean to differ
the case says why, and that it does differ is tested too.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from probes import requires
from trees import make_tree, picture

pytestmark = requires("root", "busybox", "overlay", "rsync", "lxc")
Run = Callable[..., "subprocess.CompletedProcess[str]"]
Picture = dict[str, tuple[object, ...]]
NAMES = ("one", "two", "three")
INIT = """\
trap 'exit 0' PWR TERM
while :; do sleep 1000 & wait $!; done
"""
CONFIG = """\
# made by hand

lxc.uts.name = {name}
lxc.rootfs.path = dir:{directory}/rootfs
lxc.init.cmd = /bin/sh /init
lxc.mount.auto = proc:mixed sys:ro
lxc.net.0.type = empty
lxc.net.1.type = veth
lxc.net.1.hwaddr = 00:16:3e:01:02:03
"""
TEXTS = re.compile(r"(^|/)(config|lxc_snapshots|lxc_rdepends|ts|fstab|hostname|pre-start-RANDOM|said|[^/]*\.conf)$")


class Side:
    """One of the two: a directory of containers, and whose commands work in it."""

    def __init__(self, lxcpath: str, names: Callable[[], str], run: Callable[[int], Run]) -> None:
        self.lxcpath = lxcpath
        self.run = run
        self.names = {word: names() for word in NAMES}
        self.step = 0
        os.mkdir(lxcpath, 0o755)

    def directory(self, word: str) -> Path:
        return Path(self.lxcpath, self.names[word])

    def do(self, line: str) -> tuple[str, int, str]:
        """Run a command line; (it, exit status, standard output), the latter without what is this side's."""
        command, *words = line.split("|") if "|" in line else line.split()
        words = [re.sub("@([a-z]+)", lambda word: self.names[word[1]], word) for word in words]
        words = [word.replace("LP", self.lxcpath) for word in words]
        done = self.run(self.step)(command, "-P", self.lxcpath, *words)
        self.step += 1
        return line, done.returncode, self.told(done.stdout)

    def told(self, text: str) -> str:
        for word, name in self.names.items():
            text = text.replace(name, f"@{word}")
        text = text.replace(self.lxcpath, "LP").replace(self.lxcpath[1:], "LP")
        text = re.sub(r"hwaddr = (?!00:16:3e:01:02:03)[0-9a-f:]{17}", "hwaddr = MAC", text)
        text = re.sub(r"(_|delta#|work#|pre-start-)[A-Za-z0-9]{6}\b", r"\1RANDOM", text)
        text = text.replace("/usr/lib/x86_64-linux-gnu/lxc/rootfs", "MOUNT").replace("/usr/lib/lxcpy/rootfs", "MOUNT")
        return re.sub(r"\d{4}:\d\d:\d\d \d\d:\d\d:\d\d", "WHEN", text)

    def left(self) -> Picture:
        found: Picture = {}
        for path, (mode, uid, gid, device, content, same, values) in picture(self.lxcpath).items():
            if path.endswith("/work/work"):
                continue  # the kernel's, where it mounted
            shown = content
            if isinstance(content, tuple):
                # rsync makes holes where there were none
                shown = content[0]
                if TEXTS.search(self.told(path)):
                    lines = self.told(content[0].decode()).split("\n")
                    # LXC drops empty lines
                    shown = [line for line in lines if line or not path.endswith("/config")]
                if path.endswith(("lxc_snapshots", "lxc_rdepends")):
                    words = self.told(content[0].decode()).splitlines()
                    shown = sorted(zip(words[::2], words[1::2], strict=True))  # in the order of their making
            attributes = {
                name: value
                for name, value in (values.items() if isinstance(values, dict) else ())
                # the kernel's for an overlay, with numbers of inodes in them; ACLs: see DIFFERENT
                if not name.startswith(("trusted.overlay.", "user.overlay.", "system.posix_acl"))
                or name.endswith(".opaque")
            }
            told = self.told(str(same)) if same else None
            found[self.told(path)] = (mode, uid, gid, device, shown, told, attributes)
        return found


def theirs(command: str, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    argv = [f"lxc-{command}", *words]
    return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False)


@pytest.fixture
def sides(lxcpath: str, names: Callable[[], str], run: Run) -> Iterator[Callable[[str, str], Side]]:
    """`sides("a", "LO")`: a side on which LXC's commands and ours take turns."""
    made: list[Side] = []

    def make(name: str, turns: str) -> Side:
        side = Side(f"{lxcpath}/{name}", names, lambda step: theirs if turns[step % len(turns)] == "L" else run)
        made.append(side)
        return side

    yield make
    for side in made:
        for name in os.listdir(side.lxcpath):
            theirs("stop", "-P", side.lxcpath, "-n", name, "-k")
        if side.run(0) is theirs:
            for name in side.names.values():
                # LXC leaves a control group of its monitor's behind, if a container is stopped soon enough
                for left in glob.glob(f"/sys/fs/cgroup/*/lxc.monitor.{name}*"):
                    os.rmdir(left)


# -- what is there before --------------------------------------------------------------------------------------------


def container(side: Side, word: str = "one", extra: str = "") -> None:
    directory, name = side.directory(word), side.names[word]
    rootfs = directory / "rootfs"
    directory.mkdir(mode=0o770)
    os.chmod(directory, 0o770)
    make_tree(rootfs)
    os.chmod(rootfs, 0o755)
    # a difference that would be in each case
    shutil.rmtree(rootfs / "acl")
    for folder in ("bin", "sbin", "proc", "sys", "dev", "etc", "tmp", "root"):
        (rootfs / folder).mkdir()
    busybox = shutil.which("busybox")
    assert busybox
    shutil.copy(busybox, rootfs / "bin/busybox")
    for applet in ("sh", "sleep", "true", "echo", "cat", "ls"):
        os.symlink("busybox", rootfs / "bin" / applet)
    (rootfs / "init").write_text(INIT)
    (rootfs / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (rootfs / "etc/hostname").write_text(f"{name}\n")
    (directory / "config").write_text(CONFIG.format(name=name, directory=directory))
    with open(directory / "config", "a") as config:
        config.write(extra.format(directory=directory, lxcpath=side.lxcpath))
    os.chmod(directory / "config", 0o640)


def two_containers(side: Side) -> None:
    container(side)
    container(side, "two")


def clone(side: Side) -> None:
    """A snapshot clone whose delta hides, replaces and adds."""
    container(side)
    side.do("copy -n @one -N @two -s")
    delta = side.directory("two") / "overlay/delta"
    (delta / "new").write_text("new")
    os.mknod(delta / "plain", 0o020000, 0)
    (delta / "tmp").mkdir()
    os.setxattr(delta / "tmp", "trusted.overlay.opaque", b"y")
    side.step = 0


def mapped(side: Side) -> None:
    container(side, extra="lxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 200000 65536\n")
    directory = str(side.directory("one"))
    entries = {os.path.join(place, name) for place, folders, files in os.walk(directory) for name in folders + files}
    owners = {entry: os.lstat(entry) for entry in (directory, *entries)}
    for entry, status in owners.items():
        os.chown(entry, 100000 + status.st_uid, 200000 + status.st_gid, follow_symlinks=False)
        if not os.path.islink(entry):
            os.chmod(entry, status.st_mode & 0o7777)


def other_path(side: Side) -> None:
    clone(side)
    os.mkdir(f"{side.lxcpath}/other")


HOOK = """\
#!/bin/sh
{
env | grep -E '^LXC_(NAME|SRC_NAME|CONFIG_FILE|ROOTFS_MOUNT)=' | sort
echo "$*" "$(cat $LXC_ROOTFS_MOUNT/etc/hostname 2>&-)"
grep -c . $LXC_CONFIG_FILE
} >> "$(dirname "$0")/said"
exit $(cat "$(dirname "$0")/status")
"""


def hooked(side: Side, status: int = 0) -> None:
    """Clone and destroy hooks outside, which note what they see."""
    hooks = Path(side.lxcpath, "hooks")
    hooks.mkdir()
    (hooks / "hook.sh").write_text(HOOK)
    os.chmod(hooks / "hook.sh", 0o755)
    (hooks / "status").write_text(str(status))
    container(
        side, extra="lxc.hook.clone = {lxcpath}/hooks/hook.sh one\nlxc.hook.destroy = {lxcpath}/hooks/hook.sh two\n"
    )


def failing(side: Side) -> None:
    hooked(side, 1)


def own_files(side: Side, extra: str = "") -> None:
    container(
        side,
        extra="lxc.hook.stop = {directory}/hook.sh\nlxc.hook.mount = /bin/true\nlxc.mount.fstab = {directory}/fstab\n"
        "lxc.mount.entry = {directory}/data mnt overlay lowerdir={directory}/data,upperdir={directory}/up,"
        f"workdir={{directory}}/work,create=dir\n{extra}",
    )
    directory = side.directory("one")
    (directory / "hook.sh").write_text("#!/bin/sh\n")
    os.chmod(directory / "hook.sh", 0o750)
    (directory / "fstab").write_text("proc proc proc defaults 0 0\n")
    (directory / "data").mkdir()


def missing_hook(side: Side) -> None:
    container(side, extra="lxc.hook.stop = {directory}/none.sh\n")


def missing_fstab(side: Side) -> None:
    container(side, extra="lxc.mount.fstab = {directory}/none\n")


def more_files(side: Side) -> None:
    own_files(side, "lxc.hook.pre-start = {directory}/hook.sh argument\nlxc.include = {directory}/own.conf\n")
    (side.directory("one") / "own.conf").write_text("lxc.net.2.type = empty\nlxc.net.2.hwaddr = 00:16:3e:01:02:03\n")


def closed_root(side: Side) -> None:
    container(side)
    os.chmod(side.directory("one") / "rootfs", 0o711)


def full_directory(side: Side) -> None:
    container(side)
    side.directory("two").mkdir()
    (side.directory("two") / "letter").touch()


def comment(side: Side) -> None:
    container(side)
    Path(side.lxcpath, "comment").write_text("before\nthe upgrade\n")


def snapshots(side: Side) -> None:
    """Two snapshots, and changes since."""
    container(side)
    for _ in range(2):
        side.do("snapshot -n @one")
    rootfs = side.directory("one") / "rootfs"
    (rootfs / "plain").write_text("changed")
    (rootfs / "bad").touch()
    shutil.rmtree(rootfs / "sub")
    side.step = 0


def clone_snapshot(side: Side) -> None:
    clone(side)
    side.do("snapshot -n @two")
    delta = side.directory("two") / "overlay/delta"
    (delta / "bad").touch()
    (delta / "new").unlink()
    side.step = 0


def shown(side: Side) -> None:
    container(side)
    os.mkdir(f"{side.lxcpath}/src")
    Path(side.lxcpath, "src/file").write_text("shown\n")


def unstartable(side: Side) -> None:
    container(side, extra="lxc.hook.pre-start = /bin/false\n")


def ended(side: Side) -> None:
    """Until what is ephemeral is gone."""
    deadline = time.monotonic() + 10
    while set(os.listdir(side.lxcpath)) - {side.names["one"], "src", "other"} and time.monotonic() < deadline:
        time.sleep(0.02)


# -- the cases -------------------------------------------------------------------------------------------------------


class Case(NamedTuple):
    setup: Callable[[Side], None]
    steps: tuple[str | Callable[[Side], None], ...]
    differs: str = ""  # why we mean to differ
    ends: tuple[int, ...] = ()  # our exit statuses then


COPY, COPY2, SNAP, SNAP2 = "copy -n @one", "copy -n @two", "snapshot -n @one", "snapshot -n @two"
RUN, KILL = "start -n @one", "stop -n @two -k"
TEMPORARY = f"{COPY} -e -N @two"
ALIKE = {
    "copy": Case(container, (f"{COPY} -N @two",)),
    "keep": Case(container, (f"{COPY} -N @two -K -M",)),
    "snapshot clone": Case(container, (f"{COPY} -N @two -s",)),
    "snapshot clone, keep": Case(container, (f"{COPY} -N @two -s -K -M",)),
    "backends": Case(
        container,
        tuple(f"{COPY} -N @two {words}" for words in (
            "-B bogus", "-B overlay", "-B overlayfs", "-s -B dir", "-B best", "-s -B zfs", "-B dir",
        )) + (f"{COPY} -N @three -s -B overlay",),
    ),
    "refused": Case(
        two_containers,
        (COPY, f"{COPY} -R", f"{COPY} -N @two", f"{COPY} -N @one", f"{COPY} -R -N @two", f"{COPY} -N a/b",
         "copy -n nobody -N @three", f"{COPY} -N @three --rcfile LP/none"),
    ),
    "elsewhere": Case(
        other_path,
        (f"{COPY} -N @three -p LP/other", f"{COPY} -N @two -p LP/other/ -s", f"{COPY2} -N @one -p LP/other -s"),
    ),
    "a clone's copies": Case(
        clone,
        (f"{COPY2} -N @three", f"{COPY2} -N @three -B overlay", f"{COPY2} -R -N @three", f"{COPY} -R -N @three",
         f"{COPY2} -N @three -s"),
    ),
    "a clone's full copy": Case(clone, (f"{COPY2} -N @three -B dir",)),
    "rename": Case(container, (f"{COPY} -R -N @two", f"{COPY2} -R -N @three -M")),
    "running": Case(
        container,
        (RUN, f"{COPY} -N @two", f"{COPY} -N @two -s", f"{COPY} -N @two -R", f"{COPY} -N @two -a",
         f"{COPY} -N @three -s -a", "destroy -n @one"),
    ),
    "id map": Case(mapped, (f"{COPY} -N @two", f"{COPY} -N @three -s", f"{SNAP}", f"{SNAP} -r snap0")),
    "own files": Case(own_files, (f"{COPY} -N @two", f"{COPY} -s -N @three", SNAP)),
    "missing hook": Case(missing_hook,
                         (f"{COPY} -N @two", f"{COPY} -N @two -s", f"{COPY} -R -N @two", "destroy -n @one")),
    "missing fstab": Case(missing_fstab, (f"{COPY} -N @two", f"{COPY} -N @two -s")),
    "hooks": Case(hooked, ("copy|-n|@one|-N|@two|--|x|y z", f"{COPY} -N @three -s -K -- a", SNAP, f"{SNAP} -d snap0",
                           "destroy -n @three", "destroy -n @one")),
    "hooks of a restore": Case(hooked, (SNAP, f"{SNAP} -r snap0 -N @two")),
    "destroy": Case(
        clone,
        ("destroy -n @one", f"{COPY2} -N @three -s", "destroy -n @two", "destroy -n @three", "destroy -n @two",
         "destroy -n @two", "destroy -n @one"),
    ),
    "destroy with snapshots": Case(snapshots, ("destroy -n @one", f"{SNAP} -d snap0", "destroy -n @one -s")),
    "a clone's snapshots": Case(clone_snapshot, ("destroy -n @two", "destroy -n @two -s", "destroy -n @one")),
    "snapshots": Case(comment, (f"{SNAP} -L", SNAP, f"{SNAP} -c LP/comment", f"{SNAP} -L", f"{SNAP} -L -C",
                                f"{SNAP} -d snap0", SNAP, f"{SNAP} -L")),
    "no snapshots": Case(
        container,
        (f"{SNAP} -L -C", f"{SNAP} -d snap0", f"{SNAP} -d ALL", f"{SNAP} -r snap0", "snapshot -n nobody",
         "snapshot -n nobody -L", "snapshot -n nobody -d ALL", "snapshot -n nobody -r snap0"),
    ),
    "restore": Case(snapshots, (f"{SNAP} -r snap0", f"{SNAP} -r snap1 -N @one", f"{SNAP} -r snap7", f"{SNAP} -L")),
    "restore as new": Case(
        snapshots,
        (f"{SNAP} -r snap0 -N @two", f"{SNAP} -r snap1 @three", f"{SNAP} -r snap0 a b", f"{SNAP} -r snap0 @two"),
    ),
    "restore a running one": Case(snapshots, (RUN, f"{SNAP} -r snap0", f"{SNAP} -r snap0 -N @two", f"{SNAP} -d snap1")),
    "restore an original": Case(snapshots, (f"{COPY} -N @two -s", f"{SNAP} -r snap0")),
    "restore a clone": Case(clone_snapshot, (f"{SNAP2} -r snap0",)),
    "restore a clone as new": Case(
        clone_snapshot,
        (f"{SNAP2} -r snap0 -N @three", f"{SNAP2} -d snap0", f"{SNAP2} -d ALL", "destroy -n @three", f"{SNAP2} -d ALL",
         f"{SNAP2} -L"),
    ),
    "all snapshots": Case(snapshots, (f"{SNAP} -d ALL", f"{SNAP} -L")),
    "temporary": Case(container, (TEMPORARY, "info -n @two -s -H", KILL, ended)),
    "temporary, kept": Case(container, (f"{TEMPORARY} -D -K -M", KILL)),
    "temporary, quiet": Case(container, (f"{TEMPORARY} -q", KILL, ended)),
    "temporary, a name for it": Case(container, (f"{COPY} -e -- true", ended)),
    "temporary, elsewhere": Case(other_path, (f"{COPY} -e -D -N @three -p LP/other -- true",)),
    "temporary, quiet command": Case(container, ("copy|-n|@one|-q|-e|-N|@two|--|sh|-c|echo $container; exit 5", ended)),
    "temporary, no command": Case(container, (f"{TEMPORARY} -q -- nonesuch", ended)),
    "temporary, in memory": Case(container, (f"{TEMPORARY} -t",)),
    "temporary, in memory, gone": Case(container, (f"{TEMPORARY} -t", KILL, ended)),
    "temporary, refused": Case(
        shown,
        (f"{TEMPORARY} -B dir", f"{TEMPORARY} -t -B dir", f"{TEMPORARY} -m bind=LP/src:/a:xx",
         f"{TEMPORARY} -B bogus"),
    ),
    "temporary, mounts": Case(
        shown,
        ("copy|-n|@one|-q|-e|-D|-N|@two|-m|bind=LP/src:/dst:ro,bind=LP/src|-m|overlay=LP/src:/over|--|sh|-c|"
         "cat /dst/file /over/file; echo x >/dst/new; echo y >/over/new; ls /dst /over",),
        differs="the upper directory of an overlay has the mode of what it covers: LXC's is 0700, and closed to others",
        ends=(0,),
    ),
    "temporary, does not start": Case(unstartable, (TEMPORARY, f"{TEMPORARY} -D")),
}  # fmt: skip
DIFFERENT = {
    "failing hook": Case(failing, (f"{COPY} -N @two", f"{COPY} -N @two -s", SNAP),
                         "nothing of a copy is left; LXC leaves it where its destroy hook fails too", (1, 1, 1)),
    "more files": Case(more_files, (f"{COPY} -N @two",),
                       "a hook may have arguments, and included files go along", (0,)),
    "more files, renamed": Case(more_files, (f"{COPY} -R -N @two",),
                                "LXC cannot copy a hook with arguments, and would delete the other files", (0,)),
    "rename, keep the name": Case(container, (f"{COPY} -R -K -N @two",), "LXC leaves -K out", (0,)),
    "rename elsewhere": Case(other_path, (f"{COPY2} -B dir -N @three", "copy -n @three -R -N four -p LP/other"),
                             "LXC leaves -p out", (0, 1)),
    "a mode of the root": Case(closed_root, (f"{COPY} -N @two -s",),
                               "a snapshot clone's root directory is its original's; LXC makes it 0755", (0,)),
    "a full directory": Case(full_directory, (f"{COPY} -N @two",), "it is somebody's", (1,)),
    "a new path": Case(container, (f"{COPY} -N @two -p LP/a/new/path",), "it is made", (0,)),
    "a size": Case(container, (f"{COPY} -N @two -L huge",), "a size is a number with a unit", (1,)),
    "destroy -s": Case(clone, ("destroy -n @one -s",), "LXC fails where there are overlay clones", (0,)),
    "a missing comment": Case(container, (f"{SNAP} -c LP/none", f"{SNAP} -L"),
                              "LXC has made the snapshot by then", (1, 0)),
    "restore an original as new": Case(snapshots, (f"{COPY} -N @two -s", f"{SNAP} -r snap0 -N @three"),
                                       "that changes nothing that the clone shows", (0, 0)),
    "all of A": Case(snapshots, (f"{SNAP} -d A", f"{SNAP} -L"), "LXC takes any beginning of ALL for it", (1, 0)),
    "several tasks": Case(snapshots, (f"{SNAP} -L -d snap0", f"{SNAP} -L"), "LXC does the last of them", (1, 0)),
    "an unknown mount": Case(shown, (f"{TEMPORARY} -m tmpfs=LP/src", ended), "LXC leaves it out", (1,)),
    "nothing in memory to keep": Case(container, (f"{TEMPORARY} -t -D",), "LXC leaves the clone", (1,)),
}  # fmt: skip


def happened(case: Case, side: Side) -> tuple[list[tuple[str, int, str]], Picture]:
    case.setup(side)
    said = []
    for step in case.steps:
        if callable(step):
            step(side)
        else:
            said.append(side.do(step))
    return said, side.left()


def compared(ours: Picture, other: Picture) -> str:
    lines = []
    for path in sorted(ours.keys() | other.keys()):
        if ours.get(path) != other.get(path):
            lines.append(f"{path}:\n  ours   {str(ours.get(path))[:800]}\n  theirs {str(other.get(path))[:800]}")
    return "\n".join(lines)


@pytest.mark.parametrize("name", [name for name, case in ALIKE.items() if not case.differs])
def test_alike(sides: Callable[[str, str], Side], name: str) -> None:
    case = ALIKE[name]
    said, left = happened(case, sides("theirs", "L"))
    our_said, our_left = happened(case, sides("ours", "O"))
    assert our_said == said
    assert our_left == left, compared(our_left, left)


@pytest.mark.parametrize("name", [*DIFFERENT, *(name for name, case in ALIKE.items() if case.differs)])
def test_different_on_purpose(sides: Callable[[str, str], Side], name: str) -> None:
    """The list of what differs is not too long; that it is not too short the cases above see."""
    case = {**ALIKE, **DIFFERENT}[name]
    theirs, ours = happened(case, sides("theirs", "L")), happened(case, sides("ours", "O"))
    assert tuple(status for _, status, _ in ours[0]) == case.ends
    assert ours != theirs, f"no difference: {case.differs}"


LIFE = (
    f"{COPY} -N @two -s", SNAP2, f"{SNAP2} -L", f"{COPY2} -N @three -s", f"{SNAP2} -r snap0",
    "copy -n @three -N four -B dir", SNAP, f"{SNAP} -L", f"{SNAP} -r snap0", "destroy -n @one", "destroy -n @two",
    "destroy -n @three", f"{SNAP2} -r snap0", f"{SNAP2} -r snap0 -N six", f"{SNAP2} -d snap0", "destroy -n six",
    f"{SNAP2} -d snap0", "destroy -n @two", f"{SNAP} -r snap0 -N five", "copy -n five -N seven -R", f"{SNAP} -r snap0",
    f"{SNAP} -L -C", "destroy -n seven", f"{SNAP} -d ALL", "destroy -n @one", "destroy -n four",
)  # fmt: skip


@pytest.mark.parametrize("turns", ["O", "LO", "OL", "LLO", "OOL"])
def test_each_on_the_others_work(sides: Callable[[str, str], Side], turns: str) -> None:
    """One life of containers; LXC's commands and ours take turns at it, and it goes as with LXC's alone."""
    lives = []
    for name, way in (("theirs", "L"), ("mixed", turns)):
        side = sides(name, way)
        container(side)
        states = []
        for step in LIFE:
            said = side.do(step)
            states.append((said, side.left()))
        lives.append(states)
    for (their_said, their_left), (our_said, our_left) in zip(*lives, strict=True):
        assert our_said == their_said
        assert our_left == their_left, f"{our_said}\n{compared(our_left, their_left)}"
    assert lives[0][-1][1] == {}, "the life has an end"


def test_they_run_each_others_clones(sides: Callable[[str, str], Side]) -> None:
    """A clone that one made starts under the other, also a temporary one, which goes then."""
    for turns in ("LO", "OL"):
        side = sides(turns, turns)
        container(side)
        for make in (f"{COPY} -N @two -s", f"{COPY} -N @two"):
            for step in (make, "start -n @two", "attach -n @two -- cat /etc/hostname", "wait -n @two -s RUNNING", KILL):
                line, status, text = side.do(step)
                assert status == 0, line
                assert not step.startswith("attach") or text == "@two"
            side.do("wait -n @two -s STOPPED -t 10")
            assert side.do("destroy -n @two")[1] == 0
        for step in (f"{TEMPORARY} -q", "wait -n @two -s RUNNING", KILL):
            assert side.do(step)[1] == 0, step
        ended(side)
        assert not side.directory("two").exists()
        assert not (side.directory("one") / "lxc_snapshots").exists()
