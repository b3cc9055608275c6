"""Every command is in the registry, has a module of the one shape, and is installed."""

from __future__ import annotations

import configparser
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from lxcpy.cli.options import Args, Command
from lxcpy.cli.registry import COMMANDS

ROOT = Path(__file__).parent.parent.parent


def module(name: str) -> ModuleType:
    return import_module(f"lxcpy.commands.{COMMANDS[name][0]}")


def test_modules_and_registry_agree() -> None:
    files = {path.stem for path in (ROOT / "lxcpy/commands").glob("*.py")} - {"__init__"}
    assert files == {file for file, _ in COMMANDS.values()}
    assert list(COMMANDS) == sorted(COMMANDS)


def test_console_scripts_are_the_registry() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    lines = setup["options.entry_points"]["console_scripts"].split("\n")
    found = dict(line.split(" = ") for line in lines if line)
    assert found == dict.fromkeys(["lxcpy", *(f"lxcpy-{name}" for name in COMMANDS)], "lxcpy.cli.main:main")


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_module_has_the_one_shape(name: str) -> None:
    found = module(name)
    command: Command = found.COMMAND
    assert command.name == name
    assert command.summary == COMMANDS[name][1] == (found.__doc__ or "").splitlines()[0]
    assert command.exit_status, "what its exit statuses mean"
    assert callable(found.run)


@pytest.mark.parametrize("name", COMMANDS)
def test_annotations_of_args_are_the_options(name: str) -> None:
    command: Command = module(name).COMMAND
    expected = (
        {option.attribute for option in command.options} - {"help", "usage", "version"} - set(Args.__annotations__)
    )
    assert set(getattr(command.args, "__annotations__", {})) - set(Args.__annotations__) == expected


@pytest.mark.parametrize("name", COMMANDS)
def test_no_two_options_share_a_spelling(name: str) -> None:
    command: Command = module(name).COMMAND
    shorts = [option.short for option in command.options if option.short]
    longs = [option.long for option in command.options]
    assert len(shorts) == len(set(shorts))
    assert len(longs) == len(set(longs))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_sentences(name: str) -> None:
    command: Command = module(name).COMMAND
    for option in command.options:
        assert option.help.endswith("."), option
        assert option.help[0].isupper() or option.help[0] == "{", option
