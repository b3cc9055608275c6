"""Templates: their options, and the files they lay over a root filesystem."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lxcpy.bootstrap import template
from lxcpy.errors import BootstrapError, UsageError


def test_every_template_is_found_and_explains_itself() -> None:
    assert {"busybox", "debian"} <= set(template.names())
    for name in template.names():
        found = template.find(name)
        assert found.settings["summary"] in template.help_text(found)


def test_an_unknown_one_gets_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        template.find("debain")
    assert caught.value.hint == 'did you mean "debian"?'


def test_options() -> None:
    debian = template.find("debian")
    parsed = template.parse(debian, ["-r", "sid", "--packages=a,b", "-S", "k.pub", "--no-cache"])
    assert parsed == {"release": "sid", "packages": "a,b", "auth-key": "k.pub", "no-cache": "1"}
    for words in (["--relase=sid"], ["stray"]):
        with pytest.raises(UsageError):
            template.parse(debian, words)


def test_files_are_rendered_beneath_the_root(tmp_path: Path) -> None:
    folder, root = tmp_path / "t", tmp_path / "root"
    (folder / "files/etc").mkdir(parents=True)
    (folder / "files/etc/hostname.j2").write_text("{{ name }}\n")
    root.mkdir()
    (root / "etc").symlink_to("/outside")  # a hostile tree: beneath the root it is /outside of the root
    found = template.Template("t", str(folder), {})
    number = os.open(root, os.O_PATH | os.O_DIRECTORY)
    try:
        template.overlay(found, number, {"name": "web"})
        assert (root / "outside/hostname").read_text() == "web\n"
        assert not os.path.exists("/outside")
        (folder / "files/etc/hostname.j2").write_text("{{ nmae }}\n")
        with pytest.raises(BootstrapError, match="nmae"):
            template.overlay(found, number, {"name": "web"})
    finally:
        os.close(number)


def test_a_template_inherits_what_it_does_not_have() -> None:
    debian, ubuntu, kali = (template.find(name) for name in ("debian", "ubuntu", "kali"))
    assert ubuntu.settings["engine"] == "deb"
    assert ubuntu.settings["modes"] != debian.settings["modes"]
    assert ubuntu.file("config.j2") == f"{ubuntu.path}/config.j2"
    assert kali.file("config.j2") == f"{debian.path}/config.j2"
    assert {"etc/hostname.j2", "etc/netplan/10-lxc.yaml.j2"} <= set(ubuntu.below("files"))
    assert kali.file("nothing") is None


LXC_OPTIONS = {
    "debian": "arch release mirror security-mirror keyring packages enable-non-free flush-cache clean auth-key",
    "ubuntu": "release arch variant packages user password bindhome auth-key flush-cache debug mirror security-mirror",
    "devuan": "arch auth-key clean enable-non-free mirror packages release security-mirror flush-cache",
    "kali": "arch auth-key clean enable-non-free mirror packages release flush-cache",
}
LXC_LETTERS = {"debian": "rahFcS", "ubuntu": "rahvubSFd", "devuan": "arhFcS", "kali": "arhFcS"}


@pytest.mark.parametrize("name", LXC_OPTIONS)
def test_options_are_lxcs(name: str) -> None:
    found = template.options(template.find(name))
    assert set(LXC_OPTIONS[name].split()) <= {one.long for one in found}
    assert set(LXC_LETTERS[name]) <= {one.short for one in (*found, *template.CONTRACT)}
    absent = {"debian": "user", "devuan": "bindhome", "kali": "security-mirror"}.get(name)
    if absent:
        with pytest.raises(UsageError, match=f"option --{absent} not recognized"):
            template.parse(template.find(name), [f"--{absent}=x"])
