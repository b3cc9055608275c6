"""Containers of busybox-static: real ones, small enough to start in milliseconds."""

from __future__ import annotations

import os
import select
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import effects
import pytest

from lxcpy import paths
from lxcpy.container import Container
from lxcpy.errors import LxcpyError
from lxcpy.kernel import mount, namespace, process
from lxcpy.runtime import attach, client, state

APPLETS = ("sh", "sleep", "true", "cat", "echo", "ls", "mount", "id", "kill", "reboot", "grep", "env", "readlink")
# TERM ends it, as PWR does; INT reboots, as LXC's default signals mean it
INIT = """\
trap 'exit 0' PWR TERM
trap '/bin/reboot -f' INT
while :; do sleep 1000 & wait $!; done
"""
BASE = """\
lxc.uts.name = {name}
lxc.rootfs.path = dir:{rootfs}
lxc.init.cmd = /bin/sh /init
lxc.mount.auto = proc:mixed sys:ro
lxc.pty.max = 16
lxc.net.0.type = empty
"""


def make_rootfs(rootfs: str) -> None:
    """A tree with busybox, its links, an init and a passwd."""
    for folder in ("bin", "sbin", "proc", "sys", "dev", "etc", "tmp", "root"):
        os.makedirs(os.path.join(rootfs, folder))
    busybox = shutil.which("busybox")
    assert busybox
    shutil.copy(busybox, os.path.join(rootfs, "bin/busybox"))
    for applet in APPLETS:
        os.symlink("busybox", os.path.join(rootfs, "bin", applet))
    with open(os.path.join(rootfs, "init"), "w") as init:
        init.write(INIT)
    with open(os.path.join(rootfs, "etc/passwd"), "w") as passwd:
        passwd.write("root:x:0:0:root:/root:/bin/sh\n")


class Box(Container):
    """A container on a busybox rootfs of its own."""

    @property
    def rootfs(self) -> str:
        return os.path.join(self.directory, "rootfs")

    def await_traps(self) -> Box:
        """Until the init script has set its traps: the kernel keeps a signal that has none from process 1."""
        deadline = time.monotonic() + 10
        while not int(self.status("SigCgt"), 16) >> (signal.SIGTERM - 1) & 1:
            assert time.monotonic() < deadline
            time.sleep(0.005)
        return self

    def inside(self, path: str) -> str:
        """A file of the running container, read through its init's root."""
        with open(f"/proc/{self.init_pid}/root/{path}") as file:
            return file.read()

    def sh(self, script: str, **request: object) -> str:
        """What a shell script prints in the running container, entered as lxcpy-attach does; it must succeed."""
        reader, writer = os.pipe()

        def shell() -> int:
            os.dup2(writer, 1)
            os.dup2(writer, 2)
            os.execv("/bin/sh", ["sh", "-c", script])

        wanted = attach.Request(terminal=False, clear_env=True, cwd="/", **request)  # type: ignore[arg-type]
        started = attach.start(self.lxcpath, self.name, wanted, shell)
        os.close(writer)
        with open(reader) as stream:
            said = stream.read()
        os.close(started.pidfd)
        status = os.waitstatus_to_exitcode(os.waitpid(started.pid, 0)[1])
        assert status == 0, f"{script}: exit {status}: {said}"
        return said

    def environment(self) -> list[str]:
        """Init's environment, `NAME=VALUE` each."""
        with open(f"/proc/{self.init_pid}/environ") as file:
            return file.read().split("\0")[:-1]

    def status(self, word: str) -> str:
        """A line of init's /proc/PID/status."""
        with open(f"/proc/{self.init_pid}/status") as file:
            return next(line.split(":", 1)[1].strip() for line in file if line.startswith(word + ":"))


Define = Callable[..., Box]


@pytest.fixture
def box(request: pytest.FixtureRequest, lxcpath: str, names: Callable[[], str]) -> Iterator[Define]:
    """`box("lxc.tty.max = 2")`: define a container; killed after the test."""
    made: list[Box] = []

    def define(extra: str = "", *, base: str = BASE) -> Box:
        one = Box(names(), lxcpath)
        os.makedirs(one.directory)
        make_rootfs(one.rootfs)
        with open(one.config_file, "w") as config:
            text = base.format(name=one.name, rootfs=one.rootfs) + extra.format(rootfs=one.rootfs, name=one.name)
            config.write(effects.config_for(request.node.nodeid, text))
        made.append(one)
        return one

    yield define
    for one in made:
        try:
            if one.describe():  # it runs, or is about to (lxcpy.restart)
                one.kill(20)
        except LxcpyError:
            assert one.state == "STOPPED"
        state.forget_restart(one.lxcpath, one.name)


@pytest.fixture
def own_host(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A host of the test's own, as far as links, mounts and the supervisor go; to be asked for before `box`.

    The test process itself stands in new network and mount namespaces, and the supervisor that it starts with it.
    """
    names = {"net": namespace.CLONE_NEWNET, "mnt": namespace.CLONE_NEWNS}
    here = os.getcwd()
    home = {name: os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC) for name in names}
    run_dir = tempfile.mkdtemp(prefix="host-", dir=os.path.dirname(os.environ["LXCPY_RUN_DIR"]))
    monkeypatch.setenv("LXCPY_RUN_DIR", run_dir)
    namespace.unshare(sum(names.values()))
    mount.mount(None, "/", None, mount.MS_REC | mount.MS_PRIVATE)
    try:
        yield run_dir
        end_supervisor()
    finally:
        for name, fd in home.items():
            namespace.setns(fd, names[name])
            os.close(fd)
        os.chdir(here)
        shutil.rmtree(run_dir)


def end_supervisor(number: int = signal.SIGTERM) -> None:
    """End the supervisor of the run directory, if one runs, and wait until it is gone."""
    try:
        found = client.connect_if_any()
        if found is None:
            return
        with found as supervisor:
            pid = supervisor.ask("status")["pid"]
    except LxcpyError:
        return
    with process.pidfd_open(pid) as pidfd:  # its end is seen before the machine's init has waited for it
        os.kill(pid, number)
        assert select.select([pidfd], [], [], 10)[0], "the supervisor does not end"


@pytest.fixture
def network(run: Callable[..., subprocess.CompletedProcess[str]]) -> Iterator[None]:
    """lxcbr0: the host's, else one for this test."""
    if subprocess.run(["ip", "link", "show", "lxcbr0"], capture_output=True).returncode == 0:
        yield
        return
    started = run("net", "start")
    assert started.returncode == 0, started.stderr
    yield
    assert run("net", "stop").returncode == 0
    Path(paths.run_dir(), "network.json.lock").unlink(missing_ok=True)
