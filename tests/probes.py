"""What a test needs of the machine: `@requires("root", "overlay", "lxc>=5.0", "debootstrap")`.

A word is asked by trying, not by guessing. A test that misses something is skipped with the reason; where the word
stands in LXCPY_MUST_RUN (separated by commas, or "all"), it fails instead, so that nothing is skipped unseen in CI.
"""

from __future__ import annotations

import ctypes
import functools
import os
import re
import shutil
import subprocess
from collections.abc import Callable

import pytest


def requires(*words: str) -> pytest.MarkDecorator:
    """Mark a test with what it needs; conftest.py asks before the test runs."""
    return pytest.mark.requires(*words)


@functools.cache
def missing(word: str) -> str | None:
    """Why `word` is not to be had here; None where it is."""
    name, _, version = word.partition(">=")
    if name in _PROBES:
        return _PROBES[name]()
    if name == "lxc" or version:
        return _too_old(name, version or "1.0")
    return None if shutil.which(name) else f"no command {name}"


def must_run(word: str) -> bool:
    """Whether the absence of `word` is a failure."""
    wanted = os.environ.get("LXCPY_MUST_RUN", "").split(",")
    return word in wanted or word.partition(">=")[0] in wanted or "all" in wanted


def _too_old(name: str, version: str) -> str | None:
    program = "lxc-start" if name == "lxc" else name
    try:
        text = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return f"no command {program}"
    found = re.search(r"\d+(\.\d+)*", text)
    if not found:
        return f"{program} does not tell its version"
    have, want = ([int(part) for part in text.split(".")] for text in (found.group(), version))
    return None if have >= want else f"{program} is {found.group()}, not {version} or later"


def _tried(script: str, what: str) -> Callable[[], str | None]:
    """A probe that runs a shell script in namespaces of its own."""

    def probe() -> str | None:
        argv = ["unshare", "--mount", "--net", "--ipc", "sh", "-ec", script]
        done = subprocess.run(argv, capture_output=True, text=True, check=False)
        lines = (done.stderr.strip() or f"exit {done.returncode}").splitlines()
        return f"{what}: {lines[-1]}" if done.returncode else None

    return probe


def _root() -> str | None:
    return None if os.geteuid() == 0 else "not root"


def _mounted(fstype: str, controllers: bool = False) -> bool:
    with open("/proc/self/mountinfo") as file:
        mounts = [line.split(" - ") for line in file]
    places = [left.split()[4] for left, right in mounts if right.split()[0] == fstype]
    if not controllers:
        return bool(places)
    for place in places:
        with open(f"{place}/cgroup.controllers") as file:
            if file.read().strip():
                return True
    return False


def _library(name: str) -> Callable[[], str | None]:
    def probe() -> str | None:
        try:
            ctypes.CDLL(name)
        except OSError as error:
            return str(error)
        return None

    return probe


def _directory(path: str, what: str) -> Callable[[], str | None]:
    return lambda: None if os.path.isdir(path) else what


def _sched_core() -> str | None:
    libc, cookie = ctypes.CDLL(None, use_errno=True), ctypes.c_ulong()
    if libc.prctl(62, 0, 0, 0, ctypes.byref(cookie)) == 0:  # PR_SCHED_CORE, PR_SCHED_CORE_GET
        return None
    why = "no CONFIG_SCHED_CORE" if ctypes.get_errno() == 22 else os.strerror(ctypes.get_errno())
    return f"no core scheduling: {why}"


def _apparmor() -> str | None:
    try:
        with open("/sys/module/apparmor/parameters/enabled") as file:
            return None if file.read().strip() == "Y" else "AppArmor is off"
    except OSError:
        return "this kernel has no AppArmor"


def _python_lxc() -> str | None:
    done = subprocess.run(["/usr/bin/python3", "-c", "import _lxc"], capture_output=True, check=False)
    return "no python3-lxc" if done.returncode else None


_TMP = "mount -t tmpfs tmpfs /mnt; cd /mnt; mkdir a b c d; "
_PROBES: dict[str, Callable[[], str | None]] = {
    "root": _root,
    "namespaces": _tried("true", "no new namespaces"),
    "overlay": _tried(_TMP + "mount -t overlay overlay -o lowerdir=a,upperdir=b,workdir=c d", "no overlayfs"),
    "loop": _tried("test -e /dev/loop-control && losetup -f", "no loop devices"),
    "bridge": _tried("ip link add br9 type bridge", "no bridges"),
    "bridge-vlan": _tried("ip link add br9 type bridge vlan_filtering 1", "no VLAN filtering in bridges"),
    "veth": _tried("ip link add v8 type veth peer name v9", "no veth"),
    "macvlan": _tried("ip link add d0 type veth; ip link add m0 link d0 type macvlan", "no macvlan"),
    "ipvlan": _tried("ip link add d0 type veth; ip link add i0 link d0 type ipvlan", "no ipvlan"),
    "vlan": _tried("ip link add d0 type veth; ip link add v0 link d0 type vlan id 7", "no vlan"),
    "nftables": _tried("nft add table inet t", "no nftables"),
    "userns": _tried("unshare --user --map-root-user true", "no user namespaces"),
    "cgroup1": lambda: None if _mounted("cgroup") else "no cgroup v1 is mounted",
    "cgroup2": lambda: None if _mounted("cgroup2") else "no cgroup v2 is mounted",
    "cgroup2-controllers": lambda: None if _mounted("cgroup2", True) else "cgroup v2 has no controller here",
    "libseccomp": _library("libseccomp.so.2"),
    "sched-core": _sched_core,
    "apparmor": _apparmor,
    "selinux": _directory("/sys/fs/selinux", "this kernel has no SELinux"),
    "systemd": _directory("/run/systemd/system", "systemd does not run"),
    "kvm": lambda: None if os.access("/dev/kvm", os.W_OK) else "no /dev/kvm",
    "python3-lxc": _python_lxc,
    "newuidmap": lambda: None if shutil.which("newuidmap") else "no newuidmap",
    "lxc-user-nic": lambda: None if os.path.exists("/usr/libexec/lxc/lxc-user-nic") else "no lxc-user-nic",
    "lxc-tests": lambda: None if shutil.which("lxc-test-exit-code") else "no lxc-tests",
    "lxc-templates": _directory("/usr/share/lxc/templates", "no lxc-templates"),
}
