"""lxcpy-copy: copies, snapshot clones, renames, temporary clones; failures and kills leave nothing behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import containers
import killing
import pytest
from containers import Tiny, config_of, rootfs_of, settled
from probes import requires

from lxcpy.container import Container
from lxcpy.errors import HookError, LxcpyError, StateError, StorageError
from lxcpy.runtime import clones, lock

if TYPE_CHECKING:
    from conftest import Box, Define

pytestmark = requires("root", "busybox", "overlay")
Run = Callable[..., "subprocess.CompletedProcess[str]"]
Names = Callable[[], str]
tiny = containers.tiny


def again(box: Box, made: Container) -> Box:
    """The container that was made of a box, as another box."""
    return type(box)(made.name, made.lxcpath)


def test_a_copy_runs_under_its_own_name(box: Define, names: Names) -> None:
    one = box("lxc.net.1.type = veth\nlxc.net.1.hwaddr = 00:16:3e:01:02:03\n")
    Path(one.rootfs, "etc/hostname").write_text(f"{one.name}\n")
    os.chmod(f"{one.rootfs}/etc/hostname", 0o600)
    Path(one.rootfs, "etc/hosts").write_text(f"127.0.1.1\t{one.name}\n")
    two = one.copy(names())
    assert rootfs_of(two).joinpath("etc/hostname").read_text() == two.name
    assert os.stat(rootfs_of(two) / "etc/hostname").st_mode & 0o777 == 0o600
    assert rootfs_of(two).joinpath("etc/hosts").read_text() == f"127.0.1.1\t{two.name}\n"
    assert Path(one.rootfs, "etc/hostname").read_text() == f"{one.name}\n"
    assert re.search(r"hwaddr = 10:66:6a(:[0-9a-f]{2}){3}\n", config_of(two))
    assert os.stat(two.directory).st_mode & 0o7777 == 0o770
    assert os.stat(two.config_file).st_mode & 0o7777 == 0o640
    assert sorted(os.listdir(two.directory)) == ["config", "rootfs"]
    two.start()
    try:
        assert Path(f"/proc/{two.init_pid}/root/etc/hostname").read_text() == two.name
        with pytest.raises(StateError, match="is running"):
            two.copy(names())
        three = two.copy(names(), allow_running=True, keep_name=True, keep_macs=True)
        assert f"lxc.uts.name = {two.name}\n" in config_of(three)
        mac = re.search(r"hwaddr = .*", config_of(two))
        assert mac and mac.group() in config_of(three)
    finally:
        two.kill(20)


def test_a_snapshot_clone_stores_the_differences(box: Define, names: Names, run: Run) -> None:
    one = box()
    clone = one.copy(names(), snapshot=True)
    assert f"lxc.rootfs.path = overlay:{one.rootfs}:{clone.directory}/overlay/delta\n" in config_of(clone)
    assert not Path(clone.directory, "overlay/delta/init").exists()
    clone.start()
    try:
        Path(f"/proc/{clone.init_pid}/root/new").write_text("new")
    finally:
        clone.kill(20)
    assert Path(clone.directory, "overlay/delta/new").read_text() == "new"
    assert not Path(one.rootfs, "new").exists()
    second = clone.copy(names(), snapshot=True)
    full = clone.copy(names(), backing="dir")
    assert Path(second.directory, "overlay/delta/new").read_text() == "new"
    assert (rootfs_of(full) / "new").read_text() == "new"
    assert (rootfs_of(full) / "init").exists()
    assert clones.originals(full.directory) == []
    assert clones.originals(second.directory) == [(one.lxcpath, one.name), (one.lxcpath, clone.name)]
    assert clones.dependents(one.directory) == [(one.lxcpath, clone.name), (one.lxcpath, second.name)]
    refused = run("destroy", "-P", one.lxcpath, "-n", one.name)
    assert refused.returncode == 1
    assert f"it has clones that depend on it: {clone.name}, {second.name}" in refused.stderr
    second.start()
    try:
        refused = run("destroy", "-P", one.lxcpath, "-n", one.name, "-s")
        assert (refused.returncode, f"{second.name} is running" in refused.stderr) == (1, True)
        assert clone.defined and one.defined
        assert run("destroy", "-P", one.lxcpath, "-n", one.name, "-s", "-f").returncode == 0
    finally:
        if second.state != "STOPPED":
            second.kill(20)
    assert os.listdir(one.lxcpath) == [full.name]


def test_the_newest_of_a_chain_can_go_first(tiny: Tiny, names: Names) -> None:
    base = tiny()
    one = base.copy(names(), snapshot=True)
    two = one.copy(names(), snapshot=True)
    with pytest.raises(StateError, match="depend on it"):
        one.destroy()
    two.destroy()
    assert clones.dependents(base.directory) == [(base.lxcpath, one.name)]
    one.destroy()
    assert not Path(base.directory, "lxc_snapshots").exists()
    base.destroy()
    assert os.listdir(base.lxcpath) == []


def test_elsewhere_and_from_another_config(tiny: Tiny, names: Names, tmp_path: Path) -> None:
    one = tiny()
    other = tmp_path / "config"
    other.write_text(f"lxc.arch = x86_64\nlxc.rootfs.path = {rootfs_of(one)}\n")
    two = one.copy(names(), str(tmp_path / "new/path"), rcfile=str(other))
    assert config_of(two) == (f"lxc.arch = x86_64\nlxc.rootfs.path = dir:{rootfs_of(two)}\nlxc.uts.name = {two.name}\n")
    assert (rootfs_of(two) / "marker").exists()


HOOK = """#!/bin/sh
env | grep -E '^LXC_(SRC_NAME|NAME|CONFIG_FILE|ROOTFS_PATH|HOOK_TYPE)=' | sort
echo "$*" "$(cat $LXC_ROOTFS_MOUNT/etc/hostname)"
mount -t tmpfs none $LXC_ROOTFS_MOUNT/etc
exit $(cat {directory}/status)
"""


def with_hook(container: Container, status: int) -> None:
    """A clone hook in the container's directory: it says what it sees, and ends with `status`."""
    Path(container.directory, "clone.sh").write_text(HOOK.format(directory=container.directory))
    os.chmod(f"{container.directory}/clone.sh", 0o755)
    Path(container.directory, "status").write_text(str(status))
    with open(container.config_file, "a") as config:
        config.write(f"lxc.hook.clone = {container.directory}/clone.sh first\n")


@pytest.mark.parametrize("snapshot", [False, True])
def test_a_failing_clone_hook_undoes_everything(tiny: Tiny, names: Names, snapshot: bool, run: Run) -> None:
    one = tiny()
    with_hook(one, 3)
    new = names()
    with pytest.raises(HookError) as caught:
        one.copy(new, snapshot=snapshot, arguments=["x y", "z"])
    said = caught.value.what.split("\n  | ")
    path = f"{one.lxcpath}/{new}"
    assert 'clone.sh first" ended with status 3' in said[0]
    rootfs = f"overlay:{rootfs_of(one)}:{path}/overlay/delta" if snapshot else f"dir:{path}/rootfs"
    assert said[1:] == [
        f"LXC_CONFIG_FILE={path}/config", f"LXC_NAME={new}", f"LXC_ROOTFS_PATH={rootfs}", f"LXC_SRC_NAME={one.name}",
        f"first {new} lxc clone x y z {one.name}",
    ]  # fmt: skip
    assert str(caught.value.at) == f"{path}/config:2"
    assert sorted(os.listdir(one.lxcpath)) == [one.name]
    assert not Path(one.directory, "lxc_snapshots").exists()
    Path(one.directory, "status").write_text("0")
    two = one.copy(new, snapshot=snapshot)
    assert os.access(f"{two.directory}/clone.sh", os.X_OK)
    assert f"lxc.hook.clone = {two.directory}/clone.sh first\n" in config_of(two)


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("lxc.hook.stop = {directory}/missing.sh\n", "lxc.hook.stop: cannot copy"),
        ("lxc.mount.fstab = /no/such/fstab\n", "lxc.mount.fstab: cannot copy"),
        ("lxc.mount.fstab = {directory}/../config\n", "lxc.mount.fstab: cannot copy"),
    ],
)
def test_files_that_cannot_go_along(tiny: Tiny, names: Names, extra: str, said: str) -> None:
    one = tiny(extra)
    with pytest.raises(StorageError, match=said) as caught:
        one.copy(names(), snapshot=True)
    assert str(caught.value.at) == f"{one.config_file}:4"
    assert os.listdir(one.lxcpath) == [one.name]
    assert sorted(os.listdir(one.directory)) == ["config", "rootfs"]


def test_names_that_are_taken(tiny: Tiny, names: Names) -> None:
    one, two = tiny(), tiny()
    for new in (one.name, two.name):
        with pytest.raises(StateError, match="already exists"):
            one.copy(new)
        with pytest.raises(StateError, match="already exists"):
            one.rename(new)
    empty, full = names(), names()
    os.mkdir(f"{one.lxcpath}/{empty}")
    os.mkdir(f"{one.lxcpath}/{full}")
    Path(one.lxcpath, full, "letter").write_text("dear reader")
    assert one.copy(empty).defined
    for change in (one.copy, one.rename):
        with pytest.raises(StorageError, match="not empty"):
            change(full)
    assert Path(one.lxcpath, full, "letter").read_text() == "dear reader"
    assert one.defined and sorted(os.listdir(one.directory)) == ["config", "rootfs"]
    with pytest.raises(StateError, match="there is no container"):
        Container("nobody", one.lxcpath).copy(names())


@pytest.mark.parametrize("snapshot", [False, True])
def test_a_hostile_host_name_file(tiny: Tiny, names: Names, tmp_path: Path, snapshot: bool) -> None:
    """What the container put in place of its files is followed in its root at most, and opened only as a file."""
    precious = tmp_path / "precious"
    precious.write_text("precious")
    for target in (str(precious), f"../../../../../../../..{precious}", "/proc/self/root" + str(precious)):
        one = tiny()
        (rootfs_of(one) / "etc/hostname").unlink()
        os.symlink(target, rootfs_of(one) / "etc/hostname")
        (rootfs_of(one) / "etc/hosts").unlink()
        os.mkfifo(rootfs_of(one) / "etc/hosts")
        two = one.copy(names(), snapshot=snapshot)
        assert precious.read_text() == "precious"
        assert two.defined
    inner = tiny()
    os.rename(rootfs_of(inner) / "etc/hostname", rootfs_of(inner) / "name")
    os.symlink("/name", rootfs_of(inner) / "etc/hostname")
    three = inner.copy(names())
    assert (rootfs_of(three) / "name").read_text() == three.name


@requires("userns")
@pytest.mark.parametrize("snapshot", [False, True])
def test_the_owners_of_a_container_with_an_id_map(box: Define, names: Names, snapshot: bool) -> None:
    one = box("lxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 200000 65536\n")
    Path(one.rootfs, "etc/hostname").write_text(one.name)
    for place, folders, files in os.walk(one.directory):
        for entry in [place, *(os.path.join(place, name) for name in folders + files)]:
            os.chown(entry, 100000, 200000, follow_symlinks=False)
    two = one.copy(names(), snapshot=snapshot)
    delta = Path(two.directory, "overlay/delta" if snapshot else "rootfs")
    for path in (Path(two.directory), delta, delta / "etc/hostname", delta / "etc"):
        assert (os.stat(path).st_uid, os.stat(path).st_gid) == (100000, 200000), path
    two.start()
    try:
        assert Path(f"/proc/{two.init_pid}/root/etc/hostname").read_text() == two.name
    finally:
        two.kill(20)


@requires("userns")
def test_what_a_container_with_an_id_map_has_hidden(box: Define, names: Names) -> None:
    """Its overlay notes that in attributes of another name; who looks at it from outside must read those."""
    one = box("lxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 100000 65536\n")
    os.makedirs(f"{one.rootfs}/old/sub")
    Path(one.rootfs, "old/sub/file").touch()
    Path(one.rootfs, "gone").touch()
    for place, folders, files in os.walk(one.directory):
        for entry in [place, *(os.path.join(place, name) for name in folders + files)]:
            os.chown(entry, 100000, 100000, follow_symlinks=False)
    clone = again(one, one.copy(names(), snapshot=True))
    clone.start()
    try:
        clone.sh("busybox rm -r /old /gone; busybox mkdir /old; busybox touch /old/new")
    finally:
        clone.kill(20)
    full, second = clone.copy(names(), backing="dir"), again(one, clone.copy(names(), snapshot=True))
    assert sorted(os.listdir(rootfs_of(full) / "old")) == ["new"]
    assert not (rootfs_of(full) / "gone").exists()
    assert os.stat(rootfs_of(full) / "old/new").st_uid == 100000
    assert os.listxattr(rootfs_of(full) / "old") == []
    second.start()
    try:
        assert second.sh("ls /old /gone || true").split("\n")[-2:] == ["new", ""]
    finally:
        second.kill(20)


OWN = """\
lxc.include = {directory}/inc.conf
lxc.include = inc.d
lxc.mount.entry = {directory}/data data none bind,create=dir 0 0
lxc.mount.entry = {directory}/data {directory}/rootfs/data2 none bind,create=dir 0 0
lxc.mount.fstab = {directory}/fstab
lxc.console.logfile = {directory}/console.log
lxc.hook.pre-start = {directory}/hooks/pre.sh
"""


def with_own_files(one: Box) -> None:
    """A config that names files in the container's directory, one of which includes another."""
    directory = Path(one.directory)
    (directory / "inc.d").mkdir()
    (directory / "inc.conf").write_text(f"lxc.include = {directory}/inc.d/inner\nlxc.uts.name = other\n")
    (directory / "inc.d/inner").write_text("lxc.environment = INNER=yes\n")
    (directory / "inc.d/net.conf").write_text(
        "lxc.net.1.type = veth\nlxc.net.1.hwaddr = 00:16:3e:01:02:03\nlxc.net.1.flags = up\n"
    )
    (directory / "data").mkdir()
    (directory / "data/file").write_text("data")
    (directory / "hooks").mkdir()
    (directory / "hooks/pre.sh").write_text('#!/bin/sh\ntouch "$(dirname "$0")/ran"\n')
    os.chmod(directory / "hooks/pre.sh", 0o755)
    (directory / "fstab").write_text(f"{directory}/data {directory}/rootfs/data3 none bind,create=dir 0 0\n")
    with open(one.config_file, "a") as config:
        config.write(OWN.format(directory=directory))


@pytest.mark.parametrize("way", ["copy", "snapshot", "rename", "restore"])
def test_the_files_of_its_own_that_a_config_names(box: Define, names: Names, way: str) -> None:
    one = box()
    with_own_files(one)
    if way == "rename":
        new = again(one, one.rename(names()))
    elif way == "restore":
        one.snapshot()
        one.restore("snap0")
        new = one
    else:
        new = again(one, one.copy(names(), snapshot=way == "snapshot"))
    directory = Path(new.directory)
    for file in ("config", "inc.conf", "inc.d/net.conf", "fstab"):
        text = (directory / file).read_text()
        if file == "config" and way in ("copy", "snapshot"):
            # what is mounted from there is shared, as with LXC
            text = text.replace(f"{one.directory}/data", "").replace(f"overlay:{one.directory}", "")
        elif file == "fstab" and way in ("copy", "snapshot"):
            assert text.startswith(f"{one.directory}/data {directory}/rootfs/")
            continue
        assert way == "restore" or f"{one.directory}/" not in text, (file, text)
    mac = re.search(r"hwaddr = (.*)\n", (directory / "inc.d/net.conf").read_text())
    assert mac and (mac[1] == "00:16:3e:01:02:03") == (way == "rename")
    new.start()
    try:
        assert (directory / "hooks/ran").exists()
        assert "INNER=yes" in new.environment()
        assert new.sh("cat /data/file /data2/file /data3/file") == "datadatadata"
        assert (directory / "console.log").exists()
    finally:
        new.kill(20)
    assert way in ("rename", "restore") or not Path(one.directory, "console.log").exists()


# -- rename ----------------------------------------------------------------------------------------------------------


def test_a_rename(box: Define, names: Names) -> None:
    one = box("lxc.net.1.type = veth\nlxc.net.1.hwaddr = 00:16:3e:01:02:03\n")
    Path(one.rootfs, "etc/hostname").write_text(f"{one.name}\n")
    Path(one.directory, "notes").write_text("stays")
    inode = os.stat(one.rootfs).st_ino
    two = one.rename(names())
    assert (one.defined, two.defined) == (False, True)
    assert os.stat(rootfs_of(two)).st_ino == inode
    assert Path(two.directory, "notes").exists()
    assert "hwaddr = 00:16:3e:01:02:03\n" in config_of(two)
    assert config_of(two).endswith(f"lxc.rootfs.path = dir:{two.directory}/rootfs\nlxc.uts.name = {two.name}\n")
    two.start()
    try:
        assert Path(f"/proc/{two.init_pid}/root/etc/hostname").read_text() == two.name
        with pytest.raises(StateError, match="is running"):
            two.rename(names())
    finally:
        two.kill(20)


def test_renames_that_are_refused(tiny: Tiny, names: Names, run: Run) -> None:
    one = tiny()
    clone = one.copy(names(), snapshot=True)
    for container, said in ((one, "depend on it"), (clone, "is a snapshot clone")):
        with pytest.raises(StateError, match=said):
            container.rename(names())
    clone.destroy()
    one.snapshot()
    with pytest.raises(StateError, match="has snapshots"):
        one.rename(names())
    one.delete_snapshot(None)
    with open(one.config_file, "a") as config:
        config.write(f"lxc.hook.clone = test -d {one.directory} -a\n")
    before = config_of(one)
    with pytest.raises(HookError, match=r"lxc\.hook\.clone"):
        one.rename(names())
    assert os.listdir(one.lxcpath) == [one.name]
    assert config_of(one) == before
    assert (rootfs_of(one) / "etc/hostname").read_text() == f"{one.name}\n"
    words = ("-P", one.lxcpath, "-n", one.name, "-R")
    assert "You must provide a NEWNAME" in run("copy", *words).stderr
    assert "leave out -p" in run("copy", *words, "-N", names(), "-p", "/tmp").stderr


# -- kills -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("snapshot", [False, True])
def test_a_copy_that_is_killed_does_not_bar_the_name(tiny: Tiny, names: Names, snapshot: bool) -> None:
    one = tiny()
    with_hook(one, 0)
    before = sorted(os.listdir(one.directory))
    new = Container(names(), one.lxcpath)

    def copy() -> None:
        one.copy(new.name, snapshot=snapshot)

    kinds = set()
    for step in killing.steps(lambda: None, copy):
        settled(new)
        kinds.add((new.defined, os.path.lexists(f"{new.directory}/partial")))
        if step >= 0 and step % 2 and os.path.lexists(f"{new.directory}/partial"):
            with pytest.raises(StateError, match=r"cut short|there is no"):
                new.start()
            with pytest.raises(StateError, match="cut short"):
                new.copy(names())
            new.destroy()
        elif step >= 0:
            one.copy(new.name, snapshot=snapshot)
        assert (rootfs_of(one) / "marker").read_text() == "original"
        if new.defined:
            assert not os.path.lexists(f"{new.directory}/partial")
            new.destroy()
        assert sorted(os.listdir(one.directory)) == before
        assert os.listdir(one.lxcpath) == [one.name]
    assert (False, True) in kinds and (True, True) in kinds
    one.destroy()


def test_a_rename_that_is_killed_has_one_name_or_the_other(tiny: Tiny, names: Names) -> None:
    old, new = names(), names()

    def prepare() -> None:
        shutil.rmtree(f"{lxcpath}/{new}", ignore_errors=True)
        shutil.rmtree(f"{lxcpath}/{old}", ignore_errors=True)
        one = tiny(name=old)
        Path(one.directory, "fstab").write_text(f"{one.directory}/data data none bind 0 0\n")
        Path(one.directory, "inc.conf").write_text(f"lxc.include = {one.directory}/inner.conf\n")
        Path(one.directory, "inner.conf").write_text(f"lxc.hook.stop = {one.directory}/stop.sh\n")
        with open(one.config_file, "a") as config:
            config.write(f"lxc.mount.fstab = {one.directory}/fstab\nlxc.include = {one.directory}/inc.conf\n")
            config.write(f"lxc.mount.entry = {one.directory}/data data none bind 0 0\n")

    first = tiny()
    lxcpath = first.lxcpath
    outcomes = set()
    for step in killing.steps(prepare, lambda: Container(old, lxcpath).rename(new) and None):
        found = [Container(name, lxcpath) for name in (old, new) if Container(name, lxcpath).defined]
        assert len(found) == 1
        if found[0].name == old and os.path.isdir(f"{lxcpath}/{new}"):
            assert os.listdir(f"{lxcpath}/{new}") == []  # which is as good as none
        one = found[0]
        outcomes.add(one.name)
        one.check_startable(None)  # the next command, whichever
        left = [entry for entry in os.listdir(one.directory) if not entry.startswith(".")]  # half-written ones
        assert sorted(left) == ["config", "fstab", "inc.conf", "inner.conf", "rootfs"], step
        for file in ("config", "fstab", "inc.conf", "inner.conf"):
            text = Path(one.directory, file).read_text()
            assert f"{lxcpath}/{new if one.name == old else old}/" not in text, (step, file)
            assert f"{one.directory}/" in text
        lines = config_of(one).splitlines()
        assert f"lxc.rootfs.path = dir:{rootfs_of(one)}" in lines
        assert f"lxc.uts.name = {one.name}" in lines
        assert f"lxc.mount.fstab = {one.directory}/fstab" in lines
        assert (rootfs_of(one) / "etc/hostname").read_text().strip() == one.name
    assert outcomes == {old, new}


@pytest.mark.parametrize("snapshot", [False, True])
def test_a_destroy_that_is_killed_can_be_done_again(tiny: Tiny, names: Names, snapshot: bool) -> None:
    one = tiny()
    new = Container(names(), one.lxcpath)

    def prepare() -> None:
        one.copy(new.name, snapshot=snapshot)  # onto an empty directory, too: that is as good as none

    for _ in killing.steps(prepare, new.destroy):
        if new.defined:
            assert not snapshot or clones.dependents(one.directory) == [(one.lxcpath, new.name)]
            new.destroy()
        assert os.listdir(new.directory) == [] if os.path.isdir(new.directory) else True
        assert clones.dependents(one.directory) in ([], [(one.lxcpath, new.name)])
        assert (rootfs_of(one) / "marker").read_text() == "original"
    one.destroy()


def test_a_copy_by_several_processes_that_is_killed(tiny: Tiny, names: Names, bin: str) -> None:
    one = tiny()
    for folder in range(40):
        (rootfs_of(one) / f"folder{folder}").mkdir()
        for file in range(60):
            (rootfs_of(one) / f"folder{folder}/file{file}").write_text(f"{folder} {file}")
    new = Container(names(), one.lxcpath)
    argv = [f"{bin}/lxcpy-copy", "-P", one.lxcpath, "-n", one.name, "-N", new.name]
    cut = 0
    for delay in range(0, 300, 20):
        with subprocess.Popen(argv) as process:
            time.sleep(delay / 1000)
            process.kill()
        settled(new)
        if not new.defined or os.path.lexists(f"{new.directory}/partial"):
            cut += 1
            one.copy(new.name)
        compare = ["diff", "-r", "-x", "hostname", "-x", "hosts", rootfs_of(one), rootfs_of(new)]
        assert subprocess.run(compare, capture_output=True, check=False).stdout == b""
        new.destroy()
        assert os.listdir(one.lxcpath) == [one.name]
    assert cut > 1


def test_an_original_that_is_being_copied_stays(box: Define, names: Names) -> None:
    one = box()
    go_on = Path(one.directory, "go-on")
    Path(one.directory, "wait.sh").write_text(f"#!/bin/sh\nwhile [ ! -e {go_on} ]; do sleep 0.01; done\n")
    os.chmod(f"{one.directory}/wait.sh", 0o755)
    with open(one.config_file, "a") as config:
        config.write(f"lxc.hook.clone = {one.directory}/wait.sh\n")
    new = Container(names(), one.lxcpath)
    thread = threading.Thread(target=one.copy, args=(new.name,))
    thread.start()
    try:
        while not new.defined:
            pass
        with pytest.raises(StateError, match="in use by another command"):
            one.destroy()
        with pytest.raises(StateError, match="in use by another command"):
            one.rename(names())
        for refused in (new.start, new.destroy, lambda: one.copy(new.name)):
            with pytest.raises(StateError, match="is being created"):
                refused()
        assert not lock.free(one.directory)
    finally:
        go_on.touch()
        thread.join()
    assert lock.free(one.directory)
    assert new.defined and not os.path.lexists(f"{new.directory}/partial")


def test_many_at_once(tiny: Tiny, names: Names) -> None:
    """Clones of one container come and go together; its list of them is right at the end."""
    one = tiny()
    made = [Container(names(), one.lxcpath) for _ in range(6)]
    script = "import sys; from lxcpy.container import Container as C; "
    script += "C(sys.argv[1], sys.argv[2]).copy(sys.argv[3], snapshot=True)"
    running = [
        subprocess.Popen([sys.executable, "-c", script, one.name, one.lxcpath, new.name], cwd=Path(__file__).parents[2])
        for new in made
    ]
    assert [process.wait() for process in running] == [0] * len(made)
    assert sorted(clones.dependents(one.directory)) == sorted((one.lxcpath, new.name) for new in made)
    failures: list[LxcpyError] = []

    def destroy(new: Container) -> None:
        try:
            new.destroy()
        except LxcpyError as error:
            failures.append(error)

    threads = [threading.Thread(target=destroy, args=(new,)) for new in made]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert not Path(one.directory, "lxc_snapshots").exists()


# -- temporary clones ------------------------------------------------------------------------------------------------


def words(one: Box, *more: str) -> tuple[str, ...]:
    return ("-P", one.lxcpath, "-n", one.name, *more)


def test_a_temporary_clone_goes_when_it_stops(box: Define, run: Run, names: Names, tmp_path: Path) -> None:
    one = box()
    Path(one.rootfs, "etc/hostname").write_text(one.name)
    shown = tmp_path / "with blank"
    shown.mkdir()
    (shown / "file").write_text("shown")
    new = Container(names(), one.lxcpath)
    mounts = ("-m", f"bind={shown}:/here:ro,overlay={shown}:/over", "-m", "bind=/none")
    made = run("copy", *words(one, "-e", "-N", new.name, *mounts))
    assert (made.returncode, made.stdout) == (0, f"Created {new.name} as clone of {one.name}\n"), made.stderr
    assert new.state == "RUNNING"
    root = f"/proc/{new.init_pid}/root"
    assert Path(root, "etc/hostname").read_text() == new.name
    assert Path(root, "here/file").read_text() == Path(root, "over/file").read_text() == "shown"
    with pytest.raises(OSError, match="Read-only"):
        Path(root, "here/file").write_text("changed")
    Path(root, "over/file").write_text("changed")
    assert (shown / "file").read_text() == "shown"
    assert new.kill(20)
    assert os.listdir(one.lxcpath) == [one.name]
    assert sorted(os.listdir(one.directory)) == ["config", "rootfs"]


def test_a_command_in_a_temporary_clone(box: Define, run: Run) -> None:
    one = box()
    environment = {**os.environ, "FROM_OUTSIDE": "yes"}
    script = "echo $container $FROM_OUTSIDE; exit 7"
    done = run("copy", *words(one, "-e", "--", "sh", "-c", script), env=environment)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(rf"Created {one.name}_\w{{6}} as clone of {one.name}\nlxc\n", done.stdout)
    assert os.listdir(one.lxcpath) == [one.name]
    missing = run("copy", *words(one, "-q", "-e", "--", "nonesuch"))
    assert (missing.returncode, missing.stdout) == (0, "")
    assert os.listdir(one.lxcpath) == [one.name]
    kept = run("copy", *words(one, "-q", "-e", "-D", "-F", "--", "sh", "-c", "echo new >/new; kill -PWR 1; sleep 9"))
    assert kept.returncode == 0, kept.stderr
    (clone,) = set(os.listdir(one.lxcpath)) - {one.name}
    assert Path(one.lxcpath, clone, "overlay/delta/new").read_text() == "new\n"
    Container(clone, one.lxcpath).destroy()


def test_changes_in_memory(box: Define, run: Run, names: Names) -> None:
    one = box()
    Path(one.rootfs, "etc/hostname").write_text(one.name)
    new = Container(names(), one.lxcpath)
    made = run("copy", *words(one, "-e", "-t", "-N", new.name))
    assert made.stdout.splitlines()[1:] == [
        "Container is placed on tmpfs.", "Rebooting will cause all changes made to it to be lost!",
    ], made.stderr  # fmt: skip
    Path(f"/proc/{new.init_pid}/root/new").write_text("new")
    assert Path(f"/proc/{new.init_pid}/root/etc/hostname").read_text() == f"{new.name}\n"
    assert not Path(new.directory, "overlay/delta/new").exists()
    assert new.kill(20)
    assert os.listdir(one.lxcpath) == [one.name]
    for refused in (("-D",), ("-B", "dir")):
        done = run("copy", *words(one, "-e", "-t", *refused))
        assert done.returncode == 1
        assert "only be placed on a tmpfs" in done.stderr
    assert os.listdir(one.lxcpath) == [one.name]


def test_a_temporary_clone_that_cannot_start(box: Define, run: Run, names: Names) -> None:
    one = box("lxc.hook.pre-start = false\n")
    new = names()
    done = run("copy", *words(one, "-e", "-N", new))
    assert done.returncode == 1
    assert "lxc.hook.pre-start" in done.stderr
    assert os.listdir(one.lxcpath) == [one.name]
    assert run("copy", *words(one, "-e", "-N", new, "-D")).returncode == 1
    assert sorted(os.listdir(one.lxcpath)) == sorted([one.name, new])  # -D: it is kept
    assert run("destroy", "-P", one.lxcpath, "-n", one.name, "-s").returncode == 0
    assert os.listdir(one.lxcpath) == []


def test_the_foreground(box: Define, run: Run) -> None:
    one = box("lxc.init.cmd = /bin/sh -c 'echo on the console'\n")
    done = run("copy", *words(one, "-e", "-F"))
    assert done.returncode == 0, done.stderr
    assert "on the console" in done.stdout
    assert os.listdir(one.lxcpath) == [one.name]


def test_json_of_snapshots_of_a_copy(tiny: Tiny, names: Names, run: Run) -> None:
    """A copy takes no snapshots along."""
    one = tiny()
    one.snapshot()
    two = one.copy(names())
    listed = run("snapshot", "-P", two.lxcpath, "-n", two.name, "-L", "--json")
    assert json.loads(listed.stdout) == []
