"""Runs hooks: the environment and the arguments that LXC promises them, their output into the log and the error.

A hook is a command line for sh. Its arguments and environment are those of lxc.container.conf(5), "CONTAINER HOOKS".
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence

from lxcpy import log, paths
from lxcpy.config.model import Config
from lxcpy.errors import ConfigError, HookError, Origin

LOG = log.Log("hooks")
TAIL = 20  # lines of a failed hook's output that go into the error


def base_environment(
    config: Config, *, name: str, config_file: str, caller: Mapping[str, str], target: str | None = None
) -> dict[str, str]:
    """The environment of every hook: the caller's, LXC_*, lxc.environment and lxc.environment.hooks."""
    environment = dict(caller)
    environment.update(
        LXC_NAME=name,
        LXC_CONFIG_FILE=config_file,
        LXC_ROOTFS_MOUNT=config.rootfs.mount or paths.ROOTFS_MOUNT,
        LXC_ROOTFS_PATH=config.rootfs.path or "",
        LXC_CONSOLE=config.console.path or "",
        LXC_CONSOLE_LOGPATH=config.console.logfile or "",
        LXC_CGNS_AWARE="1",
        LXC_LOG_LEVEL=log.LEVELS[config.log.level if config.log.level is not None else log.ERROR],
        LXC_HOOK_VERSION=str(config.hook.version),
    )
    if target:
        environment["LXC_TARGET"] = target
    environment.update(expand(config.environment.always + config.environment.hooks, caller))
    return environment


def check_environment(config: Config, caller: Mapping[str, str]) -> None:
    """Raises ConfigError for a variable that the config takes from a caller who has none of that name."""
    families = (
        ("lxc.environment", config.environment.always),
        ("lxc.environment.runtime", config.environment.runtime),
        ("lxc.environment.hooks", config.environment.hooks),
    )
    for key, entries in families:
        for number, entry in enumerate(entries):
            if "=" not in entry and entry not in caller:
                raise ConfigError(
                    f'{key}: the variable "{entry}" is not set where the container is started',
                    at=config.at(key, number),
                    hint=f"{key} = {entry}=VALUE gives it one",
                )


def expand(entries: Sequence[str], caller: Mapping[str, str]) -> dict[str, str]:
    """`NAME=VALUE` entries as a mapping; `NAME` alone takes the caller's value."""
    result = {}
    for entry in entries:
        name, has_value, value = entry.partition("=")
        result[name] = value if has_value else caller.get(name, "")
    return result


def run_all(
    config: Config,
    hook: str,
    environment: Mapping[str, str],
    *,
    extra: Sequence[str] = (),
    stdin: int = subprocess.DEVNULL,
    fatal: bool = True,
) -> None:
    """Run every `lxc.hook.HOOK` in order. Raises HookError at the first that fails, or logs it where not `fatal`."""
    scripts: tuple[str, ...] = getattr(config.hook, hook.replace("-", "_"))
    for number, script in enumerate(scripts):
        try:
            run(
                script,
                environment,
                section="lxc",
                hook=hook,
                extra=extra,
                stdin=stdin,
                origin=config.at(f"lxc.hook.{hook}", number),
            )
        except HookError as error:
            if fatal:
                raise
            LOG.error(error.what)


def run(
    script: str,
    environment: Mapping[str, str],
    *,
    section: str,
    hook: str,
    extra: Sequence[str] = (),
    stdin: int = subprocess.DEVNULL,
    origin: Origin | None = None,
    variables: Mapping[str, str] | None = None,
) -> None:
    """Run one hook to its end.

    Version 0 hooks get `NAME SECTION TYPE` as arguments, version 1 the same as LXC_HOOK_SECTION and LXC_HOOK_TYPE
    (with `variables`, the LXC_NET_* ones of a network script); `extra` arguments follow in both. Raises HookError.
    """
    environment = dict(environment)
    words: list[str] = []
    if environment.get("LXC_HOOK_VERSION") == "1":
        environment.update(LXC_HOOK_SECTION=section, LXC_HOOK_TYPE=hook, **(variables or {}))
    else:
        words += [environment["LXC_NAME"], section, hook]
    words += extra
    command = " ".join(["exec", script, *(_quote(word) for word in words)])
    LOG.info(f"running hook {hook}: {script}")
    try:
        done = subprocess.run(
            ["/bin/sh", "-c", command],
            env=environment,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=False,
        )
    except OSError as error:
        raise HookError(
            f'lxc.hook.{hook}: cannot run "{script}": {os.strerror(error.errno or 0)}',
            at=origin,
            hint="hooks are run by /bin/sh",
        ) from error
    lines = done.stdout.decode(errors="replace").splitlines()
    for line in lines:
        LOG.debug(f"{hook}: {line}")
    if done.returncode == 0:
        return
    how = f"was killed by signal {-done.returncode}" if done.returncode < 0 else f"ended with status {done.returncode}"
    what = f'lxc.hook.{hook}: "{script}" {how}' if section == "lxc" else f'network script "{script}" ({hook}) {how}'
    if lines:
        what += "\n" + "\n".join("  | " + line for line in lines[-TAIL:])
    hint = "126: not executable, 127: not found" if done.returncode in (126, 127) else None
    raise HookError(what, at=origin, hint=hint)


def _quote(word: str) -> str:
    return "'" + word.replace("'", "'\\''") + "'"
