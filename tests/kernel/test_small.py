"""Keyrings, loop devices, device programs."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from probes import requires

from lxcpy.kernel import bpf, keyring, loop

pytestmark = requires("root")
Isolated = Callable[..., Any]


def test_session_keyring(isolated: Isolated) -> None:
    def inside() -> tuple[int, int]:
        first = keyring.join_session_keyring()
        second = keyring.join_session_keyring("named")
        keyring.set_permissions(second, keyring.POSSESSOR_ALL)
        return first, second

    try:
        first, second = isolated(inside)
    except OSError as error:
        if error.errno == errno.ENOSYS:
            pytest.skip("this kernel has no keyrings")
        raise
    assert first > 0 and second > 0 and first != second


@requires("loop")
def test_loop_device(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(b"start" + bytes(1 << 20))
    device, name = loop.attach(str(image), read_only=True)
    with device:
        assert loop.backing_file(name) == str(image)
        assert os.read(device.number, 5) == b"start"
    for _ in range(100):  # autoclear: the kernel frees it when the last user is gone
        if loop.backing_file(name) is None:
            break
        time.sleep(0.01)
    assert loop.backing_file(name) is None


@requires("loop")
def test_loop_detach(tmp_path: Path) -> None:
    image = tmp_path / "image"
    image.write_bytes(bytes(1 << 20))
    device, name = loop.attach(str(image), autoclear=False, offset=4096)
    device.close()
    assert loop.backing_file(name) == str(image)
    loop.detach(name)
    loop.detach(name)
    assert loop.backing_file(name) is None
    with pytest.raises(FileNotFoundError):
        loop.attach(str(tmp_path / "none"))


@pytest.fixture
def group() -> Iterator[str]:
    with open("/proc/self/mountinfo") as file:
        place = next((line.split()[4] for line in file if " - cgroup2 " in line), None)
    if place is None:
        pytest.skip("no cgroup v2 is mounted")
    path = f"{place}/lxcpy-bpf-{os.getpid()}"
    os.mkdir(path)
    yield path
    os.rmdir(path)


def _loaded(rules: list[bpf.DeviceRule], allow: bool) -> Any:
    try:
        return bpf.load(bpf.device_program(rules, allow=allow))
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOSYS):
            pytest.skip(f"no BPF here: {error}")
        raise


def _opens(group: str, attempts: list[tuple[str, int]]) -> list[bool]:
    """Which of the opens succeed for a process in the group."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            with open(f"{group}/cgroup.procs", "w") as file:
                file.write("0")
            for path, flags in attempts:
                try:
                    os.close(os.open(path, flags))
                    os.write(writer, b"1")
                except PermissionError:
                    os.write(writer, b"0")
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with os.fdopen(reader) as file:
        return [letter == "1" for letter in file.read()]


def _rule(text: str, allow: bool) -> bpf.DeviceRule:
    kind, numbers, access = text.split()
    major, minor = (-1 if word == "*" else int(word) for word in numbers.split(":"))
    return bpf.DeviceRule(kind, major, minor, access, allow)


ATTEMPTS = [("/dev/null", os.O_RDONLY), ("/dev/null", os.O_WRONLY), ("/dev/null", os.O_RDWR), ("/dev/zero", os.O_RDWR)]


@pytest.mark.parametrize(
    ("rules", "allow", "expected"),
    [
        ([], True, [True, True, True, True]),
        ([], False, [False, False, False, False]),
        ([("c 1:3 rwm", True)], False, [True, True, True, False]),
        ([("c 1:3 r", True)], False, [True, False, False, False]),
        ([("c 1:3 r", True), ("c 1:3 w", True)], False, [True, True, True, False]),
        ([("a *:* rwm", True)], False, [True, True, True, True]),
        ([("b *:* rwm", True)], False, [False, False, False, False]),
        ([("c 1:* rw", True)], False, [True, True, True, True]),
        ([("c 1:3 w", False)], True, [True, False, False, True]),
        ([("c *:5 rwm", False)], True, [True, True, True, False]),
        ([("c 1:* rwm", True), ("c 1:3 w", False)], False, [True, False, False, True]),
    ],
)
def test_device_rules(group: str, rules: list[tuple[str, bool]], allow: bool, expected: list[bool]) -> None:
    with _loaded([_rule(*rule) for rule in rules], allow) as program, bpf.open_cgroup(group) as directory:
        bpf.attach(directory.number, program.number)
        assert len(bpf.attached(directory.number)) == 1
        assert _opens(group, ATTEMPTS) == expected


def test_device_program_is_replaced_and_detached(group: str) -> None:
    with bpf.open_cgroup(group) as directory:
        first, second = _loaded([], False), _loaded([], True)
        bpf.attach(directory.number, first.number)
        before = bpf.attached(directory.number)
        with bpf.program_by_id(before[0]) as same:
            bpf.attach(directory.number, second.number, replace=same.number)
        assert len(bpf.attached(directory.number)) == 1 and bpf.attached(directory.number) != before
        bpf.detach(directory.number, second.number)
        assert bpf.attached(directory.number) == []
        with pytest.raises(OSError, match="BPF_PROG_DETACH"):
            bpf.detach(directory.number, second.number)


def test_a_bad_program_is_explained() -> None:
    _loaded([], True).close()
    with pytest.raises(OSError, match=r"BPF_PROG_LOAD.*\("):
        bpf.load(bytes(16))
