"""Containers' root filesystems made from the tests' archive: in this process, or several at once in processes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from debmirror import Key, Server

from lxcpy.bootstrap import template as templates
from lxcpy.bootstrap.create import bootstrap
from lxcpy.bootstrap.progress import Progress, Silent
from lxcpy.bootstrap.rootfscache import Trees
from lxcpy.storage import blob
from lxcpy.storage.copy import copy_tree
from lxcpy.storage.tree import remove_tree

TESTS = Path(__file__).parent
TREES = Trees(copy_tree, remove_tree, blob.pack, blob.unpack, blob.usable, fingerprint=blob.fingerprint)


def tiny_template(folder: Path) -> templates.Template:
    """The debian template for the tiny archive: its own suites and package. Copied to `folder`."""
    found = templates.find("debian")
    shutil.copytree(found.path, folder)
    settings = {**found.settings, "release": "stable", "suites": "stable=tiny old=older", "packages": "extra"}
    settings["packages.minbase"] = "dpkg"
    return templates.Template("debian", str(folder), settings)


class Creation:
    """Bootstraps containers c1, c2, …"""

    def __init__(self, template: templates.Template, server: Server, key: Key, base: Path) -> None:
        self.template, self.server, self.key, self.base = template, server, key, base
        self.count = 0

    def directory(self, number: int) -> Path:
        """The container's, with an empty rootfs."""
        found = self.base / f"c{number}"
        (found / "rootfs").mkdir(parents=True, exist_ok=True)
        return found

    def __call__(
        self, *words: str, config: str = "", security: bool | None = False, progress: Progress | None = None
    ) -> Path:
        """security: whether its mirror has security updates too; None: as the template has it."""
        self.count += 1
        directory = self.directory(self.count)
        (directory / "config").write_text(config)
        urls = [f"--mirror={self.server.url}", f"--keyring={self.key.ring}"]
        if security:
            urls.append(f"--security-mirror={self.server.url}")
        settings = dict(self.template.settings)
        if security is False:
            settings["security_suite"] = ""
        bootstrap(
            self.template._replace(settings=settings), [*urls, *words], target=str(directory / "rootfs"),
            config_path=str(directory / "config"), name=f"c{self.count}", progress=progress or Silent(), trees=TREES,
        )  # fmt: skip
        return directory

    def start(
        self, number: int, *words: str, kill: tuple[str, str] = ("", ""), **options: Any
    ) -> subprocess.Popen[bytes]:
        """Make container NUMBER in a process of its own, with options of Popen.

        kill: (module, function or Class.method) at whose first call it gets SIGKILL.
        """
        name, path, settings, parents = self.template
        code = textwrap.dedent(_SCRIPT).format(
            paths=[str(TESTS), str(TESTS.parent)], cache=os.environ["LXCPY_CACHE_DIR"],
            template=(name, path, dict(settings), parents), url=self.server.url, ring=str(self.key.ring),
            base=str(self.base), number=number, words=words, kill=kill,
        )  # fmt: skip
        return subprocess.Popen([sys.executable, "-c", code], **options)


_SCRIPT = """
import os, sys
sys.path[:0] = {paths!r}
os.environ["LXCPY_CACHE_DIR"] = {cache!r}
from pathlib import Path
from types import SimpleNamespace as N
import debcreate
from lxcpy.bootstrap.template import Template
from lxcpy.errors import LxcpyError
template = Template(*{template!r})
create = debcreate.Creation(template, N(url={url!r}), N(ring={ring!r}), Path({base!r}))
create.count = {number} - 1
if {kill!r}[0]:
    import functools, importlib, signal
    module, name = {kill!r}
    *path, last = name.split(".")
    holder = functools.reduce(getattr, path, importlib.import_module(module))
    setattr(holder, last, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
try:
    create(*{words!r})
except LxcpyError as error:
    sys.exit("\\n".join(error.lines()))
"""
