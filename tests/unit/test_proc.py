"""Parsers of procfs texts."""

from __future__ import annotations

import os

from lxcpy.kernel import proc

MOUNTINFO = r"""22 27 0:21 / /proc rw,relatime shared:5 master:2 - proc proc rw
31 23 0:28 /a\040b /mnt/x\134y ro - tmpfs tmp\011fs rw,size=1k,mode=755
garbage
60 1 8:1 / / rw,relatime - ext4 /dev/vda rw
"""


def test_mountinfo() -> None:
    first, second, third = proc.mountinfo(MOUNTINFO)
    assert first == (22, 27, (0, 21), "/", "/proc", "rw,relatime", ("shared:5", "master:2"), "proc", "proc", "rw")
    assert (second.root, second.target, second.source) == ("/a b", "/mnt/x\\y", "tmp\tfs")
    assert third.optional == () and third.device == (8, 1)


def test_mountinfo_of_this_process() -> None:
    with open("/proc/self/mountinfo") as file:
        text = file.read()
    assert len(proc.mountinfo(text)) == len(text.splitlines())


def test_cgroup() -> None:
    lines = proc.cgroup("9:name=systemd:/\n4:cpu,cpuacct:/a:b\n0::/c\n")
    assert lines == [(9, ("name=systemd",), "/"), (4, ("cpu", "cpuacct"), "/a:b"), (0, (), "/c")]


def test_status_and_stat() -> None:
    assert proc.status("Name:\tx\nUid:\t0\t0\t0\t0\n") == {"Name": "x", "Uid": "0\t0\t0\t0"}
    line = "12 (a) b (c)) S 1 12 12 0 -1 4194560 1 2 3 4 50 60 7 8 20 0 1 0 999 1 2"
    stat = proc.stat(line)
    assert (stat.pid, stat.name, stat.state, stat.parent) == (12, "a) b (c)", "S", 1)
    assert (stat.user_time, stat.system_time, stat.start_time) == (50, 60, 999)
    with open("/proc/self/stat") as file:
        assert proc.stat(file.read()).pid == os.getpid()


def test_unescape() -> None:
    assert proc.unescape(r"a\040b\\c\9") == r"a b\\c\9"
