"""Policy files: grammar, errors with file and line, compiled filters."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from probes import requires

from lxcpy import paths
from lxcpy.config.model import Seccomp
from lxcpy.errors import Origin, SecurityError
from lxcpy.kernel import seccomp as scmp
from lxcpy.security import seccomp

COMMON = """2
denylist
reject_force_umount  # comment this to allow umount -f;  not recommended
[all]
kexec_load errno 1
open_by_handle_at errno 1
"""


def test_common() -> None:
    policy = seccomp.parse(COMMON, "f")
    assert policy.default == scmp.ACT_ALLOW and policy.version == 2 and not policy.notifies
    assert [str(rule) for rule in policy.rules] == [
        "kill reject_force_umount",
        "errno 1 kexec_load",
        "errno 1 open_by_handle_at",
    ]
    assert [rule.line for rule in policy.rules] == [3, 5, 6]


@pytest.mark.parametrize(
    ("head", "default", "rule"),
    [
        ("denylist", scmp.ACT_ALLOW, scmp.ACT_KILL),
        ("blacklist", scmp.ACT_ALLOW, scmp.ACT_KILL),
        ("allowlist", scmp.ACT_KILL, scmp.ACT_ALLOW),
        ("whitelist  ", scmp.ACT_KILL, scmp.ACT_ALLOW),
        ("allowlist trap", scmp.ACT_TRAP, scmp.ACT_ALLOW),
        ("allowlist errno 38", scmp.ACT_ERRNO | 38, scmp.ACT_ALLOW),
        ("denylist  kill # why", scmp.ACT_KILL, scmp.ACT_KILL),
        ("denylist notify", scmp.ACT_NOTIFY, scmp.ACT_KILL),
    ],
)
def test_defaults(head: str, default: int, rule: int) -> None:
    policy = seccomp.parse(f"2\n{head}\nread\n", "f")
    assert (policy.default, policy.rules[0].action) == (default, rule)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("mkdir", (scmp.ACT_KILL, ())),
        ("mkdir errno 13", (scmp.ACT_ERRNO | 13, ())),
        ("mkdir   errno13 # x", (scmp.ACT_ERRNO | 13, ())),
        ("mkdir allow", (scmp.ACT_ALLOW, ())),
        ("mkdir notify", (scmp.ACT_NOTIFY, ())),
        ("ioctl trap [1,0x5401,SCMP_CMP_EQ]", (scmp.ACT_TRAP, ((1, scmp.CMP_EQ, 0x5401, 0),))),
        ("ioctl [1,010,>=]", (scmp.ACT_KILL, ((1, scmp.CMP_GE, 8, 0),))),
        (
            "clone errno 1 [0,0x10000000,&=,0x10000000][2, 5 ,!=] # both",
            (scmp.ACT_ERRNO | 1, ((0, scmp.CMP_MASKED_EQ, 0x10000000, 0x10000000), (2, scmp.CMP_NE, 5, 0))),
        ),
    ],
)
def test_rules(line: str, expected: object) -> None:
    (rule,) = seccomp.parse(f"2\ndenylist\n{line}\n", "f").rules
    assert (rule.action, rule.arguments) == expected


def test_sections() -> None:
    policy = seccomp.parse("2\ndenylist\na\n[x86]\nb\n[ARM64]\nc\n[all]\nd\n", "f")
    assert [(rule.call, rule.section) for rule in policy.rules] == [
        ("a", None), ("b", "x86"), ("c", "aarch64"), ("d", None),
    ]  # fmt: skip


def test_version_1() -> None:
    policy = seccomp.parse("1\nallowlist\n0\n1\n\n# more\n60 # exit\n", "f")
    assert policy.default == scmp.ACT_KILL
    assert [(rule.call, rule.action) for rule in policy.rules] == [(n, scmp.ACT_ALLOW) for n in (0, 1, 60)]


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("", 1, 'unknown version ""'),
        ("3\ndenylist\n", 1, 'unknown version "3"'),
        ("2\n", 2, 'unknown style ""'),
        ("2\ngreylist\n", 2, 'unknown style "greylist"'),
        ("2\ndenylist eat\n", 2, 'unknown action "eat"'),
        ("1\ndenylist\n1\n", 2, "a policy of version 1 can only be an allowlist"),
        ("1\nallowlist\n1\nread\n", 4, '"read" is not a number of a system call'),
        ("2\ndenylist\n[z80]\n", 3, 'unknown architecture "[z80]"'),
        ("2\ndenylist\n\nmkdir eat\n", 4, 'unknown action "eat"'),
        ("2\ndenylist\nmkdir errno\n", 3, 'unknown action "errno"'),
        ("2\ndenylist\nmkdir kill [6,1,==]\n", 3, 'bad condition "[6,1,==]"'),
        ("2\ndenylist\nmkdir kill [1,x,==]\n", 3, 'bad condition "[1,x,==]"'),
        ("2\ndenylist\nmkdir kill [1,1\n", 3, 'bad condition "[1,1"'),
        ("2\ndenylist\nmkdir kill" + "[1,1,==]" * 7, 3, "more than 6 conditions"),
    ],
)
def test_errors(text: str, line: int, what: str) -> None:
    with pytest.raises(SecurityError) as error:
        seccomp.parse(text, "some.seccomp")
    assert error.value.what == f"seccomp policy: {what}"
    assert error.value.at == Origin("some.seccomp", line)


@given(st.text(alphabet="12\ndenylistaowk [],=&x0#_", max_size=60))
def test_any_text_is_a_policy_or_an_error(text: str) -> None:
    try:
        seccomp.parse(text, "f")
    except SecurityError as error:
        assert error.at is not None and error.at.line >= 1


@requires("libseccomp")
def test_calls_nobody_has_are_left_out() -> None:
    program = seccomp.compile(seccomp.parse("2\ndenylist\nnosuchcall\nmkdir\n", "f"), machine="x86_64")
    assert [rule.call for rule in program.unknown] == ["nosuchcall"]
    assert len(program.code) % 8 == 0 and str(program).startswith("install the system call filter f (")


@requires("libseccomp")
def test_rules_count_for_all_architectures_of_the_host() -> None:
    policy = seccomp.parse("2\ndenylist\n[x86]\nmkdir errno 5\n[s390x]\nrmdir errno 5\n[all]\nchown32 errno 6\n", "f")
    text = seccomp.explain(policy, machine="x86_64")
    assert text.count('"mkdir"') == 3 and '"rmdir"' not in text and text.count('"chown32"') == 1
    assert "filter for arch x32" in text


def _profile(tmp_path: Path, text: str) -> Seccomp:
    (tmp_path / "policy").write_text(text)
    return Seccomp(profile=str(tmp_path / "policy"))


@requires("libseccomp")
def test_prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert seccomp.prepare(Seccomp()) is None
    monkeypatch.setattr(seccomp, "active", lambda: False)
    config = _profile(tmp_path, COMMON)
    program = seccomp.prepare(config)
    assert program is not None and not program.listener
    assert seccomp.prepare(config) is program  # compiled once
    (tmp_path / "policy").write_text(COMMON + "mkdir\n")
    assert seccomp.prepare(config) is not program
    monkeypatch.setattr(seccomp, "active", lambda: True)
    assert seccomp.prepare(config) is None
    assert seccomp.prepare(Seccomp(profile=config.profile, allow_nesting=True)) is not None


def _at(key: str) -> Origin | None:
    return Origin("web/config", 9) if key == "lxc.seccomp.profile" else None


def _fails(config: Seccomp, at: Callable[[str], Origin | None] = _at) -> list[str]:
    with pytest.raises(SecurityError) as error:
        seccomp.prepare(config, at=at)
    return error.value.lines()


@requires("libseccomp")
def test_prepare_errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seccomp, "active", lambda: False)
    assert _fails(Seccomp(profile=f"{tmp_path}/none")) == [
        f'lxc.seccomp.profile: cannot read "{tmp_path}/none": No such file or directory',
        "  at web/config:9",
    ]
    config = _profile(tmp_path, "2\ndenylist\nmkdir notify\n")
    assert _fails(config) == [
        f'seccomp policy "{config.profile}" uses notify, but nobody would answer',
        "  at web/config:9",
        "  hint: set lxc.seccomp.notify.proxy = unix:PATH",
    ]
    served = Seccomp(profile=config.profile, notify_proxy="unix:/run/x")
    program = seccomp.prepare(served)
    assert program is not None and program.listener


@requires("libseccomp")
def test_lxcs_preset_is_served_where_lxc_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine.seccomp").write_text(COMMON)
    monkeypatch.setattr(seccomp, "active", lambda: False)
    monkeypatch.setattr(paths, "data_dir", lambda kind: str(tmp_path))
    program = seccomp.prepare(Seccomp(profile=f"{paths.LXC_CONFIG_DIR}/mine.seccomp"))
    assert program is not None and program.file == f"{tmp_path}/mine.seccomp"
