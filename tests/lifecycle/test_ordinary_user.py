"""Containers of an ordinary user: real ids, groups and network devices, in a sandbox with users of its own."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import ordinary
import pytest
from lxctests import runner
from ordinary import COUNT, FIRST, Place
from probes import requires
from session import TOKEN
from ubuntumirror import host_suite

ROOT = Path(__file__).parent.parent.parent
HOME = "/home/ann/.local/share/lxc"
pytestmark = requires("root", "busybox", "bridge", "veth", "dnsmasq", "newuidmap")


@pytest.fixture(scope="module")
def place(bin: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    links = f"{os.path.dirname(bin)}/ordinary-links"
    runner.make_links(links, bin)
    keep = [str(ROOT), os.path.dirname(links), sys.prefix, sys.base_prefix]
    with ordinary.place(links, keep, f"{TOKEN}-ordinary") as made:
        yield made


@pytest.fixture
def box(place: Place, name: str) -> Iterator[str]:
    """A container that is made and not started."""
    place.run("create", "-n", name, "-t", "busybox")
    yield name
    place.call("lxc-destroy", "-f", "-n", name)
    assert name not in place.root(f"ls {HOME}").split()


def configure(place: Place, name: str, lines: str) -> None:
    done = place.call("sh", "-c", f"cat >>{HOME}/{name}/config", stdin=lines)
    assert done.status == 0, done


def groups_of(place: Place, name: str) -> list[str]:
    """The control groups of a container, in all hierarchies."""
    return place.root(f"find /sys/fs/cgroup -type d -name 'lxc.payload.{name}'").split()


def test_life(place: Place, box: str) -> None:
    owner = place.root(f"stat -c '%u %g %a' {HOME}/{box} {HOME}/{box}/rootfs {HOME}/{box}/config")
    uid = place.call("id", "-u").output.strip()
    assert owner.split("\n")[:3] == [f"{FIRST} {uid} 770", f"{FIRST} {FIRST} 755", f"{uid} {uid} 640"]
    place.run("start", "-n", box)
    assert re.search(rf"^{box} +RUNNING .* true", place.run("ls", "-f"), re.MULTILINE)
    pid = place.run("info", "-n", box, "-p", "-H").strip()
    assert place.root(f"stat -c %u /proc/{pid}").strip() == str(FIRST)
    assert f"0 {FIRST} {COUNT}" in " ".join(place.root(f"cat /proc/{pid}/uid_map").split())
    assert place.run("attach", "-n", box, "--", "id", "-u").strip() == "0"
    # a terminal, which belongs to the container's root
    shown = place.run("attach", "-n", box, "--", "sh", "-c", "tty; stat -c %u $(tty)", terminal=True).split()
    assert shown[0].startswith("/dev/pts/") and shown[1] == "0", shown
    place.run("freeze", "-n", box)
    assert "FROZEN" in place.run("info", "-n", box, "-s")
    place.run("unfreeze", "-n", box)
    place.run("stop", "-n", box, "-r")
    assert place.run("attach", "-n", box, "--", "cat", "/proc/1/comm").strip() == "init"
    place.run("stop", "-n", box)
    assert "STOPPED" in place.run("info", "-n", box, "-s")
    assert groups_of(place, box) == []
    assert place.run("start", "-n", box, "-F", "--", "/bin/echo", "done") == "done\n"


def test_doctor(place: Place, box: str, bin: str) -> None:
    done = place.call(f"{bin}/lxcpy-doctor", box)
    assert done.status == 0, done.output
    assert f"the container's root (uid {FIRST}) reaches it" in done.output
    mode = place.root(f"stat -c %a {HOME}").strip()
    place.root(f"chmod 0700 {HOME}")
    assert f'"{HOME}" may not be walked through' in place.call(f"{bin}/lxcpy-doctor", box).output
    done = place.call(f"{bin}/lxcpy-doctor", "--fix", box)
    place.run("start", "-n", box)
    place.run("stop", "-n", box, "-k")
    place.root(f"chmod {mode} {HOME}")
    assert (done.status, f"fixed: chmod o+x {HOME}" in done.output) == (0, True), done.output


@requires("lxc-user-nic")
def test_doctor_looks_at_what_the_user_is_granted(place: Place, box: str, bin: str) -> None:
    configure(place, box, "lxc.net.0.type = veth\nlxc.net.0.link = lxcbr0\nlxc.net.0.flags = up\n")
    done = place.call(f"{bin}/lxcpy-doctor", box)
    assert 'lxc.net.0: /etc/lxc/lxc-usernet grants ann no veth on "lxcbr0"' in done.output
    place.root("echo ann veth lxcbr0 1 >>/etc/lxc/lxc-usernet")
    assert "grants ann no veth" not in place.call(f"{bin}/lxcpy-doctor", box).output
    place.root("sed -i /^ann/d /etc/lxc/lxc-usernet")
    configure(place, box, "lxc.net.0.type = macvlan\nlxc.net.0.link = lxcbr0\n")
    assert "an ordinary user's container cannot have type = macvlan" in place.call(f"{bin}/lxcpy-doctor", box).output


def test_the_supervisor_is_the_users(place: Place, box: str) -> None:
    place.run("start", "-n", box)
    uid = place.call("id", "-u").output.strip()
    run_dir = f"/run/user/{uid}/lxcpy"
    assert place.root(f"stat -c '%u %a' {run_dir} {run_dir}/supervisor.sock").split() == [uid, "700", uid, "600"]
    pid = place.root(f"cat {run_dir}/supervisor.lock").strip()
    assert place.root(f"stat -c %u /proc/{pid}").strip() == uid
    # without the variable, as in a shell of su(1): the same one
    assert "RUNNING" in place.call("env", "-u", "XDG_RUNTIME_DIR", "lxc-info", "-n", box, "-s").output
    for command in ("info", "attach", "stop", "freeze"):
        done = place.call(f"lxc-{command}", "-P", HOME, "-n", box, user="bob")
        assert (done.status, "belongs to another user" in done.output) == (1, True), (command, done)
    knock = f"import socket; socket.socket(socket.AF_UNIX).connect({run_dir + '/supervisor.sock'!r})"
    assert "Permission denied" in place.call(sys.executable, "-c", knock, user="bob").output
    place.root(f"kill -9 {pid}")
    assert "RUNNING" in place.run("info", "-n", box, "-s")
    place.run("attach", "-n", box, "--", "true")
    assert place.root(f"cat {run_dir}/supervisor.lock").strip() != pid
    console = f"(sleep 1; printf '\\001q') | timeout 30 lxc-console -n {box} -t 1"
    deadline = time.monotonic() + 30
    while "Connected to tty 1" not in (said := place.call("sh", "-c", console).output):
        assert time.monotonic() < deadline, said
    place.run("stop", "-n", box, "-k")
    assert groups_of(place, box) == []


def test_copies(place: Place, box: str, names: Callable[[], str]) -> None:
    clone, full, renamed = names(), names(), names()
    place.run("copy", "-n", box, "-N", clone, "-s")
    place.run("copy", "-n", box, "-N", full)
    place.run("start", "-n", clone)
    place.run("attach", "-n", clone, "--", "sh", "-c", "rm -r /mnt; mkdir /mnt; echo new >/root/file")
    place.run("stop", "-n", clone, "-k")
    place.run("start", "-n", clone)
    assert place.run("attach", "-n", clone, "--", "cat", "/root/file") == "new\n"
    place.run("stop", "-n", clone, "-k")
    refused = place.call("lxc-destroy", "-n", box)
    assert refused.status == 1 and clone in refused.output
    place.run("snapshot", "-n", full)
    place.run("snapshot", "-n", full, "-r", "snap0")
    place.run("snapshot", "-n", full, "-d", "snap0")
    place.run("copy", "-n", full, "-N", renamed, "-R")
    assert place.root(f"stat -c %u {HOME}/{renamed}/rootfs/etc/passwd").strip() == str(FIRST)
    place.run("copy", "-e", "-n", renamed, "-N", full, "-m", "bind=/usr/share:/mnt:ro,overlay=/home/ann:/opt")
    place.run("attach", "-n", full, "--", "sh", "-ec", "ls /mnt/doc >/dev/null; echo a >/opt/file")
    assert place.root("ls /home/ann") == ""
    place.run("stop", "-n", full, "-k")
    deadline = time.monotonic() + 30
    while full in place.run("ls", "-1").split():
        assert time.monotonic() < deadline
        time.sleep(0.1)
    place.run("destroy", "-n", renamed)
    place.run("destroy", "-n", clone)


def test_sharing(place: Place, box: str, names: Callable[[], str]) -> None:
    other = names()
    place.run("copy", "-n", box, "-N", other)
    place.run("start", "-n", box)
    done = place.call("lxc-start", "-n", other, "--share-net", box)
    assert done.status == 1
    assert "along with the user namespace: lxc.namespace.share.user" in done.output
    configure(place, other, f"lxc.namespace.share.user = {box}\n")
    place.run("start", "-n", other, "--share-net", box)
    pids = [place.run("info", "-n", name, "-p", "-H").strip() for name in (box, other)]
    spaces = [place.root(f"readlink /proc/{pid}/ns/user /proc/{pid}/ns/net") for pid in pids]
    assert spaces[0] == spaces[1]
    assert place.root(f"stat -c %u /proc/{pids[1]}").strip() == str(FIRST)
    assert place.run("attach", "-n", other, "--", "id", "-u").strip() == "0"
    place.run("destroy", "-f", "-n", other)


@requires("lxc-user-nic")
def test_network(place: Place, box: str, name: str, names: Callable[[], str]) -> None:
    second = names()
    veth = ("type = veth", "link = lxcbr0", "flags = up", "ipv4.address = 10.0.3.7/24", "name = wan",
            "script.up = /tmp/script", "script.down = /tmp/script")  # fmt: skip
    place.root("printf '#!/bin/sh\\necho $* >>/tmp/scripts\\n' >/tmp/script; chmod +x /tmp/script")
    place.root(f"sed -i /lxc.net/d {HOME}/{box}/config")
    configure(place, box, "".join(f"lxc.net.0.{line}\n" for line in veth))
    place.run("copy", "-n", box, "-N", second)
    done = place.call("lxc-start", "-n", box)
    assert done.status == 1
    assert "lxc-user-nic refused the veth on lxcbr0" in done.output and "/etc/lxc/lxc-usernet" in done.output
    assert groups_of(place, box) == []
    place.root("echo ann veth lxcbr0 1 >>/etc/lxc/lxc-usernet")
    place.run("start", "-n", box)
    assert "10.0.3.7/24" in place.run("attach", "-n", box, "--", "ip", "addr", "show", "wan")
    hwaddr = re.search(r"hwaddr = (\S+)", place.root(f"cat {HOME}/{box}/config"))
    assert hwaddr is None or hwaddr[1] in place.run("attach", "-n", box, "--", "ip", "link")
    info = place.run("info", "-n", box)
    assert "10.0.3.7" in info
    link = re.search(r"^Link: +(veth\S+)$", info, re.MULTILINE)
    assert link and "master lxcbr0" in place.root(f"ip link show {link[1]}")
    place.root("ping -c 1 -W 20 10.0.3.7") if place.call("which", "ping", user="root").status == 0 else None
    assert place.call("lxc-start", "-n", second).status == 1  # the one that is granted is in use
    place.run("stop", "-n", box, "-k")
    called = place.root("cat /tmp/scripts").splitlines()
    for hook in ("up", "down"):
        assert f"{box} net {hook} veth lxcbr0 {link[1]}" in called
    deadline = time.monotonic() + 30
    while place.call("lxc-start", "-n", second).status:  # the kernel removes a dead veth in its own time
        assert time.monotonic() < deadline
    place.run("stop", "-n", second, "-k")
    place.run("destroy", "-n", second)
    place.root("sed -i /^ann/d /etc/lxc/lxc-usernet")
    configure(place, box, "lxc.net.1.type = macvlan\nlxc.net.1.link = lxcbr0\n")
    done = place.call("lxc-start", "-n", box)
    assert "type = macvlan: only root's containers can have that" in done.output
    assert f"  at {HOME}/{box}/config:" in done.output


def test_limits(place: Place, box: str) -> None:
    if not Path("/sys/fs/cgroup/memory").is_dir():
        pytest.skip("no cgroup v1 here")
    configure(place, box, "lxc.cgroup.memory.limit_in_bytes = 64M\nlxc.cgroup.devices.deny = a\n")
    place.run("start", "-n", box)
    assert place.run("cgroup", "-n", box, "memory.limit_in_bytes").strip() == str(64 << 20)
    place.run("cgroup", "-n", box, "memory.limit_in_bytes", "65M")
    # groups that the container's root makes are not the user's, and go too
    place.run("attach", "-n", box, "--", "sh", "-ec", "mount -t cgroup -o pids pids /mnt; mkdir -p /mnt/a/b/c")
    assert len(groups_of(place, box)) > 1
    assert place.root("find /sys/fs/cgroup/pids -type d -name c").split() != []
    assert place.root("find /sys/fs/cgroup/blkio -type d -name 'lxc.payload*'") == ""
    place.run("stop", "-n", box, "-k")
    assert groups_of(place, box) == []
    configure(place, box, "lxc.cgroup.blkio.weight = 500\n")
    done = place.call("lxc-start", "-n", box)
    assert done.status == 1
    assert "lxc.cgroup.blkio.weight" in done.output and f"  at {HOME}/{box}/config:" in done.output
    assert "you may not make control groups in /sys/fs/cgroup/blkio" in done.output
    # from a group in which nothing may be made, and the supervisor with it
    place.root("kill -9 $(cat /run/user/$(id -u ann)/lxcpy/supervisor.lock)")
    become = "setpriv --reuid ann --regid ann --clear-groups env HOME=/home/ann"
    script = f"for one in /sys/fs/cgroup/*/tasks; do echo $$ >$one; done; {become} lxc-start -n {box}"
    done = place.call("sh", "-c", script, user="root")
    assert done.status == 1
    assert "you may not make control groups in any of" in done.output and "Delegate=yes" in done.output
    place.root("kill -9 $(cat /run/user/$(id -u ann)/lxcpy/supervisor.lock)")


def test_ids_have_to_be_granted(place: Place, name: str) -> None:
    done = place.call("lxc-create", "-n", name, "-t", "busybox", user="bob")
    assert done.status == 1
    assert f"lxc.idmap: u 0 {FIRST} {COUNT} has ids that you are not granted" in done.output
    assert "usermod -v 100000-165535 -w 100000-165535 bob" in done.output
    done = place.call("lxc-create", "-n", name, "-t", "busybox", "-f", "/dev/null")
    assert done.status == 1
    assert f"lxc.idmap = u 0 {FIRST} {COUNT} and lxc.idmap = g 0 {FIRST} {COUNT}" in done.output
    place.root("mkdir /run/only; ln -s $(which lxc-create) $(which env) /run/only/")
    done = place.call("/run/only/lxc-create", "-n", name, "-t", "busybox", env={"PATH": "/run/only"})
    assert done.status == 1
    assert '"newgidmap" is not installed' in done.output and "install the package uidmap" in done.output
    assert name not in place.root(f"ls -R {HOME} /home/bob/.local 2>/dev/null || true")


@pytest.mark.parametrize("template", ["/usr/share/lxc/templates/lxc-busybox", "local"])
def test_templates(place: Place, name: str, template: str) -> None:
    words = []
    if template == "local":
        place.root("mkdir -p /tmp/tree/bin /tmp/tree/sbin; cp $(which busybox) /tmp/tree/sbin/init; cd /tmp/tree/bin; "
                   "cp $(which busybox) sh; ln -s sh id; tar -C /tmp/tree -czf /tmp/tree.tar.gz .")  # fmt: skip
        words = ["--", "--fstree", "/tmp/tree.tar.gz"]
    elif not os.path.exists(template):
        pytest.skip(f"{template} is not installed")
    place.run("create", "-n", name, "-t", template, *words)
    place.run("start", "-n", name)
    assert place.run("attach", "-n", name, "--", "/bin/id", "-u").strip() == "0"
    place.run("destroy", "-f", "-n", name)
    assert name not in place.root(f"ls {HOME}").split()
    assert place.root("find /home/ann/.cache ! -user ann 2>/dev/null || true") == ""


@requires("gpgv", "dpkg")
def test_a_debian(place: Place, name: str, bin: str) -> None:
    """Its packages' scripts run in a user namespace; their units are enabled as anywhere."""
    mirror, suite = host_suite()
    folder = f"{os.path.dirname(bin)}/ordinary-mirror"
    arch = subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
    build = [sys.executable, ROOT / "tools/bench-bootstrap", "--build", folder, mirror, suite, "min", arch]
    try:
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
        words = ["-r", suite, "--variant=minbase", f"--mirror=file://{folder}", "--security-mirror=none"]
        place.run("create", "-n", name, "-t", "debian", "--", *words, "--no-check-valid-until")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    rootfs = f"{HOME}/{name}/rootfs"
    query = f"dpkg-query --admindir={rootfs}/var/lib/dpkg -Wf '${{db:Status-Abbrev}}\n'"
    assert {*place.root(query).split()} == {"ii"}
    units = place.root(f"ls {rootfs}/etc/systemd/system/timers.target.wants").split()
    assert {"apt-daily.timer", "fstrim.timer"} <= {*units}
    place.run("destroy", "-n", name)


@requires("lxc-tests")
def test_with_real_lxc(place: Place, box: str) -> None:
    place.run("start", "-n", box)
    assert "RUNNING" in place.call("/usr/bin/lxc-info", "-n", box, "-s").output
    assert place.call("/usr/bin/lxc-attach", "-n", box, "--", "id", "-u").output.strip() == "0"
    assert place.call("/usr/bin/lxc-freeze", "-n", box).status == 0
    assert "FROZEN" in place.run("ls", "-f")
    assert place.call("/usr/bin/lxc-unfreeze", "-n", box).status == 0
    assert place.call("/usr/bin/lxc-stop", "-n", box, "-k").status == 0
    assert place.call("/usr/bin/lxc-start", "-n", box).status == 0
    assert re.search(rf"^{box} +RUNNING .* true", place.run("ls", "-f"), re.MULTILINE)
    assert place.run("attach", "-n", box, "--", "id", "-u").strip() == "0"
    place.run("freeze", "-n", box)
    place.run("unfreeze", "-n", box)
    place.run("stop", "-n", box, "-k")
    assert "STOPPED" in place.call("/usr/bin/lxc-info", "-n", box, "-s").output
