"""Ubuntu, Devuan and Kali for real, from a mirror in their shape: bootstrapped, booted, logged in to, updated."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import ubuntumirror
from debmirror import Server
from probes import requires

from lxcpy import paths
from lxcpy.bootstrap.cache import Store

Run = Callable[..., "subprocess.CompletedProcess[str]"]
pytestmark = [requires("root", "gpg", "gpgv", "zstd"), pytest.mark.timeout(900)]
NIC = "lxc.net.0.type = veth\nlxc.net.0.link = lxcbr0\nlxc.net.0.flags = up\n"


@pytest.fixture(scope="module")
def mirror() -> ubuntumirror.Mirror:
    return ubuntumirror.build(Store(paths.cache_dir()))


@pytest.fixture
def server(mirror: ubuntumirror.Mirror) -> Iterator[Server]:
    found = Server(mirror.root)
    yield found
    found.stop()


@pytest.fixture
def bridged(mirror: ubuntumirror.Mirror, network: None) -> Iterator[Server]:
    """The mirror on the bridge's own address, where containers reach it too."""
    shown = subprocess.run(["ip", "-4", "-o", "addr", "show", "lxcbr0"], capture_output=True, text=True, check=True)
    found = Server(mirror.root, host=shown.stdout.split()[3].partition("/")[0])
    yield found
    found.stop()


class Boxes:
    """lxcpy-create of the mirror's suites, and what follows."""

    def __init__(self, run: Run, lxcpath: str, mirror: ubuntumirror.Mirror) -> None:
        self.run, self.lxcpath, self.mirror = run, lxcpath, mirror

    def create(self, name: str, template: str, server: Server, *words: str, config: str = "") -> Path:
        start = Path(self.lxcpath, f"{name}.conf")
        start.write_text(config or "lxc.net.0.type = empty\n")
        options = [f"--mirror={server.url}", f"--keyring={self.mirror.ring}", *words]
        if template != "kali":
            options.append(f"--security-mirror={server.url}")
        made = self("create", name, "-t", template, "-f", str(start), "--", *options, timeout=600)
        start.unlink()
        assert made.returncode == 0, made.stderr
        self.said = made.stderr + made.stdout
        return Path(self.lxcpath, name, "rootfs")

    def __call__(self, command: str, name: str, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
        return self.run(command, "-P", self.lxcpath, "-n", name, *words, **options)

    def inside(self, name: str, *words: str) -> str:
        done = self("attach", name, "--", *words)
        assert done.returncode == 0, (words, done.stdout, done.stderr)
        return done.stdout.strip()

    def boots(self, name: str) -> None:
        """Start it, and wait until systemd says that all is well."""
        assert self("start", name).returncode == 0
        deadline = time.monotonic() + 120
        state = ""
        while state not in ("running", "degraded") and time.monotonic() < deadline:
            time.sleep(0.3)
            state = self("attach", name, "--", "systemctl", "is-system-running").stdout.strip()
        assert state == "running", self("attach", name, "--", "systemctl", "--failed").stdout

    def address(self, name: str) -> str:
        """What it got on the bridge."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            found = [word for word in self("info", name, "-iH").stdout.split() if "." in word]
            if found:
                return found[0]
            time.sleep(0.2)
        raise AssertionError(f"{name} got no address")

    def ends(self, name: str) -> None:
        assert self("stop", name, "-t", "60").returncode == 0
        assert self("destroy", name).returncode == 0


@pytest.fixture
def boxes(run: Run, lxcpath: str, mirror: ubuntumirror.Mirror) -> Iterator[Boxes]:
    found = Boxes(run, lxcpath, mirror)
    yield found
    for name in run("ls", "-P", lxcpath, "-1").stdout.split():  # of a test that failed
        found("destroy", name, "-f")


def versions(rootfs: Path) -> dict[str, str]:
    shown = subprocess.run(
        ["dpkg-query", f"--admindir={rootfs}/var/lib/dpkg", "-W", "-f", "${db:Status-Abbrev}${Package} ${Version}\n"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = shown.stdout.splitlines()
    assert all(line.startswith("ii ") for line in lines)
    return dict(line[3:].split() for line in lines)  # type: ignore[misc]


@requires("bridge", "ssh")
def test_an_ubuntu_for_linux_days(bridged: Server, boxes: Boxes, name: str, tmp_path: Path) -> None:
    """-t ubuntu to a booted system: ssh as the first user, sudo, no password, all three pockets, apt works inside."""
    name = f"{name}-linux-days"
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    rootfs = boxes.create(name, "ubuntu", bridged, "-S", f"{key}.pub", config=NIC)
    config = (rootfs.parent / "config").read_text()
    assert "\nlxc.include = /usr/share/lxc/config/ubuntu.common.conf\n" in config
    assert f"\nlxc.uts.name = {name}\nlxc.arch = amd64\n" in config
    assert (rootfs / "etc/netplan/10-lxc.yaml").stat().st_mode & 0o777 == 0o600
    found = versions(rootfs)
    assert found["hostname"].endswith("ubuntu1.1")  # -updates
    assert found["mawk"].endswith("ubuntu1.2")  # -security, newer than -updates
    assert found["bash"].endswith("ubuntu1")
    assert (rootfs / "etc/apt/sources.list").read_text() == (
        f"deb {bridged.url} resolute main restricted universe multiverse\n"
        f"deb {bridged.url} resolute-updates main restricted universe multiverse\n"
        f"deb {bridged.url} resolute-security main restricted universe multiverse\n"
    )
    shadow = dict(line.split(":")[:2] for line in (rootfs / "etc/shadow").read_text().splitlines())  # type: ignore[misc]
    assert {shadow["root"], shadow["ubuntu"]} <= {"*", "!", "!*"}
    boxes.boots(name)
    assert "Ubuntu 26.04 LTS" in boxes.inside(name, "cat", "/etc/os-release")
    assert boxes.inside(name, "dpkg", "--audit") == ""
    assert boxes.inside(name, "systemctl", "is-active", "container-getty@1") == "active"  # lxcpy-console -t 1
    address = boxes.address(name)
    ssh = ["ssh", "-i", str(key), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"]
    words = [
        *ssh,
        f"ubuntu@{address}",
        "id -un; sudo -n id -un; hostname; ping -c 1 -W 2 localhost >/dev/null && echo up",
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines() == ["ubuntu", "root", name, "up"], done.stderr
    updated = boxes.inside(name, "sh", "-c", "apt-get update 2>&1")
    assert updated.count("Hit:") + updated.count("Get:") >= 3
    assert not any(line.startswith(("W:", "E:")) for line in updated.splitlines()), updated
    assert boxes.inside(name, "sh", "-c", "apt-get -s dist-upgrade | tail -n 1").startswith(
        "0 upgraded, 0 newly installed"
    )
    boxes.inside(name, "sh", "-c", "apt-get install -y --no-install-recommends zsh && zsh -c true")
    boxes.ends(name)


def test_lxcs_user_only_when_asked(server: Server, boxes: Boxes, name: str) -> None:
    """-u and --password as LXC has them; a random one is told; nothing of it stands in the config."""
    rootfs = boxes.create(name, "ubuntu", server, "-u", "me", "--password", "ubuntu", "-v", "minbase")
    shadow = (rootfs / "etc/shadow").read_text()
    assert "\nme:$" in shadow
    assert "ubuntu:" not in (rootfs / "etc/passwd").read_text()
    assert "me" in next(line for line in (rootfs / "etc/group").read_text().splitlines() if line.startswith("sudo:"))
    assert not (rootfs / "etc/sudoers.d/90-lxcpy").exists()  # sudo has a password to ask for
    assert "--password ***" in (rootfs.parent / "config").read_text()
    assert boxes("destroy", name).returncode == 0
    rootfs = boxes.create(name, "ubuntu", server, "--password=-", "-v", "minbase")
    assert "\nubuntu:$" in (rootfs / "etc/shadow").read_text()
    assert "the password of ubuntu is " in boxes.said
    assert boxes("destroy", name).returncode == 0


def test_debug_traces_the_scripts_and_no_secret(server: Server, boxes: Boxes, name: str, tmp_path: Path) -> None:
    boxes.create(name, "ubuntu", server, "-d", "--password=quite-secret", "-v", "minbase")
    log = Path(boxes.said.partition("the log is ")[2].splitlines()[0])
    try:
        text = log.read_text()
    finally:
        log.unlink()
    assert "+ useradd --create-home -s /bin/bash ubuntu\n" in text
    assert "quite-secret" not in text
    assert "quite-secret" not in (Path(boxes.lxcpath, name) / "config").read_text()
    assert boxes("destroy", name).returncode == 0


def test_an_ubuntu_with_an_id_map(server: Server, boxes: Boxes, name: str) -> None:
    """LXC's template refuses them. Ours is made as it is, then shifted: who owned what still does."""
    config = "lxc.net.0.type = empty\nlxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 100000 65536\n"
    rootfs = boxes.create(name, "ubuntu", server, "-v", "minbase", config=config)
    assert "\nlxc.include = /usr/share/lxc/config/ubuntu.userns.conf\n" in (rootfs.parent / "config").read_text()
    for path, owner in (("etc/passwd", 100000), ("home/ubuntu", 101000), ("usr/bin/sudo", 100000)):
        assert (rootfs / path).stat().st_uid == owner
    assert (rootfs / "usr/bin/sudo").stat().st_mode & 0o7777 == 0o4755
    boxes.boots(name)
    assert boxes.inside(name, "cat", "/proc/self/uid_map").split() == ["0", "100000", "65536"]
    boxes.ends(name)


def test_a_user_of_the_host_with_the_home(server: Server, boxes: Boxes, name: str, tmp_path: Path) -> None:
    user = name.replace("-", "")
    home = tmp_path / "the home"
    subprocess.run(["useradd", "-m", "-d", str(home), "-s", "/usr/bin/zsh", "-K", "UID_MIN=30000", user], check=True)
    try:
        (home / "mine").write_text("from the host\n")
        rootfs = boxes.create(name, "ubuntu", server, "-b", user, "-v", "minbase")
        line = next(line for line in Path("/etc/passwd").read_text().splitlines() if line.startswith(f"{user}:"))
        assert line in (rootfs / "etc/passwd").read_text().splitlines()
        assert "zsh" in versions(rootfs)
        Path(home).chmod(0o755)
        tmp_path.chmod(0o755)
        boxes.boots(name)
        assert boxes.inside(name, "su", "-", user, "-c", "cat mine; id -Gn").splitlines() == [
            "from the host", f"{user} sudo"
        ]  # fmt: skip
        boxes.ends(name)
    finally:
        subprocess.run(["userdel", user], check=True)


@requires("debootstrap")
def test_debootstrap_takes_the_same_mirror(server: Server, boxes: Boxes, name: str, tmp_path: Path) -> None:
    """What the tests call Ubuntu is one to debootstrap too, and its minbase is ours."""
    target = tmp_path / "theirs"
    # this debootstrap may not know the release's name: its script for Ubuntu says all
    argv = ["debootstrap", "--variant=minbase", "--components=main,universe", f"--keyring={boxes.mirror.ring}"]
    script = "/usr/share/debootstrap/scripts/gutsy"
    done = subprocess.run([*argv, "resolute", str(target), server.url, script], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:]
    theirs = versions(target)
    words = ["--variant=minbase", "--no-cache"]
    rootfs = boxes.create(name, "ubuntu", server, *words)
    ours = versions(rootfs)
    newer = {package for package in theirs if ours.get(package) != theirs[package]}
    assert newer <= {*ubuntumirror.UPDATES, *ubuntumirror.SECURITY}  # debootstrap knows no pockets
    assert boxes("destroy", name).returncode == 0


@requires("bridge")
def test_a_devuan_boots_with_sysvinit(bridged: Server, boxes: Boxes, name: str) -> None:
    rootfs = boxes.create(name, "devuan", bridged, "-r", "excalibur", config=NIC)
    found = versions(rootfs)
    assert "systemd" not in found
    assert "sysvinit-core" in found
    assert found["mawk"].endswith("ubuntu1.2")
    assert (rootfs / "etc/apt/sources.list").read_text() == (
        f"deb {bridged.url} excalibur main\ndeb {bridged.url} excalibur-updates main\n"
        f"deb {bridged.url} excalibur-security main\n"
    )
    assert "\nlxc.include = /usr/share/lxc/config/devuan.common.conf\n" in (rootfs.parent / "config").read_text()
    assert boxes("start", name).returncode == 0
    deadline = time.monotonic() + 60
    boxes.address(name)
    while "N 3" not in boxes("attach", name, "--", "runlevel").stdout and time.monotonic() < deadline:
        time.sleep(0.2)
    assert boxes.inside(name, "runlevel") == "N 3"
    assert "/sbin/getty" in boxes.inside(name, "sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    boxes.ends(name)


@requires("bridge")
def test_a_kali_boots(bridged: Server, boxes: Boxes, name: str) -> None:
    rootfs = boxes.create(name, "kali", bridged, config=NIC)
    assert (rootfs / "etc/apt/sources.list").read_text() == f"deb {bridged.url} kali-rolling main\n"
    assert "kali-archive-keyring" in versions(rootfs)
    assert "\nlxc.include = /usr/share/lxc/config/kali.common.conf\n" in (rootfs.parent / "config").read_text()
    boxes.boots(name)
    boxes.ends(name)
