"""Names, bases, suffixes and the keys that move them."""

from __future__ import annotations

import json

import pytest

from lxcpy.cgroups.layout import Hierarchy, Layout
from lxcpy.cgroups.plan import CgroupPlan, HostFacts, bases, plan
from lxcpy.config.model import Cgroup, CgroupDirs, CgroupEntry
from lxcpy.errors import CgroupError, Origin

from .layouts import HYBRID, V1, V2, unified, v1_hierarchy

SMALL = Layout("hybrid", (v1_hierarchy("memory"), v1_hierarchy("cpuset"), unified()))


def made(cgroup: Cgroup = Cgroup(), *, layout: Layout = SMALL, taken: tuple[str, ...] = (), base: str = "",  # noqa: B008
         **settings: object) -> CgroupPlan:  # fmt: skip
    facts = HostFacts({h.mount: base for h in layout.hierarchies}, taken.__contains__)
    return plan(cgroup, name="web", layout=layout, host=facts, **settings)  # type: ignore[arg-type]


def paths(result: CgroupPlan) -> set[str]:
    return {result.path(h.mount, "payload") for h in result.hierarchies}


def refused(cgroup: Cgroup, **settings: object) -> list[str]:
    with pytest.raises(CgroupError) as caught:
        made(cgroup, **settings)  # type: ignore[arg-type]
    return caught.value.lines()


def test_the_default_name() -> None:
    result = made()
    assert paths(result) == {"/lxc.payload.web"}
    assert result.record()["monitor"] == {}


def test_a_taken_name_moves_all_hierarchies_to_one_suffix() -> None:
    taken = ("/sys/fs/cgroup/memory/lxc.payload.web", "/sys/fs/cgroup/unified/lxc.payload.web-1")
    assert paths(made(taken=taken)) == {"/lxc.payload.web-2"}


def test_no_free_name() -> None:
    facts = HostFacts({}, lambda path: True)
    with pytest.raises(CgroupError) as caught:
        plan(Cgroup(), name="web", layout=SMALL, host=facts)
    assert caught.value.lines() == [
        'no free cgroup name for "lxc.payload.web": suffixes -1 to -999 are all taken',
        "  hint: remove the leftover groups with rmdir",
    ]


def test_dir_is_a_parent() -> None:
    assert paths(made(Cgroup(dirs=CgroupDirs(dir="/a//b/")))) == {"/a/b/lxc.payload.web"}


def test_pattern_of_the_system() -> None:
    assert paths(made(pattern="lxc/%n")) == {"/lxc/web/payload"}
    assert paths(made(Cgroup(dirs=CgroupDirs(dir="a")), pattern="lxc/%n")) == {"/a/lxc.payload.web"}


def test_exact_paths() -> None:
    dirs = CgroupDirs(container="c", monitor="m", container_inner="i")
    record = made(Cgroup(dirs=dirs), base="base").record()
    memory = "/sys/fs/cgroup/memory"
    assert (record["limit"][memory], record["payload"][memory], record["monitor"][memory]) == (  # type: ignore[index]
        "/base/c", "/base/c/i", "/base/m")  # fmt: skip


def test_an_exact_path_takes_no_suffix() -> None:
    result = made(Cgroup(dirs=CgroupDirs(container="c", monitor="m")), taken=("/sys/fs/cgroup/memory/c",))
    assert paths(result) == {"/c"}  # making it will tell
    with pytest.raises(CgroupError) as caught:
        result.next()
    assert caught.value.lines() == [
        'the cgroup "c" exists already',
        "  hint: lxc.cgroup.dir.container names an exact path: choose another or remove the group",
    ]


@pytest.mark.parametrize(
    "dirs, what",
    [
        (CgroupDirs(container="c"), "lxc.cgroup.dir.container is set without lxc.cgroup.dir.monitor"),
        (CgroupDirs(monitor="m"), "lxc.cgroup.dir.monitor is set without lxc.cgroup.dir.container"),
        (CgroupDirs(container_inner="i"),
         "lxc.cgroup.dir.container.inner is set without lxc.cgroup.dir.container and lxc.cgroup.dir.monitor"),
        (CgroupDirs(dir="d", container="c", monitor="m"),
         "lxc.cgroup.dir cannot stand beside lxc.cgroup.dir.container or lxc.cgroup.dir.monitor"),
        (CgroupDirs(dir="../up"), 'lxc.cgroup.dir: "../up" is no path below the base cgroup'),
        (CgroupDirs(container="c", monitor="/"), 'lxc.cgroup.dir.monitor: "/" is no path below the base cgroup'),
    ],
)  # fmt: skip
def test_contradicting_keys(dirs: CgroupDirs, what: str) -> None:
    assert refused(Cgroup(dirs=dirs))[0] == what


def test_use_picks_hierarchies() -> None:
    assert [h.name for h in made(use=("memory",)).hierarchies] == ["memory", "unified"]
    assert made(use=("@all",)).hierarchies == made(use=None).hierarchies == SMALL.hierarchies
    assert refused(Cgroup(), use=("net_cls",)) == [
        'lxc.cgroup.use: no hierarchy of this host has the controller "net_cls"', "  hint: it has cpuset, memory",
    ]  # fmt: skip


def test_v2_hands_all_controllers_down_and_hybrid_what_a_limit_needs() -> None:
    assert made(layout=V2).enable == V2.hierarchies[0].controllers
    layout = Layout("hybrid", (*V1.hierarchies[:3], unified("hugetlb", "misc", "io")))
    entries = (CgroupEntry(2, "hugetlb.2MB.max", "2M"),)
    assert made(layout=layout).enable == ("io",)
    assert made(Cgroup(entries=entries), layout=layout).enable == ("hugetlb", "io")


def test_the_first_problem_names_its_line() -> None:
    entry = CgroupEntry(1, "memory.limit_in_bytes", "256MB", Origin("web/config", 7, (("x", 1),)))
    assert refused(Cgroup(entries=(entry,))) == [
        'lxc.cgroup.memory.limit_in_bytes: "256MB" is no size', "  at web/config:7, included from x:1",
        "  hint: write 256M",
    ]  # fmt: skip


def test_describe_says_every_step() -> None:
    entries = (CgroupEntry(2, "memory.max", "1G"), CgroupEntry(2, "devices.deny", "a"))
    layout = Layout("v2", (unified("memory", mount="/sys/fs/cgroup"),))
    assert made(Cgroup(entries=entries), layout=layout, owner=(100000, 100000)).describe() == [
        "make cgroup /sys/fs/cgroup/lxc.payload.web",
        "enable memory in the groups above the payload",
        "write 1073741824 to /sys/fs/cgroup/memory.max (lxc.cgroup2.memory.max)",
        "delegate the payload group to group 100000",
        "attach a device program: deny a",
    ]


def test_the_record_is_plain_data() -> None:
    record = made(layout=HYBRID).record()
    assert json.loads(json.dumps(record)) == record


def test_bases_of_init_and_of_the_caller() -> None:
    text = "3:cpu,cpuacct:/user.slice\n2:name=systemd:/init.scope\n0::/init.scope\n"
    layout = Layout("hybrid", (v1_hierarchy("cpuacct", "cpu"), v1_hierarchy("name=systemd"), unified()))
    cpu, systemd, v2 = (h.mount for h in layout.hierarchies)
    assert bases(text, layout, own=False) == {cpu: "user.slice", systemd: "", v2: ""}
    assert bases(text, layout, own=True) == {cpu: "user.slice", systemd: "init.scope", v2: "init.scope"}


def test_a_base_is_relative_to_what_the_mount_shows() -> None:
    layout = Layout("v1", (Hierarchy("pids", "/p", 1, ("pids",), root="/lxc.payload.a"),))
    assert bases("4:pids:/lxc.payload.a/sub\n", layout, own=True) == {"/p": "sub"}


def test_what_an_ordinary_user_may_not_write_in_is_left_out() -> None:
    mounts = [hierarchy.mount for hierarchy in SMALL.hierarchies]
    host = HostFacts(dict.fromkeys(mounts, "ann"), lambda path: False, lambda path: "cpuset" in path)
    result = plan(Cgroup(), name="web", layout=SMALL, host=host)
    assert [hierarchy.name for hierarchy in result.hierarchies] == ["cpuset"]
    assert result.left_out == tuple(f"{mount}/ann" for mount in mounts if "cpuset" not in mount)
    limits = {"memory.limit_in_bytes": "1M", "cpuset.cpus": "none"}
    hints = {}
    for key, value in limits.items():
        with pytest.raises(CgroupError) as caught:
            plan(Cgroup(entries=(CgroupEntry(1, key, value, None),)), name="web", layout=SMALL, host=host)
        hints[key] = caught.value.hint or ""
    assert hints["memory.limit_in_bytes"].startswith(f"you may not make control groups in {mounts[0]}/ann, ")
    assert "you may not" not in hints["cpuset.cpus"]  # wrong for everybody
    with pytest.raises(CgroupError, match="you may not make control groups in any of"):
        plan(Cgroup(), name="web", layout=SMALL, host=host.__class__(host.bases, usable=lambda path: False))
