"""What stands around the load: lxc.conf, old names, checks, explanations, presets."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from corpus_files import FOLDER, NAMES, lay_out

from lxcpy import paths
from lxcpy.config import legacy, system
from lxcpy.config.check import check
from lxcpy.config.explain import as_text, explain
from lxcpy.config.load import load, load_text
from lxcpy.config.model import CgroupEntry
from lxcpy.config.presets import preset
from lxcpy.errors import ConfigError, ConfigErrors

PRESETS = sorted(name for name in os.listdir(paths.data_dir("config")) if name.endswith(".conf"))

# -- lxc.conf --------------------------------------------------------------------------------------------------------


def test_system_keys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "lxc.conf"
    monkeypatch.setattr(system, "system_file", lambda: str(file))
    assert system.system_value("lxc.cgroup.use") is None
    file.write_text("# lxc.lxcpath = /no\n  lxc.lxcpath\t= /srv/lxc/  \nlxc.lxcpath = /second\nlxc.unheard = 1\n"
                    "lxc.bdev.lvm.vg=data\nlxc.cgroup.use =\nlxc.cgroup.pattern = lxc/%n\r\nlxc.default_config\n")
    assert system.system_value("lxc.lxcpath") == "/srv/lxc"
    assert system.system_value("lxc.bdev.lvm.vg") == "data"
    assert system.system_value("lxc.bdev.lvm.thin_pool") == "lxc"
    assert system.system_value("lxc.cgroup.use") is None
    assert system.system_value("lxc.cgroup.pattern") == "lxc/%n"
    with pytest.raises(KeyError):
        system.system_value("lxc.unheard")
    assert system.parse("lxcpath = /old") == {"lxc.lxcpath": "/old"}


def test_an_ordinary_users_settings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert system.system_file() == f"{tmp_path}/.config/lxc/lxc.conf"
    assert system.system_value("lxc.lxcpath") == f"{tmp_path}/.local/share/lxc"
    assert system.system_value("lxc.default_config") == f"{tmp_path}/.config/lxc/default.conf"


def test_the_default_config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(system, "system_file", lambda: str(tmp_path / "lxc.conf"))
    monkeypatch.setattr(system.paths, "DEFAULT_CONFIG", "/nowhere/default.conf")
    (tmp_path / "lxc.conf").write_text("lxc.default_config = /nowhere/default.conf\n")
    ours = system.default_config()
    assert load(ours).net[0].link == "lxcbr0"
    (tmp_path / "lxc.conf").write_text("lxc.default_config = /nowhere/else.conf\n")
    assert system.default_config() == "/nowhere/else.conf"


# -- old names -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_rewritten_config_means_the_same(tmp_path: Path, name: str) -> None:
    file = lay_out(tmp_path) / f"{name}.conf"
    text = file.read_bytes().decode(errors="surrogateescape")
    old, new = load_text(text, str(file)), load_text(legacy.convert(text), str(file))
    assert legacy.convert(legacy.convert(text)) == legacy.convert(text)
    if "lxc.rootfs.path = dir:" in legacy.convert(text) and old.rootfs.path:
        assert new.rootfs.path in (old.rootfs.path, f"dir:{old.rootfs.path}")
    # numbers of interfaces may have gaps
    assert [nic.link for nic in old.net] == [nic.link for nic in new.net]
    assert old.cgroup == new.cgroup and old.prlimit == new.prlimit and old.uts == new.uts and old.idmap == new.idmap
    assert not any(found.old for found in _found(legacy.convert(text)))


def _found(text: str) -> list[object]:
    from lxcpy.config import schema
    from lxcpy.config.text import lines

    found = [schema.lookup(line.key) for line in lines(text) if line.key]
    return [it for it in found if it is not None]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("lxc.rootfs = /a", "lxc.rootfs.path = dir:/a"),
        ("lxc.rootfs   =   '/a b'", "lxc.rootfs.path   =   'dir:/a b'"),
        ("lxc.rootfs = zfs:pool/a", "lxc.rootfs.path = zfs:pool/a"),
        ("lxc.rootfs =", "lxc.rootfs.path ="),
        ("lxc.rootfs.mount = /m", "lxc.rootfs.mount = /m"),
        ("#lxc.utsname = a", "#lxc.uts.name = a"),
        (" \t# lxc.utsname=a", " \t# lxc.uts.name=a"),
        ("# see lxc.utsname for the name", "# see lxc.utsname for the name"),
        ("lxc.network.ipv4 = 10.0.0.1", "lxc.network.ipv4 = 10.0.0.1"),
        ("lxc.network.0.ipv6 = ::1", "lxc.net.0.ipv6.address = ::1"),
        ("lxc.network =", "lxc.net ="),
        ("lxc.limit.nofile = 1", "lxc.prlimit.nofile = 1"),
        ("lxc.kmsg = 0\nlxc.tty = 1", "lxc.tty.max = 1"),
        ("lxc.cgroup.memory.limit_in_bytes = 1", "lxc.cgroup.memory.limit_in_bytes = 1"),
        ("lxc.rootfs.backend = lvm\nlxc.rootfs = /dev/a", "lxc.rootfs.path = lvm:/dev/a"),
        ("lxc.foo = 1\nfoo", "lxc.foo = 1\nfoo"),
    ],
)
def test_rewriting(old: str, new: str) -> None:
    assert legacy.convert(old) == new


def test_updating_a_file_keeps_a_backup(tmp_path: Path) -> None:
    file = tmp_path / "config"
    file.write_bytes(b"lxc.utsname = a\n# caf\xe9\n")
    file.chmod(0o600)
    legacy.update(str(file))
    assert file.read_bytes() == b"lxc.uts.name = a\n# caf\xe9\n"
    assert (tmp_path / "config.backup").read_bytes() == b"lxc.utsname = a\n# caf\xe9\n"
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    with pytest.raises(ConfigError, match="cannot read the config"):
        legacy.update(str(tmp_path / "none"))


# -- checks ----------------------------------------------------------------------------------------------------------


def told(tmp_path: Path, text: str, *, files: bool = False) -> list[str]:
    file = tmp_path / "config"
    file.write_text(text)
    found = check(str(file), files=files)
    return [f"{finding.lines()[0]} ({finding.at.line if finding.at else 0})" for finding in found]


NET = "lxc.rootfs.path = /x\nlxc.net.0.type = veth\nlxc.net.0.flags = up\nlxc.net.0.link = br0\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (NET, []),
        ("lxc.tty.max = 1\n", ["warning: there is no lxc.rootfs.path: the container would see the host's files (0)"]),
        ("lxc.rootfs.path = /x\nlxc.net.0.flags = up\n", ["error: lxc.net.0 has no type (2)"]),
        ("lxc.rootfs.path = /x\nlxc.net.0.type = vlan\n",
         ["error: lxc.net.0.type = vlan needs lxc.net.0.link (2)",
          "error: lxc.net.0.type = vlan needs lxc.net.0.vlan.id (2)"]),
        ("lxc.rootfs.path = /x\nlxc.net.0.type = veth\n",
         ["warning: lxc.net.0 has no link: the host's end of the pair is connected to nothing (2)",
          "warning: lxc.net.0 stays down (2)"]),
        (NET + "lxc.net.0.ipv4.gateway = 10.0.0.1\n",
         ["error: lxc.net.0.ipv4.gateway needs lxc.net.0.ipv4.address (5)"]),
        (NET + "lxc.cgroup.dir = a\nlxc.cgroup.dir.container = b\n",
         ["error: lxc.cgroup.dir and lxc.cgroup.dir.container exclude each other (6)",
          "error: lxc.cgroup.dir.container needs lxc.cgroup.dir.monitor (6)"]),
        (NET + "lxc.idmap = u 0 1000 10\nlxc.idmap = u 5 2000 10\nlxc.idmap = g 0 1000 10\n",
         ['error: lxc.idmap: "u 5 2000 10" and "u 0 1000 10" overlap inside (6)']),
        (NET + "lxc.idmap = u 0 1000 10\nlxc.idmap = u 50 1005 10\nlxc.idmap = g 0 1000 10\n",
         ['error: lxc.idmap: "u 50 1005 10" and "u 0 1000 10" overlap on the host (6)']),
        (NET + "lxc.idmap = u 0 1000 10\n", ["error: lxc.idmap maps no group 0: the container would have no root (5)"]),
        (NET + "lxc.uts.name = a\nlxc.uts.name = b\n",
         ['warning: lxc.uts.name = "a" has no effect: line 6 sets it to "b" (5)']),
        ("lxc.rootfs.path = /x\nlxc.net.0.flags = up\nlxc.net.0.type = veth\nlxc.net.0.link = br0\n",
         ["warning: lxc.net.0 stays down (3)",
          "warning: lxc.net.0.flags is lost: lxc.net.0.type begins the interface anew (2)"]),
        (NET + "lxc.kmsg = 1\n",
         ["warning: lxc.kmsg is left out: Link from /dev/kmsg to the console; gone since LXC 2.1. (5)"]),
        (NET + "lxc.mount.entry = a b\n", ['error: lxc.mount.entry: "a b" has fewer than three fields (5)']),
        (NET + "lxc.tty.max = x\nlxc.foo = 1\nlxc.kmsg = 1\n",
         ['error: lxc.tty.max: "x" is not a number (5)', 'error: unknown key "lxc.foo" (6)',
          "warning: lxc.kmsg is left out: Link from /dev/kmsg to the console; gone since LXC 2.1. (7)"]),
        (NET + "lxc.autodev = 0\nlxc.hook.autodev = /x\n",
         ["warning: lxc.hook.autodev does not run while lxc.autodev is 0 (6)"]),
        (NET + "lxc.namespace.keep = net\nlxc.namespace.share.net = box\n",
         ["error: the net namespace is both shared and kept (6)"]),
    ],
)  # fmt: skip
def test_checks(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert told(tmp_path, text) == expected


def test_files_that_are_missing(tmp_path: Path) -> None:
    text = ("lxc.rootfs.path = dir:/nowhere\nlxc.mount.fstab = /nowhere/fstab\nlxc.hook.start = /inside\n"
            "lxc.hook.pre-start = /nowhere/hook a\nlxc.hook.stop = true\nlxc.hook.stop = /etc/passwd\n"
            "lxc.seccomp.profile = /usr/local/share/lxc/config/common.seccomp\n")  # fmt: skip
    assert told(tmp_path, text, files=True) == [
        'error: lxc.mount.fstab: "/nowhere/fstab" does not exist (2)',
        'error: lxc.rootfs.path: "/nowhere" does not exist (1)',
        'error: lxc.hook.pre-start: "/nowhere/hook" does not exist or is not executable (4)',
        'error: lxc.hook.stop: "/etc/passwd" does not exist or is not executable (6)',
    ]


def test_findings_are_data(tmp_path: Path) -> None:
    (tmp_path / "config").write_text("lxc.include = more\n")
    (tmp_path / "more").write_text("lxc.completely.else = 1\n")
    found = [finding.to_dict() for finding in check(str(tmp_path / "config"))]
    assert json.loads(json.dumps(found)) == [
        {"severity": "error", "what": 'unknown key "lxc.completely.else"', "cure": None,
         "at": {"file": f"{tmp_path}/more", "line": 1, "via": [{"file": f"{tmp_path}/config", "line": 1}]}}
    ]  # fmt: skip


# -- explanations ----------------------------------------------------------------------------------------------------


def test_an_explanation(tmp_path: Path) -> None:
    (tmp_path / "low").write_text("lxc.tty.max = 4\nlxc.cap.drop = mknod sys_time\n")
    (tmp_path / "config").write_text("lxc.include = low\nlxc.uts.name = web\nlxc.cgroup.cpu.shares = 512\n"
                                     "lxc.network.type = veth\nlxc.network.ipv4 = 10.0.0.2/24 10.0.0.9\n"
                                     "lxc.prlimit.nofile = 5\nlxc.autodev =\n")  # fmt: skip

    def limits(entries: object) -> list[str]:
        assert entries == [CgroupEntry(1, "cpu.shares", "512")]
        return ["cpu.weight = 20"]

    rows = explain(str(tmp_path / "config"), limits=limits)
    assert [(row.key, row.value, str(row.at), row.note) for row in rows] == [
        ("lxc.uts.name", "web", f"{tmp_path}/config:2", ""),
        ("lxc.prlimit.nofile", "5", f"{tmp_path}/config:6", ""),
        ("lxc.autodev", "0", "None", ""),
        ("lxc.cgroup.cpu.shares", "512", f"{tmp_path}/config:3", "cpu.weight = 20"),
        ("lxc.cap.drop", "mknod", f"{tmp_path}/low:2, included from {tmp_path}/config:1", ""),
        ("lxc.cap.drop", "sys_time", f"{tmp_path}/low:2, included from {tmp_path}/config:1", ""),
        ("lxc.tty.max", "4", f"{tmp_path}/low:1, included from {tmp_path}/config:1", ""),
        ("lxc.net.0.type", "veth", f"{tmp_path}/config:4", ""),
        ("lxc.net.0.ipv4.address", "10.0.0.2/24 10.0.0.9", f"{tmp_path}/config:5", ""),
    ]
    assert as_text(rows)[0].split("  # ")[1] == f"{tmp_path}/config:2"
    assert as_text(rows)[3].endswith("config:3; cpu.weight = 20")
    json.dumps([row.to_dict() for row in rows])
    with pytest.raises(ConfigErrors):
        (tmp_path / "config").write_text("lxc.foo = 1\n")
        explain(str(tmp_path / "config"))


@pytest.mark.parametrize("name", NAMES)
def test_an_explanation_is_a_config(tmp_path: Path, name: str) -> None:
    file = str(lay_out(tmp_path) / f"{name}.conf")
    rows = explain(file)
    text = "".join(f'{row.key} = "{row.value}"\n' for row in rows)
    config, again = load(file), load_text(text, "explained")
    assert (again.net, again.mount, again.idmap, again.hook) == (config.net, config.mount, config.idmap, config.hook)
    assert all(row.at is not None or row.value in ("0",) for row in rows)


# -- presets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_each_preset_loads(name: str) -> None:
    file = os.path.join(paths.data_dir("config"), name)
    assert check(file, files=False) is not None
    assert preset(f"/usr/local/share/lxc/config/{name}") == file
    load(file)


LXC_PRESETS = Path(paths.LXC_CONFIG_DIR)


@pytest.mark.parametrize("name", sorted(path.name for path in LXC_PRESETS.glob("*.conf")) or ["none"])
def test_each_preset_of_lxc_has_its_like(name: str) -> None:
    if not (LXC_PRESETS / name).exists():
        pytest.skip("LXC's presets are not installed")
    theirs, ours = load(str(LXC_PRESETS / name)), load(os.path.join(paths.data_dir("config"), name))
    assert set(ours.cap.drop) >= set(theirs.cap.drop), "a capability less is dropped"
    assert ours.mount.auto == theirs.mount.auto and set(ours.mount.entry) >= set(theirs.mount.entry)
    for field in ("tty", "pty", "signal", "environment", "autodev", "apparmor", "seccomp", "namespace"):
        assert getattr(ours, field) == getattr(theirs, field), field
    # ours names the extra devices of a distribution in one dialect, LXC's in the other
    assert {entry.value for entry in ours.cgroup.entries} >= {entry.value for entry in theirs.cgroup.entries}


def test_the_corpus_is_large_enough() -> None:
    assert len(list(FOLDER.glob("*.conf"))) >= 60
