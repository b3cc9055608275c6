"""All checks of one container, or of the machine; and the mends of what may be mended safely."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator

from lxcpy import paths
from lxcpy.config import load
from lxcpy.config.model import Config
from lxcpy.errors import CgroupError, LxcpyError, SecurityError, meaning
from lxcpy.runtime import ids, lookup
from lxcpy.runtime.doctor import config as config_check
from lxcpy.runtime.doctor import host, network, rootfs
from lxcpy.runtime.doctor.finding import ERROR, WARNING, Finding, failed, ok


def container(lxcpath: str, name: str) -> list[Finding]:
    """What is wrong with a container before a start. Raises StateError where there is none."""
    try:
        lookup.check_startable(lxcpath, name)
    except LxcpyError as error:
        if not os.path.exists(lookup.config_path(lxcpath, name)):
            raise
        return [failed("state", error, why="the container does not start")]
    found = list(_config(lxcpath, name))
    pid = lookup.init_pid(lxcpath, name)
    if pid:
        found.append(ok("state", f"it is running (init is pid {pid})"))
    try:
        config = load.load(lookup.config_path(lxcpath, name))
        owner = ids.root(*ids.ranges(config))
    except (LxcpyError, SecurityError):
        return found  # told already
    return found + list(_checked(config, lxcpath, name, owner))


def _config(lxcpath: str, name: str) -> Iterator[Finding]:
    path = lookup.config_path(lxcpath, name)
    try:
        problems = config_check.findings(path)
    except LxcpyError as error:
        yield failed("config", error, why="the container does not start")
        return
    for it in problems:
        why = "the container does not start" if it.error else ""
        yield Finding(ERROR if it.error else WARNING, "config", it.what, why, it.hint or "", it.at)
    if not problems:
        yield ok("config", f"nothing is wrong in {path}")


def _checked(config: Config, lxcpath: str, name: str, owner: tuple[int, int]) -> Iterator[Finding]:
    parts: tuple[Iterable[Finding], ...] = (
        rootfs.check(config, lxcpath=lxcpath, owner=owner),
        network.check(config),
        host.cgroups(config, name, owner),
        host.ids(config),
        host.labels(config, name, lxcpath),
        host.supervisor(),
    )
    for part in parts:
        yield from _caught(part)


def _caught(part: Iterable[Finding]) -> Iterator[Finding]:
    """A check that fails is a finding of its own, and the others go on."""
    try:
        yield from part
    except LxcpyError as error:
        yield failed("doctor", error)
    except OSError as error:
        yield Finding(WARNING, "doctor", f"a check could not be made: {error.filename or ''} {meaning(error)}")


def machine(lxcpath: str) -> list[Finding]:
    """What is wrong with the machine, whatever the containers on it."""
    found: list[Finding] = []
    for part in (
        host.supervisor(), _hierarchies(), network.machine(), rootfs.mount_point(),
        rootfs.space(lxcpath, "the containers' disk"), rootfs.space(paths.run_dir(), "the run directory"), _limits(),
    ):  # fmt: skip
        found += _caught(part)
    return found


def _hierarchies() -> Iterator[Finding]:
    from lxcpy.cgroups import layout

    try:
        found = layout.detect()
    except CgroupError as error:
        yield failed("cgroups", error, why="no container starts")
        return
    yield ok("cgroups", f"the layout is {found.kind}")


def _limits() -> Iterator[Finding]:
    """Settings of the kernel that forbid containers, or that many of them run into."""
    from lxcpy.runtime.doctor import kernel

    values = kernel.settings()
    for advice in kernel.sysctls(values):
        level = WARNING if "ordinary" in advice.breaks else ERROR
        yield Finding(level, "kernel", advice.what, advice.breaks, advice.cure)
    instances = values.get("fs.inotify.max_user_instances", "")
    if instances.isdigit() and int(instances) < 256:
        cure = "sysctl -w fs.inotify.max_user_instances=1024, and a line in /etc/sysctl.d to keep it"
        yield Finding(WARNING, "kernel", f"fs.inotify.max_user_instances is {instances}",
                      "each systemd inside uses a dozen: ten privileged containers use them up", cure)  # fmt: skip


def mend(found: list[Finding]) -> Iterator[str]:
    """Do what the findings can mend, each mend once; a line for each."""
    done = set()
    for finding in found:
        if finding.fix is None or finding.fix.does in done:
            continue
        done.add(finding.fix.does)
        try:
            finding.fix.run()
        except LxcpyError as error:
            yield f"not fixed: {finding.fix.does}: {error.what}"
        except OSError as error:
            yield f"not fixed: {finding.fix.does}: {meaning(error)}"
        else:
            yield f"fixed: {finding.fix.does}"
