"""A system of Alpine's kind: which repositories of which mirror, which packages, and what makes it a container's."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from lxcpy import paths
from lxcpy.bootstrap import apkdb, apkformat, apksolve, download, hostapt, install, machine, rsa
from lxcpy.bootstrap.access import Access
from lxcpy.bootstrap.apkformat import Package
from lxcpy.bootstrap.apkinstall import Installation
from lxcpy.bootstrap.cache import Store
from lxcpy.bootstrap.chroot import Chroot, Settings
from lxcpy.bootstrap.download import Client, Missing, Unavailable
from lxcpy.bootstrap.imagecache import Images, Record
from lxcpy.bootstrap.job import Job
from lxcpy.bootstrap.kept import KeptMirrors
from lxcpy.bootstrap.proxy import clean
from lxcpy.bootstrap.rootfscache import RootfsCache
from lxcpy.errors import BootstrapError, UsageError, meaning
from lxcpy.kernel.fd import exists_in_root, write_in_root

_ARCHITECTURES = {"amd64": "x86_64", "i386": "x86", "arm64": "aarch64", "armhf": "armv7", "armel": "armhf",
                  "ppc64el": "ppc64le", "loong64": "loongarch64"}  # fmt: skip
_LARGEST_INDEX = 64 << 20
_FETCHERS = 6
_NEWEST = "latest-stable"


def fill(job: Job) -> str:
    """Make the system; the lines for its config. Raises BootstrapError, UsageError."""
    store = Store(paths.cache_dir())
    log = f"{store.directory}/logs/{job.template.name}-{job.name}-{os.getpid()}.log"
    with ExitStack() as stack:
        system = System(job, store, stack)

        def make(tree: str) -> None:
            system.fetch()
            persona = machine.persona(system.debian_arch)
            made = Installation(tree, system.packages, system.open, persona=persona, log=log, progress=job.progress)
            made.run(system.world, system.arch)

        if "no-cache" in job.options:
            make(job.tree)
        else:
            cache = RootfsCache(store, job.trees)
            kind, anew = f"{job.template.name}-{system.release}-{system.arch}", "flush-cache" in job.options
            cache.fill(kind, system.digest(), job.tree, make, job.progress, anew=anew)
        job.progress.start("customize")
        values = {"release": system.release, "arch": system.arch, "repositories": system.addresses}
        with job.renderer({**values, "resolv_conf": machine.resolv_conf()}) as renderer:
            renderer.lay()
            system.give_keys(renderer.root)
            text, config = renderer.text("container.sh.j2"), renderer.text("config.j2")
        _run(job, text, log, machine.persona(system.debian_arch))
        job.progress.finish("customize")
    if "debug" in job.options:
        job.progress.message(f"the log is {log}")
    elif os.path.exists(log):
        os.unlink(log)
    job.progress.message(f"{job.template.name} {system.release} ({system.arch}) is ready")
    return config


def _run(job: Job, text: str, log: str, persona: int) -> None:
    """Run the template's script inside. Raises BootstrapError."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    try:
        with Chroot(job.tree, Settings(hostname=job.name, persona=persona, log=output)) as chroot:
            status = chroot.run(["/bin/sh", "-s"], stdin=("set -x\n" if "debug" in job.options else "") + text)
    finally:
        os.close(output)
    if status:
        raise BootstrapError(
            f"{job.template.name}: the template's container.sh failed (exit status {status})\n{install.tail(log)}",
            hint=f"the full log is in {log}",
        )


class System:
    """One wish, solved at once. Raises BootstrapError, UsageError."""

    def __init__(self, job: Job, store: Store, stack: ExitStack) -> None:
        self.job, self.store = job, store
        settings, options = job.template.settings, job.options
        self.debian_arch = _debian(options.get("arch") or machine.host_arch())
        self.arch = _ARCHITECTURES.get(self.debian_arch, self.debian_arch)
        machine.check_runs(self.debian_arch)
        self.trust = "allow-untrusted" not in options
        self.keys = _keys(job)
        self.used: set[str] = set()
        self.client = Client(access=Access(ca=options.get("ca", ""), apt=hostapt.settings()))
        stack.callback(self.client.close)
        self.offline = "offline" in options
        mirrors = (options.get("mirror") or settings["mirror"]).replace(",", " ").split()
        job.progress.start("release")
        self.release = self._release(options.get("release") or settings["release"], mirrors)
        self.repositories = [
            self._mirrors([f"{base.rstrip('/')}/{self.release}/{name}" for base in mirrors])
            for name in job.template.words("repositories")
        ]
        further = options.get("repository", "").replace(",", " ").split()
        self.repositories += [self._mirrors([url.rstrip("/")]) for url in further]
        self.addresses = [one.bases[0] for one in self.repositories]
        found: list[Package] = []
        for number, repository in enumerate(self.repositories):
            found += self._index(repository, number)
        job.progress.finish("release")
        self.world = [*job.template.words("packages"), *options.get("packages", "").replace(",", " ").split()]
        self.packages = apksolve.solve(found, apkformat.terms(" ".join(self.world)))

    def _mirrors(self, bases: Sequence[str]) -> KeptMirrors:
        return KeptMirrors(self.client, bases, self.store, offline=self.offline, keep=self.trust)

    def _release(self, asked: str, mirrors: Sequence[str]) -> str:
        """The folder of a release; the newest one is known by the number in its own signed index."""
        if re.fullmatch(r"\d+\.\d+", asked):
            return f"v{asked}"
        if asked != _NEWEST:
            if not re.fullmatch(r"[A-Za-z0-9._-]+", asked) or asked.startswith("."):
                raise UsageError(f'there is no release "{asked}"', hint="a release is like 3.20, edge or latest-stable")
            return asked
        name = self.job.template.words("repositories")[0]
        index = self._index(self._mirrors([f"{base.rstrip('/')}/{asked}/{name}" for base in mirrors]), 0)
        versions = [one.version for one in index if one.name == self.job.template.settings["names_release"]]
        match = re.match(r"(\d+\.\d+)\.", versions[0]) if versions else None
        if match is None:
            what = f"{clean(mirrors[0])}: its {_NEWEST} does not tell its number"
            raise BootstrapError(what, hint="name it: -r 3.20")
        return f"v{match[1]}"

    def _index(self, repository: KeptMirrors, number: int) -> list[Package]:
        path = f"{self.arch}/APKINDEX.tar.gz"
        name = download.join(repository.bases[0], path)
        with repository.session(path):
            try:
                data = repository.read(path, _LARGEST_INDEX)
            except Missing as error:
                hint = "-r names the release, -a the architecture, -m another mirror"
                raise Unavailable(
                    str(error), hint="make the same once without --offline" if self.offline else hint
                ) from error
            files = apkformat.index(data, self.keys, self.used, name=name, check=self.trust)
        return apkformat.stanzas(files.get("APKINDEX", b"").decode(errors="replace"), number)

    def digest(self) -> str:
        """What went in: the packages, and what was asked for by name."""
        return hashlib.sha256("\n".join([apkdb.digest(self.packages), *sorted(self.world)]).encode()).hexdigest()[:16]

    # -- packages ----------------------------------------------------------------------------------------------------

    def fetch(self) -> None:
        """See that every package is in the cache. Raises BootstrapError."""
        missing = [one for one in self.packages if self._record(one) is None]
        if not missing:
            return
        if self.offline:
            names = ", ".join(sorted(f"{one.name} {one.version}" for one in missing))
            raise BootstrapError(
                f"--offline fetches nothing, and {len(missing)} packages are not in the cache: {names}",
                hint="make the same once without --offline",
            )
        self.job.progress.start("download", total=sum(one.size for one in missing), unit="bytes")
        with ThreadPoolExecutor(_FETCHERS) as pool:
            for _ in pool.map(self._fetch, missing):
                pass
        self.job.progress.finish("download")

    def _kept(self, package: Package) -> Images:
        return Images(self.store, f"apk:{package.checksum}", package.file)

    def _record(self, package: Package) -> Record | None:
        return self._kept(package).record()

    def _fetch(self, package: Package) -> None:
        kept = self._kept(package)
        with kept.locked():
            if kept.record() is None:  # else another process was faster
                self._fetch_into(kept, package)

    def _fetch_into(self, kept: Images, package: Package) -> None:
        path = f"{self.arch}/{package.file}"

        def advance(amount: int) -> None:
            self.job.progress.advance("download", amount)

        try:
            found = kept.fetch(self.repositories[package.repository], path, None, advance, limit=package.size)
        except Missing as error:
            raise BootstrapError(
                str(error), hint="the mirror may be in the middle of an update: try again later"
            ) from error
        file = kept.open(found)
        try:
            apkformat.package(memoryview(os.pread(file, found.size, 0)), package)
        except BootstrapError:
            self.store.discard(found.sha256)
            raise
        finally:
            os.close(file)
        kept.keep(Record(package.version, {package.file: found}))

    def open(self, package: Package) -> int:
        """A descriptor of a fetched package. Raises BootstrapError."""
        record = self._record(package)
        if record is None:
            raise BootstrapError(f"the cache lost {package.file}", hint="run the command again")
        return self._kept(package).open(record.files[package.file])

    def give_keys(self, root: int) -> None:
        """Let apk inside trust whom this trusted. Raises BootstrapError."""
        folder = _folder(self.job)
        for name in sorted(self.used):
            if not exists_in_root(root, f"etc/apk/keys/{name}"):
                try:
                    with open(f"{folder}/{name}", "rb") as file:
                        write_in_root(root, f"etc/apk/keys/{name}", file.read())
                except OSError as error:
                    raise BootstrapError(f"cannot copy the key {name}: {meaning(error)}") from error


def _debian(word: str) -> str:
    """Debian's name of an architecture, from its own, the kernel's or Alpine's."""
    alpine = {name: debian for debian, name in _ARCHITECTURES.items()}
    return {**alpine, "armel": "armel"}.get(word) or machine.debian_arch(word)


def _folder(job: Job) -> str:
    return job.options.get("keys") or os.environ.get("APK_KEYS_DIR") or f"{job.template.path}/keys"


def _keys(job: Job) -> Mapping[str, rsa.Key]:
    """The keys that are trusted, by their file names. Those of the template must be the ones that its ini names."""
    folder = _folder(job)
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(".pub"))
    except OSError as error:
        raise BootstrapError(f'cannot read the folder of keys "{folder}": {meaning(error)}') from error
    if folder == f"{job.template.path}/keys":
        pinned = job.template.pairs("keys")
        for name in names:
            with open(f"{folder}/{name}", "rb") as file:
                if hashlib.sha256(file.read()).hexdigest() != pinned.get(name):
                    raise BootstrapError(
                        f'"{folder}/{name}" is not the key that the template names',
                        hint="install lxcpy again, or give a folder of keys that you trust with --keys",
                    )
    if not names:
        raise BootstrapError(f'there is no key in "{folder}"', hint="put Alpine's there, their names end in .rsa.pub")
    return {name: rsa.load(f"{folder}/{name}") for name in names}
