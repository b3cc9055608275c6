"""What each key does, and where that is seen: the proof that no key is parsed and ignored.

A row names the test that observes the key's effect in a real container, from inside or from the kernel. Where this
machine cannot show it, the row is Elsewhere, with the reason and, if there is one, the test that shows it where it can
be seen. tests/style/test_effects.py compares the table with the key table.

    python tests/effects.py [KEY...]

runs each row's test without its key: the lines that set it are taken out of the containers' configs. A test that passes
nevertheless proves nothing; tests/lifecycle/test_effects.py does the same.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent
WITHOUT = "LXCPY_WITHOUT_KEYS"


class Elsewhere(NamedTuple):
    """An effect that cannot be seen here."""

    reason: str
    test: str = ""  # sees it on a machine that has what is missing here; skipped without
    needs: str = ""  # that, as a word of tests/probes.py
    guest: str = ""  # the virtual machine of tests/qemu/test_keys.py that has it, in which the test runs


IDENTITY, INIT, ROOTFS, NET, CGROUP, SECURITY, TERMINAL, HOOKS, OWN = (
    f"tests/lifecycle/test_keys_{family}.py::test_"
    for family in ("identity", "init", "rootfs", "net", "cgroup", "security", "terminal", "hooks", "own")
)
REMOVED = "LXC has removed it: it is read, left out with a warning, and has no effect"
NO_VLANS = "the kernel lacks CONFIG_BRIDGE_VLAN_FILTERING"
NO_IPVLAN = "the kernel lacks CONFIG_IPVLAN"
NO_APPARMOR = "the kernel lacks CONFIG_SECURITY_APPARMOR"
NO_SELINUX = "the kernel was booted without SELinux"
EFFECTS: dict[str, str | Elsewhere] = {
    "lxc.arch": IDENTITY + "arch",
    "lxc.uts.name": IDENTITY + "uts_name",
    "lxc.include": IDENTITY + "include",
    "lxc.group": IDENTITY + "group",
    "lxc.ephemeral": IDENTITY + "ephemeral",
    "lxc.start.auto": IDENTITY + "start_auto",
    "lxc.start.delay": IDENTITY + "start_delay",
    "lxc.start.order": IDENTITY + "start_order",
    "lxc.log.file": IDENTITY + "log_file",
    "lxc.log.level": IDENTITY + "log_level",
    "lxc.log.syslog": IDENTITY + "log_syslog",
    "lxc.kmsg": Elsewhere(REMOVED),
    "lxc.init.cmd": INIT + "init_cmd",
    "lxc.init.uid": INIT + "init_uid",
    "lxc.init.gid": INIT + "init_gid",
    "lxc.init.groups": INIT + "init_groups",
    "lxc.init.cwd": INIT + "init_cwd",
    "lxc.execute.cmd": INIT + "execute_cmd",
    "lxc.environment": INIT + "environment",
    "lxc.environment.runtime": INIT + "environment_runtime",
    "lxc.environment.hooks": INIT + "environment_hooks",
    "lxc.signal.halt": INIT + "signal_halt",
    "lxc.signal.reboot": INIT + "signal_reboot",
    "lxc.signal.stop": INIT + "signal_stop",
    "lxc.namespace.clone": INIT + "namespace_clone",
    "lxc.namespace.keep": INIT + "namespace_keep",
    "lxc.namespace.share.*": INIT + "namespace_share",
    "lxc.time.offset.boot": INIT + "time_offset_boot",
    "lxc.time.offset.monotonic": INIT + "time_offset_monotonic",
    "lxc.sched.core": Elsewhere("the kernel lacks CONFIG_SCHED_CORE", INIT + "sched_core", "sched-core"),
    "lxc.keyring.session": INIT + "keyring_session",
    "lxc.prlimit.*": INIT + "prlimit",
    "lxc.sysctl.*": INIT + "sysctl",
    "lxc.proc.*": INIT + "proc",
    "lxc.rootfs.path": ROOTFS + "rootfs_path",
    "lxc.rootfs.mount": ROOTFS + "rootfs_mount",
    "lxc.rootfs.options": ROOTFS + "rootfs_options",
    "lxc.rootfs.managed": ROOTFS + "rootfs_managed",
    "lxc.rootfs.backend": ROOTFS + "rootfs_backend",
    "lxc.pivotdir": Elsewhere(REMOVED),
    "lxc.mount.fstab": ROOTFS + "mount_fstab",
    "lxc.mount.entry": ROOTFS + "mount_entry",
    "lxc.mount.auto": ROOTFS + "mount_auto",
    "lxc.autodev": ROOTFS + "autodev",
    "lxc.autodev.tmpfs.size": ROOTFS + "autodev_tmpfs_size",
    "lxc.net": NET + "net",
    "lxc.net.[i]": NET + "net_i",
    "lxc.net.[i].type": NET + "net_type",
    "lxc.net.[i].flags": NET + "net_flags",
    "lxc.net.[i].link": NET + "net_link",
    "lxc.net.[i].l2proxy": NET + "net_l2proxy",
    "lxc.net.[i].name": NET + "net_name",
    "lxc.net.[i].hwaddr": NET + "net_hwaddr",
    "lxc.net.[i].mtu": NET + "net_mtu",
    "lxc.net.[i].ipv4.address": NET + "net_ipv4_address",
    "lxc.net.[i].ipv4.gateway": NET + "net_ipv4_gateway",
    "lxc.net.[i].ipv6.address": NET + "net_ipv6_address",
    "lxc.net.[i].ipv6.gateway": NET + "net_ipv6_gateway",
    "lxc.net.[i].script.up": NET + "net_script_up",
    "lxc.net.[i].script.down": NET + "net_script_down",
    "lxc.net.[i].veth.mode": NET + "net_veth_mode",
    "lxc.net.[i].veth.pair": NET + "net_veth_pair",
    "lxc.net.[i].veth.n_rxqueues": NET + "net_veth_n_rxqueues",
    "lxc.net.[i].veth.n_txqueues": NET + "net_veth_n_txqueues",
    "lxc.net.[i].veth.ipv4.route": NET + "net_veth_ipv4_route",
    "lxc.net.[i].veth.ipv6.route": NET + "net_veth_ipv6_route",
    "lxc.net.[i].veth.vlan.id": Elsewhere(NO_VLANS, NET + "net_veth_vlan_id", "bridge-vlan", "apparmor"),
    "lxc.net.[i].veth.vlan.tagged.id": Elsewhere(NO_VLANS, NET + "net_veth_vlan_tagged_id", "bridge-vlan", "apparmor"),
    "lxc.net.[i].vlan.id": Elsewhere("the kernel lacks CONFIG_VLAN_8021Q", NET + "net_vlan_id", "vlan", "apparmor"),
    "lxc.net.[i].macvlan.mode": NET + "net_macvlan_mode",
    "lxc.net.[i].ipvlan.mode": Elsewhere(NO_IPVLAN, NET + "net_ipvlan_mode", "ipvlan", "apparmor"),
    "lxc.net.[i].ipvlan.isolation": Elsewhere(NO_IPVLAN, NET + "net_ipvlan_isolation", "ipvlan", "apparmor"),
    "lxc.cgroup.*": CGROUP + "cgroup",
    "lxc.cgroup2.*": CGROUP + "cgroup2",
    "lxc.cgroup.dir": CGROUP + "cgroup_dir",
    "lxc.cgroup.dir.container": CGROUP + "cgroup_dir_container",
    "lxc.cgroup.dir.container.inner": CGROUP + "cgroup_dir_container_inner",
    "lxc.cgroup.dir.monitor": CGROUP + "cgroup_dir_monitor",
    "lxc.cgroup.dir.monitor.pivot": CGROUP + "cgroup_dir_monitor_pivot",
    "lxc.cgroup.relative": CGROUP + "cgroup_relative",
    "lxc.cap.drop": SECURITY + "cap_drop",
    "lxc.cap.keep": SECURITY + "cap_keep",
    "lxc.idmap": SECURITY + "idmap",
    "lxc.no_new_privs": SECURITY + "no_new_privs",
    "lxc.seccomp.profile": SECURITY + "seccomp_profile",
    "lxc.seccomp.allow_nesting": SECURITY + "seccomp_allow_nesting",
    "lxc.seccomp.notify.cookie": SECURITY + "seccomp_notify_cookie",
    "lxc.seccomp.notify.proxy": SECURITY + "seccomp_notify_proxy",
    "lxc.apparmor.profile": Elsewhere(NO_APPARMOR, SECURITY + "apparmor_profile", "apparmor", "apparmor"),
    "lxc.apparmor.allow_incomplete": Elsewhere(
        NO_APPARMOR, SECURITY + "apparmor_allow_incomplete", "apparmor", "apparmor"
    ),
    "lxc.apparmor.allow_nesting": SECURITY + "apparmor_allow_nesting",
    "lxc.apparmor.raw": Elsewhere(NO_APPARMOR, SECURITY + "apparmor_raw", "apparmor", "apparmor"),
    "lxc.selinux.context": Elsewhere(NO_SELINUX, SECURITY + "selinux_context", "selinux", "selinux"),
    "lxc.selinux.context.keyring": Elsewhere(NO_SELINUX, SECURITY + "selinux_context_keyring", "selinux", "selinux"),
    "lxc.console.path": TERMINAL + "console_path",
    "lxc.console.logfile": TERMINAL + "console_logfile",
    "lxc.console.buffer.size": TERMINAL + "console_buffer_size",
    "lxc.console.size": TERMINAL + "console_size",
    "lxc.console.rotate": TERMINAL + "console_rotate",
    "lxc.tty.max": TERMINAL + "tty_max",
    "lxc.tty.dir": TERMINAL + "tty_dir",
    "lxc.pty.max": TERMINAL + "pty_max",
    "lxc.monitor.unshare": TERMINAL + "monitor_unshare",
    "lxc.monitor.signal.pdeath": TERMINAL + "monitor_signal_pdeath",
    "lxc.hook": HOOKS + "hook",
    "lxc.hook.version": HOOKS + "hook_version",
    "lxc.hook.pre-start": HOOKS + "hook_pre_start",
    "lxc.hook.pre-mount": HOOKS + "hook_pre_mount",
    "lxc.hook.mount": HOOKS + "hook_mount",
    "lxc.hook.autodev": HOOKS + "hook_autodev",
    "lxc.hook.start-host": HOOKS + "hook_start_host",
    "lxc.hook.start": HOOKS + "hook_start",
    "lxc.hook.stop": HOOKS + "hook_stop",
    "lxc.hook.post-stop": HOOKS + "hook_post_stop",
    "lxc.hook.clone": HOOKS + "hook_clone",
    "lxc.hook.destroy": HOOKS + "hook_destroy",
    "lxcpy.start.requires": OWN + "start_requires",
    "lxcpy.start.after": OWN + "start_after",
    "lxcpy.restart": OWN + "restart",
    "lxcpy.restart.delay": OWN + "restart_delay",
    "lxcpy.restart.delay.max": OWN + "restart_delay_max",
    "lxcpy.restart.limit": OWN + "restart_limit",
    "lxcpy.restart.period": OWN + "restart_period",
}


def test_of(key: str) -> str:
    """The node of a row's test; empty where it has none."""
    row = EFFECTS[key]
    return row if isinstance(row, str) else row.test


def pattern(key: str) -> re.Pattern[str]:
    """Matches the keys of a row: [i] is a number, * anything."""
    return re.compile(re.escape(key).replace(r"\[i\]", r"\d+").replace(r"\*", r".+"))


def without(text: str, key: str) -> str:
    """A config's text less the lines that set a key."""
    matches = pattern(key).fullmatch
    return "".join(line for line in text.splitlines(True) if not matches(line.partition("=")[0].strip()))


def config_for(node: str, text: str) -> str:
    """The config that the test `node` is to get: less its row's key while the tests are put to the test."""
    if not os.environ.get(WITHOUT):
        return text
    return next((without(text, key) for key in EFFECTS if test_of(key) == node.partition("[")[0]), text)


class Verdicts:
    """A plugin of pytest: how each test ended."""

    def __init__(self) -> None:
        self.passed: set[str] = set()
        self.failed: set[str] = set()
        self.skipped: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        node = report.nodeid.partition("[")[0]
        if report.failed:
            self.failed.add(node)
        elif report.skipped:
            self.skipped.add(node)
        elif report.passed and report.when == "call":
            self.passed.add(node)


def main(keys: list[str]) -> int:
    """Run the tests of these keys without the keys. 0: all of them fail."""
    tests = {key: test_of(key) for key in keys if test_of(key)}
    os.environ[WITHOUT] = "1"
    os.chdir(ROOT)
    verdicts = Verdicts()
    pytest.main(["-q", "--tb=no", "-p", "no:cacheprovider", *tests.values()], plugins=[verdicts])
    wrong = [key for key, test in tests.items() if test in verdicts.passed - verdicts.failed]
    unknown = [key for key, test in tests.items() if test not in verdicts.passed | verdicts.failed | verdicts.skipped]
    for key in wrong:
        print(f"{key}: {tests[key]} passes without it")
    for key in unknown:
        print(f"{key}: {tests[key]} did not run")
    return 1 if wrong or unknown else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(EFFECTS)))
