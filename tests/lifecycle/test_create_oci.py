"""lxcpy-create -t oci: layouts, archives and a registry; what an image may not do."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from images import MAPPED, Run
from imageserver import certificate
from ociimages import CONFIG, INDEX, MANIFEST, Layout, Registry, layer, member
from probes import requires

pytestmark = requires("root", "busybox", "zstd")
APPLETS = ("sh", "cat", "id", "pwd", "sleep", "env", "hostname", "ls")
SCRIPT = b"""#!/bin/sh
trap 'exit 0' USR1
echo "$(id -u) $(id -g) $(id -G) $(pwd) $GREETING $1 $2" >/tmp/said
while :; do sleep 0.1; done
"""
SETTINGS = {
    "Entrypoint": ["/bin/sh", "/app"], "Cmd": ["two words", "it's"],
    "Env": ["GREETING=hello you", "PATH=/bin:/usr/bin"], "WorkingDir": "/work",
    "User": "www:staff", "StopSignal": "SIGUSR1",
}  # fmt: skip


def layers() -> list[bytes]:
    """Three: busybox, an application, and one that takes away."""
    program = shutil.which("busybox")
    assert program
    links = [member(f"bin/{name}", "busybox") for name in APPLETS]
    first = layer(
        member("bin/"), member("bin/busybox", Path(program).read_bytes(), mode=0o755), *links, member("etc/"),
        member("etc/passwd", b"root:x:0:0::/:/bin/sh\nwww:x:33:33::/:/bin/sh\n"),
        member("etc/group", b"root:x:0:\nwww:x:33:\nstaff:x:50:\nmore:x:60:www\n"), member("tmp/", mode=0o1777),
        member("old/"), member("old/file", b"x"), member("gone", b"x"), *map(member, ("proc/", "sys/", "dev/")),
    )  # fmt: skip
    second = layer(
        member("app", SCRIPT, mode=0o755, uid=33, gid=50), member("work/", uid=33, gid=50),
        member("etc/hosts", "/etc/passwd"), member("disk", b"", type=tarfile.BLKTYPE, devmajor=8, devminor=0),
    )  # fmt: skip
    third = layer(member(".wh.gone"), member("old/.wh..wh..opq"), member("old/new", b"new"))
    return [first, second, third]


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    found = Layout(tmp_path / "layout")
    found.tag(found.image(layers(), SETTINGS), "app")
    return found


class Creation:
    def __init__(self, run: Run, lxcpath: str, names: Callable[[], str], base: Path) -> None:
        self.run, self.lxcpath, self.names, self.base = run, lxcpath, names, base
        self.env = {**os.environ, "LXCPY_CACHE_DIR": str(base / "cache")}
        self.config = base / "begin.conf"
        self.config.write_text("lxc.net.0.type = empty\n")
        self.name = ""
        self.said = ""

    def __call__(self, url: str, *words: str) -> subprocess.CompletedProcess[str]:
        self.name = self.names()
        argv = ("create", "-P", self.lxcpath, "-n", self.name, "-t", "oci", "-f", str(self.config), "--", "-u", url)
        return self.run(*argv, *words, env=self.env)

    def good(self, url: str, *words: str) -> Path:
        done = self(url, *words)
        assert done.returncode == 0, done.stderr
        self.said = done.stderr
        return Path(self.lxcpath, self.name, "rootfs")

    def bad(self, url: str, *words: str) -> str:
        done = self(url, *words)
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
        assert not Path(self.lxcpath, self.name).exists()
        assert not [path for path in (self.base / "cache/rootfs").glob("*.partial") if path.exists()]
        return done.stderr.replace(str(self.base), "BASE")


@pytest.fixture
def create(run: Run, lxcpath: str, names: Callable[[], str], tmp_path: Path) -> Creation:
    return Creation(run, lxcpath, names, tmp_path)


def runs(create: Creation, run: Run) -> str:
    """Start it, and what the application says."""
    words = ("-P", create.lxcpath, "-n", create.name)
    started = run("start", *words)
    assert (started.returncode, started.stderr) == (0, "")
    said = run(
        "attach", *words, "--", "/bin/sh", "-c", "until test -s /tmp/said; do sleep 0.1; done; cat /tmp/said"
    ).stdout
    assert run("attach", *words, "--", "/bin/hostname").stdout == f"{create.name}\n"
    assert run("stop", *words, "-t", "20").returncode == 0
    assert run("destroy", *words).returncode == 0
    return said


@pytest.mark.parametrize("mapped", [False, True], ids=["", "idmapped"])
def test_an_image_runs(create: Creation, run: Run, layout: Layout, mapped: bool) -> None:
    if mapped:
        create.config.write_text(create.config.read_text() + MAPPED)
    root = create.good(f"oci:{layout.root}:app")
    assert not (root / "gone").exists()
    assert sorted(os.listdir(root / "old")) == ["new"]
    assert not (root / "disk").exists()
    assert ("1 device nodes of the image that no container may use were left out" in create.said) is not mapped
    assert (root / "app").stat().st_uid == (700033 if mapped else 33)
    assert "127.0.1.1" in (root / "etc/hosts").read_text()  # in place of the link, not through it
    assert "127.0.1.1" not in (root / "etc/passwd").read_text()
    assert runs(create, run) == "33 50 50 /work hello you two words it's\n"


def test_lxcpy_execute_runs_it_too(create: Creation, run: Run, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    layout.tag(
        layout.image(
            layers(), {"Entrypoint": ["/bin/sh", "-c", "echo $X $0 $(id -G)", "a  b"], "Env": ['X="1"'], "User": "www"}
        ),
        None,
    )
    create.good(str(layout.root))
    done = run("execute", "-P", create.lxcpath, "-n", create.name)
    assert (done.returncode, done.stdout) == (0, '"1" a b 33 60\n'), done.stderr


def test_an_archive_and_the_cache(create: Creation, layout: Layout) -> None:
    archive = create.base / "image.tar"
    subprocess.run(["tar", "-C", str(layout.root), "-cf", str(archive), "."], check=True)
    create.good(f"oci-archive:{archive}:app")
    packed = list((create.base / "cache/rootfs").glob("oci-*.packed"))
    assert len(packed) == 1
    root = create.good(f"{archive}:app")
    assert (root / "old/new").read_text() == "new"
    create.good(str(layout.root), "--no-cache")
    assert list((create.base / "cache/rootfs").glob("*.packed")) == packed


def test_the_image_for_this_machine_is_chosen(create: Creation, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")

    def image(word: str, arch: str) -> dict[str, object]:
        return layout.image([*layers(), layer(member("word", word.encode()))], SETTINGS, arch=arch)

    attestation = layout.json({"mediaType": MANIFEST, "config": {}, "layers": []}, MANIFEST)
    inner = layout.index(
        (image("arm", "arm64"), "arm64", ""), (image("mine", "amd64"), "amd64", ""), (attestation, "unknown", "")
    )
    layout.tag(layout.json({"mediaType": INDEX, "manifests": [inner]}, INDEX), "all")
    layout.tag(layout.index((image("v6", "arm"), "arm", "v6"), (image("v8", "arm"), "arm", "v8")), "arm")
    assert (create.good(f"oci:{layout.root}:all") / "word").read_text() == "mine"
    assert (create.good(f"oci:{layout.root}@{layout.entries[0]['digest']}") / "word").read_text() == "mine"
    said = create.bad(f"oci:{layout.root}:arm")
    assert (
        "BASE/layout has no image for linux/amd64\n  hint: there are linux/arm/v6, linux/arm/v8; --arch chooses one"
        in said
    )
    said = create.bad(f"oci:{layout.root}")
    assert "BASE/layout has several images: which one?\n  hint: there are all, arm; a tag" in said
    assert 'BASE/layout has no image "none"' in create.bad(f"oci:{layout.root}:none")
    create(f"oci:{layout.root}:all", "--arch", "arm64")  # made, or refused where nothing here can run it


def test_a_sha512_layout(create: Creation, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    layout.tag(layout.image(layers(), {}, algorithm="sha512"), "x")
    create.good(f"oci:{layout.root}")


def test_every_changed_blob_is_refused(create: Creation, layout: Layout) -> None:
    for path in sorted((layout.root / "blobs/sha256").iterdir()):
        whole = path.read_bytes()
        for changed in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[:-1], whole + b" "):
            path.write_bytes(changed)
            assert f"the blob sha256:{path.name} of {len(whole)} bytes is not that, it is" in create.bad(
                f"oci:{layout.root}:app", "--no-cache"
            )
        path.unlink()
        assert f"cannot read the blob sha256:{path.name}: No such file or directory" in create.bad(
            f"oci:{layout.root}:app", "--no-cache"
        )
        path.write_bytes(whole)


def test_the_plain_layers_are_checked_too(create: Creation, layout: Layout) -> None:
    manifest = json.loads((layout.root / "blobs" / layout.entries[0]["digest"].replace(":", "/")).read_text())
    manifest["layers"].reverse()
    layout.entries.clear()
    layout.tag(layout.json(manifest, MANIFEST), "app")
    assert "wrong content: its sha256 is" in create.bad(f"oci:{layout.root}:app")
    manifest["layers"].pop()
    layout.entries.clear()
    layout.tag(layout.json(manifest, MANIFEST), "app")
    assert "damaged: the image has 2 layers and its config others" in create.bad(f"oci:{layout.root}:app")


def test_nonsense_is_refused(create: Creation, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    good = layout.image(layers(), {})
    deep = good
    for _ in range(8):
        deep = layout.json({"mediaType": INDEX, "manifests": [deep]}, INDEX)
    squashed = layout.json(
        {
            "config": layout.json({}, CONFIG),
            "layers": [{**good, "mediaType": "application/vnd.stacker.image.layer.squashfs"}],
        },
        MANIFEST,
    )
    for entry, said in (
        ({**good, "digest": "sha256:../../../etc/passwd"}, "is not a digest of a known kind"),
        ({**good, "digest": "md5:" + "0" * 32}, "is not a digest of a known kind"),
        ({**good, "digest": 5}, "is not a digest of a known kind"),
        ({**good, "size": "5"}, "has the size 5"),
        ({**good, "size": 1 << 40}, "is too large for a manifest or config"),
        ({"mediaType": MANIFEST}, "damaged: its JSON makes no sense (KeyError)"),
        (layout.json([], MANIFEST), "damaged: its JSON makes no sense (TypeError)"),
        (layout.json({"layers": 5, "config": good}, MANIFEST), "damaged"),
        (layout.blob(b"[" * 100000, MANIFEST), "damaged"),
        (deep, "indices in indices"),
        (squashed, "which is no tar archive"),
        (layout.image(layers(), {"User": "nobody-knows"}), 'the image wants to run as "nobody-knows"'),
        (layout.image(layers(), {"User": "0:nobody-knows"}), 'as the group "nobody-knows"'),
        (layout.image(layers(), {"User": "99999999999"}), "the id 99999999999, which is too large"),
        (layout.image(layers(), {"WorkingDir": "/\nlxc.hook.pre-start = /bin/evil"}), "line break where none can be"),
        (layout.image(layers(), {"Env": 5}), "the image's config makes no sense"),
        (layout.image([layer(member("../x", b"x"))], {}), "which leads outside"),
    ):  # fmt: skip
        layout.entries.clear()
        layout.tag(entry, "x")
        assert said in create.bad(f"oci:{layout.root}:x"), said
    (layout.root / "index.json").write_text("{")
    assert "damaged" in create.bad(f"oci:{layout.root}:x")
    (layout.root / "oci-layout").unlink()
    assert "is no OCI image layout: oci-layout: No such file or directory" in create.bad(f"oci:{layout.root}:x")
    assert "cannot read the image" in create.bad("oci:/nowhere:x")


def test_line_breaks_of_an_image_reach_no_config(create: Creation, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    evil = "x\nlxc.hook.pre-start = /bin/evil"
    layout.tag(layout.image(layers(), {"Env": [f"A={evil}", "B=2"], "Cmd": ["/bin/sh", evil]}), None)
    root = create.good(str(layout.root))
    assert "evil" not in (root.parent / "config").read_text()
    assert "the image's command has line breaks" in create.said
    assert "variable A has line breaks" in create.said


@requires("skopeo", "openssl")
def test_a_registry(create: Creation, run: Run, layout: Layout, tmp_path: Path) -> None:
    cert, key = certificate(tmp_path)
    registry = Registry(layout.root, cert, key, "me:secret")
    create.env |= {"SSL_CERT_FILE": str(cert), "HOME": str(tmp_path)}
    url = f"docker://{registry.host}/some/image:app"
    try:
        assert f'skopeo cannot fetch "{url}": ' in create.bad(url)
        assert "--password: whose?" in create.bad(url, "--password", "secret")
        assert "skopeo cannot fetch" in create.bad(url, "--username", "me", "--password", "wrong")
        create.good(url, "--username", "me", "--password", "secret")
        assert runs(create, run).startswith("33 50 ")
        # The blobs are in the cache, and the password comes from the environment as well.
        registry.requests.clear()
        create.env["LXCPY_OCI_PASSWORD"] = "secret"
        create.good(url, "--username", "me")
        cached = sum("/blobs/" in path for path in registry.requests)
        assert cached <= 2  # the config, and the layer that skopeo has compressed and knows by another digest
        create.good(url, "--username", "me", "--no-cache")
        assert sum("/blobs/" in path for path in registry.requests) == cached + 4
        auth = tmp_path / "auth.json"
        auth.write_text(json.dumps({"auths": {registry.host: {"auth": "bWU6c2VjcmV0"}}}))
        create.good(url, "--authfile", str(auth))
        # What was fetched once does without the registry.
        registry.requests.clear()
        create.good(url, "--offline")
        assert runs(create, run).startswith("33 50 ")
        shutil.rmtree(tmp_path / "cache/rootfs")
        create.good(url, "--offline")
        assert registry.requests == []
        said = create.bad(url.replace("app", "other"), "--offline")
        assert "--offline fetches nothing, and \"docker://" in said
        assert "make the same once without --offline" in said
        assert "--no-cache nothing" in create.bad(url, "--offline", "--no-cache")
        for blob in (tmp_path / "cache/oci/sha256").iterdir():
            blob.write_bytes(b"x" + blob.read_bytes()[1:])
        assert "is not that, it is sha256:" in create.bad(url, "--offline")
    finally:
        registry.stop()
    assert not [path for path in (tmp_path / "cache").rglob("*.auth")]


@requires("skopeo")
def test_what_skopeo_knows(create: Creation, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    layout.tag(layout.image(layers(), SETTINGS, kinds=("gzip",)), "app")
    archive = create.base / "docker.tar"
    subprocess.run(
        ["skopeo", "--insecure-policy", "copy", f"oci:{layout.root}:app", f"docker-archive:{archive}:some/app:1"],
        check=True, capture_output=True,
    )  # fmt: skip
    root = create.good(f"docker-archive:{archive}")
    assert (root / "old/new").read_text() == "new"


def test_without_skopeo(create: Creation) -> None:
    create.env["PATH"] = "/nowhere"
    said = create.bad("docker://alpine")
    assert '"docker://alpine" has to be fetched by skopeo, which is not installed\n  hint: install skopeo, or' in said


def test_what_is_missing(create: Creation, run: Run, lxcpath: str, name: str) -> None:
    done = run("create", "-P", lxcpath, "-n", name, "-t", "oci")
    assert "template oci: which image?" in done.stderr
