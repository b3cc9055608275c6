"""A system of Debian's kind: which release of which mirror, which packages, and the plan that follows."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack

from lxcpy.bootstrap import difference, hostapt, install, keyring, machine, plan, release, reproduce, secondstage
from lxcpy.bootstrap.access import Access
from lxcpy.bootstrap.cache import Store
from lxcpy.bootstrap.chroot import Chroot, Settings
from lxcpy.bootstrap.download import Client, Mirrors, Stale, Unavailable
from lxcpy.bootstrap.install import Install
from lxcpy.bootstrap.kept import KeptMirrors
from lxcpy.bootstrap.progress import Progress
from lxcpy.bootstrap.template import Template
from lxcpy.bootstrap.workers import Worker
from lxcpy.errors import BootstrapError, UsageError, meaning
from lxcpy.kernel.fd import exists_in_root, write_in_root

NO_MIRROR = "none"  # in place of a security mirror's address


class _NoArchitecture(Unavailable):
    """A suite that holds nothing for the architecture, as its signed release file says."""


class System:
    """One wish of a template and its options, its plan made at once. Raises BootstrapError, UsageError.

    more: packages besides those of the template and the options, where there are such. store: where files are looked
    for and kept. memory: the store that knows how new each mirror's releases were (default: the same).
    """

    def __init__(
        self, template: Template, options: Mapping[str, str], store: Store, progress: Progress, stack: ExitStack,
        more: Sequence[str] = (), *, memory: Store | None = None, epoch: int | None = None,
    ) -> None:  # fmt: skip
        self.template, self.options, self.store, self.progress = template, options, store, progress
        self.memory = memory or store
        self.epoch = epoch
        self.arch = machine.debian_arch(options.get("arch") or machine.host_arch())
        self.foreign = "foreign" in options
        if not self.foreign:
            machine.check_runs(self.arch, given=options.get("interpreter-path", ""))
        self._check_variant()
        self.offline = "offline" in options
        if self.offline and "no-cache" in options:
            raise UsageError("--offline takes all from the cache, and --no-cache nothing", hint="leave one of them out")
        self.asked = self._release()
        self.more, self.stack = more, stack
        self.access = Access(ca=options.get("ca", ""), apt=hostapt.settings())
        self.sources = [one for one in hostapt.sources() if self._serves(one.suite)]
        self.pinned = options.get("keyring") or os.environ.get("KEYRING") or ""
        self.trust = release.Trust(
            tuple(self._keyrings(self.sources)),
            check="no-check-gpg" not in options,
            valid_until="no-check-valid-until" not in options and not self.offline,
        )
        self._fork()  # before any thread
        try:
            self._look()
        except Stale as error:
            progress.warning(f"the mirror changes just now, once more: {error.what}")
            self._look()

    def again(self) -> bool:
        """Look once more, after files of the plan turned out to be missing; whether there is another plan now."""
        before = self.plan.digest()
        self._fork()
        self._look()
        return self.plan.digest() != before

    def _fork(self) -> None:
        """Have processes that unpack packages; each works in one tree alone."""
        self.workers = [Worker(f"{self.store.directory}/objects") for _ in range(os.cpu_count() or 1)]
        for worker in self.workers:
            self.stack.callback(worker.close)

    def _look(self) -> None:
        """Read the releases and solve the plan. Raises BootstrapError; Stale if what they name is not there."""
        self.client = Client(access=self.access)
        self.stack.callback(self.client.close)
        progress = self.progress
        progress.start("release")
        main = self._main(self._mirrors("mirror"))
        self.codename = main.release.codename or main.suite
        self.mirror = main.mirrors.bases[0]
        self.components = main.components
        self.pockets = self._pockets(main.mirrors)
        self.security = self._security()
        self.repositories = [main, *self.pockets, *([self.security] if self.security is not None else [])]
        progress.finish("release")
        self.plan = plan.make(self.repositories, self._wish(), self.store, progress)
        if self.epoch is not None:
            self.plan = self.plan.ordered()
            self.epoch = self.epoch if self.epoch >= 0 else max(one.release.date for one in self.repositories)

    # -- the mirror and its release ----------------------------------------------------------------------------------

    def _release(self) -> str:
        """The release that is asked for; else the host's, if it is of the same distribution; else the template's."""
        settings = self.template.settings
        asked = self.options.get("release") or machine.codename(settings.get("host_id", "")) or settings["release"]
        return self.template.pairs("aliases").get(asked, asked)

    def _mirrors(self, kind: str) -> Mirrors:
        bases = self._bases(kind)
        return KeptMirrors(self.client, bases, self.store, offline=self.offline, keep=self.trust.check)

    def _serves(self, suite: str) -> bool:
        """Whether a suite of the host's sources is one of this distribution, with packages for the architecture."""
        base = suite.removesuffix("/updates").removesuffix("-security").removesuffix("-updates")
        known = self.template.pairs("suites")
        same_side = self._on_ports(self.arch) == self._on_ports(machine.host_arch())
        return same_side and (base in known or base in known.values())

    def _on_ports(self, arch: str) -> bool:
        """Whether the distribution keeps an architecture apart from the others, on mirrors of its own."""
        return "ports_mirror" in self.template.settings and arch not in self.template.words("main_archs")

    def _asked(self, kind: str) -> str:
        """The mirrors that the option or the environment names."""
        return self.options.get(kind.replace("_", "-")) or os.environ.get(kind.upper()) or ""

    def _bases(self, kind: str) -> list[str]:
        """Where to look: the option or the environment; else the host's own sources, then the distribution's."""
        if asked := self._asked(kind):
            return [word for word in asked.replace(",", " ").split() if word]
        security = kind == "security_mirror"
        hosts = [one.uri for one in self.sources if one.suite.endswith(("-security", "/updates")) == security]
        public = self.template.settings["ports_mirror" if self._on_ports(self.arch) else kind]
        return [*dict.fromkeys(uri.rstrip("/") for uri in hosts), public]

    def _keyrings(self, sources: list[hostapt.Source]) -> list[keyring.Keyring]:
        """Those whose keys may sign. Raises BootstrapError where there are none, unless nothing is to be checked."""
        if self.pinned:
            return [keyring.load(self.pinned)]
        found = keyring.find(self.template.words("keyrings"))
        known = {one.path for one in found}
        for signed in dict.fromkeys(one.signed_by for one in sources if one.signed_by):
            if signed not in known and os.path.exists(signed):
                found.append(keyring.load(signed))
        shipped = self.template.file(self.template.settings.get("keyring") or "none")
        if shipped is not None:
            found.append(keyring.shipped(shipped, self.template.words("fingerprints")))
        if not found and "no-check-gpg" not in self.options:
            raise BootstrapError(
                f"there is no keyring of {self.template.name} here to check its releases with",
                hint=f"put {self.template.words('keyrings')[0]} of the distribution into {keyring.HOST_PLACES[0]}, or "
                f"name it with --keyring; its keys: {' '.join(self.template.words('fingerprints'))}",
            )
        return found

    def give_keyring(self, root: int) -> None:
        """Let the system's own apt trust what was asked to be trusted, as LXC does. Raises BootstrapError."""
        if not self.pinned or not exists_in_root(root, "etc/apt/trusted.gpg.d"):
            return
        name = re.sub(r"[^A-Za-z0-9_-]", "_", os.path.splitext(os.path.basename(self.pinned))[0])
        try:
            write_in_root(root, f"etc/apt/trusted.gpg.d/lxc-create-{name}.gpg", keyring.load(self.pinned).data)
        except OSError as error:
            raise BootstrapError(f"cannot put the keyring into the new system: {meaning(error)}") from error

    def _main(self, mirrors: Mirrors) -> plan.Repository:
        """The release that was asked for, found by its code name.

        `stable` and the like change their meaning, and on a mirror they may be older than the code name's own file. So
        the code name that the suite is known to have is tried first; its signed file says whether it is still that.
        """
        asked = self.asked
        guess = self.template.pairs("suites").get(asked) or asked
        try:
            found = release.fetch(mirrors, guess, self.trust, self.memory)
            if guess == asked or found.suite == asked:
                return self._repository(mirrors, guess, found)
        except Unavailable:
            if guess == asked:
                raise
        pointer = release.fetch(mirrors, asked, self.trust._replace(valid_until=False))
        try:
            found = release.fetch(mirrors, pointer.codename, self.trust, self.memory)
        except release.NoRelease:
            return self._repository(mirrors, asked, release.fetch(mirrors, asked, self.trust, self.memory))
        if found.suite != asked:
            raise BootstrapError(
                f'the mirror {mirrors.bases[0]} says that "{asked}" is {pointer.codename}, and {pointer.codename} says '
                f'that it is "{found.suite}"',
                hint="the mirror is out of date: try another with --mirror, or name the release by its code name",
            )
        return self._repository(mirrors, pointer.codename, found)

    def _repository(self, mirrors: Mirrors, suite: str, found: release.Release) -> plan.Repository:
        wanted = self.template.words("components")
        if "enable-non-free" in self.options:
            # Not every release has all of them.
            wanted += [one for one in self.template.words("non_free") if one in found.components]
        return plan.Repository(mirrors, suite, found, tuple(wanted))

    def _pockets(self, mirrors: Mirrors) -> list[plan.Repository]:
        """The suites of updates beside the release, on its mirror; with a warning without those that cannot be had."""
        found = []
        for suite in self._beside("pockets"):
            try:
                found.append(self._beside_main(mirrors, suite))
            except Unavailable as error:
                self.progress.warning(f"without {suite}: {error.what}")
        return found

    def _security(self) -> plan.Repository | None:
        """The suite of security updates; None where there is none by the template or the wish. Raises BootstrapError.

        One that cannot be had is a failure: who can keep its release file away could keep the updates away with it.
        Only what is signed may tell that there is nothing for this architecture.
        """
        asked = self._asked("security_mirror")
        suites = self._beside("security_suite")
        if asked == NO_MIRROR or not suites:
            return None
        suite = self.template.pairs("security_suites").get(self.codename, suites[0])
        try:
            return self._beside_main(self._mirrors("security_mirror"), suite)
        except _NoArchitecture as error:
            if asked:
                raise
            self.progress.warning(f"without security updates: {error.what}")
        except Unavailable as error:
            hint = f"name another mirror with --security-mirror; --security-mirror={NO_MIRROR} does without the updates"
            if {self.asked, self.codename} & set(self.template.words("may_lack_security")) and not asked:
                self.progress.warning(f"without security updates: {error.what}")
                return None
            what = f"the security updates of {self.codename} cannot be had: {error.what}"
            raise BootstrapError(what, hint=f"{error.hint}; or {hint}" if error.hint else hint) from error
        return None

    def _beside(self, key: str) -> list[str]:
        """The suites that a setting names for this release; none for one that is always the newest."""
        if {self.asked, self.codename} & set(self.template.words("no_pockets")):
            return []
        return [pattern.replace("%r", self.codename) for pattern in self.template.words(key)]

    def _beside_main(self, mirrors: Mirrors, suite: str) -> plan.Repository:
        """Raises BootstrapError; Unavailable where there is no such suite, or nothing of this architecture in it."""
        found = release.fetch(mirrors, suite, self.trust, self.memory)
        if found.index("main", self.arch) is None:
            raise _NoArchitecture(f'{mirrors.bases[0]}: "{suite}" has no packages for {self.arch}')
        return self._repository(mirrors, suite, found)

    # -- packages ----------------------------------------------------------------------------------------------------

    def _check_variant(self) -> None:
        variant = self.options.get("variant", "")
        known = self.template.words("variants")
        if variant and variant not in known:
            raise UsageError(
                f'there is no variant "{variant}"', hint=f"there are {', '.join(known)}; without one: LXC's own set"
            )

    def _wish(self) -> plan.Wish:
        end = _end(self.options)
        language = machine.locale(self.options.get("locale")).partition("_")[0]
        return plan.Wish(
            self.arch,
            priorities=("required", *self.template.words(f"priorities{end}")),
            first=tuple(self.template.words("first")),
            packages=tuple(packages(self.template, self.options)),
            optional=(*(word.replace("%l", language) for word in self.template.words(f"optional{end}")), *self.more),
            exclude=tuple(self.template.words("exclude")),
        )

    # -- the tree ----------------------------------------------------------------------------------------------------

    @property
    def kind(self) -> str:
        """What the cache calls systems like this one."""
        return f"{self.template.name}-{self.codename}-{self.arch}" + "-foreign" * self.foreign

    def upgrade(self, target: str, changed: Sequence[plan.Item], log: str) -> None:
        """Bring an older system of the same kind to the plan (difference.py). Raises BootstrapError."""
        difference.apply(
            changed, self.plan, self.repositories, target, self._settings(log), store=self.store,
            progress=self.progress,
        )  # fmt: skip

    def install(self, target: str, log: str) -> None:
        """Make the system in the empty directory `target`. Raises BootstrapError."""
        install.install(
            self.plan, self.repositories, target, self._settings(log), store=self.store, workers=self.workers,
            progress=self.progress,
        )  # fmt: skip

    def _settings(self, log: str) -> Install:
        return Install(
            merged=self.codename not in self.template.words("unmerged"), persona=machine.persona(self.arch), log=log,
            foreign=self.foreign, interpreter=self._interpreter(),
            covered=tuple(self.template.pairs("covered").items()),
            deferred=tuple(self.template.words("deferred")), environment=self._environment(),
            ordered=self.epoch is not None,
        )  # fmt: skip

    def _environment(self) -> tuple[tuple[str, str], ...]:
        return () if self.epoch is None else ((reproduce.VARIABLE, str(self.epoch)),)

    def complete(self, tree: str, place: str) -> None:
        """What comes last, when all scripts were run, or are left to the second stage. Raises BootstrapError.

        place: where the tree will be.
        """
        if self.foreign:
            self._in_root(tree, secondstage.end)
        if self.epoch is not None:
            try:
                reproduce.settle(tree, self.epoch)
            except OSError as error:
                raise BootstrapError(f'cannot settle the times of "{tree}": {meaning(error)} ({error})') from error
        if self.foreign:
            self.progress.message(f"to be finished on a machine for {self.arch}: chroot {place} /{secondstage.PATH}")

    def _in_root(self, target: str, work: Callable[[int], None]) -> None:
        root = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            work(root)
        except OSError as error:
            raise BootstrapError(f"cannot write /{secondstage.PATH}: {meaning(error)}") from error
        finally:
            os.close(root)

    def values(self) -> dict[str, object]:
        """What the template's files are told of the system."""
        security = self.security
        return {
            "release": self.asked, "codename": self.codename, "arch": self.arch, "mirror": self.mirror,
            # who asks for one of these wants to follow it
            "sources_suite": self.asked if self.asked in self.template.words("rolling") else self.codename,
            "components": self.template.settings.get("sources_components") or " ".join(self.components),
            "pockets": [one.suite for one in self.pockets],
            "security_mirror": security.mirrors.bases[0] if security else "",
            "security_suite": security.suite if security else "",
        }  # fmt: skip

    def _interpreter(self) -> tuple[str, str] | None:
        """(path in the system, file of the host) of the program that is asked for to run the others."""
        given = self.options.get("interpreter-path")
        if given is None:
            return None
        return machine.interpreter(self.arch)[0] or os.path.abspath(given), given

    def run_script(self, target: str, text: str, *, hostname: str, log: str, what: str) -> None:
        """Run a template's shell script inside a tree. Raises BootstrapError."""
        if not text.strip():
            return
        if self.foreign:
            self._in_root(target, lambda root: secondstage.add(root, text))
            return
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            settings = Settings(
                hostname=hostname, persona=machine.persona(self.arch), log=output, environment=self._environment()
            )
            with Chroot(target, settings) as chroot:
                status = chroot.run(["/bin/sh", "-xs" if "debug" in self.options else "-s"], stdin=text)
        finally:
            os.close(output)
        if status:
            raise BootstrapError(
                f"{what} of the template {self.template.name} failed (exit status {status})\n{install.tail(log)}",
                hint=f"the full log is in {log}",
            )


def packages(template: Template, options: Mapping[str, str]) -> list[str]:
    """What a template and its options name to be installed; an entry may name alternatives (a|b)."""
    return template.words(f"packages{_end(options)}") + options.get("packages", "").replace(",", " ").split()


def _end(options: Mapping[str, str]) -> str:
    """What the names of the variant's settings end with."""
    return f".{options['variant']}" if options.get("variant") else ""
