"""Debian's releases as their users have them: created by the template, booted, fed by apt.

A long one, from the host's own mirror: LXCPY_TEST_SUITES="oldstable stable testing sid" (or "all").
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import debcompare
import pytest
from probes import requires
from ubuntumirror import host_suite

Run = Callable[..., "subprocess.CompletedProcess[str]"]
pytestmark = [
    requires("root", "gpgv", "bridge"),
    pytest.mark.timeout(900),
    pytest.mark.skipif(not debcompare.SUITES, reason="a long one: set LXCPY_TEST_SUITES"),
]
NIC = "lxc.net.0.type = veth\nlxc.net.0.link = lxcbr0\nlxc.net.0.flags = up\n"
# The bridge leads nowhere: apt runs in its tree with the host's, as it would in a container that has one.
INSIDE = """
mount -t proc proc "$0/proc"
mount -t tmpfs tmpfs "$0/tmp"
rm -f "$0/etc/resolv.conf" # the bridge's, by now
cat /etc/resolv.conf >"$0/etc/resolv.conf"
exec chroot "$0" env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive sh -ec "$1"
"""


class Box:
    """A container of one release."""

    def __init__(self, run: Run, lxcpath: str, name: str) -> None:
        self.run, self.lxcpath, self.name = run, lxcpath, name
        self.rootfs = Path(lxcpath, name, "rootfs")

    def __call__(self, command: str, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
        return self.run(command, "-P", self.lxcpath, "-n", self.name, *words, **options)

    def boots(self) -> None:
        """Start it, wait until systemd says that all is well, stop it."""
        started = self("start")
        assert started.returncode == 0, started.stderr
        deadline = time.monotonic() + 120
        state = ""
        while state not in ("running", "degraded") and time.monotonic() < deadline:
            time.sleep(0.3)
            state = self("attach", "--", "systemctl", "is-system-running").stdout.strip()
        assert state == "running", self("attach", "--", "systemctl", "--failed").stdout
        assert self("attach", "--", "dpkg", "--audit").stdout == ""
        assert self("stop", "-t", "60").returncode == 0

    def inside(self, script: str) -> str:
        argv = ["unshare", "-m", "-p", "-f", "--kill-child", "sh", "-ec", INSIDE, str(self.rootfs), script]
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout + done.stderr


@pytest.fixture
def box(run: Run, network: None, lxcpath: str, name: str) -> Iterator[Box]:
    found = Box(run, lxcpath, name)
    yield found
    found("destroy", "-f")


@pytest.mark.parametrize("suite", debcompare.SUITES)
def test_a_release_boots_and_is_updated(box: Box, suite: str) -> None:
    mirror = host_suite()[0]
    Path(box.lxcpath, "conf").write_text(NIC)
    # As the release was published; what came later is left to apt.
    words = ["-r", suite, f"--mirror={mirror}", "--security-mirror=none", "--no-check-valid-until"]
    made = box("create", "-t", "debian", "-f", f"{box.lxcpath}/conf", "--", *words, timeout=600)
    assert made.returncode == 0, made.stderr
    box.boots()
    sources = box.rootfs / "etc/apt/sources.list"
    codename = debcompare.codename(suite)
    if codename != "sid":
        with sources.open("a") as file:
            file.write(f"deb {mirror}-security {codename}-security main\n")
    quiet = "-q -o Acquire::Check-Valid-Until=false"
    said = box.inside(f"apt-get {quiet} update")
    assert not any(line.startswith(("W:", "E:")) for line in said.splitlines()), said
    box.inside(f"apt-get {quiet} install -y less && less --version")
    assert debcompare.states(box.rootfs)["less"].split()[2] == "ii"
    said = box.inside(f"apt-get {quiet} dist-upgrade -y && dpkg --audit && apt-get check")
    print(next(line for line in said.splitlines() if " upgraded, " in line))
    assert box.inside("apt-get -s dist-upgrade | tail -n 1").startswith("0 upgraded, 0 newly installed")
    box.inside("apt-get purge -y less && dpkg --audit")
    box.boots()
