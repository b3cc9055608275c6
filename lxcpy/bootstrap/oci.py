"""A system out of an OCI image: its layers make the tree, its config becomes the container's.

Layouts and their archives are read here. Other places, registries first of all, are skopeo's: it copies the image into
a layout, so that everything after that is the same.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from lxcpy import paths
from lxcpy.bootstrap import image, machine, untar
from lxcpy.bootstrap.cache import Store
from lxcpy.bootstrap.job import Job
from lxcpy.bootstrap.ocilayout import Image, Layout
from lxcpy.bootstrap.rootfscache import RootfsCache
from lxcpy.errors import BootstrapError, UsageError
from lxcpy.kernel.fd import read_in_root

_DHCP = "dhclient"  # LXC's hook
_POLICY = "/etc/containers/policy.json"
_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Go's names of architectures by Debian's: (architecture, variant)
_PLATFORMS = {
    "i386": ("386", ""), "armhf": ("arm", "v7"), "armel": ("arm", "v6"), "ppc64el": ("ppc64le", ""),
    "mips64el": ("mips64le", ""), "loong64": ("loong64", ""),
}  # fmt: skip
_DEBIAN = {platform[0]: name for name, platform in _PLATFORMS.items()}


def fill(job: Job) -> str:
    """Make the system; the lines for its config. Raises BootstrapError, UsageError."""
    url = job.options.get("url")
    if not url:
        raise UsageError(
            "template oci: which image?", hint="--url=oci:PATH:TAG, or docker://NAME where skopeo is installed"
        )
    if {"offline", "no-cache"} <= job.options.keys():
        raise UsageError("--offline takes all from the cache, and --no-cache nothing", hint="leave one of them out")
    if "dhcp" in job.options and not os.path.exists(f"{image.HOOKS}/{_DHCP}"):
        raise UsageError(f"--dhcp: there is no {image.HOOKS}/{_DHCP}", hint="it comes with LXC: install its package")
    arch = machine.debian_arch(job.options.get("arch") or machine.host_arch())
    store = Store(paths.cache_dir())
    cache = RootfsCache(store, job.trees)
    with ExitStack() as stack:
        layout, tag = stack.enter_context(_layout(job, url, arch, store, cache))
        found = layout.image(tag, _PLATFORMS.get(arch, (arch, "")))
        built = str(found.config.get("architecture") or "")
        machine.check_runs(_DEBIAN.get(built, built) if built and "arch" not in job.options else arch)
        if "no-cache" in job.options:
            _layers(job, layout, found, job.tree)
        else:
            names = [f"{one.digest} {plain}" for one, plain in found.layers]
            key = hashlib.sha256("\n".join([str(job.trees.mapped), *names]).encode()).hexdigest()[:16]
            cache.fill("oci", key, job.tree, lambda tree: _layers(job, layout, found, tree), job.progress)
    return _lines(job, found.config)


# -- where it is ---------------------------------------------------------------------------------------------------


@contextmanager
def _layout(job: Job, url: str, arch: str, store: Store, cache: RootfsCache) -> Iterator[tuple[Layout, str]]:
    """The layout that a URL means, and the tag in it. Raises BootstrapError, UsageError."""
    transport, _, rest = url.partition(":")
    if os.path.exists(url) or url.startswith(("/", "./", "../")):
        path, tag = _split(url)
    elif transport in ("oci", "oci-archive"):
        path, tag = _split(rest)
    else:
        with cache.workplace(f"{job.name}.oci") as work:
            shared = None if "no-cache" in job.options else f"{store.directory}/oci"
            if "offline" in job.options:
                _known(store, url, arch, work)
            else:
                _skopeo(job, url, arch, work, shared)
                if shared:
                    _remember(store, url, arch, work)
            yield Layout(work, shared), "lxcpy"
        return
    if os.path.isdir(path):
        yield Layout(path), tag
        return
    with cache.workplace(f"{job.name}.oci") as work:
        file = image.open_file(path, "the image")
        try:
            untar.unpack(file, work, untar.Rules(devices=False), name=path)
        finally:
            os.close(file)
        yield Layout(work), tag


def _split(text: str) -> tuple[str, str]:
    """(path, tag or digest) of `PATH`, `PATH:TAG` or `PATH@DIGEST`."""
    if os.path.exists(text):
        return text, ""
    path, sign, digest = text.partition("@")
    if sign and os.path.exists(path):
        return path, digest
    path, _, tag = text.partition(":")
    return path, tag


def _place(url: str, arch: str) -> str:
    return f"images/{hashlib.sha256(f'oci:{arch}:{url}'.encode(errors='surrogateescape')).hexdigest()}"


def _remember(store: Store, url: str, arch: str, work: str) -> None:
    """Keep which image a URL meant, for --offline; its blobs are in the cache. Raises BootstrapError."""
    os.makedirs(f"{store.directory}/images", 0o755, exist_ok=True)
    with open(f"{work}/index.json", encoding="utf-8") as file:
        record = {"name": f"{url} {arch}", "build": "", "files": {}, "index": file.read()}
    store.write(_place(url, arch), json.dumps(record).encode())


def _known(store: Store, url: str, arch: str, work: str) -> None:
    """Make the layout `work` of what is in the cache; blobs are checked as those of any. Raises BootstrapError."""
    try:
        index = json.loads(store.read_small(_place(url, arch)) or b"{}")["index"]
        for name, text in (("index.json", index), ("oci-layout", '{"imageLayoutVersion": "1.0.0"}')):
            with open(f"{work}/{name}", "w", encoding="utf-8") as file:
                file.write(text)
    except (ValueError, KeyError, TypeError) as error:
        raise BootstrapError(
            f'--offline fetches nothing, and "{url}" for {arch} is not in the cache',
            hint="make the same once without --offline",
        ) from error


def _skopeo(job: Job, url: str, arch: str, work: str, shared: str | None) -> None:
    """Let skopeo copy an image into the layout `work`. Raises BootstrapError, UsageError."""
    program = shutil.which("skopeo")
    transport = url.partition(":")[0]
    if program is None:
        raise BootstrapError(
            f'"{url}" has to be fetched by skopeo, which is not installed',
            hint="install skopeo, or bring the image as a layout or archive: oci:PATH:TAG, oci-archive:FILE:TAG",
        )
    go, variant = _PLATFORMS.get(arch, (arch, ""))
    argv = [program, "--override-os", "linux", "--override-arch", go]
    argv += ["--override-variant", variant] if variant else []
    if not os.path.exists(_POLICY):
        argv.append("--insecure-policy")  # there is none; blobs are checked by their digests in any case
    argv += ["copy", "--remove-signatures"]
    if shared:
        os.makedirs(shared, 0o755, exist_ok=True)
        argv += ["--dest-shared-blob-dir", shared]
    with ExitStack() as stack:
        if "username" in job.options:
            argv += ["--src-authfile", _credentials(job, url, f"{work}.auth")]
            stack.callback(os.unlink, f"{work}.auth")
        elif "password" in job.options:
            raise UsageError("--password: whose?", hint="--username=NAME says")
        elif "authfile" in job.options:
            argv += ["--src-authfile", job.options["authfile"]]
        job.progress.start("fetch")
        done = subprocess.run(
            [*argv, url, f"oci:{work}:lxcpy"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
        )
        job.progress.finish("fetch")
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        words = re.sub(r'^time="[^"]*" level=\w+ msg=', "", said[-1])
        hint = None if "://" in url or transport in ("dir", "docker-archive") else "a layout is oci:PATH:TAG"
        raise BootstrapError(f'skopeo cannot fetch "{url}": {words}', hint=hint)


def _credentials(job: Job, url: str, path: str) -> str:
    """A file that tells skopeo the name and password: command lines are seen by everybody. Raises UsageError."""
    import base64

    password = job.options.get("password") or os.environ.get("LXCPY_OCI_PASSWORD", "")
    host = url.partition("://")[2].partition("/")[0]
    if not ("." in host or ":" in host or host == "localhost") or "/" not in url.partition("://")[2]:
        host = "docker.io"
    both = base64.b64encode(f"{job.options['username']}:{password}".encode()).decode()
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(file, "w") as stream:
        json.dump({"auths": {host: {"auth": both}}}, stream)
    return path


# -- what is in it -------------------------------------------------------------------------------------------------


def _layers(job: Job, layout: Layout, found: Image, tree: str) -> None:
    """Lay one layer over the other. Raises BootstrapError."""
    job.progress.start("unpack", total=sum(one.size for one, _ in found.layers), unit="bytes")
    left_out = 0
    for one, plain in found.layers:
        rules = untar.Rules(devices=not job.trees.mapped, layer=True, digest=plain)
        file = layout.open(one)
        try:
            result = untar.unpack(
                file, tree, rules, name=one.digest, advance=lambda read: job.progress.advance("unpack", read)
            )
        finally:
            os.close(file)
        left_out += result.left_out
    job.progress.finish("unpack")
    if left_out and not job.trees.mapped:
        job.progress.warning(f"{left_out} device nodes of the image that no container may use were left out")


def _lines(job: Job, config: dict[str, Any]) -> str:
    """Lay the template's files over the tree; the lines for the config. Raises BootstrapError."""
    try:
        settings = config.get("config") or {}
        words = [*(settings.get("Entrypoint") or []), *(settings.get("Cmd") or [])] or ["/bin/sh"]
        environment = list(settings.get("Env") or [])
        cwd, stop = str(settings.get("WorkingDir") or "/"), str(settings.get("StopSignal") or "SIGTERM")
        user = str(settings.get("User") or "")
        texts = [*words, *environment, cwd, stop, user]
        if not all(isinstance(one, str) for one in texts):
            raise TypeError("no text")
    except (TypeError, AttributeError) as error:
        raise BootstrapError("the image's config makes no sense") from error
    if any("\n" in one or "\r" in one or "\0" in one for one in (cwd, stop, user)):
        raise BootstrapError("the image's config holds a line break where none can be")
    if any("\n" in one or "\0" in one for one in words):
        job.progress.warning("the image's command has line breaks, which no config can hold: /bin/sh takes its place")
        words = ["/bin/sh"]
    for one in [one for one in environment if "\n" in one or "\0" in one or "=" not in one]:
        job.progress.warning(f"the image's variable {one.partition('=')[0]} has line breaks, it is left out")
        environment.remove(one)
    if not any(one.startswith("PATH=") for one in environment):
        environment.append(_PATH)
    with job.renderer({}) as renderer:
        uid, gid, groups = identity(renderer.root, user)
        renderer.values.update(
            command=command(words), environment=environment, cwd=cwd, uid=uid, gid=gid, groups=groups,
            stop=stop if re.fullmatch(r"[A-Z0-9+-]+", stop) else "SIGTERM", dhcp="dhcp" in job.options,
            hook=f"{image.HOOKS}/{_DHCP}",
        )  # fmt: skip
        renderer.lay()
        return renderer.text("config.j2")


def command(words: list[str]) -> str:
    """A command line for a config, each word quoted as LXC reads it; both quotes in a word only lxcpy can read."""

    def quoted(word: str) -> str:
        if "'" not in word:
            return f"'{word}'"
        return f'"{word}"' if '"' not in word and "\\" not in word else shlex.quote(word)

    # The config takes away one pair of quotes around the whole value.
    return '"' + " ".join(map(quoted, words)) + '"'


def identity(root: int, user: str) -> tuple[int, int, list[int]]:
    """(uid, gid, further gids) of an image's `USER[:GROUP]`; its own tables know names. Raises BootstrapError."""
    name, _, group = user.partition(":")
    people = [row for row in _table(root, "etc/passwd", 4) if row[2].isdigit() and row[3].isdigit()]
    groups = [row for row in _table(root, "etc/group", 3) if row[2].isdigit()]
    person = next((row for row in people if name in ((row[2],) if name.isdigit() else (row[0],))), None)
    if name and not name.isdigit() and person is None:
        raise BootstrapError(f'the image wants to run as "{name}", whom its /etc/passwd does not know')
    uid = int(person[2]) if person else int(name or 0)
    if not group:
        gid = int(person[3]) if person else 0
        further = [int(row[2]) for row in groups if person and len(row) > 3 and person[0] in row[3].split(",")]
        return _checked(uid), _checked(gid), sorted({_checked(one) for one in further} - {gid})
    if group.isdigit():
        return _checked(uid), _checked(int(group)), []
    row = next((row for row in groups if row[0] == group), None)
    if row is None:
        raise BootstrapError(f'the image wants to run as the group "{group}", which its /etc/group does not know')
    return _checked(uid), _checked(int(row[2])), []


def _checked(number: int) -> int:
    if number > 0xFFFFFFFE:
        raise BootstrapError(f"the image wants to run with the id {number}, which is too large")
    return number


def _table(root: int, path: str, least: int) -> list[list[str]]:
    try:
        lines = read_in_root(root, path, 1 << 20).decode(errors="replace").splitlines()
    except OSError:
        return []
    return [row for line in lines if len(row := line.split(":")) >= least]
