"""lxcpy-create -t local: a container from a tarball, with metadata and without."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import images
import pytest
from images import MAPPED, Run, boots
from probes import requires

pytestmark = requires("root", "busybox")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "begin.conf"
    path.write_text("# mine\nlxc.net.0.type = empty\nlxc.environment = A=LXC_NAME\n")
    return path


@pytest.mark.parametrize("mapped", [False, True], ids=["", "idmapped"])
def test_with_metadata(run: Run, lxcpath: str, name: str, tmp_path: Path, config: Path, mapped: bool) -> None:
    source = images.system(tmp_path / "source")
    (source / "etc/hostname").write_text("LXC_NAME\n")
    os.chmod(source / "etc/hostname", 0o604)
    fstab = {"fstab": "tmpfs LXC_ROOTFS/mnt tmpfs size=4k,create=dir 0 0\n", "create-message": "Made for you.\n"}
    user = {
        "config-user": images.CONFIG + "lxc.include = LXC_TEMPLATE_CONFIG/userns.conf\n",
        "excludes-user": "./fifo\n",
    }
    meta = images.meta(tmp_path / "meta.tar.xz", {**fstab, **user})
    tarball = images.pack(source, tmp_path / "rootfs.tar.xz")
    if mapped:
        config.write_text(config.read_text() + MAPPED)
    words = ("-P", lxcpath, "-n", name)
    made = run("create", *words, "-t", "local", "-f", str(config), "--", "-m", str(meta), "-f", str(tarball))
    assert made.returncode == 0, made.stderr
    assert "Made for you.\n" in made.stderr
    root = Path(lxcpath, name, "rootfs")
    assert (root / "etc/greeting").read_text() == f"{name} at {lxcpath}/{name}\n"
    shift = 700000 if mapped else 0
    for path, owner, group, mode in (
        ("etc/hostname", 0, 0, 0o604),
        ("etc/secret", 7, 8, 0o640),
        ("usr/bin/special", 0, 0, 0o6755),
    ):
        status = (root / path).stat()
        assert (status.st_uid, status.st_gid, status.st_mode & 0o7777) == (owner + shift, group + shift, mode)
    assert (root / "fifo").exists() is not mapped
    assert (root / "dev/null").exists() is not mapped
    assert (
        Path(lxcpath, name, "fstab").read_text() == f"tmpfs {lxcpath}/{name}/rootfs/mnt tmpfs size=4k,create=dir 0 0\n"
    )
    text = Path(lxcpath, name, "config").read_text()
    own = text.index("# Container specific configuration\n")
    assert (
        text.index("# mine\n")
        < text.index("# Distribution configuration\nlxc.include = /usr/share/lxc/config/common.conf\n")
        < own
    )
    assert text[own:].splitlines()[1] == f"lxc.environment = A={name}"
    tail = f"lxc.mount.fstab = {lxcpath}/{name}/fstab\nlxc.uts.name = {name}\n"
    tail += "\n# Network configuration\nlxc.net.0.type = empty\n"
    assert text.endswith(tail)
    boots(run, words)


def test_without_metadata(run: Run, lxcpath: str, name: str, tmp_path: Path, config: Path) -> None:
    """The distribution's own preset serves, found by what the system calls itself."""
    source = images.system(tmp_path / "source")
    (source / "run").mkdir()  # alpine's preset mounts there
    (source / "etc/os-release").write_text('NAME="Alpine Linux"\nID=alpine\n')
    tarball = images.pack(source, tmp_path / "rootfs.tar")
    words = ("-P", lxcpath, "-n", name)
    made = run("create", *words, "-t", "local", "-f", str(config), "--", f"--fstree={tarball}", "--no-dev")
    assert made.returncode == 0, made.stderr
    text = Path(lxcpath, name, "config").read_text()
    assert "# Distribution configuration\nlxc.include = /usr/share/lxc/config/alpine.common.conf\n" in text
    assert os.listdir(Path(lxcpath, name, "rootfs/dev")) == ["pts"]
    with open(Path(lxcpath, name, "config"), "a") as file:
        file.write("lxc.signal.halt = SIGUSR1\n")
    boots(run, words)


@requires("mksquashfs", "unsquashfs")
def test_a_squashfs_image(run: Run, lxcpath: str, name: str, tmp_path: Path, config: Path) -> None:
    source = images.system(tmp_path / "source")
    image = tmp_path / "rootfs.squashfs"
    subprocess.run(["mksquashfs", str(source), str(image), "-quiet", "-no-progress", "-comp", "gzip"], check=True)
    meta = images.meta(tmp_path / "meta.tar.gz", {"templates": "etc/greeting\n"}, kind="z")
    words = ("-P", lxcpath, "-n", name)
    made = run("create", *words, "-t", "local", "-f", str(config), "--", "-m", str(meta), "-f", str(image))
    assert made.returncode == 0, made.stderr
    root = Path(lxcpath, name, "rootfs")
    (root / "etc/hostname").write_text(f"{name}\n")
    boots(run, words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "template local: which root filesystem?\n  hint: --fstree=FILE names its tar archive"),
        (("-f", "/nowhere"), 'cannot read the root filesystem "/nowhere": No such file or directory'),
        (("-f", "/dev/zero"), 'cannot read the root filesystem "/dev/zero": it is not a regular file'),
        (("-f", "/etc/passwd"), "/etc/passwd: damaged archive: bad tar header"),
        (("-f", "{tar}", "-m", "/etc/passwd"), "/etc/passwd: damaged archive: bad tar header"),
        (("-f", "{tar}", "-m", "{meta}"), "the image's metadata have no config"),
        (("-f", "{tar}", "-m", "{bad}"), "lxc.nonsense"),
        (("-f", "{tar}", "stray"), '"stray" is no option'),
    ],
)
def test_what_is_wrong_is_said_and_nothing_stays(
    run: Run, lxcpath: str, name: str, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    (tmp_path / "small").mkdir()
    values = {
        "tar": images.pack(tmp_path / "small", tmp_path / "t.tar"),
        "meta": images.meta(tmp_path / "m.tar.xz", {"config.9": ""}),
        "bad": images.meta(tmp_path / "b.tar.xz", {"config": "lxc.nonsense = 1\n"}),
    }
    if "{meta}" in words:
        import tarfile

        with tarfile.open(values["meta"], "w:xz"):
            pass
    argv = [word.format(**values) for word in words]
    done = run("create", "-P", lxcpath, "-n", name, "-t", "local", "--", *argv)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert os.listdir(lxcpath) == []
