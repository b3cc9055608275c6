"""The pages on configuration: the key table and the prose in man/keys/FAMILY.md, one paragraph or more a key."""

from __future__ import annotations

import os
from types import ModuleType

from lxcpy import paths
from lxcpy.config import schema
from lxcpy.config.keys.row import CGROUP, FOLD, GROUP, INCLUDE, LIST, MAP, ONE, REMOVED, WORDS, Row
from lxcpy.config.settings import default, joined
from lxcpy.config.system import SYSTEM_KEYS
from lxcpy.docgen import roff

TITLES = {
    "identity": "identity", "init": "init", "rootfs": "root filesystem", "net": "network", "cgroup": "control groups",
    "security": "security", "terminal": "console and ttys", "hooks": "hooks", "own": "dependencies and restarts",
}  # fmt: skip
CONTAINER, SYSTEM, RENAMES = "lxcpy.container.conf", "lxcpy.system.conf", "lxcpy-renames"


def pages() -> dict[str, str]:
    """Path below man/ to the text of the page."""
    return {
        f"man5/{CONTAINER}.5": container_page(),
        f"man5/{SYSTEM}.5": system_page(),
        f"man7/{RENAMES}.7": renames_page(),
    }


def fragments(name: str) -> list[tuple[str, str]]:
    """(heading, prose) of man/keys/NAME.md; the introduction has the heading ""."""
    with open(os.path.join(paths.data_dir("man"), "keys", f"{name}.md"), encoding="utf-8") as file:
        return roff.sections(file.read())


def container_page() -> str:
    """The page lxcpy.container.conf(5)."""
    (_, description), *further = fragments("page")
    lines = roff.header(CONTAINER, 5, "the configuration of a container")
    lines += [roff.section("description"), *roff.markdown(description)]
    before = [part for part in further if part[0] != "example"]
    for heading, prose in before:
        lines += [roff.section(heading), *roff.markdown(prose)]
    for family in schema.FAMILIES:
        lines += _family(family)
    for heading, prose in further[len(before) :]:
        lines += [roff.section(heading), *roff.markdown(prose)]
    return roff.finish([*lines, *_see_also("lxcpy(1)", "lxcpy-config(1)", f"{SYSTEM}(5)", f"{RENAMES}(7)")])


def _family(family: ModuleType) -> list[str]:
    name = family.__name__.rpartition(".")[2]
    (_, introduction), *entries = fragments(name)
    prose = dict(entries)
    lines = [roff.section(TITLES[name]), *roff.markdown(introduction)]
    for row in family.ROWS:
        if row.shape is not REMOVED:
            body = [*_body(prose[row.name]), ".IP", *(roff.line(fact) for fact in facts(row))]
            lines += roff.definition(f"\\fB{roff.escape(row.name)}\\fR", body)
    return lines


def _body(text: str) -> list[str]:
    """Prose inside a tagged paragraph: paragraphs and lists keep its indentation."""
    lines: list[str] = []
    listed = False
    for row in roff.markdown(text):
        item = row.startswith(".IP")
        if item and not listed:
            lines.append(".RS")
        elif listed and row == ".PP":
            lines.append(".RE")
        listed = item or (listed and row != ".PP")
        lines.append(".IP" if row == ".PP" else row)
    return [*(lines[1:] if lines[:1] == [".IP"] else lines), *([".RE"] if listed else [])]


def facts(row: Row) -> list[str]:
    """What the table says of a key: its values, its default, its names and its age."""
    said = []
    if row.shape not in (GROUP, INCLUDE):
        said.append(f"Value: {row.value.grammar}.")
    kind = {LIST: "Lines add up.", WORDS: "Lines add up.", CGROUP: "Lines of one sub-key add up.",
            FOLD: "Lines are merged."}.get(row.shape)  # fmt: skip
    if kind:
        said.append(kind)
    if row.shape is ONE and _default(row):
        said.append(f"Default: {_default(row)}.")
    if row.sub is not None and row.shape is MAP:
        said.append(f"Sub-key: {row.sub.grammar}.")
    if row.needs:
        said.append(f"Only for type {row.needs}.")
    if row.ours:
        return [*said, "LXC ignores it."]
    age = f"Since LXC {row.since}"
    said.append(f"{age}, before that {' and '.join(row.old)}." if row.old else f"{age}.")
    return said


def _default(row: Row) -> str:
    value = default(row)
    if value is None:
        return "" if row.unset in ("NOTSET", "0") and row.value.grammar.startswith(("SIG", "TRACE")) else row.unset
    return joined(row, value) if isinstance(value, list) else row.value.format(value)


def system_page() -> str:
    """The page lxcpy.system.conf(5)."""
    (_, introduction), *entries = fragments("system")
    prose = dict(entries)
    lines = roff.header(SYSTEM, 5, "the settings of the machine")
    lines += [roff.section("description"), *roff.markdown(introduction), roff.section("keys")]
    for key in SYSTEM_KEYS:
        default_text = f"Default: {key.default}" if key.default else "Not set by default"
        if key.user_default not in (None, key.default):
            default_text += f", for an ordinary user {key.user_default}"
        body = [*_body(prose[key.name]), ".IP", roff.line(f"{default_text}.")]
        lines += roff.definition(f"\\fB{roff.escape(key.name)}\\fR", body)
    return roff.finish([*lines, *_see_also("lxcpy-config(1)", "lxcpy-create(1)", f"{CONTAINER}(5)")])


def renames_page() -> str:
    """The page lxcpy-renames(7): old names and new ones."""
    (_, introduction), *further = fragments("renames")
    lines = roff.header(RENAMES, 7, "keys of LXC before 2.1 and what they are called now")
    lines += [roff.section("description"), *roff.markdown(introduction), roff.section("names")]
    lines += [".TS", "l l.", "\\fBold\\fR\t\\fBnew\\fR"]
    for row in schema.ROWS:
        for old in row.old:
            if "[i]." in old:  # the form without a number is the one that files have
                old = old.replace("[i].", "")
            lines.append(f"{roff.escape(old)}\t{roff.escape(row.name)}")
    lines += [".TE", roff.section("removed")]
    lines.append("These are accepted with a warning. Only lxc.rootfs.backend still has an effect.")
    for row in schema.ROWS:
        if row.shape is REMOVED:
            lines += roff.definition(f"\\fB{roff.escape(row.name)}\\fR", [roff.line(row.summary)])
    for heading, prose in further:
        lines += [roff.section(heading), *roff.markdown(prose)]
    text = roff.finish([*lines, *_see_also("lxcpy-update-config(1)", f"{CONTAINER}(5)")])
    return f"'\\\" t\n{text}"  # man(1) runs tbl for the table


def _see_also(*names: str) -> list[str]:
    pages = []
    for name in names:
        title, _, section = name.rpartition("(")
        pages.append(f"\\fB{roff.escape(title)}\\fR({section}")
    return [roff.section("see also"), ", ".join(pages)]
