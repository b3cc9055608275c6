"""A system of Debian's kind: which release of which mirror, which packages, and the plan that follows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import ExitStack

from lxcpy.bootstrap import hostapt, install, keyring, machine, plan, release
from lxcpy.bootstrap.cache import Store
from lxcpy.bootstrap.chroot import Chroot, Settings
from lxcpy.bootstrap.download import Client, Mirrors, Unavailable
from lxcpy.bootstrap.progress import Progress
from lxcpy.bootstrap.template import Template
from lxcpy.bootstrap.workers import Worker
from lxcpy.errors import BootstrapError, UsageError, meaning

_ROLLING = ("testing", "unstable", "sid")  # who asks for these wants to follow them


class System:
    """One wish of a template and its options, its plan made at once. Raises BootstrapError, UsageError."""

    def __init__(
        self, template: Template, options: Mapping[str, str], store: Store, progress: Progress, stack: ExitStack
    ) -> None:
        self.template, self.options, self.store, self.progress = template, options, store, progress
        self.arch = machine.debian_arch(options.get("arch") or machine.host_arch())
        machine.check_runs(self.arch)
        self.variant = self._variant()
        self.asked = options.get("release") or template.settings["release"]
        # Before any thread: a worker is a fork.
        self.workers = [Worker(f"{store.directory}/objects") for _ in range(os.cpu_count() or 1)]
        for worker in self.workers:
            stack.callback(worker.close)
        self.client = Client()
        stack.callback(self.client.close)
        sources = [one for one in hostapt.sources() if self._serves(one.suite)]
        self.trust = release.Trust(
            tuple(self._keyrings(sources)),
            check="no-check-gpg" not in options,
            valid_until="no-check-valid-until" not in options,
        )
        progress.start("release")
        main = self._main(Mirrors(self.client, self._bases("mirror", sources)))
        self.codename = main.release.codename or main.suite
        self.mirror = main.mirrors.bases[0]
        self.components = main.components
        self.repositories = [main]
        self.security = self._security(sources)
        if self.security is not None:
            self.repositories.append(self.security)
        progress.finish("release")
        self.plan = plan.make(self.repositories, self._wish(), store, progress, keep="no-cache" not in options)

    # -- the mirror and its release ----------------------------------------------------------------------------------

    def _serves(self, suite: str) -> bool:
        """Whether a suite of the host's sources is one of this distribution."""
        base = suite.removesuffix("/updates").removesuffix("-security").removesuffix("-updates")
        known = self.template.pairs("suites")
        return base in known or base in known.values()

    def _bases(self, kind: str, sources: list[hostapt.Source]) -> list[str]:
        """Where to look: the option or the environment; else the host's own sources, then the distribution's."""
        asked = self.options.get(kind.replace("_", "-")) or os.environ.get(kind.upper())
        if asked:
            return [word for word in asked.replace(",", " ").split() if word]
        security = kind == "security_mirror"
        hosts = [one.uri for one in sources if one.suite.endswith(("-security", "/updates")) == security]
        return [*dict.fromkeys(uri.rstrip("/") for uri in hosts), self.template.settings[kind]]

    def _keyrings(self, sources: list[hostapt.Source]) -> list[keyring.Keyring]:
        path = self.options.get("keyring") or os.environ.get("KEYRING")
        if path:
            return [keyring.load(path)]
        found = keyring.find(self.template.words("keyrings"))
        known = {one.path for one in found}
        for signed in dict.fromkeys(one.signed_by for one in sources if one.signed_by):
            if signed not in known and os.path.exists(signed):
                found.append(keyring.load(signed))
        if name := self.template.settings.get("keyring"):
            found.append(keyring.shipped(f"{self.template.path}/{name}", self.template.words("fingerprints")))
        return found

    def _main(self, mirrors: Mirrors) -> plan.Repository:
        """The release that was asked for, found by its code name.

        `stable` and the like change their meaning, and on a mirror they may be older than the code name's own file. So
        the code name that the suite is known to have is tried first; its signed file says whether it is still that.
        """
        asked = self.asked
        guess = self.template.pairs("suites").get(asked, asked)
        try:
            found = release.fetch(mirrors, guess, self.trust, self.store)
            if guess == asked or found.suite == asked:
                return self._repository(mirrors, guess, found)
        except Unavailable:
            if guess == asked:
                raise
        pointer = release.fetch(mirrors, asked, self.trust._replace(valid_until=False))
        try:
            found = release.fetch(mirrors, pointer.codename, self.trust, self.store)
        except release.NoRelease:
            return self._repository(mirrors, asked, release.fetch(mirrors, asked, self.trust, self.store))
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

    def _security(self, sources: list[hostapt.Source]) -> plan.Repository | None:
        """The suite of security updates; None where there is none, or, with a warning, where it cannot be had."""
        if {self.asked, self.codename} & set(self.template.words("no_security")):
            return None
        pattern = self.template.settings.get("security_suite")
        if not pattern:
            return None
        suite = pattern.replace("%r", self.codename)
        mirrors = Mirrors(self.client, self._bases("security_mirror", sources))
        try:
            found = release.fetch(mirrors, suite, self.trust, self.store)
            if found.index("main", self.arch) is None:
                raise Unavailable(f'{mirrors.bases[0]}: "{suite}" has no packages for {self.arch}')
        except Unavailable as error:
            if "security-mirror" in self.options or "SECURITY_MIRROR" in os.environ:
                raise
            self.progress.warning(f"without security updates: {error.what}")
            return None
        return self._repository(mirrors, suite, found)

    # -- packages ----------------------------------------------------------------------------------------------------

    def _variant(self) -> str:
        variant = self.options.get("variant", "")
        known = self.template.words("variants")
        if variant and variant not in known:
            raise UsageError(
                f'there is no variant "{variant}"', hint=f"there are {', '.join(known)}; without one: LXC's own set"
            )
        return variant

    def _wish(self) -> plan.Wish:
        end = f".{self.variant}" if self.variant else ""
        packages = self.template.words(f"packages{end}")
        packages += [name for name in self.options.get("packages", "").replace(",", " ").split() if name]
        return plan.Wish(
            self.arch,
            priorities=("required", *self.template.words(f"priorities{end}")),
            first=tuple(self.template.words("first")),
            packages=tuple(packages),
            exclude=tuple(self.template.words("exclude")),
        )

    # -- the tree ----------------------------------------------------------------------------------------------------

    @property
    def kind(self) -> str:
        """What the cache calls systems like this one."""
        return f"{self.template.name}-{self.codename}-{self.arch}"

    def install(self, target: str, log: str) -> None:
        """Make the system in the empty directory `target`. Raises BootstrapError."""
        settings = install.Install(
            persona=machine.persona(self.arch), log=log, covered=tuple(self.template.pairs("covered").items())
        )
        install.install(
            self.plan, self.repositories, target, settings, store=self.store, workers=self.workers,
            progress=self.progress,
        )  # fmt: skip

    def values(self) -> dict[str, object]:
        """What the template's files are told of the system."""
        rolling = self.asked in _ROLLING
        security = self.security
        return {
            "release": self.asked, "codename": self.codename, "arch": self.arch, "mirror": self.mirror,
            "sources_suite": self.asked if rolling else self.codename, "components": " ".join(self.components),
            "security_mirror": security.mirrors.bases[0] if security else "",
            "security_suite": security.suite if security else "",
        }  # fmt: skip

    def run_script(self, target: str, text: str, *, hostname: str, log: str, what: str) -> None:
        """Run a template's shell script inside a tree. Raises BootstrapError."""
        if not text.strip():
            return
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            settings = Settings(hostname=hostname, persona=machine.persona(self.arch), log=output)
            with Chroot(target, settings) as chroot:
                status = chroot.run(["/bin/sh", "-s"], stdin=text)
        finally:
            os.close(output)
        if status:
            raise BootstrapError(
                f"{what} of the template {self.template.name} failed (exit status {status})\n{install.tail(log)}",
                hint=f"the full log is in {log}",
            )


def read_key(path: str) -> str:
    """An SSH public key for authorized_keys. Raises UsageError."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            text = file.read(1 << 16)
    except OSError as error:
        raise UsageError(f'--auth-key: cannot read "{path}": {meaning(error)}') from error
    if "PRIVATE KEY" in text:
        raise UsageError(f'--auth-key: "{path}" is a private key', hint="give the public one, which ends in .pub")
    return text if text.endswith("\n") else text + "\n"


