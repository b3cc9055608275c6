"""Templates: a folder each, with a `template.ini` and a tree of Jinja2 files laid over the root filesystem.

`files/etc/hostname.j2` becomes /etc/hostname. A distribution more is a folder more. jinja2 is imported here alone.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lxcpy import paths
from lxcpy.errors import BootstrapError, UsageError, meaning
from lxcpy.kernel.fd import make_dirs_in_root, write_in_root


class Template(NamedTuple):
    """One folder. settings: its ini."""

    name: str
    path: str
    settings: Mapping[str, str]

    def words(self, key: str) -> list[str]:
        """A setting as its words; none where it is not set."""
        return self.settings.get(key, "").split()


class Setting(NamedTuple):
    """An option of a template's command line: long name, letters, what its value is called (None: a switch), help."""

    long: str
    short: str
    value: str | None
    help: str


DEB = (
    Setting("release", "r", "RELEASE", "the release, by suite or code name"),
    Setting("arch", "a", "ARCH", "Debian's name of the architecture (default: the host's)"),
    Setting("mirror", "", "URL", "the mirror (default: MIRROR, else the host's own, else the distribution's)"),
    Setting("security-mirror", "", "URL", "the mirror of security updates (default: SECURITY_MIRROR, else as above)"),
    Setting("packages", "", "A,B", "further packages"),
    Setting("variant", "", "minbase", "minbase: the required packages and apt alone"),
    Setting("keyring", "", "FILE", "the keyring that must have signed the release"),
    Setting("no-check-gpg", "", None, "take an unsigned or badly signed release"),
    Setting("enable-non-free", "", None, "the components outside main too"),
    Setting("auth-key", "S", "FILE", "a public key for root's authorized_keys"),
    Setting("flush-cache", "F", None, "make the cached root filesystem anew"),
    Setting("no-cache", "", None, "neither read nor write a cache"),
)
BUSYBOX = (Setting("busybox-path", "", "FILE", "a static busybox (default: the one in PATH)"),)
ENGINES = {"deb": DEB, "busybox": BUSYBOX}


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
    return Template(name, path, dict(found))


def parse(template: Template, words: Sequence[str]) -> dict[str, str]:
    """The template's options out of the words after `--`: long name → value, "1" for a switch. Raises UsageError."""
    import getopt

    table = ENGINES[template.settings["engine"]]
    letters = "".join(f"{one.short}:" if one.value else one.short for one in table if one.short)
    longs = [f"{one.long}=" if one.value else one.long for one in table]
    hint = f"lxcpy-create -t {template.name} -h lists its options"
    try:
        found, rest = getopt.gnu_getopt(list(words), letters, longs)
    except getopt.GetoptError as error:
        raise UsageError(f"template {template.name}: {error}", hint=hint) from error
    if rest:
        raise UsageError(f'template {template.name}: "{rest[0]}" is no option', hint=hint)
    by_letter = {f"-{one.short}": one.long for one in table if one.short}
    return {by_letter.get(option, option.lstrip("-")): value or "1" for option, value in found}


def help_text(template: Template) -> str:
    """The template's options, for `lxcpy-create -t NAME -h`."""
    lines = [f"Options of the template {template.name} ({template.settings.get('summary', '')}), after --:", ""]
    for one in ENGINES[template.settings["engine"]]:
        left = f"-{one.short}, " if one.short else "    "
        left += f"--{one.long}" + (f"={one.value}" if one.value else "")
        lines.append(f"  {left:<28} {one.help}")
    return "\n".join(lines) + "\n"


def overlay(template: Template, root: int, values: Mapping[str, object]) -> None:
    """Render the template's files over the root filesystem `root` (a directory's descriptor). Raises BootstrapError."""
    import jinja2

    base = os.path.join(template.path, "files")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(base), undefined=jinja2.StrictUndefined, trim_blocks=True,
        keep_trailing_newline=True, autoescape=False,
    )  # fmt: skip
    for directory, _folders, files in os.walk(base):
        for file in sorted(files):
            inside = os.path.relpath(os.path.join(directory, file), base)
            try:
                text = environment.get_template(inside).render(values)
                make_dirs_in_root(root, os.path.dirname(inside)).close()
                write_in_root(root, inside.removesuffix(".j2"), text.encode())
            except (jinja2.TemplateError, OSError) as error:
                words = meaning(error) if isinstance(error, OSError) else str(error)
                raise BootstrapError(f"template {template.name}: cannot write /{inside}: {words}") from error
