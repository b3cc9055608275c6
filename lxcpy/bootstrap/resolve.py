"""Which packages make a system: dependencies resolved without Recommends, as a minimal installation wants it.

Real packages that a dependency names alone come first; alternatives and virtual names are decided last, when most are
met by what is there already. So the answer does not depend on the order in which an index lists things.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from lxcpy.bootstrap.packages import Group, Index, Package, Term, parse_relations
from lxcpy.errors import BootstrapError


class Wanted(NamedTuple):
    """What was asked for.

    first:   names or dependencies (`a | b`) whose closure is configured before the rest: required, Essential.
    rest:    the others, in order.
    exclude: names that no dependency may bring in, where it leaves a choice.
    """

    first: tuple[str, ...]
    rest: tuple[str, ...]
    exclude: frozenset[str] = frozenset()


class Selection(NamedTuple):
    """The answer: `essential` are those of `Wanted.first` that any script may use, with what they need, `first` its
    others, and `rest` all else. No part needs a later one.
    """

    essential: list[Package]
    first: list[Package]
    rest: list[Package]

    @property
    def packages(self) -> list[Package]:
        return self.essential + self.first + self.rest

    def __str__(self) -> str:
        return "\n".join(f"{package.name} {package.version}" for package in self.packages)


class _Resolver:
    def __init__(self, index: Index, exclude: frozenset[str]) -> None:
        self.index = index
        self.exclude = exclude
        self.selected: dict[str, Package] = {}
        self.provided: dict[str, list[tuple[Package, str | None]]] = {}

    def run(self, wanted: Iterable[str]) -> None:
        """Add the closure of `wanted`. Raises BootstrapError."""
        queue: deque[tuple[str, Group]] = deque()
        for text in wanted:
            try:
                queue.extend(("", group) for group in parse_relations(text, self.index.arch))
            except ValueError as error:
                raise BootstrapError(str(error)) from error
        open_choices: deque[tuple[str, Group]] = deque()
        while queue or open_choices:
            if queue:
                asker, group = queue.popleft()
                found = self.index.find(group[0]) if len(group) == 1 else None
                # A name that was asked for is that package, also where another one provides it.
                if self.satisfied(group) and (asker or found is None or found.name in self.selected):
                    continue
                if found is None or found.name in self.exclude:
                    open_choices.append((asker, group))
                    continue
            else:
                asker, group = open_choices.popleft()
                if self.satisfied(group):
                    continue
                found = self.choose(asker, group)
            self.select(found)
            queue.extend((found.name, dependency) for dependency in found.dependencies)

    def select(self, package: Package) -> None:
        other = self.selected.get(package.name)
        if other is not None:
            raise BootstrapError(f"{package.name}: both version {other.version} and {package.version} are needed")
        self.selected[package.name] = package
        for virtual, given in package.provides:
            self.provided.setdefault(virtual, []).append((package, given))

    def satisfied(self, group: Group) -> bool:
        return any(self.holds(term) for term in group)

    def holds(self, term: Term) -> bool:
        """Whether what is selected satisfies the term."""
        return next(self.meeting(term), None) is not None

    def meeting(self, term: Term) -> Iterator[Package]:
        """What is selected and satisfies the term."""
        real = self.selected.get(term.name)
        if real is not None and term.accepts(real.version):
            yield real
        yield from (package for package, given in self.provided.get(term.name, ()) if term.accepts(given))

    def essential(self) -> set[str]:
        """The names of the selected packages that are essential or that one of those may need."""
        names = [name for name, package in self.selected.items() if package.essential]
        for name in names:
            for group in self.selected[name].dependencies:
                met = (one for term in group for one in self.meeting(term))
                names.extend(dict.fromkeys(one.name for one in met if one.name not in names))
        return set(names)

    def choose(self, asker: str, group: Group) -> Package:
        """The package that meets an open choice: the first alternative that can be had, real before virtual."""
        clashing = None
        for term in group:
            real = self.index.find(term)
            candidates = ([real] if real else []) + [p for p in self.index.providers(term) if p is not real]
            for package in candidates:
                if package.name in self.exclude or package.name in self.selected:
                    continue
                if not self.clashes(package):
                    return package
                clashing = clashing or package
        if clashing is not None:
            return clashing  # the check of the whole names both sides
        words = " | ".join(map(str, group))
        if not asker:
            raise BootstrapError(
                f'there is no package "{words}" for {self.index.arch}',
                hint="check the name, the release, and whether its component (contrib, non-free) is enabled",
            )
        versions = ", ".join(f"{p.name} {p.version}" for term in group for p in self.index.versions(term.name)[:1])
        known = f" (it has {versions})" if versions else ""
        raise BootstrapError(
            f'{asker} depends on "{words}", which the mirror does not have{known}',
            hint="the mirror may be in the middle of an update: try again, or another with --mirror",
        )

    def clashes(self, package: Package) -> Package | None:
        """A selected package that cannot stand beside `package`."""
        for one, other in ((package, self.selected.values()), *((p, [package]) for p in self.selected.values())):
            for group in one.relations("Conflicts") + one.relations("Breaks"):
                for candidate in other:
                    if candidate is not one and _hit(group[0], candidate):
                        return candidate if one is package else one
        return None

    def check(self) -> None:
        """That no two of the selected exclude each other. Raises BootstrapError."""
        for package in self.selected.values():
            for field in ("Conflicts", "Breaks"):
                for group in package.relations(field):
                    real = self.selected.get(group[0].name)
                    others = ([real] if real else []) + [p for p, _ in self.provided.get(group[0].name, ())]
                    for other in others:
                        if other is not package and _hit(group[0], other):
                            raise BootstrapError(
                                f"{package.name} and {other.name} exclude each other ({field}: {group[0]})",
                                hint="leave one of them out of --packages",
                            )


def _hit(term: Term, package: Package) -> bool:
    """Whether a Conflicts or Breaks term is about `package`."""
    if term.name == package.name:
        return term.accepts(package.version)
    return any(virtual == term.name and term.accepts(given) for virtual, given in package.provides)


def resolve(index: Index, wanted: Wanted) -> Selection:
    """The packages that `wanted` needs, in the order in which they were found. Raises BootstrapError."""
    resolver = _Resolver(index, wanted.exclude)
    resolver.run(wanted.first)
    essential = resolver.essential()
    first = list(resolver.selected.values())
    resolver.run(wanted.rest)
    resolver.check()
    for package in resolver.selected.values():
        package.check()
    return Selection(
        [package for package in first if package.name in essential],
        [package for package in first if package.name not in essential],
        list(resolver.selected.values())[len(first) :],
    )


def required(index: Index, extra: Sequence[str] = ()) -> tuple[str, ...]:
    """The names of what every system has: Priority required, Essential, and `extra`."""
    return tuple(dict.fromkeys([*index.with_priority("required"), *index.essential(), *extra]))
