"""lxcpy-attach and lxc-attach in the same container, which real LXC runs: the same command sees the same."""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Iterator

import pytest
from probes import requires
from reallxc import Real

pytestmark = requires("root", "lxc>=4.0", "busybox")

CONFINED = """\
lxc.cap.drop = sys_time sys_module mac_admin
lxc.prlimit.nofile = 1000:2000
lxc.prlimit.core = 0
lxc.proc.oom_score_adj = 10
lxc.seccomp.profile = {lxcpath}/profile
lxc.no_new_privs = 1
"""
PROFILE = "2\ndenylist\nreject_force_umount\nkexec_load errno 1\nmkdirat errno 13\nmkdir errno 13\n"
MAPPED = "lxc.idmap = u 0 100000 65536\nlxc.idmap = g 0 100000 65536\n"
Attach = Callable[..., "subprocess.CompletedProcess[str]"]


class Pair:
    """Both programs on one container."""

    def __init__(self, real: Real, bin: str, environment: dict[str, str] | None = None) -> None:
        self.real = real
        self.environment = environment
        self.programs = {"lxc": "lxc-attach", "lxcpy": f"{bin}/lxcpy-attach"}

    def argv(self, who: str, words: tuple[str, ...]) -> list[str]:
        return [self.programs[who], "-P", self.real.lxcpath, "-n", self.real.name, *words]

    def run(self, who: str, *words: str, **options: object) -> subprocess.CompletedProcess[str]:
        settings: dict[str, object] = {
            "stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": 20,
            "env": self.environment, **options,
        }  # fmt: skip
        return subprocess.run(self.argv(who, words), check=False, **settings)  # type: ignore[call-overload,no-any-return]

    def both(self, *words: str, **options: object) -> tuple[int, str]:
        """The status and standard output, which must be the same of both."""
        lxc, ours = (self.run(who, *words, **options) for who in ("lxc", "lxcpy"))
        assert (ours.returncode, ours.stdout) == (lxc.returncode, lxc.stdout), ours.stderr
        return ours.returncode, ours.stdout


@pytest.fixture
def pair(real: Real, bin: str) -> Pair:
    return Pair(real, bin)


@pytest.fixture
def confined(reals: Callable[..., Real], bin: str, lxcpath: str) -> Pair:
    with open(f"{lxcpath}/profile", "w") as file:
        file.write(PROFILE)
    return Pair(reals(CONFINED.format(lxcpath=lxcpath)), bin)


@pytest.fixture
def mapped(lxcpath: str, name: str, bin: str) -> Iterator[Pair]:
    real = Real(lxcpath, name)
    for folder, folders, files in os.walk(real.rootfs):
        for entry in [folder, *(os.path.join(folder, each) for each in folders + files)]:
            os.chown(entry, 100000, 100000, follow_symlinks=False)
    for path in (os.path.dirname(lxcpath), f"{lxcpath}/{name}"):
        os.chmod(path, 0o755)  # root inside is nobody out here
    # Where LXC finds newuidmap it uses it, for root too, whose ranges /etc/subuid need not name.
    os.mkdir(f"{lxcpath}/tools")
    for tool in ("lxc-start", "lxc-attach"):
        os.symlink(f"/usr/bin/{tool}", f"{lxcpath}/tools/{tool}")
    pair = Pair(real, bin, {**os.environ, "PATH": f"{lxcpath}/tools"})
    real.start(MAPPED, env=pair.environment)
    yield pair
    real.kill()


STATUS = "grep -E 'Cap|NoNew|Seccomp' /proc/self/status"


@pytest.mark.parametrize(
    "words",
    [
        ("true",), ("sh", "-c", "exit 7"), ("sh", "-c", "kill -9 $$"), ("sh", "-c", "kill -TERM $$"),
        ("id",), ("sh", "-c", STATUS), ("readlink", "/proc/self/ns/mnt", "/proc/self/ns/net"),
        ("sh", "-c", "for n in /proc/self/ns/*; do readlink $n; done"),
        ("sh", "-c", "cat /proc/self/cgroup"), ("pwd",), ("hostname",), ("sh", "-c", "cat /proc/1/comm"),
        ("sh", "-c", "umask; ulimit -a"), ("cat",),
    ],
)  # fmt: skip
def test_the_same_of_both(pair: Pair, words: tuple[str, ...]) -> None:
    pair.both("--", *words)


@pytest.mark.parametrize(
    "words",
    [("sh", "-c", STATUS), ("sh", "-c", "ulimit -n; ulimit -Hn; ulimit -c"), ("cat", "/proc/self/oom_score_adj")],
)
@pytest.mark.parametrize("elevated", [(), ("-e",), ("-eCAP",), ("-eLSM",), ("--elevated-privileges=CAP|LSM",)])
def test_confinement(confined: Pair, words: tuple[str, ...], elevated: tuple[str, ...]) -> None:
    confined.both(*elevated, "--", *words)


def test_the_filter_is_in_force(confined: Pair) -> None:
    assert confined.both("--", "mkdir", "/tmp/x")[0] == 1
    assert confined.both("-e", "LSM", "--", "true")[0] == 127  # an optional argument must be attached
    assert confined.both("-eLSM", "--", "sh", "-c", "mkdir /tmp/x && rmdir /tmp/x")[0] == 0


@pytest.mark.parametrize(
    "options",
    [
        (), ("--keep-env",), ("--clear-env",), ("--clear-env", "--keep-var", "MINE"), ("-v", "A=1", "-v", "B=x y"),
        ("--clear-env", "-v", "PATH=/bin"), ("--clear-env", "--keep-var", "PATH"), ("-v", "FROM_CONFIG=no"),
    ],
)  # fmt: skip
def test_environment(pair: Pair, options: tuple[str, ...]) -> None:
    environment = {name: os.environ[name] for name in ("PATH", "LXCPY_RUN_DIR")} | {"MINE": "kept", "EMPTY": ""}
    lxc, ours = (
        sorted(pair.run(who, *options, "--", "/bin/env", env=environment).stdout.splitlines())
        for who in ("lxc", "lxcpy")
    )
    assert ours == lxc


@pytest.mark.parametrize(
    "options", [("-u", "1000"), ("-g", "1000"), ("-u", "1000", "-g", "1001"), ("--uid=0", "--gid=0")]
)
def test_ids(pair: Pair, options: tuple[str, ...]) -> None:
    pair.both(*options, "--", "id")


def test_a_namespace_of_ids(mapped: Pair) -> None:
    assert mapped.both("--clear-env", "--", "id")[1] == "uid=0(root) gid=0\n"
    mapped.both("--clear-env", "-u", "1000", "-g", "1000", "--", "id")
    mapped.both("--clear-env", "--", "sh", "-c", STATUS)
    mapped.both("--clear-env", "--", "sh", "-c", "cat /proc/self/uid_map /proc/self/cgroup")
    mapped.both("--clear-env", "--", "sh", "-c", "echo x > /tmp/f; ls -n /tmp/f | cut -c1-40; rm /tmp/f")


def test_namespaces_that_are_named(pair: Pair) -> None:
    for names in ("NETWORK", "NETWORK|UTSNAME", "MOUNT|PID", "net|uts|ipc", "CGROUP"):
        pair.both("-s", names, "--", "/bin/sh", "-c", "for n in /proc/self/ns/*; do readlink $n; done")


def test_remount(pair: Pair) -> None:
    words = ("-s", "NETWORK|PID", "-R", "--", "/bin/sh", "-c", "cat /proc/1/cmdline; ls /sys/class/net")
    status, out = pair.both(*words)
    assert (status, out.split("\0")[:2], out.split("\0")[-1]) == (0, ["/bin/sh", "/init"], "lo\n")
    assert os.path.exists(f"/proc/{os.getpid()}")  # the host's own is as it was


@pytest.mark.parametrize("arch", ["i686", "x86_64", "linux32"])
def test_architecture(pair: Pair, arch: str) -> None:
    pair.both("-a", arch, "--", "uname", "-m")


def test_commands_that_cannot_run(pair: Pair) -> None:
    assert pair.both("--", "nosuch")[0] == 127
    assert pair.both("--", "/nosuch")[0] == 127
    assert pair.both("--", "/etc/passwd")[0] == 126
    assert pair.both("--", "/tmp")[0] == 126


def test_a_script_without_an_interpreter_line(pair: Pair) -> None:
    with open(f"{pair.real.rootfs}/tmp/script", "w") as file:
        file.write("echo script $1\n")
        os.fchmod(file.fileno(), 0o755)
    assert pair.both("--", "/tmp/script", "x") == (0, "script x\n")


def test_the_directory_is_kept_where_the_container_has_it(pair: Pair, tmp_path) -> None:  # type: ignore[no-untyped-def]
    assert pair.both("--", "pwd", cwd="/tmp")[1] == "/tmp\n"
    assert pair.both("--", "pwd", cwd=tmp_path)[1] == "/\n"


def test_input_and_descriptors_pass(pair: Pair) -> None:
    assert pair.both("--", "cat", stdin=None, input="hello\n") == (0, "hello\n")
    reader, writer = os.pipe()
    assert pair.both("--", "sh", "-c", f"echo through >&{writer}", pass_fds=(writer,)) == (0, "")
    assert os.read(reader, 100) == b"through\nthrough\n"
    os.close(reader)
    os.close(writer)


def test_nothing_of_ours_is_left_open_inside(pair: Pair) -> None:
    assert pair.both("--", "ls", "/proc/self/fd") == (0, "0\n1\n2\n3\n")  # 3: the listing's own


def test_who_is_not_running(pair: Pair) -> None:
    pair.real.kill()
    done = pair.run("lxcpy", "--", "true")
    assert done.returncode == pair.run("lxc", "--", "true").returncode == 1
    assert done.stderr == (
        f'lxcpy-attach: {pair.real.name}: container "{pair.real.name}" is not running\n'
        f"  hint: start it: lxcpy-start -n {pair.real.name}\n"
    )


# -- on a terminal ---------------------------------------------------------------------------------------------------


class Screen:
    """A program on a pseudo terminal of 91 by 37."""

    def __init__(self, argv: list[str]) -> None:
        self.master, slave = os.openpty()
        self.size(91, 37)
        self.before = termios.tcgetattr(slave)
        self.slave = slave

        def begin() -> None:
            signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup the command would ignore a hang-up
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        # A session of its own whose terminal this is, as under a shell.
        self.process = subprocess.Popen(
            argv, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            env={name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")},
            preexec_fn=begin,
        )  # fmt: skip
        self.seen = b""

    def size(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def expect(self, wanted: bytes, timeout: float = 10) -> None:
        deadline = time.monotonic() + timeout
        while wanted not in self.seen:
            ready, _w, _x = select.select([self.master], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"{wanted!r} does not come: {self.seen!r}"
            try:
                self.seen += os.read(self.master, 4096)
            except OSError:
                raise AssertionError(f"ended without {wanted!r}: {self.seen!r}") from None
        self.seen = self.seen.partition(wanted)[2]

    def type(self, text: bytes) -> None:
        os.write(self.master, text)

    def end(self) -> int:
        status = self.process.wait(10)
        assert termios.tcgetattr(self.slave) == self.before, "the terminal is not as it was"
        return status

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def screen(pair: Pair) -> Iterator[Callable[..., Screen]]:
    made: list[Screen] = []

    def show(*words: str, who: str = "lxcpy") -> Screen:
        made.append(Screen(pair.argv(who, words)))
        return made[-1]

    yield show
    for one in made:
        one.close()


def test_the_login_shell(screen: Callable[..., Screen]) -> None:
    shell = screen()
    shell.expect(b"# ")
    shell.type(b"stty size; echo $((40+2)) $0 $(id -u)\n")
    shell.expect(b"37 91")
    shell.expect(b"42 /bin/sh 0")
    shell.type(b"exit 3\n")
    assert shell.end() == 3


def test_the_shell_of_another_user(screen: Callable[..., Screen]) -> None:
    shell = screen("-u", "1000", "-g", "1000")
    shell.expect(b"$ ")
    shell.type(b"echo $((40+2)) $0; tty; echo reopened > $(tty)\n")
    shell.expect(b"42 /bin/ash")
    shell.expect(b"/dev/pts/")
    shell.expect(b"reopened\r\n")
    shell.type(b"exit\n")
    assert shell.end() == 0


def test_a_root_without_accounts(pair: Pair, screen: Callable[..., Screen]) -> None:
    os.unlink(f"{pair.real.rootfs}/etc/passwd")
    shell = screen()
    shell.expect(b"# ")
    shell.type(b"echo $((40+2)) $0\n")
    shell.expect(b"42 /bin/sh")
    shell.type(b"exit\n")
    assert shell.end() == 0


def test_signals_of_the_keyboard_are_the_command_s(screen: Callable[..., Screen]) -> None:
    one = screen("--", "sh", "-c", "trap 'echo caught; exit 4' INT; echo ready; while :; do sleep 0.1; done")
    one.expect(b"ready")
    one.type(b"\x03")
    one.expect(b"caught")
    assert one.end() == 4


def test_the_window_follows(screen: Callable[..., Screen]) -> None:
    one = screen("--", "sh", "-c", "trap 'stty size' WINCH; echo ready; while :; do sleep 0.1; done")
    one.expect(b"ready")
    one.size(120, 50)
    one.expect(b"50 120")
    one.process.send_signal(signal.SIGTERM)
    assert one.end() == 129  # hung up on


def test_only_terminals_are_replaced(pair: Pair) -> None:
    master, slave = os.openpty()
    try:
        done = pair.run("lxcpy", "--", "sh", "-c", "cat; test -t 2 && echo tty", stdin=None, input="in\n", stderr=slave,
                        capture_output=False, stdout=subprocess.PIPE)  # fmt: skip
        assert (done.returncode, done.stdout) == (0, "in\ntty\n")
    finally:
        os.close(master)
        os.close(slave)


def test_the_log(pair: Pair, screen: Callable[..., Screen], tmp_path) -> None:  # type: ignore[no-untyped-def]
    log = tmp_path / "log"
    log.write_bytes(b"before\n")
    one = screen("-L", str(log), "--", "echo", "hello")
    one.expect(b"hello\r\n")
    assert one.end() == 0
    assert log.read_bytes() == b"before\nhello\r\n"


def test_background_processes_do_not_keep_the_terminal(screen: Callable[..., Screen]) -> None:
    one = screen("--", "sh", "-c", "sleep 30 & echo done")
    one.expect(b"done")
    started = time.monotonic()
    assert one.end() == 0
    assert time.monotonic() - started < 5


def test_a_mapped_terminal_belongs_to_the_container(mapped: Pair) -> None:
    one = Screen(mapped.argv("lxcpy", ("--", "sh", "-c", "ls -ln $(tty); echo again > $(tty)")))
    try:
        one.expect(b" 0 ")
        one.expect(b"again")
        assert one.end() == 0
    finally:
        one.close()


def test_console(pair: Pair, bin: str) -> None:
    argv = [f"{bin}/lxcpy-console", "-P", pair.real.lxcpath, "-n", pair.real.name, "-t", "1"]
    one = Screen(argv)
    try:
        one.expect(b"\r\nConnected to tty 1\r\nType <Ctrl+a q> to exit the console, ")
        one.expect(b"<Ctrl+a Ctrl+a> to enter Ctrl+a itself\r\n")
        second = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        assert second.returncode == 1
        assert "access denied: tty 1 is busy or missing" in second.stderr
        one.type(b"hello")
        one.expect(b"hello")  # the line's echo
        one.type(b"\x01q")
        assert one.end() == 0
    finally:
        one.close()
    one = Screen([*argv[:-1], "2", "-e", "^b"])
    try:
        one.expect(b"Type <Ctrl+b q> to exit")
        one.type(b"\x02q")
        assert one.end() == 0
    finally:
        one.close()
