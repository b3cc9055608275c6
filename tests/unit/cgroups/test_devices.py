"""Device rules: their lines, two dialects side by side, the policy they make."""

from __future__ import annotations

import os

import pytest

from lxcpy.cgroups import devices
from lxcpy.cgroups.devices import DeviceRule
from lxcpy.cgroups.translate import translate
from lxcpy.cgroups.values import Bad
from lxcpy.config.model import CgroupEntry
from lxcpy.errors import Origin

from .layouts import HYBRID, V1, V2


def rule(line: str) -> DeviceRule:
    word, _, text = line.partition(" ")
    return devices.parse(f"devices.{word}", text)


def policy(*lines: str) -> tuple[bool, list[str]]:
    default, exceptions = devices.policy([rule(line) for line in lines])
    return default, [str(exception) for exception in exceptions]


@pytest.mark.parametrize(
    "line, text",
    [
        ("allow c 1:3 rwm", "c 1:3 rwm"),
        ("deny b *:* m", "b *:* m"),
        ("allow c 136:* mwr", "c 136:* rwm"),
        ("deny a", "a"),
        ("deny a *:* rwm", "a"),
        ("allow   c   5:1   rw", "c 5:1 rw"),
        ("allow /dev/null rw", "c 1:3 rw"),
    ],
)
def test_lines(line: str, text: str) -> None:
    assert rule(line).text == text
    assert rule(str(rule(line))) == rule(line)


@pytest.mark.parametrize(
    "line",
    ["allow", "allow c", "allow c 1:3", "allow c 1:3 x", "allow d 1:3 r", "allow c 1 r", "allow c 1:2:3 r",
     "allow c a:b r", "allow c -1:3 r", "deny a 1:3 r",
     "allow c 1:3 r w", "allow /dev/null", "allow /no/such r", "allow /tmp r"],
)  # fmt: skip
def test_no_lines(line: str) -> None:
    with pytest.raises(Bad) as caught:
        rule(line)
    assert caught.value.hint


def test_a_path_is_looked_up_when_planned() -> None:
    found = devices.parse("devices.allow", "/dev/x r", stats=lambda path: os.stat("/dev/zero"))
    assert (found.type, found.major, found.minor, found.access) == ("c", 1, 5, "r")


def test_no_rule_allows_everything_and_needs_no_program() -> None:
    assert policy() == (True, [])
    assert devices.program([]) is None
    assert devices.program([rule("deny c 1:3 r"), rule("allow c 1:3 rwm")]) is None


def test_deny_all_makes_an_allow_list() -> None:
    assert policy("allow c 1:9 rwm", "deny a", "allow c 1:3 rwm", "allow b *:* m") == (
        False, ["allow c 1:3 rwm", "allow b *:* m"])  # fmt: skip


def test_allow_all_makes_a_deny_list() -> None:
    assert policy("deny a", "allow c 1:3 r", "allow a", "deny c 1:5 w") == (True, ["deny c 1:5 w"])


def test_lines_of_one_device_add_up() -> None:
    assert policy("deny a", "allow c 1:3 r", "allow c 1:3 w") == (False, ["allow c 1:3 rw"])


def test_a_later_line_takes_back() -> None:
    assert policy("deny a", "allow c 1:3 rwm", "deny c 1:3 w") == (False, ["allow c 1:3 rm"])
    assert policy("deny a", "allow c 1:3 rwm", "deny c 1:* rwm") == (False, [])
    assert policy("deny a", "allow c 1:3 r", "deny c 1:5 r") == (False, ["allow c 1:3 r"])


def test_a_part_of_a_wider_line_is_taken_back() -> None:
    assert policy("deny a", "allow c *:* m", "deny c 10:229 m") == (False, ["allow c *:* m", "deny c 10:229 m"])
    assert policy("deny c *:* w", "allow c 1:3 w") == (True, ["deny c *:* w", "allow c 1:3 w"])


def entry(dialect: int, line: str, file: str) -> CgroupEntry:
    word, _, text = line.partition(" ")
    return CgroupEntry(dialect, f"devices.{word}", text, Origin(file, 1))


def block(dialect: int, file: str = "common.conf") -> list[CgroupEntry]:
    """A preset's whole policy in one dialect."""
    return [entry(dialect, line, file) for line in ("deny a", "allow c 1:3 rwm")]


def in_force(*entries: CgroupEntry) -> dict[str, list[str]]:
    v1, hybrid, v2 = (translate(entries, layout) for layout in (V1, HYBRID, V2))
    assert v1.device_writes == hybrid.device_writes and not v2.device_writes and not v1.devices
    return {
        "v1": [f"{write.file.partition('.')[2]} {write.value}" for write in v1.device_writes],
        "v2": [str(rule) for rule in v2.devices],
    }


@pytest.mark.parametrize("dialect", [1, 2])
def test_either_dialect_alone_is_in_force_everywhere(dialect: int) -> None:
    assert in_force(*block(dialect)) == {host: ["deny a", "allow c 1:3 rwm"] for host in ("v1", "v2")}


def test_presets_with_both_dialects_have_one_effect() -> None:
    found = in_force(*block(1), *block(2))
    assert found == {host: ["deny a", "allow c 1:3 rwm"] for host in ("v1", "v2")}


@pytest.mark.parametrize("dialect", [1, 2])
def test_a_users_line_beside_such_presets_is_in_force_in_either_dialect(dialect: int) -> None:
    found = in_force(*block(1), *block(2), entry(dialect, "allow c 10:200 rwm", "config"))
    assert found == {host: ["deny a", "allow c 1:3 rwm", "allow c 10:200 rwm"] for host in ("v1", "v2")}


@pytest.mark.parametrize("dialect", [1, 2])
def test_a_line_in_the_file_of_both_policies(dialect: int) -> None:
    """In the words of the host it is in force; in the other words it must stand apart from that policy."""
    found = in_force(*block(1), *block(2), entry(dialect, "allow c 10:200 rwm", "common.conf"))
    assert found["v2"][-1] == "allow c 10:200 rwm"
    assert (found["v1"][-1] == "allow c 10:200 rwm") == (dialect == 1)


def test_whole_policies_that_differ_are_the_hosts_own() -> None:
    mine = [entry(1, "deny a", "config"), entry(1, "allow c 1:9 r", "config")]
    yours = [entry(2, "deny a", "config"), entry(2, "allow c 1:8 r", "config")]
    assert in_force(*mine, *yours) == {"v1": ["deny a", "allow c 1:9 r"], "v2": ["deny a", "allow c 1:8 r"]}


def test_an_old_line_beside_a_new_preset_adds_to_it() -> None:
    """LXC 6's presets speak v2 alone; the line of an old config must not open what they close."""
    found = in_force(*block(2), entry(1, "allow c 10:200 rwm", "config"))
    assert found == {host: ["deny a", "allow c 1:3 rwm", "allow c 10:200 rwm"] for host in ("v1", "v2")}
