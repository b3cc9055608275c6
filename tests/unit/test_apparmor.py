"""What lxc.apparmor keys mean on different machines, and the generated profile."""

from __future__ import annotations

import itertools
import re
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from probes import requires

from lxcpy.config.model import Apparmor, Selinux
from lxcpy.errors import Origin, SecurityError
from lxcpy.security import apparmor, profile, selinux
from lxcpy.security.apparmor import Machine

LOADED = Machine(enabled=True, loaded=frozenset({apparmor.DEFAULT, "mine"}))
BARE = Machine(enabled=True, loaded=frozenset())
NONE = Machine()
OWN = "lxc-web_</var/lib/lxc>"


def _plan(host: Machine, userns: bool = False, **keys: object) -> apparmor.Label | None:
    def at(key: str) -> Origin | None:
        return Origin("web/config", 3) if key == "lxc.apparmor.profile" else None

    config = Apparmor(**keys)  # type: ignore[arg-type]
    return apparmor.plan(config, name="web", lxcpath="/var/lib/lxc", userns=userns, host=host, at=at)


@pytest.mark.parametrize("wanted", [None, "generated", "unchanged", "unconfined", "mine", "lxc-container-default"])
def test_without_apparmor_everything_is_left_out_as_in_lxc(wanted: str | None) -> None:
    assert _plan(NONE, profile=wanted) is None


def test_loaded_profiles_are_taken_by_name() -> None:
    assert _plan(LOADED) == apparmor.Label(apparmor.DEFAULT)
    assert _plan(LOADED, profile="mine") == apparmor.Label("mine")
    assert _plan(LOADED, profile="unconfined") is None  # the caller is
    assert _plan(LOADED, profile="unchanged") is None
    assert _plan(Machine(enabled=True), profile="unseen") == apparmor.Label("unseen")


def test_generated() -> None:
    label = _plan(LOADED, profile="generated", raw=("deny /x w,",))
    assert label is not None and label.name == OWN and label.text is not None
    assert label.text.startswith(f'profile "{OWN}" ') and "  deny /x w,\n}\n" in label.text
    assert str(label) == f"run under the AppArmor profile {OWN} (generated)"


@pytest.mark.parametrize("wanted", [None, *apparmor.STOCK])
def test_profiles_of_lxc_that_is_not_installed_are_generated(wanted: str | None) -> None:
    label = _plan(BARE, profile=wanted)
    assert label is not None and label.name == OWN and label.text
    assert ("pivot_root" in label.text) == (wanted == "lxc-container-default-with-nesting")


@pytest.mark.parametrize(
    ("host", "keys", "what"),
    [
        (BARE, {"profile": "mine"}, 'AppArmor profile "mine" is not loaded'),
        (
            Machine(enabled=True, current="outer"),
            {"profile": "mine"},
            'already confined by AppArmor profile "outer", cannot change to "mine"',
        ),
        (
            Machine(enabled=True, mounts=False),
            {"profile": "mine"},
            "this kernel's AppArmor does not control mounts, so a profile would not confine the container",
        ),
    ],
)
def test_errors_name_the_line(host: Machine, keys: dict[str, object], what: str) -> None:
    with pytest.raises(SecurityError) as error:
        _plan(host, **keys)
    assert error.value.what == what and error.value.at == Origin("web/config", 3) and error.value.hint


def test_exceptions() -> None:
    assert _plan(Machine(enabled=True, mounts=False), profile="mine", allow_incomplete=True) == apparmor.Label("mine")
    assert _plan(Machine(enabled=True, current="mine"), profile="mine") is None


def test_names_are_short_enough() -> None:
    assert profile.name_of("web", "/var/lib/lxc") == OWN
    long = [profile.name_of("x" * 200, f"/{letter * 100}") for letter in "ab"]
    assert len(set(long)) == 2 and all(len(name) < 253 for name in long)


@pytest.mark.parametrize("flags", list(itertools.product((False, True), repeat=3)))
@requires("apparmor_parser")
def test_the_profile_compiles(tmp_path: Path, flags: tuple[bool, bool, bool]) -> None:
    userns, nesting, mounting = flags
    text = profile.text(OWN, userns=userns, nesting=nesting, mounting=mounting)
    (tmp_path / "profile").write_text(text)
    done = subprocess.run(["apparmor_parser", "-QTK", f"{tmp_path}/profile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _denied(path: str) -> bool:
    """Whether writing is denied by the privileged profile, by reading its patterns as AppArmor does."""
    for line in profile.text(OWN, userns=False, nesting=False).splitlines():
        if match := re.fullmatch(r"  deny (/\S+) r?wklx,", line):
            pattern = match[1].replace(".", r"\.").replace("**", "\0").replace("*", "[^/]*").replace("?", "[^/]")
            pattern = pattern.replace("\0", ".*")
            pattern = re.sub(r"\{([^}]*)\}", lambda m: "(" + m[1].replace(",", "|") + ")", pattern)
            if re.fullmatch(pattern, path):
                return True
    return False


@pytest.mark.parametrize(
    "path",
    [
        "/proc/sys/kernel/hostname", "/proc/sys/kernel/domainname", "/proc/sys/kernel/shmmax",
        "/proc/sys/kernel/msgmni", "/proc/sys/net/ipv4/ip_forward",
        "/sys/fs/cgroup/memory/x", "/sys/class/net/eth0", "/proc/1/oom_score_adj",
        "/sys/devices/virtual/net/lo/mtu", "/etc/passwd",
    ],
)  # fmt: skip
def test_what_may_be_written(path: str) -> None:
    assert not _denied(path)


@pytest.mark.parametrize(
    "path",
    [
        "/proc/sysrq-trigger", "/proc/kcore", "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe",
        "/proc/sys/vm/drop_caches", "/proc/sys/fs/file-max", "/proc/sys/kernel/hostnames", "/proc/sys/kernel/host",
        "/sys/kernel/mm/x", "/sys/fs/selinux/enforce", "/sys/power/state", "/sys/class/netx", "/sys/devices/system/x",
        "/sys/kernel/debug", "/proc/bus/pci/00",
    ],
)  # fmt: skip
def test_what_may_not(path: str) -> None:
    assert _denied(path)


@given(st.text(alphabet="kernlhostamdig_", min_size=1, max_size=10))
def test_every_other_setting_of_the_kernel_is_denied(name: str) -> None:
    allowed = name in ("hostname", "domainname") or (name[:3] in ("msg", "sem", "shm"))
    assert _denied(f"/proc/sys/kernel/{name}") != allowed


def test_selinux_without_selinux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selinux, "enabled", lambda: False)
    context = "system_u:system_r:lxc_t:s0"
    assert selinux.prepare(Selinux(context=context)) is None
    assert selinux.keyring_context(Selinux(context_keyring=context)) is None
    monkeypatch.setattr(selinux, "enabled", lambda: True)
    assert selinux.prepare(Selinux(context=context)) == context
    assert selinux.prepare(Selinux(context="unconfined_t")) is None
    assert selinux.prepare(Selinux()) is None
