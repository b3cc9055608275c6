"""liblxc's command protocol as bytes, against what real LXC 5.0.2 was seen to send."""

from __future__ import annotations

import struct

import pytest

from lxcpy.runtime import lxcprotocol as wire


def test_sizes_are_those_of_the_c_structures() -> None:
    structures = {
        wire.HEADER: 16, wire.STATE_MASK: 32, wire.CONSOLE_LOG_REQUEST: 24, wire.CGROUP_FD: 80, wire.CGROUP_CTX: 96,
        wire.DEVICE_ITEM: 40, wire.MESSAGE: 264, wire.CREDENTIALS: 12,
    }  # fmt: skip
    assert [structure.size for structure in structures] == list(structures.values())


def test_short_names_are_the_path() -> None:
    assert wire.socket_name("/tmp/lp", "orc") == b"\0/tmp/lp/orc/command"


@pytest.mark.parametrize("length", [96, 97, 98, 200])
def test_a_name_is_hashed_as_soon_as_it_is_longer_than_105_characters(length: int) -> None:
    path = "/" + "p" * (length - 5)  # /ppp…/web has `length` characters
    address = wire.socket_name(path, "web")
    assert len(f"{path}/web") == length - 0
    if length <= 97:
        assert address == f"\0{path}/web/command".encode()
    else:
        assert address == f"\0lxc/{wire.fnv64a(f'{path}/web'.encode()):016x}/command".encode()


@pytest.mark.parametrize(
    ("data", "value"),
    # the test vectors of the FNV authors
    [(b"", 0xCBF29CE484222325), (b"a", 0xAF63DC4C8601EC8C), (b"foobar", 0x85944171F73967E8)],
)
def test_fnv(data: bytes, value: int) -> None:
    assert wire.fnv64a(data) == value


def test_requests_seen_on_the_wire() -> None:
    assert wire.request(wire.GET_STATE) == bytes.fromhex("03000000000000000000000000000000")
    # lxc-console for any tty: -1 in the pointer's place
    assert wire.request(wire.GET_TTY_FD, value=-1)[:8] == bytes(8)
    assert wire.signed(wire.HEADER.unpack(wire.request(wire.GET_TTY_FD, value=-1))[2]) == -1
    head = wire.request(wire.GET_CONFIG_ITEM, wire.c_string("lxc.arch"))
    assert head[:8] == bytes.fromhex("0700000009000000")
    assert wire.c_string("lxc.arch") == b"lxc.arch\0"


def test_answers_seen_on_the_wire() -> None:
    assert wire.answer(value=0x2AF7) == bytes.fromhex("0000000000000000f72a000000000000")
    assert wire.answer(-1) == bytes.fromhex("ffffffff000000000000000000000000")
    assert wire.answer(8, value=8) == bytes.fromhex("08000000000000000800000000000000")  # ADD_STATE_CLIENT: wait


def test_cgroup_context_seen_on_the_wire() -> None:
    seen = bytes.fromhex("01000000000000000a000000" + "190000001a0000001b0000001c0000001e000000") + bytes(64)
    layout, utilities, count, *fds = wire.CGROUP_CTX.unpack(seen)
    assert (layout, utilities, count, fds[:5]) == (wire.LAYOUT_HYBRID, 0, 10, [25, 26, 27, 28, 30])


def test_messages_survive() -> None:
    data = wire.message("web", wire.state_number("FROZEN"))
    assert data[:7] == struct.pack("=i3s", 0, b"web")
    assert wire.parse_message(data) == wire.Message(wire.MESSAGE_STATE, "web", 6)
    assert wire.parse_message(wire.message("web", 0x8900, wire.MESSAGE_EXIT_CODE)).value == 0x8900
    assert len(wire.message("w" * 300, 0)) == wire.MESSAGE.size


def test_device_rules_survive() -> None:
    for rule in (wire.DeviceRule("c", 10, -1, "rw", True), wire.DeviceRule("a", -1, -1, "", False)):
        assert wire.parse_device(wire.device_item(rule)) == rule
    assert wire.DeviceRule("c", 10, -1, "rwm", True).text == "c 10:* rwm"


@pytest.mark.parametrize(
    "data",
    [
        b"", bytes(39), bytes(40),
        wire.DEVICE_ITEM.pack(b"x", 1, 1, b"r", 1),
        wire.DEVICE_ITEM.pack(b"c", -2, 1, b"r", 1),
        wire.DEVICE_ITEM.pack(b"c", 1, 1, b"q", 1),
        wire.DEVICE_ITEM.pack(b"\xff", 1, 1, b"r", 1),
    ],
)  # fmt: skip
def test_device_rules_that_make_no_sense(data: bytes) -> None:
    assert wire.parse_device(data) is None


def test_names_that_are_no_text() -> None:
    name = b"caf\xe9".decode(errors="surrogateescape")
    assert wire.text(wire.c_string(name)) == name
    assert wire.socket_name("/p", name) == b"\0/p/caf\xe9/command"
