"""Capabilities, filters and labels put on a process, read back from procfs after exec."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from probes import requires

from lxcpy.config.model import Cap
from lxcpy.errors import SecurityError
from lxcpy.kernel import capability, mount, proc
from lxcpy.security import apparmor, caps, seccomp, selinux

pytestmark = requires("root")
Isolated = Callable[..., Any]


def _after_exec() -> dict[str, str]:
    return proc.status(subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True, check=True).stdout)


def _mask(status: dict[str, str], name: str) -> frozenset[int]:
    return frozenset(bit for bit in range(64) if int(status[name], 16) >> bit & 1)


def test_dropped_capabilities_are_gone_for_good(isolated: Isolated) -> None:
    plan = caps.plan(Cap(drop=("sys_time", "mac_admin", "net_raw")))

    def inside() -> dict[str, str]:
        now = capability.get()
        capability.set(now.effective, now.permitted, {13, 25})  # as some managers leave it
        caps.apply(plan)
        return _after_exec()

    before, after = _after_exec(), isolated(inside)
    for name in ("CapEff", "CapPrm", "CapBnd"):
        assert _mask(after, name) == _mask(before, name) - plan.drop
    assert _mask(after, "CapInh") & plan.drop == frozenset()


def test_keep_nothing(isolated: Isolated) -> None:
    def inside() -> dict[str, str]:
        caps.apply(caps.plan(Cap(keep=())))
        return _after_exec()

    assert isolated(inside)["CapEff"] == "0" * 16


def test_the_filter_can_still_be_installed_after_sys_admin_is_dropped(isolated: Isolated) -> None:
    policy = seccomp.parse("2\ndenylist\nmkdir errno 18\nmkdirat errno 18\nreject_force_umount\n", "f")
    program = seccomp.compile(policy)

    def inside() -> tuple[str, list[int]]:
        caps.apply(caps.plan(Cap(drop=("sys_admin",))))
        assert seccomp.apply(program) is None
        codes = []
        for attempt in (lambda: os.mkdir("/tmp/never"), lambda: mount.umount("/nowhere", mount.MNT_FORCE)):
            with pytest.raises(OSError) as error:
                attempt()
            codes.append(error.value.errno)
        assert seccomp.active()
        return _after_exec()["Seccomp"], codes

    assert isolated(inside) == ("2", [errno.EXDEV, errno.EACCES])


def test_a_joining_process_gets_the_same_bounding_set(isolated: Isolated) -> None:
    def inside() -> frozenset[int]:
        caps.apply(caps.plan(Cap(drop=("chown", "kill"))))
        wanted = int(_after_exec()["CapBnd"], 16)
        return caps.plan_like(wanted).drop

    assert isolated(inside) >= {0, 5}


def test_errors_are_explained(isolated: Isolated) -> None:
    program = seccomp.compile(seccomp.parse("2\ndenylist\nmkdir errno 1\n", "the file"))

    def drop() -> None:
        os.setuid(65534)
        caps.apply(caps.plan(Cap(drop=("chown",))))

    def install() -> None:
        os.setuid(65534)
        seccomp.apply(program)

    with pytest.raises(SecurityError, match="cannot drop capabilities: Operation not permitted"):
        isolated(drop)
    with pytest.raises(SecurityError, match='cannot install the system call filter "the file": Permission denied'):
        isolated(install)


def test_machines_without_labels() -> None:
    if apparmor.machine().enabled or selinux.enabled():
        pytest.skip("this kernel has AppArmor or SELinux")
    assert apparmor.label_of(os.getpid()) is None and selinux.context_of(os.getpid()) is None
    with pytest.raises(SecurityError, match="cannot set the SELinux context"):
        selinux.apply("system_u:system_r:lxc_t:s0")
    apparmor.remove({})
    apparmor.remove({"profile": "/nowhere"})


@requires("apparmor")
def test_a_generated_profile_is_loaded_and_entered(isolated: Isolated) -> None:
    from lxcpy.config.model import Apparmor

    config = Apparmor(profile="generated")
    label = apparmor.plan(config, name="t", lxcpath="/tmp/lxcpy-test", userns=False, host=apparmor.machine())
    assert label is not None
    record = apparmor.load(label)
    try:

        def inside() -> str | None:
            apparmor.apply(label, apparmor.open_attribute())
            return apparmor.label_of(os.getpid())

        assert isolated(inside) == label.name
    finally:
        apparmor.remove(record)
