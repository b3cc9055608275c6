"""A system of Debian's kind made again from a lock: no choice is left, the packages are those of the lock by hash.

The lock is what is trusted: it pins every package. Its releases' signatures are checked too where the very release
files it was made from are still at hand, on a mirror or a snapshot; then the packages must be in them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from lxcpy.bootstrap import lockfile, plan, release
from lxcpy.bootstrap.deb_system import NO_MIRROR, System
from lxcpy.bootstrap.download import Client, Mirrors, Missing, Sink, Stale, Unavailable
from lxcpy.bootstrap.kept import KeptMirrors
from lxcpy.bootstrap.lockfile import Lock, Origin
from lxcpy.bootstrap.packages import Index
from lxcpy.bootstrap.template import Template
from lxcpy.errors import BootstrapError, UsageError

_UNCHANGEABLE = ("arch", "variant", "packages", "enable-non-free", "foreign")


def given(template: Template, options: Mapping[str, str]) -> Lock | None:
    """The lock that --from-lock names, for this template and no other wish. Raises BootstrapError, UsageError."""
    if "lock" in options:
        lockfile.check_place(options["lock"])
    if "from-lock" not in options:
        if "snapshot" in options and "lock" not in options:
            raise UsageError("--snapshot is of use with --lock or --from-lock alone", hint="--mirror names a mirror")
        return None
    path = options["from-lock"]
    if "lock" in options:
        raise UsageError("--lock writes what --from-lock reads", hint="leave one of them out")
    lock = lockfile.read(path)
    if lock.template != template.name:
        raise UsageError(
            f'the lock "{path}" is of the template {lock.template}, not of {template.name}', hint=f"-t {lock.template}"
        )
    for key in _UNCHANGEABLE:
        if key in options and options[key] != lock.options.get(key, lock.sources.get(key)):
            raise UsageError(
                f'--{key}: the lock "{path}" says {lock.options.get(key) or "otherwise"}', hint="leave the option out"
            )
    asked = options.get("release", "")
    if asked and template.pairs("aliases").get(asked, asked) not in (lock.sources["release"], lock.sources["codename"]):
        raise UsageError(
            f'--release: the lock "{path}" is of {lock.sources["codename"]}, not of {asked}', hint="leave it out"
        )
    return lock


def template_digest(template: Template) -> str:
    """The SHA256 of all that a template brings: settings and files."""
    state = hashlib.sha256(repr(sorted(template.settings.items())).encode(errors="surrogateescape"))
    for name in template.below("."):
        with open(template.file(name) or "", "rb") as file:
            state.update(name.encode() + b"\0" + file.read() + b"\0")
    return state.hexdigest()


def describe(system: System, options: Mapping[str, str], values: Mapping[str, object], name: str, tree: str) -> Lock:
    """The lock of a system that was just made. tree: its root filesystem's digest."""
    asked = _words(options.get("snapshot", ""))
    return Lock(
        system.template.name, template_digest(system.template), system.epoch or 0,
        {key: options[key] for key in lockfile.OPTIONS if key in options},
        {key: values[key] for key in lockfile.HOST},
        {key: values[key] for key in lockfile.SOURCES},
        tuple(_origin(one, asked) for one in system.repositories),
        system.plan.items, name, tree,
    )  # fmt: skip


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _origin(repository: plan.Repository, asked: Sequence[str]) -> Origin:
    found = repository.release
    snapshots = [release.snapshot(place, found.date) for place in asked] + [found.snapshot]
    return Origin(
        repository.suite, found.date, tuple(repository.mirrors.bases), tuple(filter(None, snapshots)),
        repository.components, found.sha256, tuple(found.keys),
    )  # fmt: skip


class LockedMirrors(KeptMirrors):
    """Where the packages of a lock may be: also under the name of their hash."""

    def __init__(self, *words: Any, names: Mapping[str, str], **options: Any) -> None:
        """names: a package's path → what errors call it."""
        super().__init__(*words, **options)
        self.names = names

    def fetch(
        self, paths: Sequence[str], size: int, sink: Sink, position: Callable[[], int], check: Callable[[], None]
    ) -> None:
        """As Mirrors.fetch; the failure names the package."""
        if paths[0] not in self.names:
            super().fetch(paths, size, sink, position, check)
            return
        path, _, sha256 = self.names[paths[0]].rpartition(" ")
        folder = paths[0].rpartition("/")[0]
        try:
            self.transfer([*paths, f"{folder}/by-hash/SHA256/{sha256}"], size, sink, position, check)
        except (Missing, Unavailable) as error:
            said = error.what if isinstance(error, Unavailable) else str(error)
            if self.offline:
                raise
            raise Stale(
                f"the lock's package {path}, SHA256 {sha256}, is on none of {', '.join(self.bases)}: {said}",
                hint="name a mirror that still has it: --snapshot=http://HOST/archive/debian/@SNAPSHOTID@, say",
            ) from error


class LockedSystem(System):
    """The system of a lock. Raises as System does."""

    def __init__(self, lock: Lock, *words: Any, **options: Any) -> None:
        self.lock = lock
        super().__init__(*words, **options)

    def again(self) -> bool:
        """There is no other plan."""
        return False

    def values(self) -> dict[str, object]:
        """As they were."""
        return dict(self.lock.sources)

    def _release(self) -> str:
        return str(self.lock.sources["release"])

    def _look(self) -> None:
        self.client = Client(access=self.access)
        self.stack.callback(self.client.close)
        self.progress.start("release")
        self.codename = str(self.lock.sources["codename"])
        self.mirror = str(self.lock.sources["mirror"])
        self.plan = plan.Plan(self.arch, self.lock.items).ordered()
        self.repositories = [self._origin(number, one) for number, one in enumerate(self.lock.origins)]
        self.progress.finish("release")
        if self.trust.check:
            for number, (origin, repository) in enumerate(zip(self.lock.origins, self.repositories, strict=True)):
                self._check(number, origin, repository)

    def _origin(self, number: int, origin: Origin) -> plan.Repository:
        kind = "security_mirror" if origin.suite == self.lock.sources["security_suite"] else "mirror"
        asked, snapshots = (_words(text) for text in (self._asked(kind), self.options.get("snapshot", "")))
        bases = [
            *(place for place in asked if place != NO_MIRROR), *origin.mirrors,
            *(release.snapshot(place, origin.date) for place in snapshots), *origin.snapshots,
        ]  # fmt: skip
        names = {
            item.filename: f"{item.name} {item.version} ({item.arch}) {item.sha256}"
            for item in self.lock.items if item.repository == number
        }  # fmt: skip
        mirrors = LockedMirrors(
            self.client, list(dict.fromkeys(bases)), self.store, offline=self.offline, keep=False, names=names
        )
        return plan.Repository(mirrors, origin.suite, release.Release(""), origin.components)

    def _same(self, origin: Origin, mirrors: Mirrors) -> release.Release:
        """The verified release file that the lock was made from. Raises BootstrapError if no mirror has it."""
        trust = self.trust._replace(valid_until=False)
        failure = BootstrapError("it is of another day")
        for base in mirrors.bases:
            single = KeptMirrors(self.client, [base], self.store, offline=self.offline, keep=False)
            try:
                found = release.fetch(single, origin.suite, trust)
            except BootstrapError as error:
                failure = error
                continue
            if found.sha256 == origin.release:
                return found
        raise failure

    def _check(self, number: int, origin: Origin, repository: plan.Repository) -> None:
        """Where the signed release that the lock was made from is at hand, its packages must be the lock's.

        A mirror's release that has moved on, or whose keys expired since, says nothing of the lock. Raises
        BootstrapError.
        """
        try:
            found = self._same(origin, repository.mirrors)
            index = Index(self.arch)
            for data in plan.indices(repository._replace(release=found), self.arch, self.store, self.progress):
                index.add(data)
        except BootstrapError as error:
            self.progress.message(
                f"{origin.suite}: packages are checked by the lock's hashes, not by the release's signature "
                f"({error.what})"
            )
            return
        for item in [item for item in self.lock.items if item.repository == number]:
            if not any(one.sha256 == item.sha256 for one in index.versions(item.name)):
                raise BootstrapError(
                    f"the lock's package {item.name} {item.version} ({item.arch}), SHA256 {item.sha256}, is not in the "
                    f'signed release "{origin.suite}" that the lock says it is from',
                    hint="the lock was changed after it was written: get it anew from where you trust it",
                )
