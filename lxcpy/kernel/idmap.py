"""Id ranges: pure arithmetic, /etc/subuid, and writing a user namespace's maps."""

from __future__ import annotations

import os

from lxcpy.kernel import libc, namespace
from lxcpy.kernel.fd import Fd
from lxcpy.kernel.record import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


class IdRange(NamedTuple):
    """`count` ids from `nsid` in the namespace are those from `hostid` outside."""

    nsid: int
    hostid: int
    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs here

    def __str__(self) -> str:
        return f"{self.nsid} {self.hostid} {self.count}"


def to_host(ranges: Sequence[IdRange], number: int) -> int | None:
    """The id outside of an id inside; None if it is not mapped."""
    for low, host, count in ranges:
        if low <= number < low + count:
            return host + number - low
    return None


def to_ns(ranges: Sequence[IdRange], number: int) -> int | None:
    """The id inside of an id outside; None if it is not mapped."""
    for low, host, count in ranges:
        if host <= number < host + count:
            return low + number - host
    return None


def overlaps(ranges: Sequence[IdRange]) -> bool:
    """Whether two ranges meet on either side, which the kernel refuses."""
    for side in (0, 1):
        spans = sorted((item[side], item[side] + item.count) for item in ranges)
        if any(spans[at][1] > spans[at + 1][0] for at in range(len(spans) - 1)):
            return True
    return False


def same_numbers(ranges: Sequence[IdRange], own: int) -> list[IdRange]:
    """A map in which the host ids of `ranges`, and the id `own`, have the numbers that they have on the host."""
    found: list[IdRange] = []
    end = 0
    for first, count in sorted([*((item.hostid, item.count) for item in ranges), (own, 1)]):
        begin = max(first, end)  # grants may overlap, a map may not
        if begin < first + count:
            found.append(IdRange(begin, begin, first + count - begin))
            end = first + count
    return found


def with_own(ranges: Sequence[IdRange], own: int) -> tuple[list[IdRange], int]:
    """The map with one more id for `own`, if it has none, and what that is inside: the first one that is free."""
    if (known := to_ns(ranges, own)) is not None:
        return list(ranges), known
    free = 0
    while any(one.nsid <= free < one.nsid + one.count for one in ranges):
        free = next(one.nsid + one.count for one in ranges if one.nsid <= free < one.nsid + one.count)
    return [*ranges, IdRange(free, own, 1)], free


def write_maps(pid: int, uid_ranges: Sequence[IdRange], gid_ranges: Sequence[IdRange]) -> None:
    """Write the maps of the user namespace that `pid` has just made.

    Directly, where the caller may; else through newuidmap and newgidmap, which grant what /etc/subuid and /etc/subgid
    list. Raises OSError.
    """
    for kind, ranges in (("gid", gid_ranges), ("uid", uid_ranges)):
        if not ranges:
            continue
        try:
            _write_map(pid, kind, ranges)
        except PermissionError:
            _ask_helper(pid, kind, ranges)


def _write_map(pid: int, kind: str, ranges: Sequence[IdRange]) -> None:
    path = f"/proc/{pid}/{kind}_map"
    text = "".join(f"{item}\n" for item in ranges)
    with Fd(os.open(path, os.O_WRONLY | os.O_CLOEXEC)) as file:
        try:
            os.write(file.number, text.encode())  # one write(2) takes the whole map
        except OSError as error:
            shown = ", ".join(str(item) for item in ranges)
            raise libc.failure(error.errno or 22, f'write("{path}", "{shown}")') from None


def _ask_helper(pid: int, kind: str, ranges: Sequence[IdRange]) -> None:
    program = f"new{kind}map"
    command = [program, str(pid), *(str(number) for item in ranges for number in item)]
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with Fd(reader) as output:
        with Fd(writer) as said:
            actions = [(os.POSIX_SPAWN_DUP2, said.number, 1), (os.POSIX_SPAWN_DUP2, said.number, 2)]
            try:
                child = os.posix_spawnp(program, command, os.environ, file_actions=actions)
            except FileNotFoundError:
                raise OSError(2, f'"{program}" is not installed, and the maps may not be written without it') from None
        words = b""
        while part := os.read(output.number, 4096):
            words += part
    _, code = os.waitpid(child, 0)
    if code:
        line = " ".join(words.decode(errors="replace").split())
        raise OSError(1, f'"{" ".join(command)}" failed: {line or f"wait status {code}"}')


def userns_fd(uid_ranges: Sequence[IdRange], gid_ranges: Sequence[IdRange]) -> Fd:
    """A user namespace with these maps and no process in it, for idmapped mounts. Raises OSError."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    with Fd(reader) as waiting, Fd(writer) as going:
        pid, pidfd = namespace.clone(namespace.CLONE_NEWUSER)
        if pid == 0:
            try:
                os.close(going.number)
                os.read(waiting.number, 1)
            finally:
                os._exit(0)
        with Fd(pidfd):
            try:
                write_maps(pid, uid_ranges, gid_ranges)
                return namespace.open_namespace(pid, "user")
            finally:
                going.close()
                os.waitpid(pid, 0)


def subids(user: str | int, *, directory: str = "/etc") -> tuple[list[IdRange], list[IdRange]]:
    """What /etc/subuid and /etc/subgid grant `user` (a name or uid): (uid, gid) ranges, nsid counted up from 0."""
    names = {str(user)}
    if isinstance(user, int):
        import pwd  # only for a number

        try:
            names.add(pwd.getpwuid(user).pw_name)
        except KeyError:
            pass
    return _grants(f"{directory}/subuid", names), _grants(f"{directory}/subgid", names)


def _grants(path: str, names: set[str]) -> list[IdRange]:
    ranges: list[IdRange] = []
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return ranges
    start = 0
    for line in lines:
        words = line.split(":")
        if len(words) == 3 and words[0] in names and words[1].isdigit() and words[2].strip().isdigit():
            ranges.append(IdRange(start, int(words[1]), int(words[2])))
            start += int(words[2])
    return ranges
