"""Editing: what changes, what stays byte for byte, and that the text always means what was set."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path

import pytest
from corpus_files import NAMES, lay_out

from lxcpy.config.file import ConfigFile
from lxcpy.errors import ConfigError

TEXT = """# the top

lxc.include = /dev/null
  lxc.uts.name   =   web   
martian line
lxc.tty.max = 1
lxc.mount.entry = /a a none bind
# between
lxc.mount.entry = /b b none bind
lxc.network.type = veth
lxc.network.link = br0
lxc.cap.drop = sys_time"""  # noqa: W291 (blanks at the end must survive)


def changed(old: str, new: str) -> list[str]:
    """The lines that differ, as -old and +new."""
    before, after = old.split("\n"), new.split("\n")
    return [f"-{line}" for line in before if line not in after] + [f"+{line}" for line in after if line not in before]


def test_a_plain_key_changes_in_place() -> None:
    config = ConfigFile(TEXT)
    config.set("lxc.uts.name", "db")
    assert changed(TEXT, config.text) == ["-  lxc.uts.name   =   web   ", "+  lxc.uts.name   =   db"]
    assert config.text.split("\n")[3] == "  lxc.uts.name   =   db"
    assert config.get("lxc.uts.name") == "db"


def test_a_new_key_goes_to_the_end() -> None:
    config = ConfigFile(TEXT)
    config.set("lxc.pty.max", "5")
    assert config.text == TEXT + "\nlxc.pty.max = 5\n"


def test_lists() -> None:
    config = ConfigFile(TEXT)
    config.append("lxc.mount.entry", "/c c none bind")
    assert changed(TEXT, config.text) == ["+lxc.mount.entry = /c c none bind"]
    assert config.get("lxc.mount.entry") == "/a a none bind\n/b b none bind\n/c c none bind\n"
    config.set("lxc.mount.entry", ["/x x none bind", "/y y none bind"])
    assert config.get("lxc.mount.entry") == "/x x none bind\n/y y none bind\n"
    config.clear("lxc.mount.entry")
    assert config.get("lxc.mount.entry") == ""
    assert "# between" in config.text and "mount.entry" not in config.text


def test_old_names_stay_as_they_are_written() -> None:
    config = ConfigFile(TEXT)
    config.set("lxc.net.0.link", "br7")
    assert changed(TEXT, config.text) == ["-lxc.network.link = br0", "+lxc.network.link = br7"]
    config.append("lxc.net.0.flags", "up")
    assert config.get("lxc.network.0.flags") == "up"
    config.clear("lxc.net.0")
    assert config.settings.nets == {}
    assert ConfigFile(config.text).settings.nets == {}


def test_what_an_include_sets_can_be_overruled(tmp_path: Path) -> None:
    (tmp_path / "below").write_text("lxc.tty.max = 9\nlxc.cap.drop = mknod\n")
    text = f"lxc.tty.max = 1\nlxc.include = {tmp_path}/below\n"
    config = ConfigFile(text)
    assert config.get("lxc.tty.max") == "9"
    config.set("lxc.tty.max", "2")  # in place it would have no effect
    assert config.get("lxc.tty.max") == ConfigFile(config.text).get("lxc.tty.max") == "2"
    assert config.text.endswith("lxc.tty.max = 2\n")
    config.clear("lxc.cap.drop")
    assert config.get("lxc.cap.drop") == "" and config.text.endswith("lxc.cap.drop =\n")


def test_clearing_a_switch_whose_empty_value_is_not_its_default() -> None:
    config = ConfigFile("lxc.autodev = 0\n")
    config.clear("lxc.autodev")
    assert config.get("lxc.autodev") == "1"
    config.append("lxc.autodev", "")
    assert config.get("lxc.autodev") == "0"


def test_a_refused_change_changes_nothing() -> None:
    config = ConfigFile(TEXT)
    for key, value in (("lxc.tty.max", "many"), ("lxc.foo", "1"), ("lxc.cap.keep", "kill"), ("lxc.uts.name", "a\nb"),
                       ("lxc.net.0.macvlan.mode", "bridge"), ("lxc.hook", "x"), ("lxc.net.9.flags", "")):  # fmt: skip
        with pytest.raises(ConfigError):
            config.append(key, value)
    with pytest.raises(ConfigError):
        config.set("lxc.mount.auto", ["proc", "bogus"])
    for key in ("lxc.foo", "lxc.net.9.link", "lxc.hook", "lxc.include", "lxc.kmsg"):
        with pytest.raises(ConfigError):
            config.get(key)
    assert config.text == TEXT


def test_unknown_keys_name_the_nearest() -> None:
    with pytest.raises(ConfigError) as caught:
        ConfigFile().get("lxc.utsnam")
    assert caught.value.lines() == ['unknown key "lxc.utsnam"', "  hint: the nearest key is lxc.utsname"]


@pytest.mark.parametrize("value", ["'one'", '"two"', " blanks ", "tab\t", "it's", "'", '"', "a = b", "# no comment"])
def test_odd_values_are_written_so_that_they_are_read(value: str) -> None:
    config = ConfigFile()
    config.set("lxc.init.cmd", value)
    assert config.get("lxc.init.cmd") == ConfigFile(config.text).get("lxc.init.cmd") == value


def test_includes_can_be_added_and_taken_out(tmp_path: Path) -> None:
    (tmp_path / "extra").write_text("lxc.tty.max = 3\n")
    config = ConfigFile("# a\nlxc.include = /dev/null\n")
    config.append("lxc.include", str(tmp_path / "extra"))
    assert config.get("lxc.tty.max") == "3"
    with pytest.raises(ConfigError, match="No such file"):
        config.append("lxc.include", str(tmp_path / "none"))
    config.clear("lxc.include")
    assert config.text == "# a\n" and config.get("lxc.tty.max") == "0"


def test_drawing_mac_addresses() -> None:
    text = "lxc.net.0.type = veth\nlxc.net.0.hwaddr = 10:66:6a:xx:xx:xx # not\n"
    with pytest.raises(ConfigError):
        ConfigFile(text)
    text = "lxc.network.type = veth\nlxc.network.hwaddr = 10:66:6a:xx:xx:xx\nlxc.net.4.type = phys\n"
    config = ConfigFile(text)
    assert config.draw_hwaddrs(random.Random(1))
    assert config.text != text and "x" not in config.get("lxc.net.0.hwaddr")
    assert config.text.startswith("lxc.network.type = veth\nlxc.network.hwaddr = 10:66:6a:")
    assert not config.draw_hwaddrs()


def test_keys() -> None:
    config = ConfigFile("lxc.net.0.type = veth\nlxc.net.1.type = empty\n")
    assert {"lxc.uts.name", "lxc.cgroup2", "lxc.net", "lxc.hook.start"} <= set(config.keys())
    assert config.keys("lxc.cap") == ["drop", "keep"]
    assert "veth.pair" in config.keys("lxc.net.0") and "vlan.id" not in config.keys("lxc.net.0")
    assert config.keys("lxc.net.1") == ["type", "flags", "script.up", "script.down"]
    for prefix in ("lxc.net.2", "lxc.foo"):
        with pytest.raises(ConfigError):
            config.keys(prefix)


def test_saving(tmp_path: Path) -> None:
    file = tmp_path / "config"
    config = ConfigFile(TEXT)
    config.save(str(file))
    assert file.read_bytes() == TEXT.encode() and stat.S_IMODE(file.stat().st_mode) == 0o640
    file.chmod(0o604)
    link = tmp_path / "link"
    link.symlink_to(file)
    again = ConfigFile.load(str(link))
    again.set("lxc.tty.max", "7")
    again.save()
    assert link.is_symlink() and stat.S_IMODE(file.stat().st_mode) == 0o604
    assert ConfigFile.load(str(file)).get("lxc.tty.max") == "7"
    assert sorted(os.listdir(tmp_path)) == ["config", "link"]
    with pytest.raises(ConfigError, match="cannot write the config"):
        config.save(str(tmp_path / "no" / "config"))
    with pytest.raises(ConfigError, match="cannot read the config"):
        ConfigFile.load(str(tmp_path / "none"))


@pytest.mark.parametrize("name", NAMES)
def test_the_corpus_survives_an_edit(tmp_path: Path, name: str) -> None:
    file = lay_out(tmp_path) / f"{name}.conf"
    before = file.read_bytes()
    config = ConfigFile.load(str(file))
    config.save()
    assert file.read_bytes() == before
    config.append("lxc.hook.post-stop", "/usr/bin/added")
    config.save()
    after = file.read_bytes().splitlines(keepends=True)
    added = [line for line in after if b"/usr/bin/added" in line]
    assert len(added) == 1
    after.remove(added[0])
    kept = b"".join(after)
    assert kept in (before, before + b"\n")
    assert ConfigFile.load(str(file)).get("lxc.hook.post-stop").endswith("/usr/bin/added\n")


def test_dos_line_ends_stay() -> None:
    config = ConfigFile("lxc.tty.max = 1\r\nlxc.uts.name = a\r\n")
    config.set("lxc.tty.max", "2")
    config.append("lxc.hook.start", "x")
    assert config.text == "lxc.tty.max = 2\r\nlxc.uts.name = a\r\nlxc.hook.start = x\r\n"
