"""The page on templates: their settings, the table of their options, and the prose in man/templates.md."""

from __future__ import annotations

import os

from lxcpy import paths
from lxcpy.bootstrap import template as templates
from lxcpy.docgen import roff

PAGE = "lxcpy-templates"


def pages() -> dict[str, str]:
    """Path below man/ to the text of the page."""
    return {f"man7/{PAGE}.7": page()}


def fragments() -> list[tuple[str, str]]:
    """(heading, prose) of man/templates.md; the introduction has the heading "", a template's its name."""
    with open(os.path.join(paths.data_dir("man"), "templates.md"), encoding="utf-8") as file:
        return roff.sections(file.read())


def page() -> str:
    """The page lxcpy-templates(7)."""
    (_, introduction), *further = fragments()
    prose = dict(further)
    lines = roff.header(PAGE, 7, "what containers can be made of")
    lines += [roff.section("description"), *roff.markdown(introduction)]
    for name in templates.names():
        lines += _template(templates.find(name), prose.pop(name, ""))
    for heading, text in prose.items():
        lines += [roff.section(heading), *roff.markdown(text)]
    see = ("lxcpy-create", 1), ("lxcpy.container.conf", 5)
    lines += [roff.section("see also"), ", ".join(f"\\fB{roff.escape(name)}\\fR({part})" for name, part in see)]
    return roff.finish(lines)


def _template(found: templates.Template, prose: str) -> list[str]:
    summary = found.settings.get("summary", "")
    lines = [roff.section(found.name), roff.line(f"{summary[:1].upper()}{summary[1:]}."), *roff.markdown(prose)]
    for one in templates.options(found):
        term = f"\\fB\\-{one.short}\\fR, " if one.short else ""
        term += f"\\fB\\-\\-{roff.escape(one.long)}\\fR" + (f"=\\fI{roff.escape(one.value)}\\fR" if one.value else "")
        lines += roff.definition(term, [roff.line(f"{one.help[:1].upper()}{one.help[1:]}.")])
    return lines
