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
