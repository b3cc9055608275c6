"""Which of Alpine's packages are to be installed, and in which order.

For each dependency the best candidate is taken: the package of that name with the highest version, else the best of
those that provide it. Where that leads to a conflict, the candidate is ruled out and the search begins anew. A second
search prefers those that the first one found to be needed by their own names: they are there in any case.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lxcpy.bootstrap import apkversion
from lxcpy.bootstrap.apkformat import Package, Term
from lxcpy.errors import BootstrapError

_TRIES = 500  # candidates ruled out before giving up


class _Conflict(Exception):
    """A candidate that cannot be: `culprit` is to be ruled out."""

    def __init__(self, culprit: Package, words: str) -> None:
        super().__init__(words)
        self.culprit = culprit


def solve(packages: Sequence[Package], world: Sequence[Term]) -> list[Package]:
    """The packages that `world` needs, each after those that it depends on. Raises BootstrapError."""
    table = _Table(packages)
    ruled_out: set[bytes] = set()
    first = ""
    for _ in range(_TRIES):
        try:
            search = _Search(table, ruled_out)
            search.run(world)
            return _Search(table, ruled_out, frozenset(search.named)).run(world)
        except _Conflict as conflict:
            first = first or str(conflict)
            ruled_out.add(conflict.culprit.identity)
        except BootstrapError:
            if not first:
                raise
            break  # what was ruled out has no substitute
    raise BootstrapError(f"the packages contradict each other: {first}")


def satisfied(package: Package, term: Term) -> bool:
    """Whether a package, by its name or what it provides, is what a dependency asks for (its sign left aside)."""
    if package.name == term.name and _fits(package.version, term):
        return True
    return any(one.name == term.name and _fits(one.version, term) for one in package.provides)


def _fits(version: str, term: Term) -> bool:
    if not term.operator:
        return True
    try:
        return bool(version) and apkversion.fits(version, term.operator, term.version)
    except ValueError:
        return False


class _Table:
    """Every package by its name and by what it provides, the best first."""

    def __init__(self, packages: Iterable[Package]) -> None:
        self.by_name: dict[str, list[Package]] = {}
        self.conditional: list[Package] = []
        for package in packages:
            try:
                apkversion.parts(package.version)
            except ValueError:
                continue
            for name in dict.fromkeys([package.name, *(one.name for one in package.provides)]):
                self.by_name.setdefault(name, []).append(package)
            if package.install_if:
                self.conditional.append(package)
        for name, found in self.by_name.items():
            found.sort(key=lambda one: self._rank(one, name), reverse=True)

    @staticmethod
    def _rank(package: Package, name: str) -> tuple[object, ...]:
        provided = next((one.version for one in package.provides if one.name == name), "")
        try:
            version = apkversion.key(package.version if package.name == name else provided or "0")
        except ValueError:
            version = apkversion.key("0")
        # A real package of that name goes before those that only provide it without a version.
        return (package.name == name or bool(provided), version, package.priority, package.name == name,
                apkversion.key(package.version), -package.repository, package.name)  # fmt: skip


class _Search:
    """One attempt."""

    def __init__(self, table: _Table, ruled_out: set[bytes], preferred: frozenset[str] = frozenset()) -> None:
        self.table, self.ruled_out, self.preferred = table, ruled_out, preferred
        self.named: set[str] = set()  # packages that something asks for by their own names
        self.chosen: dict[str, Package] = {}  # by the package's name
        self.order: list[Package] = []
        self.refused: list[tuple[Term, str]] = []  # negative dependencies, and whose they are

    def run(self, world: Sequence[Term]) -> list[Package]:
        for term in world:
            self.need(term, None)
        while more := self.conditional():
            for package in more:
                self.take(package)
        for term, whose in self.refused:
            for package in self.order:
                if package.name != whose and satisfied(package, term):
                    raise _Conflict(package, f"{whose} and {package.name}")
        return self.order

    def conditional(self) -> list[Package]:
        """Packages whose install_if has become true."""
        found = []
        for package in self.table.conditional:
            if package.name in self.chosen or package.identity in self.ruled_out:
                continue
            best = next(one for one in self.table.by_name[package.name] if one.name == package.name)
            if package is best and all(
                any(satisfied(one, term) for one in self.order) is not term.negative for term in package.install_if
            ):
                found.append(package)
        return found

    def need(self, term: Term, whose: Package | None) -> None:
        """See that something satisfies a dependency. Raises BootstrapError, _Conflict."""
        name = whose.name if whose else ""
        if term.negative:
            self.refused.append((term, name))
            return
        known = self.table.by_name.get(term.name, ())
        if any(one.name == term.name for one in known):
            self.named.add(term.name)
        if any(one.name in self.chosen and self.chosen[one.name] is one and satisfied(one, term) for one in known):
            return
        candidates = [one for one in known if one.identity not in self.ruled_out and satisfied(one, term)]
        free = [one for one in candidates if one.name not in self.chosen]
        if free:
            self.take(next((one for one in free if one.name in self.preferred), free[0]))
            return
        text = term.name + term.operator + term.version
        if candidates:  # another version of it was taken before
            other = self.chosen[candidates[0].name]
            raise _Conflict(other, f"{name or 'you'} want {text}, but {other.name} is {other.version}")
        if whose is not None and any(satisfied(one, term) for one in known):
            raise _Conflict(whose, f"{whose.name} needs {text}")
        if whose is not None and len([one for one in self.table.by_name[whose.name] if one.name == whose.name]) > 1:
            raise _Conflict(whose, f"{whose.name} {whose.version} needs {text}, which there is not")
        raise BootstrapError(
            f'there is no package "{text}"' + (f", which {name} needs" if name else ""),
            hint="the mirror may be in the middle of an update, or another repository has it: --repository=URL",
        )

    def take(self, package: Package) -> None:
        """Choose a package, what it depends on before it."""
        for one in package.provides:  # a provision with a version excludes every other package of that name
            other = self.chosen.get(one.name)
            if one.version and other is not None and other is not package:
                raise _Conflict(package, f"{package.name} and {other.name}")
        self.chosen[package.name] = package
        for term in package.depends:
            self.need(term, package)
        self.order.append(package)
