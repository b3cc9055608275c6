"""AppArmor: the profile that confines the container's init.

lxc.apparmor.profile names a loaded profile, or is `unconfined`, `unchanged` (leave the caller's) or `generated` (made
for this container, see profile.py); unset it is LXC's default. LXC's own profiles that are not loaded, because LXC is
not installed, are generated instead. On a kernel without AppArmor every profile is left out with a word in the log, as
real LXC does.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

from lxcpy import paths
from lxcpy.config.model import Apparmor
from lxcpy.errors import Origin, SecurityError, meaning
from lxcpy.kernel.fd import Fd
from lxcpy.log import Log
from lxcpy.security import profile

LOG = Log("apparmor")
DEFAULT = "lxc-container-default-cgns"
# LXC's packaged profiles, which ours can stand in for.
STOCK = (DEFAULT, "lxc-container-default", "lxc-container-default-with-mounting", "lxc-container-default-with-nesting")
_SECURITY = "/sys/kernel/security/apparmor"


@dataclass(frozen=True)
class Label:
    """What init runs under: a profile's name, and the text of the profile to load first (None: it is loaded)."""

    name: str
    text: str | None = None

    def __str__(self) -> str:
        return f"run under the AppArmor profile {self.name}{' (generated)' if self.text else ''}"


@dataclass(frozen=True)
class Machine:
    """What this kernel's AppArmor can do; read by `machine`."""

    enabled: bool = False
    mounts: bool = True  # mount rules are understood
    loaded: frozenset[str] | None = None  # profiles; None: not to be seen by the caller
    current: str = "unconfined"  # the caller's own profile


def machine() -> Machine:
    """This machine."""
    if _text("/sys/module/apparmor/parameters/enabled").strip() != "Y":
        return Machine()
    mounts = os.path.exists(f"{_SECURITY}/features/mount/mask")
    return Machine(enabled=True, mounts=mounts, loaded=_loaded(), current=label_of(os.getpid()) or "unconfined")


def _loaded() -> frozenset[str] | None:
    """The loaded profiles; there may be none at all, which is something else than not being allowed to see them."""
    try:
        with open(f"{_SECURITY}/profiles", encoding="utf-8", errors="replace") as file:
            return frozenset(line.rpartition(" (")[0] for line in file)
    except OSError:
        return None


def plan(
    config: Apparmor,
    *,
    name: str,
    lxcpath: str,
    userns: bool,
    host: Machine,
    at: Callable[[str], Origin | None] = lambda key: None,
) -> Label | None:
    """What a container's lxc.apparmor keys mean on this machine; None: nothing to do. Pure. Raises SecurityError."""
    wanted = config.profile or DEFAULT
    where = at("lxc.apparmor.profile")
    if not host.enabled:
        if config.profile not in (None, "unchanged", "unconfined"):
            LOG.warn(f"lxc.apparmor.profile = {wanted}: left out, this kernel has no AppArmor ({where})")
        return None
    if wanted in ("unchanged", host.current):
        return None
    if host.current not in ("unconfined", "") and not host.current.endswith("(unconfined)"):
        what = f'already confined by AppArmor profile "{host.current}", cannot change to "{wanted}"'
        raise SecurityError(what, at=where, hint="lxc.apparmor.profile = unchanged")
    if wanted == "unconfined":
        return Label(wanted)
    if not host.mounts and not config.allow_incomplete:
        what = "this kernel's AppArmor does not control mounts, so a profile would not confine the container"
        raise SecurityError(what, at=where, hint="lxc.apparmor.allow_incomplete = 1 starts it all the same")
    missing = host.loaded is not None and wanted not in host.loaded
    if wanted == "generated" or (wanted in STOCK and missing):
        nesting = config.allow_nesting or wanted.endswith("-with-nesting")
        mounting = wanted.endswith("-with-mounting")
        own = profile.name_of(name, lxcpath)
        return Label(own, profile.text(own, userns=userns, nesting=nesting, mounting=mounting, raw=config.raw))
    if missing:
        hint = f"load it: apparmor_parser -r FILE; the loaded ones are in {_SECURITY}/profiles"
        raise SecurityError(f'AppArmor profile "{wanted}" is not loaded', at=where, hint=hint)
    return Label(wanted)


def load(label: Label) -> dict[str, str]:
    """Load the label's generated profile, if it has one; the record that `remove` takes. Raises SecurityError."""
    if label.text is None:
        return {}
    path = os.path.join(paths.run_dir(), "apparmor", label.name.replace("/", "-"))
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(label.text)
    except OSError as error:
        raise SecurityError(f'cannot write the AppArmor profile "{path}": {meaning(error)}') from error
    _parser("-rWL", os.path.join(paths.cache_dir(), "apparmor"), path)
    return {"profile": path}


def remove(record: dict[str, str]) -> None:
    """Unload and delete what `load` left. Never raises."""
    path = record.get("profile")
    if not path or not os.path.exists(path):
        return
    try:
        _parser("-R", path)
    except SecurityError as error:
        LOG.warn(error.what)
    try:
        os.unlink(path)
    except OSError as error:
        LOG.warn(f'cannot remove "{path}": {meaning(error)}')


def _parser(*arguments: str) -> None:
    try:
        done = subprocess.run(["apparmor_parser", *arguments], capture_output=True, text=True, check=False)
    except OSError as error:
        what = f"cannot run apparmor_parser: {meaning(error)}"
        raise SecurityError(what, hint="install apparmor, or set lxc.apparmor.profile = unconfined") from error
    if done.returncode:
        words = " ".join((done.stderr or done.stdout).split())
        raise SecurityError(f"apparmor_parser refused the profile {arguments[-1]}: {words}")


def open_attribute() -> Fd:
    """Where the calling process changes its profile: to be opened while the host's /proc is there.

    Raises SecurityError.
    """
    try:
        try:
            return Fd(os.open("/proc/thread-self/attr/apparmor/current", os.O_RDWR | os.O_CLOEXEC))
        except FileNotFoundError:  # older than Linux 5.8
            return Fd(os.open("/proc/thread-self/attr/current", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        raise SecurityError(f"cannot change the AppArmor profile: {meaning(error)}") from error


def apply(label: Label, attribute: Fd) -> None:
    """Change the calling process's profile, at once as LXC does, so that start hooks are confined too.

    Raises SecurityError.
    """
    try:
        os.write(attribute.number, f"changeprofile {label.name}".encode())
    except OSError as error:
        what = f'cannot change to the AppArmor profile "{label.name}": {meaning(error)}'
        hint = "the profile is not loaded" if isinstance(error, FileNotFoundError) else None
        raise SecurityError(what, hint=hint) from error
    LOG.info(str(label))


def label_of(pid: int) -> str | None:
    """The profile of a process, for one that joins it; None without AppArmor."""
    for place in ("attr/apparmor/current", "attr/current"):
        text = _text(f"/proc/{pid}/{place}").strip("\0\n ")
        if text:
            mode = text.rpartition(" (")
            return mode[0] if mode[0] else text
    return None


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""
