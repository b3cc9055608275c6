"""lxcpy-snapshot: taking, listing, restoring and deleting; what a kill leaves is whole, the old or the new."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import containers
import killing
import pytest
from containers import Tiny, config_of, rootfs_of, settled
from probes import requires

from lxcpy.container import Container
from lxcpy.errors import HookError, LxcpyError, StateError
from lxcpy.runtime import clones

if TYPE_CHECKING:
    from conftest import Define

pytestmark = requires("root", "busybox", "overlay")
Run = Callable[..., "subprocess.CompletedProcess[str]"]
Names = Callable[[], str]
tiny = containers.tiny


def marker(container: Container) -> Path:
    return rootfs_of(container) / "marker"


def test_taking_listing_deleting(tiny: Tiny, run: Run, tmp_path: Path) -> None:
    one = tiny("lxc.net.0.type = veth\nlxc.net.0.hwaddr = 00:16:3e:01:02:03\n")
    words = ("-P", one.lxcpath, "-n", one.name)
    assert run("snapshot", *words, "-L").stdout == "No snapshots\n"
    notes = tmp_path / "notes"
    notes.write_text("before the\nupgrade\n")
    taken = run("snapshot", *words)
    assert (taken.returncode, taken.stdout, taken.stderr) == (0, "", "")
    assert run("snapshot", *words, "-c", str(notes)).returncode == 0
    listed = run("snapshot", *words, "-L", "-C").stdout
    place = re.escape(f"({one.directory}/snaps)")
    when = r"\d{4}:\d\d:\d\d \d\d:\d\d:\d\d"
    assert re.fullmatch(rf"snap0 {place} {when}\nsnap1 {place} {when}\nbefore the\nupgrade\n", listed)
    found = json.loads(run("snapshot", *words, "-L", "--json").stdout)
    assert [(one["snapshot"], one["comment"]) for one in found] == [("snap0", None), ("snap1", "before the\nupgrade\n")]
    assert found[0]["directory"] == f"{one.directory}/snaps/snap0"
    snap = Container("snap1", f"{one.directory}/snaps")
    assert sorted(os.listdir(snap.directory)) == ["comment", "config", "rootfs", "ts"]
    assert config_of(snap) == config_of(one).replace(f"lxc.rootfs.path = dir:{rootfs_of(one)}\n", "") + (
        f"lxc.rootfs.path = dir:{rootfs_of(snap)}\n"
    )
    assert (rootfs_of(snap) / "etc/hostname").read_text() == f"{one.name}\n"
    assert run("snapshot", *words, "-d", "snap0").returncode == 0
    assert one.snapshot() == "snap0"  # the lowest that is free
    refused = run("destroy", *words)
    assert (refused.returncode, "has snapshots" in refused.stderr) == (1, True)
    for wrong in ("A", "snap", "snap9", ".."):
        assert run("snapshot", *words, "-d", wrong).returncode == 1
    assert [snapshot.name for snapshot in one.snapshots()] == ["snap0", "snap1"]
    assert run("snapshot", *words, "-d", "ALL").returncode == 0
    assert sorted(os.listdir(one.directory)) == ["config", "rootfs"]


def test_refusals(box: Define, run: Run) -> None:
    one = box()
    words = ("-P", one.lxcpath, "-n", one.name)
    for options, said in (
        (("-d", "ALL"), "has no snapshots"),
        (("-r", "snap0"), 'has no snapshot "snap0"'),
        (("-r", "snap0", "x", "y"), "Too many arguments"),
        (("-L", "-d", "snap0"), "only one"),
        (("--json",), "goes with -L"),
        (("-c", "/no/such/file"), "cannot be read"),
    ):
        done = run("snapshot", *words, *options)
        assert done.returncode == 1
        assert said in done.stderr
    for options in ((), ("-L",), ("-r", "snap0"), ("-d", "snap0")):
        assert run("snapshot", "-P", one.lxcpath, "-n", "nobody", *options).returncode == 1
    one.start()
    with pytest.raises(StateError, match="is running"):
        one.snapshot()
    assert sorted(os.listdir(one.directory)) == ["config", "rootfs"]
    assert one.kill(20)
    one.snapshot()
    one.start()
    with pytest.raises(StateError, match="is running"):
        one.restore("snap0")
    assert sorted(os.listdir(one.directory)) == ["config", "rootfs", "snaps"]


def test_a_container_is_what_it_was(box: Define, names: Names) -> None:
    one = box("lxc.net.1.type = veth\nlxc.net.1.hwaddr = 00:16:3e:01:02:03\n")
    Path(one.directory, "hook.sh").write_text("#!/bin/sh\n")
    os.chmod(f"{one.directory}/hook.sh", 0o755)
    with open(one.config_file, "a") as config:
        config.write(f"lxc.hook.pre-start = {one.directory}/hook.sh\n")
    Path(one.rootfs, "etc/hostname").write_text(one.name)
    assert one.snapshot() == "snap0"
    Path(one.rootfs, "bad").touch()
    shutil.rmtree(f"{one.rootfs}/bin")
    Path(one.directory, "hook.sh").unlink()
    Path(one.directory, "notes").write_text("not of the snapshot")
    one.restore("snap0")
    assert sorted(os.listdir(one.directory)) == ["config", "hook.sh", "notes", "rootfs", "snaps"]
    assert not Path(one.rootfs, "bad").exists()
    assert re.search(r"hwaddr = 10:66:6a:", config_of(one))
    assert f"lxc.hook.pre-start = {one.directory}/hook.sh\n" in config_of(one)
    assert config_of(one).endswith(f"lxc.rootfs.path = dir:{one.rootfs}\nlxc.uts.name = {one.name}\n")
    new = one.restore("snap0", names())
    assert (rootfs_of(new) / "etc/hostname").read_text() == new.name
    assert clones.originals(new.directory) == []
    for container in (one, new):
        container.start()
        assert container.state == "RUNNING"
        assert container.kill(20)
    with pytest.raises(StateError, match="already exists"):
        one.restore("snap0", new.name)
    one.destroy(snapshots=True)
    assert os.listdir(one.lxcpath) == [new.name]


def test_snapshots_of_a_snapshot_clone(box: Define, names: Names) -> None:
    base = box()
    one = base.copy(names(), snapshot=True)
    delta = Path(one.directory, "overlay/delta")
    (delta / "kept").touch()
    assert one.snapshot() == "snap0"
    snaps = f"{one.directory}/snaps"
    assert Path(snaps, "snap0/overlay/delta/kept").exists()
    assert clones.originals(f"{snaps}/snap0") == [(base.lxcpath, base.name)]
    assert clones.dependents(base.directory) == [(base.lxcpath, one.name), (snaps, "snap0")]
    (delta / "bad").touch()
    one.restore("snap0")
    assert (delta / "kept").exists() and not (delta / "bad").exists()
    assert config_of(one).endswith(f"overlay:{base.rootfs}:{delta}\nlxc.uts.name = {one.name}\n")
    assert clones.originals(one.directory) == [(base.lxcpath, base.name)]
    one.start()
    try:
        assert Path(f"/proc/{one.init_pid}/root/kept").exists()
    finally:
        one.kill(20)
    new = one.restore("snap0", names())
    assert clones.originals(new.directory) == [(base.lxcpath, base.name), (snaps, "snap0")]
    with pytest.raises(StateError, match=f"depend on it: {new.name}"):
        one.delete_snapshot("snap0")
    with pytest.raises(StateError, match=f"depend on it: {new.name}"):
        one.delete_snapshot(None)
    with pytest.raises(StateError, match="depend on it"):
        base.destroy()
    base.destroy(snapshots=True)
    assert os.listdir(base.lxcpath) == []


def test_an_overlay_over_its_own_rootfs(tiny: Tiny, names: Names) -> None:
    """As lxc-create -B overlay makes it: what the template made is the lower directory, which every state shares."""
    one = tiny()
    delta = Path(one.directory, "overlay/delta")
    text = config_of(one).replace("dir:", "overlay:").replace(f"{rootfs_of(one)}\n", f"{rootfs_of(one)}:{delta}\n")
    Path(one.config_file).write_text(text)
    os.makedirs(delta)
    (delta / "kept").touch()
    one.snapshot()
    (delta / "bad").touch()
    one.restore("snap0")
    assert marker(one).read_text() == "original"
    assert sorted(os.listdir(delta)) == ["etc", "kept"]
    assert sorted(os.listdir(one.directory)) == ["config", "overlay", "rootfs", "snaps"]
    new = one.restore("snap0", names())
    with pytest.raises(StateError, match="snapshots"):
        one.destroy()
    full = new.copy(names(), backing="dir")
    assert (rootfs_of(full) / "kept").exists() and marker(full).exists()
    one.destroy(snapshots=True)
    assert os.listdir(one.lxcpath) == [full.name]


def test_restores_that_are_refused(tiny: Tiny, names: Names) -> None:
    one = tiny()
    one.snapshot()
    marker(one).write_text("changed")
    clone = one.copy(names(), snapshot=True)
    with pytest.raises(StateError, match="depend on it"):
        one.restore("snap0")
    one.restore("snap0", names())  # that touches nobody
    clone.destroy()
    with open(one.config_file, "a") as config:
        config.write("lxc.hook.destroy = false\n")
    with pytest.raises(HookError):
        one.restore("snap0")
    Path(one.config_file).write_text(config_of(one).replace("lxc.hook.destroy = false", "lxc.rootfs.managed = 0"))
    with pytest.raises(StateError, match="not ours to replace"):
        one.restore("snap0")
    assert marker(one).read_text() == "changed"
    assert sorted(os.listdir(one.directory)) == ["config", "rootfs", "snaps"]


def test_a_failing_clone_hook_changes_nothing(tiny: Tiny) -> None:
    one = tiny("lxc.hook.clone = sh -c 'test ! -e {directory}/fail'\n")
    one.snapshot()
    Path(one.directory, "fail").touch()
    marker(one).write_text("changed")
    before = config_of(one)
    with pytest.raises(HookError):
        one.restore("snap0")
    with pytest.raises(HookError):
        one.snapshot()
    assert (marker(one).read_text(), config_of(one)) == ("changed", before)
    assert sorted(os.listdir(one.directory)) == ["config", "fail", "rootfs", "snaps"]
    assert os.listdir(f"{one.directory}/snaps") == ["snap0"]
    one.delete_snapshot("snap0")
    with pytest.raises(HookError):
        one.snapshot()
    assert not os.path.exists(f"{one.directory}/snaps")


def test_a_rootfs_elsewhere_is_replaced_too(tiny: Tiny, tmp_path: Path) -> None:
    one = tiny()
    elsewhere = tmp_path / "rootfs"
    os.rename(rootfs_of(one), elsewhere)
    Path(one.config_file).write_text(config_of(one).replace(str(rootfs_of(one)), str(elsewhere)))
    one.snapshot()
    one.restore("snap0")
    assert not elsewhere.exists()
    assert marker(one).read_text() == "original"


def test_the_place_of_an_old_lxc(tiny: Tiny, run: Run) -> None:
    one = tiny()
    old = f"{one.lxcpath}snaps"
    os.mkdir(old)
    try:
        assert one.snapshot() == "snap0"
        assert os.listdir(f"{old}/{one.name}") == ["snap0"]
        assert run("snapshot", "-P", one.lxcpath, one.name, "-L").stdout.startswith(f"snap0 ({old}/{one.name}) ")
        marker(one).write_text("changed")
        one.restore("snap0")
        assert marker(one).read_text() == "original"
        with pytest.raises(StateError, match="has snapshots"):
            one.destroy()
        one.destroy(snapshots=True)
        assert os.listdir(f"{old}/{one.name}") == []
    finally:
        shutil.rmtree(old)


# -- kills -----------------------------------------------------------------------------------------------------------


def test_a_snapshot_that_is_killed_is_no_snapshot(tiny: Tiny) -> None:
    one = tiny("lxc.hook.clone = true\n")
    seen = set()
    for step in killing.steps(lambda: None, lambda: one.snapshot() and None):
        settled(Container("snap0", f"{one.directory}/snaps"))
        found = [snapshot.name for snapshot in one.snapshots()]
        seen.add((tuple(found), os.path.isdir(f"{one.directory}/snaps/snap0")))
        assert found in ([], ["snap0"])
        if not found and step % 3 == 0:
            assert one.snapshot() == "snap0"
        for snapshot in one.snapshots():
            assert marker(Container(snapshot.name, snapshot.path)).read_text() == "original"
            assert snapshot.timestamp
        if step % 3 == 1:
            try:
                one.delete_snapshot(None)
            except StateError:
                assert found == []
        elif one.snapshots():
            one.delete_snapshot("snap0")
        assert marker(one).read_text() == "original"
    assert ((), True) in seen and (("snap0",), True) in seen
    one.destroy()


@pytest.mark.parametrize("kind", ["dir", "overlay"])
def test_a_restore_that_is_killed_is_the_old_or_the_new(tiny: Tiny, names: Names, kind: str) -> None:
    """Killed before each of its changes: the container is whole at every next command, and the snapshot is there."""
    base = tiny()
    name = names()

    def place() -> tuple[Container, Path]:
        container = Container(name, base.lxcpath)
        return container, rootfs_of(container) if kind == "dir" else Path(container.directory, "overlay/delta")

    def prepare() -> None:
        one, data = place()
        if one.defined:
            one.destroy(snapshots=True)
        base.copy(name, snapshot=kind == "overlay")
        (data / "state").write_text("new")
        one.snapshot()
        (data / "state").write_text("old")
        Path(one.directory, "notes").touch()
        with open(one.config_file, "a") as config:
            config.write("# old\n")

    def restore() -> None:
        place()[0].restore("snap0")

    seen = set()
    for step in killing.steps(prepare, restore):
        one, data = place()
        assert one.defined
        half = os.path.exists(f"{one.directory}/.lxcpy-pending")
        one.check_startable(None)  # the next command, whichever
        state = (data / "state").read_text()
        old = "# old\n" in config_of(one)
        seen.add((half, state))
        assert (state, old) in (("new", False), ("old", True)), step
        assert os.path.exists(f"{one.directory}/notes"), step
        assert [snapshot.name for snapshot in one.snapshots()] == ["snap0"]
        if kind == "overlay":
            assert clones.originals(one.directory) == [(base.lxcpath, base.name)]
            assert (base.lxcpath, name) in clones.dependents(base.directory)
        one.restore("snap0")
        assert (data / "state").read_text() == "new"
        entries = {entry for entry in os.listdir(one.directory) if not entry.startswith(".config.")}
        assert entries <= {"config", "rootfs", "overlay", "snaps", "lxc_rdepends", "notes"}
    assert seen == {(False, "old"), (True, "new"), (False, "new")}
    base.destroy(snapshots=True)
    left = [Container(entry, base.lxcpath) for entry in os.listdir(base.lxcpath)]
    assert [container.name for container in left] == ([name] if kind == "dir" else [])


def test_a_restore_at_work_is_left_alone(tiny: Tiny) -> None:
    one = tiny("lxc.hook.destroy = sh -c 'touch {directory}/begun; while [ ! -e {directory}/go ]; do :; done'\n")
    one.snapshot()
    script = "import sys; from lxcpy.container import Container as C; C(*sys.argv[1:]).restore('snap0')"
    import sys

    command = [sys.executable, "-c", script, one.name, one.lxcpath]
    with subprocess.Popen(command, cwd=Path(__file__).parents[2]) as process:
        while not os.path.exists(f"{one.directory}/begun"):
            assert process.poll() is None
        for refused in (one.destroy, one.snapshot, lambda: one.restore("snap0"), lambda: one.rename("other")):
            with pytest.raises(StateError, match="in use by another command"):
                refused()
        Path(one.directory, "go").touch()
    assert process.returncode == 0
    assert sorted(os.listdir(one.directory)) == ["begun", "config", "go", "rootfs", "snaps"]


def test_a_mark_that_cannot_be_understood(tiny: Tiny) -> None:
    one = tiny()
    mark = Path(one.directory, ".lxcpy-pending")
    for content in ("", '{"do": "dance"}'):
        mark.write_text(content)
        for refused in (one.start, one.destroy, one.snapshot):
            with pytest.raises(LxcpyError, match=r"pending"):
                refused()
    mark.unlink()
    one.destroy()
