"""Templates: a folder each. A distribution more is a folder more, no code.

    template.ini        settings, read by ConfigObj; `inherits = NAME`: what is not here is taken from that template
    files/              Jinja2 files laid over the root filesystem: files/etc/hostname.j2 becomes /etc/hostname;
                        one that renders to nothing is not written
    links.j2            lines `PATH -> TARGET`: links made in the root filesystem
    base.sh.j2          a shell script run once inside the cached root filesystem
    container.sh.j2     a shell script run inside each container's own
    config.j2           the lines appended to the container's config

jinja2 and configobj are imported here, by the functions that need them.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from lxcpy import paths
from lxcpy.bootstrap.options import ALPINE, BUSYBOX, DOWNLOAD, LOCAL, OCI, REFUSED, REST, Setting
from lxcpy.errors import BootstrapError, UsageError, meaning
from lxcpy.kernel.fd import exists_in_root, make_dirs_in_root, unlink_in_root, write_in_root


class Template(NamedTuple):
    """One folder. settings: its ini, over those of the templates that it inherits from, whose folders parents are."""

    name: str
    path: str
    settings: Mapping[str, str]
    parents: tuple[str, ...] = ()

    def words(self, key: str) -> list[str]:
        """A setting as its words; none where it is not set."""
        return self.settings.get(key, "").split()

    def pairs(self, key: str) -> dict[str, str]:
        """A setting of words `a=b` as a table."""
        return {word.partition("=")[0]: word.partition("=")[2] for word in self.words(key)}

    @property
    def folders(self) -> tuple[str, ...]:
        """Where its files are looked for, the first one wins."""
        return (self.path, *self.parents)

    def file(self, name: str) -> str | None:
        """The path of a file of the template; None where it has none of that name."""
        paths = (os.path.join(folder, name) for folder in self.folders)
        return next((path for path in paths if os.path.isfile(path)), None)

    def below(self, name: str) -> list[str]:
        """Every file below a folder of the template, relative to it, sorted."""
        found: set[str] = set()
        for folder in self.folders:
            base = os.path.join(folder, name)
            for directory, _, files in os.walk(base):
                found.update(os.path.relpath(os.path.join(directory, file), base) for file in files)
        return sorted(found)


DEB = (
    Setting("release", "r", "RELEASE", "the release, by suite or code name"),
    Setting("arch", "a", "ARCH", "Debian's name of the architecture (default: the host's)"),
    Setting("foreign", "", None, "stop when all is unpacked; /lxcpy-second-stage in the system finishes it elsewhere"),
    Setting("interpreter-path", "I", "FILE", "the static qemu to put into a system of another architecture"),
    Setting("variant", "v", "VARIANT", "the set of packages (default: LXC's own); one of the template's variants"),
    Setting("packages", "", "A,B", "further packages"),
    Setting("mirror", "", "URL", "the mirror, or several (default: MIRROR, else the host's, else a public one)"),
    Setting("ca", "", "FILE", "the certificate of a private authority that vouches for https mirrors"),
    Setting("keyring", "", "FILE", "whose keys must have signed the release (default: KEYRING, else the host's)"),
    Setting("no-check-gpg", "", None, "take an unsigned or badly signed release"),
    Setting("no-check-valid-until", "", None, "take a release that is out of date, as snapshot mirrors give it"),
    Setting("enable-non-free", "", None, "the components outside main too"),
    Setting("auth-key", "S", "FILE", "an SSH public key for the authorized_keys of root, or of the template's user"),
    Setting("password", "", "PASSWORD", 'the password of whom that key is for, "-" for a random one (default: none)'),
    Setting("locale", "", "LOCALE", "the language (default: LANG, else en_US.UTF-8)"),
    Setting("timezone", "", "ZONE", "the time zone (default: the host's)"),
    Setting("flush-cache", "F", None, "make the cached root filesystem anew"),
    Setting("clean", "c", None, "remove the template's cached root filesystems afterwards"),
    Setting("no-cache", "", None, "neither read nor write a cache"),
    Setting("offline", "", None, "take all from the cache, fetch nothing"),
    Setting("lock", "", "FILE", "make a system that can be made again, and write to FILE what went in"),
    Setting("from-lock", "", "FILE", "make the system again that FILE is of"),
    Setting("snapshot", "", "URL", "where packages are that the mirror no longer has, or several; with a lock"),
    Setting("debug", "d", None, "trace the template's scripts, and keep the log"),
)
# Those that not every template has: its ini names them in `options`.
SOME = (
    Setting("security-mirror", "", "URL", "of security updates, or none (default: SECURITY_MIRROR, else as above)"),
    Setting("user", "u", "NAME", "the first user, who may sudo (default: the template's)"),
    Setting("bindhome", "b", "NAME", "a user of the host as first user, with the home directory from the host"),
)
# What lxc-create passes to every template; here the caller tells these by other ways.
CONTRACT = (
    Setting("help", "h", None, "print this help"),
    Setting("name", "n", "NAME", ""),
    Setting("path", "p", "PATH", ""),
    Setting("rootfs", "", "PATH", ""),
    Setting("mapped-uid", "", "ID", ""),
    Setting("mapped-gid", "", "ID", ""),
)
ENGINES = {"deb": DEB, "busybox": BUSYBOX, "local": LOCAL, "download": DOWNLOAD, "oci": OCI, "alpine": ALPINE}


def folder() -> str:
    """Where the templates are."""
    return paths.data_dir("templates")


def names() -> list[str]:
    """Every template there is, sorted."""
    try:
        return sorted(name for name in os.listdir(folder()) if os.path.isfile(f"{folder()}/{name}/template.ini"))
    except FileNotFoundError:
        return []


def find(name: str) -> Template:
    """The template of that name. Raises UsageError with the nearest one."""
    path = os.path.join(folder(), name)
    if "/" in name or not os.path.isfile(f"{path}/template.ini"):
        import difflib

        known = names()
        near = difflib.get_close_matches(name, known, 1)
        hint = f'did you mean "{near[0]}"?' if near else f"there are {', '.join(known)}, and the path of any script"
        raise UsageError(f'there is no template "{name}"', hint=hint)
    from configobj import ConfigObj

    found = ConfigObj(f"{path}/template.ini", list_values=False, interpolation=False, file_error=True, encoding="utf-8")
    if "inherits" not in found:
        return Template(name, path, dict(found))
    parent = find(found.pop("inherits"))
    return Template(name, path, {**parent.settings, **found}, parent.folders)


def options(template: Template) -> tuple[Setting, ...]:
    """The options that the template knows, in the order of its help."""
    some = template.words("options")
    return ENGINES[template.settings["engine"]] + tuple(one for one in SOME if one.long in some)


def parse(template: Template, words: Sequence[str]) -> dict[str, str]:
    """The template's options out of the words after `--`: long name → value, "1" for a switch. Raises UsageError."""
    import getopt

    table = options(template) + REFUSED.get(template.settings["engine"], ()) + CONTRACT
    letters = "".join(f"{one.short}:" if one.value else one.short for one in table if one.short)
    longs = [f"{one.long}=" if one.value else one.long for one in table]
    hint = f"lxcpy-create -t {template.name} -h lists its options"
    try:
        found, rest = getopt.gnu_getopt(list(words), letters, longs)
    except getopt.GetoptError as error:
        raise UsageError(f"template {template.name}: {error}", hint=hint) from error
    by_letter = {f"-{one.short}": one.long for one in table if one.short}
    parsed = {by_letter.get(option, option.lstrip("-")): value or "1" for option, value in found}
    if rest and (takes := REST.get(template.settings["engine"])):
        parsed[takes] = " ".join([parsed.get(takes, ""), *rest]).strip()
    elif rest:
        raise UsageError(f'template {template.name}: "{rest[0]}" is no option', hint=hint)
    return parsed


def help_text(template: Template) -> str:
    """The template's options, for `lxcpy-create -t NAME -h`."""
    lines = [f"Options of the template {template.name} ({template.settings.get('summary', '')}), after --:", ""]
    for one in options(template):
        left = f"-{one.short}, " if one.short else "    "
        left += f"--{one.long}" + (f"={one.value}" if one.value else "")
        lines.append(f"  {left:<28} {one.help}")
    titles = {"release": "Default release", "suites": "Releases", "aliases": "Other names", "variants": "Variants"}
    for key, title in titles.items():
        if template.settings.get(key):
            lines += [""] * (lines[-1][:1] == " ") + [f"{title}: {' '.join(template.words(key))}"]
    return "\n".join(lines) + "\n"


class Renderer:
    """A template's Jinja2 files with one set of values; `quote` in them makes a word safe for the shell.

    root: the root filesystem's descriptor; `exists(PATH)` in the files asks it.
    """

    def __init__(self, template: Template, root: int, values: Mapping[str, object]) -> None:
        import jinja2

        self.template = template
        self.root = root
        self.failures: tuple[type[Exception], ...] = (jinja2.TemplateError,)
        self.environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(template.folders), undefined=jinja2.StrictUndefined, trim_blocks=True,
            lstrip_blocks=True, keep_trailing_newline=True, autoescape=False,
        )  # fmt: skip
        self.environment.filters["quote"] = lambda text: shlex.quote(str(text))
        self.values = {**values, "exists": self.exists}

    def exists(self, path: str) -> bool:
        return exists_in_root(self.root, path.lstrip("/"))

    def text(self, name: str) -> str:
        """One file of the folder, rendered; nothing where there is none. Raises BootstrapError."""
        if self.template.file(name) is None:
            return ""
        try:
            return self.environment.get_template(name).render(self.values)
        except self.failures as error:
            raise BootstrapError(f"template {self.template.name}: cannot render {name}: {error}") from error

    def lay(self) -> None:
        """Write files and links into the root filesystem. Raises BootstrapError."""
        modes = self.template.pairs("modes")
        for inside in self.template.below("files"):
            text = self.text(f"files/{inside}")
            if text.strip():
                executable = os.access(self.template.file(f"files/{inside}") or "", os.X_OK)
                self._guarded(inside.removesuffix(".j2"), self._file, text, modes, 0o755 if executable else 0o644)
        for line in self.text("links.j2").splitlines():
            path, arrow, to = line.strip().partition(" -> ")
            if arrow:
                self._guarded(path.strip("/"), self._link, to)

    def _guarded(self, path: str, make: Callable[..., None], *words: Any) -> None:
        try:
            make(path, *words)
        except OSError as error:
            raise BootstrapError(f"template {self.template.name}: cannot write /{path}: {meaning(error)}") from error

    def _file(self, path: str, text: str, modes: Mapping[str, str], mode: int) -> None:
        parent = os.path.dirname(path)
        make_dirs_in_root(self.root, parent, int(modes.get(parent, "755"), 8)).close()
        write_in_root(self.root, path, text.encode(), int(modes.get(path, f"{mode:o}"), 8))

    def _link(self, path: str, to: str) -> None:
        with make_dirs_in_root(self.root, os.path.dirname(path)) as parent:
            if exists_in_root(self.root, path):
                unlink_in_root(self.root, path)
            os.symlink(to, os.path.basename(path), dir_fd=parent.number)


def overlay(template: Template, root: int, values: Mapping[str, object]) -> None:
    """Render the template's files over the root filesystem `root` (a directory's descriptor). Raises BootstrapError."""
    Renderer(template, root, values).lay()
