"""What is to be installed, solved and written down: a plan can be printed, kept, and carried out later."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

from lxcpy.bootstrap import resolve
from lxcpy.bootstrap.cache import Store
from lxcpy.bootstrap.compression import Inflater
from lxcpy.bootstrap.download import Expected, Mirrors, Wrong
from lxcpy.bootstrap.packages import Index
from lxcpy.bootstrap.progress import Progress
from lxcpy.bootstrap.release import Release
from lxcpy.errors import BootstrapError

_LONGEST_INDEX = 1 << 30  # bytes, where the release file does not tell; sid's main has 70 million
_FORMAT = 4  # of the plans in the cache
ESSENTIAL, REQUIRED, REST = STAGES = (0, 1, 2)


class Repository(NamedTuple):
    """One suite of one archive."""

    mirrors: Mirrors
    suite: str
    release: Release
    components: tuple[str, ...]


class Item(NamedTuple):
    """One package to install. Each of STAGES is configured before anything of the next one is there."""

    name: str
    version: str
    arch: str
    stage: int
    repository: int
    filename: str
    size: int
    sha256: str
    priority: str
    section: str

    @property
    def expected(self) -> Expected:
        return Expected(self.size, self.sha256)

    @property
    def overrides(self) -> dict[str, str]:
        """What the archive says of a required package where the package itself may say otherwise.

        The others keep what they say, as with apt, and as debootstrap leaves both.
        """
        if self.stage > REQUIRED:
            return {}
        return {key: value for key, value in (("Priority", self.priority), ("Section", self.section)) if value}

    def __str__(self) -> str:
        return f"install {self.name} {self.version} ({self.arch}), {self.size} bytes, sha256 {self.sha256}"


class Plan(NamedTuple):
    """The packages, in the order in which they were found."""

    arch: str
    items: tuple[Item, ...]

    @property
    def size(self) -> int:
        """Bytes to download at most."""
        return sum(item.size for item in self.items)

    def stage(self, number: int) -> list[Item]:
        return [item for item in self.items if item.stage == number]

    def digest(self) -> str:
        """A name for exactly these packages."""
        return hashlib.sha256("".join(sorted(f"{item.sha256}\n" for item in self.items)).encode()).hexdigest()

    def ordered(self) -> Plan:
        """The same packages in an order that follows from nothing but their names."""
        return self._replace(items=tuple(sorted(self.items, key=lambda item: (item.stage, item.name))))

    def __str__(self) -> str:
        return "\n".join(map(str, self.items))


class Wish(NamedTuple):
    """What a template and its options ask for.

    priorities: all packages of these; the essential ones come too. first: further ones of the first stage.
    packages: names, or dependencies such as `a | b`. optional: names of which those are taken that there are.
    exclude: never chosen where there is a choice.
    """

    arch: str
    priorities: tuple[str, ...] = ("required",)
    first: tuple[str, ...] = ()
    packages: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()


def make(repositories: Sequence[Repository], wish: Wish, store: Store, progress: Progress) -> Plan:
    """The plan for a wish, from the cache if the same indices were asked the same before. Raises BootstrapError."""
    wanted = _wanted(repositories, wish.arch)
    hashes = [(number, component, expected.sha256) for number, component, _, _, expected in wanted]
    name = hashlib.sha256(json.dumps([_FORMAT, hashes, wish]).encode()).hexdigest()
    if (kept := _load(store, name)) is not None:
        return kept
    index = Index(wish.arch)
    texts = _fetch_all(repositories, wanted, store, progress)
    for (number, component, *_), data in zip(wanted, texts, strict=True):
        index.add(data, repository=number, component=component)
    plan = solve(index, wish)
    store.write(f"plans/{name}.json", json.dumps({"arch": plan.arch, "items": plan.items}).encode())
    return plan


def indices(repository: Repository, arch: str, store: Store, progress: Progress) -> list[bytes]:
    """The Packages files of a repository that matter for an architecture. Raises BootstrapError."""
    return _fetch_all([repository], _wanted([repository], arch), store, progress)


_Wanted = list[tuple[int, str, list[str], str, Expected]]


def _wanted(repositories: Sequence[Repository], arch: str) -> _Wanted:
    return [
        (number, component, *_index_of(repository, component, one))
        for number, repository in enumerate(repositories)
        for component in repository.components
        for one in repository.release.index_architectures(arch)
    ]


def _fetch_all(
    repositories: Sequence[Repository], wanted: _Wanted, store: Store, progress: Progress
) -> list[bytes]:
    progress.start("index", total=sum(expected.size for *_, expected in wanted), unit="bytes")
    with ThreadPoolExecutor(max_workers=min(len(wanted), 4) or 1) as pool:
        futures = [
            pool.submit(_fetch, repositories[number], names, kind, expected, store, progress)
            for number, _, names, kind, expected in wanted
        ]
        found = [future.result() for future in futures]
    progress.finish("index")
    return found


def solve(index: Index, wish: Wish) -> Plan:
    """The plan from an index at hand. Raises BootstrapError."""
    first = resolve.required(index, wish.first)
    rest = [name for priority in wish.priorities if priority != "required" for name in index.with_priority(priority)]
    optional = [name for name in wish.optional if index.versions(name)]
    selection = resolve.resolve(
        index, resolve.Wanted(first, (*rest, *wish.packages, *optional), frozenset(wish.exclude))
    )
    if not selection.essential + selection.first:
        raise BootstrapError(f"the mirror has no packages for {wish.arch}", hint="check the architecture with -a")
    items = [
        Item(
            package.name, package.version, package.arch, stage, package.repository, package.filename, package.size,
            package.sha256, package.fields.get("Priority", ""), package.fields.get("Section", ""),
        )
        for stage, packages in zip(STAGES, (selection.essential, selection.first, selection.rest), strict=True)
        for package in packages
    ]  # fmt: skip
    return Plan(wish.arch, tuple(items))


def _index_of(repository: Repository, component: str, arch: str) -> tuple[list[str], str, Expected]:
    found = repository.release.index(component, arch)
    if found is None:
        known = ", ".join(repository.release.architectures)
        raise BootstrapError(
            f'{repository.mirrors.bases[0]}: "{repository.suite}" has no packages of {component} for {arch}',
            hint=f"it has {known}; components {', '.join(repository.release.components)}",
        )
    names, kind, expected = found
    return [f"dists/{repository.suite}/{name}" for name in names], kind, expected


def _fetch(
    repository: Repository, names: list[str], kind: str, expected: Expected, store: Store, progress: Progress
) -> bytes:
    """An index, decompressed while it arrives; kept in the store for the next time. Raises BootstrapError."""
    limit = repository.release.plain_size(names[-1].removeprefix(f"dists/{repository.suite}/")) or _LONGEST_INDEX
    arrival = _Arrival(kind, names[-1], limit, progress)
    for _ in range(2):
        if store.fetch(repository.mirrors, names, expected, arrival.take) and arrival.received == expected.size:
            return arrival.whole()
        # It was there, or a part of it, or another process fetched it.
        if (data := store.read(expected)) is not None:
            progress.advance("index", expected.size - arrival.shown)
            arrival.begin()
            try:
                arrival.feed(data)
            except Wrong as error:
                raise BootstrapError(str(error)) from error
            return arrival.whole()
    raise BootstrapError(
        f'the cache "{store.directory}" does not keep what is written to it', hint="check the disk and its free space"
    )


class _Arrival:
    """An index on its way, decompressed before its hash is known, which the store checks.

    So what grows beyond the signed size is no index but a bomb, and no more of it is decompressed. What cannot be
    decompressed is of no interest unless its hash turns out right.
    """

    def __init__(self, kind: str, name: str, limit: int, progress: Progress) -> None:
        self.kind, self.name, self.limit, self.progress = kind, name, limit, progress
        self.shown = 0
        self.begin()

    def begin(self) -> None:
        self.received = 0
        self.failure: BootstrapError | None = None
        self.plain = io.BytesIO()
        self.inflater = Inflater(self.kind)

    def take(self, offset: int, chunk: bytes) -> None:
        """A piece of the file, as the store gets it; one that does not follow the last is of no use. Raises Wrong."""
        self.progress.advance("index", len(chunk))
        self.shown += len(chunk)
        if offset == 0:
            self.begin()
        if offset == self.received and not self.failure:
            self.received += len(chunk)
            self.feed(chunk)

    def feed(self, chunk: bytes) -> None:
        """Raises Wrong."""
        try:
            for part in self.inflater.feed(chunk):
                self.plain.write(part)
                if self.plain.tell() > self.limit:
                    raise Wrong(f"{self.name}: larger than it should be (more than {self.limit} bytes decompressed)")
        except BootstrapError as error:
            self.failure = error

    def whole(self) -> bytes:
        """The plain text. Raises BootstrapError."""
        if self.failure:
            raise BootstrapError(f"{self.name}: {self.failure.what}")
        self.inflater.end()
        return self.plain.getvalue()  # without a copy, as bytes() of a bytearray would make one


def _load(store: Store, name: str) -> Plan | None:
    data = store.read_small(f"plans/{name}.json")
    if data is None:
        return None
    try:
        kept: dict[str, Any] = json.loads(data)
        return Plan(kept["arch"], tuple(Item(*item) for item in kept["items"]))
    except (ValueError, KeyError, TypeError):
        return None  # written by another version, or cut short by a crash
