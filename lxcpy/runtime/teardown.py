"""Undoes a container from its record: on stop, after a failed start, and when one is found dead.

Every step is tolerant of what is gone already or was never made, so the same function serves all three, and can be run
again by whoever finds the record after a `kill -9`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from lxcpy import log
from lxcpy.cgroups import control as cgroup_control
from lxcpy.cgroups import tree as cgroup_tree
from lxcpy.config.load import load_text
from lxcpy.config.model import Config
from lxcpy.errors import HookError, LxcpyError
from lxcpy.kernel import process
from lxcpy.network import links
from lxcpy.runtime import hooks, joins, mapped, pidfile, state
from lxcpy.runtime.monitor import NAMESPACE, Monitor, open_log
from lxcpy.security import apparmor

LOG = log.Log("stop")


def needs_process(record: state.Record) -> bool:
    """Would the teardown run foreign code or wait? Then a child of the supervisor does it."""
    config = load_text(record["text"], record["config"])
    return bool(
        config.hook.stop
        or config.hook.post_stop
        or config.ephemeral
        or (config.rootfs.path or "").split(":")[0] in ("loop", "nbd")
        or any(entry["do"] != "veth" for entry in record["network"].get("undo", ()))
    )


def teardown(
    record: state.Record,
    *,
    target: str = "stop",
    failed: bool = False,
    namespaces: Mapping[str, int] | None = None,
    quick: bool = False,
    with_hooks: bool = True,
    monitor: Monitor | None = None,
) -> bool:
    """Remove what the record names; run the stop and post-stop hooks, unless `quick` (the caller knows of none).

    with_hooks: False when a process that ran them was killed.

    namespaces: the dead container's, name → descriptor, for the stop hooks and the return of physical devices.
    monitor:    what this process is in of the monitor's, where it is there for this teardown alone.
    Returns whether a reboot may follow: not when a post-stop hook failed. Raises nothing: what cannot be removed is
    logged, and the record stays when something of it does.
    """
    namespaces = dict(namespaces or {})
    clean = True
    environment: dict[str, str] = {}
    config: Config | None = None
    record = {**record, "network": record.get("network") or {}}
    if not quick:
        try:
            config = load_text(record["text"], record["config"])
            environment = _environment(config, record, target, namespaces)
        except LxcpyError as error:
            LOG.error(error.what)
    _kill_rest(record)
    if config is not None and with_hooks and not failed:
        extra = [f"{name}:{environment[variable(name)]}" for name in namespaces]
        hooks.run_all(config, "stop", environment, extra=extra, fatal=False)
    if record.get("network") and not quick:
        clean = _remove_network(record, environment if with_hooks else None, namespaces.get("net"))
    if monitor is not None:
        monitor.leave()
    if record.get("cgroups"):
        for left in remove_groups(record["cgroups"]):
            clean = False
            LOG.error(f"control group {left} could not be removed")
    pidfile.remove(record)
    if record.get("apparmor"):
        apparmor.remove(record["apparmor"])
    may_reboot = True
    if config is not None and with_hooks:
        try:
            hooks.run_all(config, "post-stop", environment)
        except HookError as error:
            may_reboot = False
            LOG.error(error.what)
    if monitor is not None:
        monitor.end()
    if config is not None and config.ephemeral and not failed and not (target == "reboot" and may_reboot):
        _destroy(record)
    if clean or not _anything_left(record):
        state.remove(record)
    return may_reboot


def teardown_apart(
    record: state.Record,
    *,
    target: str = "stop",
    failed: bool = False,
    namespaces: Mapping[str, int] | None = None,
    with_hooks: bool = True,
) -> bool:
    """`teardown` in a process that is there for it alone, and which takes the place of the container's monitor.

    Its process group holds the hooks, so that who kills it kills them.
    """
    os.setpgid(0, 0)
    process.set_title(f"lxcpy teardown {record['lxcpath']} {record['name']}")
    record = {**record, "launcher": [os.getpid(), process.start_time(os.getpid())]}
    state.save(record)  # who finds it after a kill of our parent ends this process first
    monitor, namespaces = Monitor(record), dict(namespaces or {})
    try:
        config = load_text(record["text"], record["config"])
        open_log(config, record["options"])
    except LxcpyError as error:
        LOG.error(error.what)
    monitor.enter(namespaces.pop(NAMESPACE, None))
    return teardown(
        record, target=target, failed=failed, namespaces=namespaces, monitor=monitor, with_hooks=with_hooks
    )


def _destroy(record: state.Record) -> None:
    """lxc.ephemeral = 1: the container goes when it stops. Its record goes last: who finds it later goes on."""
    from lxcpy.runtime import destroy

    try:
        destroy.destroy(record["lxcpath"], record["name"], running=True)
    except LxcpyError as error:
        LOG.error(error.what)


def variable(name: str) -> str:
    """The environment variable that names a namespace to hooks: LXC_MNT_NS."""
    return f"LXC_{name.upper()}_NS"


def _environment(
    config: Config, record: state.Record, target: str, namespaces: Mapping[str, int]
) -> dict[str, str]:
    environment = hooks.base_environment(
        config,
        name=record["name"],
        config_file=record["config"],
        caller=record["options"]["environ"],
        target=target,
    )
    for name, fd in namespaces.items():
        environment[variable(name)] = f"/proc/{os.getpid()}/fd/{fd}"
    if record.get("init"):
        environment["LXC_PID"] = str(record["init"][0])
    return environment


def _remove_network(record: state.Record, environment: Mapping[str, str] | None, netns: int | None) -> bool:
    """Whether that went well. environment: of script.down, which is not run without it."""
    script = joins.network_script(environment, fatal=False) if environment is not None else None
    try:
        with links.Network(script) as network:
            network.remove(record["network"], netns)
        return True
    except (LxcpyError, OSError) as error:
        LOG.error(str(error))
        return False


def remove_groups(cgroups: dict[str, Any]) -> list[str]:
    """Remove a container's control groups; what remains. Those that its root made are not an ordinary user's own."""
    left = cgroup_tree.remove(cgroups, timeout=0.2 if mapped.needed() else 2.0)
    if left and mapped.needed():
        try:
            return list(mapped.apart(lambda: cgroup_tree.remove(cgroups)))
        except (LxcpyError, OSError) as error:
            LOG.error(str(error))
    return left


def _kill_rest(record: state.Record) -> None:
    """End what still runs in the container's groups; with a pid namespace of its own nothing does."""
    cgroups: dict[str, Any] | None = record.get("cgroups")
    if cgroups and cgroup_control.processes(cgroups):
        cgroup_control.kill(cgroups)


def _anything_left(record: state.Record) -> bool:
    return bool(record.get("cgroups") and cgroup_tree.remove(record["cgroups"], timeout=0.0))
