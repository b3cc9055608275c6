"""Systems that can be made again: what they are told, and the lock at their end."""

from __future__ import annotations

from collections.abc import Mapping

from lxcpy.bootstrap import locked, lockfile, reproduce
from lxcpy.bootstrap.deb_system import System
from lxcpy.bootstrap.job import Job
from lxcpy.bootstrap.lockfile import Lock
from lxcpy.errors import BootstrapError, meaning


def epoch(options: Mapping[str, str], lock: Lock | None) -> int | None:
    """The time that a repeatable system is of, -1 for that of its releases; None for a system of today."""
    found = reproduce.epoch()
    if found is None and lock is not None:
        return lock.epoch
    return -1 if found is None and "lock" in options else found


def values(system: System, given: Mapping[str, object], name: str) -> dict[str, object]:
    """What the template's files are told of a system that can be made again: no chance in it."""
    if system.epoch is None:
        return {"repeatable": False}
    if system.options.get("password") == "-":
        system.progress.warning("a random password makes this system differ from any other: give one with --password")
    salt = reproduce.salt(name, given["user"], system.epoch, system.plan.digest())
    return {"repeatable": True, "salt": salt, "machine_id": ""}


def finish(job: Job, system: System, lock: Lock | None, given: Mapping[str, object]) -> None:
    """Write the lock that is asked for, or hold the new tree against the one that was used. Raises BootstrapError."""
    if lock is None and "lock" not in job.options:
        return
    try:
        tree = reproduce.digest(job.tree)
    except OSError as error:
        raise BootstrapError(f'cannot read the new system "{job.tree}": {meaning(error)} ({error})') from error
    if lock is None:
        lockfile.write(job.options["lock"], locked.describe(system, job.options, given, job.name, tree))
    said = f"the digest of the root filesystem is {tree}"
    if lock is None or tree == lock.tree:
        job.progress.message(said if lock is None else f"{said}, as in the lock")
        return
    reasons = [f"for the container {lock.name}"] if lock.name != job.name else []
    reasons += [f"with {reproduce.VARIABLE}={lock.epoch}"] if lock.epoch != system.epoch else []
    if lock.template_digest != locked.template_digest(system.template):
        reasons.append("by another version of the template")
    made = ", ".join(reasons) or "with another password, SSH key or id map"
    job.progress.message(f"{said}; the lock's, made {made}, is {lock.tree}")
