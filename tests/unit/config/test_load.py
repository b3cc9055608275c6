"""Loading: the talk's own config, includes, and every problem at once with its line."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from corpus_files import FOLDER, NAMES, lay_out

from lxcpy import paths
from lxcpy.config import lines
from lxcpy.config.load import fill_hwaddr, load, load_flat, load_text
from lxcpy.config.model import Config, IdMap, Limit, Nic
from lxcpy.config.text import MAX_FILE, MAX_LINE
from lxcpy.errors import ConfigError, ConfigErrors


def one(text: str) -> Config:
    return load_text(text, "config")


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigErrors) as caught:
        one(text)
    return [line for problem in caught.value.problems for line in problem.lines()]


def test_the_config_of_the_talk() -> None:
    config = load(str(FOLDER / "1.0-ubuntu-talk.conf"))
    assert config.uts.name == "linux-days"
    assert config.arch == "amd64"
    assert config.rootfs.path == "/var/lib/lxc/linux-days/rootfs"
    assert config.mount.fstab == "/var/lib/lxc/linux-days/fstab"
    assert config.net == (Nic(0, type="veth", flags="up", link="lxcbr0", hwaddr="00:16:3e:6d:0a:5f",
                              ipv4_address=("10.0.3.12/24",)),)  # fmt: skip
    assert [(entry.dialect, entry.key, entry.value) for entry in config.cgroup.entries[-2:]] == [
        (1, "memory.limit_in_bytes", "2048M"), (1, "cpuset.cpus", "0-1")]  # fmt: skip
    # of the include
    assert config.tty.max == 4 and config.pty.max == 1024
    assert "sys_module" in config.cap.drop and "proc:mixed" in config.mount.auto
    assert str(config.at("lxc.net.0.link")) == f"{FOLDER}/1.0-ubuntu-talk.conf:17"
    assert "included from" in str(config.at("lxc.tty.max"))


@pytest.mark.parametrize("name", NAMES)
def test_the_corpus_loads(tmp_path: Path, name: str) -> None:
    file = lay_out(tmp_path) / f"{name}.conf"
    config, flat = load_flat(str(file))
    assert load_text(flat, "flat") == config
    assert one("") != config or name in ("files-only-comments", "include")


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("lxc.network.type = veth\nlxc.network.link = a\nlxc.network.type = phys\nlxc.network.link = b",
         "lxc.net.0.type = veth\nlxc.net.0.link = a\nlxc.net.1.type = phys\nlxc.net.1.link = b"),
        ("lxc.net.3.type = veth\nlxc.network.type = phys\nlxc.net.3.flags = up\nlxc.network.link = b",
         "lxc.net.3.type = veth\nlxc.net.3.flags = up\nlxc.net.4.type = phys\nlxc.net.4.link = b"),
        ("lxc.network.type = veth\nlxc.network =\nlxc.network.type = empty", "lxc.net.0.type = empty"),
        ("lxc.network.1.type = veth\nlxc.network.1.ipv4 = 10.0.0.1/8",
         "lxc.net.1.type = veth\nlxc.net.1.ipv4.address = 10.0.0.1/8"),
        ("lxc.rootfs = /a\nlxc.rootfs.backend = overlayfs", "lxc.rootfs.path = overlayfs:/a"),
        ("lxc.rootfs.backend = lvm\nlxc.rootfs = /dev/vg/a", "lxc.rootfs.path = lvm:/dev/vg/a"),
        ("lxc.rootfs.backend = dir\nlxc.rootfs = btrfs:/a", "lxc.rootfs.path = btrfs:/a"),
        ("lxc.limit.nofile = 5", "lxc.prlimit.nofile = 5"),
        ("lxc.id_map = u 0 1 2", "lxc.idmap = u 0 1 2"),
        ("lxc.mount.auto = proc\nlxc.mount.auto = proc:rw sys", "lxc.mount.auto = sys:mixed proc:rw"),
        ("lxc.tty = 1\nlxc.tty.max = 2", "lxc.tty.max = 2"),
        ("lxc.mount.entry = a\nlxc.mount.entry =\nlxc.mount.entry = b", "lxc.mount.entry = b"),
        ("lxc.cgroup2.memory.max = 1\nlxc.cgroup2 =", ""),
        ("lxc.cgroup.a.b = 1\nlxc.cgroup2.a.b = 2\nlxc.cgroup.a.b =", "lxc.cgroup2.a.b = 2"),
        ("lxc.prlimit.nofile = 1\nlxc.prlimit.nproc = 1\nlxc.prlimit.nofile =", "lxc.prlimit.nproc = 1"),
        ("lxc.prlimit.nofile = 1\nlxc.prlimit =", ""),
        ("lxc.hook.start = a\nlxc.hook.stop = b\nlxc.hook =", ""),
        ("lxc.signal.halt = SIGUSR1\nlxc.signal.halt =", ""),
        ("lxc.net.0.type = veth\nlxc.net.0.veth.pair = x\nlxc.net.0.veth.pair =", "lxc.net.0.type = veth"),
        ("\ufefflxc.tty.max = 1", "lxc.tty.max = 1"),
        ("lxc.tty.max = 1\r\n", "lxc.tty.max = 1"),
    ],
)  # fmt: skip
def test_two_ways_to_say_one_thing(text: str, same: str) -> None:
    assert one(text) == one(same)


def test_values() -> None:
    config = one("lxc.idmap = u 0 100000 65536\nlxc.prlimit.nofile = 1:unlimited\nlxc.sysctl.a.b = c\n"
                 "lxc.proc.oom_score_adj = 5\nlxc.init.groups = 1,2\nlxc.signal.halt = SIGRTMIN+4\nlxc.autodev =\n"
                 "lxc.time.offset.boot = -3h\nlxc.time.offset.boot = 5ms\nlxc.cap.keep = none\nlxc.log.level = warn\n"
                 "lxc.keyring.session = 1\nlxc.console.size = 5KB\nlxc.namespace.clone = time mnt\n"
                 "lxc.namespace.share.net = box\nlxc.environment = A=b=c")  # fmt: skip
    assert config.idmap == (IdMap("u", 0, 100000, 65536),)
    assert config.prlimit == (Limit("nofile", 1, -1),)
    assert config.sysctl == (("a.b", "c"),) and config.proc == (("oom_score_adj", "5"),)
    assert config.init.groups == (1, 2) and config.signal.halt == 38 and not config.autodev.enabled
    assert config.time.boot == (-10800, 5_000_000) and config.cap.keep == () and config.cap.drop == ()
    assert config.log.level == 4 and not config.keyring_session and config.console.size == 8192
    assert config.namespace.clone == ("mnt", "time") and config.namespace.share == {"net": "box"}
    assert config.environment.always == ("A=b=c",)


def test_everything_wrong_is_told_at_once() -> None:
    assert problems("""# a comment
lxc.rootfs.pth = /x
lxc.net.0.type = vethx
lxc.net.0.veth.pair = fine
lxc.tty.max = many
nonsense that says nothing
lxc.foo
lxc.cap.drop = sys_admin
lxc.cap.keep = sys_admin
lxc.network.flags = up
lxc.prlimit.nofil = 5
lxc.hook = x
lxc.net.1.macvlan.mode = bridge
lxc.include = /nowhere/at/all
""") == [
        'unknown key "lxc.rootfs.pth"', "  at config:2", "  hint: the nearest key is lxc.rootfs.path",
        'lxc.net.0.type: "vethx" is unknown', "  at config:3",
        "  hint: one of empty, veth, vlan, macvlan, ipvlan, phys, none",
        'lxc.tty.max: "many" is not a number', "  at config:5", "  hint: a number from 0 to 4294967295",
        '"lxc.foo" has no "="', "  at config:7", "  hint: write KEY = VALUE",
        "lxc.cap.keep: cannot be used together with lxc.cap.drop", "  at config:9",
        "lxc.network.flags: stands before the first lxc.network.type, which begins an interface", "  at config:10",
        'lxc.prlimit.nofil: "nofil" is unknown', "  at config:11", "  hint: SOFT[:HARD], numbers or unlimited",
        "lxc.hook: takes no value; empty, it clears what is below", "  at config:12", "  hint: nothing",
        "lxc.net.1.macvlan.mode: needs lxc.net.1.type = macvlan before it", "  at config:13",
        'lxc.include: cannot read "/nowhere/at/all": No such file or directory', "  at config:14",
        "  hint: is the name mistyped?",
    ]  # fmt: skip


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r'cannot read the config ".*/none": No such file or directory'):
        load(str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="Is a directory"):
        load(str(tmp_path))
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ConfigError, match="Invalid argument"):
        load(str(tmp_path / "fifo"))
    assert load("/dev/null") == Config()


def test_defines_come_last(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_text("lxc.uts.name = a\nlxc.net.0.type = veth\n")
    config = load(str(file), defines=["lxc.uts.name=b", "lxc.net.0.link = br0"])
    assert config.uts.name == "b" and config.net[0].link == "br0"
    assert str(config.at("lxc.uts.name")) == "-s lxc.uts.name=b:1"
    with pytest.raises(ConfigErrors, match='"uts=x" does not begin with'):
        load(str(file), defines=["uts=x"])


def test_removed_keys_are_warnings() -> None:
    config = one("lxc.kmsg = 0\nlxc.pivotdir = x\nlxc.tty = 1")
    assert [(str(at), what.partition(":")[0]) for at, what in config.warnings] == [
        ("config:1", "lxc.kmsg is left out"), ("config:2", "lxc.pivotdir is left out")]  # fmt: skip
    assert config == one("lxc.tty.max = 1")


# -- includes --------------------------------------------------------------------------------------------------------


def write(folder: Path, **files: str) -> str:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return str(folder / next(iter(files)))


def test_order_and_origin_of_includes(tmp_path: Path) -> None:
    top = write(tmp_path, top="lxc.tty.max = 1\nlxc.include = mid\nlxc.pty.max = 3\n", mid="\nlxc.include = low\n",
                low="lxc.tty.max = 2\nlxc.pty.max = 2\nlxc.uts.name = x\n")  # fmt: skip
    config = load(top)
    assert (config.tty.max, config.pty.max) == (2, 3)
    assert str(config.at("lxc.uts.name")) == (
        f"{tmp_path}/low:3, included from {tmp_path}/mid:2, included from {tmp_path}/top:2")  # fmt: skip


def test_a_folder_is_read_by_name(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    for name, number in (("20.conf", 2), ("10.conf", 1), (".conf", 9), ("x.txt", 9), ("30.confx", 9)):
        (tmp_path / "d" / name).write_text(f"lxc.tty.max = {number}\n")
    for spelled in ("d", "d/", str(tmp_path / "d")):
        assert load(write(tmp_path, top=f"lxc.include = {spelled}\n")).tty.max == 2
    assert load(write(tmp_path, top="lxc.include = gone/\nlxc.tty.max = 5")).tty.max == 5


def test_loops_end(tmp_path: Path) -> None:
    top = write(tmp_path, top="lxc.include = other\n", other="lxc.tty.max = 1\nlxc.include = ./top\n")
    with pytest.raises(ConfigErrors, match=r'"/.*/./top" includes itself') as caught:
        load(top)
    assert str(caught.value.at) == f"{tmp_path}/other:2, included from {tmp_path}/top:1"
    os.symlink("self", tmp_path / "self2")
    with pytest.raises(ConfigErrors, match="includes itself"):
        load(write(tmp_path, self="lxc.include = self2"))


def test_a_storm_of_includes_ends(tmp_path: Path) -> None:
    for level in range(30):
        (tmp_path / f"l{level}").write_text(f"lxc.include = l{level + 1}\n" * 2)
    (tmp_path / "l30").write_text("lxc.tty.max = 1\n")
    begun = time.monotonic()
    with pytest.raises(ConfigErrors, match=f"more than {lines.MAX_FILES} files are included"):
        load(str(tmp_path / "l0"))
    assert time.monotonic() - begun < 2


def test_deep_includes_end(tmp_path: Path) -> None:
    for level in range(60):
        (tmp_path / f"l{level}").write_text(f"lxc.include = l{level + 1}\n")
    with pytest.raises(ConfigErrors, match="nested more than 32 deep"):
        load(str(tmp_path / "l0"))


def test_a_changed_include_is_read_again(tmp_path: Path) -> None:
    top = write(tmp_path, top="lxc.include = low\n", low="lxc.tty.max = 1\n")
    assert load(top).tty.max == 1
    (tmp_path / "low").write_text("lxc.tty.max = 22\n")
    assert load(top).tty.max == 22


def test_presets_of_an_lxc_that_is_not_installed() -> None:
    # nothing is below /usr/local/share/lxc here
    config = one("lxc.include = /usr/local/share/lxc/config/ubuntu.common.conf")
    assert config.tty.dir == "lxc" and "proc:mixed" in config.mount.auto
    assert config.at("lxc.cap.drop") is not None
    assert os.path.join(paths.data_dir("config"), "common.conf") in str(config.at("lxc.cap.drop"))
    assert one("lxc.include = /usr/local/share/lxc/config/common.conf.d/") == Config()
    assert "hint: lxcpy's presets are in" in problems("lxc.include = /usr/local/share/lxc/config/nope.conf")[2]


def test_emptied_devices_of_presets_are_forgotten_in_both_dialects() -> None:
    for prefix in ("lxc.cgroup", "lxc.cgroup2"):
        config = one("lxc.include = /usr/local/share/lxc/config/debian.common.conf\n"
                     f"lxc.cgroup.devices.allow = c 1:2 r\n{prefix}.devices.deny =\n{prefix}.devices.allow =")
        assert not any(entry.value == "a" for entry in config.cgroup.entries)
        assert len(config.cgroup.entries) == (0 if prefix == "lxc.cgroup" else 1)


# -- odd files -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("lxc.tty.max = 1\n\0\n", "a NUL character"),
        ("x" * (MAX_LINE + 1), f"a line of {MAX_LINE + 1} characters"),
        ("# ok\n" * (MAX_FILE // 5 + 1), "characters are too many"),
    ],
)
def test_what_no_config_contains(text: str, what: str) -> None:
    assert what in problems(text)[0]


def test_many_problems_are_cut_short() -> None:
    told = problems("lxc.no.such.key = 1\n" * 100_000)
    assert len([line for line in told if line.startswith("unknown")]) == lines.MAX_PROBLEMS
    assert told[-1].endswith("99900 more problems are not shown")


def best(times: int, work: object) -> float:
    assert callable(work)
    found = 1e9
    for _ in range(times):
        begun = time.perf_counter()
        work()
        found = min(found, time.perf_counter() - begun)
    return found


def test_a_thousand_lines_take_ten_milliseconds(tmp_path: Path) -> None:
    file = tmp_path / "big"
    kinds = ("lxc.mount.entry = /a{0} b{0} none bind 0 0", "lxc.cgroup2.memory.max = {0}M", "lxc.environment = V{0}=x",
             "lxc.net.{0}.type = veth", "lxc.net.{0}.link = br0", "# {0}", "lxc.hook.start = /bin/x {0}")  # fmt: skip
    numbers = [number - number % 7 + 3 if number % 7 == 4 else number for number in range(1000)]
    file.write_text("".join(kinds[at % 7].format(number) + "\n" for at, number in enumerate(numbers)))

    def cold() -> None:
        lines._CACHE.clear()
        load(str(file))

    assert best(20, cold) < 0.010


def test_an_ordinary_config_takes_little_when_warm() -> None:
    file = str(FOLDER / "5.0-debian-bookworm.conf")
    assert best(50, lambda: load(file)) < 0.0015


def test_time_is_linear() -> None:
    text = "lxc.mount.entry = a b none bind 0 0\nlxc.net.0.type = veth\n"
    short, long = best(3, lambda: one(text * 1000)), best(3, lambda: one(text * 10000))
    assert long < short * 30


def test_hwaddr_digits() -> None:
    for _ in range(50):
        filled = fill_hwaddr("xx:16:3e:xX:aa:0x")
        assert int(filled[:2], 16) % 2 == 0 and filled[2:9] == ":16:3e:" and filled[11:15] == ":aa:"
        assert "x" not in filled.lower()
    assert fill_hwaddr("10:66:6a:00:00:01") == "10:66:6a:00:00:01"
