"""Run a command in new namespaces."""

from __future__ import annotations

import os

from lxcpy.cli.options import Args as CommonArgs
from lxcpy.cli.options import Command, Option
from lxcpy.commands.attach import NAMESPACES, namespaces
from lxcpy.errors import UsageError

MOUNTS = (("proc", "/proc", "proc"), ("shmfs", "/dev/shm", "tmpfs"), ("mqueue", "/dev/mqueue", "mqueue"))


class Args(CommonArgs):
    namespaces: tuple[str, ...] | None
    user: str | None
    hostname: str | None
    ifname: list[str]
    daemon: bool
    remount: bool


COMMAND = Command(
    "unshare",
    "Run a command in new namespaces.",
    "-s NAMESPACES [OPTION...] -- COMMAND [ARGUMENT...]",
    (
        Option(
            "s", "namespaces", "LIST",
            "The namespaces to make: MOUNT, PID, UTSNAME, IPC, USER, NETWORK, CGROUP, TIME joined by |.",
            convert=namespaces, choices=tuple(NAMESPACES),
        ),
        Option("u", "user", "USER", "With USER: become this user, a name or an id, inside."),
        Option("H", "hostname", "HOSTNAME", "With UTSNAME: set this host name inside."),
        Option("i", "ifname", "NAME", "With NETWORK: move this network interface inside; repeatable.", many=True),
        Option("d", "daemon", None, "Do not wait for the command."),
        Option("M", "remount", None, "With MOUNT: mount /proc, /dev/shm and /dev/mqueue anew inside."),
    ),
    {0: "the command ended with 0", 1: "the command ended otherwise, or could not be run"},
    named=False,
    args=Args,
)  # fmt: skip


def check(args: Args) -> tuple[str, ...]:
    """The namespaces to make. Raises UsageError for options that need others."""
    wanted = args.namespaces or ()
    if not args.rest:
        raise UsageError("A command to execute in the new namespace is required", hint="write it after --")
    if not wanted:
        raise UsageError("A namespace to execute command is required", hint="-s MOUNT, for example")
    for given, option, needed, word in (
        (args.ifname, "-i <interfacename>", "net", "NETWORK"),
        (args.hostname, "-H <hostname>", "uts", "UTSNAME"),
        (args.remount, "-M", "mnt", "MOUNT"),
    ):
        if given and needed not in wanted:
            raise UsageError(f"{option} needs -s {word} option")
    return wanted


def user_id(text: str) -> int:
    """A user's id from a name or a number. Raises UsageError."""
    import pwd

    try:
        return (pwd.getpwuid(int(text)) if text.isdigit() else pwd.getpwnam(text)).pw_uid
    except KeyError:
        raise UsageError(f'there is no user "{text}"') from None


def remount() -> None:
    """Mount /proc, /dev/shm and /dev/mqueue of the new namespaces over the host's."""
    from lxcpy.kernel import mount

    for source, target, fstype in MOUNTS:
        try:
            mount.umount(target)
        except OSError:
            pass  # nothing was mounted there
        try:
            mount.mount(source, target, fstype)
        except OSError:
            pass  # LXC goes on without them, too


def run(args: Args) -> int:
    wanted = check(args)
    user = user_id(args.user) if args.user else None
    from lxcpy.kernel.idmap import IdRange
    from lxcpy.kernel.mount import MS_PRIVATE, MS_REC, mount
    from lxcpy.network import moving
    from lxcpy.runtime import newns

    def become() -> None:
        if "mnt" in wanted:
            mount(None, "/", None, MS_REC | MS_PRIVATE)
            if args.remount:
                remount()
        if args.hostname:
            import socket

            socket.sethostname(args.hostname)
        if user is not None:
            os.setuid(user)

    def help_from_outside(pid: int) -> None:
        for name in args.ifname:
            moving.move(name, source=os.getpid(), target=pid)

    uids = [IdRange(user, os.getuid(), 1)] if user is not None and "user" in wanted else []
    status = newns.run(
        args.rest, wanted, uids=uids, inside=become, outside=help_from_outside, wait=not args.daemon
    )
    return 1 if status else 0
