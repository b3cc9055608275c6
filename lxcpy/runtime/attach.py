"""Running a command inside a running container: lxc-attach.

The caller's process learns what it must (attach_facts), decides (plan), forks once and waits; the child does the rest
(attach_inside). It works on every container that answers on liblxc's command socket, whoever runs it.
"""

from __future__ import annotations

import os

from lxcpy.errors import LxcpyError, SecurityError, StateError, meaning
from lxcpy.kernel import capability, namespace, process
from lxcpy.kernel.fd import Fd
from lxcpy.kernel.record import NamedTuple
from lxcpy.log import Log
from lxcpy.runtime import attach_facts, attach_inside, attach_security
from lxcpy.runtime.attach_facts import Facts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import NoReturn

LOG = Log("attach")

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # LXC's, in a cleared environment
COMMAND_NOT_FOUND = 127
COMMAND_NOT_EXECUTABLE = 126
ELEVATED = ("CGROUP", "CAP", "LSM")
_SIGINT, _SIGQUIT, _SIGPIPE, _SIGXFSZ, _SIG_DFL, _SIG_IGN = 2, 3, 13, 25, 0, 1


class Request(NamedTuple):
    """What the caller wants; the defaults are lxc-attach's."""

    argv: tuple[str, ...] = ()  # empty: the login shell
    namespaces: tuple[str, ...] | None = None  # kernel's names; None: all that are the container's
    elevated: tuple[str, ...] = ()  # of ELEVATED: what of the container's confinement is left out
    arch: str | None = None
    clear_env: bool = False
    keep: tuple[str, ...] = ()  # variables, with clear_env
    variables: tuple[str, ...] = ()  # NAME=VALUE, applied last; NAME alone unsets
    uid: int | None = None
    gid: int | None = None
    context: str | None = None  # SELinux
    remount: bool = False
    rcfile: str | None = None
    cwd: str | None = None  # None: the caller's
    terminal: bool | None = None  # None: where a standard descriptor is one
    log: str | None = None  # a file that gets what the terminal shows


class Attached(NamedTuple):
    """A process inside, a child of the caller."""

    pid: int
    pidfd: int  # the caller's to close
    master: Fd | None  # of its terminal


class CommandError(StateError):
    """The command could not be run; `code` is the shell's status for that."""


def attach(lxcpath: str, name: str, request: Request) -> int:
    """Run a command inside, with the caller's terminal, to its end: its exit status, 128+N for signal N.

    Raises LxcpyError: the container does not run, or could not be entered; CommandError with code 126 or 127.
    """
    log = _open_log(request.log)
    process = start(lxcpath, name, request)
    _ignore(_SIGINT, _SIGQUIT)  # they are the command's
    try:
        if process.master is not None:
            _show(process, log)
    finally:
        if process.master is not None:
            process.master.close()
        os.close(process.pidfd)
    status = os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1])
    return status if status >= 0 else 128 - status


def start(lxcpath: str, name: str, request: Request, function: Callable[[], int] | None = None) -> Attached:
    """Begin a command inside (or a function, whose value becomes the exit status), and return when it runs.

    Raises as `attach` does.
    """
    facts = attach_facts.find(lxcpath, name, rcfile=request.rcfile)
    master, slave = _terminal(facts) if _wants_terminal(request) else (None, None)
    cgroups = [] if _elevated(request, "CGROUP") else facts.client.cgroup_fds()
    try:
        made = plan(facts, request, caller_environment(), cgroups=cgroups, slave=slave.number if slave else -1)
        for step in made.describe():
            LOG.debug(step)
        return _fork(facts, request, made._replace(function=function), master)
    except BaseException:
        if master is not None:
            master.close()
        raise
    finally:
        for fd in cgroups:
            os.close(fd)
        if slave is not None:
            slave.close()
        facts.proc.close()
        facts.pidfd.close()


def plan(
    facts: Facts, request: Request, environ: Mapping[str, str], *, cgroups: Sequence[int] = (), slave: int = -1
) -> attach_inside.Plan:
    """Decide what the attached process does."""
    settings = facts.settings
    entered = facts.different
    if request.namespaces is not None:
        entered = tuple(name for name in entered if name in request.namespaces)
    flags = sum(namespace.NAMESPACES[name] for name in entered if name != "pid")
    confined = not _elevated(request, "LSM")
    setup_ids = facts.setup_ids if "user" in entered else None
    uid, gid = setup_ids or (0, 0)
    return attach_inside.Plan(
        argv=request.argv,
        environment=environment(request, settings.environment, environ),
        pidfd=facts.pidfd.number,
        namespaces=flags,
        chroot=facts.proc.number if attach_facts.may_be_chrooted() else -1,
        cgroups=tuple(cgroups),
        limits=settings.limits,
        proc=settings.proc,
        sched_core=settings.sched_core and "pid" in entered,
        cwd=request.cwd or _cwd(),
        remount=request.remount and "mnt" not in entered,
        personality=_personality(facts, request),
        drop=() if _elevated(request, "CAP") else _missing(facts.bounding),
        setup_ids=setup_ids,
        uid=uid if request.uid is None else request.uid,
        gid=gid if request.gid is None else request.gid,
        label=attach_security.label(facts, request.context) if confined or request.context else b"",
        no_new_privs=settings.no_new_privs,
        filter=attach_security.compiled(settings.seccomp) if confined and settings.seccomp else b"",
        slave=slave,
    )


def environment(request: Request, config: Sequence[str], environ: Mapping[str, str]) -> dict[str, str]:
    """The command's environment. config: lxc.environment's entries, NAME=VALUE, or NAME for the caller's value."""
    if request.clear_env:
        result = {name: environ[name] for name in request.keep if name in environ}
        result.setdefault("PATH", PATH)
    else:
        result = dict(environ)
    result["container"] = "lxc"
    for entry in config:
        name, equals, value = entry.partition("=")
        if equals:
            result[name] = value
        elif name in environ:
            result[name] = environ[name]
    for entry in request.variables:
        name, equals, value = entry.partition("=")
        if equals:
            result[name] = value
        else:
            result.pop(name, None)  # putenv(3) without a `=`
    return result


def caller_environment() -> dict[str, str]:
    """The environment as the caller gave it: where the locale is C, Python adds LC_CTYPE to it (PEP 538)."""
    result = dict(os.environ)
    if result.get("LC_CTYPE") in ("C.UTF-8", "C.utf8", "UTF-8"):
        with open("/proc/self/environ", "rb") as file:
            if b"\0LC_CTYPE=" not in b"\0" + file.read():
                del result["LC_CTYPE"]
    return result


def _elevated(request: Request, what: str) -> bool:
    return what in request.elevated or request.namespaces is not None  # -s implies -e


def _missing(bounding: int) -> tuple[int, ...]:
    """The capabilities of this kernel that init's bounding set lacks."""
    return tuple(number for number in range(capability.last_cap() + 1) if not bounding >> number & 1)


def _personality(facts: Facts, request: Request) -> int:
    if request.arch is None:
        return facts.personality
    from lxcpy.kernel.process import personality_of

    try:
        return personality_of(request.arch)
    except OSError:
        raise StateError(f'"{request.arch}" is not an architecture', hint="i686, x86_64, linux32, …") from None


def _cwd() -> str:
    try:
        return os.getcwd()
    except OSError:
        return "/"


def _wants_terminal(request: Request) -> bool:
    if request.terminal is not None:
        return request.terminal
    return any(os.isatty(number) for number in range(3))


def _terminal(facts: Facts) -> tuple[Fd | None, Fd | None]:
    from lxcpy.runtime.attach_terminal import allocate

    return allocate(facts)


def _open_log(path: str | None) -> int:
    if path is None:
        return -1
    try:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StateError(f'the terminal\'s log "{path}" cannot be opened: {meaning(error)}') from error


def _fork(facts: Facts, request: Request, made: attach_inside.Plan, master: Fd | None) -> Attached:
    """Fork into the container's pid namespace; what the child reports before its exec is raised here."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    enter = "pid" in facts.different and (request.namespaces is None or "pid" in request.namespaces)
    if os.geteuid() == 0:  # the container sees the child from its birth, and may not look into it
        process.set_dumpable(False)
    try:
        if enter and os.geteuid() and made.namespaces & namespace.CLONE_NEWUSER:
            pid = _fork_beside(made, reader, writer)
        else:
            pid = _fork_into(facts.pidfd.number) if enter else os.fork()
            if pid == 0:
                os.close(reader)
                _child(made, writer)
    except OSError as error:  # ENOMEM: init has ended, and its namespace takes nobody in
        os.close(reader)
        os.close(writer)
        if isinstance(error, PermissionError):
            raise StateError(
                f'cannot enter the pid namespace of container "{facts.name}": {meaning(error)}',
                hint="who is not root has to enter the user namespace too: -s with USER",
            ) from error
        raise StateError(f'container "{facts.name}" is stopping: {meaning(error)}') from error
    finally:
        if os.geteuid() == 0:
            process.set_dumpable(True)
    os.close(writer)
    pidfd = os.pidfd_open(pid) if pid else -1
    report = _read_all(reader)
    if report or not pid:
        if pid:
            os.waitpid(pid, 0)
            os.close(pidfd)
        kind, _, what = report.decode(errors="surrogateescape").partition("\0")
        raise _failure(kind, what, made.argv)
    return Attached(pid, pidfd, master)


def _fork_beside(made: attach_inside.Plan, reader: int, writer: int) -> int:
    """The same for who has no right but in the container's user namespace: a child goes there and makes a sibling.

    0: it came to no sibling, and `writer` got the reason.
    """
    answer, told = os.pipe2(os.O_CLOEXEC)
    between = os.fork()
    if between == 0:
        os.close(reader)
        os.close(answer)
        everything = made._replace(namespaces=made.namespaces | namespace.CLONE_NEWPID)
        _child(everything, writer, lambda pid: os.write(told, str(pid).encode()))
    os.waitpid(between, 0)
    os.close(told)
    os.set_blocking(answer, False)
    try:
        return int(os.read(answer, 20) or 0)
    except BlockingIOError:  # the sibling has the other end, and the child in between was killed
        return 0
    finally:
        os.close(answer)


def _fork_into(pidfd: int) -> int:
    """fork(2) into the pid namespace of `pidfd`; the caller's other children stay in its own. Raises OSError."""
    with namespace.open_namespace(os.getpid(), "pid") as ours:
        namespace.setns(pidfd, namespace.CLONE_NEWPID)
        pid = -1
        try:
            pid = os.fork()
        finally:
            if pid:
                namespace.setns(ours.number, namespace.CLONE_NEWPID)
    return pid


def _child(made: attach_inside.Plan, writer: int, begun: Callable[[int], object] | None = None) -> NoReturn:
    entered = False

    def in_function() -> None:
        nonlocal entered
        entered = True
        os.close(writer)

    try:
        _restore_signals()
        if begun is not None:
            attach_inside.become_beside(made, in_function, begun)
        attach_inside.become(made, in_function)
    except BaseException as error:
        if entered:
            import traceback

            traceback.print_exc()
        else:
            _report(writer, error)
    finally:
        os._exit(1)


def _report(writer: int, error: BaseException) -> None:
    if isinstance(error, LxcpyError):
        os.write(writer, f"{type(error).__name__}\0{error.what}".encode(errors="surrogateescape"))
    elif isinstance(error, OSError):
        os.write(writer, f"{error.errno or 0}\0{meaning(error)}".encode(errors="surrogateescape"))
    else:
        os.write(writer, f"StateError\0internal error: {type(error).__name__}: {error}".encode())


def _failure(kind: str, what: str, argv: tuple[str, ...]) -> LxcpyError:
    if not kind.isdigit():
        return (SecurityError if kind == "SecurityError" else StateError)(what)
    command = argv[0] if argv else "/bin/sh"
    error = CommandError(f'cannot run "{command}": {what}')
    if int(kind) in (2, 20):
        error = CommandError(f'cannot run "{command}": there is no such command in the container')
        error.code = COMMAND_NOT_FOUND
    elif int(kind) in (8, 13):
        error.code = COMMAND_NOT_EXECUTABLE
    return error


def _read_all(fd: int) -> bytes:
    data = b""
    while part := os.read(fd, 4096):
        data += part
    os.close(fd)
    return data


def _ignore(*numbers: int) -> None:
    # The C half of the signal module: the whole one imports enum, which costs more than the fork.
    import _signal  # type: ignore[import-not-found]

    for number in numbers:
        _signal.signal(number, _SIG_IGN)


def _restore_signals() -> None:
    """Python ignores these two; a command expects what its caller has."""
    import _signal

    for number in (_SIGPIPE, _SIGXFSZ):
        _signal.signal(number, _SIG_DFL)


def _show(process: Attached, log: int) -> None:
    """Connect the caller's terminal until the command's side closes."""
    from lxcpy.runtime import terminal

    assert process.master is not None
    try:
        own = Fd(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        number = next((number for number in range(3) if os.isatty(number)), 0)
        own = Fd(os.dup(number))
    with own:
        end = terminal.proxy(process.master.number, source=own.number, sink=own.number, log=log, child=process.pidfd)
    if end != terminal.CLOSED:
        process.master.close()  # hangs up on the command


__all__ = ["Attached", "CommandError", "Request", "attach", "plan", "start"]
