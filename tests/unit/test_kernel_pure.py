"""What of the kernel layer is arithmetic and text."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lxcpy.kernel import idmap, libc, mount
from lxcpy.kernel.record import NamedTuple


class Pair(NamedTuple):
    """A record."""

    left: int
    right: str = "r"

    def both(self) -> str:
        return f"{self.left}{self.right}"


def test_records() -> None:
    pair = Pair(1)
    assert pair == (1, "r") and hash(pair) == hash((1, "r")) and pair.both() == "1r"
    assert Pair(right="x", left=2)._replace(left=3) == Pair(3, "x")
    assert pair._asdict() == {"left": 1, "right": "r"} and Pair._fields == ("left", "right")
    assert repr(pair) == "Pair(left=1, right='r')" and Pair.__doc__ == "A record."
    assert pickle.loads(pickle.dumps(pair)) == pair and Pair._make([4, "y"]).right == "y"
    for wrong in ((), (1, "2", 3)):
        with pytest.raises(TypeError):
            Pair(*wrong)  # type: ignore[arg-type]
    for named in ({"left": 1, "other": 2}, {"right": "x"}):
        with pytest.raises(TypeError):
            Pair(**named)  # type: ignore[arg-type]
    with pytest.raises(AttributeError):
        pair.left = 5  # type: ignore[misc]


def test_decoders() -> None:
    table = {"A": 1, "B": 2, "AB": 3}
    assert libc.flags(table)(3) == "A|B" and libc.flags(table)(0) == "0" and libc.flags(table)(9) == "A|0x8"
    assert libc.choice(table)(2) == "B" and libc.choice(table)(7) == "7"
    assert libc.text(b'a"b\n') == '"a\\"b\\n"' and libc.text(None) == "NULL"
    assert libc.directory(-100) == "AT_FDCWD"


def test_unknown_machines_answer_enosys() -> None:
    with pytest.raises(OSError, match="nosuchcall") as error:
        libc.syscall("nosuchcall")()
    assert error.value.errno == 38


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (0, 0, None, 0)),
        ("defaults", (0, 0, None, 0)),
        ("ro,nosuid", (mount.MS_RDONLY | mount.MS_NOSUID, 0, None, 0)),
        ("ro,rw", (0, 0, None, mount.MS_RDONLY)),
        ("rw,ro", (mount.MS_RDONLY, 0, None, 0)),
        ("rbind,rslave", (mount.MS_BIND | mount.MS_REC, mount.MS_SLAVE | mount.MS_REC, None, 0)),
        ("bind,create=dir,optional", (mount.MS_BIND, 0, "create=dir,optional", 0)),
        ("size=1m, mode=755,noexec", (mount.MS_NOEXEC, 0, "size=1m,mode=755", 0)),
        ("device=x", (0, 0, "device=x", 0)),
    ],
)
def test_mount_options(text: str, expected: tuple[object, ...]) -> None:
    assert mount.parse_options(text) == expected


def test_attributes() -> None:
    assert mount.attributes(mount.MS_RDONLY | mount.MS_NOEXEC | mount.MS_BIND) == 9
    assert mount.describe_flags(mount.MS_BIND | mount.MS_REC) == "MS_BIND|MS_REC"


RANGES = [idmap.IdRange(0, 100000, 10), idmap.IdRange(10, 5, 1), idmap.IdRange(11, 100011, 100)]


@given(st.integers(-5, 200000))
def test_id_arithmetic_is_its_own_inverse(number: int) -> None:
    for there, back in ((idmap.to_host, idmap.to_ns), (idmap.to_ns, idmap.to_host)):
        found = there(RANGES, number)
        assert found is None or back(RANGES, found) == number


def test_id_arithmetic() -> None:
    assert idmap.to_host(RANGES, 9) == 100009 and idmap.to_host(RANGES, 10) == 5
    assert idmap.to_ns(RANGES, 100010) is None and idmap.to_host(RANGES, 111) is None
    assert not idmap.overlaps(RANGES)
    assert idmap.overlaps([*RANGES, idmap.IdRange(500, 100110, 1)])
    assert idmap.overlaps([*RANGES, idmap.IdRange(110, 7, 1)])


def test_subids(tmp_path: Path) -> None:
    (tmp_path / "subuid").write_text("other:1:2\nann:100000:10\n\nbad:line\nann:300000:5\n0:7:1\n")
    uids, gids = idmap.subids("ann", directory=str(tmp_path))
    assert uids == [(0, 100000, 10), (10, 300000, 5)] and gids == []
    assert idmap.subids(0, directory=str(tmp_path))[0] == [(0, 7, 1)]
