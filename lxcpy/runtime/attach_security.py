"""What confines an attached process besides its namespaces: the security label and the system call filter."""

from __future__ import annotations

import os

from lxcpy import paths
from lxcpy.errors import SecurityError, meaning
from lxcpy.log import Log
from lxcpy.runtime.attach_facts import Facts

LOG = Log("attach")


def label(facts: Facts, context: str | None) -> bytes:
    """What to write to attr/exec: the security label of init, or the one asked for; empty for none."""
    current = b""
    for name in ("attr/apparmor/current", "attr/current"):  # the first is AppArmor's own, where modules are stacked
        try:
            fd = os.open(name, os.O_RDONLY | os.O_CLOEXEC, dir_fd=facts.proc.number)
            try:
                current = os.read(fd, 4096).rstrip(b"\0\n")
                break
            finally:
                os.close(fd)
        except OSError:
            continue  # EINVAL: no security module keeps labels
    selinux = os.path.exists("/sys/fs/selinux/enforce")
    if context is not None:
        if not selinux:
            raise SecurityError(f'the context "{context}" cannot be taken: this kernel has no SELinux')
        return context.encode() + b"\0"
    if selinux:
        return current + b"\0" if current else b""
    profile = current.partition(b" (")[0]
    return b"" if profile in (b"", b"unconfined") else b"exec " + profile


def compiled(profile: str) -> bytes:
    """The compiled policy; empty where a filter is active here already, as LXC has it.

    Compiling takes longer than all the rest, so the program is kept in the run directory.
    """
    from lxcpy.kernel import seccomp  # noqa: F401  # used after the fork, when its file is out of reach

    cached = os.path.join(paths.run_dir(), "filters", _cache_name(profile))
    try:
        fd = os.open(cached, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return _compile(profile, cached)
    try:
        state = os.fstat(fd)
        if state.st_uid != os.geteuid() or not state.st_size or state.st_size % 8:
            return _compile(profile, cached)
        return b"" if _filtered() else os.read(fd, state.st_size)
    finally:
        os.close(fd)


def _cache_name(profile: str) -> str:
    if os.path.dirname(profile) == paths.LXC_CONFIG_DIR and not os.path.exists(profile):
        profile = os.path.join(paths.data_dir("config"), os.path.basename(profile))  # LXC's preset, served by ours
    try:
        state = os.stat(profile)
    except OSError as error:
        raise SecurityError(f'lxc.seccomp.profile: cannot read "{profile}": {meaning(error)}') from error
    return f"{state.st_dev}-{state.st_ino}-{state.st_size}-{state.st_mtime_ns}"


def _filtered() -> bool:
    with open("/proc/self/status", "rb") as file:
        return b"\nSeccomp:\t0" not in file.read()


def _compile(profile: str, cached: str) -> bytes:
    from lxcpy.config.model import Seccomp
    from lxcpy.security import seccomp

    program = seccomp.prepare(Seccomp(profile=profile, notify_proxy="unknown"))
    if program is None:
        return b""
    if program.listener:
        raise SecurityError(
            f'the policy "{profile}" asks a listener, which an attached process does not have', hint="use -e LSM"
        )
    try:
        os.makedirs(os.path.dirname(cached), 0o700, exist_ok=True)
        temporary = f"{cached}.{os.getpid()}"
        with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
            file.write(program.code)
        os.rename(temporary, cached)
    except OSError as error:
        LOG.info(f"the compiled filter is not kept: {meaning(error)}")
    return program.code
