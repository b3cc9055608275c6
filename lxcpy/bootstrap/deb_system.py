"""A system of Debian's kind: which mirror, which packages, and what a container needs that a machine does not."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from contextlib import ExitStack

from lxcpy.bootstrap import hostapt, install, keyring, plan, release
from lxcpy.bootstrap.cache import Store
from lxcpy.bootstrap.chroot import Chroot, Settings
from lxcpy.bootstrap.download import Client, Mirrors, Missing
from lxcpy.bootstrap.progress import Progress
from lxcpy.bootstrap.template import Template
from lxcpy.bootstrap.workers import Worker
from lxcpy.errors import BootstrapError, UsageError, meaning
from lxcpy.kernel.fd import exists_in_root, make_dirs_in_root, unlink_in_root, write_in_root

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "i686": "i386", "armv7l": "armhf"}


class System:
    """One wish of a template and its options, its plan made at once. Raises BootstrapError."""

    def __init__(
        self, template: Template, options: Mapping[str, str], store: Store, progress: Progress, stack: ExitStack
    ) -> None:
        self.template, self.options, self.store, self.progress = template, options, store, progress
        self.arch = options.get("arch") or _ARCHITECTURES.get(platform.machine(), platform.machine())
        self.suite = options.get("release") or template.settings["release"]
        # before any thread: a worker is a fork
        self.workers = [Worker(f"{store.directory}/objects") for _ in range(os.cpu_count() or 1)]
        for worker in self.workers:
            stack.callback(worker.close)
        client = Client()
        stack.callback(client.close)
        components = template.words("components")
        if "enable-non-free" in options:
            components += template.words("non_free")
        self.components = tuple(components)
        self.trust = release.Trust(tuple(self._keyrings()), check="no-check-gpg" not in options)
        main = self._first(client, self._mirrors("mirror", self.suite), self.suite)
        self.codename = main.release.codename or self.suite
        self.mirror = main.mirrors.bases[0]
        self.repositories = [main]
        self.security_suite, self.security = "", ""
        if self.suite not in template.words("no_security") and self.codename not in template.words("no_security"):
            self._add_security(client)
        self.plan = plan.make(self.repositories, self._wish(), store, progress, keep="no-cache" not in options)

    def _keyrings(self) -> list[keyring.Keyring]:
        if "keyring" in self.options:
            return [keyring.load(self.options["keyring"])]
        return keyring.find(self.template.words("keyrings"))

    def _mirrors(self, kind: str, suite: str) -> list[str]:
        """Where to look: the option, the environment, the host's own sources, the distribution's default."""
        option = kind.replace("_", "-")
        asked = self.options.get(option) or os.environ.get(kind.upper())
        if asked:
            return asked.split(",")
        security = kind == "security_mirror"
        hosts = [one.uri for one in hostapt.sources() if ("security" in one.suite) == security]
        return [*dict.fromkeys(hosts), self.template.settings[kind]]

    def _first(self, client: Client, bases: list[str], suite: str) -> plan.Repository:
        """The first mirror that has the suite."""
        failure: BootstrapError | None = None
        for base in bases:
            mirrors = Mirrors(client, [base])
            try:
                found = release.fetch(mirrors, suite, self.trust, self.store)
                return plan.Repository(mirrors, suite, found, self.components)
            except BootstrapError as error:
                failure = failure or error
        raise failure or BootstrapError(f'no mirror for "{suite}"')

    def _add_security(self, client: Client) -> None:
        suite = self.template.settings["security_suite"].replace("%r", self.codename)
        try:
            found = self._first(client, self._mirrors("security_mirror", suite), suite)
        except (BootstrapError, Missing) as error:
            self.progress.warning(f"without security updates: {error}")
            return
        self.repositories.append(found)
        self.security_suite, self.security = suite, found.mirrors.bases[0]

    def _wish(self) -> plan.Wish:
        variant = self.options.get("variant", "")
        if variant not in ("", "minbase"):
            raise UsageError(f'there is no variant "{variant}"', hint="minbase is one; without it: LXC's own set")
        packages = [] if variant else self.template.words("packages")
        packages += [name for name in self.options.get("packages", "").split(",") if name]
        return plan.Wish(
            self.arch,
            first=tuple(self.template.words("first")),
            packages=tuple(packages),
            exclude=tuple(self.template.words("exclude")),
        )

    # -- the tree ----------------------------------------------------------------------------------------------------

    def install(self, target: str) -> None:
        """Make the system in the empty directory `target`. Raises BootstrapError."""
        log = f"{self.store.directory}/logs/{self.template.name}-{self.codename}-{self.arch}.log"
        install.install(
            self.plan, self.repositories, target, install.Install(log=log), store=self.store, workers=self.workers,
            progress=self.progress,
        )  # fmt: skip

    def values(self, name: str) -> dict[str, object]:
        """What the template's files are rendered with."""
        return {
            "name": name, "codename": self.codename, "arch": self.arch, "mirror": self.mirror,
            "security_mirror": self.security, "security_suite": self.security_suite,
            "components": " ".join(self.components),
        }  # fmt: skip

    def customize(self, target: str, name: str) -> None:
        """What is each container's own, in the tree `target`. Raises BootstrapError."""
        root = os.open(target, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._systemd(root)
            self._identity(root, target)
            if "auth-key" in self.options:
                self._authorize(root, self.options["auth-key"])
        except OSError as error:
            raise BootstrapError(f'cannot fit the system in "{target}" to a container: {meaning(error)}') from error
        finally:
            os.close(root)

    def _systemd(self, root: int) -> None:
        if not exists_in_root(root, "lib/systemd/systemd"):
            return
        units = "etc/systemd/system"
        make_dirs_in_root(root, f"{units}/getty.target.wants").close()
        links = {f"{units}/{unit}": "/dev/null" for unit in self.template.words("mask")}
        links[f"{units}/default.target"] = "/lib/systemd/system/multi-user.target"
        for number in range(1, 5):
            links[f"{units}/getty.target.wants/getty@tty{number}.service"] = "/lib/systemd/system/getty@.service"
        for path, to in links.items():
            _link(root, path, to)

    def _identity(self, root: int, target: str) -> None:
        """Machine id and host keys: no two containers share them."""
        write_in_root(root, "etc/machine-id", b"")
        if not exists_in_root(root, "usr/bin/ssh-keygen"):
            return
        for kind in ("rsa", "dsa", "ecdsa", "ed25519"):
            for end in ("", ".pub"):
                unlink_quietly(root, f"etc/ssh/ssh_host_{kind}_key{end}")
        with Chroot(target, Settings()) as chroot:
            status = chroot.wait(chroot.start(["/usr/bin/ssh-keygen", "-A"]))
        if status:
            raise BootstrapError(f"ssh-keygen -A ended with status {status}: the container would have no host keys")

    def _authorize(self, root: int, path: str) -> None:
        try:
            with open(path, "rb") as file:
                key = file.read(1 << 16)
        except OSError as error:
            raise BootstrapError(f'--auth-key: cannot read "{path}": {meaning(error)}') from error
        make_dirs_in_root(root, "root/.ssh", 0o700).close()
        write_in_root(root, "root/.ssh/authorized_keys", key, 0o600)

    def config_lines(self, name: str) -> list[str]:
        """What goes into the container's config."""
        return [
            "",
            "# Common configuration",
            f"lxc.include = {self.template.settings['include']}",
            "",
            "# Container specific configuration",
            "lxc.tty.max = 4",
            f"lxc.uts.name = {name}",
            f"lxc.arch = {self.arch}",
            "lxc.pty.max = 1024",
        ]


def _link(root: int, path: str, to: str) -> None:
    unlink_quietly(root, path)
    with make_dirs_in_root(root, os.path.dirname(path)) as parent:
        os.symlink(to, os.path.basename(path), dir_fd=parent.number)


def unlink_quietly(root: int, path: str) -> None:
    """Unlink a name that may not be there. Raises OSError."""
    try:
        unlink_in_root(root, path)
    except FileNotFoundError:
        pass

