"""Making and removing groups in plain directories that stand for hierarchies."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from lxcpy.cgroups import control, stats, tree
from lxcpy.cgroups.layout import Hierarchy, Layout
from lxcpy.cgroups.plan import CgroupPlan, HostFacts, plan
from lxcpy.config.model import Cgroup, CgroupDirs, CgroupEntry
from lxcpy.errors import CgroupError, Origin


def planned(tmp_path: Path, *controllers: str, cgroup: Cgroup = Cgroup(), kind: str = "v1") -> CgroupPlan:  # noqa: B008
    """A plan for a v1 hierarchy for each controller, or for one unified hierarchy of all."""
    if kind == "v2":
        hierarchies = (Hierarchy("unified", str(tmp_path), 2, controllers),)
    else:
        hierarchies = tuple(Hierarchy(name, str(tmp_path / name), 1, (name,)) for name in controllers)
        for hierarchy in hierarchies:
            os.makedirs(hierarchy.mount, exist_ok=True)
    return plan(cgroup, name="web", layout=Layout(kind, hierarchies), host=HostFacts())


def dirs(place: Path) -> set[str]:
    return {str(Path(folder, name).relative_to(place)) for folder, names, _ in os.walk(place) for name in names}


def test_made_and_removed(tmp_path: Path) -> None:
    made = planned(tmp_path, "pids", "freezer")
    record = tree.create(made)
    assert record == {**made.record(), "parents": {}}
    assert dirs(tmp_path) == {"pids", "freezer", "pids/lxc.payload.web", "freezer/lxc.payload.web"}
    assert tree.remove(record) == []
    assert tree.remove(record) == []
    assert dirs(tmp_path) == {"pids", "freezer"}


def test_a_name_taken_meanwhile_moves_all_hierarchies(tmp_path: Path) -> None:
    made = planned(tmp_path, "pids", "freezer")
    os.mkdir(tmp_path / "freezer/lxc.payload.web")
    record = tree.create(made)
    assert set(record["payload"].values()) == {"/lxc.payload.web-1"}
    assert dirs(tmp_path / "pids") == {"lxc.payload.web-1"}
    tree.remove(record)
    assert dirs(tmp_path) == {"pids", "freezer", "freezer/lxc.payload.web"}


def test_parents_that_were_made_go_too_and_others_stay(tmp_path: Path) -> None:
    os.makedirs(tmp_path / "pids/a")
    record = tree.create(planned(tmp_path, "pids", cgroup=Cgroup(dirs=CgroupDirs(dir="a/b/c"))))
    assert record["parents"] == {str(tmp_path / "pids"): ["/a/b", "/a/b/c"]}
    tree.remove(record)
    assert dirs(tmp_path / "pids") == {"a"}


def test_inner_and_monitor(tmp_path: Path) -> None:
    cgroup = Cgroup(dirs=CgroupDirs(container="c", container_inner="i", monitor="m"))
    record = tree.create(planned(tmp_path, "pids", cgroup=cgroup))
    assert dirs(tmp_path / "pids") == {"c", "c/i", "m"}
    with pytest.raises(CgroupError, match='the cgroup "c" exists already'):
        tree.create(planned(tmp_path, "pids", cgroup=cgroup))
    assert dirs(tmp_path / "pids") == {"c", "c/i", "m"}
    assert tree.remove(record) == []
    assert dirs(tmp_path / "pids") == set()


def test_a_monitor_group_that_was_there_stays(tmp_path: Path) -> None:
    os.makedirs(tmp_path / "pids/m")
    record = tree.create(planned(tmp_path, "pids", cgroup=Cgroup(dirs=CgroupDirs(container="c", monitor="m"))))
    tree.remove(record)
    assert dirs(tmp_path / "pids") == {"m"}


def test_a_failure_leaves_nothing(tmp_path: Path) -> None:
    made = planned(tmp_path, "pids", "freezer", "cpuset")  # the last has no files to fill from
    with pytest.raises(CgroupError, match="its CPUs and memory nodes: No such file or directory"):
        tree.create(made)
    assert dirs(tmp_path) == {"pids", "freezer", "cpuset"}


def test_controllers_are_handed_down(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu memory pids\n")
    (tmp_path / "cgroup.subtree_control").write_text("cpu\n")
    record = tree.create(planned(tmp_path, "cpu", "memory", "pids", "io", kind="v2"))
    assert (tmp_path / "cgroup.subtree_control").read_text() == "+memory +pids"
    tree.remove(record)


def test_limits_name_what_was_refused(tmp_path: Path) -> None:
    entry = CgroupEntry(1, "memory.limit_in_byte", "1G", Origin("web/config", 9))
    made = planned(tmp_path, "memory", cgroup=Cgroup(entries=(entry,)))
    record = tree.create(made)
    (tmp_path / "memory/lxc.payload.web/memory.limit_in_bytes").write_text("")
    with pytest.raises(CgroupError) as caught:
        tree.limit(made, record)
    group = f"{tmp_path}/memory/lxc.payload.web"
    assert caught.value.lines() == [
        f'lxc.cgroup.memory.limit_in_byte: cannot write "1G" to {group}/memory.limit_in_byte: '
        "No such file or directory",
        "  at web/config:9",
        "  hint: did you mean memory.limit_in_bytes?",
    ]


def test_a_value_goes_to_the_files_there_are(tmp_path: Path) -> None:
    (tmp_path / "cgroup.subtree_control").write_text("io\n")
    made = planned(tmp_path, "io", cgroup=Cgroup(entries=(CgroupEntry(1, "blkio.weight", "250"),)), kind="v2")
    record = tree.create(made)
    group = tmp_path / "lxc.payload.web"
    (group / "io.bfq.weight").write_text("")
    tree.limit(made, record)
    assert (group / "io.bfq.weight").read_text() == "default 50"
    (group / "io.weight").write_text("")
    tree.limit(made, record)
    assert (group / "io.weight").read_text() == "default 50"
    for file in group.iterdir():
        file.unlink()
    with pytest.raises(CgroupError) as caught:
        tree.limit(made, record)
    assert caught.value.hint == "this kernel has neither iocost nor the BFQ scheduler: weights have no effect here"


def nest(place: Path, depth: int, name: str = "x" * 200) -> None:
    """Directories deeper than a path may be long."""
    before = os.open(".", os.O_RDONLY)
    try:
        os.chdir(place)
        for _ in range(depth):
            os.mkdir(name)
            os.chdir(name)
    finally:
        os.fchdir(before)
        os.close(before)


def test_hostile_groups_inside_are_removed(tmp_path: Path) -> None:
    record = tree.create(planned(tmp_path, "pids"))
    group = tmp_path / "pids/lxc.payload.web"
    for name in (b"\xff\xfe", b"new\nline", b"-rf", b"..."):
        os.makedirs(os.path.join(os.fsencode(group), name, b"deeper"))
    for number in range(300):
        os.mkdir(group / str(number))
    nest(group, 1500)
    assert tree.remove(record) == []
    assert dirs(tmp_path) == {"pids"}


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    record = tree.create(planned(tmp_path, "pids"))
    (tmp_path / "precious").mkdir()
    link = tmp_path / "pids/lxc.payload.web/link"
    link.symlink_to(tmp_path / "precious")
    assert tree.remove(record, timeout=0.0) == [str(tmp_path / "pids/lxc.payload.web")]
    link.unlink()
    tree.remove(record)
    assert (tmp_path / "precious").is_dir()


def test_what_cannot_go_is_returned_in_time(tmp_path: Path) -> None:
    record = tree.create(planned(tmp_path, "pids"))
    (tmp_path / "pids/lxc.payload.web/busy").write_text("")
    assert tree.remove(record, timeout=0.05) == [str(tmp_path / "pids/lxc.payload.web")]


def fake_v2(tmp_path: Path, **files: str) -> dict[str, Any]:
    """The record of a container on v2 whose group is a directory with these files (`__` stands for a dot)."""
    for name, text in files.items():
        (tmp_path / name.replace("__", ".")).write_text(text)
    mount = str(tmp_path.parent)
    path = f"/{tmp_path.name}"
    return {
        "hierarchies": {mount: [2, "cpu", "memory", "io", "pids"]}, "payload": {mount: path}, "limit": {mount: path},
    }  # fmt: skip


def test_a_process_of_another_namespace_is_nobodys_to_kill(tmp_path: Path) -> None:
    """Such as one of the host's lxc-attach in the container that this runs in."""
    assert control.processes(fake_v2(tmp_path, cgroup__procs="0\n1\n")) == [1]


def test_statistics_of_v2(tmp_path: Path) -> None:
    record = fake_v2(
        tmp_path, cpu__stat="usage_usec 1500\nuser_usec 1000\nsystem_usec 500\n",
        memory__stat="anon 100\nfile 20\nkernel_stack 1\npagetables 2\nsock 3\nslab 4\nslab_reclaimable 3\n",
        memory__max="4096\n", memory__swap__current="7\n", pids__current="3\n",
        io__stat="8:0 rbytes=10 wbytes=20 rios=1 wios=2 dbytes=9 dios=9\n8:16 rbytes=1 wbytes=2 rios=3 wios=4\n\n",
    )  # fmt: skip
    assert stats.read(record) == stats.Stats(
        cpu=1_500_000, cpu_user=1_000_000, cpu_system=500_000, blkio_read=11, blkio_write=22, blkio_total=33,
        blkio_operations=10, memory=120, memory_limit=4096, swap=7, memsw=127, kmem=10, processes=3,
    )  # fmt: skip


def test_statistics_of_a_gone_container(tmp_path: Path) -> None:
    assert stats.read(fake_v2(tmp_path / "gone")) == stats.Stats()


def test_v1_names_on_v2(tmp_path: Path) -> None:
    record = fake_v2(
        tmp_path, memory__max="max\n", memory__swap__max="1048576\n", memory__current="100\n", memory__peak="200\n",
        memory__swap__current="5\n", memory__low="0\n", cpu__max="max 50000\n", cpu__weight="50\n",
        cpu__stat="usage_usec 15\nuser_usec 20000\nsystem_usec 30000\n", cgroup__freeze="1\n",
        io__max="8:0 rbps=1048576 wbps=max riops=max wiops=9\n8:16 rbps=5 wbps=max riops=max wiops=max\n",
        io__weight="default 200\n8:0 50\n", io__stat="8:0 rbytes=10 wbytes=20 rios=1 wios=2\n",
        memory__stat="kernel_stack 1\nslab 4\n", memory__events="low 0\nmax 8\n",
    )  # fmt: skip
    huge = "9223372036854771712\n"
    expected = {
        "memory.limit_in_bytes": huge, "memory.memsw.limit_in_bytes": huge, "memory.usage_in_bytes": "100\n",
        "memory.max_usage_in_bytes": "200\n", "memory.memsw.usage_in_bytes": "105\n", "memory.failcnt": "8\n",
        "memory.soft_limit_in_bytes": huge, "memory.kmem.usage_in_bytes": "5\n", "cpu.cfs_quota_us": "-1\n",
        "cpu.cfs_period_us": "50000\n", "cpu.shares": "512\n", "cpuacct.usage": "15000\n",
        "cpuacct.stat": "user 2\nsystem 3\n", "freezer.state": "FROZEN\n", "devices.list": "allow a\n",
        "blkio.throttle.read_bps_device": "8:0 1048576\n8:16 5\n", "blkio.throttle.write_iops_device": "8:0 9\n",
        "blkio.throttle.write_bps_device": "", "blkio.weight": "1000\n", "blkio.weight_device": "8:0 250\n",
        "blkio.bfq.weight": "200\n",
        "blkio.throttle.io_service_bytes": "8:0 Read 10\n8:0 Write 20\n8:0 Total 30\nTotal 30\n",
        "blkio.throttle.io_serviced": "8:0 Read 1\n8:0 Write 2\n8:0 Total 3\nTotal 3\n",
    }  # fmt: skip
    assert {item: control.read(record, item) for item in expected} == expected


def test_v1_names_written_on_v2(tmp_path: Path) -> None:
    record = fake_v2(tmp_path, memory__max="1048576\n", memory__swap__max="max\n", cpu__max="max 50000\n", io__max="")

    def after(item: str, value: str, file: str) -> str:
        control.write(record, item, value)
        return (tmp_path / file).read_text()

    assert after("cpu.cfs_quota_us", "20000", "cpu.max") == "20000 50000"
    assert after("cpu.cfs_period_us", "100000", "cpu.max") == "20000 100000"
    assert after("memory.memsw.limit_in_bytes", "3M", "memory.swap.max") == "2097152"
    assert after("blkio.throttle.read_bps_device", "8:0 1k", "io.max") == "8:0 rbps=1024"
    with pytest.raises(CgroupError) as caught:
        control.write(record, "memory.limit_in_bytes", "2GB")
    assert caught.value.lines() == ['memory.limit_in_bytes: "2GB" is no size', "  hint: write 2G"]


@pytest.mark.parametrize("item", ["../cgroup.procs", "", "/etc/passwd", "a/b", ".."])
def test_only_names_of_files(tmp_path: Path, item: str) -> None:
    for call in (lambda: control.read(fake_v2(tmp_path), item), lambda: control.write(fake_v2(tmp_path), item, "1")):
        with pytest.raises(CgroupError, match="is not the name of a cgroup file"):
            call()


def test_an_unknown_file(tmp_path: Path) -> None:
    with pytest.raises(CgroupError) as caught:
        control.read(fake_v2(tmp_path), "net_cls.classid")
    assert caught.value.lines() == [
        'the container has no cgroup file "net_cls.classid", and none that stands for it',
        "  hint: the controllers of its groups are cpu, io, memory, pids",
    ]
