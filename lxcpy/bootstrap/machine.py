"""What a template is told of the host: architecture, language, time zone, name servers."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping

from lxcpy.errors import UsageError
from lxcpy.kernel import process

# Debian's names by uname's.
_MACHINES = {
    "x86_64": "amd64", "i386": "i386", "i486": "i386", "i586": "i386", "i686": "i386", "aarch64": "arm64",
    "armv6l": "armel", "armv7l": "armhf", "armv8l": "armhf", "ppc64le": "ppc64el", "s390x": "s390x",
    "riscv64": "riscv64", "mips64": "mips64el", "loongarch64": "loong64",
}  # fmt: skip
# What a machine runs besides its own.
_ALSO = {"amd64": ("i386",), "arm64": ("armhf", "armel"), "armhf": ("armel",)}
_QEMU = {
    "amd64": "x86_64", "arm64": "aarch64", "armhf": "arm", "armel": "arm", "ppc64el": "ppc64le",
    "loong64": "loongarch64",
}  # fmt: skip
_BINFMT = "/proc/sys/fs/binfmt_misc"
_ZONES = "/usr/share/zoneinfo/"


def host_arch() -> str:
    """Debian's name of this machine's architecture."""
    machine = platform.machine()
    return _MACHINES.get(machine, machine)


def debian_arch(word: str) -> str:
    """Debian's name for an architecture, also from the kernel's or LXC's."""
    return _MACHINES.get(word, word)


def codename(distribution: str, path: str = "/etc/os-release") -> str:
    """The code name of the host's release if it is of that distribution (by its ID in os-release(5)), else ""."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            fields = dict(line.rstrip("\n").partition("=")[::2] for line in file)
    except OSError:
        return ""
    same = distribution and fields.get("ID", "").strip("\"'") == distribution
    return fields.get("VERSION_CODENAME", "").strip("\"'") if same else ""


def interpreter(arch: str, *, binfmt: str = _BINFMT) -> tuple[str, bool]:
    """The program that the kernel runs those of an architecture with, "" for none, and whether it has it open already.

    An open one (flag F of binfmt_misc) works where the host's files are out of sight.
    """
    try:
        with open(f"{binfmt}/qemu-{_QEMU.get(arch, arch)}") as file:
            lines = file.read().split("\n")
    except OSError:
        return "", False
    path = next((line.partition(" ")[2] for line in lines if line.startswith("interpreter ")), "")
    return path if "enabled" in lines else "", any(line.startswith("flags:") and "F" in line for line in lines)


def check_runs(arch: str, *, given: str = "", binfmt: str = _BINFMT) -> None:
    """That this machine can run programs of an architecture. given: the interpreter to be put in. Raises UsageError."""
    here = host_arch()
    if arch == here or arch in _ALSO.get(here, ()):
        return
    if given and not os.access(given, os.X_OK):
        raise UsageError(f'--interpreter-path: "{given}" is no program')
    path, opened = interpreter(arch, binfmt=binfmt)
    if path and (opened or os.path.basename(path) == os.path.basename(given)):
        return
    raise UsageError(
        f"this {here} machine cannot run programs for {arch}",
        hint="install qemu-user-static and binfmt-support; or let --foreign stop when all is unpacked, for a machine "
        "that can; or choose another architecture with -a",
    )


def persona(arch: str) -> int:
    """The personality(2) under which programs of an architecture should run; 0 for the usual one."""
    here = host_arch()
    return process.PER_LINUX32 if arch != here and arch in _ALSO.get(here, ()) else process.PER_LINUX


def locale(asked: str | None, environment: Mapping[str, str] = os.environ) -> str:
    """The language for the system: as asked, else the caller's LANG, else (like LXC) American English in UTF-8."""
    found = asked or environment.get("LANG") or "C"
    if not asked and (found == "C" or found.startswith("C.") or found == "POSIX"):
        return "en_US.UTF-8"
    name, dot, charset = found.partition(".")
    return name + dot + ("UTF-8" if charset.lower().replace("-", "") == "utf8" else charset)


def timezone(asked: str | None) -> str:
    """The time zone: as asked, else the host's, else UTC."""
    if asked:
        return asked
    try:
        with open("/etc/timezone", encoding="utf-8") as file:
            found = file.read().strip()
        if found:
            return found
    except OSError:
        pass
    try:
        target = os.path.realpath("/etc/localtime")
    except OSError:
        target = ""
    return target.removeprefix(_ZONES) if target.startswith(_ZONES) else "Etc/UTC"


def resolv_conf(path: str = "/etc/resolv.conf") -> str:
    """The host's list of name servers where a container can use it; nothing where it names the host itself alone."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read().splitlines()
    except OSError:
        return ""
    useful = [
        line for line in lines
        if line.split()[:1] == ["nameserver"] and not line.split()[-1].startswith(("127.", "::1"))
    ]  # fmt: skip
    if not useful:
        return ""
    kept = [line for line in lines if line.split()[:1] in (["search"], ["domain"], ["options"])]
    return "\n".join([*kept, *useful]) + "\n"
