"""What a copy changes: its config's text, its storage, its names, its mounts. No rights needed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from lxcpy.errors import LxcpyError, StorageError, UsageError
from lxcpy.runtime import clones, copynames, ephemeral, snapnames
from lxcpy.runtime.copy import Choice, choose, with_lines
from lxcpy.runtime.copyconfig import (
    Change,
    File,
    moved,
    moved_paths,
    rewrite,
    rewrite_fstab,
    rewrite_included,
)

ORIGINAL = """\
# made by hand

lxc.rootfs.path = dir:/lp/a/rootfs
  lxc.uts.name = a
lxc.net.0.type = veth
lxc.net.0.hwaddr = 00:16:3e:11:22:33
#lxc.net.1.hwaddr = 00:16:3e:11:22:44
lxc.hook.start-host = "/lp/a/hooks/up.sh one two"
lxc.hook.stop = /lp/abc/down.sh
lxc.mount.fstab = /lp/a/fstab
lxc.mount.entry = /srv srv overlay lowerdir=/srv,upperdir=/lp/a/up,workdir=/lp/a/work
a martian
"""


def copied(content: str, **fields: object) -> tuple[str, list[File]]:
    settings: dict[str, object] = {
        "old": "/lp/a", "new": "/lp/b", "rootfs": "dir:/lp/b/rootfs", "name": "b", "new_macs": True, **fields,
    }  # fmt: skip
    return rewrite(content, Change(**settings), random.Random(1))  # type: ignore[arg-type]


def test_the_lines_of_a_copy() -> None:
    content, files = copied(ORIGINAL, fstab="/lp/a/fstab")
    mac = content.split("lxc.net.0.hwaddr = ")[1][:17]
    assert mac.startswith("10:66:6a:") and mac != "10:66:6a:xx:xx:xx"
    assert content == (
        "# made by hand\n"
        "\n"
        "lxc.net.0.type = veth\n"
        f"lxc.net.0.hwaddr = {mac}\n"
        "#lxc.net.1.hwaddr = 00:16:3e:11:22:44\n"
        'lxc.hook.start-host = "/lp/b/hooks/up.sh one two"\n'
        "lxc.hook.stop = /lp/abc/down.sh\n"
        "lxc.mount.entry = /srv srv overlay lowerdir=/srv,upperdir=/lp/b/up,workdir=/lp/b/work\n"
        "a martian\n"
        "lxc.rootfs.path = dir:/lp/b/rootfs\n"
        "lxc.uts.name = b\n"
        "lxc.mount.fstab = /lp/b/fstab\n"
    )
    assert files == [
        File("lxc.hook.start-host", "/lp/a/hooks/up.sh", "/lp/b/hooks/up.sh"),
        File("lxc.mount.fstab", "/lp/a/fstab", "/lp/b/fstab"),
    ]


def test_what_is_kept_on_demand() -> None:
    content, _ = copied(ORIGINAL, name=None, new_macs=False)
    assert "  lxc.uts.name = a\n" in content
    assert "lxc.net.0.hwaddr = 00:16:3e:11:22:33\n" in content
    assert content.endswith("a martian\nlxc.rootfs.path = dir:/lp/b/rootfs\n")


def test_names_of_another_era() -> None:
    old = "lxc.utsname=a\nlxc.rootfs=/lp/a/rootfs\nlxc.rootfs.backend = dir\nlxc.network.type=veth\n"
    content, _ = copied(old + "lxc.network.hwaddr=00:16:3e:11:22:33\nlxc.mount=/etc/a.fstab", fstab="/etc/a.fstab")
    lines = content.splitlines()
    assert lines[0] == "lxc.network.type=veth"
    assert lines[1].startswith("lxc.network.hwaddr=10:66:6a:")
    assert lines[2:] == [
        "lxc.rootfs.path = dir:/lp/b/rootfs", "lxc.uts.name = b", "lxc.mount.fstab = /lp/b/a.fstab",
    ]  # fmt: skip


def test_line_ends_and_a_missing_last_one() -> None:
    content, _ = copied("lxc.uts.name = a\r\nlxc.arch = x86_64", fstab="")
    assert content == "lxc.arch = x86_64\nlxc.rootfs.path = dir:/lp/b/rootfs\nlxc.uts.name = b\n"
    content, _ = copied("lxc.arch = x86_64\r\n")
    assert content == "lxc.arch = x86_64\r\nlxc.rootfs.path = dir:/lp/b/rootfs\r\nlxc.uts.name = b\r\n"


def test_a_hook_that_only_seems_to_be_the_originals_own() -> None:
    content, files = copied("lxc.hook.stop = /lp/a/../other/x.sh\nlxc.hook.stop = echo /lp/a/x.sh\n")
    assert content.startswith("lxc.hook.stop = /lp/a/../other/x.sh\nlxc.hook.stop = echo /lp/a/x.sh\n")
    assert files == []


def test_done_twice_is_done_once() -> None:
    """A rename that was cut short is done again."""
    text = moved(ORIGINAL, "/lp/a", "/lp/b")
    assert moved(text, "/lp/a", "/lp/b") == text
    change = Change("/lp/b", "/lp/b", "dir:/lp/b/rootfs", "b", fstab="/lp/b/fstab")
    once, files = rewrite(text, change)
    assert rewrite(once, change) == (once, files)
    assert all(file.source == file.target for file in files)


def test_a_config_whose_directory_has_another_name() -> None:
    assert moved(
        "lxc.rootfs.path = overlay:/lp/a/rootfs:/lp/a/overlay/delta\n"
        "lxc.include = /lp/a/more.conf\n"
        'lxc.hook.stop = "/lp/a/x.sh /lp/a/data"\n'
        "lxc.mount.entry = /lp/a/data mnt none bind 0 0\n"
        "lxc.mount.entry = /lp/abc /lp/a/rootfs/x overlay lowerdir=/srv/lp/a/y:/lp/a/y,upperdir=/lp/a/up\n"
        "lxc.mount.auto = shmounts:/lp/a/shared:/x\n"
        "lxc.seccomp.profile=/lp/a/filter\n"
        "lxc.console.logfile = /lp/a/log\n"
        "lxc.init.cmd = /lp/a/init\n"
        "# /lp/a/x\n",
        "/lp/a",
        "/lp/b",
    ) == (
        "lxc.rootfs.path = overlay:/lp/b/rootfs:/lp/b/overlay/delta\n"
        "lxc.include = /lp/b/more.conf\n"
        'lxc.hook.stop = "/lp/b/x.sh /lp/b/data"\n'
        "lxc.mount.entry = /lp/b/data mnt none bind 0 0\n"
        "lxc.mount.entry = /lp/abc /lp/b/rootfs/x overlay lowerdir=/srv/lp/a/y:/lp/b/y,upperdir=/lp/b/up\n"
        "lxc.mount.auto = shmounts:/lp/b/shared:/x\n"
        "lxc.seccomp.profile=/lp/b/filter\n"
        "lxc.console.logfile = /lp/b/log\n"
        "lxc.init.cmd = /lp/a/init\n"
        "# /lp/a/x\n"
    )
    assert moved_paths(r"/l\040p/a/x", "/l p/a", "/l p/b") == r"/l\040p/b/x"


def test_files_that_a_config_names() -> None:
    content, files = copied(
        "lxc.include = /lp/a/inc.conf\n"
        "lxc.include = inc.d\n"
        "lxc.include = ../common.conf\n"
        "lxc.net.0.script.up = /lp/a/up.sh\n"
        "lxc.seccomp.profile = /lp/a/my filter\n"
        "lxc.console.logfile = /lp/a/console.log\n"
        "lxc.log.file = /var/log/lxc/a.log\n"
        "lxc.hook.pre-start = /lp/a/rootfs/hook.sh\n"
    )
    assert content == (
        "lxc.include = /lp/b/inc.conf\n"
        "lxc.include = inc.d\n"
        "lxc.include = ../common.conf\n"
        "lxc.net.0.script.up = /lp/b/up.sh\n"
        "lxc.seccomp.profile = /lp/b/my filter\n"
        "lxc.console.logfile = /lp/b/console.log\n"
        "lxc.log.file = /var/log/lxc/a.log\n"
        "lxc.hook.pre-start = /lp/b/rootfs/hook.sh\n"
        "lxc.rootfs.path = dir:/lp/b/rootfs\n"
        "lxc.uts.name = b\n"
    )
    assert files == [
        File("lxc.include", "/lp/a/inc.conf", "/lp/b/inc.conf"),
        File("lxc.include", "/lp/a/inc.d", "/lp/b/inc.d"),
        File("lxc.net.[i].script.up", "/lp/a/up.sh", "/lp/b/up.sh"),
        File("lxc.seccomp.profile", "/lp/a/my filter", "/lp/b/my filter"),
    ]
    kept, files = copied(
        "lxc.hook.pre-start = /lp/a/rootfs/hook.sh\n", rootfs="overlay:/lp/a/rootfs:/lp/b/overlay/delta"
    )
    assert (kept.splitlines()[0], files) == ("lxc.hook.pre-start = /lp/a/rootfs/hook.sh", [])


def test_mounts_on_a_path_of_the_original() -> None:
    """LXC of old wrote a target with the path of the root filesystem in front."""
    lines = (
        "proc /lp/a/rootfs/proc proc nodev 0 0\n"
        "/srv\t/lp/a/rootfs none bind 0 0\n"
        "/srv /lp/a/rootfs2/x none bind 0 0\n"
        "/lp/a/rootfs/x /mnt/a/srv none bind 0 0\n"
        "/srv srv none bind 0 0\n"
    )
    made = (
        "proc /lp/b/rootfs/proc proc nodev 0 0\n"
        "/srv\t/lp/b/rootfs none bind 0 0\n"
        "/srv /lp/a/rootfs2/x none bind 0 0\n"
        "/lp/a/rootfs/x /lp/b/rootfs/srv none bind 0 0\n"
        "/srv srv none bind 0 0\n"
    )
    change = Change("/lp/a", "/lp/b", "dir:/lp/b/rootfs", old_rootfs="/mnt/a")
    assert rewrite_fstab("# x\n" + lines, change) == "# x\n" + made
    config = "".join(f"lxc.mount.entry = {line}\n" for line in lines.splitlines())
    wanted = "".join(f"lxc.mount.entry = {line}\n" for line in made.splitlines())
    assert rewrite(config, change)[0] == wanted + "lxc.rootfs.path = dir:/lp/b/rootfs\n"


def test_an_included_file_of_the_originals_own() -> None:
    change = Change("/lp/a", "/lp/b", "dir:/lp/b/rootfs", "b", new_macs=True)
    content, files = rewrite_included(
        "lxc.uts.name = x\nlxc.net.0.hwaddr = 00:16:3e:11:22:33\nlxc.include = sub/z.conf\n", change, "/lp/a/inc.d"
    )
    assert content.startswith("lxc.uts.name = x\nlxc.net.0.hwaddr = 10:66:6a:")
    assert files == [File("lxc.include", "/lp/a/inc.d/sub/z.conf", "/lp/b/inc.d/sub/z.conf")]


@pytest.mark.parametrize(
    ("kind", "options", "expected"),
    [
        ("dir", {}, Choice("dir", False)),
        ("dir", {"snapshot": True}, Choice("overlay", True)),
        ("dir", {"snapshot": True, "backing": "overlayfs"}, Choice("overlay", True)),
        ("dir", {"same_path": False}, Choice("dir", False)),
        ("overlay", {"snapshot": True}, Choice("overlay", True)),
        ("overlay", {"same_path": False}, Choice("dir", False)),
        ("overlay", {"backing": "dir"}, Choice("dir", False)),
    ],
)
def test_the_storage_of_a_copy(kind: str, options: dict[str, object], expected: Choice) -> None:
    assert choose(kind, **{"same_path": True, "snapshot": False, **options}) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "options", "family", "said"),
    [
        ("overlay", {}, StorageError, "it can only be a snapshot clone"),
        ("dir", {"backing": "overlay"}, StorageError, "it can only be a snapshot clone"),
        ("dir", {"backing": "dir", "snapshot": True}, StorageError, "a directory cannot be a snapshot clone"),
        ("dir", {"backing": "bogus"}, UsageError, '"bogus" is not a valid backing storage type.'),
    ],
)
def test_storage_that_is_refused(kind: str, options: dict[str, object], family: type[LxcpyError], said: str) -> None:
    with pytest.raises(family) as caught:
        choose(kind, **{"same_path": True, "snapshot": False, **options})  # type: ignore[arg-type]
    assert said in caught.value.what


def test_own_names_in_hosts() -> None:
    text = (
        "127.0.0.1 localhost\n127.0.1.1\tweb.lan web\n::1 web ip6-localhost\n10.0.3.9 web\n# 127 web\n"
        "127.0.1.2 my-web web2\n"
    )
    assert copynames.hosts(text, ["web"], "www") == (
        "127.0.0.1 localhost\n127.0.1.1\twww.lan www\n::1 www ip6-localhost\n10.0.3.9 web\n# 127 web\n"
        "127.0.1.2 my-web web2\n"
    )
    assert copynames.hosts(text, [], "www") == text
    assert copynames.network("NETWORKING=yes\nHOSTNAME=web\n", ["web"], "www") == "NETWORKING=yes\nHOSTNAME=www\n"


def test_mounts_of_a_temporary_clone() -> None:
    mount = ephemeral.Mount
    assert ephemeral.parse_mounts("bind=/a") == (mount("bind", "/a", "a"),)
    assert ephemeral.parse_mounts("bind=/a:/b,overlay=/c:/d/../e") == (
        mount("bind", "/a", "b"), mount("overlay", "/c", "e"),
    )  # fmt: skip
    assert ephemeral.parse_mounts("bind=/a:ro") == (mount("bind", "/a", "a", "ro"),)
    assert ephemeral.parse_mounts("bind=a:/b:rw") == (mount("bind", "/a", "b"),)
    assert ephemeral.parse_mounts("bind=//a/:/b") == (mount("bind", "/a", "b"),)


REFUSED = ("/a", "tmp=/a", "bind=", "bind=/", "bind=/a:/b:xx", "overlay=/a:/b:ro", "bind=/a:/..")


@pytest.mark.parametrize("text", REFUSED)
def test_mounts_that_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"begin|excess|no source|root of"):
        ephemeral.parse_mounts(text)


def test_lines_at_the_end() -> None:
    assert with_lines("a", [("lxc.ephemeral", "1")]) == "a\nlxc.ephemeral = 1\n"
    assert with_lines("", [("lxc.mount.entry", " x ")]) == 'lxc.mount.entry = " x "\n'


def test_clones_are_noted_and_forgotten(tmp_path: Path) -> None:
    lxcpath = str(tmp_path)
    for name in ("base", "one", "two"):
        (tmp_path / name).mkdir()
    base = [(lxcpath, "base")]
    clones.register(base, lxcpath, "one")
    clones.register(base, lxcpath, "two")
    clones.register(base, lxcpath, "two")
    assert (tmp_path / "base/lxc_snapshots").read_text() == f"{lxcpath}\none\n{lxcpath}\ntwo\n"
    assert clones.dependents(f"{lxcpath}/base") == [(lxcpath, "one"), (lxcpath, "two")]
    (tmp_path / "one").rmdir()  # gone without a word, as LXC of old let it happen
    assert clones.dependents(f"{lxcpath}/base") == [(lxcpath, "two")]
    clones.forget(base, lxcpath, "one")
    clones.forget(base, lxcpath, "two")
    clones.forget([(lxcpath, "nobody")], lxcpath, "two")
    assert not (tmp_path / "base/lxc_snapshots").exists()
    with pytest.raises(LxcpyError, match='the original "nobody"'):
        clones.register([(lxcpath, "nobody")], lxcpath, "two")


def test_clones_that_an_old_lxc_only_counted(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    noted = tmp_path / "base/lxc_snapshots"
    noted.write_text("2\n")
    with pytest.raises(LxcpyError, match="2 clones depend on it"):
        clones.check_none(f"{tmp_path}/base", "no")
    clones.register([(str(tmp_path), "base")], str(tmp_path), "new")
    assert noted.read_text() == "3\n"
    for left in ("2\n", "1\n", "0\n"):
        clones.forget([(str(tmp_path), "base")], str(tmp_path), "new")
        assert noted.read_text() == left
    clones.check_none(f"{tmp_path}/base", "no")


def test_snapshots_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("snap10", "snap2", "snap0"):
        (tmp_path / "web/snaps" / name).mkdir(parents=True)
        (tmp_path / "web/snaps" / name / "config").touch()
    (tmp_path / "web/snaps/snap3").mkdir()
    (tmp_path / "web/snaps/snap2/partial").touch()
    assert snapnames.names(str(tmp_path), "web") == ["snap0", "snap10"]
    assert snapnames.unfinished(str(tmp_path), "web") == ["snap2"]
    old = tmp_path.parent / f"{tmp_path.name}snaps"
    old.mkdir()
    assert snapnames.folder(str(tmp_path), "web") == f"{old}/web"
    assert snapnames.names(str(tmp_path), "web") == []
