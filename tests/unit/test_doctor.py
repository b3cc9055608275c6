"""What lxcpy-doctor decides without a machine: programs in a tree, systemd's version, ids."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from lxcpy.cgroups import plan as cgroup_plan
from lxcpy.cgroups.layout import Hierarchy, Layout
from lxcpy.config.model import Cgroup, CgroupEntry, Config, Mount
from lxcpy.kernel.fd import Fd
from lxcpy.kernel.idmap import IdRange
from lxcpy.runtime.doctor import host, program, systemd

V1 = Hierarchy("name=systemd", "/sys/fs/cgroup/systemd", 1, ("name=systemd",))
V2 = Hierarchy("unified", "/sys/fs/cgroup", 2, ("memory",))


def elf(machine: int, *, interp: str = "", wide: bool = True, order: str = "<") -> bytes:
    """The head of an ELF file with a PT_INTERP segment."""
    head = b"\x7fELF" + bytes([2 if wide else 1, 1 if order == "<" else 2, 1]) + bytes(9)
    size, table = (64, 56) if wide else (52, 32)
    head += struct.pack(f"{order}HHI", 2, machine, 1)
    head += struct.pack(f"{order}{'QQQ' if wide else 'III'}IHHHHHH", 0, size, 0, 0, size, table, 1, 0, 0, 0)
    where = size + table
    if wide:
        segment = struct.pack(f"{order}IIQQQQQQ", 3, 4, where, 0, 0, len(interp) + 1, len(interp) + 1, 1)
    else:
        segment = struct.pack(f"{order}IIIIIIII", 3, where, 0, 0, len(interp) + 1, len(interp) + 1, 4, 1)
    return head + (segment if interp else bytes(table)) + interp.encode() + b"\0"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("sbin", "lib", "bin"):
        (tmp_path / folder).mkdir()
    return tmp_path


def look(root: Path, path: str = "/sbin/init", *, machine: str = "x86_64", binfmt: str = "/x") -> program.Program:
    with Fd(os.open(root, os.O_PATH | os.O_DIRECTORY)) as fd:
        return program.look(fd.number, path, machine=machine, binfmt=binfmt)


def put(root: Path, name: str, data: bytes, mode: int = 0o755) -> None:
    (root / name).write_bytes(data)
    (root / name).chmod(mode)


@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("order", ["<", ">"])
def test_a_program_and_its_loader(root: Path, wide: bool, order: str) -> None:
    number, machine = (62 if wide else 3, "x86_64") if order == "<" else (22, "s390x")
    put(root, "sbin/init", elf(number, interp="/lib/ld.so", wide=wide, order=order))
    assert look(root, machine=machine)[:2] == ("/sbin/init", "interpreter")
    assert look(root, machine=machine).detail == "/lib/ld.so"
    put(root, "lib/ld.so", b"")
    assert look(root, machine=machine).trouble == ""


def test_what_can_be_wrong_with_a_program(root: Path) -> None:
    assert look(root).trouble == "missing"
    (root / "sbin/init").symlink_to("/../../../../../../../bin/sh")  # the host has one, the root has none
    assert look(root).trouble == "missing"
    (root / "sbin/init").unlink()
    put(root, "sbin/init", elf(62), 0o644)
    assert look(root)[1:] == ("mode", "", "0644", "")
    put(root, "sbin/init", elf(183))
    assert look(root)[1:3] == ("foreign", "aarch64")
    assert look(root, machine="aarch64").trouble == ""
    put(root, "sbin/init", b"text\n")
    assert look(root).trouble == "format"
    put(root, "sbin/init", b"#!/bin/sh\n")
    assert look(root)[1:] == ("interpreter", "", "/bin/sh", "")
    put(root, "bin/sh", b"#! /sbin/init\n")
    assert look(root).trouble == "deep"
    assert look(root, "/sbin").trouble == "directory"
    (root / "sbin/init").unlink()
    os.mkfifo(root / "sbin/init", 0o755)
    assert look(root).trouble == "directory"


CUT = (b"", b"\x7fELF", b"\x7fELF" + b"\xff" * 60, elf(62, interp="/x")[:70], b"#!", b"#!\n")


@pytest.mark.parametrize("data", CUT)
def test_a_file_that_lies_is_survived(root: Path, data: bytes) -> None:
    put(root, "sbin/init", data)
    look(root)


def test_a_foreign_program_that_binfmt_misc_runs(root: Path, tmp_path: Path) -> None:
    put(root, "sbin/init", elf(183))
    rules = tmp_path / "rules"
    rules.mkdir()
    (rules / "status").write_text("enabled\n")
    magic, mask = elf(183)[:20].hex(), "ff" * 7 + "00" * 9 + "feffffff"
    (rules / "qemu").write_text(
        f"enabled\ninterpreter /usr/bin/qemu\nflags: F\noffset 0\nmagic {magic}\nmask {mask}\n"
    )
    assert look(root, binfmt=str(rules)).runner == "/usr/bin/qemu"
    (rules / "qemu").write_text((rules / "qemu").read_text().replace("enabled", "disabled"))
    assert look(root, binfmt=str(rules)).trouble == "foreign"


@pytest.mark.parametrize(
    ("number", "hierarchies", "auto", "level"),
    [
        (219, (V2,), (), "error"),
        (219, (V1, V2), (), "ok"),
        (219, (V1,), (), "ok"),
        (252, (V2,), (), "ok"),
        (257, (V1,), (), "ok"),
        (258, (V1,), (), "error"),
        (258, (V2,), (), "ok"),
        (258, (V1, V2), (), "ok"),
        (258, (V1, V2), ("cgroup:rw:force",), "error"),
        (258, (V1, V2), ("cgroup2",), "ok"),
    ],
)
def test_systemd_and_the_groups(
    number: int, hierarchies: tuple[Hierarchy, ...], auto: tuple[str, ...], level: str
) -> None:
    kind = "hybrid" if len(hierarchies) == 2 else f"v{hierarchies[0].version}"
    found = systemd.judge(number, Layout(kind, hierarchies), Config(mount=Mount(auto=auto)))
    assert (found.level, str(number) in found.what) == (level, True)
    assert (level == "ok") == (not found.cure)


def test_systemd_s_version(root: Path) -> None:
    with Fd(os.open(root, os.O_PATH | os.O_DIRECTORY)) as fd:
        assert systemd.version(fd) is None
        (root / "var/lib/dpkg").mkdir(parents=True)
        status = "Package: systemd-sysv\nVersion: 3\n\nPackage: systemd\nStatus: ok\nVersion: 1:229-4ubuntu21\n\n"
        (root / "var/lib/dpkg/status").write_text(status)
        assert systemd.version(fd) == 229
        (root / "var/lib/dpkg/status").write_text("Package: systemd\n" * 200_000)  # would take hours by a bad pattern
        assert systemd.version(fd) is None
        (root / "usr/lib/x86_64-linux-gnu/systemd").mkdir(parents=True)
        (root / "usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-252.so").touch()
        assert systemd.version(fd) == 252


def test_a_limit_whose_controller_was_not_handed_down(tmp_path: Path) -> None:
    (tmp_path / "cgroup.controllers").write_text("cpu pids\n")
    layout = Layout("v2", (V2._replace(mount=str(tmp_path), controllers=("cpu", "memory", "pids")),))
    entries = (CgroupEntry(2, "memory.max", "1G"), CgroupEntry(2, "pids.max", "100"))
    made = cgroup_plan.plan(Cgroup(entries), name="one", layout=layout, host=cgroup_plan.HostFacts())
    [lost] = host._lost(str(tmp_path), made)
    assert "the controller memory was not handed down" in lost.what
    assert "echo +memory > " in lost.cure


def test_ids_that_several_grants_cover() -> None:
    granted = [IdRange(0, 200, 50), IdRange(50, 100, 100)]
    assert host._covered(100, 250, granted)
    assert not host._covered(100, 251, granted)
    assert not host._covered(99, 250, granted)
