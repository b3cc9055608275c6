"""Our bootstrap and debootstrap's of one suite with one set of packages, and where the two trees differ.

What may differ is written in oracle/bootstrap-differences.txt, with the reason.
"""

from __future__ import annotations

import fnmatch
import hashlib
import os
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from lxcpy.bootstrap import install, keyring, machine, plan, release, template
from lxcpy.bootstrap.cache import Store
from lxcpy.bootstrap.download import Client, Mirrors
from lxcpy.bootstrap.progress import Silent
from lxcpy.bootstrap.workers import Worker

LIST = Path(__file__).parent / "oracle/bootstrap-differences.txt"
VARIANTS = ("minbase", "full")
_ALL = "oldstable stable testing sid"
SUITES = os.environ.get("LXCPY_TEST_SUITES", "").replace("all", _ALL).split()  # those that a long run compares
# debootstrap takes the first of alternatives where ours, as apt, takes one that is there: lsb-base | sysvinit-utils.
FIRST_OF_ALTERNATIVES = {"lsb-base"}
WHAT = ("absent", "extra", "content", "order", "any")


class Entry(NamedTuple):
    """One file as it counts: owners by name, since the ids of system users follow the order of their making."""

    mode: int
    owner: str
    group: str
    content: object
    attributes: str
    names: int


class Difference(NamedTuple):
    """A line of the list."""

    pattern: str
    what: str
    reason: str

    def excuses(self, path: str, mine: Entry | None, other: Entry | None, roots: tuple[Path, Path]) -> bool:
        """Whether it is about that path and that kind of difference."""
        if not fnmatch.fnmatchcase(path, self.pattern):
            return False
        if self.what == "any":
            return True
        if mine is None or other is None:
            return self.what == ("absent" if mine is None else "extra")
        if mine._replace(content=0) != other._replace(content=0):
            return False
        if self.what == "order":
            one, two = (sorted((root / path).read_bytes().splitlines()) for root in roots)
            return one == two
        return self.what == "content"


def differences(*, first_stage: bool = False) -> list[Difference]:
    """The list; with `first_stage` what holds for that alone too."""
    found = []
    whole, _, foreign = LIST.read_text().partition("\n[first stage of another architecture]\n")
    for line in (whole + "\n" + foreign if first_stage else whole).splitlines():
        if line and not line.startswith("#"):
            pattern, what, reason = line.split(maxsplit=2)
            assert what in WHAT, line
            found.append(Difference(pattern, what, reason))
    return found


def codename(suite: str) -> str:
    return template.find("debian").pairs("suites").get(suite, suite)


def packages(variant: str) -> tuple[str, ...]:
    """What the debian template installs."""
    return tuple(template.find("debian").words("packages.minbase" if variant == "minbase" else "packages"))


@contextmanager
def planned(
    mirror: str, suite: str, names: tuple[str, ...], cache: Path, *, arch: str = "",
    more: tuple[plan.Repository, ...] = (),
) -> Iterator[tuple[plan.Plan, list[plan.Repository], Store]]:  # fmt: skip
    """The plan of some packages of a suite, and of further repositories. Testing's and sid's file may be old."""
    store = Store(str(cache))
    client = Client()
    try:
        mirrors = Mirrors(client, [mirror])
        debian = template.find("debian")
        trust = release.Trust(tuple(keyring.find(debian.words("keyrings"))), valid_until=False)
        found = plan.Repository(mirrors, suite, release.fetch(mirrors, suite, trust), ("main",))
        wish = plan.Wish(arch or machine.host_arch(), packages=names, exclude=tuple(debian.words("exclude")))
        repositories = [found, *more]
        yield plan.make(repositories, wish, store, Silent()), repositories, store
    finally:
        client.close()


def ours(
    mirror: str, suite: str, names: tuple[str, ...], target: Path, cache: Path, *, arch: str = "",
    more: tuple[plan.Repository, ...] = (),
) -> list[str]:  # fmt: skip
    """Make the system in `target`; the names of its packages. arch: another one's is only unpacked."""
    Store(str(cache))  # makes the folder that the workers look into
    workers = [Worker(f"{cache}/objects") for _ in range(2)]
    mask = os.umask(0o022)
    try:
        with planned(mirror, suite, names, cache, arch=arch, more=more) as (made, repositories, store):
            target.mkdir()
            settings = install.Install(log=f"{cache}/log", foreign=bool(arch))
            install.install(
                made, repositories, str(target), settings, store=store, workers=workers, progress=Silent()
            )  # fmt: skip
            return [item.name for item in made.items]
    finally:
        os.umask(mask)
        for worker in workers:
            worker.close()


def theirs(mirror: str, suite: str, names: list[str], target: Path, *, arch: str = "") -> str:
    """Let debootstrap make the same; "" or why it cannot here."""
    argv = ["nice", "debootstrap", "--variant=minbase", f"--include={','.join(sorted(names))}"]
    argv += [f"--arch={arch}", "--foreign"] if arch else []
    script = f"/usr/share/debootstrap/scripts/{suite}"
    argv += [suite, str(target), mirror, *([] if os.path.exists(script) else ["/usr/share/debootstrap/scripts/sid"])]
    done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    return done.stdout[-2000:] if done.returncode else ""


def tree(root: Path) -> dict[str, Entry]:
    """path: what is there."""
    owners, groups = _names(root, "passwd"), _names(root, "group")
    found: dict[str, Entry] = {}
    for directory, folders, files in os.walk(root):
        for name in folders + files:
            path = os.path.join(directory, name)
            status = os.lstat(path)
            content: object = "folder"
            if stat.S_ISLNK(status.st_mode):
                content = os.readlink(path)
            elif stat.S_ISREG(status.st_mode):
                content = hashlib.sha256(Path(path).read_bytes()).hexdigest()
            elif stat.S_ISCHR(status.st_mode):
                content = status.st_rdev
            attributes = {
                key: os.getxattr(path, key, follow_symlinks=False) for key in os.listxattr(path, follow_symlinks=False)
            }
            names = status.st_nlink if stat.S_ISREG(status.st_mode) else 1
            found[os.path.relpath(path, root)] = Entry(
                status.st_mode, owners.get(status.st_uid, str(status.st_uid)),
                groups.get(status.st_gid, str(status.st_gid)), content, str(attributes), names,
            )  # fmt: skip
    return found


def _names(root: Path, table: str) -> dict[int, str]:
    try:
        lines = (root / "etc" / table).read_text().splitlines()
    except FileNotFoundError:
        return {}
    return {int(fields[2]): fields[0] for line in lines if len(fields := line.split(":")) > 2}


def same_users(mine: Path, other: Path) -> bool:
    """Whether two tables of users or groups say the same but for the ids of system users, and their order."""

    def read(path: Path) -> list[list[str]]:
        rows = [line.split(":") for line in path.read_text().splitlines()]
        return sorted([["system" if _system(field) else field for field in row] for row in rows])

    return read(mine) == read(other)


def _system(field: str) -> bool:
    """An id that adduser --system draws (100 to 999), or systemd-sysusers (998 downwards)."""
    return field.isdigit() and 100 <= int(field) < 1000


USERS = {f"etc/{name}{end}" for name in ("passwd", "group", "shadow", "gshadow") for end in ("", "-")}


def differing(mine: Path, other: Path, *, first_stage: bool = False) -> dict[str, tuple[Entry | None, Entry | None]]:
    """Where the trees differ and nothing on the list excuses it."""
    excuses = differences(first_stage=first_stage)
    one, two = tree(mine), tree(other)
    found = {}
    for path in sorted(one.keys() | two.keys()):
        left, right = one.get(path), two.get(path)
        if left == right:
            continue
        same_but_content = left and right and left._replace(content=0) == right._replace(content=0)
        # The backups are of the moment before the last user was made, whoever that was.
        if path in USERS and same_but_content and (path.endswith("-") or same_users(mine / path, other / path)):
            continue
        if any(entry.excuses(path, left, right, (mine, other)) for entry in excuses):
            continue
        found[path] = (left, right)
    return found


def states(root: Path) -> dict[str, str]:
    """package: version, architecture and state, as dpkg's database has them."""
    shown = subprocess.run(
        ["dpkg-query", f"--admindir={root}/var/lib/dpkg", "-W", "-f",
         "${Package} ${Version} ${Architecture} ${db:Status-Abbrev} ${Priority} ${Section}\n"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return dict(line.split(" ", 1) for line in shown.stdout.splitlines())  # type: ignore[misc]


def told(root: Path, *argv: str) -> str:
    """What a program of the system says."""
    done = subprocess.run(["chroot", str(root), *argv], capture_output=True, text=True, check=False)
    assert done.returncode == 0, (argv, done.stdout, done.stderr)
    return done.stdout
