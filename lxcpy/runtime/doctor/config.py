"""A container's config before a start: all of `lxcpy-config check`, for that command and for lxcpy-doctor."""

from __future__ import annotations

import os

from lxcpy.cgroups.layout import detect
from lxcpy.cgroups.translate import translate
from lxcpy.config import check, load
from lxcpy.errors import ConfigErrors, LxcpyError
from lxcpy.runtime import dependencies


def findings(path: str) -> list[check.Finding]:
    """Everything that is wrong with a config on this machine, errors first. Raises ConfigError, CgroupError."""
    found = check.check(path)
    error = _dependencies(path)
    if error is not None and not any(finding.at == error.at for finding in found):
        found.append(check.Finding(True, error.what, error.at, error.hint))
    try:
        limits = translate(load.load(path).cgroup.entries, detect())
    except ConfigErrors:
        pass  # reported already
    else:
        found += [check.Finding(True, problem.what, problem.at, problem.hint) for problem in limits.problems]
        found += [check.Finding(False, warning) for warning in limits.warnings]
    return sorted(found, key=lambda finding: not finding.error)


def _dependencies(path: str) -> LxcpyError | None:
    """Why a container cannot be started though its own config is right."""
    directory, file = os.path.split(os.path.abspath(path))
    if file != "config":
        return None
    lxcpath, name = os.path.split(directory)
    plan = dependencies.plan(
        [name], dependencies.configs(lxcpath), lambda _name: False, at=dependencies.origin(lxcpath), lxcpath=lxcpath
    )
    return plan.broken.get(name)
