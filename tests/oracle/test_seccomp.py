"""Our filter and real LXC's for the same policy, instruction by instruction in libseccomp's readable form."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from probes import requires

from lxcpy.errors import SecurityError
from lxcpy.security import seccomp

pytestmark = requires("root", "lxc>=5.0", "libseccomp", "busybox")

# What LXC itself needs to write the filter to its log; init is killed by these policies, which is no matter here.
NEEDED = "read\nwrite\nclose\nfstat\nnewfstatat\nlseek\nmmap\nbrk\ndup\nfcntl\nexit\nexit_group"
POLICIES = {
    "common": "2\ndenylist\nreject_force_umount  # not recommended\n[all]\nkexec_load errno 1\ninit_module errno 1\n",
    "sections": "2\ndenylist\n[x86]\nmkdir errno 5\n[arm]\nrmdir errno 5\n[X86_64]\nswapon errno 7\n",
    "arguments": "2\ndenylist\nswapon errno 3 [1,0x2,SCMP_CMP_MASKED_EQ,0x3]\nswapoff trap [0,010,!=][1,5,>]\n",
    "names": "2\nblacklist allow\nchown32 errno 3\nnosuchcall errno 4\nswapon kill\n",
    "masked": "2\ndenylist\nmount errno 1 [3,0x1000,&=,0x1000]\nmount errno 2 [3,0x20,&=,0x20]\n",
    "allow": f"2\nallowlist\n{NEEDED}\nopenat allow [2,3,<=]\nswapon errno 3\n",
    "numbers": "1\nallowlist\n0\n1\n3\n5\n8\n9\n12\n32\n60\n72\n231\n262\n",
}
BROKEN = {
    "action": "2\ndenylist\nmkdir eat\n",
    "section": "2\ndenylist\n[z80]\nmkdir\n",
    "style": "2\ngreylist\nmkdir\n",
    "version": "3\ndenylist\n",
    "operator": "2\ndenylist\nmkdir kill [1,1,~]\n",
    "index": "2\ndenylist\nmkdir kill [6,1,==]\n",
}


@pytest.fixture
def container(lxcpath: str, name: str) -> Path:
    folder = Path(lxcpath) / name
    for place in ("bin", "dev", "proc", "sys", "tmp", "etc"):
        (folder / "rootfs" / place).mkdir(parents=True)
    shutil.copy(shutil.which("busybox") or "", folder / "rootfs/bin/busybox")
    (folder / "config").write_text(
        f"lxc.rootfs.path = dir:{folder}/rootfs\nlxc.uts.name = c\nlxc.net.0.type = empty\n"
        f"lxc.init.cmd = /bin/busybox true\nlxc.seccomp.profile = {folder}/policy\n"
    )
    return folder


def _lxc(container: Path, policy: str) -> str | None:
    """The filter that real LXC loads, from its log; None if it refuses the policy."""
    (container / "policy").write_text(policy)
    log = container / "log"
    log.unlink(missing_ok=True)
    argv = ["lxc-start", "-P", str(container.parent), "-n", container.name, "-F", "-l", "TRACE", "-o", str(log)]
    subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=30, check=False)
    found = re.search(r"^# pseudo filter code start\n.*?^# pseudo filter code end\n", log.read_text(), re.S | re.M)
    return found.group() if found else None


@pytest.mark.parametrize("which", POLICIES)
def test_the_filters_are_the_same(container: Path, which: str) -> None:
    if os.uname().machine != "x86_64":
        pytest.skip("the policies are written for x86_64")
    theirs = _lxc(container, POLICIES[which])
    assert theirs is not None
    ours = seccomp.explain(seccomp.parse(POLICIES[which], "f"))
    assert [line for line in ours.splitlines() if line != "#"] == [line for line in theirs.splitlines() if line != "#"]


@pytest.mark.parametrize("which", BROKEN)
def test_what_lxc_refuses_we_refuse(container: Path, which: str) -> None:
    assert _lxc(container, BROKEN[which]) is None
    with pytest.raises(SecurityError):
        seccomp.compile(seccomp.parse(BROKEN[which], "f"))
