"""Fills a container's root filesystem from a template, and says in its config what the system needs."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

from lxcpy import paths
from lxcpy.bootstrap import deb_system, difference, locked, machine, repeat, users
from lxcpy.bootstrap.cache import Store
from lxcpy.bootstrap.download import Stale
from lxcpy.bootstrap.hostkeys import HostKeys
from lxcpy.bootstrap.job import Job
from lxcpy.bootstrap.progress import Progress
from lxcpy.bootstrap.rootfscache import RootfsCache, Trees
from lxcpy.bootstrap.template import Template, parse
from lxcpy.errors import BootstrapError, meaning

_ENGINES = {
    "busybox": "lxcpy.bootstrap.busybox",
    "local": "lxcpy.bootstrap.local",
    "download": "lxcpy.bootstrap.imagedownload",
    "oci": "lxcpy.bootstrap.oci",
    "alpine": "lxcpy.bootstrap.alpine",
}
_TTYS = re.compile(r"^\s*lxc\.tty(?:\.max)?\s*=\s*(\d+)", re.MULTILINE)
_NIC = re.compile(r"^[ \t]*lxc\.net\.0\.type[ \t]*=[ \t]*veth[ \t]*$", re.MULTILINE)
_HWADDR = re.compile(r"^[ \t]*lxc\.net\.0\.hwaddr[ \t]*=", re.MULTILINE)


def bootstrap(
    template: Template,
    words: Sequence[str],
    *,
    target: str,
    config_path: str,
    name: str,
    progress: Progress,
    trees: Trees,
) -> None:
    """Make the system in the empty directory `target` and append to the config. Raises BootstrapError, UsageError."""
    options = parse(template, words)
    mask = os.umask(0o022)
    try:
        with ExitStack() as stack:
            tree = target
            if trees.shifted:
                # Its files belong to ids that this process is not: it is made as it is, and shifted when complete.
                tree = stack.enter_context(RootfsCache(Store(paths.cache_dir()), trees).workplace(name))
            fill = _engine(template.settings["engine"])
            lines = fill(Job(template, options, tree, target, config_path, name, progress, trees))
            if tree != target:
                trees.copy(tree, target)
        _configure(config_path, lines, address=template.settings["engine"] != "busybox")
    finally:
        os.umask(mask)
        progress.close()


def _deb(job: Job) -> str:
    lock = locked.given(job.template, job.options)
    if lock is not None:
        job = job._replace(options={**lock.asked(), **job.options})
    template, options, tree, _, config_path, name, progress, trees = job
    values = _values(template, options, config_path, name, mapped=trees.mapped)
    if lock is not None:
        values.update(lock.host)
    store = memory = Store(paths.cache_dir())
    cache = RootfsCache(store, trees)
    log = f"{store.directory}/logs/{template.name}-{name}-{os.getpid()}.log"
    epoch = repeat.epoch(options, lock)
    with ExitStack() as stack:
        if "no-cache" in options:
            store = Store(stack.enter_context(cache.workplace(f"{name}-files")))
        keys = stack.enter_context(closing(_host_keys(job, ahead=lock is None and epoch is None)))
        make = deb_system.System if lock is None else partial(locked.LockedSystem, lock)
        system = make(
            template, options, store, progress, stack, users.packages(values), memory=memory,
            epoch=epoch,
        )  # fmt: skip
        values.update(system.values(), **repeat.values(system, values, name))
        try:
            _base(job, system, cache, values, log)
        except Stale as error:
            # A package is gone: the mirror was updated since its release was read.
            if not system.again():
                raise
            progress.warning(f"the mirror has changed, once more: {error.what}")
            cache.empty(tree)
            _base(job, system, cache, values, log)
        config = _customize(job, system, values, keys, log)
        repeat.finish(job, system, lock, values)
        if "clean" in options:
            cache.flush(template.name)
        _tell(job, system, values, log)
        return config


def _tell(job: Job, system: deb_system.System, values: Mapping[str, object], log: str) -> None:
    """The last words, of what is ready and how to log in."""
    if "debug" in job.options:
        job.progress.message(f"the log is {log}")
    else:
        _remove(log)
    job.progress.message(f"{job.template.name} {system.codename} ({system.arch}) is ready")
    if said := users.told(values, job.options):
        job.progress.message(said)


def _host_keys(job: Job, *, ahead: bool) -> HostKeys:
    """Those that take long, from now on; none where the system will have no daemon for them, or makes its own."""
    template = job.template
    named = {*template.words("host_keys_of")} & {*deb_system.packages(template, job.options)}
    wanted = ahead and named and "foreign" not in job.options
    return HostKeys(template.words("host_keys") if wanted else (), job.directory, job.name)


def _customize(
    job: Job, system: deb_system.System, values: Mapping[str, object], keys: HostKeys, log: str
) -> str:
    """Make the tree the container's own; the lines for its config. Raises BootstrapError."""
    job.progress.start("customize")
    with job.renderer(values) as renderer:

        def run_script() -> None:
            text = renderer.text("container.sh.j2")
            system.run_script(job.tree, text, hostname=job.name, log=log, what="the script container.sh")

        renderer.values["host_keys"] = promised = keys.coming(renderer.root)
        renderer.lay()
        system.give_keyring(renderer.root)
        run_script()
        renderer.values["host_keys"] = given = keys.give(renderer.root)
        if given != promised:
            run_script()  # which makes them all itself
        config = renderer.text("config.j2")
    system.complete(job.tree, job.target)
    job.progress.finish("customize")
    return config


def _base(job: Job, system: deb_system.System, cache: RootfsCache, values: Mapping[str, object], log: str) -> None:
    """Put the system as all containers of its kind have it into the tree. Raises BootstrapError."""

    def make(base: str) -> None:
        system.install(base, log)
        finish(base)

    def finish(base: str) -> None:
        with job._replace(tree=base).renderer(values) as renderer:
            text = renderer.text("base.sh.j2")
        system.run_script(base, text, hostname="localhost", log=log, what="the script base.sh")

    if "no-cache" in job.options:
        make(job.tree)
        return
    family = _family(system, values)

    def renewal(about: Mapping[str, Any]) -> Callable[[str], None] | None:
        changed = difference.between(about, system.plan, family)
        if not changed or system.foreign or system.epoch is not None:
            return None

        def renew(base: str) -> None:
            names = ", ".join(sorted(item.name for item in changed))
            job.progress.message(f"the cached system is brought up to date: {names}")
            system.upgrade(base, changed, log)
            finish(base)

        return renew

    key = hashlib.sha256(f"{system.plan.digest()}\n{family}".encode()).hexdigest()[:16]
    cache.fill(
        system.kind, key, job.tree, make, job.progress, anew="flush-cache" in job.options, renewal=renewal,
        about=difference.noted(system.plan, family),
    )  # fmt: skip


def _values(
    template: Template, options: Mapping[str, str], config_path: str, name: str, *, mapped: bool
) -> dict[str, object]:
    """What the template's files are told of the container and the host. Raises UsageError."""
    return {
        "distribution": template.name,
        "ttys": _ttys(config_path),
        "locale": machine.locale(options.get("locale")),
        "timezone": machine.timezone(options.get("timezone")),
        "resolv_conf": machine.resolv_conf(),
        "machine_id": secrets.token_hex(16),
        **users.values(options, template.settings.get("user", ""), mapped=mapped),
    }


def _ttys(config_path: str) -> int:
    found = _TTYS.findall(_read(config_path))
    return int(found[-1]) if found else 4


def _family(system: deb_system.System, values: Mapping[str, object]) -> str:
    """What went in besides the packages: the template's settings and base script, the language."""
    template = system.template
    parts = [str(values["locale"])]
    if system.epoch is not None:
        parts.append(f"SOURCE_DATE_EPOCH={system.epoch}")
    parts += [f"{key}={value}" for key, value in sorted(template.settings.items())]
    parts.append(_read(template.file("base.sh.j2") or ""))
    return hashlib.sha256("\n".join(parts).encode(errors="surrogateescape")).hexdigest()


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise BootstrapError(f'cannot read "{path}": {meaning(error)}') from error


def _configure(path: str, lines: str, *, address: bool) -> None:
    """Append to the container's config; with `address` a lone veth that has none gets one, as lxc-debian does it."""
    text = _read(path)
    if address and len(_NIC.findall(text)) == 1 and not _HWADDR.search(text):
        random = ":".join(f"{byte:02x}" for byte in secrets.token_bytes(3))
        text = _NIC.sub(lambda match: f"{match[0]}\nlxc.net.0.hwaddr = 00:16:3e:{random}", text)
    if text and not text.endswith("\n"):
        text += "\n"
    try:
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as config:
            config.write(text + lines)
    except OSError as error:
        raise BootstrapError(f'cannot append to "{path}": {meaning(error)}') from error


def _engine(name: str) -> Callable[[Job], str]:
    """What fills a job's tree and returns the lines to append to the config; loaded when wanted."""
    if name == "deb":
        return _deb
    fill: Callable[[Job], str] = importlib.import_module(_ENGINES[name]).fill
    return fill


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
