"""Containers that are never started: a few files on disk, and looking at them."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lxcpy.container import Container
from lxcpy.runtime import partial


def config_of(container: Container) -> str:
    return Path(container.config_file).read_text()


def rootfs_of(container: Container) -> Path:
    return Path(container.directory, "rootfs")


def settled(container: Container) -> None:
    """Wait for the processes that copied files: they are told to end when their parent does."""
    deadline = time.monotonic() + 10
    try:
        while partial.maker_lives(container.lxcpath, container.name):
            assert time.monotonic() < deadline
            time.sleep(0.002)
    except FileNotFoundError:
        pass


Tiny = Callable[..., Container]


@pytest.fixture
def tiny(lxcpath: str, names: Callable[[], str]) -> Tiny:
    """`tiny("lxc.x = y")`: define one."""

    def define(extra: str = "", name: str = "") -> Container:
        one = Container(name or names(), lxcpath)
        os.makedirs(rootfs_of(one) / "etc")
        (rootfs_of(one) / "etc/hostname").write_text(f"{one.name}\n")
        (rootfs_of(one) / "etc/hosts").write_text(f"127.0.0.1 localhost\n127.0.1.1 {one.name}\n")
        (rootfs_of(one) / "marker").write_text("original")
        text = f"# mine\nlxc.uts.name = {one.name}\nlxc.rootfs.path = dir:{rootfs_of(one)}\n"
        text += extra.format(directory=one.directory)
        Path(one.config_file).write_text(text)
        return one

    return define
