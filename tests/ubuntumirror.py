"""A mirror in Ubuntu's shape out of the packages of the host's own Debian mirror: real systems, another distribution.

Every package is packed anew with zstd, under a version like Ubuntu's; base-files says Ubuntu. There are the components
main and universe, the pockets -updates and -security with newer versions of some packages, and a keyring package with
the throwaway key that signs it all. The same pool also serves suites in Devuan's shape (without systemd) and Kali's.

It is made once and kept in the cache directory, so the sessions that share one (LXCPY_TEST_CACHE) share it.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from debmirror import Key, ar, compress, date, deb

from lxcpy.bootstrap import hostapt, keyring, machine, plan, release, template
from lxcpy.bootstrap.cache import Store
from lxcpy.bootstrap.compression import inflate
from lxcpy.bootstrap.deb import members
from lxcpy.bootstrap.download import Client, Mirrors
from lxcpy.bootstrap.packages import parse_stanza
from lxcpy.bootstrap.progress import Silent

MARK = "ubuntu1"  # what each version ends with
COMMON = [
    "apt",
    "locales",
    "ca-certificates",
    "dialog",
    "isc-dhcp-client",
    "netbase",
    "net-tools",
    "iproute2",
    "openssh-server",
    "ssh",
    "ifupdown",
    "sudo",
    "vim-tiny",
    "iputils-ping",
    "usr-is-merged",
    "zsh",
]
IMPORTANT = [
    "init",
    "systemd-sysv",
    "udev",
    "dbus",
    "netplan.io",
    "systemd-resolved",
    "iproute2",
    "locales",
    "sudo",
    "iputils-ping",
]
UNIVERSE = {"usr-is-merged", "vim-tiny", "vim-common", "vim", "zsh", "zsh-common"}
NOT_IN_DEVUAN = re.compile(r"systemd(?!-standalone)|libnss-systemd|libpam-systemd|netplan|libnetplan|dbus-user-session")
UPDATES = {"hostname": ".1", "mawk": ".1"}  # newer ones, by what is added to the version
SECURITY = {"mawk": ".2", "grep": ".1"}
RELATIONS = ("Depends", "Pre-Depends", "Provides", "Breaks", "Replaces", "Conflicts", "Recommends", "Suggests")
_FORMAT = 4  # of what is kept


class Packed(NamedTuple):
    """A package in the pool: the stanza of its index, without what depends on the suite."""

    fields: dict[str, str]
    path: str


def host_suite() -> tuple[str, str]:
    """(mirror, code name) of the first source of the host that is Debian's."""
    known = template.find("debian").pairs("suites")
    for source in hostapt.sources():
        codename = known.get(source.suite, source.suite)
        if codename in known.values():
            return source.uri, codename
    pytest.skip("the host has no source of Debian")


def debian_packages(store: Store) -> list[tuple[plan.Item, Path]]:
    """What the shape is filled with, with systemd and with sysvinit, fetched into the store."""
    base, suite = host_suite()
    client = Client()
    try:
        mirrors = Mirrors(client, [base])
        trust = release.Trust(tuple(keyring.find(template.find("debian").words("keyrings"))))
        found = plan.Repository(mirrors, suite, release.fetch(mirrors, suite, trust), ("main",))
        items: dict[str, plan.Item] = {}
        for packages in ((*COMMON, *IMPORTANT), (*COMMON, "sysvinit-core", "init")):
            wish = plan.Wish(machine.host_arch(), packages=packages, exclude=("usrmerge",))
            items.update((item.name, item) for item in plan.make([found], wish, store, Silent()).items)
        with ThreadPoolExecutor(4) as pool:
            jobs = [
                pool.submit(store.fetch, mirrors, [item.filename], item.expected, lambda *_: None)
                for item in items.values()
            ]
            for job in jobs:
                job.result()
        return [(item, Path(store.place(item.sha256))) for item in items.values()]
    finally:
        client.close()


def marked(control: str, more: str = "") -> str:
    """A control file with versions like Ubuntu's: its own, and those that others must have exactly."""
    lines = []
    for line in control.split("\n"):
        name, _, value = line.partition(": ")
        if name == "Version":
            line = f"Version: {value}{MARK}{more}"
        elif name in RELATIONS:
            line = re.sub(r"\(= ([^)]+)\)", rf"(= \1{MARK}{more})", line)
            line = line.replace("debian-archive-keyring", "ubuntu-keyring")
        elif name == "Maintainer":
            line = "Maintainer: Ubuntu Developers <ubuntu-devel-discuss@lists.ubuntu.com>"
        lines.append(line)
    return "\n".join(lines)


def edit_tar(data: bytes, edit: Callable[[str, bytes], bytes]) -> bytes:
    """A tar with the content of its regular files changed."""
    out = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(data)) as old,
        tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as new,
    ):
        for info in old:
            content = old.extractfile(info) if info.isfile() else None  # it would follow links
            if content is None:
                new.addfile(info)
                continue
            changed = edit(info.name.removeprefix("./"), content.read())
            info.size = len(changed)
            new.addfile(info, io.BytesIO(changed))
    return out.getvalue()


OS_RELEASE = b"""PRETTY_NAME="Ubuntu 26.04 LTS"
NAME="Ubuntu"
VERSION_ID="26.04"
VERSION="26.04 LTS (Resolute Raccoon)"
VERSION_CODENAME=resolute
ID=ubuntu
ID_LIKE=debian
UBUNTU_CODENAME=resolute
"""


def repack(source: Path, folder: Path, more: str = "") -> Packed:
    """One package of Debian's under its new name in the pool."""
    parts = dict(members(memoryview(source.read_bytes())))
    plain = {name.split(".")[0]: inflate(name.split(".")[2] if name.count(".") > 1 else "", bytes(part))
             for name, part in parts.items() if ".tar" in name}  # fmt: skip
    sums: dict[str, str] = {}
    if b"\nPackage: base-files\n" in b"\n" + _control(plain["control"]):

        def rebrand(name: str, content: bytes) -> bytes:
            if name == "usr/lib/os-release":
                content = OS_RELEASE
                sums[name] = hashlib.md5(content, usedforsecurity=False).hexdigest()
            return content

        plain["data"] = edit_tar(plain["data"], rebrand)
    text = ""

    def control(name: str, content: bytes) -> bytes:
        nonlocal text
        if name == "control":
            text = marked(content.decode(), more)
            return text.encode()
        if name == "md5sums" and sums:
            lines = [line.split("  ") for line in content.decode().splitlines()]
            return "".join(f"{sums.get(path, digest)}  {path}\n" for digest, path in lines).encode()
        return content

    plain["control"] = edit_tar(plain["control"], control)
    data = ar({
        "debian-binary": b"2.0\n",
        "control.tar.zst": compress(plain["control"], "zst"),
        "data.tar.zst": compress(plain["data"], "zst"),
    })  # fmt: skip
    return put(parse_stanza(text.strip()), data, folder)


def _control(data: bytes) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        file = archive.extractfile("./control")
        assert file
        return file.read()


def put(fields: dict[str, str], data: bytes, folder: Path) -> Packed:
    version = fields["Version"].partition(":")[2] or fields["Version"]
    path = f"pool/{fields['Package']}_{version}_{fields['Architecture']}.deb"
    target = folder / path
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(data)
    more = {"Filename": path, "Size": str(len(data)), "SHA256": hashlib.sha256(data).hexdigest()}
    return Packed({**fields, **more}, path)


def extras(key: Key, folder: Path) -> list[Packed]:
    """What Debian has under other names, or not at all."""
    ring = key.ring.read_bytes()
    made = {
        "ubuntu-keyring": {"etc/apt/trusted.gpg.d/ubuntu-keyring-2018-archive.gpg": ring,
                           "usr/share/keyrings/ubuntu-archive-keyring.gpg": ring},
        "kali-archive-keyring": {"usr/share/keyrings/kali-archive-keyring.gpg": ring},
        "language-pack-en": {"usr/share/doc/language-pack-en/README": b"\n"},
        "language-pack-de": {"usr/share/doc/language-pack-de/README": b"\n"},
        "vim": {"usr/share/doc/vim/README": b"\n"},
    }  # fmt: skip
    packed = []
    for name, files in made.items():
        fields = {
            "Package": name,
            "Version": "1" + MARK,
            "Architecture": "all",
            "Maintainer": "t",
            "Priority": "optional",
        }
        fields["Description"] = "for the tests"
        if name == "vim":
            fields["Depends"] = "vim-tiny"
        sums = "".join(
            f"{hashlib.md5(data, usedforsecurity=False).hexdigest()}  {path}\n" for path, data in files.items()
        )
        info = {"md5sums": (sums.encode(), 0o644)}
        if name == "ubuntu-keyring":
            info["conffiles"] = (b"/etc/apt/trusted.gpg.d/ubuntu-keyring-2018-archive.gpg\n", 0o644)
        packed.append(put(fields, deb(fields, files, info=info, kind="zst"), folder))
    return packed


def publish(folder: Path, key: Key, suite: str, codename: str, packages: Iterable[Packed], origin: str) -> None:
    """The indices of a suite and its signed InRelease."""
    arch = machine.host_arch()
    texts: dict[str, list[str]] = {name: [] for name in ("main", "universe", "restricted", "multiverse")}
    for fields, _ in packages:
        component = "universe" if fields["Package"] in UNIVERSE and origin == "Ubuntu" else "main"
        texts[component].append("".join(f"{name}: {value}\n" for name, value in fields.items()))
    base = folder / "dists" / suite
    sums = []
    for component, stanzas in texts.items():
        for kind in ("", "gz", "xz"):
            data = compress("\n".join(stanzas).encode(), kind)
            name = f"{component}/binary-{arch}/Packages" + (f".{kind}" if kind else "")
            digest = hashlib.sha256(data).hexdigest()
            sums.append(f" {digest} {len(data)} {name}")
            for path in (base / name, base / f"{component}/binary-{arch}/by-hash/SHA256/{digest}"):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
    text = (
        f"Origin: {origin}\nLabel: {origin}\nSuite: {suite}\nVersion: 26.04\nCodename: {codename}\nDate: {date(-60)}\n"
        f"Architectures: {arch}\nComponents: main restricted universe multiverse\nDescription: for the tests\n"
        "Acquire-By-Hash: yes\nSHA256:\n" + "\n".join(sums) + "\n"
    )
    (base / "InRelease").write_bytes(key.clearsign(text.encode()))
    (base / "Release").write_text(text)
    (base / "Release.gpg").write_bytes(key.detach(text.encode()))


class Mirror(NamedTuple):
    """The files below `root`, and the keyring of who signed them."""

    root: Path
    ring: Path


def build(store: Store) -> Mirror:
    """The mirror, made if it is not there. Needs root's cache, gpg and zstd."""
    found = debian_packages(store)
    digest = hashlib.sha256("".join(sorted(item.sha256 for item, _ in found)).encode()).hexdigest()[:16]
    place = Path(store.directory, f"shaped-{_FORMAT}-{digest}")
    made = Mirror(place, place / "key/ring.gpg")
    if place.exists():
        return made
    draft = Path(tempfile.mkdtemp(prefix="shaped-", dir=store.directory))
    try:
        draft.chmod(0o755)
        key = Key(draft / "key", name="archive")
        names = {item.name: path for item, path in found}
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            packed = list(pool.map(lambda entry: repack(entry[1], draft), found)) + extras(key, draft)
        updates = [repack(names[name], draft, more) for name, more in UPDATES.items()]
        security = [repack(names[name], draft, more) for name, more in SECURITY.items()]
        _suites(draft, key, packed, updates, security)
        draft.rename(place)
    except OSError:
        if not place.exists():  # else another session was faster
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return made


def _suites(folder: Path, key: Key, packed: list[Packed], updates: list[Packed], security: list[Packed]) -> None:
    def with_priorities(important: Iterable[str]) -> list[Packed]:
        wanted = set(important)
        return [
            one._replace(fields={**one.fields, "Priority": priority})
            for one in packed
            for priority in [
                "important" if one.fields["Package"] in wanted
                else "required" if one.fields.get("Priority") == "required" else "optional"
            ]
        ]  # fmt: skip

    for end, packages in (("", with_priorities(IMPORTANT)), ("-updates", updates), ("-security", security)):
        publish(folder, key, f"resolute{end}", "resolute", packages, "Ubuntu")
    plain = with_priorities(())
    publish(folder, key, "kali-rolling", "kali-rolling", plain, "Kali")
    no_systemd = [one for one in plain if not NOT_IN_DEVUAN.match(one.fields["Package"])]
    publish(folder, key, "excalibur", "excalibur", no_systemd, "Devuan")
    for end, more in (("-updates", updates), ("-security", security)):
        publish(folder, key, f"excalibur{end}", f"excalibur{end}", more, "Devuan")
