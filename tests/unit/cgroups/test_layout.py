"""Finding the hierarchies in the text of mountinfo."""

from __future__ import annotations

from pathlib import Path

import pytest

from lxcpy.cgroups import layout
from lxcpy.errors import CgroupError

ROOT = "23 1 254:0 / / rw,relatime - ext4 /dev/root rw\n"
TMPFS = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n"


def v1(number: int, controllers: str, *, place: str | None = None, root: str = "/") -> str:
    mount = place or f"/sys/fs/cgroup/{controllers.removeprefix('name=')}"
    return f"{number} 31 0:{number} {root} {mount} rw,relatime shared:9 - cgroup cgroup rw,{controllers}\n"


def v2(place: str, number: int = 60) -> str:
    return f"{number} 31 0:{number} / {place} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


def host(tmp_path: Path, mountinfo: str, controllers: str | None = None, at: str = "sys/fs/cgroup") -> layout.Layout:
    if controllers is not None:
        place = tmp_path / at
        place.mkdir(parents=True, exist_ok=True)
        (place / "cgroup.controllers").write_text(controllers)
    return layout.detect(mountinfo, str(tmp_path))


def test_pure_v2(tmp_path: Path) -> None:
    found = host(tmp_path, ROOT + v2("/sys/fs/cgroup"), "cpuset cpu io memory pids\n")
    assert found.kind == "v2"
    assert found.hierarchies == (
        layout.Hierarchy("unified", f"{tmp_path}/sys/fs/cgroup", 2, ("cpuset", "cpu", "io", "memory", "pids")),
    )
    assert found.unified == found.v2("memory") == found.hierarchies[0]
    assert found.v1("memory") is found.v2("devices") is None


def test_v1_with_co_mounted_controllers_and_options(tmp_path: Path) -> None:
    text = ROOT + TMPFS + v1(40, "cpu,cpuacct") + v1(41, "xattr,release_agent=/lib/systemd/agent,name=systemd",
                                                     place="/sys/fs/cgroup/systemd")  # fmt: skip
    found = host(tmp_path, text + v1(42, "net_cls,net_prio"))
    assert found.kind == "v1" and found.unified is None
    assert [(h.name, h.controllers) for h in found.hierarchies] == [
        ("cpu,cpuacct", ("cpu", "cpuacct")), ("name=systemd", ("name=systemd",)),
        ("net_cls,net_prio", ("net_cls", "net_prio")),
    ]  # fmt: skip
    assert found.v1("cpuacct") == found.v1("cpu") == found.hierarchies[0]
    assert found.v1("systemd") == found.v1("name=systemd") == found.hierarchies[1]


def test_hybrid_puts_the_unified_hierarchy_last(tmp_path: Path) -> None:
    text = ROOT + TMPFS + v2("/sys/fs/cgroup/unified", 39) + v1(40, "memory")
    found = host(tmp_path, text, "hugetlb\n", "sys/fs/cgroup/unified")
    assert found.kind == "hybrid"
    assert [h.name for h in found.hierarchies] == ["memory", "unified"]
    assert found.v2("hugetlb") and not found.v2("memory")


def test_a_second_mount_elsewhere_does_not_count(tmp_path: Path) -> None:
    text = ROOT + v1(39, "memory", place="/var/lib/lxc/a/rootfs/sys/fs/cgroup/memory") + TMPFS + v1(40, "memory")
    assert host(tmp_path, text).hierarchies[0].mount == f"{tmp_path}/sys/fs/cgroup/memory"


def test_an_unusual_place_serves_where_there_is_no_other(tmp_path: Path) -> None:
    assert host(tmp_path, v1(40, "memory", place="/cgroup/my\\040memory")).hierarchies[0].mount == (
        f"{tmp_path}/cgroup/my memory"
    )


def test_a_hidden_mount_does_not_count(tmp_path: Path) -> None:
    hidden = v2("/sys/fs/cgroup", 40)
    with pytest.raises(CgroupError):
        host(tmp_path, hidden + TMPFS)
    assert host(tmp_path, hidden + TMPFS + v1(41, "cpu")).kind == "v1"


def test_a_mount_of_a_part_keeps_its_root(tmp_path: Path) -> None:
    assert host(tmp_path, v1(40, "pids", root="/lxc.payload.a")).hierarchies[0].root == "/lxc.payload.a"


def test_nothing_mounted_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(CgroupError) as caught:
        host(tmp_path, ROOT)
    assert caught.value.lines() == [
        "no cgroup hierarchy is mounted on this host",
        "  hint: mount one: mount -t cgroup2 cgroup2 /sys/fs/cgroup",
    ]


def test_garbage_is_skipped(tmp_path: Path) -> None:
    text = "\n-\n - cgroup\n1 2 3 4 5 6 - cgroup\nshort - cgroup a b\n" + v1(40, "cpu")
    assert [h.name for h in host(tmp_path, text).hierarchies] == ["cpu"]


def test_this_host_is_read_once() -> None:
    layout.forget()
    assert layout.detect() is layout.detect()
