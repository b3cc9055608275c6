"""From a template to a container's root filesystem: mirrors and suites, the cache, what is each container's own."""

from __future__ import annotations

import itertools
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from debcreate import Creation, tiny_template
from debmirror import Archive, Key, Server, date, tiny
from probes import requires

from lxcpy.bootstrap import template as templates
from lxcpy.errors import BootstrapError, UsageError

pytestmark = [requires("root", "gpg", "gpgv", "busybox"), pytest.mark.usefixtures("cache")]


@pytest.fixture
def archive(archive: Archive) -> Archive:
    tiny(archive)
    return archive


@pytest.fixture
def debian(tmp_path: Path) -> templates.Template:
    return tiny_template(tmp_path / "template")


@pytest.fixture
def create(debian: templates.Template, server: Server, key: Key, tmp_path: Path) -> Creation:
    return Creation(debian, server, key, tmp_path)


def test_a_container_gets_what_is_its_own(archive: Archive, create: Creation, tmp_path: Path) -> None:
    archive.publish("tiny", codename="tiny", fields={"Suite": "stable"})
    public = tmp_path / "key.pub"
    public.write_text("ssh-ed25519 AAAA me")
    nic = "lxc.net.0.type = veth\nlxc.net.0.link = br0\n"
    one = create("-S", str(public), "--password=s$(x) '", config=nic)
    root = one / "rootfs"
    assert (root / "etc/hostname").read_text() == "c1\n"
    assert "127.0.1.1 c1\n" in (root / "etc/hosts").read_text()
    assert (root / "etc/apt/sources.list").read_text() == f"deb {create.server.url} tiny main\n"
    assert (root / "root/.ssh/authorized_keys").read_text() == "ssh-ed25519 AAAA me\n"
    assert (root / "root/.ssh").stat().st_mode & 0o777 == 0o700
    assert (root / "root/.ssh/authorized_keys").stat().st_mode & 0o777 == 0o600
    assert (root / "chpasswd").read_text() == "root:s$(x) '\n"
    assert os.readlink(root / "etc/mtab") == "/proc/self/mounts"
    assert len((root / "etc/machine-id").read_text().strip()) == 32
    config = (one / "config").read_text()
    assert config.startswith("lxc.net.0.type = veth\nlxc.net.0.hwaddr = 00:16:3e:")
    for line in ("lxc.include = /usr/share/lxc/config/debian.common.conf", "lxc.uts.name = c1", "lxc.arch = amd64",
                 "lxc.tty.max = 4", "lxc.pty.max = 1024"):  # fmt: skip
        assert f"\n{line}\n" in config
    two = create(config="lxc.tty.max = 2\n")
    assert (two / "rootfs/etc/machine-id").read_text() != (root / "etc/machine-id").read_text()
    assert not (two / "rootfs/root/.ssh").exists()
    assert "lxc.tty.max = 2\nlxc.uts.name = c2\n" in (two / "config").read_text()


def test_host_keys_that_take_long_are_made_ahead(
    archive: Archive, create: Creation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RSA's comes from the host's ssh-keygen, the others from the system's own; where the host's fails, all do."""
    keygen = b'#!/bin/sh\necho "$3 of the system" >"$9"\necho "$3 of the system" >"$9.pub"\n'
    files = {"usr/bin/ssh-keygen": (keygen, 0o755), "etc/ssh/sshd_config": b""}
    archive.add({"Package": "openssh-server", "Depends": "dpkg"}, files)
    archive.publish("tiny", codename="tiny", fields={"Suite": "stable"})
    found = []
    for _ in range(2):
        one = create("--packages=openssh-server")
        ssh = one / "rootfs/etc/ssh"
        derived = subprocess.run(["ssh-keygen", "-y", "-f", ssh / "ssh_host_rsa_key"], capture_output=True, text=True)
        public = (ssh / "ssh_host_rsa_key.pub").read_text()
        assert public.split()[:2] == derived.stdout.split()[:2]
        assert public.split()[2:] == [f"root@{one.name}"]
        assert [stat.S_IMODE((ssh / f"ssh_host_rsa_key{end}").stat().st_mode) for end in ("", ".pub")] == [0o600, 0o644]
        for kind in ("ecdsa", "ed25519"):
            assert (ssh / f"ssh_host_{kind}_key").read_text() == f"{kind} of the system\n"
        assert sorted(os.listdir(one)) == ["config", "rootfs"]
        found.append(public)
    assert found[0] != found[1]
    # Nothing is made ahead for a system that has no daemon.
    assert not (create() / "rootfs/etc/ssh").exists()
    broken = tmp_path / "bin/ssh-keygen"
    broken.parent.mkdir()
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{broken.parent}:{os.environ['PATH']}")
    ssh = create("--packages=openssh-server") / "rootfs/etc/ssh"
    assert (ssh / "ssh_host_rsa_key").read_text() == "rsa of the system\n"


def test_a_creation_that_fails_leaves_no_host_key(archive: Archive, create: Creation) -> None:
    """Its ssh-keygen is ended, and its draft is gone."""
    archive.publish("tiny", codename="tiny", fields={"Suite": "stable"})
    with pytest.raises(BootstrapError, match="openssh-server"):
        create("--packages=openssh-server")
    assert sorted(os.listdir(create.directory(1))) == ["config", "rootfs"]


def test_a_suite_is_followed_to_its_code_name(archive: Archive, create: Creation) -> None:
    """`stable` became another release than the template knows, and its own file on the mirror is old."""
    archive.publish("newer", codename="newer", fields={"Suite": "stable"})
    archive.publish("stable", codename="newer", fields={"Valid-Until": date(-86400)})
    archive.publish("tiny", codename="tiny", fields={"Suite": "oldstable"})
    root = create() / "rootfs"
    assert " newer main" in (root / "etc/apt/sources.list").read_text()
    # An old file that leads to what is no longer stable is not followed.
    archive.publish("stable", codename="tiny")
    with pytest.raises(BootstrapError, match='says that "stable" is tiny, and tiny says that it is "oldstable"'):
        create()


def test_security_updates_are_installed(archive: Archive, create: Creation, key: Key, tmp_path: Path) -> None:
    archive.publish("tiny", fields={"Suite": "stable"})
    archive.stanzas.clear()
    archive.add({"Package": "extra", "Version": "1+sec", "Depends": "dpkg, virtual"}, {"usr/share/extra": b"safe\n"})
    archive.publish("tiny-security", codename="tiny-security")
    root = create(security=True) / "rootfs"
    assert (root / "usr/share/extra").read_text() == "safe\n"
    assert f"deb {create.server.url} tiny-security main\n" in (root / "etc/apt/sources.list").read_text()
    # Changed on its way is no reason to go on without.
    path = archive.root / "dists/tiny-security/InRelease"
    path.write_bytes(path.read_bytes().replace(b"Origin: Tiny", b"Origin: Evil"))
    with pytest.raises(BootstrapError, match="bad signature"):
        create(security=True)


@pytest.fixture
def varied(
    debian: templates.Template, server: Server, key: Key, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Creation]:
    """Containers of the template with some settings changed; its own security mirror is the server."""
    monkeypatch.setattr("lxcpy.bootstrap.hostapt.sources", lambda: [])
    count = itertools.count()

    def make(**settings: str) -> Creation:
        changed = debian._replace(settings={**debian.settings, "security_mirror": server.url, **settings})
        return Creation(changed, server, key, tmp_path / f"base{next(count)}")

    return make


def test_security_updates_are_not_kept_back(archive: Archive, varied: Callable[..., Creation], tmp_path: Path) -> None:
    """Their mirror answers 404, or not at all, or its release file is old: a failure."""
    archive.publish("tiny", fields={"Suite": "stable"})
    gone = Server(tmp_path / "nothing")
    gone.stop()
    for settings in ({}, {"security_mirror": gone.url}):
        with pytest.raises(BootstrapError, match=r"security updates of tiny cannot be had: .*tiny-sec") as caught:
            varied(**settings)(security=None)
        assert "--security-mirror=none does without the updates" in str(caught.value.hint)
    archive.publish("tiny-security", codename="tiny-security", fields={"Valid-Until": date(-86400)})
    with pytest.raises(BootstrapError, match=r"the security updates of tiny cannot be had: .* is out of date since "):
        varied()(security=None)


def test_who_may_go_without_security_updates(archive: Archive, varied: Callable[..., Creation]) -> None:
    """Who asks for it; suites that have none, or may have none; an architecture that the signed file does not name."""
    archive.publish("tiny", fields={"Suite": "stable"})
    for words, settings in (
        (["--security-mirror=none"], {}),
        ([], {"no_pockets": "tiny"}),
        ([], {"may_lack_security": "tiny"}),
    ):
        create = varied(**settings)
        root = create(*words, security=None) / "rootfs"
        assert (root / "etc/apt/sources.list").read_text() == f"deb {create.server.url} tiny main\n"
    archive.publish("tiny-security", codename="tiny-security", arch="i386")
    assert (varied()(security=None) / "rootfs/etc/hostname").exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--variant=nonsense"], 'there is no variant "nonsense"'),
        (["-a", "vax"], "machine cannot run programs for vax"),
        (["--password=a:b"], "--password: it must not hold a colon or a control character"),
        (["-S", "/nowhere"], '--auth-key: cannot read "/nowhere": No such file or directory'),
    ],
)
def test_nonsense_is_refused_before_anything_is_done(
    archive: Archive, create: Creation, words: list[str], said: str
) -> None:
    archive.publish("tiny", fields={"Suite": "stable"})
    with pytest.raises(UsageError) as caught:
        create(*words)
    assert said in caught.value.what
    assert create.server.requests == []


def test_a_private_key_is_not_given_away(create: Creation, tmp_path: Path) -> None:
    private = tmp_path / "id"
    private.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\n")
    with pytest.raises(UsageError, match="is a private key"):
        create("-S", str(private))
