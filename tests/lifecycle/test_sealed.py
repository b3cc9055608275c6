"""CVE-2019-5736: a container whose root has the host's ids looks for the interpreter's file and tries to write it.

The attacker is a real one: root of a container with the capabilities of LXC's defaults (CAP_SYS_PTRACE and
CAP_SYS_ADMIN among them), which looks at /proc/PID/exe of everybody it sees and opens what it has seen for writing
once nobody executes it. The interpreter is a copy that nothing else runs, so that ETXTBSY does not save it.
"""

from __future__ import annotations

import errno
import json
import os
import select
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from struct import pack
from typing import TYPE_CHECKING

import pytest

from lxcpy.cli import front, launcher
from lxcpy.runtime import attach, client

if TYPE_CHECKING:
    from conftest import Box, Define

pytestmark = pytest.mark.requires("root", "busybox")
ROOT = Path(__file__).parent.parent.parent
x86_64 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="the program before lxcpy-attach is x86-64's alone")
UNSEALED = """\
#!{python} -IS
import sys
sys.path += {packages!r}
from lxcpy.kernel import sealed
sealed.seal = lambda environment: None
from lxcpy.cli.main import leave, run
leave(run("attach", "lxcpy-attach", sys.argv[1:]))
"""


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Commands of an interpreter of their own; `unsealed` is lxcpy-attach without the protection."""
    folder = tmp_path_factory.mktemp("interpreter")
    subprocess.run([sys.executable, "-m", "venv", "--copies", "--without-pip", folder / "venv"], check=True)
    python, packages = f"{folder}/venv/bin/python3", [str(ROOT), sysconfig.get_path("purelib")]
    launcher.install(str(folder), python=python, packages=packages)
    (folder / "unsealed").write_text(UNSEALED.format(python=python, packages=packages))
    (folder / "unsealed").chmod(0o755)
    return folder


class Attacker:
    """A process of the container's root that collects what it finds at /proc/PID/exe."""

    def __init__(self, box: Box, target: Path) -> None:
        found = target.stat()
        self.file = found.st_dev, found.st_ino
        self.begun, begin = os.pipe()
        stop, self.stopping = os.pipe()
        self.said, saying = os.pipe()

        def run() -> int:
            os.close(self.stopping)
            held: list[int] = []
            self.look(held)
            os.write(begin, b"1")
            while not select.select([stop], [], [], 0)[0]:
                self.look(held)
            os.write(saying, json.dumps([self.write(fd) for fd in held]).encode())
            return 0

        self.process = attach.start(box.lxcpath, box.name, attach.Request(terminal=False, cwd="/"), run)
        for fd in (begin, stop, saying):
            os.close(fd)
        assert os.read(self.begun, 1) == b"1"

    def look(self, held: list[int]) -> None:
        for name in os.listdir("/proc"):
            if name.isdigit() and len(held) < 500:
                try:
                    fd = os.open(f"/proc/{name}/exe", os.O_PATH)
                except OSError:
                    continue
                found = os.fstat(fd)
                if (found.st_dev, found.st_ino) == self.file:
                    held.append(fd)
                else:
                    os.close(fd)

    def write(self, fd: int) -> str:
        try:
            os.close(os.open(f"/proc/self/fd/{fd}", os.O_WRONLY))
        except OSError as error:
            return errno.errorcode[error.errno or 0]
        return "written"

    def results(self) -> set[str]:
        """What came of opening what it has found; empty where it found nothing."""
        os.write(self.stopping, b"1")
        with open(self.said) as said:
            found = set(json.loads(said.read()))
        for fd in (self.begun, self.stopping, self.process.pidfd):
            os.close(fd)
        os.waitpid(self.process.pid, 0)
        return found


Attack = Callable[[], Attacker]


@pytest.fixture
def target(box: Define, copy: Path) -> Iterator[tuple[Box, Attack]]:
    one = box()
    one.start()
    yield one, lambda: Attacker(one, copy / "venv/bin/python3")


def enter(copy: Path, words: list[str], box: Box, *command: str) -> None:
    argv = [f"{copy}/{words[0]}", *words[1:], "-P", box.lxcpath, "-n", box.name, "--", *command]
    assert subprocess.run(argv, stdin=subprocess.DEVNULL, timeout=60, check=True).returncode == 0


def attacked(attack: Attack, copy: Path, words: list[str], box: Box) -> set[str]:
    """What the attacker gets; it is given time until it has caught one."""
    for _ in range(20):
        attacker = attack()
        for _ in range(5):
            enter(copy, words, box, "/bin/true")
        if found := attacker.results():
            return found
    return set()


def test_the_attack_works_where_there_is_no_protection(target: tuple[Box, Attack], copy: Path) -> None:
    assert attacked(target[1], copy, ["unsealed"], target[0]) == {"written"}


@pytest.mark.parametrize("words", [pytest.param(["lxcpy-attach"], marks=x86_64), ["lxcpy", "attach"]], ids=" ".join)
def test_attach_cannot_be_written_through(target: tuple[Box, Attack], copy: Path, words: list[str]) -> None:
    assert attacked(target[1], copy, words, target[0]) in ({"EROFS"}, set())


def test_attach_cannot_be_looked_into_without_ptrace(box: Define, copy: Path) -> None:
    """Not even unsealed: it is not dumpable from its birth on."""
    one = box("lxc.cap.drop = sys_ptrace\n")
    one.start()
    attacker = Attacker(one, copy / "venv/bin/python3")
    for _ in range(20):
        enter(copy, ["unsealed"], one, "/bin/true")
    assert attacker.results() == set()


def loader() -> bytes:
    """A program that stands for the container's dynamic loader, and waits: pause(2) again and again."""
    code = bytes.fromhex("b8220000000f05ebf7")
    size = 64 + 56 + len(code)
    head = b"\x7fELF\2\1\1" + bytes(9) + pack("<HHIQQQIHHHHHH", 3, 62, 1, 120, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return head + pack("<IIQQQQQQ", 1, 5, 0, 0, 0, size, size, 0x1000) + code


def trap(box: Box) -> None:
    """A script whose interpreter is that of whoever executes it, and a loader that keeps it waiting."""
    interp = subprocess.run(
        ["readelf", "-lW", os.path.realpath(sys.executable)], capture_output=True, text=True, check=True
    ).stdout.partition("program interpreter: ")[2].partition("]")[0]
    place = Path(box.rootfs, interp.lstrip("/"))
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(loader())
    place.chmod(0o755)
    evil = Path(box.rootfs, "bin/evil")
    evil.write_text("#!/proc/self/exe\n")
    evil.chmod(0o755)


@x86_64
@pytest.mark.skipif(not shutil.which("readelf"), reason="readelf is not installed")
@pytest.mark.parametrize(("words", "outcome"), [(["unsealed"], "written"), (["lxcpy-attach"], "EROFS")])
def test_a_script_that_names_its_caller_as_interpreter(
    target: tuple[Box, Attack], copy: Path, words: list[str], outcome: str
) -> None:
    one, attack = target
    trap(one)
    argv = [f"{copy}/{words[0]}", "-P", one.lxcpath, "-n", one.name, "--", "/bin/evil"]
    with subprocess.Popen(argv, stdin=subprocess.DEVNULL) as entering:
        inside = 0
        while not inside:
            assert entering.poll() is None
            for pid in os.listdir("/proc"):
                if pid.isdigit() and _caught(pid):
                    inside = int(pid)
        attacker = attack()
        os.kill(inside, 9)
    assert attacker.results() == {outcome}


def _caught(pid: str) -> bool:
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().split(b"\0")[:2] == [b"/proc/self/exe", b"/bin/evil"]
    except OSError:
        return False


def read_only(pid: int) -> bool:
    """Whether a process is the interpreter, and runs from a read-only mount (a write would be ETXTBSY before EROFS)."""
    assert os.path.samefile(f"/proc/{pid}/exe", sys.executable)
    return bool(os.statvfs(f"/proc/{pid}/exe").f_flag & os.ST_RDONLY)


@x86_64
@pytest.mark.skipif(not shutil.which("readelf"), reason="readelf is not installed")
def test_an_init_that_names_its_caller_as_interpreter(box: Define) -> None:
    one = box("lxc.init.cmd = /bin/evil\n")
    trap(one)
    one.start()
    assert read_only(one.init_pid)


def test_the_init_of_execute_and_the_supervisor(box: Define) -> None:
    one = box()
    one.start(command=["/bin/sleep", "600"])
    assert read_only(one.init_pid)
    with client.connect() as supervisor:
        assert read_only(supervisor.ask("status")["pid"])


@x86_64
@pytest.mark.skipif(not shutil.which("as") or not shutil.which("objcopy"), reason="binutils is not installed")
def test_the_program_before_attach_is_what_its_source_says(tmp_path: Path) -> None:
    (tmp_path / "front.s").write_text(front.SOURCE)
    subprocess.run(["as", "-o", "front.o", "front.s"], cwd=tmp_path, check=True)
    subprocess.run(["objcopy", "-O", "binary", "-j", ".text", "front.o", "front"], cwd=tmp_path, check=True)
    assert (tmp_path / "front").read_bytes() == front.CODE_BYTES


@x86_64
def test_the_program_hands_its_words_on(copy: Path, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_bytes(front.program(f"{copy}/venv/bin/python3", ["/x y", "/\udcff"]).replace(
        b"from lxcpy.cli.main import leave, main\nleave(main())\n",
        b"import os; print([sys.argv, sys.path[-2:], os.environ])\0".ljust(53, b"\0"),
    ))  # fmt: skip
    program.chmod(0o755)
    done = subprocess.run([str(program), "", "a b", "c"], capture_output=True, env={"K": "v"}, check=True)
    assert done.stdout.decode() == (
        f"[[{str(program)!r}, '', 'a b', 'c'], ['/x y', '/\\udcff'], environ({{'K': 'v', 'LC_CTYPE': 'C.UTF-8'}})]\n"
    )
    program.write_bytes(front.program("/nonexistent/python", []))
    assert subprocess.run([str(program)], check=False).returncode == 127
    packages = [str(ROOT), sysconfig.get_path("purelib")]
    program.write_bytes(front.program(f"{copy}/venv/bin/python3", packages))
    denied = ["unshare", "--user", "--map-root-user", str(program)]  # no mount rights over the host's tree
    assert subprocess.run([*denied, "--version"], capture_output=True, check=False).returncode == 0
