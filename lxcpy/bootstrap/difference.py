"""A finished system that updates have overtaken, brought up to date by the packages that changed.

dpkg upgrades them inside, as it would in any system. It is only done where what comes out is what a fresh build gives:
the same names, nothing that the others stand on, nothing left behind of the old versions. Else, and where anything
fails, the caller builds afresh.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from lxcpy.bootstrap import dpkgdb, install, version
from lxcpy.bootstrap.cache import Store
from lxcpy.bootstrap.chroot import Chroot, Settings
from lxcpy.bootstrap.packages import parse_stanza
from lxcpy.bootstrap.plan import REQUIRED, Item, Plan, Repository
from lxcpy.bootstrap.progress import Progress
from lxcpy.bootstrap.unpack import FETCHERS
from lxcpy.errors import BootstrapError, meaning
from lxcpy.kernel.fd import Fd, make_dirs_in_root, open_in_root, read_in_root, unlink_in_root, write_in_root

# What decides how the others are laid out, unpacked or counted.
_RISKY = {"base-files", "base-passwd", "dpkg", "usrmerge", "usr-is-merged"}
_MOST = 3  # not more than one package of so many: a fresh build is as fast then
_PLACE = "lxcpy-upgrade"
_LARGEST = 1 << 26  # bytes of a status file
_LEFT = (".dpkg-old", ".dpkg-new", ".dpkg-dist", ".dpkg-bak", ".ucf-old", ".ucf-dist")


def noted(plan: Plan, family: str) -> dict[str, Any]:
    """What the cache notes of a system, for `between`. family: all that went in besides the packages."""
    return {"family": family, "packages": [[i.name, i.version, i.arch, i.sha256] for i in plan.items]}


def between(about: Mapping[str, Any], plan: Plan, family: str) -> list[Item] | None:
    """The packages that bring a system, as it was noted, to a plan; None where it is to be built afresh."""
    if about.get("family") != family:
        return None
    try:
        old = {(str(name), str(arch)): (str(before), str(sha256)) for name, before, arch, sha256 in about["packages"]}
    except (KeyError, TypeError, ValueError):
        return None
    if old.keys() != {(item.name, item.arch) for item in plan.items}:
        return None
    changed = [item for item in plan.items if old[item.name, item.arch][1] != item.sha256]
    if not changed or len(changed) * _MOST > len(plan.items):
        return None
    return changed if all(_harmless(item, old[item.name, item.arch][0]) for item in changed) else None


def _harmless(item: Item, before: str) -> bool:
    """Whether one may be upgraded: newer, and a required one only by a revision of the distribution's."""
    if item.name in _RISKY or not version.satisfies(item.version, ">>", before):
        return False
    return item.stage > REQUIRED or _upstream(item.version) == _upstream(before)


def _upstream(text: str) -> str:
    """A version without what the distribution counts."""
    return re.split(r"[-+~]|ubuntu", text)[0]


def apply(
    changed: Sequence[Item], plan: Plan, repositories: Sequence[Repository], tree: str, settings: install.Install, *,
    store: Store, progress: Progress,
) -> None:  # fmt: skip
    """Upgrade these packages in a finished system. Raises BootstrapError; the tree is of no use then."""
    progress.start("download", total=sum(item.size for item in changed), unit="bytes")
    with ThreadPoolExecutor(FETCHERS) as pool:
        packages = list(pool.map(lambda item: _fetched(item, repositories, store, progress), changed))
    progress.finish("download")
    progress.start("upgrade", total=len(changed), unit="packages")
    try:
        with Fd(os.open(tree, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as root:
            make_dirs_in_root(root.number, _PLACE, 0o700).close()
            paths = []
            for number, data in enumerate(packages):
                paths.append(f"{_PLACE}/{number}.deb")
                write_in_root(root.number, paths[-1], data)
            _run(tree, paths, root.number, settings)
            for path in paths:
                unlink_in_root(root.number, path)
            os.rmdir(_PLACE, dir_fd=root.number)
            _settle(root.number, plan, changed)
    except OSError as error:
        raise BootstrapError(f'cannot upgrade the system in "{tree}": {meaning(error)} ({error})') from error
    progress.advance("upgrade", len(changed))
    progress.finish("upgrade")


def _fetched(item: Item, repositories: Sequence[Repository], store: Store, progress: Progress) -> bytes:
    """A package, checked by its hash. Raises BootstrapError."""

    def arrived(_: int, data: bytes) -> None:
        progress.advance("download", len(data))

    for _ in range(2):
        store.fetch(repositories[item.repository].mirrors, [item.filename], item.expected, arrived)
        if (data := store.read(item.expected)) is not None:
            return data
    raise BootstrapError(f'the cache "{store.directory}" does not keep what is written to it')


def _run(tree: str, paths: Sequence[str], root: int, settings: install.Install) -> None:
    log = os.open(settings.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        install.forbid_services(root)
        with Chroot(tree, Settings(persona=settings.persona, log=log)) as chroot:
            install.cover(chroot, root, settings.covered)
            argv = ["/usr/bin/dpkg", "--force-confnew", "--install", *(f"/{path}" for path in paths)]
            status = chroot.run(argv)
        install.allow_services(root)
    finally:
        os.close(log)
    if status:
        raise BootstrapError(f"dpkg --install failed (exit status {status})\n{install.tail(settings.log)}")


def _settle(root: int, plan: Plan, changed: Sequence[Item]) -> None:
    """See that all is as after a fresh build; what the archive says of packages is put in. Raises BootstrapError."""
    text = read_in_root(root, f"{dpkgdb.ADMIN}/status", _LARGEST).decode(errors="surrogateescape")
    stanzas = [parse_stanza(stanza) for stanza in text.strip("\n").split("\n\n")]
    found = {(one["Package"], one["Version"], one["Architecture"], one["Status"]) for one in stanzas}
    wanted = {(item.name, item.version, item.arch, "install ok installed") for item in plan.items}
    if wrong := sorted(one[0] for one in found ^ wanted):
        raise BootstrapError(f"after the upgrade these are not as they should be: {', '.join(dict.fromkeys(wrong))}")
    if any(line.endswith(" obsolete") for one in stanzas for line in one.get("Conffiles", "").split("\n")):
        raise BootstrapError("the upgrade left files behind that the new versions do not have")
    with open_in_root(root, "etc", os.O_RDONLY | os.O_DIRECTORY) as etc:
        for _, _, names, _ in os.fwalk(".", dir_fd=etc.number):
            if left := next((name for name in names if name.endswith(_LEFT)), ""):
                raise BootstrapError(f"the upgrade left {left} behind")
    overrides = {item.name: item.overrides for item in changed}
    write_in_root(root, f"{dpkgdb.ADMIN}/status", dpkgdb.overridden(text, overrides).encode(errors="surrogateescape"))
