"""The option parser behaves like getopt_long, and the texts have LXC's layout."""

from __future__ import annotations

import os

import pytest

from lxcpy import __version__
from lxcpy.cli import options
from lxcpy.cli.options import Answer, Args, Command, Option, parse
from lxcpy.errors import UsageError

DEMO = Command(
    "demo",
    "Show something.",
    "--name=NAME",
    (
        Option("d", "daemon", None, "Stay behind.", key="foreground", value=False),
        Option("F", "foreground", None, "Stay."),
        Option("s", "define", "KEY=VALUE", "Set.", many=True),
        Option("e", "elevate", "[WHAT]", "Elevate.", value="all"),
        Option("t", "timeout", "SECONDS", "Wait.", convert=options.seconds, default=-1),
        Option("", "time", None, "Time."),
    ),
)


def demo(*words: str) -> Args:
    return parse(DEMO, "lxcpy-demo", words)


def test_first_positional_is_the_name_and_options_mix() -> None:
    args = demo("web", "-F", "ls", "-s", "a=b", "-sc=d", "--", "-l", "--x")
    assert (args.name, args.rest) == ("web", ["ls", "-l", "--x"])
    assert args.__dict__["foreground"] is True
    assert args.__dict__["define"] == ["a=b", "c=d"]


def test_name_option_leaves_the_positionals() -> None:
    args = demo("-n", "web", "ls")
    assert (args.name, args.rest) == ("web", ["ls"])
    assert demo("--name=web").name == demo("-nweb").name == demo("--name", "web").name == "web"


def test_clusters_and_later_options_win() -> None:
    assert demo("-Fnweb").__dict__["foreground"] is True
    assert demo("web", "-F", "-d").__dict__["foreground"] is False
    assert demo("web", "-dF").__dict__["foreground"] is True


@pytest.mark.parametrize(
    ("words", "value"),
    [(["-e"], "all"), (["-ecap"], "cap"), (["--elevate"], "all"), (["--el=cap"], "cap"), ([], None)],
)  # fmt: skip
def test_optional_argument_must_be_attached(words: list[str], value: str | None) -> None:
    args = demo("-n", "web", *words, "cap")
    assert args.__dict__["elevate"] == value
    assert args.rest == ["cap"]


def test_abbreviations() -> None:
    assert demo("web", "--fore").__dict__["foreground"] is True
    assert demo("web", "--time").__dict__["time"] is True  # exact, though --timeout begins like it
    assert demo("web", "--timeo=3").__dict__["timeout"] == 3


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tim"], "lxcpy-demo: option '--tim' is ambiguous; possibilities: '--timeout' '--time'"),
        (["--nothing"], "lxcpy-demo: unrecognized option '--nothing'"),
        (["--nothing=3"], "lxcpy-demo: unrecognized option '--nothing'"),
        (["-z"], "lxcpy-demo: invalid option -- 'z'"),
        (["-n"], "lxcpy-demo: option requires an argument -- 'n'"),
        (["--name"], "lxcpy-demo: option '--name' requires an argument"),
        (["--foreground=yes"], "lxcpy-demo: option '--foreground' doesn't allow an argument"),
    ],
)
def test_refusals_show_the_help_and_exit_1(words: list[str], message: str) -> None:
    with pytest.raises(Answer) as caught:
        demo("web", *words)
    assert caught.value.text == f"{message}\n{options.help_text(DEMO, 'lxcpy-demo')}"
    assert (caught.value.code, caught.value.stdout) == (1, False)


def test_help_usage_and_version_need_no_name() -> None:
    def answer(word: str) -> tuple[str, int, bool]:
        with pytest.raises(Answer) as caught:
            demo(word)
        return caught.value.text, caught.value.code, caught.value.stdout

    text = options.help_text(DEMO, "lxcpy-demo")
    assert answer("-h") == answer("--help") == (text, 0, False)
    assert answer("-?") == (text, 1, False)
    assert answer("--usage") == (options.usage_text(DEMO, "lxcpy-demo"), 0, False)
    assert answer("--version") == (f"{__version__}\n", 0, True)


def test_no_name() -> None:
    with pytest.raises(UsageError) as caught:
        demo("-F")
    assert caught.value.lines() == [
        "No container name specified",
        "  hint: lxcpy-demo -n NAME, or the name as the first argument",
    ]


def test_one_lxcpath_without_its_last_slash() -> None:
    args = demo("web", "-P", "/srv/lxc//")
    assert (args.lxcpath, args.lxcpaths) == ("/srv/lxc", ["/srv/lxc"])
    assert parse(DEMO, "x", ["web", "-P", "here/lxc/"]).lxcpath == f"{os.getcwd()}/here/lxc"
    with pytest.raises(UsageError, match="This command only accepts 1 -P,--lxcpath arguments"):
        demo("web", "-P", "/a", "-P", "/b")
    assert parse(DEMO._replace(many_paths=True), "x", ["web", "-P", "/a", "-P", "/b"]).lxcpaths == ["/a", "/b"]


@pytest.mark.parametrize("text", ["soon", "-2", "1.5", ""])
def test_bad_value_says_which_option(text: str) -> None:
    with pytest.raises(UsageError, match=r"could not parse command line: -t/--timeout: "):
        demo("web", f"--timeout={text}")


def test_default_name_keeps_the_positionals() -> None:
    args = parse(DEMO._replace(default_name=".*"), "x", ["one"])
    assert (args.name, args.rest) == (".*", ["one"])


def test_no_common_name() -> None:
    assert parse(DEMO._replace(named=False), "x", ["one"]).name == ""


def test_logpriority_in_any_case() -> None:
    assert demo("web", "-l", "debug").logpriority == demo("web", "--logpriority=DEBUG").logpriority == 1
    with pytest.raises(UsageError, match=r'-l/--logpriority: "loud" is not a log level'):
        demo("web", "-l", "loud")


def test_usage_has_four_options_a_line() -> None:
    assert options.usage_text(DEMO, "lxcpy-demo") == (
        "Usage: lxcpy-demo [-d|--daemon] [-F|--foreground] [-s|--define=DEFINE] [-e|--elevate[=ELEVATE]] \n"
        "\t[-t|--timeout=TIMEOUT] [--time] [-n|--name=NAME] [-h|--help] \n"
        "\t[-?|--help] [--usage] [--version] [-q|--quiet] \n"
        "\t[-o|--logfile=LOGFILE] [-l|--logpriority=LOGPRIORITY] [-P|--lxcpath=LXCPATH] [--rcfile=RCFILE] \n"
        "\t\n"
    )


def test_help_layout() -> None:
    lines = options.help_text(DEMO, "lxcpy-demo").split("\n")
    assert lines[:12] == [
        "Usage: lxcpy-demo --name=NAME",
        "",
        "lxcpy-demo: Show something.",
        "",
        "Options :",
        "  -n, --name=NAME        Name of the container.",
        "      --rcfile=FILE      Read the container's configuration from FILE.",
        "  -d, --daemon           Stay behind.",
        "  -F, --foreground       Stay.",
        "  -s, --define=KEY=VALUE Set.",
        "  -e, --elevate[=WHAT]   Elevate.",
        "  -t, --timeout=SECONDS  Wait.",
    ]
    assert all(len(line) < 80 for line in lines)
