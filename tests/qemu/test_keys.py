"""The rows of tests/effects.py that this host's kernel cannot show: their tests, in virtual machines that can."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from effects import EFFECTS, Elsewhere

from qemu.machine import CGROUP2, Machine, package, skip
from qemu.test_cgroups import answers_of

ROWS = {key: row for key, row in EFFECTS.items() if isinstance(row, Elsewhere) and row.guest}
# The smallest policy: two types, of which the first may become the second; what it does not know is allowed.
SIDS = (  # their order is the kernel's, security/selinux/include/initial_sid_to_string.h
    "kernel", "security", "unlabeled", "fs", "file", "file_labels", "init", "any_socket", "port", "netif", "netmsg",
    "node", "igmp_packet", "icmp_socket", "tcp_socket", "sysctl_modprobe", "sysctl", "sysctl_fs", "sysctl_kernel",
    "sysctl_net", "sysctl_net_unix", "sysctl_vm", "sysctl_dev", "kmod", "policy", "scmp_packet", "devnull",
)  # fmt: skip
POLICY = """\
class process
{sids}
class process {{ transition dyntransition setexec setkeycreate }}
sensitivity s0;
dominance {{ s0 }}
category c0;
level s0:c0;
mlsconstrain process {{ transition }} (h1 dom h2);
type kernel_t;
type container_t;
role system_r;
role system_r types {{ kernel_t container_t }};
allow kernel_t container_t:process {{ transition dyntransition }};
allow kernel_t kernel_t:process {{ setexec setkeycreate }};
user system_u roles {{ system_r }} level s0 range s0 - s0:c0;
{contexts}
"""
SELINUX = """\
mount -t selinuxfs selinuxfs /sys/fs/selinux
dd if=/policy of=/sys/fs/selinux/load bs=1M
"""


def answers(machine: Machine, guest: str) -> dict[str, Any]:
    """What the tests of this machine's rows said; one boot serves all."""
    machine.add_lxcpy()
    machine.add_pytest()
    tests = [row.test for row in ROWS.values() if row.guest == guest]
    return answers_of(machine, "guest_pytest.py", arguments=tests, timeout=300)


@pytest.fixture(scope="module")
def apparmor() -> dict[str, Any]:
    """With AppArmor, and with the network's modules that this kernel may lack."""
    parser = shutil.which("apparmor_parser")
    if parser is None:
        skip("no command apparmor_parser")
    machine = Machine(
        modules=("8021q", "ipvlan", "bridge", "veth"), append="cgroup_no_v1=all apparmor=1 security=apparmor"
    )
    machine.tree.add_program(str(parser), "/bin/apparmor_parser")
    return answers(machine, "apparmor")


@pytest.fixture(scope="module")
def selinux(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    machine = Machine(append="cgroup_no_v1=all security=selinux", mounts=CGROUP2 + SELINUX)
    machine.tree.add("/policy", policy(tmp_path_factory.mktemp("selinux")))
    return answers(machine, "selinux")


def policy(folder: Path) -> Path:
    """The policy, compiled."""
    compiler = shutil.which("checkpolicy") or str(package("checkpolicy") / "usr/bin/checkpolicy")
    lines = {"sids": "\n".join(f"sid {sid}" for sid in SIDS)}
    lines["contexts"] = "\n".join(f"sid {sid} system_u:system_r:kernel_t:s0" for sid in SIDS)
    (folder / "policy.conf").write_text(POLICY.format(**lines))
    argv = [compiler, "-M", "-U", "allow", "-c", "33", "-o", "policy", "policy.conf"]
    subprocess.run(argv, cwd=folder, check=True, capture_output=True)
    return folder / "policy"


@pytest.mark.parametrize("key", ROWS)
def test_what_only_another_kernel_shows(request: pytest.FixtureRequest, key: str) -> None:
    found = request.getfixturevalue(ROWS[key].guest)
    answer = found.get(ROWS[key].test)
    assert answer, f"{ROWS[key].test} did not run"
    assert answer["ok"], answer["value"]
