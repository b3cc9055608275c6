"""What criu is told, and the one thing that is changed in what it has written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxcpy.config.load import load_text
from lxcpy.errors import ConfigError
from lxcpy.runtime import criu

MAGIC = bytes.fromhex("1943565447380555")


def varint(number: int) -> bytes:
    found = b""
    while number > 0x7F:
        found, number = found + bytes([number & 0x7F | 0x80]), number >> 7
    return found + bytes([number])


def field(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def core(thread: bytes) -> bytes:
    entry = field(1, 1) + field(2, bytes(1055)) + varint(9 << 3 | 1) + bytes(8) + field(5, thread) + field(3, b"tc")
    return MAGIC + len(entry).to_bytes(4, "little") + entry


def test_the_death_signal_is_taken_away() -> None:
    before, after = field(1, 952637088) + field(7, b"sas..."), field(9, b"") + field(10, bytes(55))
    image = core(before + field(8, 9) + after)
    assert criu.without_death_signal(image) == core(before + field(8, 0) + after)
    assert criu.without_death_signal(core(before + field(8, 0) + after)) is None
    assert criu.without_death_signal(core(before + after)) is None


@given(st.binary(max_size=200))
def test_nonsense_is_left_alone(data: bytes) -> None:
    for image in (data, MAGIC + data, core(data)):
        changed = criu.without_death_signal(image)
        assert changed is None or len(changed) == len(image)


def test_arguments() -> None:
    text = ("lxc.mount.entry = /srv srv none bind,create=dir 0 0\nlxc.mount.entry = tmpfs tmp tmpfs size=1m 0 0\n"
            "lxc.net.2.type = veth\nlxc.net.2.link = br0\nlxc.net.5.type = macvlan\nlxc.net.5.link = eth1\n"
            "lxc.net.5.name = lan\nlxc.net.7.type = empty\n")  # fmt: skip
    config = load_text(text, "config")
    work = criu.Work("dump", "/d", True, "/act")
    argv = criu.arguments(work, [(("cpu", "cpuacct"), "/lxc.payload.web"), ((), "/x")], config)
    said = " ".join(argv)
    assert said.startswith("criu dump --tcp-established --file-locks --link-remap --manage-cgroups=full ")
    assert "-D /d -o /d/dump.log --cgroup-root cpu,cpuacct:/lxc.payload.web --cgroup-root /x -v4" in said
    assert said.endswith("--action-script /act --ext-mount-map /srv:srv")
    assert criu.arguments(work._replace(action="restore"), [], config)[-1] == "srv:/srv"
    assert criu.interfaces(config, [{"index": 2, "host": "veth1"}, {"index": 5}, {"index": 7}]) == [
        "--external", "veth[eth0]:veth1@br0", "--external", "macvlan[lan]:eth1",
    ]  # fmt: skip


def test_interfaces_that_cannot_be_dumped() -> None:
    config = load_text("lxc.net.0.type = veth\nlxc.net.1.type = ipvlan\nlxc.net.1.name = eth1\n", "config")
    with pytest.raises(ConfigError, match=r"Found un-dumpable network: ipvlan \(eth1\)") as caught:
        criu.check_network(config)
    assert caught.value.at and caught.value.at.line == 2
