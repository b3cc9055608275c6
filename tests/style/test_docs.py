"""Generated pages are what the tables say, render without complaint, and links lead somewhere."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from probes import requires

from lxcpy.cli.registry import COMMANDS
from lxcpy.docgen import check, completion, essays, man, roff

ROOT = Path(__file__).parent.parent.parent
TEXTS = [path for path in [*ROOT.glob("*.md"), *(ROOT / "man").rglob("*.md")] if path.exists()]


def test_generated_pages_are_in_step() -> None:
    assert check.stale() == [], "python3 -m lxcpy.docgen writes them"


def test_every_prose_is_of_a_command() -> None:
    assert {path.stem for path in (ROOT / "man/commands").glob("*.md")} <= {"lxcpy", *COMMANDS}


@requires("mandoc")
def test_pages_render() -> None:
    pages = sorted(map(str, (ROOT / "man").glob("man[1-8]/*")))
    done = subprocess.run(
        ["mandoc", "-T", "lint", "-W", "warning", *pages], capture_output=True, text=True, check=False
    )
    # a generated page carries no date
    complaints = [line for line in done.stdout.splitlines() if "missing date" not in line]
    assert complaints == []


@requires("mandoc")
def test_a_page_shows_what_it_should() -> None:
    page = str(ROOT / "man/man1/lxcpy-stop.1")
    text = subprocess.run(["mandoc", "-T", "ascii", page], capture_output=True, text=True, check=True).stdout
    text = re.sub(".\b", "", text)
    for words in ("NAME", "SYNOPSIS", "EXIT STATUS", "SEE ALSO", "-t, --timeout=SECONDS"):
        assert words in text


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text()):
        if not re.match(r"[a-z]+:", target):
            assert (path.parent / target).exists(), f"{path.name} links to {target}"


def test_readme_names_only_commands_that_exist() -> None:
    named = set(re.findall(r"\blxcpy-([a-z-]+)", (ROOT / "README.md").read_text()))
    assert named <= {*COMMANDS, *essays.PAGES}


def test_markdown_subset() -> None:
    text = "Text with `code`, **bold** and *a word*.\n\n- one\n  more\n- two\n\n    an example\n\n## Notes\n\n.dot\n"
    (first, body), (heading, rest) = roff.sections(text)
    assert (first, heading) == ("", "Notes")
    assert roff.markdown(body) == [
        ".PP",
        "Text with \\fBcode\\fR, \\fBbold\\fR and \\fIa word\\fR.",
        ".IP \\(bu 2",
        "one more",
        ".IP \\(bu 2",
        "two",
        ".PP",
        ".nf",
        ".RS 4",
        "\\&an example",
        ".RE",
        ".fi",
    ]
    assert roff.markdown(rest) == [".PP", "\\&.dot"]


@pytest.fixture(scope="module")
def completions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("completion")
    completion.write(str(folder))
    return folder


@requires("shellcheck")
def test_bash_completion_is_sound(completions: Path) -> None:
    subprocess.run(["shellcheck", str(completions / "bash/lxcpy")], check=True)


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["lxcpy-start", "--fore"], ["--foreground"]),
        (["lxcpy-wait", "-s", "FRO"], ["FROZEN"]),
        (["lxcpy", "unfr"], ["unfreeze"]),
        (["lxcpy", "wait", "--st"], ["--state"]),
        (["lxcpy-config", "lxc.lxc"], ["lxc.lxcpath"]),
        (["lxcpy-create", "-B", "ov"], ["overlay", "overlayfs"]),
        (["lxcpy-stop", "we"], ["web"]),
        (["lxcpy-stop", "-n", "we"], ["web"]),
    ],
)
def test_bash_completes(words: list[str], offered: list[str], completions: Path, tmp_path: Path) -> None:
    """In a real bash, with lxcpy-ls standing in for the machine's containers."""
    fake = tmp_path / "lxcpy-ls"
    fake.write_text("#!/bin/sh\necho web\necho db\n")
    fake.chmod(0o755)
    command = words[0]
    script = f"""
        source {completions}/bash/{command}
        PATH={tmp_path}:$PATH COMP_WORDS=({" ".join(words)}) COMP_CWORD={len(words) - 1}
        compopt() {{ :; }}
        _lxcpy {command} {words[-1]} {words[-2]}
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == offered, done.stderr


@requires("zsh")
def test_zsh_completion_is_sound(completions: Path) -> None:
    subprocess.run(["zsh", "-n", str(completions / "zsh/_lxcpy")], check=True)


@requires("fish")
def test_fish_completion_is_sound(completions: Path) -> None:
    for path in (completions / "fish").iterdir():
        subprocess.run(["fish", "-n", str(path)], check=True)
    script = f"source {completions}/fish/lxcpy-wait.fish; complete -C 'lxcpy-wait --st'"
    done = subprocess.run(["fish", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("--state")


def test_every_command_has_a_page() -> None:
    pages = {path.name for path in (ROOT / "man/man1").iterdir()}
    assert pages == {"lxcpy.1", *(f"lxcpy-{name}.1" for name in COMMANDS)}
    assert set(COMMANDS) <= set(man._RELATED)
