"""Copies and snapshots with no room, with a hostile root filesystem, and with others at the same work."""

from __future__ import annotations

import fcntl
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import containers
import pytest
from containers import Tiny, config_of, rootfs_of
from probes import requires

from lxcpy import paths
from lxcpy.container import Container
from lxcpy.errors import HookError, LxcpyError, StateError, StorageError
from lxcpy.kernel import mount
from lxcpy.runtime import client, clones, making

if TYPE_CHECKING:
    from conftest import Box, Define

pytestmark = requires("root", "busybox", "overlay")
Run = Callable[..., "subprocess.CompletedProcess[str]"]
Names = Callable[[], str]
tiny = containers.tiny
ROOT = Path(__file__).parents[2]
MIB = 1 << 20


def everything(folder: str) -> list[str]:
    return sorted(os.path.join(place, entry) for place, folders, files in os.walk(folder) for entry in folders + files)


# -- no room ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(lxcpath: str) -> Iterator[str]:
    """A file system of 4 MiB in the lxcpath."""
    place = f"{lxcpath}/small"
    os.mkdir(place)
    mount.mount("small", place, "tmpfs", 0, "size=4m,mode=0755")
    yield place
    mount.umount(place)


@pytest.mark.parametrize("snapshot", [False, True])
def test_a_copy_without_room(tiny: Tiny, names: Names, small: str, snapshot: bool) -> None:
    one = tiny()
    (rootfs_of(one) / "big").write_bytes(os.urandom(5 * MIB))
    if snapshot:
        one = one.copy(names(), snapshot=True)
        Path(one.directory, "overlay/delta/big").write_bytes(os.urandom(5 * MIB))
    noted = {pair: clones.dependents(os.path.join(*pair)) for pair in clones.originals(one.directory)}
    before = everything(one.directory)
    with pytest.raises(StorageError, match="No space left on device") as caught:
        one.copy(names(), small, snapshot=snapshot)
    assert caught.value.hint == "make room on the target's file system"
    assert os.listdir(small) == []
    assert everything(one.directory) == before
    assert noted == {pair: clones.dependents(os.path.join(*pair)) for pair in noted}


@pytest.mark.parametrize("verb", ["snapshot", "restore", "rename"])
def test_a_change_without_room(tiny: Tiny, names: Names, small: str, verb: str) -> None:
    first = tiny()
    (rootfs_of(first) / "big").write_bytes(os.urandom(MIB))
    one = first.copy(names(), small)
    new = names()
    if verb == "restore":
        one.snapshot()
    rubbish = Path(small, "rubbish")
    with open(rubbish, "wb", buffering=0) as file:
        try:
            while file.write(bytes(4096)):
                pass
        except OSError:
            pass
    before, config = everything(one.directory), config_of(one)
    work = {"snapshot": one.snapshot, "restore": lambda: one.restore("snap0"), "rename": lambda: one.rename(new)}[verb]
    with pytest.raises(LxcpyError, match="No space left on device"):
        work()
    assert everything(one.directory) == before
    assert sorted(os.listdir(small)) == sorted([one.name, "rubbish"])
    assert config_of(one) == config
    rubbish.unlink()
    work()
    assert (rootfs_of(Container(new if verb == "rename" else one.name, small)) / "big").stat().st_size == MIB


def test_a_root_filesystem_with_mapped_ids_has_no_snapshot_clone(tiny: Tiny, names: Names) -> None:
    one = tiny("lxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 100000 65536\nlxc.rootfs.options = idmap=container\n")
    with pytest.raises(StorageError, match="idmap= works with storage of type dir only") as caught:
        one.copy(names(), snapshot=True)
    assert str(caught.value.at) == f"{one.config_file}:6"
    two = one.copy(names())
    assert (rootfs_of(two) / "marker").stat().st_uid == 0
    assert sorted(os.listdir(one.lxcpath)) == sorted([one.name, two.name])


def test_what_is_mounted_is_left_out_with_a_warning(tiny: Tiny, names: Names, run: Run) -> None:
    one = tiny()
    place = rootfs_of(one) / "srv"
    place.mkdir()
    mount.mount("srv", str(place), "tmpfs", 0, "size=1m")
    try:
        (place / "file").touch()
        new = names()
        said = run("copy", "-P", one.lxcpath, "-n", one.name, "-N", new)
        line = f"{one.name}: warning: what is mounted on {place} is not copied\n"
        assert (said.returncode, said.stderr) == (0, f"lxcpy-copy: {line}")
        assert run("copy", "-q", "-P", one.lxcpath, "-n", one.name, "-N", names()).stderr == ""
        assert run("snapshot", "-P", one.lxcpath, "-n", one.name).stderr == f"lxcpy-snapshot: {line}"
    finally:
        mount.umount(str(place))
    assert os.listdir(rootfs_of(Container(new, one.lxcpath)) / "srv") == []


# -- others at work --------------------------------------------------------------------------------------------------


def at_once(code: str, *arguments: str, count: int = 6) -> list[tuple[int, str]]:
    """Run python several times over; (exit status, the last line of stderr) of each."""
    script = "import sys; from lxcpy.container import Container as C; from lxcpy.runtime import create; " + code
    argv = [sys.executable, "-c", script, *arguments]
    running = [
        subprocess.Popen(argv, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        for _ in range(count)
    ]
    said = [process.communicate(timeout=60)[1] for process in running]
    return [
        (process.returncode, (text.strip().splitlines() or [""])[-1])
        for process, text in zip(running, said, strict=True)
    ]


COPY = "C(sys.argv[1], sys.argv[2]).copy(sys.argv[3], snapshot=sys.argv[4] == 'True')"
CREATE = "create.create(create.Request(sys.argv[3], sys.argv[2], 'none'))"


@pytest.mark.parametrize("code", [COPY, COPY, CREATE], ids=["copy", "snapshot", "create"])
def test_one_name_for_many(tiny: Tiny, names: Names, request: pytest.FixtureRequest, code: str) -> None:
    one = tiny()
    with open(one.config_file, "a") as config:
        config.write("lxc.hook.clone = sh -c 'sleep 0.2'\n")
    snapshot = "snapshot" in request.node.name
    for _ in range(3):
        new = Container(names(), one.lxcpath)
        ends = at_once(code, one.name, one.lxcpath, new.name, str(snapshot))
        assert sorted(status for status, _ in ends) == [0, 1, 1, 1, 1, 1], ends
        for status, said in ends:
            assert not status or said.startswith("lxcpy.runtime.making.Taken: "), said
        assert new.defined
        assert code == CREATE or (rootfs_of(new) / ("" if snapshot else "marker")).exists()
        assert not os.path.lexists(f"{new.directory}/partial")
        assert clones.dependents(one.directory) == ([(one.lxcpath, new.name)] if snapshot else [])
        new.destroy()
    assert os.listdir(one.lxcpath) == [one.name]


def test_snapshots_taken_at_once(tiny: Tiny) -> None:
    one = tiny()
    assert [end[0] for end in at_once("C(sys.argv[1], sys.argv[2]).snapshot()", one.name, one.lxcpath)] == [0] * 6
    assert [snapshot.name for snapshot in one.snapshots()] == [f"snap{number}" for number in range(6)]
    for snapshot in one.snapshots():
        assert (rootfs_of(Container(snapshot.name, snapshot.path)) / "marker").read_text() == "original"


def test_what_is_being_destroyed_is_not_copied(tiny: Tiny, names: Names) -> None:
    one = tiny("lxc.hook.destroy = sh -c 'touch {directory}/begun; until [ -e {directory}/go ]; do sleep 0.01; done'\n")
    clone = one.copy(names(), snapshot=True)  # keeps the original, and the hook runs for neither
    with pytest.raises(StateError, match="depend on it"):
        one.destroy()
    thread = threading.Thread(target=clone.destroy)
    Path(one.directory, "go").touch()
    thread.start()
    thread.join()
    for left in ("go", "begun"):
        Path(one.directory, left).unlink()
    thread = threading.Thread(target=one.destroy)
    thread.start()
    try:
        while not Path(one.directory, "begun").exists():
            time.sleep(0.01)
        for refused in (
            lambda: one.copy(names()),
            lambda: one.copy(names(), snapshot=True),
            one.snapshot,
            one.destroy,
            one.start,
        ):
            with pytest.raises(StateError, match="in use by another command"):
                refused()
    finally:
        Path(one.directory, "go").touch()
        thread.join()
    assert os.listdir(one.lxcpath) == []


def test_a_start_does_not_meet_a_restore(box: Define) -> None:
    """The restore is refused while the container starts, the start while it is restored: whoever comes first."""
    one = box()
    Path(one.directory, "destroy.sh").write_text(
        f"#!/bin/sh\ntouch {one.directory}/begun\nuntil [ -e {one.directory}/go ]; do sleep 0.01; done\n"
    )
    os.chmod(f"{one.directory}/destroy.sh", 0o755)
    with open(one.config_file, "a") as config:
        config.write(f"lxc.hook.destroy = {one.directory}/destroy.sh\n")
    one.snapshot()
    thread = threading.Thread(target=one.restore, args=("snap0",))
    thread.start()
    try:
        while not Path(one.directory, "begun").exists():
            time.sleep(0.01)
        with pytest.raises(StateError, match="in use by another command"):
            one.start()
        assert one.state == "STOPPED"
    finally:
        Path(one.directory, "go").touch()
        thread.join()
    one.start()
    for refused in (lambda: one.restore("snap0"), one.destroy, lambda: one.rename("other")):
        with pytest.raises(StateError, match="is running"):
            refused()


def test_the_lock_of_lxc_is_waited_for(tiny: Tiny, names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    """LXC takes it while it changes lxc_snapshots."""
    one = tiny()
    path = f"{paths.lxc_locks()}{one.lxcpath}/.{one.name}"
    one.copy(names(), snapshot=True).destroy()
    lock = os.open(path, os.O_RDWR)
    try:
        fcntl.fcntl(lock, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        thread = threading.Thread(target=one.copy, args=(names(),), kwargs={"snapshot": True})
        thread.start()
        time.sleep(0.3)
        assert thread.is_alive()
        monkeypatch.setattr("lxcpy.runtime.lock.PATIENCE", 0.1)
        with pytest.raises(StateError, match="a command of LXC holds its lock"):
            one.copy(names(), snapshot=True)
    finally:
        os.close(lock)
    thread.join()
    assert len(clones.dependents(one.directory)) == 1
    assert len(os.listdir(one.lxcpath)) == 2


def test_an_interrupt_undoes_the_copy(tiny: Tiny, names: Names, bin: str) -> None:
    one = tiny("lxc.hook.clone = sh -c 'touch {directory}/begun; exec sleep 60'\n")
    argv = [f"{bin}/lxcpy-copy", "-P", one.lxcpath, "-n", one.name, "-s", "-N", names()]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        while not Path(one.directory, "begun").exists():
            assert process.poll() is None
            time.sleep(0.01)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGINT or process.returncode == -signal.SIGINT
    assert "Traceback" not in said
    assert os.listdir(one.lxcpath) == [one.name]
    assert not os.path.lexists(f"{one.directory}/lxc_snapshots")


# -- hostile content -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("snapshot", [False, True])
def test_a_hostile_root_filesystem(tiny: Tiny, names: Names, tmp_path: Path, snapshot: bool) -> None:
    outside = tmp_path / "outside"
    (outside / "sysconfig").mkdir(parents=True)
    for name in ("hostname", "hosts", "sysconfig/network", "precious"):
        (outside / name).write_text("127.0.0.1 precious\nHOSTNAME=precious\n")
    one = tiny()
    rootfs = rootfs_of(one)
    for name in ("hostname", "hosts"):
        (rootfs / "etc" / name).unlink()
    os.rmdir(rootfs / "etc")
    os.symlink(outside, rootfs / "etc")
    os.symlink("/", rootfs / "root of the host")
    os.symlink("..", rootfs / "up")
    os.mkfifo(rootfs / "pipe")
    with open(rootfs / "sparse", "wb") as file:
        file.truncate(1 << 40)
    deep = rootfs
    for _ in range(60):
        deep = deep / ("d" * 60)
        os.mkdir(deep)
    two = one.copy(names(), snapshot=snapshot)
    two.snapshot()
    two.restore("snap0")
    two.destroy(snapshots=True)
    one.snapshot()
    one.restore("snap0")
    renamed = one.rename(names()) if not one.snapshots() else one
    renamed.destroy(snapshots=True)
    assert os.listdir(one.lxcpath) == []
    for name in ("hostname", "hosts", "sysconfig/network", "precious"):
        assert (outside / name).read_text() == "127.0.0.1 precious\nHOSTNAME=precious\n"


# -- hooks -----------------------------------------------------------------------------------------------------------


def test_the_destroy_hooks_of_a_copy_that_fails(tiny: Tiny, names: Names) -> None:
    """What the first clone hook did elsewhere the destroy hooks undo, as with LXC."""
    one = tiny()
    register = Path(one.directory, "register")
    register.touch()
    with open(one.config_file, "a") as config:
        config.write(f"lxc.hook.clone = sh -c 'echo + $LXC_NAME >> {register}'\nlxc.hook.clone = false\n")
        config.write(f"lxc.hook.destroy = sh -c 'echo - $LXC_NAME >> {register}'\n")
    new = names()
    with pytest.raises(HookError):
        one.copy(new)
    assert register.read_text() == f"+ {new}\n- {new}\n"
    assert os.listdir(one.lxcpath) == [one.name]


# -- temporary clones ------------------------------------------------------------------------------------------------


def temporary(one: Box, run: Run, name: str, *words: str) -> Box:
    made = run("copy", "-P", one.lxcpath, "-n", one.name, "-e", "-N", name, *words)
    assert made.returncode == 0, made.stderr
    return type(one)(name, one.lxcpath)


def gone(one: Container) -> bool:
    deadline = time.monotonic() + 10
    while os.path.lexists(one.directory) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not os.path.lexists(one.directory)


def supervisor_pid() -> int:
    with client.connect() as connection:
        return int(connection.ask("status")["pid"])


def kill_supervisor() -> None:
    pid = supervisor_pid()
    os.kill(pid, signal.SIGKILL)
    while os.path.exists(f"/proc/{pid}"):
        time.sleep(0.005)


def test_a_reboot_keeps_a_temporary_clone(box: Define, run: Run, names: Names) -> None:
    one = box()
    new = temporary(one, run, names()).await_traps()
    Path(f"/proc/{new.init_pid}/root/new").write_text("new")
    assert new.reboot(20)
    assert new.await_traps().inside("new") == "new"
    assert new.shutdown(20)
    assert gone(new)
    assert clones.dependents(one.directory) == []


def test_a_temporary_clone_outlives_its_supervisor(box: Define, run: Run, names: Names) -> None:
    one = box()
    new = temporary(one, run, names()).await_traps()
    kill_supervisor()
    assert new.state == "RUNNING"
    assert new.shutdown(20)
    assert gone(new)
    assert os.listdir(one.lxcpath) == [one.name]


def test_a_temporary_clone_that_ends_when_nobody_looks(box: Define, run: Run, names: Names) -> None:
    one = box()
    new = temporary(one, run, names())
    pid = new.init_pid
    kill_supervisor()
    os.kill(pid, signal.SIGKILL)
    while os.path.exists(f"/proc/{pid}") and "State:\tZ" not in Path(f"/proc/{pid}/status").read_text():
        time.sleep(0.005)
    # the first question about a state brings up a supervisor, which cleans up
    assert new.state in ("STOPPING", "STOPPED")
    assert new.wait(["STOPPED"], 10) == "STOPPED"
    assert os.listdir(one.lxcpath) == [one.name]
    assert not os.path.lexists(f"{one.directory}/lxc_snapshots")


@pytest.mark.parametrize("words", [(), ("-t",)], ids=["disk", "tmpfs"])
def test_destroy_f_of_a_temporary_clone(box: Define, run: Run, names: Names, words: tuple[str, ...]) -> None:
    one = box()
    new = temporary(one, run, names(), *words)
    done = run("destroy", "-P", one.lxcpath, "-n", new.name, "-f")
    assert (done.returncode, done.stderr) == (0, "")
    assert os.listdir(one.lxcpath) == [one.name]


@requires("userns")
@pytest.mark.parametrize("words", [(), ("-t",)], ids=["disk", "tmpfs"])
def test_a_temporary_clone_with_an_id_map(box: Define, run: Run, names: Names, words: tuple[str, ...]) -> None:
    one = box("lxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 100000 65536\n")
    Path(one.rootfs, "etc/hostname").write_text(one.name)
    shown = Path(one.lxcpath, "shown")
    shown.mkdir()
    (shown / "file").write_text("shown")
    os.chown(shown, 100000, 100000)
    for place, folders, files in os.walk(one.directory):
        for entry in [place, *(os.path.join(place, name) for name in folders + files)]:
            os.chown(entry, 100000, 100000, follow_symlinks=False)
    new = temporary(one, run, names(), *words, "-m", f"overlay={shown}:/shown,bind={shown}:/bound:ro").await_traps()
    assert new.sh("echo changed > /new; echo more > /shown/more; cat /new /shown/file /bound/file /etc/hostname") == (
        f"changed\nshownshown{new.name}" + ("\n" if words else "")
    )
    assert sorted(os.listdir(shown)) == ["file"]
    assert new.reboot(20)
    assert new.await_traps().sh("test -e /new && echo there || echo lost") == ("lost\n" if words else "there\n")
    assert new.kill(20)
    assert gone(new)


def test_taken_names_are_state_errors() -> None:
    """So that a command ends as it does where a name is taken before it begins."""
    assert issubclass(making.Taken, StateError)
