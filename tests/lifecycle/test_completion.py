"""Completion in the real shells: bash with bash-completion, zsh and fish, on terminals, with real containers."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import shutil
import signal
import struct
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from lifecycle.conftest import Define
from probes import requires

from lxcpy.cli.registry import COMMANDS
from lxcpy.docgen import completion
from lxcpy.docgen.man import command as table

pytestmark = requires("root", "busybox")
BASH_COMPLETION = "/usr/share/bash-completion/bash_completion"


class Shell:
    """An interactive shell on a terminal; `offered` types a line and asks it to complete."""

    end = b"<<end>>"

    def __init__(self, argv: list[str], bin: str, home: Path, ready: str) -> None:
        environ = {
            "PATH": f"{bin}:{os.environ['PATH']}", "HOME": str(home), "TERM": "dumb", "LANG": "C.UTF-8",
            "XDG_CONFIG_HOME": f"{home}/.config", "XDG_DATA_HOME": f"{home}/.local/share",
            "BASH_COMPLETION_USER_DIR": f"{home}/user",
            **{name: os.environ[name] for name in ("LXCPY_RUN_DIR", "LXCPY_CACHE_DIR")},
        }  # fmt: skip
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.chdir(home)
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("4H", 50, 4000, 0, 0))  # no line is broken
            os.execvpe(argv[0], argv, environ)
        self.type(ready)
        self.until(b"READY-42")

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def until(self, mark: bytes) -> str:
        data, deadline = b"", time.monotonic() + 60
        while mark not in data:
            assert select.select([self.master], [], [], max(deadline - time.monotonic(), 0))[0], data
            data += os.read(self.master, 1 << 16)
        return data.decode(errors="replace")

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.master)


class Bash(Shell):
    def __init__(self, bin: str, home: Path, made: Path) -> None:
        os.makedirs(home / "user")
        os.symlink(made / "bash", home / "user/completions")
        ready = f". {BASH_COMPLETION}; PS1=; bind 'set enable-bracketed-paste off'; stty -echo; echo READY-$((41+1))\n"
        super().__init__(["bash", "--norc", "--noprofile", "-i"], bin, home, ready)

    def offered(self, line: str) -> set[str]:
        """Alt-* inserts all that a tab would offer; Ctrl-A, Ctrl-E: the line becomes words to print."""
        self.type(f"{line}\x1b*\x01printf '<%s>\\n' \x05; printf '<<%s>>' end\n")
        found = re.findall(r"<([^<>\r\n]*)>\r", self.until(self.end))
        return set(found[len(line.split(" ")) - 1 :])


class Zsh(Shell):
    def __init__(self, bin: str, home: Path, made: Path) -> None:
        ready = f"""\
PS1= PS2=; unsetopt zle_bracketed_paste prompt_cr; fpath=({made}/zsh $fpath); autoload -U compinit; compinit -D -u
compadd() {{
    if [[ ${{@[1,(i)(-|--)]}} == *-(O|A|D)\\ * ]]; then builtin compadd "$@"; return; fi
    local -a found; builtin compadd -A found "$@"; local one
    for one in $found; do print -r "<$one>"; done
    builtin compadd "$@"
}}
finish() {{ print '<<''end>>'; zle kill-buffer; zle send-break }}; zle -N finish; bindkey '^T' finish
bindkey '^I' complete-word; stty -echo; echo READY-$((41+1))
"""
        super().__init__(["zsh", "-f", "-i"], bin, home, ready)

    def offered(self, line: str) -> set[str]:
        self.type(f"{line}\t\x14")
        return set(re.findall(r"<([^<>\r\n]*)>\r", self.until(self.end)))


class Fish(Shell):
    def __init__(self, bin: str, home: Path, made: Path) -> None:
        os.makedirs(home / ".config/fish")
        os.symlink(made / "fish", home / ".config/fish/completions")
        super().__init__(["fish", "-i"], bin, home, "function fish_prompt; end; echo READY-(math 41+1)\n")

    def offered(self, line: str) -> set[str]:
        asked = f"complete -C '{line}' | string split -f 1 \\t"
        self.type(f"for one in ({asked}); printf '%s%s>\\n' '<' $one; end; printf '%s%s\\n' '<<' end'>>'\n")
        return set(re.findall(r"<([^<>\r\n '$%]*)>\r", self.until(self.end)))


SHELLS: dict[str, type[Shell]] = {"bash": Bash, "zsh": Zsh, "fish": Fish}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("completion")
    completion.write(str(folder))
    return folder


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, bin: str, tmp_path: Path, made: Path) -> Iterator[Shell]:
    if not shutil.which(request.param) or (request.param == "bash" and not os.path.exists(BASH_COMPLETION)):
        pytest.skip(f"needs {request.param}" + (" and bash-completion" if request.param == "bash" else ""))
    opened = SHELLS[request.param](bin, tmp_path, made)
    yield opened
    opened.close()


def test_every_option_of_every_command(shell: Shell) -> None:
    """What the parsers know is offered, and nothing else."""
    for name in COMMANDS:
        longs = {f"--{option.long}" for option in table(name).table}
        offered = {word.rstrip("=") for word in shell.offered(f"lxcpy-{name} --")}
        assert {word for word in offered if word.startswith("--")} == longs, name


def test_names_and_words(shell: Shell, box: Define) -> None:
    names = {box().name for _ in range(3)}
    path = box().lxcpath
    names = set(os.listdir(path))
    cases = {
        f"lxcpy-start -P {path} -n ": names,
        f"lxcpy-stop -P {path} ": names,
        f"lxcpy-info --lxcpath={path} -s ": names,
        f"lxcpy-doctor -P {path} ": names,
        f"lxcpy-snapshot -L -P {path} ": names,
        f"lxcpy config check -P {path} ": names,
        f"lxcpy destroy -P {path} --name ": names,
        "lxcpy-wait -s FRO": {"FROZEN"},
        "lxcpy wait --state STOPPE": {"STOPPED"},
        "lxcpy-start --fore": {"--foreground"},
        "lxcpy unfr": {"unfreeze"},
        "lxcpy supervisor re": {"reexec"},
        "lxcpy-supervisor ": {"reexec", "status", "stop"},
        "lxcpy-net res": {"restart"},
        "lxcpy-cache ver": {"verify"},
        "lxcpy-config lxc.lxc": {"lxc.lxcpath"},
        "lxcpy-config ch": {"check"},
        "lxcpy-create -B ov": {"overlay", "overlayfs"},
        "lxcpy-start -l FAT": {"FATAL"},
        "lxcpy start --fore": {"--foreground"},
    }
    for line, expected in cases.items():
        assert {word.strip() for word in shell.offered(line)} == expected, line


def test_files_and_commands(shell: Shell, tmp_path: Path) -> None:
    (tmp_path / "my.conf").touch()
    (tmp_path / "my.dir").mkdir()
    assert "my.conf" in {word.strip() for word in shell.offered("lxcpy-start -f my.c")}
    assert {word.strip(" /") for word in shell.offered("lxcpy-start -P my.")} == {"my.dir"}
    assert "readlink" in {word.strip() for word in shell.offered("lxcpy-attach -n x -- readlin")}
