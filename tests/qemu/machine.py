"""A small virtual machine with another kernel and another cgroup layout than this host's.

QEMU (software emulation: no /dev/kvm wanted) boots the distribution's cloud kernel with an initramfs made here:
static busybox, this interpreter with its library, the lxcpy package, and what a test adds. A script runs as root and
its output comes back; nothing of the host is touched. A machine boots in about three seconds, code in it runs some ten
times slower than outside.

    machine = Machine()
    machine.tree.add_program("/usr/sbin/ip")
    done = machine.run("guest_cgroup2.py")        # a file of this folder, or any path
    done.status, done.output, done.console
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, NamedTuple

import probes
import pytest

HERE = Path(__file__).parent
PROJECT = HERE.parent.parent
IMAGE = "linux-image-cloud-amd64"
NEEDED = ("qemu-system-x86_64", "apt-get", "apt-cache", "dpkg-deb", "ldd")

# Parts of the standard library that no test in a machine needs: a third of its size.
LEFT_OUT = {"test", "tests", "idlelib", "lib2to3", "ensurepip", "tkinter", "turtledemo", "pydoc_data", "distutils",
            "site-packages", "dist-packages", "config-3.11-x86_64-linux-gnu"}  # fmt: skip

INIT = """\
#!/bin/busybox sh
if [ "$1" != again ]; then  # pivot_root(2) refuses to leave the first root: stand on a mount of it
    /bin/busybox mkdir -p /proc /sys /dev /tmp /run /root /mnt /again
    /bin/busybox --install -s /bin
    mount --bind / /again
    cd /again
    mount --move . /
    exec chroot . /init again
fi
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t securityfs security /sys/kernel/security
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts /dev/pts
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
ifconfig lo up
for module in $(cat /modules.list); do insmod $module || echo "insmod $module failed"; done
. /mounts.sh
export PATH=/bin:/usr/bin:/usr/sbin HOME=/root LANG=C.UTF-8 PYTHONPATH=/project PYTHONDONTWRITEBYTECODE=1
stty -F /dev/ttyS1 raw
cd /root
/python /script.py > /dev/ttyS1 2>&1 < /dev/null
echo "exit status $?" > /dev/ttyS1
reboot -f
"""
CGROUP2 = "mount -t cgroup2 cgroup2 /sys/fs/cgroup\n"


class Result(NamedTuple):
    """status: of the script, -1 if the machine ended without a word."""

    status: int
    output: str
    console: str


class Tree:
    """Files for the initramfs: guest path → mode and content."""

    def __init__(self) -> None:
        self.entries: dict[str, tuple[int, bytes | Path | int]] = {}

    def add(self, path: str, content: bytes | str | Path, mode: int = 0o644) -> None:
        """A file with this content, or with that of a host file."""
        self._parents(path)
        data = content.encode() if isinstance(content, str) else content
        self.entries[path.strip("/")] = (stat.S_IFREG | mode, data)

    def add_link(self, path: str, target: str) -> None:
        """A symbolic link."""
        self._parents(path)
        self.entries[path.strip("/")] = (stat.S_IFLNK | 0o777, target.encode())

    def add_folder(self, path: str, mode: int = 0o755) -> None:
        """A directory, if it is not there yet."""
        self._parents(path)
        self.entries.setdefault(path.strip("/"), (stat.S_IFDIR | mode, b""))

    def add_node(self, path: str, device: int) -> None:
        """A character device."""
        self._parents(path)
        self.entries[path.strip("/")] = (stat.S_IFCHR | 0o600, device)

    def add_tree(self, path: str, folder: Path, leave_out: Iterable[str] = ()) -> None:
        """A host folder with all below; links stay links."""
        for place, below, names in os.walk(folder):
            below[:] = sorted(name for name in below if name not in leave_out)
            inner = f"{path}/{os.path.relpath(place, folder)}".replace("/./", "/").removesuffix("/.")
            self.add_folder(inner)
            for name in sorted(names):
                file = Path(place, name)
                if file.is_symlink():
                    self.add_link(f"{inner}/{name}", os.readlink(file))
                elif file.is_file():
                    self.add(f"{inner}/{name}", file, file.stat().st_mode & 0o7777)

    def add_program(self, program: str, path: str | None = None) -> None:
        """A host program and the shared libraries that it loads, at the same paths (the program at `path`)."""
        self.add(path or program, Path(program).resolve(), 0o755)
        self.add_libraries(program)

    def add_libraries(self, program: str) -> None:
        """The shared libraries of a host program or library."""
        said = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
        for word in said.split():
            if word.startswith("/") and os.path.isfile(word):
                self.add(word, Path(word).resolve(), 0o755)

    def _parents(self, path: str) -> None:
        parts = path.strip("/").split("/")[:-1]
        for count in range(1, len(parts) + 1):
            self.entries.setdefault("/".join(parts[:count]), (stat.S_IFDIR | 0o755, b""))

    def write(self, file: IO[bytes]) -> None:
        """As a cpio archive of the `newc` format (Documentation/driver-api/early-userspace/buffer-format.rst)."""
        for number, (path, (mode, content)) in enumerate(self.entries.items(), 1):
            data, device, changed = b"", 0, 0
            if isinstance(content, Path):
                data, changed = content.read_bytes(), int(content.stat().st_mtime)  # compiled modules name the time
            elif isinstance(content, int):
                device = content
            else:
                data = content
            self._record(file, number, path, mode, data, device, changed)
        self._record(file, 0, "TRAILER!!!", 0, b"", 0, 0)

    @staticmethod
    def _record(file: IO[bytes], number: int, path: str, mode: int, data: bytes, device: int, changed: int) -> None:
        name = path.encode() + b"\0"
        fields = (number, mode, 0, 0, 1, changed, len(data), 0, 0, os.major(device), os.minor(device), len(name), 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
        file.write(head + b"\0" * (-len(head) % 4) + data + b"\0" * (-len(data) % 4))


def _missing() -> str | None:
    if platform.machine() != "x86_64":
        return f"the machine is an x86_64, this is {platform.machine()}"
    lacking = [name for name in NEEDED if not shutil.which(name)]
    return f"no command {', '.join(lacking)}" if lacking else None


def skip(reason: str) -> None:
    """Skip the test, or let it fail where LXCPY_MUST_RUN has the word qemu."""
    if probes.must_run("qemu"):
        pytest.fail(f"needs qemu: {reason}", pytrace=False)
    pytest.skip(f"needs qemu: {reason}")


def kernel() -> Path:
    """A folder with the distribution's cloud kernel (boot/vmlinuz-*, lib/modules/*), downloaded once a cache."""
    reason = _missing()
    if reason:
        skip(reason)
    return _once("kernel", _kernel_package)


def _kernel_package() -> str:
    said = subprocess.run(["apt-cache", "depends", "--important", IMAGE], capture_output=True, text=True, check=False)
    names = [line.split()[-1] for line in said.stdout.splitlines() if "Depends: linux-image-" in line]
    if not names:
        skip(f"the host's apt sources have no {IMAGE}")
    return names[0]


def package(name: str) -> Path:
    """A folder with the files of one of the distribution's packages, downloaded once a cache."""
    return _once(name, lambda: name)


def _once(name: str, package: Callable[[], str]) -> Path:
    folder = Path(os.environ["LXCPY_CACHE_DIR"]) / "qemu" / name
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as work:
            _download(package(), Path(work))
            os.rename(f"{work}/files", folder)
    return folder


def _download(package: str, work: Path) -> None:
    done = subprocess.run(
        ["apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package],
        cwd=work, capture_output=True, text=True, check=False,
    )  # fmt: skip
    archives = list(work.glob("*.deb"))
    if done.returncode or not archives:
        skip(f"{package} could not be downloaded: {done.stderr.strip().splitlines()[-1:]}")
    subprocess.run(["dpkg-deb", "-x", str(archives[0]), str(work / "files")], check=True)


class Machine:
    """What a machine consists of; `run` boots it, as often as wanted.

    modules: kernel modules to load at boot, those that they need found by their own words.
    mounts:  shell commands of the guest that mount its cgroups (pure v2 by default).
    append:  words for the kernel's command line.
    """

    def __init__(self, *, modules: Iterable[str] = (), mounts: str = CGROUP2, append: str = "cgroup_no_v1=all") -> None:
        self.kernel = kernel()
        self.append = append
        self.tree = Tree()
        self.tree.add_node("/dev/console", os.makedev(5, 1))
        self.tree.add("/init", INIT, 0o755)
        self.tree.add("/mounts.sh", mounts)
        self._busybox()
        self._python()
        self._modules(modules)
        self.tree.add_tree("/project/lxcpy", PROJECT / "lxcpy")
        self.tree.add_tree("/project/config", PROJECT / "config")
        self.tree.add("/etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
        self.tree.add("/etc/group", "root:x:0:\n")

    def add_packages(self, *names: str) -> None:
        """Python packages and modules of this environment."""
        for name in names:
            spec = importlib.util.find_spec(name)
            assert spec and spec.origin, name
            if spec.submodule_search_locations:
                self.tree.add_tree(f"/project/{name}", Path(spec.origin).parent)
                for extension in Path(spec.origin).parent.rglob("*.so"):
                    self.tree.add_libraries(str(extension))
            else:
                self.tree.add(f"/project/{name}.py", Path(spec.origin))

    def add_lxcpy(self) -> None:
        """What starting containers needs beside the package itself."""
        self.add_packages("pyroute2", "configobj", "validate", "jinja2", "markupsafe")
        self.tree.add_folder("/usr/lib/lxcpy/rootfs")
        for library in (Path("/usr/lib/x86_64-linux-gnu/libseccomp.so.2"), Path("/usr/lib64/libseccomp.so.2")):
            if library.exists():
                self.tree.add(str(library), library.resolve(), 0o755)

    def add_pytest(self) -> None:
        """What guest_pytest.py needs to run tests of tests/lifecycle.

        The programs are those of the host: a shell of busybox runs its own applets and no other's.
        """
        self.add_packages("pytest", "_pytest", "pluggy", "iniconfig", "packaging", "pygments", "py")
        self.add_packages("hypothesis", "_hypothesis_globals", "sortedcontainers")  # tests/conftest.py
        self.tree.add_tree("/project/tests", PROJECT / "tests", {"__pycache__", "corpus", "oracle"})
        self.tree.add("/project/pyproject.toml", PROJECT / "pyproject.toml")
        for name in ("sh", "ip", "bridge", "nsenter", "unshare"):
            program = shutil.which(name)
            if program is None:
                skip(f"no command {name}")
                return
            self.tree.add_program(program, f"/bin/{name}")

    def _busybox(self) -> None:
        program = shutil.which("busybox")
        if program is None:
            skip("no command busybox")
            return
        self.tree.add_program(program, "/bin/busybox")

    def _python(self) -> None:
        """This interpreter, under the name /python, with the standard library where it looks for it."""
        program = os.path.realpath(getattr(sys, "_base_executable", sys.executable))
        self.tree.add_program(program, program)
        self.tree.add("/python", f'#!/bin/busybox sh\nexec {program} -S "$@"\n', 0o755)
        library = Path(sysconfig.get_path("stdlib", vars={"base": sys.base_prefix, "installed_base": sys.base_prefix}))
        self.tree.add_tree(str(library), library, LEFT_OUT)
        for extension in (library / "lib-dynload").glob("*.so"):
            if extension.name.partition(".")[0] in ("_ctypes", "_hashlib", "_lzma", "_bz2", "_ssl"):
                self.tree.add_libraries(str(extension))

    def _modules(self, wanted: Iterable[str]) -> None:
        found = {file.stem.replace("-", "_"): file for file in self.kernel.glob("lib/modules/*/kernel/**/*.ko")}
        ordered: list[Path] = []
        for name in wanted:
            for module in self._with_needed(name, found):
                if module not in ordered:
                    ordered.append(module)
        for module in ordered:
            self.tree.add(f"/modules/{module.name}", module)
        self.tree.add("/modules.list", "".join(f"/modules/{module.name}\n" for module in ordered))

    def _with_needed(self, name: str, found: dict[str, Path]) -> Iterator[Path]:
        """A module behind those it depends on: its .modinfo section has `depends=a,b`."""
        if name not in found:
            return  # built in
        data = found[name].read_bytes()
        at = data.find(b"\0depends=")
        words = data[at + len(b"\0depends=") : data.find(b"\0", at + 1)].decode() if at >= 0 else ""
        for needed in filter(None, words.split(",")):
            yield from self._with_needed(needed.replace("-", "_"), found)
        yield found[name]

    def run(
        self,
        script: str | Path,
        *,
        arguments: Iterable[str] = (),
        memory: int = 512,
        cpus: int = 2,
        timeout: float = 120,
    ) -> Result:
        """Boot, run a Python script (a name of this folder or a path) as root, switch off.

        memory: MiB. timeout: seconds, after which the machine is ended.
        """
        words = "".join(f", {word!r}" for word in arguments)
        self.tree.add("/guest.py", HERE / script)
        self.tree.add("/script.py", f"import runpy, sys\nsys.argv = ['guest.py'{words}]\n"
                      "runpy.run_path('/guest.py', run_name='__main__')\n")  # fmt: skip
        with tempfile.TemporaryDirectory(prefix="lxcpy-qemu-") as work:
            with open(f"{work}/initramfs", "wb") as file:
                self.tree.write(file)
            note = self._boot(work, memory, cpus, timeout)
            texts = [_text(f"{work}/{name}") for name in ("output", "console", "qemu")]
        output, separator, status = texts[0].rpartition("exit status ")
        if not separator:
            return Result(-1, texts[0], texts[1] + texts[2] + note)
        return Result(int(status), output, texts[1] + texts[2] + note)

    def _boot(self, work: str, memory: int, cpus: int, timeout: float) -> str:
        """Let the machine run to its end, or to the timeout; a note about the latter."""
        (image,) = self.kernel.glob("boot/vmlinuz-*")
        argv = [
            "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(cpus), "-m", str(memory),
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none",
            "-kernel", str(image), "-initrd", f"{work}/initramfs",
            "-append", f"console=ttyS0 quiet panic=-1 {self.append}",
            "-serial", f"file:{work}/console", "-serial", f"file:{work}/output",
        ]  # fmt: skip
        with open(f"{work}/qemu", "w") as errors:
            process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
            try:
                process.wait(timeout)
            except subprocess.TimeoutExpired:
                return f"\nended after {timeout:g} s"
            finally:
                process.kill()
                process.wait()
        return ""


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().replace("\r\n", "\n")
    except FileNotFoundError:
        return ""
