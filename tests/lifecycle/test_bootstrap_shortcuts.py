"""What is answered for deb-systemd-helper in a first installation, beside what it answers itself."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from netns import sh
from probes import requires

from lxcpy.bootstrap import shortcuts

HELPER, SCRIPT = shortcuts.SCRIPTS[0]
PLACES = "/etc/systemd", "/var/lib/systemd", "/lib/systemd/system"
KNOWN = ("unmask a.timer", "--quiet was-enabled a.timer")


STATES = {
    "nothing": "true",
    "masked": "deb-systemd-helper mask a.timer",
    "masked by its owner": "ln -s /dev/null /etc/systemd/system/a.timer",
    "in place of the package's": "touch /etc/systemd/system/a.timer",
    "a link that leads nowhere": "ln -s /nowhere /etc/systemd/system/a.timer",
    "enabled": "deb-systemd-helper enable a.timer",
    "disabled by its owner": "deb-systemd-helper enable a.timer; rm /etc/systemd/system/timers.target.wants/a.timer",
    "states of others": "mkdir -p /var/lib/systemd/deb-systemd-{helper,user-helper}-masked/sub",
}
CALLS = (
    *(f"DPKG_MAINTSCRIPT_PACKAGE=a PROGRAM {call}" for call in KNOWN),
    "DPKG_MAINTSCRIPT_PACKAGE=a PROGRAM was-enabled a.timer", "DPKG_MAINTSCRIPT_PACKAGE=a PROGRAM enable a.timer",
    "DPKG_MAINTSCRIPT_PACKAGE=a PROGRAM unmask b.timer a.timer", "PROGRAM unmask a.timer",
    "DPKG_MAINTSCRIPT_PACKAGE=a PROGRAM --quiet was-enabled sub/a.timer",
)  # fmt: skip


@requires("root")
@pytest.mark.skipif(not all(map(os.path.exists, (HELPER, *PLACES))), reason=f"needs {HELPER}, of Debian, and systemd")
@pytest.mark.parametrize("state", STATES)
def test_the_answer_is_the_helper_s_own(own_host: str, state: str, tmp_path: Path) -> None:
    script = tmp_path / "script"
    asked = tmp_path / "asked"
    script.write_text(SCRIPT.replace(shortcuts.REAL, f"/bin/sh -c 'echo >>{asked}; exec {HELPER} \"$@\"' x"))
    script.chmod(0o755)
    sh(
        *(f"mount -t tmpfs none {place}" for place in PLACES),
        "! [ -d /run/systemd ] || mount -t tmpfs none /run/systemd"
    )
    for unit in ("a", "b"):
        Path(f"/lib/systemd/system/{unit}.timer").write_text("[Install]\nWantedBy=timers.target\n")
    for call in CALLS:
        ours, theirs = (outcome(call.replace("PROGRAM", str(one)), state) for one in (script, HELPER))
        assert ours == theirs, call
    asked.unlink()
    for call in CALLS[: len(KNOWN)]:
        outcome(call.replace("PROGRAM", str(script)), state)
    assert asked.exists() is (state not in ("nothing", "a link that leads nowhere"))


def outcome(command: str, state: str) -> tuple[int, str, str]:
    """The status and output of a command, and all there is after it, where all began anew."""
    begin = "rm -rf /etc/systemd/* /var/lib/systemd/*; mkdir /etc/systemd/system; export DPKG_MAINTSCRIPT_PACKAGE=a"
    subprocess.run(["bash", "-ec", f"{begin}; {STATES[state]}"], check=True)
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    there = sh("find /etc/systemd /var/lib/systemd -printf '%P %y %m %l\\n' | sort")
    return done.returncode, done.stdout + done.stderr, there


PROGRAM = """
import os, sys
sys.path.insert(0, {path!r})
from lxcpy.bootstrap.chroot import Chroot, Settings
from lxcpy.kernel import process
process.set_dumpable(False)
with Chroot({root!r}, Settings(log=1)) as chroot:
    chroot.cover("/usr/bin/program", script="#!/bin/sh\\necho script $1\\nexec @real@ $1\\n")
    sys.exit(chroot.run(["/usr/bin/program", "called"]))
"""


@requires("root", "busybox")
def test_a_script_reaches_the_program_before_which_it_stands(tmp_path: Path) -> None:
    """After a change of user ids, as for an ordinary user's container, the kernel closes /proc/1/root."""
    root = tmp_path / "root"
    for name in ("bin", "dev", "proc", "sys", "usr/bin"):
        (root / name).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", root / "bin/sh")
    (root / "usr/bin/program").write_text("#!/bin/sh\necho real $1\n")
    (root / "usr/bin/program").chmod(0o755)
    program = PROGRAM.format(path=str(Path(__file__).parents[2]), root=str(root))
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done
    assert done.stdout == "script called\nreal called\n"
