"""A system from an image server, as LXC's download template has it: chosen, checked, cached, unpacked."""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack

from lxcpy import paths
from lxcpy.bootstrap import hostapt, image, machine
from lxcpy.bootstrap.access import Access
from lxcpy.bootstrap.cache import Store
from lxcpy.bootstrap.download import Client, Expected, Missing
from lxcpy.bootstrap.imagecache import Images, Record
from lxcpy.bootstrap.imageserver import Build, Server, word
from lxcpy.bootstrap.job import Job
from lxcpy.bootstrap.rootfscache import RootfsCache
from lxcpy.bootstrap.template import Template
from lxcpy.errors import BootstrapError, UsageError

_COMPAT = 7  # the version of the metadata's format that LXC's own template asks for
_META = "meta.tar.xz"
_TREES = ("rootfs.tar.xz", "rootfs.squashfs")  # the better one first
_QUESTIONS = {"dist": "Distribution", "release": "Release", "arch": "Architecture"}
_COLUMNS = "{:<15}  {:<10}  {:<5}  {:<7}  {:<14}"  # LXC's


def listing(template: Template, options: Mapping[str, str]) -> str:
    """The server's images that fit the options, as LXC prints them. Raises BootstrapError, UsageError."""
    if "offline" in options:
        said = "--offline fetches nothing, and the list is the server's"
        raise UsageError(said, hint="lxcpy-cache shows what is here")
    client = _client(options)
    try:
        server = Server(client, options, template.settings["server"], mode="system", compat=_COMPAT)
        return _table(_fitting(server.builds(), options, all_variants="variant" not in options))
    finally:
        client.close()


def fill(job: Job) -> str:
    """Make the system and sort the config. Raises BootstrapError, UsageError."""
    if {"offline", "flush-cache"} <= job.options.keys():
        raise UsageError("--offline takes the cached image, and --flush-cache none", hint="leave one of them out")
    store = Store(paths.cache_dir())
    with ExitStack() as stack:
        client = _client(job.options)
        stack.callback(client.close)
        mode = "user" if job.trees.mapped else "system"
        server = Server(client, job.options, job.template.settings["server"], mode=mode, compat=_COMPAT)
        options = _asked(job, server)
        names = [options["dist"], options["release"], options["arch"], options["variant"]]
        tells = [server.url, mode, *names, *job.options.get("keyring", "").split(), server.key]
        kept = Images(store, "\n".join(tells), " ".join(names))
        if "flush-cache" in options:
            kept.forget()
        with kept.locked():
            record = _cached(job, kept) or _fetched(job, server, kept, options)
        meta = _metadata(job, kept, record)
        _tree(job, store, kept, record, meta, "-".join(["download", *names]))
    image.finish(job, meta, distribution=options["dist"], arch=options["arch"], trusted="no-validate" in options)
    return ""


def _client(options: Mapping[str, str]) -> Client:
    return Client(access=Access(ca=options.get("ca", ""), apt=hostapt.settings()))


def _asked(job: Job, server: Server) -> dict[str, str]:
    """The options with everything that tells an image; what is missing is asked for, as LXC does. Raises UsageError."""
    options = {"variant": "default", **job.options}
    missing = [one for one in _QUESTIONS if one not in options]
    if missing and "offline" not in options:
        job.progress.close()  # the terminal is the question's
        if sys.stdin is not None and sys.stdin.isatty():
            sys.stderr.write(_table(_fitting(server.builds(), options)) + "\n")
        for one in missing:
            options[one] = _answer(one)
    elif missing:
        raise UsageError(f"template download: --offline needs --{missing[0]}", hint="the server is not asked")
    options["arch"] = machine.debian_arch(options["arch"])
    for one in (*_QUESTIONS, "variant"):
        word(options[one], _QUESTIONS.get(one, one).lower())
    return options


def _answer(what: str) -> str:
    sys.stderr.write(f"{_QUESTIONS[what]}: ")
    sys.stderr.flush()
    answer = sys.stdin.readline().strip() if sys.stdin is not None else ""
    if answer:
        return answer
    if what == "arch":
        return machine.host_arch()
    raise UsageError(
        f"template download: which {_QUESTIONS[what].lower()}?",
        hint="give --dist, --release and --arch; lxcpy-create -t download -n NAME -- --list shows what there is",
    )


def _fitting(builds: Sequence[Build], options: Mapping[str, str], *, all_variants: bool = False) -> list[Build]:
    wanted = {one: options[one] for one in _QUESTIONS if options.get(one)}
    if not all_variants:
        wanted["variant"] = options.get("variant", "default")
    return [one for one in builds if all(getattr(one, name) == value for name, value in wanted.items())]


def _table(builds: Sequence[Build]) -> str:
    rows = [_COLUMNS.format(*row[:5]) for row in builds]
    return (
        "\n".join(["---", _COLUMNS.format("DIST", "RELEASE", "ARCH", "VARIANT", "BUILD"), "---", *rows, "---"]) + "\n"
    )


def _cached(job: Job, kept: Images) -> Record | None:
    """What is in the cache, if it may still be used."""
    record = kept.record()
    if record is None or "flush-cache" in job.options:
        return None
    if {"force-cache", "offline"} & job.options.keys():
        return record
    meta = _metadata(job, kept, record)
    expiry = (meta.text("expiry") or "").strip() if meta else "0"
    if expiry.isdigit() and int(expiry) < time.time():
        job.progress.message("the cached image has expired")
        return None
    return record


def _fetched(job: Job, server: Server, kept: Images, options: Mapping[str, str]) -> Record:
    """The server's newest build, fetched if it is not the cached one. Raises BootstrapError."""
    names = " ".join(options[one] for one in (*_QUESTIONS, "variant"))
    if "offline" in options:
        raise BootstrapError(
            f"--offline fetches nothing, and the image {names} of {server.url} is not in the cache",
            hint="make the same once without --offline",
        )
    builds = _fitting(server.builds(), options)
    if not builds:
        raise BootstrapError(
            f"{server.url} has no image {names}", hint="lxcpy-create -t download -n NAME -- --list shows what there is"
        )
    build = builds[0]
    record = kept.record()
    if record is not None and record.build == build.build and "flush-cache" not in options:
        return record
    files = server.files(build)
    tree = next((name for name in _TREES if name in files), "")
    if not tree:
        raise BootstrapError(f"{server.url}/{build.path} holds no root filesystem, only {', '.join(sorted(files))}")
    told = [expected.size for name in (tree, _META) if (expected := files.get(name, ("", None))[1])]
    total = sum(told) if told and min(told) >= 0 else 0
    job.progress.start("download", total=total, unit="bytes")
    found = {name: _file(job, server, kept, *files[name]) for name in (_META, tree) if name in files}
    job.progress.finish("download")
    record = Record(build.build, found)
    kept.keep(record)
    return record


def _file(job: Job, server: Server, kept: Images, path: str, expected: Expected | None) -> Expected:
    """Fetch one file and see that something vouches for it. Raises BootstrapError."""
    if expected is not None and not server.validate:
        expected = None
    try:
        found = kept.fetch(server.mirrors, path, expected, lambda read: job.progress.advance("download", read))
        if expected is None and server.signed:
            file = kept.open(found)
            try:
                server.vouched(path, os.pread(file, found.size, 0))
            finally:
                os.close(file)
        return found
    except Missing as error:
        raise BootstrapError(str(error), hint="the server's index is ahead of its files: try again later") from error


def _metadata(job: Job, kept: Images, record: Record) -> image.Metadata | None:
    if _META not in record.files:
        return None
    file = kept.open(record.files[_META])
    try:
        return image.metadata(job, file, _META, compat=_COMPAT)
    finally:
        os.close(file)


def _tree(job: Job, store: Store, kept: Images, record: Record, meta: image.Metadata | None, kind: str) -> None:
    """Unpack the image's tree, or copy the one that was unpacked before."""
    name = next(name for name in _TREES if name in record.files)
    excludes = meta.lines("excludes") if meta else []
    key = hashlib.sha256("\n".join([record.files[name].sha256, str(job.trees.mapped), *excludes]).encode()).hexdigest()

    def make(tree: str) -> None:
        file = kept.open(record.files[name])
        try:
            image.unpack(job, file, tree, name=name, excludes=excludes)
        finally:
            os.close(file)

    anew = "flush-cache" in job.options
    RootfsCache(store, job.trees).fill(kind, key[:16], job.tree, make, job.progress, anew=anew)
