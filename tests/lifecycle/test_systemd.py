"""The systemd units at work: in a Debian that a container boots, with lxcpy installed in it as tools/quickstart does.

It fetches some 60 MB of packages and takes half a minute, so it runs where it is asked for: LXCPY_TEST_SYSTEMD=1.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from lifecycle.conftest import make_rootfs

ROOT = Path(__file__).parent.parent.parent
pytestmark = [
    pytest.mark.requires("root", "busybox"),
    pytest.mark.skipif(not os.environ.get("LXCPY_TEST_SYSTEMD"), reason="costly: LXCPY_TEST_SYSTEMD=1 runs it"),
]
Run = Callable[..., "subprocess.CompletedProcess[str]"]
PACKAGES = "python3,iproute2,libseccomp2,systemd-sysv,dbus-user-session,libpam-systemd,uidmap"
INNER = """\
lxc.uts.name = {name}
lxc.rootfs.path = dir:/var/lib/lxc/{name}/rootfs
lxc.init.cmd = /bin/sh /init
lxc.net.0.type = empty
lxc.mount.auto = proc:mixed sys:ro
"""
# It notes how it was ended, and comes to life again at once by a signal that a test sends.
INIT = """\
trap 'echo halted >> /ended; exit 0' PWR
trap 'exit 3' USR1
while :; do sleep 1000 & wait $!; done
"""


def install(rootfs: Path) -> None:
    """What tools/quickstart makes of a clone, but for what it downloads."""
    prefix = rootfs / "opt/lxcpy"
    (version,) = [path.name for path in (rootfs / "usr/lib").glob("python3.*[0-9]")]
    packages = prefix / "lib" / version / "site-packages"
    packages.mkdir(parents=True)
    (prefix / "bin").mkdir()
    (prefix / "bin/python3").symlink_to("/usr/bin/python3")
    (prefix / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    shutil.copytree(ROOT / "lxcpy", packages / "lxcpy")
    for name in ("pyroute2", "configobj", "validate"):
        found = importlib.util.find_spec(name)
        assert found and found.origin
        shutil.copytree(Path(found.origin).parent, packages / name)
    for name in ("config", "templates", "man"):
        shutil.copytree(ROOT / name, prefix / "share/lxcpy" / name)
    argv = ["chroot", str(rootfs), "/opt/lxcpy/bin/python3", "-I", "-m", "lxcpy.cli.launcher", "/opt/lxcpy/libexec"]
    subprocess.run(argv, check=True, stdout=subprocess.DEVNULL)
    for command in (prefix / "libexec").iterdir():
        (rootfs / "usr/local/bin" / command.name).symlink_to(f"/opt/lxcpy/libexec/{command.name}")
    (rootfs / "usr/lib/lxcpy/rootfs").mkdir(parents=True)
    units = rootfs / "etc/systemd/system"
    for unit in (ROOT / "tools/systemd").iterdir():
        shutil.copy(unit, units)
    (units / "multi-user.target.wants").mkdir(exist_ok=True)
    (units / "multi-user.target.wants/lxcpy.service").symlink_to("../lxcpy.service")


def define(rootfs: Path, name: str, extra: str = "") -> Path:
    """A container in the container: its root filesystem."""
    directory = rootfs / "var/lib/lxc" / name
    directory.mkdir(parents=True)
    make_rootfs(str(directory / "rootfs"))
    (directory / "rootfs/init").write_text(INIT)
    (directory / "config").write_text(INNER.format(name=name) + extra)
    return directory / "rootfs"


class Machine:
    """A booted system."""

    def __init__(self, run: Run, lxcpath: str, name: str) -> None:
        self.run, self.lxcpath, self.name = run, lxcpath, name

    def try_(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return self.run("attach", "-P", self.lxcpath, "-n", self.name, "--clear-env", "--", *argv)

    def __call__(self, *argv: str) -> str:
        done = self.try_(*argv)
        assert done.returncode == 0, (argv, done.stdout, done.stderr, self.journal())
        return done.stdout.strip()

    def journal(self) -> str:
        return self.try_("journalctl", "-b", "--no-pager", "-n", "80").stdout

    def until(self, what: str, *argv: str, seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while (said := self.try_(*argv).stdout.strip()) != what:
            assert time.monotonic() < deadline, (argv, said, self.journal())
            time.sleep(0.2)

    def state(self, name: str) -> str:
        return self("lxcpy-info", "-n", name, "-sH")

    def pid(self, name: str) -> str:
        return self("lxcpy-info", "-n", name, "-pH")

    def unit(self, name: str, word: str) -> str:
        return self("systemctl", "show", "--value", "-p", word, name)


@pytest.fixture
def rootfs(run: Run, lxcpath: str, name: str, tmp_path: Path) -> Path:
    empty = tmp_path / "default.conf"
    empty.write_text("lxc.net.0.type = empty\n")
    done = run("create", "-P", lxcpath, "-n", name, "-t", "debian", "-f", str(empty), "--", "--variant=minbase",
               f"--packages={PACKAGES}", timeout=600)  # fmt: skip
    assert done.returncode == 0, done.stderr
    with open(f"{lxcpath}/{name}/config", "a") as config:
        config.write("lxc.include = /usr/share/lxc/config/nesting.conf\n")
    found = Path(lxcpath, name, "rootfs")
    install(found)
    return found


@pytest.fixture
def machine(rootfs: Path, run: Run, lxcpath: str, name: str) -> Iterator[Machine]:
    yield Machine(run, lxcpath, name)
    run("stop", "-k", "-P", lxcpath, "-n", name)


def test_units(machine: Machine, rootfs: Path, run: Run) -> None:
    web = define(rootfs, "web", "lxc.start.auto = 1\nlxcpy.restart = on-failure\nlxcpy.restart.delay = 0.1\n")
    other, broken = define(rootfs, "other"), define(rootfs, "broken", "lxc.start.auto = 1\n")
    (broken / "init").unlink()
    (broken / "bin/sh").unlink()
    assert run("start", "-P", machine.lxcpath, "-n", machine.name).returncode == 0
    deadline = time.monotonic() + 120
    while machine.try_("systemctl", "is-active", "lxcpy.service").stdout.strip() not in ("active", "failed"):
        assert time.monotonic() < deadline, machine.journal()
        time.sleep(0.3)
    # one that does not start takes neither the others along nor the service, which has to stop them
    assert (machine.state("web"), machine.state("broken")) == ("RUNNING", "STOPPED")
    assert machine.unit("lxcpy.service", "ActiveState") == "active", machine.journal()
    assert machine.unit("lxcpy-supervisor.service", "ActiveState") == "active"
    supervisor = machine.unit("lxcpy-supervisor.service", "MainPID")
    assert machine("lxcpy-supervisor", "status").splitlines()[0].split() == ["PID:", supervisor]
    assert machine.unit("lxcpy-supervisor.service", "ControlGroup") == "/system.slice/lxcpy-supervisor.service"
    _one_unit(machine)
    _supervisor(machine, supervisor)
    assert machine("systemctl", "--failed", "--no-legend") == ""
    done = run("stop", "-P", machine.lxcpath, "-n", machine.name, "-t", "90", "--nokill")
    assert done.returncode == 0, done.stderr
    assert [(tree / "ended").read_text() for tree in (web, other)] == ["halted\n", "halted\nhalted\n"]


def test_an_ordinary_user(machine: Machine, rootfs: Path, run: Run) -> None:
    """In a session's group nothing may be made: the user's systemd gives the supervisor a scope of its own."""
    assert run("start", "-P", machine.lxcpath, "-n", machine.name).returncode == 0
    for unit in ("dbus.service", "systemd-logind.service"):
        machine.until("active", "systemctl", "is-active", unit)
    machine("useradd", "-m", "-s", "/bin/sh", "ann")
    machine("sh", "-c", "sed -i /ann/d /etc/subuid /etc/subgid; usermod -v 10000-19999 -w 10000-19999 ann")
    directory = rootfs / "home/ann/.local/share/lxc/web"
    directory.mkdir(parents=True)
    make_rootfs(str(directory / "rootfs"))
    (directory / "rootfs/init").write_text(INIT)
    maps = "lxc.idmap = u 0 10000 10000\nlxc.idmap = g 0 10000 10000\n"
    config = INNER.format(name="web").replace("/var/lib/lxc", "/home/ann/.local/share/lxc")
    (directory / "config").write_text(config + maps)
    own = "chown -R ann: .local; chown -R 10000:10000 .local/share/lxc/web/rootfs"
    machine("sh", "-c", f"cd /home/ann; {own}; chmod 711 .")
    machine("loginctl", "enable-linger", "ann")
    uid = machine("id", "-u", "ann")
    machine.until("active", "systemctl", "is-active", f"user@{uid}.service")

    def ann(*argv: str) -> str:
        return machine("setpriv", "--reuid", "ann", "--regid", "ann", "--clear-groups", "env", "HOME=/home/ann",
                       f"XDG_RUNTIME_DIR=/run/user/{uid}", *argv)  # fmt: skip

    ann("lxcpy-start", "-n", "web")
    pid = ann("lxcpy-info", "-n", "web", "-pH")
    groups = machine("cat", f"/proc/{pid}/cgroup")
    assert "/lxcpy-supervisor-" in groups, groups
    assert ann("lxcpy-attach", "-n", "web", "--", "cat", "/proc/self/cgroup").splitlines()[-1] in ("0::/", "0::/.lxc")
    ann("lxcpy-stop", "-k", "-n", "web")


def _one_unit(machine: Machine) -> None:
    """lxcpy@NAME follows its container."""
    unit = "lxcpy@other.service"
    machine("systemctl", "start", unit)
    assert machine.state("other") == "RUNNING"
    machine("systemctl", "stop", unit)
    assert machine.state("other") == "STOPPED"
    machine("systemctl", "start", unit)
    machine("lxcpy-stop", "-k", "-n", "other")
    machine.until("inactive", "systemctl", "is-active", unit)
    machine("systemctl", "start", unit)
    assert machine.state("other") == "RUNNING"


def _supervisor(machine: Machine, supervisor: str) -> None:
    """It is restarted, killed, and gets a container up again; the other containers do not notice."""
    pids = [machine.pid(name) for name in ("web", "other")]
    machine("systemctl", "restart", "lxcpy-supervisor.service")
    after = machine.unit("lxcpy-supervisor.service", "MainPID")
    assert after not in ("0", supervisor)
    assert [machine.pid(name) for name in ("web", "other")] == pids
    machine("systemctl", "kill", "-s", "KILL", "lxcpy-supervisor.service")
    machine.until("active", "systemctl", "is-active", "lxcpy-supervisor.service")
    last = machine.unit("lxcpy-supervisor.service", "MainPID")
    assert last not in ("0", after)
    assert machine("lxcpy-supervisor", "status").splitlines()[0].split() == ["PID:", last]
    assert [machine.pid(name) for name in ("web", "other")] == pids
    assert machine.unit("lxcpy@other.service", "ActiveState") == "active"
    machine("sh", "-c", f"kill -USR1 {pids[0]}")
    deadline = time.monotonic() + 30
    while machine.try_("lxcpy-info", "-n", "web", "-pH").stdout.strip() in ("", pids[0]):
        assert time.monotonic() < deadline, machine.journal()
        time.sleep(0.1)
    assert "web: it ended with status 3" in machine("journalctl", "-b", "--no-pager", "-u", "lxcpy-supervisor")
