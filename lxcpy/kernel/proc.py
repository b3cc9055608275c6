"""Pure parsers of procfs texts."""

from __future__ import annotations

from lxcpy.kernel.record import NamedTuple


class MountInfo(NamedTuple):
    """One line of /proc/PID/mountinfo, escapes resolved; `options` are comma lists, `optional` tags (shared:1)."""

    id: int
    parent: int
    device: tuple[int, int]  # major, minor
    root: str
    target: str
    options: str
    optional: tuple[str, ...]
    fstype: str
    source: str
    super_options: str


class CgroupLine(NamedTuple):
    """One line of /proc/PID/cgroup; (0, (), path) is cgroup v2."""

    id: int
    controllers: tuple[str, ...]
    path: str


class Stat(NamedTuple):
    """The fields of /proc/PID/stat that we use; times are clock ticks."""

    pid: int
    name: str
    state: str
    parent: int
    group: int
    session: int
    terminal: int
    user_time: int
    system_time: int
    start_time: int


def unescape(word: str) -> str:
    r"""Resolve \040 and its like."""
    if "\\" not in word:
        return word
    out, rest = [], word
    while True:
        before, slash, rest = rest.partition("\\")
        out.append(before)
        if not slash:
            return "".join(out)
        digits = rest[:3]
        if len(digits) == 3 and all(digit in "01234567" for digit in digits):
            out.append(chr(int(digits, 8)))
            rest = rest[3:]
        else:
            out.append("\\")


def mountinfo(text: str) -> list[MountInfo]:
    """The lines of /proc/PID/mountinfo in order; lines that are none are left out."""
    mounts = []
    for line in text.splitlines():
        before, dash, after = line.partition(" - ")
        words, tail = before.split(" "), after.split(" ")
        if not dash or len(words) < 6 or len(tail) < 2:
            continue
        major, _, minor = words[2].partition(":")
        mounts.append(
            MountInfo(
                int(words[0]), int(words[1]), (int(major), int(minor)), unescape(words[3]), unescape(words[4]),
                words[5], tuple(words[6:]), unescape(tail[0]), unescape(tail[1]), " ".join(tail[2:]),
            )
        )  # fmt: skip
    return mounts


def cgroup(text: str) -> list[CgroupLine]:
    """The lines of /proc/PID/cgroup."""
    lines = []
    for line in text.splitlines():
        words = line.split(":", 2)
        if len(words) == 3:
            lines.append(CgroupLine(int(words[0]), tuple(words[1].split(",")) if words[1] else (), words[2]))
    return lines


def status(text: str) -> dict[str, str]:
    """/proc/PID/status as name → value, tabs and spaces around the value taken off."""
    fields = {}
    for line in text.splitlines():
        name, colon, value = line.partition(":")
        if colon:
            fields[name] = value.strip()
    return fields


def stat(text: str) -> Stat:
    """One line of /proc/PID/stat; the name may hold spaces and parentheses."""
    before, _, after = text.rpartition(")")
    pid, _, name = before.partition(" (")
    words = after.split()
    return Stat(
        int(pid), name, words[0], int(words[1]), int(words[2]), int(words[3]), int(words[4]),
        int(words[11]), int(words[12]), int(words[19]),
    )  # fmt: skip
