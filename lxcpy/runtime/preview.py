"""`lxcpy-start --dry-run`: every step of a start, as the plans say it, with nothing done."""

from __future__ import annotations

from typing import Any

from lxcpy.cgroups import layout as cgroup_layout
from lxcpy.cgroups import plan as cgroup_plan
from lxcpy.rootfs import plan as rootfs_plan
from lxcpy.runtime import hooks, ids, joins
from lxcpy.runtime.launcher import Options
from lxcpy.security import caps


def preview(values: dict[str, Any]) -> list[str]:
    """The steps as lines under headings. values: Container.options(). Raises what the start would raise as early."""
    options = Options(**values)
    config, _text = joins.load(options.config, options)
    hooks.check_environment(config, options.environ)
    spaces = joins.namespaces(config, options.share)
    uids, gids = ids.ranges(config)
    ids.check_user(config, spaces)
    cgroups = cgroup_plan.plan(
        config.cgroup,
        name=options.name,
        layout=cgroup_layout.detect(),
        pattern=joins.system_value("lxc.cgroup.pattern"),
        use=joins.cgroup_use(),
        owner=ids.root(uids, gids),
    )
    network = joins.plan_network(config, options.name, options.lxcpath)
    joins.check_rootfs(config)
    rootfs = rootfs_plan.plan(config, joins.rootfs_facts(config, options, spaces=spaces, cgroups=cgroups.record()))
    sections = {
        "hooks": _hooks(config),
        "namespaces": [*(f"new {name}" for name in spaces.new), *(f"share {name}" for name in spaces.share)],
        "ids": [f"{kind} {r.nsid} is {r.hostid} of the host, {r.count} of them" for kind, ranges in
                (("user", uids), ("group", gids)) for r in ranges],
        "control groups": cgroups.describe(),
        "network": network.describe(),
        "root filesystem": rootfs.describe(),
        "capabilities": [line for line in [str(caps.plan(config.cap, at=config.at))] if line],
        "init": [" ".join(joins.init_command(config, options))],
    }  # fmt: skip
    shown = ((f"{title}:", *(f"  {row}" for row in rows)) for title, rows in sections.items() if rows)
    return [line for lines in shown for line in lines]


def _hooks(config: Any) -> list[str]:
    names = ("pre-start", "pre-mount", "mount", "autodev", "start-host", "start")
    return [f"{name}: {script}" for name in names for script in getattr(config.hook, name.replace("-", "_"))]
