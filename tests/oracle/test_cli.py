"""The same words typed to lxc-X and to lxcpy-X: what is printed and the exit status agree."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from probes import requires

from lxcpy.cli.options import COMMON, Command, usage_text
from lxcpy.cli.registry import COMMANDS

pytestmark = requires("root", "busybox", "lxc")
Run = Callable[..., "subprocess.CompletedProcess[str]"]
OPTIONED = [
    name
    for name in COMMANDS
    if name not in ("net", "doctor") and import_module(f"lxcpy.commands.{COMMANDS[name][0]}").COMMAND.common is COMMON
]
NEWER = {"rbduser"}  # options that LXC got after 5.0.2


def theirs(command: str, *words: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [f"lxc-{command}", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.mark.parametrize("name", OPTIONED)
def test_the_option_tables_agree(name: str) -> None:
    command: Command = import_module(f"lxcpy.commands.{COMMANDS[name][0]}").COMMAND
    known = command._replace(
        options=tuple(option for option in command.options if not option.ours and option.long not in NEWER)
    )
    assert usage_text(known, f"lxc-{name}") == theirs(name, "--usage").stderr


@pytest.mark.parametrize(
    "words", [["--help"], ["-h"], ["-?"], ["--usage"], ["--version"], ["--bogus"], ["-n"]], ids=str
)
@pytest.mark.parametrize("name", OPTIONED)
def test_help_and_refusals_exit_alike(name: str, words: list[str], run: Run) -> None:
    ours, other = run(name, *words), theirs(name, *words)
    assert ours.returncode == other.returncode
    assert bool(ours.stdout) == bool(other.stdout)
    assert bool(ours.stderr) == bool(other.stderr)


@pytest.mark.parametrize(
    "argv",
    [
        ["start"],
        ["start", "-n", "nobody-here"],
        ["start", "-n", "nobody-here", "-f", "/no/such/file"],
        ["stop", "nobody-here"],
        ["stop", "-k", "-r", "nobody-here"],
        ["stop", "-k", "--nokill", "nobody-here"],
        ["stop", "--nolock", "nobody-here"],
        ["stop", "-k", "-t", "5", "nobody-here"],
        ["stop", "-t", "-3", "nobody-here"],
        ["stop", "-t", "soon", "nobody-here"],
        ["wait", "nobody-here"],
        ["wait", "nobody-here", "-s", "STOPPED"],
        ["wait", "nobody-here", "-s", "STOPPED|RUNNING", "-t", "1"],
        ["wait", "nobody-here", "-s", "RUNNING", "-t", "0"],
        ["wait", "nobody-here", "-s", "SLEEPING", "-t", "1"],
        ["freeze", "nobody-here"],
        ["unfreeze", "nobody-here"],
        ["cgroup", "nobody-here", "memory.usage_in_bytes"],
        ["cgroup", "nobody-here"],
        ["destroy", "nobody-here"],
        ["info", "nobody-here"],
        ["attach", "nobody-here", "--", "true"],
        ["console", "nobody-here"],
        ["execute", "nobody-here", "--", "true"],
        ["create", "-n", "nobody-here"],
        ["create", "-n", "nobody-here", "-t", "/no/such/template"],
        ["create", "-n", "nobody-here", "-t", "busybox", "--dir", "relative"],
        ["create", "-n", "nobody-here", "-t", "busybox", "--fssize", "1G"],
        ["ls"],
        ["ls", "-f"],
        ["ls", "-f", "-F", "NAME,COLOUR"],
        ["ls", "--filter", "["],
    ],
    ids=" ".join,
)
def test_statuses_and_outputs_without_a_container(argv: list[str], run: Run, lxcpath: str) -> None:
    command, *words = argv
    ours, other = (call(command, "-P", lxcpath, *words) for call in (run, theirs))
    assert (ours.returncode, ours.stdout) == (other.returncode, other.stdout), other.stderr
    assert os.listdir(lxcpath) == []


CONFIG_WORDS = [
    ["-l"],
    [],
    ["-h"],
    ["lxc.lxcpath"],
    ["lxc.cgroup.use"],
    ["lxc.bdev"],
    ["lxc.nonsense"],
    ["lxc.default_config"],
]


@pytest.mark.parametrize("words", CONFIG_WORDS, ids=str)
def test_config(words: list[str], run: Run) -> None:
    ours, other = run("config", *words), theirs("config", *words)
    assert ours.returncode == other.returncode
    if words and words != ["-h"]:
        assert ours.stdout == other.stdout


# -- with containers -------------------------------------------------------------------------------------------------


def volatile(text: str) -> str:
    """Output without the numbers that change between two looks."""
    text = re.sub(r"(?m)^((?:CPU|BlkIO|Memory|KMem) use:| (?:TX|RX|Total) bytes:)(\s+).*", r"\1\2N", text)
    return re.sub(r"[\d.]+MB", "N", text)


LISTINGS = [
    ["-1"], [], ["-f"], ["-f", "--running"], ["-f", "--stopped"], ["-f", "--frozen"], ["-f", "--active"],
    ["-f", "--defined"], ["-f", "--active", "--frozen"], ["-f", "--running", "--frozen"],
    ["-1", "--running", "--stopped"],
    ["-f", "-F", "name,state,pid,ram,swap,autostart,groups,interface,ipv4,ipv6,unprivileged"],
    ["-f", "-F", "PID, NAME"], ["-F", "PID"], ["-f", "-F", "ram,swap,state"], ["-f", "-g", "web"],
    ["-1", "-g", "web,db"],
    ["-1", "-g", "web, db"], ["-1", "-g", "none"], ["-1", "[ab]$"], ["-1", "--filter", "^$"], ["-1", "a", "b"],
    ["-f", "--filter=[[:alpha:]]$"],
]  # fmt: skip
SHOWN = [
    [], ["-s"], ["-p"], ["-i"], ["-S"], ["-sH"], ["-pH"], ["-iH"], ["-SH"], ["-sp"], ["-spH"], ["-H"],
    ["-c", "lxc.uts.name"], ["-c", "lxc.group"], ["-Hc", "lxc.group"], ["-c", "lxc.nonsense"], ["-c", "lxc.cap.drop"],
    ["-Hc", "lxc.cap.drop"], ["-c", "lxc.net.0.type", "-c", "lxc.idmap"], ["-s", "-c", "lxc.arch"],
    ["-sH", "-c", "lxc.arch"],
    ["-c", "lxc.mount.auto"], ["-c", "lxc.net"], ["-c", "lxc.cgroup"], ["-c", "lxc.hook.start"],
]  # fmt: skip


@pytest.fixture(params=["theirs", "ours"])
def park(request: pytest.FixtureRequest, lxcpath: str, names: Callable[[], str], reals: Any, run: Run) -> Any:
    """Three containers, one running, one frozen, one stopped; run by real LXC, or by us."""
    begin = names()
    extra = {"a": "lxc.group = web\nlxc.group = db\n", "b": "lxc.group = web\nlxc.start.auto = 1\n", "c": ""}
    made = {}
    for letter, text in extra.items():
        real = reals(text)
        real.tool("stop", "-k")
        config = Path(lxcpath, real.name, "config")
        config.write_text(config.read_text().replace("lxc.net.0.type = empty", NETWORK))
        made[letter] = real.name
    start = run if request.param == "ours" else theirs
    for letter in "ab":
        done = start("start", "-P", lxcpath, "-n", made[letter])
        assert done.returncode == 0, done.stderr
    assert start("freeze", "-P", lxcpath, "-n", made["b"]).returncode == 0
    yield made
    start("unfreeze", "-P", lxcpath, "-n", made["b"])
    for letter in "ab":
        start("stop", "-k", "-P", lxcpath, "-n", made[letter])
    assert begin


NETWORK = """lxc.net.0.type = veth
lxc.net.0.flags = up
lxc.net.0.ipv4.address = 10.98.7.5/24
lxc.net.0.ipv4.address = 10.98.10.5/24
lxc.net.0.ipv6.address = fd00:98::5/64"""


def test_ls_and_info_agree(park: dict[str, str], run: Run, lxcpath: str) -> None:
    """One park for all the questions: it takes longer to make than to ask."""
    wrong = {}
    for words in LISTINGS:
        words = [word.replace("[ab]$", f"{park['a']}|{park['b']}") for word in words]
        ours, other = run("ls", "-P", lxcpath, *words), theirs("ls", "-P", lxcpath, *words)
        if (ours.returncode, volatile(ours.stdout)) != (other.returncode, volatile(other.stdout)):
            wrong[" ".join(["ls", *words])] = (ours.stdout, other.stdout)
    for name in park.values():
        for words in SHOWN:
            ours, other = (call("info", "-P", lxcpath, "-n", name, *words) for call in (run, theirs))
            if "-SH" in words or words == ["-H"]:
                ours.stdout, other.stdout = (
                    re.sub(r"\d+$", "N", text, flags=re.M) for text in (ours.stdout, other.stdout)
                )
            if (ours.returncode, volatile(ours.stdout)) != (other.returncode, volatile(other.stdout)):
                wrong[" ".join(["info", name, *words])] = (ours.stdout, other.stdout)
    assert not wrong, "\n".join(f"{words}\nours:\n{one}\ntheirs:\n{two}" for words, (one, two) in wrong.items())


@pytest.mark.parametrize(
    "words", [[], ["-a"], ["-A"], ["-g", "web"], ["-g", "db,web"], ["-g", "web,"], ["-aA"], ["-g", "no"]], ids=str
)
@pytest.mark.parametrize("verb", [[], ["-k"], ["-s"], ["-r"]], ids=str)
def test_autostart_lists_alike(verb: list[str], words: list[str], run: Run, lxcpath: str) -> None:
    configs = {
        "n1": "lxc.start.auto = 1\nlxc.start.order = 5\n",
        "n2": "lxc.start.auto = 1\nlxc.start.order = 1\nlxc.start.delay = 3\n",
        "w1": "lxc.start.auto = 1\nlxc.group = web\n",
        "w2": "lxc.start.auto = 1\nlxc.group = db\nlxc.group = web\nlxc.start.order = -1\n",
        "off": "lxc.start.auto = 0\n",
    }
    for name, text in configs.items():
        os.makedirs(f"{lxcpath}/{name}")
        Path(lxcpath, name, "config").write_text(text)
    ours, other = (call("autostart", "-P", lxcpath, "-L", *verb, *words) for call in (run, theirs))
    assert (ours.returncode, ours.stdout) == (other.returncode, other.stdout)


def test_verbs_end_alike(reals: Any, run: Run, lxcpath: str) -> None:
    """The exit statuses of a life, on two containers of one config."""
    steps = [
        ["start"], ["start"], ["wait", "-s", "RUNNING"], ["freeze"], ["freeze"], ["unfreeze"], ["unfreeze"],
        ["cgroup", "memory.limit_in_bytes"], ["cgroup", "no.such"], ["cgroup", "memory.limit_in_bytes", "32M"],
        ["cgroup", "memory.limit_in_bytes", "nonsense"], ["attach", "--", "sh", "-c", "exit 9"],
        ["attach", "--", "no-such"],
        ["destroy"], ["stop", "-t", "5"], ["stop"], ["freeze"], ["execute", "--", "sh", "-c", "exit 3"],
        ["execute", "--", "/no-such"], ["destroy"], ["destroy"],
    ]  # fmt: skip
    found = []
    for call in (run, theirs):
        real = reals()
        real.tool("stop", "-k")
        results = []
        for command, *words in steps:
            done = call(command, "-P", lxcpath, "-n", real.name, *words)
            results.append((command, words, done.returncode, done.stdout))
        found.append(results)
    assert found[0] == found[1]
