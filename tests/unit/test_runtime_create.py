"""What a creation writes down of its own options."""

from __future__ import annotations

import pytest

from lxcpy.runtime import create


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["--release", "bookworm", "-S", "key.pub"], "--release bookworm -S key.pub"),
        (["--password=geheim", "-r", "sid"], "--password=*** -r sid"),
        (["--password", "geheim", "-r", "sid"], "--password *** -r sid"),
        (["--pass", "a=b"], "--pass ***"),
        (["--packages=pass"], "--packages=pass"),
        (["--mirror=http://me:geheim@host/debian,https://you:x@other"], "--mirror=http://host/debian,https://other"),
        (["--mirror", "http://host/a@b"], "--mirror http://host/a@b"),
    ],
)
def test_no_secret_is_written_down(words: list[str], shown: str) -> None:
    assert " ".join(create._without_secrets(words)) == shown
