"""A signed archive of Debian's shape, its key, its server and a cache of the test's own; conftest.py gives them to all.

A file that wants more in its archive has a fixture `archive` that takes this one; Alpine's tests have one of another
kind, which the same server serves.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from debmirror import Archive, Key, Server


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Key:
    return Key(tmp_path_factory.mktemp("key") / "home")


@pytest.fixture
def archive(tmp_path: Path, key: Key) -> Archive:
    return Archive(tmp_path / "mirror", key)


@pytest.fixture
def server(archive: Archive) -> Iterator[Server]:
    found = Server(archive.root)
    yield found
    found.stop()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LXCPY_CACHE_DIR", str(tmp_path / "cache"))
    for word in ("MIRROR", "SECURITY_MIRROR", "KEYRING", "LANG"):
        monkeypatch.delenv(word, raising=False)
    return tmp_path / "cache"
