"""The commands as they are typed: what they print, where, and with which exit status."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from probes import requires

pytestmark = requires("root", "busybox")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def quick(run: Run, lxcpath: str) -> Run:
    """A command on the test's lxcpath."""
    return lambda command, *words, **options: run(command, "-P", lxcpath, *words, **options)


def said(done: subprocess.CompletedProcess[str]) -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr


def test_a_life(quick: Run, box: Any) -> None:
    one = box()
    name = one.name
    header = f"{'NAME':<{len(name)}} STATE   AUTOSTART GROUPS IPV4 IPV6 UNPRIVILEGED \n"
    assert quick("ls", "-f").stdout == header + f"{name} STOPPED 0         -      -    -    false        \n"
    assert said(quick("start", name)) == (0, "", "")
    one.await_traps()
    assert quick("ls", "-f").stdout == header + f"{name} RUNNING 0         -      -    -    false        \n"
    assert said(quick("wait", name, "-s", "RUNNING|FROZEN")) == (0, "", "")
    assert said(quick("freeze", name)) == (0, "", "")
    assert said(quick("freeze", name)) == (0, "", "")
    assert quick("info", name, "-s").stdout == "State:          FROZEN\n"
    assert quick("ls", "-1", "--frozen").stdout == f"{name}\n"
    assert said(quick("unfreeze", name)) == (0, "", "")
    again = quick("start", name)
    assert again.returncode == 0
    assert again.stderr.startswith(f"lxcpy-start: {name}: {name} is already running\n")
    assert said(quick("stop", name)) == (0, "", "")
    assert quick("ls", "-1", "--running").stdout == ""
    assert said(quick("stop", name)) == (2, "", f"lxcpy-stop: {name}: {name} is not running\n")
    assert said(quick("freeze", name))[0] == 1
    assert said(quick("destroy", name)) == (0, "", "")
    assert said(quick("ls", "-f")) == (0, "", "")


def test_info(quick: Run, box: Any) -> None:
    one = box("lxc.group = web\nlxc.group = db")
    name = one.name
    assert quick("info", name).stdout == f"Name:           {name}\nState:          STOPPED\n"
    assert quick("info", name, "-c", "lxc.group", "-c", "lxc.nonsense").stdout == "lxc.group = web\ndb\n\n"
    one.start()
    text = quick("info", name).stdout
    assert re.fullmatch(
        rf"Name:           {name}\nState:          RUNNING\nPID:            \d+\nCPU use:        \d+\.\d\d seconds\n"
        r"(BlkIO use:      [\d.]+ \w+\n)?Memory use:     [\d.]+ \w+\nKMem use:       [\d.]+ \w+\n",
        text,
    ), text
    assert quick("info", name, "-pH").stdout == f"{one.init_pid}\n"
    facts = json.loads(quick("info", name, "--json").stdout)
    assert (facts["state"], facts["pid"], facts["ipv4"]) == ("RUNNING", one.init_pid, [])
    missing = quick("info", "nobody-here")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert missing.stderr.startswith("lxcpy-info: nobody-here: nobody-here doesn't exist\n")


def test_ls_of_several(quick: Run, box: Any) -> None:
    names = sorted(box("lxc.group = web\nlxc.start.auto = 1").name for _ in range(3))
    other = box().name
    assert quick("ls", "-1", "-g", "web").stdout.split() == names
    assert quick("ls", "-1").stdout.split() == sorted([*names, other])
    assert quick("ls", "-1", f"^{names[1]}$").stdout.split() == [names[1]]
    assert quick("ls", "-1", "--filter", "[[:digit:]]+$").stdout.split() == sorted([*names, other])
    assert said(quick("ls", "-f", "-F", "name,colour")) == (0, "", "Invalid key: colour\n")
    rows = json.loads(quick("ls", "--json").stdout)
    assert [row["name"] for row in rows if row["autostart"]] == names
    assert quick("ls", "-1", "--stopped", "--running").stdout == ""


def test_autostart(quick: Run, box: Any) -> None:
    first = box("lxc.start.auto = 1\nlxc.start.order = 1\nlxc.start.delay = 0").name
    second = box("lxc.start.auto = 1\nlxc.start.order = 2").name
    grouped = box("lxc.start.auto = 1\nlxc.group = late").name
    idle = box().name
    assert quick("autostart", "-L").stdout == f"{first} 0\n{second} 0\n"
    assert quick("autostart", "-L", "-g", "late,").stdout == f"{grouped} 0\n{first} 0\n{second} 0\n"
    assert said(quick("autostart", "-a")) == (0, "", "")
    assert set(quick("ls", "-1", "--running").stdout.split()) == {first, second, grouped}
    assert idle not in quick("ls", "-1", "--running").stdout
    assert quick("autostart", "-L", "-a", "-k").stdout == f"{second}\n{first}\n{grouped}\n"
    assert said(quick("autostart", "-a", "-k")) == (0, "", "")
    assert quick("ls", "-1", "--running").stdout == ""


def test_autostart_tells_of_some_failures_and_of_all(quick: Run, box: Any, lxcpath: str) -> None:
    good, bad = box("lxc.start.auto = 1").name, box("lxc.start.auto = 1").name
    config = Path(lxcpath, bad, "config")
    config.write_text(config.read_text().replace("/init", "/no-such-init"))
    config.write_text(config.read_text().replace("/bin/sh ", ""))
    some = quick("autostart")
    assert some.returncode == 2
    assert some.stderr.startswith(f"lxcpy-autostart: {bad}: ")
    quick("stop", "-k", good)
    quick("destroy", good)
    assert quick("autostart").returncode == 1


def test_stop_of_one_that_does_not_listen(quick: Run, box: Any) -> None:
    deaf = box("lxc.signal.halt = SIGUSR1").name
    quick("start", deaf)
    late = quick("stop", deaf, "-t", "1", "--nokill")
    assert late.returncode == 1
    assert "did not stop within 1 seconds" in late.stderr
    assert said(quick("stop", deaf, "-W")) == (0, "", "")
    assert said(quick("stop", deaf, "-t", "1")) == (0, "", "")
    assert quick("ls", "-1", "--running").stdout == ""


@pytest.mark.parametrize("words", [["-k", "-r"], ["-k", "--nokill"], ["--nolock"], ["-k", "-t", "3"], ["-t", "-2"]])
def test_stop_refuses_what_does_not_go_together(words: list[str], quick: Run, box: Any) -> None:
    name = box().name
    done = quick("stop", name, *words)
    assert done.returncode == 1
    assert done.stderr.startswith("lxcpy-stop: ")


def test_reboot(quick: Run, box: Any) -> None:
    one = box()
    one.start()
    one.await_traps()
    before = one.init_pid
    assert said(quick("stop", one.name, "-r")) == (0, "", "")
    assert one.init_pid not in (0, before)


def test_wait(quick: Run, box: Any, bin: str, lxcpath: str) -> None:
    name = box().name
    assert said(quick("wait", "nobody-here", "-s", "STOPPED")) == (0, "", "")
    assert said(quick("wait", name, "-s", "RUNNING", "-t", "0")) == (1, "", "")
    assert quick("wait", name).returncode == 1
    assert quick("wait", name, "-s", "SLEEPING").returncode == 1
    with subprocess.Popen([f"{bin}/lxcpy-wait", "-P", lxcpath, "-n", name, "-s", "RUNNING"]) as waiter:
        time.sleep(0.2)
        quick("start", name)
        assert waiter.wait(10) == 0


def test_cgroup(quick: Run, box: Any) -> None:
    one = box()
    assert quick("cgroup", one.name, "memory.limit_in_bytes").returncode == 1
    one.start()
    assert quick("cgroup", one.name).returncode == 1
    assert said(quick("cgroup", one.name, "memory.limit_in_bytes", "64M")) == (0, "", "")
    # LXC prints the kernel's text and one newline more
    assert quick("cgroup", one.name, "memory.limit_in_bytes").stdout == f"{64 << 20}\n\n"
    assert quick("cgroup", one.name, "no.such").returncode == 1


def test_execute(quick: Run, box: Any, tmp_path: Path) -> None:
    one = box("lxc.environment = COLOUR=red")
    done = quick("execute", one.name, "--", "sh", "-c", "echo $COLOUR; echo oops >&2; exit 7")
    assert said(done) == (7, "red\n", "oops\n")
    assert quick("execute", one.name, "--", "sh", "-c", "kill -9 $$").returncode == 128 + signal.SIGKILL
    assert quick("execute", one.name, "--", "/no/such").returncode == 255
    assert quick("execute", "nobody-here", "--", "true").returncode == 1
    volatile = f"{one.name}-v"
    assert quick("execute", volatile, "-f", one.config_file, "--", "true").returncode == 0
    assert not os.path.exists(os.path.join(one.lxcpath, volatile))


def test_execute_passes_input_on(quick: Run, box: Any) -> None:
    one = box()
    assert quick("execute", one.name, "--", "cat", stdin=None, input="through\n").stdout == "through\n"


def test_start_in_the_foreground(bin: str, box: Any, lxcpath: str) -> None:
    one = box()
    init = Path(one.rootfs, "init")
    init.write_text("echo first words\nread line; echo you said $line\n")
    done = subprocess.run(
        [f"{bin}/lxcpy-start", "-P", lxcpath, "-n", one.name, "-F"],
        input="hello\n", capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 0
    assert "first words" in done.stdout
    assert "you said hello" in done.stdout
    assert one.state == "STOPPED"


def test_a_foreground_container_ends_with_its_command(bin: str, box: Any, lxcpath: str) -> None:
    one = box()
    with subprocess.Popen(
        [f"{bin}/lxcpy-start", "-P", lxcpath, "-n", one.name, "-F"], stdin=subprocess.DEVNULL
    ) as start:
        assert one.wait(["RUNNING"], 10)
        start.kill()
    assert one.wait(["STOPPED"], 10)


def test_pidfile_and_definitions(quick: Run, box: Any, tmp_path: Path) -> None:
    one = box()
    words = ["-p", str(tmp_path / "pid"), "-s", "lxc.uts.name = other", "-L", str(tmp_path / "log")]
    assert said(quick("start", one.name, *words)) == (0, "", "")
    assert (tmp_path / "pid").read_text() == str(one.init_pid)
    assert quick("attach", one.name, "--", "cat", "/proc/sys/kernel/hostname").stdout == "other\n"


def test_dry_run_shows_every_step_and_does_none(quick: Run, box: Any) -> None:
    one = box("lxc.net.1.type = veth\nlxc.hook.pre-start = /bin/false")
    done = quick("start", one.name, "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "  pre-start: /bin/false\n" in done.stdout
    assert "veth" in done.stdout
    assert one.state == "STOPPED"


def test_monitor(bin: str, quick: Run, box: Any, lxcpath: str) -> None:
    one, other = box(), box()
    argv = [f"{bin}/lxcpy-monitor", "-P", lxcpath, "-n", one.name]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as monitor:
        time.sleep(0.5)
        quick("start", one.name)
        quick("start", other.name)
        one.await_traps()
        quick("stop", one.name)
        time.sleep(0.5)
        monitor.terminate()
        text, _ = monitor.communicate()
    assert text.splitlines() == [
        f"'{one.name}' changed state to [STARTING]",
        f"'{one.name}' changed state to [RUNNING]",
        f"'{one.name}' exited with status [0]",
        f"'{one.name}' changed state to [STOPPING]",
        f"'{one.name}' changed state to [STOPPED]",
    ]


def test_config_prints_settings(run: Run) -> None:
    assert run("config", "-l").stdout.split()[:2] == ["lxc.default_config", "lxc.lxcpath"]
    assert run("config", "lxc.nonsense").stdout == "Unknown configuration item: lxc.nonsense\n"
    assert run("config", "lxc.nonsense").returncode == 1
    assert run("config").stdout.startswith("Usage: lxcpy-config -l | KEY | check NAME | explain NAME\n")


def test_nested_containers_are_listed(quick: Run, box: Any) -> None:
    outer, stopped = box(), box()
    for one in (outer, stopped):
        inner = Path(one.rootfs, one.lxcpath.lstrip("/"), "inner")
        inner.mkdir(parents=True)
        (inner / "config").write_text("lxc.group = deep\n")
    outer.start()
    assert quick("ls", "-1", "--nesting").stdout.splitlines() == sorted(
        [outer.name, f"{outer.name}/inner", stopped.name, f"{stopped.name}/inner"]
    )
    lines = quick("ls", "-f", "--nesting", "-F", "name,groups").stdout.splitlines()
    assert sum(line.split() == ["\\inner", "deep"] for line in lines) == 2


def test_errors_have_one_form(run: Run, quick: Run) -> None:
    assert said(run("start", "-P", "/tmp")) == (
        1, "", "lxcpy-start: No container name specified\n"
        "  hint: lxcpy-start -n NAME, or the name as the first argument\n",
    )  # fmt: skip
    assert run("", "strat").stderr == 'lxcpy-strat: "strat" is not a command\n  hint: did you mean start?\n'
    assert said(quick("start", "nobody-here", "-q")) == (1, "", "")
    assert run("start", "a/b").stderr.startswith('lxcpy-start: a/b: "a/b" is not a container name\n')


def test_a_reader_that_leaves_is_no_error(bin: str, lxcpath: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    argv = [f"{bin}/lxcpy-ls", "--help"]
    done = subprocess.run(argv, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, b"Traceback" in done.stderr) == (0, False)
    reader, writer = os.pipe()
    os.close(reader)
    argv = [f"{bin}/lxcpy", "--help"]
    done = subprocess.run(argv, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_log_file(quick: Run, box: Any, tmp_path: Path) -> None:
    name = box().name
    log = tmp_path / "log"
    assert quick("stop", name, "-o", str(log), "-l", "debug").returncode == 2
    assert re.search(
        rf"^lxcpy-stop {name} \d{{14}}\.\d{{3}} ERROR    cli - .* - {name} is not running$", log.read_text(), re.M
    )


def test_links_named_lxc_work(bin: str, tmp_path: Path, lxcpath: str) -> None:
    os.symlink(f"{bin}/lxcpy-ls", tmp_path / "lxc-ls")
    done = subprocess.run([tmp_path / "lxc-ls", "-P", lxcpath, "--bogus"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("lxc-ls: unrecognized option '--bogus'\nUsage: lxc-ls [REGEX]\n")


@requires("veth")
def test_a_network_interface_moves_in_and_out(bin: str, box: Any) -> None:
    """Out of a network namespace of the test's own, and back into it."""
    one = box()
    one.start()
    device = f"{bin}/lxcpy-device -P {one.lxcpath} -n {one.name} --"
    script = f"""
        ip link add in9 type veth peer name out9
        {device} add in9 eth7
        ! ip link show in9 2>/dev/null
        grep -q eth7: /proc/{one.init_pid}/net/dev
        {device} del eth7 in9
        ip link show in9 >/dev/null
        ! {device} add no-such-device
    """
    done = subprocess.run(["unshare", "--net", "sh", "-ec", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1].startswith("  hint: ")


def test_a_device_node_is_made_and_allowed(quick: Run, box: Any) -> None:
    one = box("lxc.cgroup.devices.deny = a\nlxc.cgroup.devices.allow = c 1:* rwm\n")
    one.start()
    assert said(quick("device", "-n", one.name, "--", "add", "/dev/net/tun", "/dev/net/mine")) == (0, "", "")
    inside = f"/proc/{one.init_pid}/root/dev/net/mine"
    assert os.stat(inside).st_rdev == os.stat("/dev/net/tun").st_rdev
    reader = ["attach", one.name, "--", "sh", "-c", ": </dev/net/mine"]
    assert quick(*reader).returncode == 0
    assert said(quick("device", "-n", one.name, "--", "del", "/dev/net/tun", "/dev/net/mine")) == (0, "", "")
    assert not os.path.exists(inside)
    assert quick("device", "-n", one.name, "--", "add", "/etc/passwd").returncode == 1
    assert quick("device", "-n", one.name, "--", "take", "/dev/null").returncode == 1
    assert quick("device", "-n", one.name, "--", "add").returncode == 1


def test_unshare(run: Run) -> None:
    script = "cat /proc/sys/kernel/hostname; ls /proc | grep -c '^[0-9]'; test ! -e /sys/class/net/../../../x; echo $$"
    done = run("unshare", "-s", "MOUNT|PID|UTSNAME", "-M", "-H", "inside", "--", "sh", "-c", script)
    lines = done.stdout.split()
    assert (done.returncode, lines[0], lines[-1]) == (0, "inside", "1")
    assert int(lines[1]) < 6
    assert run("unshare", "-s", "NETWORK", "--", "sh", "-c", "exit 3").returncode == 1
    assert run("unshare", "-s", "NETWORK", "--", "ip", "-o", "link").stdout.count("\n") == 1
    missing = run("unshare", "-s", "IPC", "--", "/no/such")
    assert said(missing) == (1, "", 'lxcpy-unshare: cannot execute "/no/such": No such file or directory\n')
    assert run("unshare", "-s", "USER", "-u", "nobody", "--", "id", "-un").stdout == "nobody\n"


def test_usernsexec(run: Run) -> None:
    words = ["-m", "b:0:0:1", "-m", "b:1:100000:9", "--", "sh", "-c", "id -u; cat /proc/self/uid_map; exit 5"]
    done = run("usernsexec", *words)
    assert done.returncode == 5
    assert done.stdout.split() == ["0", "0", "0", "1", "1", "100000", "9"]
    assert run("usernsexec", "-m", "b:0:0:10", "-u", "3", "-g", "4", "--", "id", "-u").stdout == "3\n"
    assert run("usernsexec", "-m", "b:0:0:1", "--", "sh", "-c", "kill -9 $$").returncode == 137
    bad = run("usernsexec", "-m", "b:0:0")
    assert bad.returncode == 1
    assert bad.stderr.startswith("lxcpy-usernsexec: could not parse command line: -m/--map: ")


@requires("lxc")
def test_checkconfig_says_what_lxc_s_says(run: Run) -> None:
    theirs = subprocess.run(["lxc-checkconfig"], capture_output=True, text=True, check=False).stdout.splitlines()
    ours = run("checkconfig").stdout.splitlines()
    skip = ("LXC version", "usage :")
    theirs, ours = ([line for line in lines if not line.startswith(skip)] for lines in (theirs, ours))
    assert ours[: len(theirs)] == theirs
    missing = [line for line in theirs if line.endswith((": missing", ": required"))]
    said = "\n".join(ours[len(theirs) :])
    assert said.count("  breaks: ") == said.count("  cure: ") >= len(missing)
    if "Vlan: missing" in missing:
        assert "cure: boot a kernel with CONFIG_VLAN_8021Q=y or =m" in said


def test_checkconfig_tells_a_cure_for_all_that_a_kernel_lacks(run: Run, tmp_path: Path) -> None:
    (tmp_path / "config").write_text("# Linux/x86 6.1.0 Kernel Configuration\nCONFIG_NAMESPACES=y\n")
    done = run("checkconfig", env={**os.environ, "CONFIG": str(tmp_path / "config")})
    theirs, _, ours = done.stdout.partition("--- What to do ---\n")
    missing = [line for line in theirs.splitlines() if line.endswith((": missing", ": required"))]
    assert len(missing) > 20
    assert ours.count("  breaks: ") == ours.count("  cure: ") >= len(missing)
    assert "cure: boot a kernel with CONFIG_VETH=y or =m" in ours
    assert "this kernel has no namespaces" not in ours


def test_top_needs_a_terminal(run: Run) -> None:
    assert said(run("top", "-b")) == (
        1, "", "lxcpy-top: stdin is not a tty\n  hint: lxcpy-info shows one container, also in a script, "
        "lxcpy-top -b --json all\n",
    )  # fmt: skip
