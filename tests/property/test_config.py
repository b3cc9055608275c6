"""Laws of the config: codecs, the text, editing; and that no bytes whatever upset the parser."""

from __future__ import annotations

import os
import string
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lxcpy.config import addresses, legacy, light, schema, text, values
from lxcpy.config.check import check
from lxcpy.config.explain import effective, flat
from lxcpy.config.file import ConfigFile
from lxcpy.config.keys.row import FOLD, GROUP, INCLUDE, LIST, MAP, ONE, REMOVED, WORDS
from lxcpy.config.lines import Loader, parse
from lxcpy.config.load import load, load_text
from lxcpy.config.settings import Settings
from lxcpy.errors import ConfigError, ConfigErrors, LxcpyError

ANY = st.text(max_size=60)
BYTES = st.binary(max_size=300)
SLOW = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))

# -- values ----------------------------------------------------------------------------------------------------------

OCTET = st.integers(0, 255).map(str)
IPV4 = st.lists(OCTET, min_size=4, max_size=4).map(".".join)
IPV6 = st.integers(0, 2**128 - 1).map(lambda n: ":".join(f"{n:032x}"[i : i + 4] for i in range(0, 32, 4)))
NAME = st.text(string.ascii_lowercase + string.digits + "_-", min_size=1, max_size=15)
WORD = st.text(string.ascii_letters + string.digits + "/_.-", min_size=1, max_size=12)
PATH = st.lists(WORD, min_size=1, max_size=5).map(lambda parts: "/" + "/".join(parts))
UINT = st.integers(0, values.UINT_MAX)
SPELLED = st.one_of(UINT.map(str), UINT.map(hex), UINT.map(lambda n: f"0{n:o}"))
HEX2 = st.text("0123456789abcdefxX", min_size=2, max_size=2)

GOOD: dict[str, st.SearchStrategy[str]] = {
    "ARCH": st.sampled_from(values.ARCHES_32 + values.ARCHES_64),
    "UINT": SPELLED,
    "INT": st.integers(-(2**31), 2**31 - 1).map(str),
    "SWITCH": st.sampled_from(["0", "1", "0x1", "00", "+1"]),
    "PATH": PATH,
    "SIGNAL": st.sampled_from(["SIGHUP", "sigterm", "SIGRTMIN+5", "SIGRTMAX-3", "9", "0"]),
    "LOG_LEVEL": st.sampled_from([*values.LOG_LEVELS, "info", "0", "8"]),
    "CAPS": st.lists(st.sampled_from([*values.CAPABILITIES, "41"]), min_size=1).map(" ".join),
    "NAMESPACE_NAMES": st.lists(st.sampled_from(values.NAMESPACES), min_size=1).map("\t".join),
    "GIDS": st.lists(SPELLED, min_size=1).map(",".join),
    "ID_MAP": st.tuples(st.sampled_from("ug"), st.integers(0, 2**31), st.integers(0, 2**31), st.integers(1, 2**31)).map(
        lambda it: " ".join(map(str, it))
    ),
    "LIMITS": st.tuples(st.sampled_from(["", " ", "\t"]), *[st.one_of(st.just("unlimited"), UINT.map(str))] * 2).map(
        lambda it: f"{it[1]}{it[0]}:{it[0]}{it[2]}"
    ),
    "TIME_OFFSET": st.tuples(st.integers(-(10**6), 10**6), st.sampled_from(["h", "m", "s", "ms", "us", "ns"])).map(
        lambda it: f"{it[0]}{it[1]}"
    ),
    "RING_SIZE": st.one_of(st.sampled_from(["auto", "1MB", "77KB", "3gb"]), st.integers(0, 10**9).map(str)),
    "AUTO_MOUNT": st.lists(st.sampled_from([*sorted(values.AUTO_MOUNTS), "shmounts:/a:/b"]), min_size=1).map(" ".join),
    "ROOTFS_PATH": st.one_of(PATH, PATH.map(lambda path: f"dir:{path}")),
}
GOOD_NET: dict[str, st.SearchStrategy[str]] = {
    "IPV4_ADDRESS": st.tuples(IPV4, st.integers(0, 32)).map(lambda it: f"{it[0]}/{it[1]}"),
    "IPV6_ADDRESS": st.tuples(IPV6, st.integers(0, 128)).map(lambda it: f"{it[0]}/{it[1]}"),
    "IPV4_GATEWAY": st.one_of(IPV4, st.sampled_from(["auto", "dev"])),
    "IPV4_ROUTE": st.tuples(IPV4, st.integers(0, 32)).map(lambda it: f"{it[0]}/{it[1]}"),
    "IPV6_ROUTE": st.tuples(IPV6, st.integers(0, 128)).map(lambda it: f"{it[0]}/{it[1]}"),
    "LINK": NAME,
    "MAC": st.lists(HEX2, min_size=6, max_size=6).map(":".join),
    "VLAN_ID": st.integers(0, 65535).map(str),
    "PORT_VLAN": st.one_of(st.just("none"), st.integers(0, 4094).map(str)),
}
CODECS = [(getattr(values, name), good) for name, good in GOOD.items()]
CODECS += [(getattr(addresses, name), good) for name, good in GOOD_NET.items()]


def shown(codec: values.Codec, value: object) -> str:
    """A value as text; a codec of words gives a list."""
    if isinstance(value, list):
        return ("," if codec is values.GIDS else " ").join(map(str, value))
    return codec.format(value)


@settings(deadline=None, max_examples=60)
@pytest.mark.parametrize("at", range(len(CODECS)), ids=[*GOOD, *GOOD_NET])
@given(data=st.data())
def test_what_is_shown_can_be_read(at: int, data: st.DataObject) -> None:
    codec, good = CODECS[at]
    value = codec.parse(data.draw(good))
    again = codec.parse(shown(codec, value))
    if codec is values.ARCH:  # LXC shows the personality alone
        assert (value in values.ARCHES_32) == (again in values.ARCHES_32)
    elif codec in (values.ROOTFS_PATH, values.TIME_OFFSET):  # the path without its type; one zero for two
        assert codec.format(again) == codec.format(value)
    else:
        assert again == value


ALL_CODECS = {id(row.value): (row.name, row.value) for row in schema.ROWS}.values()


@settings(deadline=None, max_examples=200)
@given(text=st.one_of(ANY, st.text(string.digits + "xXobkKmMgG:/. +-", max_size=12)).filter(bool))
def test_a_codec_refuses_with_a_reason_or_not_at_all(text: str) -> None:
    for _, codec in ALL_CODECS:
        try:
            value = codec.parse(text)
        except ValueError as error:
            assert str(error)
        else:
            shown(codec, value)


@given(number=st.integers(-(2**70), 2**70))
def test_numbers_are_those_of_strtol(number: int) -> None:
    for spelled in (str(number), hex(number), ("-" if number < 0 else "") + f"0{abs(number):o}"):
        assert values.number(spelled) == values.number(f" \t{spelled}") == number


@given(text=st.text(string.digits + "xXabcdefABCDEF_+- oObBeE.\u0663", max_size=8))
def test_numbers_are_nothing_else(text: str) -> None:
    try:
        number = values.number(text)
    except ValueError:
        return
    assert "_" not in text and "\u0663" not in text and text == text.rstrip()
    assert isinstance(number, int)


@given(path=st.text("/.a", max_size=20))
def test_simplified_paths(path: str) -> None:
    plain = values.simplify(path)
    assert values.simplify(plain) == plain
    assert "//" not in plain and "/./" not in plain and (plain == "/" or not plain.endswith("/"))
    assert plain.startswith("/") == path.startswith("/")
    parts = [part for part in path.split("/") if part not in ("", ".")]
    assert [part for part in plain.split("/") if part not in ("", ".")] == parts


# -- text ------------------------------------------------------------------------------------------------------------


@given(data=BYTES)
def test_bytes_survive(data: bytes) -> None:
    assert text.encode(text.decode(data)) == data


@given(value=st.text(st.characters(blacklist_characters="\n\0", blacklist_categories=("Cs",)), max_size=30))
def test_a_quoted_value_is_read_as_it_is(value: str) -> None:
    # a carriage return at the end of a value cannot be told from one at the end of a line
    assume(not value.endswith("\r") or text.quoted(value) != value)
    line = text.lines(f"lxc.a = {text.quoted(value)}")[0]
    assert line.value == value


# -- settings and files ----------------------------------------------------------------------------------------------

KEYS = [row for row in schema.ROWS if row.shape not in (INCLUDE, REMOVED, GROUP)]
SUBS = {"lxc.prlimit.*": "nofile", "lxc.namespace.share.*": "net", "lxc.cgroup.*": "memory.limit_in_bytes",
        "lxc.cgroup2.*": "memory.max", "lxc.sysctl.*": "a.b", "lxc.proc.*": "oom_score_adj"}  # fmt: skip


def good_for(row: schema.Row) -> st.SearchStrategy[str]:
    for name, good in (*GOOD.items(), *GOOD_NET.items()):
        if row.value is getattr(values, name, None) or row.value is getattr(addresses, name, None):
            return good
    if row.value.grammar.startswith("one of "):
        return st.sampled_from(row.value.grammar.removeprefix("one of ").split(", "))
    return st.sampled_from(["1", "up", "a b", "unix:/x", "x=y", "10.0.0.1", "::1", "daemon", "ro"])


def key_of(row: schema.Row) -> str:
    return row.name.replace("[i]", "2").replace("*", SUBS.get(row.name, ""))


SET = st.sampled_from(KEYS).flatmap(lambda row: st.tuples(st.just(key_of(row)), st.one_of(good_for(row), st.just(""))))
LINES = st.one_of(
    SET.map(lambda it: f"{it[0]} = {it[1]}"),
    st.sampled_from(["", "# note", "martian", "lxc.net.2.type = veth", "lxc.net.2.type = vlan"]),
    st.sampled_from(["lxc.net =", "lxc.net.2 =", "lxc.hook =", "lxc.cgroup2 ="]),
    st.sampled_from(["lxc.network.type = veth", "lxc.network.link = br0", "lxc.network.ipv4 = 10.1.2.3/8"]),
)
TEXTS = st.lists(LINES, max_size=15).map(lambda lines: "\n".join(lines) + "\n")


def loaded(content: str) -> Settings | None:
    loader = Loader()
    loader.apply(parse(content), "config")
    return None if loader.problems else loader.settings


@SLOW
@given(content=TEXTS)
def test_the_flat_text_means_the_same(content: str) -> None:
    whole = loaded(content)
    assume(whole is not None and all("net.type" in nic for nic in whole.nets.values()))
    assert load_text(flat(whole), "flat") == load_text(content, "config")
    list(effective(whole))


@SLOW
@given(content=TEXTS, edit=SET)
def test_an_edit_touches_nothing_else(content: str, edit: tuple[str, str]) -> None:
    assume(loaded(content) is not None)
    config = ConfigFile(content)
    key, value = edit
    before = {other: read(config, other) for other in map(key_of, KEYS)}
    try:
        config.append(key, value)
    except ConfigError:
        assert config.text == content
        return
    again = ConfigFile(config.text)
    assert again.settings.state() == config.settings.state()
    row = schema.lookup(key)
    assert row is not None
    kept = [line for line in content.split("\n") if not sets(line, key)]
    left = [line for line in config.text.split("\n") if not sets(line, key)]
    assert left in (kept, kept[:-1])
    if row.row.into == "net.type" or not value:
        return
    related = {"cap.drop": "lxc.cap.keep", "cap.keep": "lxc.cap.drop"}.get(row.row.into)
    for other, shown_before in before.items():
        if other not in (key, related) and shown_before != "error":  # the edit may begin an interface
            assert read(config, other) == shown_before, other


def sets(line: str, key: str) -> bool:
    name = text.key_of(line)
    found = schema.lookup(name) if name else None
    return found is not None and (found.key == key or found.net == schema.LAST)


def read(config: ConfigFile, key: str) -> str:
    try:
        return config.get(key)
    except ConfigError:
        return "error"


@SLOW
@given(content=TEXTS, key=st.sampled_from(KEYS).map(key_of))
def test_cleared_is_cleared_for_good(content: str, key: str) -> None:
    assume(loaded(content) is not None)
    config, fresh = ConfigFile(content), Settings()
    try:
        config.clear(key)
    except ConfigError:
        assert config.text == content
        return
    found = schema.lookup(key)
    assert found is not None
    for each in (config, ConfigFile(config.text)):
        if found.net is None and found.row.shape in (ONE, LIST, WORDS, FOLD, MAP):
            assert each.get(key) == fresh.get(found)
        elif found.row.into != "net.type" and found.net is not None and not found.row.needs:
            assert each.get(key) in ("", "0")


@SLOW
@given(content=TEXTS)
def test_rewriting_old_names_keeps_the_meaning(content: str) -> None:
    # the numbers go on where interfaces were forgotten, as with LXC's script, so one by number may be another
    assume(not ("lxc.net.2 =" in content and "lxc.network" in content))
    new = legacy.convert(content)
    assert legacy.convert(new) == new
    old, again = loaded(content), loaded(new)
    assert (old is None) == (again is None)
    if old is not None and again is not None:
        assert list(old.nets.values()) == list(again.nets.values())


# -- no bytes whatever -----------------------------------------------------------------------------------------------

JUNK = st.one_of(
    BYTES,
    st.lists(st.one_of(BYTES, st.sampled_from([b"lxc.", b"=", b"\n", b"lxc.net.0.", b"lxc.include = ", b'"', b"'", b"#",
                                               b"lxc.tty.max", b" ", b"\r", b"\0", b"\xff", b"\xef\xbb\xbf"])),
             max_size=20).map(b"".join),
    TEXTS.map(str.encode).flatmap(lambda data: st.tuples(st.just(data), st.integers(0, max(len(data) - 1, 0)),
                                                         st.integers(0, 255)).map(flip)),
)  # fmt: skip


def flip(it: tuple[bytes, int, int]) -> bytes:
    data = bytearray(it[0])
    if data:
        data[it[1]] = it[2]
    return bytes(data)


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=JUNK)
def test_the_parser_survives(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "config")
        Path(file).write_bytes(data)
        try:
            load(file)
            config = ConfigFile.load(file)
            config.save()
            assert Path(file).read_bytes() == data
        except LxcpyError as error:
            assert all(line.isprintable() or "\ufffd" not in line for line in error.lines())
            assert "\n" not in "".join(error.lines())
        light.peek(file)
        check(file)
        legacy.convert(text.decode(data))


@pytest.mark.parametrize(
    "data",
    [
        b"lxc.tty.max = 1\n" * 100_000,
        b"lxc.mount.entry = a b none bind 0 0\n" * 100_000,
        b"lxc.net.%d.type = veth\n" * 50_000,
        b"junk\n" * 1_000_000,
        b"\n" * 1_000_000,
        b"lxc.prlimit.nofile = 1\nlxc.prlimit.nofile =\n" * 30_000,
        b"lxc.cgroup2.a.b = 1\n" * 50_000,
        b"lxc.mount.auto = proc sys cgroup\n" * 50_000,
        b"lxc.namespace.clone = mnt pid\n" * 50_000,
        b"lxc.environment = " + b"x" * 60_000 + b"\n",
        b"lxc." + b"a." * 30_000 + b" = 1\n",
        b"lxc.tty.max = " + b"9" * 60_000 + b"\n",
        b"lxc.idmap = u " + b"9" * 60_000 + b" 1 1\n",
        b"lxc.net.0.ipv6.address = " + b":" * 60_000 + b"\n",
        b"=" * 1_000_000,
        b"lxc.console.size = " + b"1" * 60_000 + b"KB\n",
        b"lxc.time.offset.boot = " + b"1" * 60_000 + b"s\n",
        b"lxc.prlimit.nofile = " + b"1" * 60_000 + b"\n",
        b"lxc.cap.drop = " + b"mknod " * 10_000 + b"\n",
    ],
    ids=lambda data: data[:24].decode(),
)
def test_large_files_take_linear_time(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "config"
    file.write_bytes(data)
    begun = time.process_time()
    try:
        load(str(file))
    except ConfigErrors as error:
        assert all(len(line) < 500 for line in error.lines())
    # a hundred thousand lines at ten microseconds, and room for a busy machine
    assert time.process_time() - begun < 4


@pytest.mark.parametrize(
    "lines",
    [
        [f"lxc.cgroup2.a.x{n} = 1" for n in range(30_000)] + ["lxc.cgroup2.a.x1 ="] * 30_000,
        [f"lxc.cgroup.a.x{n // 2} = {'1' if n % 2 else ''}" for n in range(60_000)],
        ["lxc.network.type = veth", "lxc.network.ipv4 = 10.0.0.1/8"] * 30_000,
        ["lxc.hook.start = a", "lxc.hook ="] * 30_000,
        ["lxc.cap.drop = mknod", "lxc.cap.drop ="] * 30_000,
        [f"lxc.net.{n}.type = veth" for n in range(20_000)] + ["lxc.net.5 ="] * 20_000,
    ],
    ids=lambda lines: lines[0],
)
def test_setting_and_clearing_takes_linear_time(lines: list[str]) -> None:
    begun = time.process_time()
    load_text("\n".join(lines), "config")
    assert time.process_time() - begun < 4
