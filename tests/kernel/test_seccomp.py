"""System call filters, installed in a child."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
from probes import requires

from lxcpy.kernel import mount, proc, seccomp

pytestmark = requires("root", "libseccomp")
Isolated = Callable[..., Any]


def test_a_rule_with_an_errno(isolated: Isolated) -> None:
    def inside() -> tuple[str, str]:
        rules = seccomp.Filter(seccomp.ACT_ALLOW)
        rules.add_rule("mkdirat", seccomp.ACT_ERRNO | errno.EXDEV)
        rules.add_rule("mkdir", seccomp.ACT_ERRNO | errno.EXDEV)
        assert rules.load() is None
        with pytest.raises(OSError) as error:
            os.mkdir("/tmp/never")
        assert error.value.errno == errno.EXDEV
        with open("/proc/self/status") as file:
            status = proc.status(file.read())
        return status["Seccomp"], status["NoNewPrivs"]

    assert isolated(inside) == ("2", "0")


def test_arguments_are_compared(isolated: Isolated) -> None:
    def inside() -> list[int]:
        rules = seccomp.Filter(seccomp.ACT_ALLOW)
        force = seccomp.Comparison(1, seccomp.CMP_MASKED_EQ, mount.MNT_FORCE, mount.MNT_FORCE)
        rules.add_rule("umount2", seccomp.ACT_ERRNO | errno.EXDEV, [force])
        rules.add_rule("getpgid", seccomp.ACT_ERRNO | errno.EXDEV, [seccomp.Comparison(0, seccomp.CMP_GT, 4)])
        rules.load()
        codes = []
        for flags in (mount.MNT_FORCE | mount.MNT_DETACH, mount.MNT_DETACH):
            with pytest.raises(OSError) as error:
                mount.umount("/nowhere", flags)
            codes.append(error.value.errno)
        os.getpgid(0)
        with pytest.raises(OSError) as error:
            os.getpgid(5)
        return [*codes, error.value.errno]

    assert isolated(inside) == [errno.EXDEV, errno.ENOENT, errno.EXDEV]


def test_kill() -> None:
    rules = seccomp.Filter(seccomp.ACT_ALLOW)
    rules.add_rule("getppid", seccomp.ACT_KILL)
    program = rules.export_bpf()
    pid = os.fork()
    if pid == 0:
        try:
            seccomp.install(program)
            os.getppid()
        finally:
            os._exit(0)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGSYS


def test_other_architectures_are_merged() -> None:
    main = seccomp.Filter(seccomp.ACT_ALLOW)
    foreign = "arm" if os.uname().machine == "aarch64" else "x86"
    other = seccomp.Filter(seccomp.ACT_ALLOW, foreign)
    other.add_rule("unlinkat", seccomp.ACT_KILL)
    main.merge(other)
    text = main.export_text()
    assert f"# filter for arch {foreign} " in text and "unlinkat" in text


def test_resolve() -> None:
    assert seccomp.resolve("nosuchcall") is None
    assert seccomp.resolve("openat", "x86_64") == 257
    assert seccomp.resolve("openat", "aarch64") == 56
    missing = seccomp.resolve("open", "aarch64")
    assert missing is not None and missing < 0
    with pytest.raises(OSError, match='"nosuchcall" is not a system call'):
        seccomp.Filter(seccomp.ACT_ALLOW).add_rule("nosuchcall", seccomp.ACT_KILL)
    with pytest.raises(OSError, match='architecture "z80"'):
        seccomp.Filter(seccomp.ACT_ALLOW, "z80")


def test_listener(isolated: Isolated) -> None:
    def inside() -> bool:
        rules = seccomp.Filter(seccomp.ACT_ALLOW)
        rules.add_rule("getppid", seccomp.ACT_NOTIFY)
        listener = rules.load(listener=True)
        assert listener is not None
        assert not os.get_inheritable(listener.number)
        return "seccomp" in os.readlink(listener.path)

    assert isolated(inside)
    notification, response, _ = seccomp.notification_sizes()
    assert notification >= 80 and response >= 24
