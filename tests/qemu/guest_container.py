"""Runs inside a virtual machine with cgroup v2 alone: a whole container with limits in v1 words, from start to stop."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

CHECKS: dict[str, Callable[[], Any]] = {}
ROOT = "/sys/fs/cgroup"
LXCPATH = "/run/containers"
INIT = "trap 'exit 0' PWR TERM\nwhile :; do sleep 1000 & wait $!; done\n"
CONFIG = """\
lxc.uts.name = {name}
lxc.rootfs.path = dir:{rootfs}
lxc.init.cmd = /bin/sh /init
lxc.mount.auto = proc:mixed sys:ro cgroup:mixed
lxc.pty.max = 16
lxc.net.0.type = empty
lxc.cgroup.memory.limit_in_bytes = 64M
lxc.cgroup.memory.memsw.limit_in_bytes = 96M
lxc.cgroup.cpu.shares = 512
lxc.cgroup.cpu.cfs_quota_us = 50000
lxc.cgroup.cpuset.cpus = 0
lxc.cgroup.pids.max = 50
lxc.cgroup.devices.deny = a
lxc.cgroup.devices.allow = c *:* m
lxc.cgroup.devices.allow = c 1:3 rwm
lxc.cgroup.devices.allow = c 5:* rwm
lxc.cgroup.devices.allow = c 136:* rwm
"""
EXPECTED = {
    "memory.max": "67108864", "memory.swap.max": "33554432", "cpu.weight": "50", "cpu.max": "50000 100000",
    "cpuset.cpus": "0", "pids.max": "50",
}  # fmt: skip


def check(function: Callable[[], Any]) -> Callable[[], Any]:
    CHECKS[function.__name__] = function
    return function


def define(name: str, extra: str = "") -> Any:
    from lxcpy.container import Container

    one = Container(name, LXCPATH)
    rootfs = f"{one.directory}/rootfs"
    for folder in ("bin", "sbin", "proc", "sys", "dev", "etc", "tmp", "root"):
        os.makedirs(f"{rootfs}/{folder}")
    shutil.copy("/bin/busybox", f"{rootfs}/bin/busybox")
    for applet in ("sh", "sleep", "cat", "mkdir", "head", "grep"):
        os.symlink("busybox", f"{rootfs}/bin/{applet}")
    with open(f"{rootfs}/init", "w") as file:
        file.write(INIT)
    with open(one.config_file, "w") as file:
        file.write(CONFIG.format(name=name, rootfs=rootfs) + extra)
    return one


def inside(pid: int, command: str) -> tuple[int, str]:
    """A shell command in the namespaces and the group of a process."""
    import subprocess

    with open(f"/proc/{pid}/cgroup") as file:
        group = ROOT + file.read().strip().removeprefix("0::")

    def enter() -> None:
        with open(f"{group}/cgroup.procs", "w") as procs:
            procs.write("0")

    argv = ["/bin/nsenter", "-t", str(pid), "-m", "-u", "-i", "-n", "-p", "-r", "-w", "/bin/sh", "-c", command]
    done = subprocess.run(argv, preexec_fn=enter, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@check
def it_runs_with_its_limits() -> None:
    one = define("web")
    started = one.start()
    assert one.state == "RUNNING"
    with open(f"/proc/{started.pid}/cgroup") as file:
        group = ROOT + file.read().strip().removeprefix("0::")
    assert group == f"{ROOT}/lxc.payload.web", group
    found = {}
    for name in EXPECTED:
        with open(f"{group}/{name}") as file:
            found[name] = file.read().strip()
    assert found == EXPECTED, found


@check
def its_devices_are_refused_by_the_program() -> None:
    from lxcpy.container import Container

    pid = Container("web", LXCPATH).init_pid
    assert inside(pid, "echo x > /dev/null")[0] == 0
    status, said = inside(pid, "head -c 1 /dev/zero")
    assert status != 0 and "not permitted" in said, said


def write(name: str, item: str, value: str) -> None:
    """lxcpy-cgroup."""
    from types import SimpleNamespace

    from lxcpy.commands import cgroup

    words: Any = SimpleNamespace(name=name, lxcpath=LXCPATH, rest=[item, value], prog="lxcpy-cgroup")
    assert cgroup.run(words) == 0


def rules(name: str) -> list[str]:
    from lxcpy.container import Container

    found = Container(name, LXCPATH).describe(cgroups=True)
    assert found is not None
    return list(found["cgroups"]["devices"])


@check
def rules_added_later_outlive_the_supervisor() -> None:
    from lxcpy.container import Container
    from lxcpy.runtime import client

    pid, before = Container("web", LXCPATH).init_pid, rules("web")
    write("web", "devices.allow", "c 1:5 rwm")
    write("web", "devices.allow", "c 1:7 rwm")  # by another process of ours, or of LXC
    assert inside(pid, "head -c 1 /dev/zero") == (0, "\0")
    assert inside(pid, "head -c 1 /dev/full") == (0, "\0")
    with client.connect() as supervisor:
        os.kill(supervisor.ask("status")["pid"], 9)
    assert rules("web") == [*before, "allow c 1:5 rwm", "allow c 1:7 rwm"]
    write("web", "devices.deny", "c 1:5 rwm")
    assert inside(pid, "head -c 1 /dev/zero")[0] != 0
    assert inside(pid, "head -c 1 /dev/full") == (0, "\0")
    assert inside(pid, "echo x > /dev/null")[0] == 0


@check
def it_sees_its_own_group_alone() -> None:
    from lxcpy.container import Container

    with open(f"/proc/{Container('web', LXCPATH).init_pid}/mountinfo") as file:
        mounts = [line for line in file if " - cgroup2 " in line]
    assert all("/.." not in line.split()[3] for line in mounts), mounts


@check
def it_freezes_thaws_and_stops() -> None:
    from lxcpy.container import Container

    one = Container("web", LXCPATH)
    one.freeze()
    assert one.state == "FROZEN"
    with open(f"{ROOT}/lxc.payload.web/cgroup.events") as file:
        assert "frozen 1" in file.read()
    one.thaw()
    assert one.state == "RUNNING"
    assert one.shutdown(20)
    deadline = time.monotonic() + 5
    while os.path.exists(f"{ROOT}/lxc.payload.web"):
        assert time.monotonic() < deadline, os.listdir(f"{ROOT}/lxc.payload.web")
        time.sleep(0.01)


@check
def an_id_map_gets_a_delegated_group() -> None:
    one = define("user", "lxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 100000 65536\n")
    for place, folders, names in os.walk(f"{one.directory}/rootfs"):
        for name in [*folders, *names]:
            os.lchown(f"{place}/{name}", 100000, 100000)
    os.chown(f"{one.directory}/rootfs", 100000, 100000)
    os.chmod(LXCPATH, 0o755)
    os.chmod(one.directory, 0o755)
    one.start()
    info = os.stat(f"{ROOT}/lxc.payload.user")
    assert (info.st_uid, info.st_gid, info.st_mode & 0o777) == (0, 100000, 0o775)
    assert one.kill(10)
    assert not os.path.exists(f"{ROOT}/lxc.payload.user")


@check
def an_ordinary_users_has_limits_in_a_delegated_group() -> None:
    if not os.path.exists("/usr/bin/newuidmap"):
        return
    from lxcpy.container import Container

    one = define("anns", "lxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 100000 65536\n")
    for place, folders, names in os.walk(f"{one.directory}/rootfs"):
        for name in [*folders, *names]:
            os.lchown(f"{place}/{name}", 100000, 100000)
    for path, ids in ((f"{one.directory}/rootfs", 100000), (one.directory, 1000)):
        os.chown(path, ids, ids)
        os.chmod(path, 0o755)
    grant = "ann:100000:65536"
    files = {"passwd": "ann:x:1000:1000::/run/ann:/bin/sh", "group": "ann:x:1000:", "subuid": grant, "subgid": grant}
    for file, text in files.items():
        with open(f"/etc/{file}", "a") as target:
            target.write(f"{text}\n")
    for program in ("newuidmap", "newgidmap"):
        os.chmod(f"/usr/bin/{program}", 0o4755)
    for path in (f"{ROOT}/ann", "/run/ann"):
        os.mkdir(path)
        os.chown(path, 1000, 1000)
    for name in ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control"):
        os.chown(f"{ROOT}/ann/{name}", 1000, 1000)
    child = os.fork()
    if child == 0:
        try:
            with open(f"{ROOT}/ann/cgroup.procs", "w") as procs:
                procs.write("0")
            os.setgroups([])
            os.setresgid(1000, 1000, 1000)
            os.setresuid(1000, 1000, 1000)
            os.environ.update(HOME="/run/ann", XDG_RUNTIME_DIR="/run/ann", PATH="/usr/bin:/bin")
            Container("anns", LXCPATH).start()
            found = {}
            for name in EXPECTED:
                with open(f"{ROOT}/ann/lxc.payload.anns/{name}") as file:
                    found[name] = file.read().strip()
            assert found == EXPECTED, found
            assert Container("anns", LXCPATH).kill(20)
            assert not os.path.exists(f"{ROOT}/ann/lxc.payload.anns")
            os._exit(0)
        except BaseException as error:
            print(traceback.format_exc(), *getattr(error, "lines", list)(), sep="\n", flush=True)
        finally:
            os._exit(1)
    assert os.waitpid(child, 0)[1] == 0


def main() -> int:
    os.makedirs(LXCPATH)
    failed = 0
    for name, function in CHECKS.items():
        try:
            answer = {"check": name, "ok": True, "value": function()}
        except BaseException as error:
            failed += 1
            lines = error.lines() if hasattr(error, "lines") else []
            answer = {"check": name, "ok": False, "value": "\n".join([*lines, traceback.format_exc()])}
        print(json.dumps(answer), flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
