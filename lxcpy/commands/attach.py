"""Run a command inside a running container."""

from __future__ import annotations

from lxcpy.cli.options import Args as CommonArgs
from lxcpy.cli.options import Command, Option, natural

PRIVILEGES = ("CGROUP", "CAP", "LSM")
# LXC's older words and the kernel's; in the order of LXC's help
NAMESPACES = {
    "MOUNT": "mnt", "PID": "pid", "UTSNAME": "uts", "IPC": "ipc", "USER": "user", "NETWORK": "net",
    "MNT": "mnt", "UTS": "uts", "NET": "net", "CGROUP": "cgroup", "TIME": "time",
}  # fmt: skip


class Args(CommonArgs):
    elevated_privileges: tuple[str, ...]
    arch: str | None
    namespaces: tuple[str, ...] | None
    remount_sys_proc: bool
    clear_env: bool
    keep_var: list[str]
    set_var: list[str]
    pty_log: str | None
    uid: int | None
    gid: int | None
    context: str | None


def privileges(text: str) -> tuple[str, ...]:
    """The words of -e, joined by `|`. Raises ValueError."""
    words = tuple(word for word in text.split("|") if word)
    for word in words:
        if word not in PRIVILEGES:
            raise ValueError(f'"{word}" is not one of {" ".join(PRIVILEGES)}')
    return words


def namespaces(text: str) -> tuple[str, ...]:
    """Kernel names of the namespaces of -s, joined by `|`, in any case. Raises ValueError."""
    words = tuple(word.upper() for word in text.split("|") if word)
    for word in words:
        if word not in NAMESPACES:
            raise ValueError(f'"{word}" is not one of {" ".join(NAMESPACES)}')
    return tuple(dict.fromkeys(NAMESPACES[word] for word in words))


COMMAND = Command(
    "attach",
    "Run a command inside a running container.",
    "--name=NAME [-- COMMAND]",
    (
        Option(
            "e", "elevated-privileges", "[PRIVILEGES]",
            "Leave out some of the container's confinement: CGROUP, CAP and LSM joined by |; without a list, all. "
            "The command can then do more than the container may.",
            value=PRIVILEGES, default=(), convert=privileges, choices=PRIVILEGES,
        ),
        Option("a", "arch", "ARCH", "Architecture that the command sees (uname -m)."),
        Option(
            "s", "namespaces", "LIST",
            "Enter these namespaces alone: MOUNT, PID, UTSNAME, IPC, USER, NETWORK, CGROUP, TIME joined by |. "
            "Implies -e.",
            convert=namespaces, choices=tuple(NAMESPACES),
        ),
        Option("R", "remount-sys-proc", None, "With -s without MOUNT: mount /proc and /sys of the namespaces entered."),
        Option("", "clear-env", None, "Begin with an empty environment."),
        Option("", "keep-env", None, "Keep the caller's environment (default).", key="clear_env", value=False),
        Option("", "keep-var", "VAR", "With --clear-env: keep this variable; repeatable.", many=True),
        Option("v", "set-var", "VAR=VALUE", "Set a variable; repeatable.", many=True),
        Option("L", "pty-log", "FILE", "Append what the terminal shows to FILE."),
        Option("f", "rcfile", "FILE", "Read the container's configuration from FILE."),
        Option("u", "uid", "UID", "User id inside the container.", convert=natural),
        Option("g", "gid", "GID", "Group id inside the container.", convert=natural),
        Option("c", "context", "CONTEXT", "SELinux context of the command."),
    ),
    {
        "STATUS": "the command's own exit status",
        "128+N": "the command was ended by signal N",
        1: "the container does not run, or it could not be entered",
        126: "the command cannot be executed",
        127: "there is no such command",
    },
    words="Without COMMAND: the login shell of root inside, else /bin/sh.",
    args=Args,
)  # fmt: skip


def run(args: Args) -> int:
    from lxcpy.kernel import process, sealed
    from lxcpy.runtime.attach import Request, attach, caller_environment

    sealed.seal(caller_environment())
    process.set_name(args.prog)  # executed by descriptor, it is called after the interpreter's file
    request = Request(
        argv=tuple(args.rest),
        namespaces=args.namespaces,
        elevated=args.elevated_privileges,
        arch=args.arch,
        clear_env=args.clear_env,
        keep=tuple(args.keep_var),
        variables=tuple(args.set_var),
        uid=args.uid,
        gid=args.gid,
        context=args.context,
        remount=args.remount_sys_proc,
        rcfile=args.rcfile,
        log=args.pty_log,
    )
    return attach(args.lxcpath, args.name, request)
