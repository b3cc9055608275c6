"""lxcpy-doctor: each thing is broken for real, told, and where --fix mends it the container starts afterwards."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jsonpages
import pytest
from netns import sh

from lxcpy.kernel import mount
from lxcpy.runtime import client

if TYPE_CHECKING:
    from conftest import Box, Define, Run

pytestmark = pytest.mark.requires("root", "busybox")
FLAT = "lxc.rootfs.path = dir:{rootfs}\nlxc.init.cmd = /bin/sh /init\nlxc.mount.auto = proc:mixed sys:ro\n"
VETH = "lxc.net.0.type = veth\nlxc.net.0.link = lxcbr0\nlxc.net.0.flags = up\n"
MAP = "lxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 100000 65536\n"


class Doctor:
    """The command on one container."""

    def __init__(self, run: Run, box: Box) -> None:
        self.run, self.box = run, box

    def __call__(self, *words: str, status: int | None = None) -> list[dict[str, Any]]:
        """The findings that are not ok."""
        done = self.run("doctor", "-P", self.box.lxcpath, "--json", self.box.name, *words)
        assert done.stderr == ""
        self.all = jsonpages.read("lxcpy-doctor NAME --json", done.stdout)
        found = [it for it in self.all["findings"] if it["severity"] != "ok"]
        assert done.returncode == (1 if any(it["severity"] == "error" for it in found) else 0)
        assert status is None or done.returncode == status, found
        return found

    def one(self, severity: str, check: str, words: str) -> dict[str, Any]:
        """The finding of that kind; each has a reason and a cure."""
        found = self()
        [it] = [it for it in found if (it["severity"], it["check"]) == (severity, check) and words in it["what"]]
        assert it["cure"] and (it["why"] or check == "config"), it
        return it

    def mends(self, what: str) -> None:
        """--fix does that, nothing is wrong afterwards, and the container starts."""
        self("--fix", status=0)
        assert self.all["fixes"] == [f"fixed: {what}"]
        self.box.start()
        self.box.kill(20)


@pytest.fixture
def doctor(run: Run) -> Callable[[Box], Doctor]:
    return lambda box: Doctor(run, box)


def test_nothing_is_wrong(doctor: Callable[[Box], Doctor], box: Define, run: Run) -> None:
    one = box()
    assert [it for it in doctor(one)() if it["severity"] == "error"] == []
    one.start()
    done = run("doctor", "-P", one.lxcpath, "-n", one.name)
    assert done.returncode == 0
    assert f"it is running (init is pid {one.init_pid})" in done.stdout
    assert '"/bin/sh" is a program for x86_64' in done.stdout or os.uname().machine != "x86_64"
    done = run("doctor", "-P", one.lxcpath, f"{one.name}x")
    assert (done.returncode, done.stdout) == (1, "")
    assert f'hint: did you mean "{one.name}"?' in done.stderr


def test_errors_of_the_config_have_their_line(doctor: Callable[[Box], Doctor], box: Define) -> None:
    one = box("lxc.tty.mx = 4\n")
    lines = Path(one.config_file).read_text().splitlines()
    found = doctor(one).one("error", "config", "lxc.tty.mx")
    at = {"file": one.config_file, "line": lines.index("lxc.tty.mx = 4") + 1, "via": []}
    assert (found["at"], "lxc.tty.max" in found["cure"]) == (at, True)


def test_init(doctor: Callable[[Box], Doctor], box: Define) -> None:
    one = box("lxc.init.cmd = /sbin/init\n")
    init, busybox = Path(one.rootfs, "sbin/init"), Path(one.rootfs, "bin/busybox")
    check = doctor(one)
    assert "create the container anew" in check.one("error", "init", "there is no init")["cure"]
    init.symlink_to("/../../../../../../bin/bash")  # the host's must not be found
    check.one("error", "init", "there is no init")
    init.unlink()
    data = busybox.read_bytes()
    init.write_bytes(data[:18] + b"\xf7\x00" + data[20:])  # EM_BPF, which no machine runs
    init.chmod(0o755)
    check.one("error", "init", "is a program for machine 247")
    init.unlink()
    init.write_text("#!/bin/bash\n")
    init.chmod(0o755)
    check.one("error", "init", "needs /bin/bash")
    init.write_text("#!/bin/sh\nexec /bin/sh /init\n")
    init.chmod(0o644)
    assert check.one("error", "init", "is not executable (mode 0644)")["fixable"]
    check.mends('chmod +x "/sbin/init" inside the root filesystem')


@pytest.mark.requires("overlay")
def test_a_root_filesystem_that_has_to_be_mounted(doctor: Callable[[Box], Doctor], box: Define, run: Run) -> None:
    one = box()
    assert run("copy", "-P", one.lxcpath, "-s", "-B", "overlay", "-n", one.name, "-N", f"{one.name}o").returncode == 0
    try:
        before = Path("/proc/self/mountinfo").read_text()
        done = run("doctor", "-P", one.lxcpath, f"{one.name}o")
        assert done.returncode == 0, done.stdout
        assert 'init:        "/bin/sh" is a program' in done.stdout
        assert Path("/proc/self/mountinfo").read_text() == before
    finally:
        run("destroy", "-P", one.lxcpath, f"{one.name}o")


@pytest.mark.requires("userns")
def test_the_way_to_the_root_filesystem(doctor: Callable[[Box], Doctor], box: Define) -> None:
    one = box(MAP)
    check = doctor(one)
    assert "idmap=container" in check.one("warning", "rootfs", "belongs to uid 0")["cure"]
    sh(f"chown -R 100000:100000 {one.rootfs}", f"chmod 0700 {one.directory}")
    assert check.one("error", "rootfs", "may not be walked through")["fixable"]
    check.mends(f"chmod o+x {one.directory}")
    assert os.stat(one.directory).st_mode & 0o777 == 0o701


@pytest.mark.requires("userns")
def test_ids_that_somebody_else_has(own_host: str, doctor: Callable[[Box], Doctor], box: Define) -> None:
    one = box(MAP)
    sh(f"chown -R 100000:100000 {one.rootfs}")
    table = Path(one.directory, "subuid")
    for path in ("/etc/subuid", "/etc/subgid"):
        table.touch()
        subprocess.run(["mount", "--bind", str(table), path], check=True)
    check = doctor(one)
    table.write_text("root:100000:1000\n")
    cures = {it["cure"] for it in check() if it["check"] == "ids"}
    assert cures == {f"usermod --add-sub{kind}ids 100000-165535 root" for kind in "ug"}
    table.write_text("alice:150000:65536\n")
    assert check.one("warning", "ids", "/etc/subuid grants some of that to alice")["at"]["file"] == one.config_file
    table.write_text("root:100000:65536\n")
    assert [it for it in check() if it["check"] == "ids"] == []


def test_groups_that_cannot_be_made(own_host: str, doctor: Callable[[Box], Doctor], box: Define) -> None:
    from lxcpy.cgroups import layout

    one = box()
    place = layout.detect().hierarchies[0].mount
    mount.mount(None, place, None, mount.MS_REMOUNT | mount.MS_BIND | mount.MS_RDONLY)  # here alone
    found = doctor(one).one("error", "cgroups", f"no group can be made in {place}")
    assert "mount -o remount,rw" in found["cure"]


def test_a_mount_that_allows_no_programs_and_has_no_room(
    own_host: str, doctor: Callable[[Box], Doctor], box: Define
) -> None:
    one = box()
    check = doctor(one)
    mount.mount(one.rootfs, one.rootfs, None, mount.MS_BIND)
    mount.mount(None, one.rootfs, None, mount.MS_REMOUNT | mount.MS_BIND | mount.MS_NOEXEC | mount.MS_NOSUID)
    check.one("error", "rootfs", "on a mount with noexec")
    check.one("warning", "rootfs", "on a mount with nosuid")
    mount.umount(one.rootfs)
    sh(f"mv {one.rootfs} {one.directory}/kept", f"mkdir {one.rootfs}", f"mount -t tmpfs -o size=4m none {one.rootfs}")
    sh(f"cp -a {one.directory}/kept/. {one.rootfs}")
    check.one("warning", "disk", "the root filesystem's disk has")
    sh(f"head -c 8m /dev/zero > {one.rootfs}/full || :")
    check.one("error", "disk", "the root filesystem's disk has 0 MiB left")
    sh(f"umount {one.rootfs}", f"rmdir {one.rootfs}", f"mv {one.directory}/kept {one.rootfs}")


def test_an_old_and_a_new_systemd(doctor: Callable[[Box], Doctor], box: Define, run: Run) -> None:
    from lxcpy.cgroups import layout

    one = box("lxc.init.cmd = /sbin/init\nlxc.mount.auto = cgroup:rw:force\n")
    folder = Path(one.rootfs, "usr/lib/systemd")
    folder.mkdir(parents=True)
    shutil.copy(Path(one.rootfs, "bin/busybox"), folder / "systemd")
    Path(one.rootfs, "sbin/init").symlink_to("../usr/lib/systemd/systemd")
    library = folder / "libsystemd-shared-259.so"
    library.touch()
    check = doctor(one)
    kind = layout.detect().kind
    if kind == "v2":
        library.rename(folder / "libsystemd-shared-231.so")
        check.one("error", "systemd", "systemd 231 inside needs a v1 hierarchy")
        return
    check.one("error", "systemd", "systemd 259 inside needs cgroup v2")
    library.rename(folder / "libsystemd-shared-252.so")
    assert "systemd 252 inside can live" in run("doctor", "-P", one.lxcpath, one.name).stdout


def test_a_profile_that_cannot_be_had(doctor: Callable[[Box], Doctor], box: Define) -> None:
    one = box("lxc.apparmor.profile = lxcpy-no-such-profile\n")
    enabled = Path("/sys/module/apparmor/parameters/enabled")
    there = enabled.exists() and enabled.read_text().strip() == "Y"
    doctor(one).one("error" if there else "warning", "apparmor", "profile" if there else "this kernel has no AppArmor")


def test_a_supervisor_that_hangs(own_host: str, doctor: Callable[[Box], Doctor], box: Define) -> None:
    one = box()
    one.start()
    one.kill(20)
    found = client.connect_if_any()
    if found is None:
        pytest.skip("the supervisor left as soon as it was idle")
    with found:
        pid = found.ask("status")["pid"]
        os.kill(pid, signal.SIGSTOP)
        try:
            doctor(one).one("error", "supervisor", "it does not answer")
        finally:
            os.kill(pid, signal.SIGCONT)


def test_the_machine_and_all_containers(box: Define, run: Run) -> None:
    one, other = box(), box("lxc.init.cmd = /gone\n")
    done = run("doctor", "-P", one.lxcpath)
    assert done.returncode == 1
    assert f"\n{one.name}: " in done.stdout
    assert '\nerror    init:        there is no init "/gone" in the root filesystem\n' in done.stdout
    value = jsonpages.read("lxcpy-doctor --json", run("doctor", "-P", one.lxcpath, "--json").stdout)
    assert {it["name"]: it["worst"] for it in value["containers"]}[other.name] == "error"
    assert {it["check"] for it in value["machine"]} >= {"supervisor", "cgroups", "disk"}


def test_a_name_in_a_root_filesystem_does_not_reach_the_terminal(box: Define, run: Run) -> None:
    one = box("lxc.init.cmd = /sbin/init\n")
    Path(one.rootfs, "sbin/init").write_text("#!/bin/\033]0;x\007\033[2J\n")
    Path(one.rootfs, "sbin/init").chmod(0o755)
    done = run("doctor", "-P", one.lxcpath, one.name)
    assert (done.returncode, "\033" in done.stdout, "\007" in done.stdout) == (1, False, False)
    assert "needs /bin/?]0;x??[2J" in done.stdout


@pytest.fixture
def lan(own_host: str, box: Define, run: Run) -> Iterator[Box]:
    """A container on lxcbr0, on a host of the test's own where nothing is up yet."""
    if not shutil.which("dnsmasq"):
        pytest.skip("needs dnsmasq")
    mount.mount("none", "/var/lib/misc", "tmpfs")
    mount.mount("none", "/etc/default", "tmpfs")  # no settings: the defaults
    sh("ip link set lo up", "sysctl -qw net.ipv4.ip_forward=0")
    yield box(VETH, base=FLAT)
    assert run("net", "stop").returncode == 0


@pytest.mark.requires("bridge", "veth")
def test_the_bridge_and_its_server(lan: Box, doctor: Callable[[Box], Doctor], run: Run) -> None:
    check = doctor(lan)
    assert check.one("error", "network", 'there is no link "lxcbr0"')["at"]["line"] == 5
    check.mends("lxcpy-net start")
    sh("ip link set lxcbr0 down")
    check.one("error", "network", '"lxcbr0" is down')
    check.mends("ip link set lxcbr0 up")
    sh("sysctl -qw net.ipv4.ip_forward=0")
    check.one("error", "network", "IPv4 forwarding is off")
    check.mends("sysctl -w net.ipv4.ip_forward=1")
    sh("nft delete table ip lxcpy")
    check.one("error", "network", 'nothing masquerades the addresses of "lxcbr0"')
    check.mends("lxcpy-net start")
    pid_file = Path(os.environ["LXCPY_RUN_DIR"], "dnsmasq.pid")
    pidfd = os.pidfd_open(int(pid_file.read_text()))
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)
    check.one("error", "network", 'nothing serves DHCP on "lxcbr0"')
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as holder:
        holder.bind(("10.0.3.1", 53))
        found = check.one("error", "network", "port 53 on 10.0.3.1 is taken by")
        assert f"(pid {os.getpid()})" in found["what"]
        assert not found["fixable"]
    check.mends("lxcpy-net start")


@pytest.mark.requires("bridge", "veth")
def test_firewalls_of_others(lan: Box, doctor: Callable[[Box], Doctor], run: Run) -> None:
    check = doctor(lan)
    assert run("net", "start").returncode == 0
    assert check() == [], "a clean host"
    sh("nft add table inet other", "nft 'add chain inet other f { type filter hook forward priority 0; policy drop; }'")
    found = check.one("error", "network", "(chain inet other f)")
    assert (found["fixable"], found["cure"]) == (
        False,
        "nft insert rule inet other f iifname lxcbr0 accept && nft insert rule inet other f oifname lxcbr0 accept",
    )  # fmt: skip
    sh(*found["cure"].split(" && "))
    assert check() == [], "what it says cures it"
    sh("nft delete table inet other", "iptables -P INPUT DROP")
    found = check.one("error", "network", "asks for by DHCP")
    sh(found["cure"])
    assert check() == [], "what it says cures it"
    sh("iptables -P INPUT ACCEPT", "iptables -P FORWARD DROP")
    sh(*check.one("error", "network", "what \"lxcbr0\" forwards")["cure"].split(" && "))
    assert check() == [], "what it says cures it"
    if shutil.which("iptables-legacy"):
        sh("iptables-legacy -P FORWARD DROP")
        sh(*check.one("error", "network", "(chain legacy filter FORWARD)")["cure"].split(" && "))
        assert check() == [], "what it says cures it"


@pytest.mark.requires("bridge", "veth", "macvlan")
def test_a_bridge_that_is_not_ours(own_host: str, box: Define, doctor: Callable[[Box], Doctor]) -> None:
    check = doctor(box(VETH.replace("lxcbr0", "br0"), base=FLAT))
    sh("ip link set lo up", "sysctl -qw net.ipv4.ip_forward=1", "ip link add br0 type veth peer name x")
    check.one("error", "network", '"br0" is no bridge')
    sh("ip link delete br0", "ip link add br0 type bridge", "ip address add 10.9.0.1/24 dev br0", "ip link set br0 up")
    check.one("warning", "network", 'nothing serves DHCP on "br0"')
    check.one("warning", "network", 'nothing masquerades the addresses of "br0"')
    sh("ip link add x type veth peer name y", "ip link add link x name nic0 type macvlan")
    sh("ip link set nic0 master br0")
    assert [it for it in check() if it["check"] == "network"] == []
    assert any("goes on behind nic0" in it["what"] for it in check.all["findings"])
