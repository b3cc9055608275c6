"""Debian's order of versions, against dpkg itself (deb-version(7))."""

from __future__ import annotations

import subprocess

from hypothesis import given, settings
from hypothesis import strategies as st
from probes import requires

from lxcpy.bootstrap import version

PART = st.text(alphabet="0123456789abz.+~", max_size=8)
VERSION = st.builds(
    lambda epoch, upstream, revision: f"{epoch}1{upstream}{revision}",
    st.sampled_from(["", "0:", "1:", "12:"]),
    PART,
    st.one_of(st.just(""), PART.map(lambda text: f"-1{text}")),
)


@requires("dpkg")
@settings(max_examples=200, deadline=None)
@given(VERSION, VERSION)
def test_order_is_dpkgs(one: str, other: str) -> None:
    for relation in ("<<", "<=", "=", ">=", ">>"):
        done = subprocess.run(["dpkg", "--compare-versions", one, relation, other], check=False)
        assert version.satisfies(one, relation, other) is (done.returncode == 0), (one, relation, other)


@given(VERSION, VERSION, VERSION)
def test_order_is_an_order(one: str, other: str, third: str) -> None:
    assert version.compare(one, other) == -version.compare(other, one)
    if version.compare(one, other) <= 0 and version.compare(other, third) <= 0:
        assert version.compare(one, third) <= 0
