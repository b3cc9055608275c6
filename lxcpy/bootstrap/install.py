"""Turns a plan into a system: skeleton, packages, dpkg's database, maintainer scripts.

While one stage is configured (first what is essential, then what is required, then the rest), the next are being
decompressed out of its scripts' sight. Stock dpkg runs the maintainer scripts, so what comes out is what dpkg makes.
"""

from __future__ import annotations

import errno
import os
import re
import stat
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from typing import NamedTuple

from lxcpy.bootstrap import download, dpkgdb, secondstage, shortcuts
from lxcpy.bootstrap.cache import Store
from lxcpy.bootstrap.chroot import STATUS, Chroot, Settings
from lxcpy.bootstrap.plan import STAGES, Item, Plan, Repository
from lxcpy.bootstrap.progress import Progress
from lxcpy.bootstrap.unpack import Unpacking
from lxcpy.bootstrap.workers import Worker
from lxcpy.errors import BootstrapError, meaning
from lxcpy.kernel.fd import exists_in_root, make_dirs_in_root, read_in_root, unlink_in_root, write_in_root
from lxcpy.log import Log

LOG = Log("bootstrap")
MERGED = ("bin", "sbin", "lib", "lib32", "lib64", "libo32", "libx32")  # every multilib directory there ever was
_DEVICES = {
    "null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0),
    "console": (5, 1), "ptmx": (5, 2),
}  # fmt: skip
_DEVICE_LINKS = {
    "fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
}  # fmt: skip
_POLICY = "usr/sbin/policy-rc.d"
_TAIL = 20  # lines of the log in an error
_LONGEST = 500  # characters of each
_STATUS_LINE = re.compile(r"^status: (\S+?) ?: (error : .*|[a-z-]+)$")  # dpkg(1), --status-fd


class Install(NamedTuple):
    """How to carry out a plan.

    merged: /bin and the like are links into /usr. persona: for the programs, see chroot.Settings. log: the file that
    gets their output. covered: (path, source) files that programs see in place of others while scripts run. deferred:
    programs that scripts run again and again; each such call does nothing, and one at the end, of all that are there,
    does the work.
    foreign: no program is run, secondstage.py's script does that elsewhere. interpreter: (path inside, file) of a
    program that the others need to run. environment: further variables of programs. ordered: one package after the
    other, so that nothing depends on which of two was faster.
    """

    merged: bool = True
    persona: int = 0
    log: str = ""
    foreign: bool = False
    interpreter: tuple[str, str] | None = None
    covered: tuple[tuple[str, str], ...] = ()
    deferred: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    ordered: bool = False


def install(
    plan: Plan,
    repositories: Sequence[Repository],
    target: str,
    settings: Install,
    *,
    store: Store,
    workers: Sequence[Worker],
    progress: Progress,
) -> None:
    """Make the system in the empty directory `target`. Raises BootstrapError."""
    with ExitStack() as stack:
        try:
            root = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            stack.callback(os.close, root)
            _skeleton(root, settings)
            workers = workers[:1] if settings.ordered else workers
            for worker in workers:
                worker.start(target)
            unpacking = Unpacking(plan, repositories, store, workers, progress, target, ordered=settings.ordered)
            stack.callback(unpacking.close)
            unpacking.start()
            if settings.foreign:
                for stage in STAGES:
                    unpacking.wait(stage)
                _leave_to_second_stage(root, plan, unpacking)
            else:
                _Configuration(root, target, plan, settings, unpacking, progress, stack).run()
            _finish(root, unpacking, foreign=settings.foreign)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise download.full_disk(error, target) from error
            raise BootstrapError(f'cannot make the system in "{target}": {meaning(error)} ({error})') from error


def _skeleton(root: int, settings: Install) -> None:
    """What must be there before the first package. Raises OSError."""
    os.mkdir("usr", 0o755, dir_fd=root)
    if settings.merged:
        for name in MERGED:
            os.mkdir(f"usr/{name}", 0o755, dir_fd=root)
            os.symlink(f"usr/{name}", name, dir_fd=root)
    make_devices(root)
    dpkgdb.make_empty(root)
    if settings.interpreter is not None:
        inside, source = settings.interpreter
        with open(source, "rb") as file:
            make_dirs_in_root(root, os.path.dirname(inside)).close()
            write_in_root(root, inside.lstrip("/"), file.read(), 0o755)


def make_devices(root: int) -> None:
    """/dev with the devices that every program may expect. Raises OSError."""
    os.mkdir("dev", 0o755, dir_fd=root)
    for name in ("pts", "shm"):
        os.mkdir(f"dev/{name}", 0o755, dir_fd=root)
    for name, (major, minor) in _DEVICES.items():
        try:
            os.mknod(f"dev/{name}", stat.S_IFCHR | 0o666, os.makedev(major, minor), dir_fd=root)
        except PermissionError:  # a user namespace: a file to show the host's on
            os.mknod(f"dev/{name}", stat.S_IFREG | 0o666, dir_fd=root)
        os.chmod(f"dev/{name}", 0o666, dir_fd=root)
    for name, to in _DEVICE_LINKS.items():
        os.symlink(to, f"dev/{name}", dir_fd=root)


def _leave_to_second_stage(root: int, plan: Plan, unpacking: Unpacking) -> None:
    """dpkg's database says that all is unpacked, and a script in the system does the rest. Raises OSError."""
    found = unpacking.found
    write_in_root(root, f"{dpkgdb.ADMIN}/status", dpkgdb.status((found[i.name], i.overrides) for i in plan.items))
    triggers = dpkgdb.Triggers()
    for entry in found.values():
        triggers.add(entry["stem"], entry["triggers"])
    triggers.write(root)
    forbid_services(root)
    scripts = [
        {"name": item.name, "arch": item.arch, "stem": found[item.name]["stem"]}
        for item in sorted(plan.items, key=lambda item: item.name != "base-passwd")
        if (script := found[item.name]["preinst"]) and not idle(script)
    ]
    version = next((item.version for item in plan.items if item.name == "dpkg"), "1")
    secondstage.begin(root, version, scripts, [[item.name for item in plan.stage(number)] for number in STAGES[:-1]])


def _finish(root: int, unpacking: Unpacking, *, foreign: bool) -> None:
    """Remove what was there for the work only. Raises OSError."""
    listings = [_listing(root, found["stem"]) for found in unpacking.found.values()]
    for name in MERGED:
        if not any(f"\n/{name}\n".encode() in listing for listing in listings):
            try:
                os.rmdir(f"usr/{name}", dir_fd=root)
                os.unlink(name, dir_fd=root)
            except OSError:
                continue  # not merged, or something lives there after all
    if not foreign:
        allow_services(root)


def forbid_services(root: int) -> None:
    """Let no package start what it brings (invoke-rc.d(8)), until `allow_services`. Raises OSError."""
    write_in_root(root, _POLICY, b"#!/bin/sh\nexit 101\n", 0o755)


def allow_services(root: int) -> None:
    """Raises OSError."""
    unlink_in_root(root, _POLICY)


def cover(chroot: Chroot, root: int, covered: Sequence[tuple[str, str]]) -> None:
    """Let programs see others in place of those that are named. Raises BootstrapError, OSError."""
    for path, source in _there(root, covered):
        chroot.cover(path, source)


def _there(root: int, pairs: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Those whose first is the path of a file in the tree. Raises OSError."""
    return [(path, other) for path, other in pairs if exists_in_root(root, path.lstrip("/"))]


def _listing(root: int, stem: str) -> bytes:
    return b"\n" + read_in_root(root, f"{dpkgdb.ADMIN}/info/{stem}.list", 1 << 26)


class _Configuration:
    """The maintainer scripts, stage by stage."""

    def __init__(
        self,
        root: int,
        target: str,
        plan: Plan,
        settings: Install,
        unpacking: Unpacking,
        progress: Progress,
        stack: ExitStack,
    ) -> None:
        self.root = root
        self.target = target
        self.plan = plan
        self.settings = settings
        self.unpacking = unpacking
        self.progress = progress
        self.triggers = dpkgdb.Triggers()
        self.failed = ""  # dpkg's words about the first package that failed
        self.failed_package = ""
        self.configured: set[str] = set()
        self.log = os.open(settings.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        stack.callback(os.close, self.log)
        reading, self.status = os.pipe2(os.O_CLOEXEC)
        self.inside = Settings(
            persona=settings.persona, log=self.log, status=self.status, environment=settings.environment
        )
        self.chroot: Chroot | None = None
        self.reader = threading.Thread(target=self.read_status, args=(reading,), daemon=True)
        self.reader.start()
        stack.callback(self.end)

    def end(self) -> None:
        """Nothing runs inside any more, and all of dpkg's words are read."""
        self.leave()
        if self.status >= 0:
            os.close(self.status)
            self.status = -1
            self.reader.join(timeout=5)

    def enter(self, covered: Sequence[tuple[str, str]] = (), scripts: Sequence[tuple[str, str]] = ()) -> None:
        """A new chroot, in which programs see files, and scripts, in place of others."""
        self.leave()
        self.chroot = Chroot(self.target, self.inside)
        cover(self.chroot, self.root, covered)
        for path, script in _there(self.root, scripts):
            self.chroot.cover(path, script=script)

    def leave(self) -> None:
        if self.chroot is not None:
            self.chroot.close()
            self.chroot = None

    def run(self) -> None:
        forbid_services(self.root)
        deferred = [(path, shortcuts.NOTHING_DONE) for path in self.settings.deferred]
        covered = (*shortcuts.COVERED, *self.settings.covered, *deferred)
        before: list[str] = []
        for items in filter(None, map(self.plan.stage, STAGES)):
            self.unpacking.wait(items[0].stage)
            if not before:
                self.progress.start("configure", total=len(self.plan.items), unit="packages")
            # Once more for each: what is not there yet cannot be covered, nor anything once a program ran.
            self.enter(covered, shortcuts.SCRIPTS)
            self.stage(items, before)
            before += [self.unpacking.found[item.name]["stem"] for item in items]
        if there := _there(self.root, deferred):
            self.enter()
            for path, _ in there:
                self.call([path], {}, path)
        self.progress.finish("configure")

    def stage(self, items: Sequence[Item], triggered_owners: Sequence[str]) -> None:
        """Tell dpkg of unpacked packages and let it configure them. Raises BootstrapError, OSError.

        triggered_owners: the stems of earlier packages, which may wait for a file of these.
        """
        found = {item.name: self.unpacking.found[item.name] for item in items}
        status = read_in_root(self.root, f"{dpkgdb.ADMIN}/status", 1 << 26)
        status += dpkgdb.status((found[item.name], item.overrides) for item in items)
        write_in_root(self.root, f"{dpkgdb.ADMIN}/status", status)
        for entry in found.values():
            self.triggers.add(entry["stem"], entry["triggers"])
        self.triggers.write(self.root)
        # base-passwd's makes the tables of users, which the others may ask.
        for name in sorted(found, key=lambda name: name != "base-passwd"):
            script = found[name]["preinst"]
            if script and not idle(script):
                self.preinst(name, found[name]["stem"], found[name]["control"])
        if triggered_owners:
            listings = [_listing(self.root, entry["stem"]) for entry in found.values()]
            for path in self.triggers.hit(listings, triggered_owners):
                self.call(["/usr/bin/dpkg-trigger", "--no-await", "--by-package=dpkg", path], {}, "dpkg-trigger")
        # Its first failure is the last: what came after it would only bury the script's words.
        argv = ["/usr/bin/dpkg", "--abort-after=1", "--status-fd", str(STATUS), "--configure", "-a"]
        self.call(argv, {}, "dpkg --configure -a")

    def preinst(self, name: str, stem: str, control: str) -> None:
        """Run a package's preinst as dpkg does, from tmp.ci: debconf reads the package's name from there."""
        place = f"{dpkgdb.ADMIN}/tmp.ci"
        make_dirs_in_root(self.root, place).close()
        names = [f"{place}/control"]
        write_in_root(self.root, names[0], control.encode(errors="surrogateescape"))
        for part in ("preinst", "config", "templates"):
            source = f"{dpkgdb.ADMIN}/info/{stem}.{part}"
            if exists_in_root(self.root, source):
                names.append(f"{place}/{part}")
                write_in_root(self.root, names[-1], read_in_root(self.root, source), 0o755)
        environment = {
            "DPKG_MAINTSCRIPT_PACKAGE": name,
            "DPKG_MAINTSCRIPT_PACKAGE_REFCOUNT": "1",
            "DPKG_MAINTSCRIPT_ARCH": next(item.arch for item in self.plan.items if item.name == name),
            "DPKG_MAINTSCRIPT_NAME": "preinst",
            "DPKG_MAINTSCRIPT_DEBUG": "0",
            "DPKG_ADMINDIR": f"/{dpkgdb.ADMIN}",
            "DPKG_ROOT": "",
            "DPKG_RUNNING_VERSION": next((i.version for i in self.plan.items if i.name == "dpkg"), "1"),
        }
        self.failed_package = name
        self.call([f"/{place}/preinst", "install"], environment, f"the preinst script of {name}")
        self.failed_package = ""
        for path in names:
            unlink_in_root(self.root, path)
        os.rmdir(place, dir_fd=self.root)

    def call(self, argv: list[str], environment: dict[str, str], what: str) -> None:
        """Run a program; its failure ends everything. Raises BootstrapError."""
        assert self.chroot is not None
        status = self.chroot.run(argv, env=environment)
        if status == 0:
            return
        self.unpacking.check(1)  # a disk that it is filling, which the script met first
        if not self.failed_package and argv[0] == "/usr/bin/dpkg":
            self.end()
        end = f"was killed by signal {-status}" if status < 0 else f"exit status {status}"
        subject = f"{self.failed_package}: {what}" if self.failed_package and self.failed_package not in what else what
        said = f": {self.failed}" if self.failed else ""
        raise BootstrapError(
            f"{subject} failed ({end}){said}\n{tail(self.settings.log, self.failed_package)}",
            hint=f"the full log is in {self.settings.log}",
        )

    def read_status(self, reading: int) -> None:
        """dpkg's reports, until the other side is closed."""
        with open(reading, encoding="utf-8", errors="replace") as stream:
            for line in stream:
                match = _STATUS_LINE.match(line.rstrip("\n"))
                if not match:
                    continue
                name, word = match[1].partition(":")[0], match[2]
                if word == "installed" and name not in self.configured:
                    self.configured.add(name)
                    self.progress.advance("configure")
                elif word.startswith("error : ") and not self.failed:
                    self.failed_package, self.failed = name, word.removeprefix("error : ")


def tail(path: str, package: str = "", count: int = _TAIL) -> str:
    """The last lines of a log, indented; with a package's name those that its script said before dpkg took note."""
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - (64 << 10)))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        return ""
    said = _said(lines, package) if package else lines
    return "\n".join(f"  | {line[:_LONGEST]}" for line in (said or lines)[-count:])


def _said(lines: Sequence[str], package: str) -> Sequence[str]:
    """What a package's script said, out of dpkg's output; nothing where that cannot be told."""
    name = re.escape(package) + r"(?::[a-z0-9-]+)?"
    ends = [at for at, line in enumerate(lines) if re.match(rf"dpkg: error processing package {name} \(", line)]
    if not ends:
        return ()
    heads = re.compile(rf"(?:Setting up|Processing triggers for) {name} \(.*\) ?\.\.\.$")
    begins = [at for at, line in enumerate(lines[: ends[-1]]) if heads.match(line)]
    return lines[begins[-1] + 1 if begins else 0 : ends[-1]]


_NOTHING = re.compile(
    r"""^\s*(?:\#.*|set\s+-[eu]+|exit\s+0|:|true|
        (?:/usr/bin/)?dpkg-maintscript-helper\b(?:[^;&|`$]|\$[^(])*)?\s*$""",
    re.VERBOSE,
)


def idle(script: str) -> bool:
    """Whether a preinst does nothing in a first installation: comments, and calls of dpkg-maintscript-helper alone."""
    joined = script.replace("\\\n", " ")
    return joined.startswith("#!") and all(_NOTHING.match(line) for line in joined.splitlines())
