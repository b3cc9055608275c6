"""lxc.cap.drop and lxc.cap.keep as sets of numbers."""

from __future__ import annotations

import pytest

from lxcpy.config.model import Cap
from lxcpy.errors import Origin, SecurityError
from lxcpy.security import caps


def test_drop() -> None:
    plan = caps.plan(Cap(drop=("sys_admin", "CAP_CHOWN", "40")), last=40)
    assert plan.drop == {21, 0, 40} and plan.drops("sys_admin") and not plan.drops("kill")
    assert str(plan) == "drop capabilities chown sys_admin checkpoint_restore"


def test_what_the_kernel_lacks_is_left_out() -> None:
    assert caps.plan(Cap(drop=("checkpoint_restore", "63", "chown")), last=37).drop == {0}


def test_keep() -> None:
    assert caps.plan(Cap(keep=("chown", "kill")), last=6).drop == {1, 2, 3, 4, 6}
    assert caps.plan(Cap(keep=()), last=2).drop == {0, 1, 2}
    assert caps.plan(Cap(keep=("chown", "none", "kill")), last=6).drop == {0, 1, 2, 3, 4, 6}
    assert caps.plan(Cap(), last=40).drop == frozenset()


@pytest.mark.parametrize(("cap", "key"), [(Cap(drop=("sys_amdin",)), "drop"), (Cap(keep=("64",)), "keep")])
def test_unknown_words_name_their_line(cap: Cap, key: str) -> None:
    with pytest.raises(SecurityError) as error:
        caps.plan(cap, last=40, at=lambda name: Origin("web/config", 7) if name == f"lxc.cap.{key}" else None)
    word = (cap.drop or cap.keep or ("",))[0]
    assert error.value.what == f'lxc.cap.{key}: "{word}" is not a capability'
    assert error.value.at == Origin("web/config", 7)


def test_like_another_process() -> None:
    assert caps.plan_like(0b1011, last=3).drop == {2}
