"""Maps of user namespaces, read back from procfs."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest
from probes import requires

from lxcpy.kernel import fd, idmap, namespace

pytestmark = requires("root", "userns")
Isolated = Callable[..., Any]
RANGES = [idmap.IdRange(0, 200000, 1000), idmap.IdRange(1000, 0, 1), idmap.IdRange(1001, 201001, 64535)]


def _mapped(ranges: list[idmap.IdRange]) -> tuple[str, str]:
    reader, writer = os.pipe()
    pid, pidfd = namespace.clone(namespace.CLONE_NEWUSER)
    if pid == 0:
        os.close(writer)
        os.read(reader, 1)
        os._exit(0)
    try:
        idmap.write_maps(pid, ranges, ranges)
        with open(f"/proc/{pid}/uid_map") as uids, open(f"/proc/{pid}/gid_map") as gids:
            return uids.read(), gids.read()
    finally:
        os.close(writer)
        os.close(reader)
        os.close(pidfd)
        os.waitpid(pid, 0)


def test_maps_are_written() -> None:
    expected = [[str(number) for number in item] for item in RANGES]
    for text in _mapped(RANGES):
        assert [line.split() for line in text.splitlines()] == expected


def test_a_wrong_map_is_named() -> None:
    with pytest.raises(OSError, match=r'write\("/proc/\d+/gid_map", "0 1 10, 5 100 10"\): Invalid argument'):
        _mapped([idmap.IdRange(0, 1, 10), idmap.IdRange(5, 100, 10)])


def test_userns_fd_has_the_maps_and_no_process(isolated: Isolated) -> None:
    def inside() -> tuple[str, int]:
        with idmap.userns_fd(RANGES, RANGES) as users:
            with pytest.raises(ChildProcessError):
                os.waitpid(-1, os.WNOHANG)
            namespace.setns(users.number, namespace.CLONE_NEWUSER)
        with open("/proc/self/uid_map") as file:
            return file.read(), os.geteuid()

    text, uid = isolated(inside)
    assert len(text.splitlines()) == 3
    assert uid == 1000  # root outside


@requires("newuidmap")
def test_the_helpers_are_asked_where_writing_is_refused(isolated: Isolated) -> None:
    """As a user with no entry in /etc/subuid: the helper's own words are passed on."""

    def inside() -> None:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        reader, _ = os.pipe()
        pid, _ = namespace.clone(namespace.CLONE_NEWUSER)
        if pid == 0:
            os.read(reader, 1)
            os._exit(0)
        try:
            idmap.write_maps(pid, RANGES, RANGES)
        finally:
            os.kill(pid, 9)
            os.waitpid(pid, 0)

    with pytest.raises(OSError, match=r'"newgidmap \d+ 0 200000 1000 .*" failed: newgidmap: '):
        isolated(inside)


def test_descriptors_do_not_pile_up() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        idmap.userns_fd(RANGES, RANGES).close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert isinstance(idmap.userns_fd(RANGES, RANGES), fd.Fd)


def test_same_numbers() -> None:
    granted = [idmap.IdRange(0, 5000, 100), idmap.IdRange(100, 1000, 10), idmap.IdRange(110, 5050, 100)]
    assert idmap.same_numbers(granted, 7) == [(7, 7, 1), (1000, 1000, 10), (5000, 5000, 100), (5100, 5100, 50)]
    assert idmap.same_numbers(granted, 1005) == [(1000, 1000, 10), (5000, 5000, 100), (5100, 5100, 50)]
    assert idmap.same_numbers([], 7) == [(7, 7, 1)]


def test_with_own() -> None:
    assert idmap.with_own(RANGES[:1], 200500) == (RANGES[:1], 500)
    assert idmap.with_own(RANGES[:1], 7) == ([*RANGES[:1], (1000, 7, 1)], 1000)
