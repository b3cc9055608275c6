"""A system of an architecture that this machine is not: to the end of the first stage, and on where qemu stands in."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from probes import requires
from ubuntumirror import host_suite

from lxcpy.bootstrap import machine

Run = Callable[..., "subprocess.CompletedProcess[str]"]
pytestmark = [
    requires("root", "gpgv"),
    pytest.mark.timeout(900),
    pytest.mark.skipif(platform.machine() == "aarch64", reason="this machine is an arm64 itself"),
]
# The kernel's table of interpreters has no namespace of its own for root: what is registered is taken out again.
WITH_QEMU = """
mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
cd /proc/sys/fs/binfmt_misc
if ! [ -e qemu-aarch64 ]; then
    trap 'echo -1 >/proc/sys/fs/binfmt_misc/qemu-aarch64' EXIT
    magic='\\x7f\\x45\\x4c\\x46\\x02\\x01\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x00\\x02\\x00\\xb7\\x00'
    mask='\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x00\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xfe\\xff\\xff\\xff'
    printf %s ":qemu-aarch64:M::$magic:$mask:$0:OCF" >register
fi
cd /
"$@"
"""


@pytest.fixture
def made(run: Run, lxcpath: str, name: str) -> Iterator[Path]:
    """A minbase for arm64, all of it unpacked and nothing configured."""
    mirror, suite = host_suite()
    Path(lxcpath, "conf").write_text("lxc.net.0.type = empty\n")
    words = ("-P", lxcpath, "-n", name, "-t", "debian", "-f", f"{lxcpath}/conf", "--", "-a", "arm64", "-r", suite)
    if not machine.interpreter("arm64")[1]:
        refused = run("create", *words)
        assert refused.returncode == 1
        assert "machine cannot run programs for arm64\n  hint: install qemu-user-static" in refused.stderr
        assert "let --foreign stop when all is unpacked" in refused.stderr
    done = run("create", *words, f"--mirror={mirror}", "-v", "minbase", "--foreign", timeout=600)
    assert done.returncode == 0, done.stderr
    assert f"chroot {lxcpath}/{name}/rootfs /lxcpy-second-stage" in done.stderr
    yield Path(lxcpath, name, "rootfs")
    assert run("destroy", "-P", lxcpath, "-n", name).returncode == 0


def states(rootfs: Path) -> set[str]:
    shown = subprocess.run(
        ["dpkg-query", f"--admindir={rootfs}/var/lib/dpkg", "-W", "-f", "${db:Status-Abbrev}\n"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    return {line.strip() for line in shown.stdout.splitlines()}


@requires("qemu-aarch64-static")
def test_the_second_stage_under_qemu(made: Path) -> None:
    assert states(made) == {"iU"}
    program = made / "usr/bin/dpkg"
    assert program.read_bytes()[18:20] == b"\xb7\0"  # EM_AARCH64
    argv = ["unshare", "-m", "-p", "-f", "--kill-child", "sh", "-ec", WITH_QEMU, "/usr/bin/qemu-aarch64-static"]
    done = subprocess.run([*argv, "chroot", str(made), "/lxcpy-second-stage"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert done.stdout.endswith("the second stage is done\n")
    assert states(made) == {"ii"}
    for name in ("lxcpy-second-stage", "usr/sbin/policy-rc.d", "var/lib/dpkg/tmp.ci"):
        assert not (made / name).exists()


def test_the_first_stage(made: Path) -> None:
    assert states(made) == {"iU"}
    script = made / "lxcpy-second-stage"
    assert script.stat().st_mode & 0o777 == 0o700
    subprocess.run(["sh", "-n", str(script)], check=True)
    assert (made / "etc/hostname").read_text().strip() == made.parent.name
    assert (made / "usr/sbin/policy-rc.d").exists()
