"""What is done with an image, wherever it came from: its tree is unpacked, its metadata become the container's.

The metadata are those of LXC's images: `config`, `fstab`, `excludes`, `templates`, `create-message`, `expiry`. Of each
there may be a variant for containers with an id map (`-user`; `-system` for the others) and for a version of this
format (`.7`).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from lxcpy import paths
from lxcpy.bootstrap import squashfs, untar
from lxcpy.bootstrap.job import Job
from lxcpy.errors import BootstrapError, meaning
from lxcpy.kernel.fd import make_dirs_in_root, open_in_root, read_in_root, write_all

HOOKS = "/usr/share/lxc/hooks"
_LARGEST = 16 << 20  # bytes of metadata
_LARGEST_FILE = 1 << 20  # of the tree's that have variables in them
_NETWORK = re.compile(r"\s*lxc\.net(work)?\.")
# A hook that runs a program of the host which is not one of LXC's own.
_HOOK = re.compile(r"\s*(lxc\.hook\.(?!version)[\w-]+)\s*=\s*(?!LXC_HOOK_DIR/(?!.*\.\./))(\S.*)")
_VARIABLES = re.compile(r"LXC_(NAME|PATH|ROOTFS|TEMPLATE_CONFIG|HOOK_DIR)")


class Metadata(NamedTuple):
    """The files of an image's meta archive.

    mode: "user" or "system"; compat: the version of the format, a number."""

    files: Mapping[str, bytes]
    mode: str
    compat: int

    def text(self, name: str) -> str | None:
        """The variant of a file that applies; None where there is none."""
        for variant in (f"{name}-{self.mode}", name):
            for path in (f"{variant}.{self.compat}", variant):
                if path in self.files:
                    return self.files[path].decode(errors="surrogateescape")
        return None

    def lines(self, name: str) -> list[str]:
        return [line.strip() for line in (self.text(name) or "").splitlines() if line.strip()]


def open_file(path: str, what: str) -> int:
    """A descriptor of a regular file. Raises BootstrapError."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise BootstrapError(f'cannot read {what} "{path}": {meaning(error)}') from error
    if not stat.S_ISREG(os.fstat(file).st_mode):
        os.close(file)
        raise BootstrapError(f'cannot read {what} "{path}": it is not a regular file')
    return file


def metadata(job: Job, file: int, name: str, *, compat: int) -> Metadata:
    """The metadata in an open meta archive. Raises BootstrapError."""
    try:
        return Metadata(untar.members(file, limit=_LARGEST), "user" if job.trees.mapped else "system", compat)
    except BootstrapError as error:
        raise BootstrapError(f"{name}: {error.what}", hint=error.hint) from error


def unpack(job: Job, file: int, tree: str, *, name: str, excludes: Sequence[str] = ()) -> None:
    """Unpack an image's tree, an open archive or squashfs image, into an empty directory. Raises BootstrapError."""
    job.progress.start("unpack", total=os.fstat(file).st_size, unit="bytes")
    if squashfs.is_one(file):
        squashfs.unpack(file, tree, name=name, excludes=excludes)
        job.progress.finish("unpack")
        return
    # Where owners are shifted LXC unpacks inside a user namespace, in which nobody can make a device node.
    rules = untar.Rules(tuple(excludes), devices=not job.trees.mapped)
    result = untar.unpack(file, tree, rules, name=name, advance=lambda read: job.progress.advance("unpack", read))
    job.progress.finish("unpack")
    if result.left_out and rules.devices:
        job.progress.warning(f"{name}: {result.left_out} device nodes that no container may use were left out")


def finish(job: Job, meta: Metadata | None, *, distribution: str = "", arch: str = "", trusted: bool = True) -> None:
    """Make the tree and the config this container's own. Without metadata the template's files serve.

    trusted: whether the image's config may run programs of the host. Raises BootstrapError.
    """
    try:
        with job.renderer({}) as renderer:
            root = renderer.root
            make_dirs_in_root(root, "dev/pts").close()
            if meta is None:
                renderer.values.update(distribution=distribution or identity(root), arch=arch)
                renderer.lay()
                settings: str | None = renderer.text("config.j2")
            else:
                settings = meta.text("config")
            for path in meta.lines("templates") if meta else ():
                _rewrite(root, path, lambda text: substituted(job, text))
            # mingetty's vhangup(2) fails inside a user namespace.
            _rewrite(root, "etc/init/tty.conf", lambda text: text.replace("mingetty", "mingetty --nohangup"))
        if settings is None:
            raise BootstrapError("the image's metadata have no config", hint="its maker forgot it; take another image")
        if not trusted and (hook := next(filter(None, map(_HOOK.match, settings.splitlines())), None)):
            raise BootstrapError(
                f'the image\'s config would run "{hook[2]}" on this host, as {hook[1]}',
                hint="--no-validate takes it, if you know the image's maker and trust the way it came",
            )
        fstab = meta.text("fstab") if meta else None
        if fstab is not None:
            _write(f"{job.directory}/fstab", substituted(job, fstab))
        _configure(job, settings, fstab is not None)
    except OSError as error:
        raise BootstrapError(f"cannot make the image the container's own: {meaning(error)} ({error})") from error
    if meta is not None and (message := meta.text("create-message")):
        job.progress.message(message.rstrip("\n"))


def identity(root: int) -> str:
    """The distribution that a tree calls itself, by os-release(5); "" where it does not say."""
    for path in ("etc/os-release", "usr/lib/os-release"):
        try:
            lines = read_in_root(root, path, 1 << 16).decode(errors="replace").splitlines()
        except OSError:
            continue
        found = next((line[3:].strip("\"' ") for line in lines if line.startswith("ID=")), "")
        return found if re.fullmatch(r"[a-z0-9._-]+", found) else ""
    return ""


def substituted(job: Job, text: str) -> str:
    """The text with LXC's variables replaced."""
    values = {
        "NAME": job.name, "PATH": job.directory, "ROOTFS": job.target, "TEMPLATE_CONFIG": paths.LXC_CONFIG_DIR,
        "HOOK_DIR": HOOKS,
    }  # fmt: skip
    return _VARIABLES.sub(lambda match: values[match[1]], text)


def _configure(job: Job, settings: str, has_fstab: bool) -> None:
    """Sort the config as LXC does: the image's part first, what was there before may overrule it. Raises OSError."""
    with open(job.config_path, encoding="utf-8", errors="surrogateescape") as file:
        lines = file.read().splitlines()
    network = [line for line in lines if _NETWORK.match(line)]
    own = [line for line in lines if line not in network and line.lstrip().startswith("lxc.")]
    rest = [line for line in lines if line not in network and line not in own]
    text = rest + ["", "# Distribution configuration", settings.strip("\n"), "", "# Container specific configuration"]
    text += own + [f"lxc.mount.fstab = {job.directory}/fstab"] * has_fstab + [f"lxc.uts.name = {job.name}"]
    if network:
        text += ["", "# Network configuration", *network]
    while text and not text[0].strip():
        text.pop(0)
    _write(job.config_path, substituted(job, "\n".join(text) + "\n"))


def _write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
        file.write(text)


def _rewrite(root: int, path: str, change: Callable[[str], str]) -> None:
    """Change a regular file of the tree, if it is there; its owner and mode stay. Raises OSError."""
    try:
        old = read_in_root(root, path, _LARGEST_FILE)
        new = change(old.decode(errors="surrogateescape")).encode(errors="surrogateescape")
        if new != old:
            with open_in_root(root, path, os.O_WRONLY | os.O_NONBLOCK) as file:
                os.ftruncate(file.number, 0)
                write_all(file.number, new)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
        pass
