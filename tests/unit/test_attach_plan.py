"""What attach decides before it forks."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from lxcpy.errors import SecurityError, StateError
from lxcpy.kernel import namespace
from lxcpy.kernel.fd import Fd
from lxcpy.runtime import attach, attach_security, lxcclient
from lxcpy.runtime.attach import PATH, Request, environment, plan
from lxcpy.runtime.attach_facts import Facts, Settings, parse_limits
from lxcpy.runtime.attach_inside import shell_of

HOST = {"PATH": "/host/bin", "TERM": "xterm", "HOME": "/root"}


@pytest.mark.parametrize(
    ("request_", "config", "expected"),
    [
        (Request(), (), {**HOST, "container": "lxc"}),
        (Request(), ("A=1", "TERM=dumb", "NONE"), {**HOST, "container": "lxc", "A": "1", "TERM": "dumb"}),
        (Request(clear_env=True), (), {"container": "lxc", "PATH": PATH}),
        (Request(clear_env=True), ("TERM",), {"container": "lxc", "PATH": PATH, "TERM": "xterm"}),
        (Request(clear_env=True, keep=("PATH", "X")), (), {"container": "lxc", "PATH": "/host/bin"}),
        (
            Request(clear_env=True, keep=("TERM",), variables=("A=2", "container", "B=")), ("A=1",),
            {"PATH": PATH, "TERM": "xterm", "A": "2", "B": ""},
        ),
    ],
)  # fmt: skip
def test_environment(request_: Request, config: tuple[str, ...], expected: dict[str, str]) -> None:
    assert environment(request_, config, HOST) == expected


def test_the_interpreter_s_own_variable_is_not_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LC_CTYPE", "C.UTF-8")  # now in os.environ, not in what the kernel was given
    assert "LC_CTYPE" not in attach.caller_environment()
    monkeypatch.setenv("LC_CTYPE", "de_DE.UTF-8")
    assert attach.caller_environment()["LC_CTYPE"] == "de_DE.UTF-8"


def test_limits() -> None:
    lines = ("lxc.prlimit.nofile = 1000:2000", "lxc.prlimit.core = unlimited", "lxc.prlimit.nproc = 5:unlimited")
    assert parse_limits(lines) == (("nofile", 1000, 2000), ("core", -1, -1), ("nproc", 5, -1))


@pytest.mark.parametrize(
    ("text", "shell"),
    [
        ("root:x:0:0:root:/root:/bin/bash\n", "/bin/bash"),
        ("a:x:1:1::/:/bin/no\nb:x:0:0:,,,:/:/bin/zsh\nc:x:0:0::/:/bin/late\n", "/bin/zsh"),
        ("root:x:0:0:root:/root\n", ""),
        ("root:x:0:0:root:/root:/bin/sh:more\n", ""),
        ("root:x:00:0:root:/root:/bin/sh\n", ""),
        ("", ""),
    ],
)
def test_shell(text: str, shell: str) -> None:
    assert shell_of(text, 0) == shell


@pytest.fixture
def facts() -> Iterator[Facts]:
    """This very process as if it were a container's init."""
    pidfd, proc = Fd(os.pidfd_open(os.getpid())), Fd(os.open("/proc/self", os.O_PATH))
    yield Facts(
        name="web",
        client=lxcclient.command("/nowhere", "web"),
        pid=os.getpid(),
        pidfd=pidfd,
        proc=proc,
        different=("user", "mnt", "pid", "net"),
        bounding=~(1 << 25 | 1 << 16) & (1 << 41) - 1,
        personality=8,
        root_ids=(100000, 100000),
        setup_ids=(0, 0),
        settings=Settings(limits=(("nofile", 1, 2),), proc=(("oom_score_adj", "5"),), no_new_privs=True),
    )
    pidfd.close()
    proc.close()


def test_everything_of_the_container_is_taken_on(facts: Facts) -> None:
    made = plan(facts, Request(argv=("id",), cwd="/srv"), HOST, cgroups=[7, 8])
    assert made.namespaces == namespace.CLONE_NEWUSER | namespace.CLONE_NEWNS | namespace.CLONE_NEWNET
    assert made.drop == (16, 25)
    assert (made.setup_ids, made.uid, made.gid) == ((0, 0), 0, 0)
    assert (made.cgroups, made.limits, made.proc) == ((7, 8), (("nofile", 1, 2),), (("oom_score_adj", "5"),))
    assert (made.personality, made.no_new_privs, made.cwd) == (8, True, "/srv")
    assert made.describe()[0] == "enter 2 control groups"
    assert made.describe()[-1] == "run id"


def test_namespaces_that_are_named_imply_elevation(facts: Facts) -> None:
    made = plan(facts, Request(namespaces=("net", "uts"), remount=True, uid=7), HOST)
    assert made.namespaces == namespace.CLONE_NEWNET  # uts is the caller's own
    assert made.drop == ()
    assert made.setup_ids is None
    assert (made.uid, made.gid, made.remount) == (7, 0, True)
    assert not plan(facts, Request(remount=True), HOST).remount  # with the container's mounts there is no need


def test_elevation_in_parts(facts: Facts) -> None:
    assert plan(facts, Request(elevated=("CAP",)), HOST).drop == ()
    assert plan(facts, Request(elevated=("LSM",)), HOST).drop == (16, 25)


def test_the_architecture(facts: Facts) -> None:
    assert plan(facts, Request(arch="x86_64"), HOST).personality == 0
    assert plan(facts, Request(arch="i686"), HOST).personality == 8
    with pytest.raises(StateError, match='"vax" is not an architecture'):
        plan(facts, Request(arch="vax"), HOST)


@pytest.mark.skipif(os.path.exists("/sys/fs/selinux/enforce"), reason="this kernel has SELinux")
def test_a_context_without_selinux_is_refused(facts: Facts) -> None:
    with pytest.raises(SecurityError, match="this kernel has no SELinux"):
        plan(facts, Request(context="system_u:system_r:x_t:s0"), HOST)


def test_a_profile_that_is_not_there(facts: Facts) -> None:
    with pytest.raises(SecurityError, match=r'lxc.seccomp.profile: cannot read "/nowhere/x": No such file'):
        plan(facts._replace(settings=Settings(seccomp="/nowhere/x")), Request(), HOST)


def test_the_filter_is_compiled_once(facts: Facts, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("LXCPY_RUN_DIR", str(tmp_path / "run"))
    profile = tmp_path / "profile"
    profile.write_text("2\ndenylist\nkexec_load errno 1\n")
    facts = facts._replace(settings=Settings(seccomp=str(profile)))
    first = plan(facts, Request(), HOST).filter
    assert first and len(first) % 8 == 0
    monkeypatch.setattr(attach_security, "_compile", None)  # called no more
    assert plan(facts, Request(), HOST).filter == first
    assert len(os.listdir(tmp_path / "run" / "filters")) == 1
    assert plan(facts, Request(elevated=("LSM",)), HOST).filter == b""


@pytest.mark.parametrize(
    ("files", "label"),
    [
        ({}, b""),
        ({"current": b"unconfined\n"}, b""),
        ({"current": b"lxc-container-default-cgns (enforce)\n"}, b"exec lxc-container-default-cgns"),
        ({"current": b"other\n", "apparmor/current": b"a//&:n:unconfined (mixed)\n"}, b"exec a//&:n:unconfined"),
    ],
)
@pytest.mark.skipif(os.path.exists("/sys/fs/selinux/enforce"), reason="this kernel has SELinux")
def test_the_label_of_init(facts: Facts, tmp_path, files: dict[str, bytes], label: bytes) -> None:  # type: ignore[no-untyped-def]
    for name, content in files.items():
        path = tmp_path / "attr" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    proc = Fd(os.open(tmp_path, os.O_PATH))
    with proc:
        assert plan(facts._replace(proc=proc), Request(), HOST).label == label
