"""What top, checkconfig, usernsexec, unshare and create decide and print, without anything running."""

from __future__ import annotations

from typing import Any

import pytest

from lxcpy.cli.options import parse
from lxcpy.commands import checkconfig, create, top, unshare, usernsexec
from lxcpy.commands.checkconfig import Host
from lxcpy.commands.top import Row
from lxcpy.errors import UsageError
from lxcpy.kernel.idmap import IdRange
from lxcpy.runtime.doctor import kernel

ROWS = [
    Row("web", 2_500_000_000, 1_000_000_000, 1_500_000_000, 4096, 1024, 3072, 7, 3 << 20, 4 << 20, 1 << 19),
    Row("a-very-long-container-name", 10_000_000, 0, 0, 5, 5, 0, 1, 100, 0, 0),
]


def test_top_s_table() -> None:
    lines = [line.removeprefix("\033[1m\033[7m").removesuffix("\033[0m") for line in top.display(ROWS, lines=25)]
    assert lines == [
        "Container                   CPU          CPU          CPU                                BlkIO        Mem"
        "      MemSw       KMem",
        "Name                       Used          Sys         User                    Total(Read/Write)       Used"
        "       Used       Used",
        "web                        2.50         1.00         1.50        4.00 KiB(1024.00   /3.00 KiB)   3.00 MiB"
        "   4.00 MiB 512.00 KiB",
        "a-very-long-contai         0.01         0.00         0.00         5.00   (  5.00   /  0.00   )  100.00   "
        "    0.00       0.00   ",
        "TOTAL 2 of 2               2.51         1.00         1.50          4.00 KiB(1.00 KiB/3.00 KiB)   3.00 MiB"
        "   4.00 MiB 512.00 KiB",
    ]


def test_top_cuts_what_is_wide_and_shows_no_control_characters() -> None:
    lines = top.display([Row("a\033[2J\nb")], columns=30, lines=25)
    assert [len(line.removeprefix("\033[1m\033[7m").removesuffix("\033[0m")) for line in lines] == [30] * 4
    assert lines[2].startswith("a?[2J?b ")
    assert top.batch([Row("a\nb\033")], 1.0)[0].startswith("1000,a?b?,")


def test_top_has_no_column_for_what_nobody_uses_and_no_more_rows_than_fit() -> None:
    rows = [Row(f"c{number}", memory=1) for number in range(9)]
    lines = top.display(rows, lines=6)
    assert len(lines) == 6
    assert "MemSw" not in lines[0]
    assert lines[-1].startswith("TOTAL 3 of 9")


@pytest.mark.parametrize(
    ("letter", "reverse", "first"),
    [("n", False, "a-very-long-container-name"), ("n", True, "web"), ("c", False, "web"), ("m", True, ROWS[1].name)],
)
def test_top_sorts(letter: str, reverse: bool, first: str) -> None:
    assert top.ordered(ROWS, letter, reverse=reverse)[0].name == first


def test_top_for_a_file() -> None:
    assert top.batch(ROWS[:1], 12.5) == ["12500,web,2500000000,100,150,4096,7,3145728,4194304,524288"]


HOST = Host(True, (), ("/sys/fs/cgroup",), False, {"newuidmap": True, "newgidmap": True}, None)


def test_checkconfig_reads_a_kernel_s_configuration() -> None:
    found = checkconfig.enabled("CONFIG_UTS_NS=y\nCONFIG_VETH=m\n# CONFIG_BRIDGE is not set\nCONFIG_HZ=250\n")
    assert found == {"UTS_NS", "VETH"}


def test_checkconfig_tells_what_is_missing_and_what_is_required() -> None:
    lines = checkconfig.report(frozenset({"UTS_NS", "USER_NS", "VETH"}), HOST)
    assert "Namespaces: required" in lines
    assert "Utsname namespace: enabled" in lines
    assert "Network namespace: missing" in lines
    assert "Veth pair device: enabled" in lines
    assert not any("v1 freezer" in line for line in lines)


def test_checkconfig_on_an_older_host() -> None:
    host = HOST._replace(
        v1=("/sys/fs/cgroup/memory",), v2=(), clone_children=True, modules=frozenset({"veth"}),
        helpers={"newuidmap": False, "newgidmap": None},
    )  # fmt: skip
    lines = checkconfig.report(frozenset({"USER_NS", "VETH", "BRIDGE"}), host)
    for line in (
        "Warning: newuidmap is not setuid-root",
        "newgidmap is not installed",
        " - /sys/fs/cgroup/memory",
        "Cgroup v1 freezer controller: missing",
        "Cgroup v1 clone_children flag: enabled",
        "Veth pair device: enabled, loaded",
        "Bridges: enabled, not loaded",
        "Macvlan: missing",
    ):
        assert line in lines


def test_checkconfig_in_colour() -> None:
    assert "Macvlan: \033[1;33mmissing\033[0;39m" in checkconfig.report(frozenset(), HOST, colour=True)


def test_checkconfig_knows_a_cure_for_each_of_its_rows() -> None:
    rows = (*checkconfig.NAMESPACES, *checkconfig.CGROUPS, *checkconfig.MISC, *checkconfig.CHECKPOINT)
    assert {row.option for row in rows} | {"CGROUPS"} == set(kernel.OPTIONS)


def test_checkconfig_s_cures() -> None:
    def cures(found: Any) -> list[str]:
        return [advice.cure for advice in found]

    assert cures(kernel.cgroups((), (), namespace=True)) == ["mount -t cgroup2 cgroup2 /sys/fs/cgroup"]
    assert cures(kernel.cgroups(("/sys/fs/cgroup/systemd",), (), namespace=True)) == [
        "mkdir -p /sys/fs/cgroup/freezer && mount -t cgroup -o freezer cgroup /sys/fs/cgroup/freezer"
    ]
    assert cures(kernel.cgroups((), ("/sys/fs/cgroup",), namespace=True)) == []
    assert cures(kernel.helpers({"newuidmap": None, "newgidmap": ("/bin/g", False)})) == [
        "apt install uidmap", "chown root /bin/g && chmod u+s /bin/g",
    ]  # fmt: skip
    [lost] = kernel.modules({"VETH", "MACVLAN"}, {"VETH": "veth", "MACVLAN": "macvlan"}, {"veth"}, "6.1", set())
    assert "modprobe macvlan" in lost.cure
    [limit] = kernel.sysctls({"user.max_user_namespaces": "0", "user.max_net_namespaces": "5"})
    assert limit.cure.startswith("sysctl -w user.max_user_namespaces=")


def test_maps_of_usernsexec() -> None:
    maps = [usernsexec.mapping(text) for text in ("u:0:1000:1", "b:1:100000:10")]
    assert usernsexec.ranges(maps, "u") == [IdRange(0, 1000, 1), IdRange(1, 100000, 10)]
    assert usernsexec.ranges(maps, "g") == [IdRange(1, 100000, 10)]
    assert usernsexec.with_self([IdRange(0, 1000, 1), IdRange(1, 100000, 10)], 7)[-1] == IdRange(11, 7, 1)
    assert usernsexec.with_self([IdRange(5, 1000, 1)], 7)[-1] == IdRange(0, 7, 1)


@pytest.mark.parametrize("text", ["", "u", "x:0:1:1", "u:0:1", "u:a:1:1", "u:0:-1:1", "u:0:1:1:1"])
def test_maps_that_are_none(text: str) -> None:
    with pytest.raises(ValueError):
        usernsexec.mapping(text)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["-s", "MOUNT"], "A command to execute in the new namespace is required"),
        (["--", "true"], "A namespace to execute command is required"),
        (["-s", "MOUNT", "-i", "eth9", "--", "true"], "-i <interfacename> needs -s NETWORK option"),
        (["-s", "MOUNT", "-H", "name", "--", "true"], "-H <hostname> needs -s UTSNAME option"),
        (["-s", "IPC", "-M", "--", "true"], "-M needs -s MOUNT option"),
    ],
)
def test_unshare_refuses(words: list[str], reason: str) -> None:
    args: Any = parse(unshare.COMMAND, "lxcpy-unshare", words)
    with pytest.raises(UsageError, match=reason):
        unshare.check(args)


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1 << 20), ("2g", 2 << 30), ("3K", 3 << 10), ("4b", 4), ("1T", 1 << 40)]
)
def test_sizes_of_block_devices(text: str, size: int) -> None:
    assert create.size(text) == size


@pytest.mark.parametrize("text", ["", "g", "1gg", "1.5g", "-1", "1x"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(ValueError):
        create.size(text)
