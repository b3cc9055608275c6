"""Executables of LXC's template contract, LXC's own among them: called as LXC calls them, with the same outcome."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import images
import pytest
from images import MAPPED, Run
from probes import requires

pytestmark = requires("root", "busybox", "lxc", "lxc-templates")
SPY = """#!/bin/sh
for word; do case $word in --path=*) path=${word#*=};; --rootfs=*) rootfs=${word#*=};; esac; done
exec >"$path/spied"
echo "words $*"
echo "umask $(umask) cwd $(pwd) id $(id -u):$(id -g):$(id -G)"
echo "cache $LXC_CACHE_PATH given $GIVEN"
cat /proc/self/uid_map /proc/self/gid_map
cat "$path/config"
stat -c '%u:%g:%a' "$rootfs" "$path" "$path/config"
ls "$path"
touch "$rootfs/made" || echo no
echo lxc.uts.name = spied >>"$path/config"
chown 5:6 "$rootfs/made"
mount -t tmpfs none /mnt && touch /mnt/here
exit 0
"""


def both(lxcpath: str, run: Run, names: Callable[[], str], words: list[str], **options: object) -> tuple[str, str]:
    """The names of our container and theirs, made by the same words."""
    one, two = names(), names()
    made = run("create", "-P", lxcpath, "-n", one, *words, **options)
    assert made.returncode == 0, made.stderr
    argv = ["lxc-create", "-P", lxcpath, "-n", two, *words]
    settings = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, **options}
    theirs = subprocess.run(argv, **settings)  # type: ignore[call-overload]
    assert theirs.returncode == 0, theirs.stdout + theirs.stderr
    return one, two


def destroy(run: Run, lxcpath: str, *names: str) -> None:
    for name in names:
        assert run("destroy", "-P", lxcpath, "-n", name).returncode == 0


def plain(text: str, name: str) -> str:
    return re.sub(rf"(?<![\w-]){name}(?![\w-])", "NAME", text)


@pytest.mark.parametrize("mapped", [False, True], ids=["", "idmapped"])
def test_a_template_is_called_as_by_lxc(
    run: Run, lxcpath: str, names: Callable[[], str], tmp_path: Path, mapped: bool
) -> None:
    spy = tmp_path / "spy"
    spy.write_text(SPY)
    spy.chmod(0o755)
    for path in (tmp_path, *list(tmp_path.parents)[:2]):
        path.chmod(0o755)
    config = tmp_path / "begin.conf"
    config.write_text("lxc.net.0.type = empty\n" + (MAPPED if mapped else ""))
    env = {**os.environ, "LXC_CACHE_PATH": "/some/where", "GIVEN": "it"}
    words = ["-t", str(spy), "-f", str(config), "--", "-x", "a  b", "--long=1"]
    one, two = both(lxcpath, run, names, words, env=env, cwd="/tmp")
    ours, theirs = (plain(Path(lxcpath, name, "spied").read_text(), name) for name in (one, two))
    assert ours == theirs
    assert not os.path.exists("/mnt/here")
    for name in (one, two):
        status = Path(lxcpath, name, "rootfs/made").stat()
        assert (status.st_uid, status.st_gid) == ((700005, 700006) if mapped else (5, 6))
        assert Path(lxcpath, name, "config").read_text().endswith("lxc.uts.name = spied\n")
    destroy(run, lxcpath, one, two)


@pytest.mark.parametrize("mapped", [False, True], ids=["", "idmapped"])
@pytest.mark.parametrize("template", ["/usr/share/lxc/templates/lxc-busybox", "/usr/share/lxc/templates/lxc-local"])
def test_lxcs_own_templates(
    run: Run, lxcpath: str, names: Callable[[], str], tmp_path: Path, template: str, mapped: bool
) -> None:
    """The same tree and config as under lxc-create; the container starts."""
    config = tmp_path / "begin.conf"
    config.write_text("lxc.net.0.type = empty\n" + (MAPPED if mapped else ""))
    words = ["-t", template, "-f", str(config)]
    if template.endswith("local"):
        source = images.system(tmp_path / "source")
        os.unlink(source / "dev/null")
        meta = images.meta(tmp_path / "meta.tar.xz")
        words += ["--", "-m", str(meta), "-f", str(images.pack(source, tmp_path / "rootfs.tar.xz"))]
        for path in (tmp_path, *list(tmp_path.parents)[:2]):
            path.chmod(0o755)
    one, two = both(lxcpath, run, names, words)
    mine, other = (
        {
            path: facts[:-1]
            for path, facts in images.tree(Path(lxcpath, name, "rootfs")).items()
            if "greeting" not in path
        }
        for name in (one, two)
    )
    assert mine == other
    mine_config, other_config = (plain(Path(lxcpath, name, "config").read_text(), name) for name in (one, two))
    assert [line for line in mine_config.splitlines() if line[:1] not in "#"] == [
        line for line in other_config.splitlines() if line[:1] not in "#"
    ]
    if not mapped:
        started = run("start", "-P", lxcpath, "-n", one)
        assert started.returncode == 0, started.stderr
        assert run("stop", "-P", lxcpath, "-n", one, "-t", "20").returncode == 0
    destroy(run, lxcpath, one, two)


def test_help_of_lxcs_templates(run: Run) -> None:
    for name in ("sshd", "cirros", "/usr/share/lxc/templates/lxc-download", "/usr/share/lxc/templates/lxc-oci"):
        ours = run("create", "-t", name, "-h")
        assert ours.returncode == 0
        script = name if name.startswith("/") else f"/usr/share/lxc/templates/lxc-{name}"
        told = subprocess.run([script, "-h"], capture_output=True, text=True)
        assert (told.stdout + told.stderr).strip() in ours.stdout + ours.stderr


def test_what_a_template_does_wrong(run: Run, lxcpath: str, name: str, tmp_path: Path) -> None:
    template = tmp_path / "template"
    spoil = "for word; do case $word in --path=*) echo lxc.nonsense = 1 >>${word#*=}/config;; esac; done"
    for text, said in (
        ("#!/bin/sh\nexit 3\n", "ended with status 3\n  hint: its own words are above"),
        ("#!/bin/sh\nkill -9 $$\n", "was killed by signal 9"),
        ("#!/no/such/interpreter\n", f'cannot run the template "{template}": No such file or directory'),
        ("not a program\n", f'cannot run the template "{template}": Exec format error'),
        (f"#!/bin/sh\n{spoil}\n", "lxc.nonsense"),
    ):
        template.write_text(text)
        template.chmod(0o755)
        done = run("create", "-P", lxcpath, "-n", name, "-t", str(template))
        assert (done.returncode, said in done.stderr, "Traceback" in done.stderr) == (1, True, False), done.stderr
        assert os.listdir(lxcpath) == []


def test_none_is_lxcs(run: Run, lxcpath: str, names: Callable[[], str], tmp_path: Path) -> None:
    config = tmp_path / "begin.conf"
    config.write_text("lxc.net.0.type = empty\nlxc.uts.name = x\n")
    one, two = both(lxcpath, run, names, ["-t", "none", "-f", str(config)])
    found = [sorted(path.name for path in Path(lxcpath, name).iterdir()) for name in (one, two)]
    assert found[0] == found[1]
    ours, theirs = (plain(Path(lxcpath, name, "config").read_text(), name) for name in (one, two))
    assert [line for line in ours.splitlines() if line[:4] == "lxc."] == [
        line for line in theirs.splitlines() if line[:4] == "lxc."
    ]
    destroy(run, lxcpath, one, two)


# Where our busybox template differs from LXC's, and why.
BUSYBOX_LINES = {
    'lxc.uts.name = "NAME"': "the quotes are LXC's slip", "lxc.uts.name = NAME": "",
    "lxc.autodev = 1": "the default",
    "lxc.pty.max = 1": "too few for attach and console at once", "lxc.pty.max = 1024": "",
    "lxc.mount.auto = cgroup:mixed proc:mixed sys:ro": "the network's settings are the container's own",
    "lxc.mount.auto = cgroup:mixed proc:mixed sys:mixed": "",
    "lxc.mount.entry = shm dev/shm tmpfs defaults,create=dir 0 0": "no devices, no setuid programs there",
    "lxc.mount.entry = shm dev/shm tmpfs rw,nosuid,nodev,create=dir 0 0": "",
    "lxc.mount.entry = /sys/kernel/security sys/kernel/security none ro,bind,optional 0 0": "the host's own",
    **{f"lxc.mount.entry = /{place} {place} none ro,bind 0 0": "a static busybox needs none of the host's libraries"
       for place in ("lib", "usr/lib", "lib64", "usr/lib64")},
}  # fmt: skip
BUSYBOX_FILES = {
    "bin/init": "sbin/init is it",
    "etc/hostname": "LXC has none",
    "etc/init.d/rcS": "udhcpc in the background",
    "etc/shadow": "the table of passwords is empty and readable in LXC",
    "etc/udhcpc": "a folder needs its x",
    "etc/udhcpc/default.script": "shorter",
    "etc/fstab": "a comment",
    "etc/group": "",
    "etc/passwd": "",
    "etc/inittab": "",
}


def test_busybox_is_lxcs_but_for_a_written_list(
    run: Run, lxcpath: str, names: Callable[[], str], tmp_path: Path
) -> None:
    config = tmp_path / "begin.conf"
    config.write_text("lxc.net.0.type = empty\n")
    one, two = both(lxcpath, run, names, ["-t", "busybox", "-f", str(config)])
    lines = [
        {
            line
            for line in plain(Path(lxcpath, name, "config").read_text(), name).splitlines()
            if line[:1] not in ("#", "")
        }
        for name in (one, two)
    ]
    assert (lines[0] ^ lines[1]) - {"lxc.rootfs.path"} <= BUSYBOX_LINES.keys()
    mine, other = (images.tree(Path(lxcpath, name, "rootfs")) for name in (one, two))
    different = {
        path for path in mine.keys() | other.keys() if (mine.get(path) or ())[:-1] != (other.get(path) or ())[:-1]
    }
    assert different <= BUSYBOX_FILES.keys()
    for path in ("etc/passwd", "etc/group", "etc/inittab"):
        one_text, two_text = (Path(lxcpath, name, "rootfs", path).read_text().strip() for name in (one, two))
        assert one_text == two_text
    destroy(run, lxcpath, one, two)
